#!/bin/sh
# New weights that are made in the backward pass, before the norm is known, are those of the plain order, bit for bit, whether DECIDE then says
# the same update, a clipped one, or none: losses, norms and every checkpoint against CPU ranks without offload. On tests/late_device.c, with
# limits of the norm that clip no step, some, and all; with evaluations, checkpoints right behind a step, resume, steps that are not finite.
# ZINF_LONG=1: 1, 2 and 4 ranks, all stages and types with each limit.
. "${srcdir:-.}/tests/lib.sh"
text "$work/text" 60000
late=$(pwd)/tests/tools/zinf_late
o=zero_optimization.offload_optimizer
seed=0 early=0 refused=0
common="--set zinf.model.config.n_layer=4 --set zero_optimization.sub_group_size=2048 --set zinf.train.steps=12
    --set zinf.data.eval=$work/text --set zinf.train.eval_every=5 --set zinf.train.eval_batches=2 --set zinf.train.eval_micro_batch=5
    --set zinf.checkpoint.every_steps=4 --set zinf.checkpoint.num_to_keep=9 --set zero_optimization.stage3_max_live_parameters=12000"

# started PROGRAM NAME RANKS STAGE OPTION...
started() {
    with=$1 name=$2 n=$3
    config "$work/$name.json" "$4"
    shift 4
    # shellcheck disable=SC2086
    "$mpiexec" -n "$n" "$with" "$work/$name.json" --threads 1 --run-dir "$work/$name" $common "$@" > "$work/out" 2>&1
}

# whole PROGRAM NAME RANKS STAGE OPTION...: it runs to its end
whole() {
    started "$@" || { fail "$2: exit code $?"; cat "$work/out"; }
}

# same NAME OTHER: the numbers of all steps, and all checkpoints
same() {
    out=$("$tools/metrics_diff" "$work/$1/metrics.jsonl" "$work/$2/metrics.jsonl" 0) || fail "$2 (seed $seed) against $1: $out"
    command -v h5diff > /dev/null || return 0
    for file in "$work/$1"/checkpoints/step-*.h5; do
        h5diff --exclude-path /provenance "$file" "$work/$2/checkpoints/$(basename "$file")" > "$work/differ" ||
            fail "$2 (seed $seed): $(basename "$file") differs from $1's: $(head -n 3 "$work/differ")"
    done
}

# again NAME AS RANKS STAGE OPTION...: on the device, its states in host memory, with the next seed; $percent of all records were made ahead
# and stand, $thrown were made in vain
again() {
    name=$1 as=$2
    shift 2
    seed=$((seed + 1))
    ZINF_LATE_SEED=$seed whole "$late" "$name" "$@" --set $o.device=cpu
    same "$as" "$name"
    line=$(grep 'the update lane computed' "$work/out")
    percent=$(echo "$line" | sed -n 's/.* records, \([0-9]*\) % of them in the backward pass.*/\1/p')
    thrown=$(echo "$line" | sed -n 's/.*new weights of \([0-9]*\) more thrown away.*/\1/p')
    [ -z "${SAY:-}" ] || echo "$name: $percent % $thrown thrown"
    early=$((early + ${percent:-0})) refused=$((refused + ${thrown:-0}))
    # metrics.jsonl says it step by step; what the last step's lane did behind its line is in the end table alone
    told=$(sed -n 's/.*"refused_records": *\([0-9]*\).*/\1/p' "$work/$name/metrics.jsonl" | awk '{ n += $1 } END { print n + 0 }')
    { [ "${thrown:-0}" -gt 0 ] || [ "$told" -eq 0 ]; } && { [ "${thrown:-0}" -le 6 ] || [ "$told" -gt 0 ]; } ||
        fail "$name: $thrown thrown away on a rank at the end, in the lines $told"
}

# clipped RUN LIMIT: steps whose norm is above it
clipped() {
    sed -n 's/.*"grad_norm": \([0-9.e+-]*\),.*/\1/p' "$work/$1/metrics.jsonl" | awk -v limit="$2" '$1 > limit { n++ } END { print n + 0 }'
}

# norm RUN WHICH: of its norms, sorted, the one at this fraction
norm() {
    sed -n 's/.*"grad_norm": \([0-9.e+-]*\),.*/\1/p' "$work/$1/metrics.jsonl" | sort -g | awk -v at="$2" '{ all[NR] = $1 } END { print all[1 + int(at * (NR - 1))] }'
}

