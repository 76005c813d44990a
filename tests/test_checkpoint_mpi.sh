#!/bin/sh
# A checkpoint written on n ranks is the same file for every n, and every m ranks load it bit for bit. Then faults on each rank.
[ -n "$MPIEXEC" ] || { echo "skipped: no mpiexec"; exit 77; }
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
for n in 1 2 3 4 7; do
    "$MPIEXEC" -n $n tests/test_checkpoint_mpi save "$folder/$n.h5" '{}' || { echo "save failed on $n ranks"; exit 1; }
    cmp "$folder/1.h5" "$folder/$n.h5" || { echo "the file depends on the ranks: $n"; exit 1; }
done
for m in 1 2 3 4 7; do
    "$MPIEXEC" -n $m tests/test_checkpoint_mpi load "$folder/1.h5" || { echo "load failed on $m ranks"; exit 1; }
done
for n in 1 3; do
    "$MPIEXEC" -n $n ./zinf export -q "$folder/4.h5" "$folder/export$n" --dtype bf16 --shard-size 1MB || { echo "export failed on $n ranks"; exit 1; }
done
diff -r "$folder/export1" "$folder/export3" || { echo "the export depends on the ranks"; exit 1; }
mkdir "$folder/faults"
timeout 60 "$MPIEXEC" -n 3 tests/test_checkpoint_mpi faults "$folder/faults" 2> "$folder/log" ||
    { tail -5 "$folder/log"; echo "a fault on one rank was not handled"; exit 1; }
