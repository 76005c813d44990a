#!/bin/sh
# A step on a device with memory of its own gives the bits of the CPU: stages x offload x ranks x types, with accumulation, clipping, skipped
# steps, evaluation, resume. The device is tests/late_device.c: whatever a run forgets to copy, or to wait for, is a wrong number or a crash.
# Blocks whose calls stay the same from step to step are recorded and launched (zinf.graphs on), with dropout too.
# ZINF_LONG=1: 4 ranks and fp16 as well, each twice.
. "${srcdir:-.}/tests/lib.sh"
text "$work/text" 60000
mkdir "$work/nvme"
late=$(pwd)/tests/tools/zinf_late
seed=0 steps=10

# again NAME AS RANKS STAGE OPTION...: the same steps as AS on the device, with the next seed
again() {
    other=$2
    name=$1 seed=$((seed + 1))
    cpu=$program program=$late
    export ZINF_LATE_SEED=$seed
    shift 2
    train "$name" "$@" --set zinf.graphs=on
    program=$cpu
    recorded=$(sed -n 's/.*graphs  *on: \([0-9]*\) of .*/\1/p' "$work/$name/zinf.log")
    [ "${recorded:-0}" -ge 4 ] || fail "$name: ${recorded:-no} blocks were recorded and launched: $(grep graphs "$work/$name/zinf.log")"
    out=$("$tools/metrics_diff" "$work/$other/metrics.jsonl" "$work/$name/metrics.jsonl" 0) || fail "$name (seed $seed) against $other: $out"
    last=$(ls "$work/$other/checkpoints" | grep '^step-.*h5$' | tail -n 1)
    if command -v h5diff > /dev/null; then
        h5diff --exclude-path /provenance "$work/$other/checkpoints/$last" "$work/$name/checkpoints/$last" > "$work/differ" ||
            fail "$name (seed $seed): its checkpoint differs from $other's: $(head -n 3 "$work/differ")"
    fi
}

rank_counts="1 2" types="fp32 bf16" seeds=1
[ -z "$quick" ] || { rank_counts=2 types=bf16; }
[ -z "${ZINF_LONG:-}" ] || { rank_counts="1 2 4" types="fp32 bf16 fp16" seeds="1 2"; }
# in short each number of ranks has a type of its own
left_out()
{
    case ${ZINF_LONG:+long}$1-$2 in fp32-2 | bf16-1) return 0 ;; *) return 1 ;; esac
}
deep="--set zinf.model.config.n_layer=4"
# Two windows and no more: each is filled again while its last content may still be in use.
tight="--set zero_optimization.stage3_max_live_parameters=12000"
# shellcheck disable=SC2046,SC2086
for type in $types; do
    for n in $rank_counts; do
        ! left_out $type $n || continue
        options="$deep --set gradient_accumulation_steps=2 --set zinf.data.eval=$work/text --set zinf.train.eval_every=4
            --set zinf.train.eval_batches=2 --set zinf.train.eval_micro_batch=5"
        [ $type = fp32 ] || options="$options --set $type.enabled=true"
        for stage in 0 1 2 3; do
            base=$type-$n-$stage
            train $base $n $stage $options
            for s in $seeds; do
                again $base-late$s $base $n $stage $options
            done
            [ $stage -gt 0 ] || continue
            for where in cpu nvme; do
                again $base-o$where $base $n $stage $options $(optimizer_on $where) --set zero_optimization.sub_group_size=2048
            done
        done
        for s in $seeds; do
            again $base-tight$s $base $n 3 $options $tight
            again $base-tight-ocpu$s $base $n 3 $options $tight $(optimizer_on cpu)
        done
        for where in cpu nvme; do
            again $base-ocpu-p$where $base $n 3 $options $tight $(optimizer_on cpu) $(parameters_on $where)
            again $base-p$where $base $n 3 $options $tight $(parameters_on $where) --set zero_optimization.sub_group_size=2048
        done
        again $base-ratio-pnvme $base $n 3 $options $tight $(optimizer_on cpu) $(parameters_on nvme) --set $o.ratio=0.6
        again $base-onvme-pnvme $base $n 3 $options $(optimizer_on nvme) $(parameters_on nvme)
    done
done

# Without clipping the records on NVMe are updated in the backward pass.
# shellcheck disable=SC2046,SC2086
for stage in 1 ${ZINF_LONG:+2} 3; do
    options="$deep --set bf16.enabled=true --set gradient_clipping=0 --set gradient_accumulation_steps=3"
    train early-$stage 2 $stage $options
    for buffers in 1 4; do
        again early-$stage-$buffers early-$stage 2 $stage $options $(optimizer_on nvme) --set $o.buffer_count=$buffers \
            --set zero_optimization.sub_group_size=2048
    done
