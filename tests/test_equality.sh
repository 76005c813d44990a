#!/bin/sh
# What the contract calls "Losses": ranks, stages, accumulation and what is kept of activations change the work, not the numbers.
# ZINF_LONG=1: more ranks, all stages with inputs of layers on every tier.
. "${srcdir:-.}/tests/lib.sh"
text "$work/text" 80000

# train NAME RANKS STAGE ACCUMULATION ACTIVATIONS [OPTION...]
train() {
    name=$1 n=$2 stage=$3 accumulation=$4 activations=$5
    shift 5
    config "$work/$name.json" "$stage"
    ranks "$n" "$work/$name.json" -q --run-dir "$work/$name" --set "gradient_accumulation_steps=$accumulation" \
        --set "zinf.memory.activations=$activations" "$@" ||
        { fail "$name: exit code $?"; cat "$work/out"; }
}

train one 1 0 1 keep
rank_counts="1 2 3 7" accumulations="1 2" types="bf16 fp16"
[ -z "${ZINF_LONG:-}" ] || rank_counts="1 2 3 4 7"
[ -z "$quick" ] || { rank_counts=3 accumulations=2 types=bf16; }
for n in $rank_counts; do
    for accumulation in $accumulations; do
        for stage in 0 1 2 3; do
            name=r$n-a$accumulation-s$stage
            train "$name" $n $stage $accumulation keep
            same one "$name" 1e-6 5
            same one "$name" 1e-5 20
        done
        same "r$n-a$accumulation-s0" "r$n-a$accumulation-s1" 0
        same "r$n-a$accumulation-s2" "r$n-a$accumulation-s3" 0
    done
done
train recomputed 3 3 2 recompute
same r3-a2-s3 recomputed 0

# Where the inputs of layers stand: seven layers, so that most of them leave their windows; an evaluation between the steps.
mkdir "$work/nvme"
deep="--set zinf.model.config.n_layer=7 --set zinf.train.steps=6 --set zinf.data.eval=$work/text --set zinf.train.eval_every=2
    --set zinf.train.eval_batches=2 --set zinf.train.eval_micro_batch=5 --set zero_optimization.offload_optimizer.nvme_path=$work/nvme"
tiers() { # NAME RANKS STAGE ACCUMULATION [OPTION...]
    prefix=$1
    shift
    for where in keep recompute cpu nvme; do
        # shellcheck disable=SC2086
        train "$prefix-$where" "$1" "$2" "$3" $where $deep $4
        same "$prefix-keep" "$prefix-$where" 0
    done
}
stages="1 3" depths="1 2 5"
[ -z "${ZINF_LONG:-}" ] || { stages="0 1 2 3" depths="1 2 3 5 9"; }
[ -z "$quick" ] || { stages=3 depths=1; }
for stage in $stages; do
    tiers deep-s$stage 2 $stage 3 ""
done
for buffers in $depths; do
    # shellcheck disable=SC2086
    train deep-w$buffers 2 3 3 nvme $deep --set zero_optimization.offload_optimizer.buffer_count=$buffers
    same deep-s3-keep deep-w$buffers 0
done
train serial 3 3 2 keep --set zero_optimization.stage3_prefetch_bucket_size=0
same r3-a2-s3 serial 0

# The same in 16 bits: equal bits where the contract promises them.
for dtype in $types; do
    for stage in 0 1 2 3; do
        train "$dtype-s$stage" 3 $stage 2 keep --set "$dtype.enabled=true"
    done
    same "$dtype-s0" "$dtype-s1" 0
    same "$dtype-s2" "$dtype-s3" 0
    train "$dtype-recomputed" 3 3 2 recompute --set "$dtype.enabled=true"
    same "$dtype-s3" "$dtype-recomputed" 0
    [ -n "$quick" ] || tiers "deep-$dtype" 2 3 2 "--set $dtype.enabled=true"
done
[ -z "$(ls -A "$work/nvme")" ] || fail "files are left on the drive: $(ls "$work/nvme")"
finish
