#!/bin/sh
# How a job ends when one rank ends: the exit code, one message, and soon.
[ -n "$MPIEXEC" ] || { echo "skipped: no mpiexec"; exit 77; }
log=${TMPDIR:-/tmp}/zinf-endings-$$
trap 'rm -f "$log"' EXIT
failures=0

# expect CODE SECONDS TEXT COMMAND...: CODE "any" = not 0; TEXT is a pattern that some line must match ("" = none asked)
expect() {
    code=$1 seconds=$2 text=$3
    shift 3
    begin=$(date +%s%N)
    "$@" >"$log" 2>&1
    got=$?
    took=$((($(date +%s%N) - begin) / 1000000))
    case $code in
    any) [ $got -ne 0 ] ;;
    *) [ $got -eq "$code" ] ;;
    esac && [ $took -lt $((seconds * 1000)) ] && { [ -z "$text" ] || grep -Eq "$text" "$log"; } && return
    echo "failed: $*: exit code $got (not $code?), $took ms, message:"
    cat "$log"
    failures=$((failures + 1))
}

p=tests/comm_endings
expect 0 5 "" "$MPIEXEC" -n 3 $p
expect 42 2 "" "$MPIEXEC" -n 3 $p abort 42 1
expect 5 2 "" "$MPIEXEC" -n 4 $p abort 5 0
expect 6 2 "" $p abort 6 0
expect any 2 "" "$MPIEXEC" -n 3 $p kill 2
expect 1 3 "rank [02] of 3 on .*: no progress for .* in barrier" "$MPIEXEC" -n 3 $p late 1
expect 1 3 "waits from rank 1\\.$" "$MPIEXEC" -n 3 $p stuck 1
ZINF_FAULT="op=exchange,n=3,err=EIO,rank=1"
export ZINF_FAULT
expect 1 2 "rank 1 of 3 on .*: exchange failed: Input/output error" "$MPIEXEC" -n 3 $p exchanges 5
expect 0 5 "" "$MPIEXEC" -n 3 $p exchanges 2
ZINF_FAULT="op=gather,n=2,kill=1,rank=0"
expect any 2 "" "$MPIEXEC" -n 3 $p
ZINF_FAULT="op=agree,n=1,err=EIO"
expect 1 2 "failed: Input" "$MPIEXEC" -n 2 $p loop 1
unset ZINF_FAULT

# One of four tasks that srun started without PMI; and four things that only look like it.
srun_none() { env SLURM_PROCID="$1" SLURM_STEP_NUM_TASKS=4 SLURM_NTASKS=4 $p; }
expect 2 2 "srun started 4 tasks.*--mpi=pmi2" srun_none 0
expect 2 2 "" srun_none 3
[ -s "$log" ] && { echo "failed: a task other than the first spoke:"; cat "$log"; failures=$((failures + 1)); }
expect 2 2 "srun --mpi=pmi2" env SLURM_PROCID=0 SLURM_NTASKS=4 $p
expect 0 2 "" env SLURM_PROCID=0 SLURM_NTASKS=4 ENVIRONMENT=BATCH $p
expect 0 2 "" env SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=1 SLURM_NTASKS=4 $p
expect 0 2 "" env SLURM_NTASKS=4 $p
expect 0 2 "" env SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=4 "$MPIEXEC" -n 1 $p
[ $failures -eq 0 ]
