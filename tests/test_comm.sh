#!/bin/sh
# The communicator's tests on 1, 2, 3, 4 and 7 ranks; the first without mpiexec. comm_bytes counts with MPI's profiling interface.
[ -n "$MPIEXEC" ] || { echo "skipped: no mpiexec"; exit 77; }
tests/test_comm && tests/comm_bytes || exit 1
for n in 2 3 4 7; do
    "$MPIEXEC" -n $n tests/test_comm --gtest_brief=1 || { echo "failed on $n ranks"; exit 1; }
    "$MPIEXEC" -n $n tests/comm_bytes || { echo "bytes differ on $n ranks"; exit 1; }
done
