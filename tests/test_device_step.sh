#!/bin/sh
# A step on a device with memory of its own gives the bits of the CPU: stages x offload x ranks x types, with accumulation, clipping, skipped
# steps, evaluation, resume. The device is tests/late_device.c: whatever a run forgets to copy, or to wait for, is a wrong number or a crash.
. "${srcdir:-.}/tests/lib.sh"
text "$work/text" 60000
mkdir "$work/nvme"
late=$(pwd)/tests/tools/zinf_late
o=zero_optimization.offload_optimizer p=zero_optimization.offload_param
seed=0

# train NAME RANKS STAGE OPTION...: ten steps on the CPU
train() {
    name=$1 n=$2
    config "$work/$name.json" "$3"
    shift 3
    ranks "$n" "$work/$name.json" -q --run-dir "$work/$name" --set zinf.train.steps=10 "$@" ||
        { fail "$name: exit code $?"; cat "$work/out"; }
}

# again NAME AS RANKS STAGE OPTION...: the same steps as AS on the device, with the next seed
again() {
    other=$2
    name=$1 seed=$((seed + 1))
    cpu=$program program=$late
    export ZINF_LATE_SEED=$seed
    shift 2
    train "$name" "$@"
    program=$cpu
    out=$("$tools/metrics_diff" "$work/$other/metrics.jsonl" "$work/$name/metrics.jsonl" 0) || fail "$name (seed $seed) against $other: $out"
    last=$(ls "$work/$other/checkpoints" | grep '^step-.*h5$' | tail -n 1)
    if command -v h5diff > /dev/null; then
        h5diff --exclude-path /provenance "$work/$other/checkpoints/$last" "$work/$name/checkpoints/$last" > "$work/differ" ||
            fail "$name (seed $seed): its checkpoint differs from $other's: $(head -n 3 "$work/differ")"
    fi
}

optimizer_on() {
    echo "--set $o.device=$1 --set $o.nvme_path=$work/nvme"
}
parameters_on() {
    echo "--set $p.device=$1 --set $p.nvme_path=$work/nvme"
}

rank_counts="1 2 4" types="fp32 bf16 fp16" seeds="1 2 3 4"
[ -z "$quick" ] || { rank_counts="1 2" types="fp32 bf16" seeds=1; }
# shellcheck disable=SC2046,SC2086
for type in $types; do
    for n in $rank_counts; do
        [ -z "$quick" ] || [ $type$n != fp321 ] || continue
        options="--set gradient_accumulation_steps=2 --set zinf.data.eval=$work/text --set zinf.train.eval_every=4
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
        for where in cpu nvme; do
            again $base-ocpu-p$where $base $n 3 $options $(optimizer_on cpu) $(parameters_on $where)
        done
        again $base-onvme-pnvme $base $n 3 $options $(optimizer_on nvme) $(parameters_on nvme)
    done
done
finish
