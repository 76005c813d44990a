#!/bin/sh
# A loss or gradient that is not finite: the step is skipped on all ranks in every type, the place is named once, and too many end the run with 6.
. "${srcdir:-.}/tests/lib.sh"
text "$work/text" 80000
config "$work/ds.json" 3
for type in fp32 bf16; do
    ranks 3 "$work/ds.json" --run-dir "$work/$type" --set optimizer.params.lr=1e30 --set gradient_clipping=0 \
        --set zinf.train.max_nonfinite=4 --set "bf16.enabled=$([ $type = bf16 ] && echo true || echo false)"
    code=$?
    [ $code -eq 6 ] || { fail "$type: exit code $code, not 6"; cat "$work/out"; }
    [ "$(grep -c 'is not finite' "$work/out")" -eq 4 ] || { fail "$type: the place is not named once a step"; cat "$work/out"; }
    [ "$(grep -c '^error\|error:' "$work/out")" -eq 1 ] || { fail "$type: not one error"; cat "$work/out"; }
    tail -n 1 "$work/$type/metrics.jsonl" | grep -q '"loss": null.*"grad_norm": null.*"skipped": 4' ||
        fail "$type: the last line of metrics.jsonl"
done

# fp16, dynamic scale: early overflows only lower the scale; the schedule waits for the first applied step.
ranks 2 "$work/ds.json" --run-dir "$work/fp16" --set fp16.enabled=true --set fp16.initial_scale_power=30 --set fp16.hysteresis=1 ||
    { fail "fp16 with a scale that is too large at first"; cat "$work/out"; }
grep -q '"skipped": 0' "$work/fp16/metrics.jsonl" && fail "fp16: the first step was not skipped"
grep -q 'on rank .* is not finite' "$work/out" && { fail "fp16: an overflow above the minimum was traced"; cat "$work/out"; }
# At its minimum the scale cannot be lowered: traced, and exit 6.
ranks 2 "$work/ds.json" --run-dir "$work/minimum" --set fp16.enabled=true --set fp16.initial_scale_power=30 \
    --set fp16.min_loss_scale=1073741824 --set fp16.hysteresis=1
[ $? -eq 6 ] || { fail "fp16: the scale at its minimum"; cat "$work/out"; }
grep -q 'is not finite' "$work/out" || { fail "fp16: the overflow that ends the run was not traced"; cat "$work/out"; }
finish