done

# Skipped steps, where nothing may change; positions by rotation, grouped queries, a gated MLP; another optimizer.
# shellcheck disable=SC2046,SC2086
for stage in 1 3; do
    options="--set fp16.enabled=true --set fp16.initial_scale_power=28 --set fp16.hysteresis=1"
    # in stage 3 the scale of the loss grows and falls, with steps between them in which what depends on it is recorded and launched
    [ $stage = 1 ] || options="--set fp16.enabled=true --set fp16.initial_scale_power=17 --set fp16.hysteresis=1 --set fp16.loss_scale_window=3"
    train skip-$stage 2 $stage $options
    grep -q '"skipped": *[1-9]' "$work/skip-$stage/metrics.jsonl" || fail "no step was skipped"
    again skip-$stage-late skip-$stage 2 $stage $options
    where=$(optimizer_on cpu)
    [ $stage = 1 ] || where=$(parameters_on cpu)
    again skip-$stage-cpu skip-$stage 2 $stage $options $where
    options='--set zinf.model.config={"model_type":"llama","vocab_size":257,"hidden_size":32,"intermediate_size":48,"num_hidden_layers":3,"num_attention_heads":4,"num_key_value_heads":2,"max_position_embeddings":32}'
    options="$options --set bf16.enabled=true --set optimizer={\"type\":\"SGD\",\"params\":{\"lr\":1e-2}}"
    train llama-$stage 2 $stage $options
    again llama-$stage-late llama-$stage 2 $stage $options
done

# Inputs of layers leave the device: three windows there, below them host memory or two or four windows of the drive.
# shellcheck disable=SC2046,SC2086
for stage in 1 3; do
    layers=9
    [ $stage = 1 ] || layers=4
    options="--set zinf.model.config.n_layer=$layers --set bf16.enabled=true --set gradient_accumulation_steps=2 --set zinf.data.eval=$work/text
        --set zinf.train.eval_every=4 --set zinf.train.eval_batches=2 --set zinf.train.eval_micro_batch=5"
    train inputs-$stage 2 $stage $options
    again inputs-$stage-cpu inputs-$stage 2 $stage $options --set zinf.memory.activations=cpu
    for buffers in 2 4 2 4; do # four seeds: from the laziest to the hastiest
        again inputs-$stage-nvme$buffers-$seed inputs-$stage 2 $stage $options --set zinf.memory.activations=nvme $(optimizer_on nvme) \
            --set $o.buffer_count=$buffers
    done
done

# Whether an operation took long is the device's to say: forward and backward of each block, step and micro-batch, and no more.
config "$work/times.json" 3
# shellcheck disable=SC2086
ZINF_LATE_RECORDER=refuse program=$late ranks 2 "$work/times.json" --run-dir "$work/times" --set zinf.train.steps=4 $deep \
    --set gradient_accumulation_steps=2 --set zinf.graphs=on || fail "exit code $? with the table of the device's times"
grep -q 'warning: graphs: forward layer 0 could not be recorded: this device was told to refuse' "$work/out" || { fail "no word of what was refused"; cat "$work/out"; }
sed -n '/^on the device/,$p' "$work/out" > "$work/table"
for row in forward backward; do
    awk -v row=$row '$1 == row && $4 > 0 { n = $6 } END { exit n != 4 * 2 * 8 }' "$work/table" ||
        { fail "the table of the device's times has no $row of 4 steps, 2 micro-batches, 8 blocks"; cat "$work/out"; }
done

# Stopped on one, gone on with on the other.
bf16="--set bf16.enabled=true $deep"
whole=resumed
# shellcheck disable=SC2046,SC2086
train $whole 2 3 $bf16
cp "$work/$whole.json" "$work/mixed.json"
for first in "$program" "$late"; do
    rm -rf "$work/mixed"
    other=$late
    [ "$first" = "$program" ] || other=$program
    # shellcheck disable=SC2086
    "$mpiexec" -n 2 "$first" "$work/mixed.json" -q --threads 1 --run-dir "$work/mixed" --set zinf.train.steps=10 $bf16 --max-steps 4 > "$work/out" 2>&1
    [ $? -eq 75 ] || { fail "stopped: not 75"; cat "$work/out"; }
    # shellcheck disable=SC2086
    "$mpiexec" -n 2 "$other" "$work/mixed.json" -q --threads 1 --run-dir "$work/mixed" --set zinf.train.steps=10 $bf16 > "$work/out" 2>&1 ||
        { fail "gone on with: $?"; cat "$work/out"; }
    if command -v h5diff > /dev/null; then
        h5diff --exclude-path /provenance "$work/$whole/checkpoints/step-00000010.h5" "$work/mixed/checkpoints/step-00000010.h5" > /dev/null ||
            fail "resumed across devices, first $first: the checkpoint differs"
    fi
