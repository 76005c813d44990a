#!/bin/sh
# The communicator's tests on 1, 2, 3, 4 and 7 ranks; the first without mpiexec. comm_bytes counts with MPI's profiling interface.
[ -n "$MPIEXEC" ] || { echo "skipped: no mpiexec"; exit 77; }
tests/test_comm && tests/comm_bytes || exit 1
for n in 2 3 4 7; do
    "$MPIEXEC" -n $n tests/test_comm --gtest_brief=1 || { echo "failed on $n ranks"; exit 1; }
    "$MPIEXEC" -n $n tests/comm_bytes || { echo "bytes differ on $n ranks"; exit 1; }
done
ZINF_SHARED=0 WANT_SHARED=0 "$MPIEXEC" -n 3 tests/test_comm --gtest_brief=1 || { echo "failed without shared memory"; exit 1; }
# Three nodes of 1, 2 and 3 ranks, played by one machine: shared memory within, messages between.
t="tests/test_comm --gtest_brief=1"
"$MPIEXEC" -n 1 env SLURMD_NODENAME=a $t : -n 2 env SLURMD_NODENAME=b $t : -n 3 env SLURMD_NODENAME=c $t ||
    { echo "failed on three nodes"; exit 1; }
# A limit on file size leaves no memory to share, and nobody is killed by it (MPI itself needs some MB of files).
(ulimit -f 40000; WANT_SHARED=0 "$MPIEXEC" -n 2 $t) || { echo "failed with ulimit -f"; exit 1; }
