#!/bin/sh
# A really full disk: a 4 MB tmpfs, a 9 MB checkpoint. All ranks hear of it, nothing is left, nobody hangs.
[ -n "$MPIEXEC" ] || { echo "skipped: no mpiexec"; exit 77; }
[ "$(id -u)" = 0 ] || { echo "skipped: only root can mount a small tmpfs"; exit 77; }
folder=$(mktemp -d) || exit 1
mount -t tmpfs -o size=4m tmpfs "$folder" 2> /dev/null || { rmdir "$folder"; echo "skipped: no right to mount"; exit 77; }
trap 'umount "$folder"; rmdir "$folder"' EXIT
for n in 1 2 4; do
    timeout 30 "$MPIEXEC" -n $n tests/test_checkpoint_mpi full "$folder/x.h5" || { echo "failed or hung on $n ranks"; exit 1; }
    [ -z "$(ls "$folder")" ] || { echo "left behind:"; ls -la "$folder"; exit 1; }
done