rank_counts="1 2" types="bf16 fp16" stages="1 3"
[ -z "$quick" ] || { rank_counts=2 types=bf16 stages=3; }
[ -z "${ZINF_LONG:-}" ] || { rank_counts="1 2 4" types="bf16 fp16 fp32" stages="1 2 3"; }
# in short each number of ranks, each type and each stage with one or two of the others
left_out()
{
    case ${ZINF_LONG:+long}$1 in bf16-1-1 | fp16-1-1 | fp16-2-3) return 0 ;; *) return 1 ;; esac
}
for type in $types; do
    for n in $rank_counts; do
        for stage in $stages; do
            base=$type-$n-$stage
            ! left_out $base || continue
            options="--set gradient_accumulation_steps=$((stage == 1 ? 1 : 2))"
            [ "$type" = fp32 ] || options="$options --set $type.enabled=true"
            # shellcheck disable=SC2086
            whole "$program" "$base-never" "$n" "$stage" $options --set gradient_clipping=0
            some=$(norm "$base-never" 0.5) all=$(norm "$base-never" 0)
            # shellcheck disable=SC2086
            for limit in never:0 some:"$some" all:"$(awk -v x="$all" 'BEGIN { print 0.9 * x }')" first:1e-3; do
                which=${limit%:*}
                [ "$which" != first ] || [ -n "${ZINF_LONG:-}" ] || continue
                set -- "$n" "$stage" $options --set gradient_clipping="${limit#*:}"
                [ "$which" = never ] || whole "$program" "$base-$which" "$@"
                steps=$(clipped "$base-$which" "${limit#*:}")
                case $which in
                some) { [ "$steps" -gt 1 ] && [ "$steps" -lt 11 ]; } || fail "$base: $steps of 12 steps were clipped by $limit" ;;
                all | first) [ "$steps" -ge 11 ] || fail "$base: $steps of 12 steps were clipped by $limit" ;;
                esac
                again "$base-$which-late" "$base-$which" "$@" --set $o.super_offload=true
                case $which in
                never) [ "$type" = fp16 ] || [ "$thrown" = 0 ] || fail "$base-never: $thrown thrown away" ;;
                all | first) [ "$type" = fp16 ] || [ "$percent" = 0 ] || fail "$base-$which: $percent % were made ahead, and stood" ;;
                esac
            done
        done
    done
done
[ "$early" -gt 0 ] || fail "nothing was made ahead and stood"
[ "$refused" -gt 0 ] || fail "nothing was made ahead and thrown away"

# A lane that is slower than the steps: DECIDE falls while it makes weights, and new gradients come before it has done with the old.
for limit in never:0 some:"$(norm bf16-2-3-never 0.5)"; do
    # shellcheck disable=SC2086
    ZINF_FAULT=op=update,delay_us=4000 again "slow-${limit%:*}" "bf16-2-3-${limit%:*}" 2 3 --set bf16.enabled=true --set gradient_accumulation_steps=2 \
        --set gradient_clipping="${limit#*:}"
done

# Behind the norm where it is said, and in fp32 where nothing is said: there the master would take memory of its own.
bf16="--set bf16.enabled=true --set gradient_accumulation_steps=2"
# shellcheck disable=SC2086
again plain bf16-2-3-never 2 3 $bf16 --set gradient_clipping=0 --set $o.super_offload=false
[ "$percent" = 0 ] || fail "super_offload false: $percent % in the backward pass"
# shellcheck disable=SC2086
again absent bf16-2-3-never 2 3 $bf16 --set gradient_clipping=0
grep -q 'new weights are made in the backward pass' "$work/out" || fail "bf16, nothing said: nothing is made ahead"
# planned OPTION...: bytes of host memory that a plan counts in fp32
planned() {
    "$program" plan "$work/plain.json" -q --ranks 2 --json --gpu-memory 4GB --set $o.device=cpu "$@" | sed -n 's/.*"host_bytes": *\([0-9]*\).*/\1/p'
}
# Shards of whole 1024 elements: 4 bytes each, whole pages.
more=$(($(planned --set $o.super_offload=true) - $(planned)))
[ "$more" -gt 0 ] && [ $((more % 4096)) -eq 0 ] || fail "fp32: weights ahead of the norm take $more bytes more"
[ "$(planned --set bf16.enabled=true --set $o.super_offload=true)" = "$(planned --set bf16.enabled=true --set $o.super_offload=false)" ] ||
    fail "bf16: weights ahead of the norm take memory"
ZINF_LINK=host whole "$late" fp32 2 3 --set $o.device=cpu --set $o.super_offload=true
used=$(sed -n 's/.*"pinned_bytes": *\([0-9]*\).*/\1/p' "$work/fp32/metrics.jsonl" | tail -n 1)
# shellcheck disable=SC2086
wanted=$(ZINF_LINK=host planned $common --set $o.super_offload=true)
[ "$used" = "$wanted" ] || fail "fp32: host memory: run $used, plan $wanted"
# shellcheck disable=SC2086
"$late" "$work/plain.json" -q --run-dir "$work/small" $common --set $o.device=cpu --set $o.super_offload=true \
    --set zinf.memory.host=$((wanted / 4)) > "$work/out" 2>&1
[ $? -eq 3 ] || { fail "more than the budget of host memory: not exit code 3"; cat "$work/out"; }

