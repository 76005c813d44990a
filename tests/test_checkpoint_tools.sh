#!/bin/sh
# What users do with a checkpoint: HDF5's own tools work on it, and equal runs are equal outside /provenance.
[ -n "$MPIEXEC" ] || { echo "skipped: no mpiexec"; exit 77; }
for tool in h5ls h5dump h5stat h5diff h5repack; do
    command -v $tool > /dev/null || { echo "skipped: no $tool (Debian package hdf5-tools)"; exit 77; }
done
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
a=$folder/a.h5 b=$folder/b.h5
"$MPIEXEC" -n 2 tests/test_checkpoint_mpi save "$a" '{"run": "a"}' || exit 1
"$MPIEXEC" -n 3 tests/test_checkpoint_mpi save "$b" '{"run": "another"}' || exit 1
try() { "$@" > "$folder/out" 2>&1 || { cat "$folder/out"; echo "failed: $*"; exit 1; }; }
try h5ls -r "$a"
grep -q '^/model/.*Dataset, same as /model/' "$folder/out" || { cat "$folder/out"; echo "lm_head is no hard link"; exit 1; }
try h5dump -H "$a"
try h5dump -d /model/lm_head.weight "$a"
try h5stat "$a"
try h5repack "$a" "$folder/repacked.h5"
try h5diff "$a" "$folder/repacked.h5"
try h5diff --exclude-path /provenance "$a" "$b"
h5diff "$a" "$b" > /dev/null && { echo "h5diff does not see the texts differ"; exit 1; }
exit 0
