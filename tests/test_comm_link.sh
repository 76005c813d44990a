#!/bin/sh
# The communicator between devices: the tests of tests/test_comm.cc over NCCL's calls, with the device of tests/late_device.c and the library of
# tests/fake_nccl.c in the places of a GPU and NCCL. Then how it is chosen, and how it ends. ZINF_LONG=1: twice the seeds.
[ -n "$MPIEXEC" ] || { echo "skipped: no mpiexec"; exit 77; }
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
failures=0
ZINF_FAKE_NCCL=$folder ZINF_CUDA_LIBRARIES=tests/fake ZINF_LATE_LINK=own
export ZINF_FAKE_NCCL ZINF_CUDA_LIBRARIES ZINF_LATE_LINK
p=tests/test_comm_link

ZINF_LINK=nccl $p link --gtest_brief=1 || { echo "failed on one rank"; exit 1; }
for n in 2 3 4 7; do
    for seed in 0 1 2 3; do
        [ -z "${ZINF_QUICK:-}" ] || [ $((n % 4)) = $seed ] || continue
        [ -n "${ZINF_LONG:-}" ] || [ $((n % 2)) = $((seed % 2)) ] || continue
        ZINF_LATE_SEED=$seed "$MPIEXEC" -n $n $p link --gtest_brief=1 || { echo "failed on $n ranks, seed $seed"; exit 1; }
    done
done
[ -z "$(find "$folder" -name '*.part')" ] || { echo "failed: what is under way was left behind"; exit 1; }

# expect CODE SECONDS TEXT COMMAND...: TEXT is a pattern that some line must match
expect() {
    code=$1 seconds=$2 text=$3
    shift 3
    begin=$(date +%s%N)
    "$@" > "$folder/log" 2>&1
    got=$?
    took=$((($(date +%s%N) - begin) / 1000000))
    [ "$got" -eq "$code" ] && [ $took -lt $((seconds * 1000)) ] && grep -Eq "$text" "$folder/log" && return
    echo "failed: ${ZINF_FAKE_NCCL_FAULT:-} $*: exit code $got (not $code?), $took ms, message:"
    cat "$folder/log"
    failures=$((failures + 1))
}
with() {
    ZINF_FAKE_NCCL_FAULT=$1
    export ZINF_FAKE_NCCL_FAULT
    shift
    expect "$@"
    unset ZINF_FAKE_NCCL_FAULT
}

# Operations 1 and 2 are those of the start, then all-gathers and exchanges in turn.
p="$MPIEXEC -n 3 tests/link_endings"
expect 0 20 "^nccl by NCCL [0-9.]*: 60000 and 60000 bytes" $p 20 6
expect 0 20 "^choice: NCCL [0-9.]* between 3 GPUs, one for each rank" $p 20 1
grep -q "^note: each rank sees one GPU only, .*srun --gpu-bind=none" "$folder/log" ||
    { echo "failed: GPUs that are hidden from neighbours: not said"; failures=$((failures + 1)); }
with start,rank=1 1 20 "rank 1 of 3 on .*: no progress for 1 s in the start of NCCL: another rank does not take part, or the network" $p 0.6 1
with refuse,rank=1 1 20 "rank 1 of 3 on .*: the start of NCCL failed: NCCL: system error.*NCCL_SOCKET_IFNAME" $p 20 1
with stuck,n=1,rank=2 1 20 "no progress for 1 s in the first operations of NCCL" $p 0.6 1
with async,n=5,rank=2 1 20 "rank 2 of 3 on .*: .* [345] of 5000 bytes a rank failed: NCCL: remote error: fake NCCL; another rank or the network" $p 20 6
with "stuck,n=4,rank=2 async,n=6,rank=2" 1 20 "rank 2 of 3 on .*: (all-gather 3|exchange 4) of 5000 bytes a rank failed: NCCL: remote error" $p 20 6
with call,n=4,rank=0 1 20 "rank 0 of 3 on .*: exchange failed: NCCL: invalid argument" $p 20 6
with stuck,n=5,rank=1 1 20 "no progress for .* waits for transfers of NCCL, all-gather 5 of 5000 bytes" $p 0.6 6
with old 2 20 "^rank 0 cannot exchange with other GPUs: NCCL 21400 in tests/fake/libnccl.so.2 is too old: .* ZINF_LINK=host" $p 20 1
mkdir "$folder/broken"
echo no library > "$folder/broken/libnccl.so.2"
expect 2 20 "^rank 0 cannot exchange .*: NCCL in .*broken/libnccl.so.2 cannot be loaded: " env ZINF_CUDA_LIBRARIES="$folder/broken" $p 20 1
expect 0 20 "^choice: through host memory by MPI: ranks 0 and 1 share the GPU 00000000:00:00.0" env ZINF_LATE_LINK=shared $p 20 1
expect 2 20 "^ZINF_LINK=nccl, but ranks 0 and 1 share the GPU" env ZINF_LATE_LINK=shared ZINF_LINK=nccl $p 20 1
expect 0 20 "^choice: through host memory by MPI: ZINF_LINK=host" env ZINF_LINK=host $p 20 1
expect 1 20 "rank 1 of 3 on .*: exchange failed: Input/output error" env ZINF_FAULT="op=exchange,n=2,err=EIO,rank=1" $p 20 6
[ $failures -eq 0 ]