# Twin-Flow: the states of the first blocks stay on the device and are updated there, of all at ratio 0; on CPU ranks both are RAM.
some=$(norm bf16-2-3-never 0.5)
# shellcheck disable=SC2086
again ratio bf16-2-3-some 2 3 $bf16 --set gradient_clipping="$some" --set $o.ratio=0.6
grep -q 'of the first [1-9][0-9]* of [1-9][0-9]* blocks on the device' "$work/out" || fail "ratio 0.6: all states are on the host"
# shellcheck disable=SC2086
if [ -z "$quick" ]; then
    again ratio-0 bf16-2-3-some 2 3 $bf16 --set gradient_clipping="$some" --set $o.ratio=0
    [ -z "$line" ] || fail "ratio 0: there is an update lane"
    again ratio-parameters bf16-2-3-some 2 3 $bf16 --set gradient_clipping="$some" --set $o.ratio=0.6 --set zero_optimization.offload_param.device=cpu
    whole "$program" ratio-cpu 2 3 $bf16 --set gradient_clipping="$some" --set $o.device=cpu --set $o.ratio=0.6
    same bf16-2-3-some ratio-cpu
    for stage in 1 2; do
        whole "$program" "fp32-$stage" 2 $stage --set gradient_clipping=0
        for ratio in 0.4 0; do
            again "ratio-$stage-$ratio" "fp32-$stage" 2 $stage --set gradient_clipping=0 --set $o.ratio=$ratio --set $o.super_offload=true
        done
        again "ratio-$stage-plain" "fp32-$stage" 2 $stage --set gradient_clipping=0 --set $o.ratio=0.4 --set $o.super_offload=false
    done
    again ratio-1-3 bf16-1-3-some 1 3 $bf16 --set gradient_clipping="$(norm bf16-1-3-never 0.5)" --set $o.ratio=0.4
fi
# device_and_host ARGUMENTS...: what a plan counts
device_and_host() {
    ZINF_LINK=host "$program" plan "$work/plain.json" -q --ranks 2 --json --gpu-memory 4GB $common $bf16 --set $o.device=cpu "$@" |
        sed -n 's/.*"\(device\|host\)_bytes": *\([0-9]*\).*/\2/p' | tr '\n' ' '
}
# shellcheck disable=SC2046
set -- $(device_and_host --set $o.ratio=0.6) $(device_and_host)
{ [ "$1" -gt "$3" ] && [ "$2" -lt "$4" ]; } || fail "ratio 0.6 takes no memory from the host to the device: $*"
# shellcheck disable=SC2086
ZINF_LINK=host whole "$late" ratio-plan 2 3 $bf16 --set $o.device=cpu --set $o.ratio=0.6
used=$(sed -n 's/.*"device_bytes": *\([0-9]*\), *"pinned_bytes": *\([0-9]*\).*/\1 \2/p' "$work/ratio-plan/metrics.jsonl" | tail -n 1)
[ "$used" = "$1 $2" ] || fail "ratio 0.6: run $used, plan $1 $2"

# Stopped behind a step whose update is half done, and gone on with.
# shellcheck disable=SC2086
{
    ZINF_LATE_SEED=3 started "$late" resumed 2 3 $bf16 --set gradient_clipping=0 --set $o.device=cpu --max-steps 6
    [ $? -eq 75 ] || { fail "stopped: not 75"; cat "$work/out"; }
    ZINF_LATE_SEED=4 whole "$late" resumed 2 3 $bf16 --set gradient_clipping=0 --set $o.device=cpu
}
same bf16-2-3-never resumed

# The trace: outputs are made under the backward pass, the rest is done under the next step's forward pass.
# shellcheck disable=SC2086
ZINF_TRACE=$work/trace ZINF_LATE_SEED=5 whole "$late" traced 2 3 $bf16 --set gradient_clipping=0 --set $o.device=cpu
awk -F'"ts": |, "dur": |, "name": "|"}' '
    /"tid": 0,/ && $4 == "decide" { decided[++steps] = $2 }
    /"tid": 0,/ && $4 ~ /^backward/ && !((steps + 1) in backward) { backward[steps + 1] = $2 }
    /"tid": 2,/ { split($4, word, ", step "); begin[++updates] = $2; step[updates] = word[2] + 0; ahead[updates] = $4 ~ /ahead$/; rest[updates] = $4 ~ /rest$/ }
    END {
        for (i = 1; i <= updates; i++) {
            s = step[i]
            if (ahead[i] && begin[i] > backward[s] && begin[i] < decided[s]) early++
            if (ahead[i] && (begin[i] < backward[s] || begin[i] > decided[s] + 1e6)) wrong++
            if (rest[i] && begin[i] > decided[s] && (s == steps || begin[i] < backward[s + 1])) under++
        }
        if (!early || !under || wrong) { print early + 0 " ahead in the backward pass, " wrong + 0 " not, " under + 0 " rests under the forward pass"; exit 1 }
    }' "$work/trace.0.json" > "$work/out" || { fail "trace: $(cat "$work/out")"; }
finish