done
for each in "$program" "$late"; do
    # shellcheck disable=SC2086
    "$mpiexec" -n 2 "$each" eval "$work/mixed.json" -q --json --threads 1 --run-dir "$work/mixed" --set zinf.train.steps=10 $bf16 \
        --set zinf.data.eval="$work/text" --checkpoint latest > "$work/eval.$(basename "$each")" 2> "$work/out" || { fail "eval by $each: $?"; cat "$work/out"; }
done
cmp "$work/eval.zinf" "$work/eval.zinf_late" || fail "zinf eval differs: $(cat "$work/eval.zinf" "$work/eval.zinf_late")"

# What the plan says of a GPU is what such a run takes.
for where in none cpu nvme parameters; do
    on=$(optimizer_on $where)
    [ $where != parameters ] || on=$(parameters_on cpu)
    # shellcheck disable=SC2086
    ZINF_LINK=host "$program" plan "$work/$whole.json" -q --ranks 2 --json --gpu-memory 4GB --set zinf.train.steps=10 $bf16 $on > "$work/plan" ||
        fail "zinf plan --gpu-memory: $?"
    # shellcheck disable=SC2086
    again plan-$where $whole 2 3 $bf16 $on
    for bytes in device_bytes:device_bytes pinned_bytes:host_bytes; do
        used=$(number "${bytes%:*}" "$work/plan-$where/metrics.jsonl") planned=$(number "${bytes#*:}" "$work/plan")
        [ "$used" -eq "$planned" ] || fail "optimizer $where: ${bytes%:*}: run $used, plan $planned"
    done
done
grep -q '"device": "late: a device for tests"' "$work/plan-none/results.json" || fail "results.json does not name the device"
# What a context takes beside it is found, and what does not fit is told before the pool is taken.
# shellcheck disable=SC2086
ZINF_LATE_OUTSIDE=100000000 "$late" "$work/$whole.json" -q --run-dir "$work/card" --set zinf.train.steps=1 --set zinf.graphs=off $bf16 > "$work/out" 2>&1 || { fail "context: $?"; cat "$work/out"; }
[ "$(number context_bytes "$work/card/results.json")" -eq 100000000 ] || fail "the context is not measured"
more=$(($(number card_bytes "$work/card/results.json") - $(number device_bytes "$work/card/metrics.jsonl")))
[ $more -ge 100000000 ] && [ $more -lt 100010000 ] || fail "beside what was asked for the card has $more bytes"
ZINF_LATE_OUTSIDE=4200000000 "$late" "$work/$whole.json" -q --run-dir "$work/full" > "$work/out" 2>&1
[ $? -eq 3 ] && grep -q 'on the device, .* are allowed (0.95 x what is free on the device' "$work/out" || { fail "a full card: not 3"; cat "$work/out"; }
{ grep -q '^  stage 3, param cpu  .*does not fit' "$work/out" && grep -q '^  micro-batch 1*[0-9]*, accumulation' "$work/out"; } || { fail "no table"; cat "$work/out"; }
cpu=$program program=$late
ZINF_LATE_REFUSES=100000 ranks 2 "$work/$whole.json" -q --run-dir "$work/full"
[ $? -eq 3 ] && [ "$(grep -c 'rank 0 needs .* MiB on the device, which has refused them' "$work/out")" -eq 1 ] &&
    [ "$(grep -c 'what a rank would need' "$work/out")" -eq 1 ] || { fail "memory that is refused: not one table"; cat "$work/out"; }
program=$cpu
# refused WORDS OPTION...
refused() {
    words=$1
    shift
    "$late" "$work/$whole.json" -q --run-dir "$work/refused" --set zinf.train.steps=10 "$@" > "$work/out" 2>&1
    [ $? -eq 2 ] && grep -qF -- "$words" "$work/out" || { fail "no '$words'"; cat "$work/out"; }
}
refused 'zinf.device: "cuda", but there is no such device here' --device cuda
[ -z "$(ls -A "$work/nvme")" ] || fail "files are left on the drive: $(ls "$work/nvme")"
finish
