#!/bin/sh
# zinf against DeepSpeed's own numbers: the same ds.json, weights and text, 20 steps; losses, lr, grad_norm and the final weights have to
# agree (tests/oracle/README.md). Then mutants: a ds.json that differs in one number has to be found out.
#
#   test_deepspeed.sh [NAME...]       default: a choice that meets every stage, rank count, schedule, optimizer and type once;
#                                     ZINF_LONG=1: all stored cases
# ZINF_TEST_VERBOSE=1 prints every step.
set -u
srcdir=${srcdir:-$(dirname "$0")/..} MPIEXEC=${MPIEXEC:-mpiexec}
data=$srcdir/tests/data/deepspeed
tool=$PWD/tests/tools/deepspeed_case
zinf=$PWD/zinf
work=$(mktemp -d "${TMPDIR:-/tmp}/zinf-deepspeed.XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
case $data in /*) ;; *) data=$PWD/$data ;; esac

choice='adamw-z0-r1-a1 adamw-z0-r2-a4 adamw-z0-r3-a1 adamw-z1-r2-a1 adamw-z1-r4-a4 adamw-z2-r1-a4 adamw-z2-r3-a4 adamw-z2-r4-a1
    adamw-z3-r1-a1 adamw-z3-r2-a4 adamw-z3-r3-a1 adamw-z3-r4-a4 schedule-warmup-linear schedule-warmup-decay schedule-warmup-cosine
    schedule-one-cycle schedule-range-test optimizer-adam-l2 optimizer-adamw-no-correction optimizer-sgd-momentum optimizer-adagrad
    optimizer-lion llama-z3-r2-a1 llama-z1-r3-a4 llama3-z2-r2-a1 bf16-z1-r2-a4 bf16-z3-r2-a1 fp16-static-z3-r2-a4
    fp16-dynamic-z2-r2-a1 fp16-doubling-z3-r2-a1'
if [ $# -gt 0 ]; then
    choice=$*
elif [ -n "${ZINF_QUICK:-}" ]; then
    choice='adamw-z0-r2-a4 adamw-z3-r3-a1 schedule-one-cycle optimizer-sgd-momentum llama-z3-r2-a1 bf16-z3-r2-a1'
elif [ -n "${ZINF_LONG:-}" ]; then
    choice=$(cd "$data" && printf '%s\n' *.json | sed '/^model-/d; s/[.]json$//')
fi

# run NAME [OPTION...]: trains the case in $work/run and prints the verdict.
run()
{
    name=$1
    shift
    rm -rf "$work/run"
    ranks=$("$tool" ds "$data/$name.json" "$work/ds.json") || return 2
    if ! (cd "$work" && "$MPIEXEC" -n "$ranks" "$zinf" ds.json --run-dir run --threads 1 -q "$@") > "$work/log" 2>&1; then
        echo "FAIL $name: zinf ended with an error"
        tail -n 20 "$work/log"
        return 2
    fi
    "$tool" compare "$data/$name.json" "$work/run"
}

"$tool" fixture "$data" "$work" || exit 99
passed=0 failed=0
for name in $choice; do
    if run "$name"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
done

# mutant NAME KEY=VALUE: the same case with one number changed must fail the comparison, and by nothing but that.
mutant()
{
    out=$(run "$1" --set "$2")
    if [ $? -eq 1 ]; then
        passed=$((passed + 1))
        echo "found out: $2: $out"
    else
        failed=$((failed + 1))
        echo "FAIL mutant $2 was not found out: $out"
    fi
}
if [ $# -eq 0 ] && [ -z "${ZINF_QUICK:-}" ]; then
    mutant adamw-z2-r2-a1 'optimizer.params.betas=[0.9,0.955]'
    mutant adamw-z2-r2-a1 'optimizer.params.weight_decay=0.09'
    mutant adamw-z2-r2-a1 'gradient_clipping=1.7'
    mutant adamw-z2-r2-a1 'scheduler.params.warmup_num_steps=6'
    mutant optimizer-adam-l2 'optimizer.params.adam_w_mode=true'
    mutant optimizer-sgd-momentum 'optimizer.params.momentum=0.89'
fi
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
