#!/bin/sh
# How matrix products are made is chosen once for all ranks and kept: ranks that would measure otherwise use rank 0's algorithms, a run that goes
# on has the bits of one that was never stopped, whatever it would measure now, and what cannot be kept is said. The device is
# tests/late_device.c with the CUDA backend's own files over tests/fake_cublaslt.c, whose algorithms add in different orders.
. "${srcdir:-.}/tests/lib.sh"
text "$work/text" 20000
late=$(pwd)/tests/tools/zinf_late
export ZINF_CUDA_LIBRARIES="$(pwd)/tests/fake" ZINF_LATE_PRODUCTS=1
steps=6
common="--set train_batch_size=24 --set gradient_accumulation_steps=2 --set zinf.train.steps=$steps --set zinf.data.eval=$work/text
    --set zinf.train.eval_every=4 --set zinf.train.eval_batches=2 --set zinf.train.eval_micro_batch=5 -v"

# run NAME RANKS LIBRARY OPTION...: to $work/NAME, the library as LIBRARY says; its exit code is returned
run() {
    name=$1 n=$2 library=$3
    shift 3
    config "$work/$name.json" 3
    cpu=$program program=$late
    # shellcheck disable=SC2086
    ZINF_FAKE_CUBLASLT=$library ranks "$n" "$work/$name.json" --run-dir "$work/$name" $common "$@"
    code=$?
    program=$cpu
    cp "$work/out" "$work/$name.out"
    return $code
}

# whole NAME RANKS LIBRARY OPTION...: all steps
whole() {
    run "$@" || { fail "$1: exit code $?"; cat "$work/out"; }
}

# said NAME WORDS...
said() {
    grep -qF -- "$2" "$work/$1.out" || { fail "$1: no '$2'"; cat "$work/$1.out"; }
}

# alike NAME NAME: checkpoints and all numbers
alike() {
    same "$1" "$2"
    "$program" inspect --diff "$work/$1/checkpoints/latest" "$work/$2/checkpoints/latest" > "$work/differ" 2>&1 ||
        fail "$1 against $2: $(head -n 3 "$work/differ")"
}

# differ NAME NAME: the algorithms do not give the same bits, so that equal bits mean equal algorithms
differ() {
    ! "$tools/metrics_diff" "$work/$1/metrics.jsonl" "$work/$2/metrics.jsonl" 0 > /dev/null || fail "$1 and $2 are alike: this test proves nothing"
}

# nothing that a step makes was left to be prepared in it
prepared() {
    awk '/products    [0-9]/ { begun = 1 } begun && /was not prepared/ { print; found = 1 } END { exit !begun || found }' "$work/$1.out" > "$work/late" ||
        fail "$1: $(head -n 3 "$work/late")"
}

# Each kind of product in each type by what is chosen, its activation by the library, against the CPU.
[ ! -x tests/test_device_late ] || ZINF_FAKE_CUBLASLT=fast=1,fuse=1 tests/test_device_late --gtest_filter='*AProduct*/late' > "$work/out" 2>&1 ||
    { fail "products of the device"; cat "$work/out"; }

types=bf16 counts=2
[ -z "${ZINF_LONG:-}" ] || { types="fp32 bf16 fp16" counts="2 3 4"; }
for type in $types; do
    enabled=$([ $type = fp32 ] || echo "--set $type.enabled=true")
    for n in $counts; do
        base=$type-$n
        # shellcheck disable=SC2086
        {
            whole $base-2 $n fast=2 $enabled
            said $base-2 "timed on rank 0 (3.00 x the first algorithms); ready in"
            prepared $base-2
            device=$late late=$program
            whole $base-cpu $n - $enabled
            late=$device
            same $base-cpu $base-2 $([ $type = fp32 ] && echo 1e-5 || echo 1e-2)
            whole $base-0 $n fast=0 $enabled
            differ $base-0 $base-2
            whole $base-rank $n fast=rank $enabled --set zinf.memory.activations=recompute
            alike $base-0 $base-rank

            # stopped, and gone on with by a machine that would choose otherwise
            run $base-parts $n fast=2 $enabled --max-steps 3
            [ $? -eq 75 ] || { fail "$base: not stopped"; cat "$work/out"; }
            cp -a "$work/$base-parts" "$work/$base-changed"
            whole $base-parts $n fast=3,fuse=1 $enabled
            said $base-parts "as in the checkpoint"
            alike $base-2 $base-parts

            # activations that the library makes itself, where that was faster: in every forward pass of a run and its continuation
            [ $type != fp32 ] || continue
            said $base-2 ", then an operation of its own"
            whole $base-fused $n fast=2,fuse=1 $enabled
            [ "$(grep -c "gelu.*, fused, " "$work/$base-fused.out")" -eq 3 ] || { fail "$base: not three activations are fused"; cat "$work/out"; }
            differ $base-2 $base-fused
            same $base-2 $base-fused 1e-2
            run $base-again $n fast=2,fuse=1 $enabled --max-steps 3
            whole $base-again $n fast=2 $enabled --set zinf.memory.activations=recompute
            alike $base-fused $base-again
        }
    done
done

# Another library: chosen again, and said.
# shellcheck disable=SC2086
whole $base-changed $n fast=3,version=130999 $enabled
said $base-changed "changed since the checkpoint: matrix products: cuBLASLt"
said $base-changed "-> cuBLASLt 130999, a device for tests (the numbers go on within rounding, not bit for bit)"
differ $base-2 $base-changed
"$program" inspect --diff "$work/$base-2" "$work/$base-changed" > "$work/diff" 2>&1
grep -q "products .*cuBLASLt [0-9]*, a device for tests, algorithms [0-9a-f]* | cuBLASLt 130999, a device" "$work/diff" || { fail "inspect --diff"; cat "$work/diff"; }

# The evaluation of a checkpoint is made as the run's own.
# shellcheck disable=SC2086
ZINF_FAKE_CUBLASLT=fast=3 "$mpiexec" -n $n "$late" eval "$work/$base-2.json" -q --json --threads 1 --run-dir "$work/$base-2" $common $enabled \
    --checkpoint latest > "$work/eval" 2> "$work/out" || { fail "zinf eval: $?"; cat "$work/out"; }
[ "$(number eval_loss "$work/eval")" = "$(number eval_loss "$work/$base-2/metrics.jsonl")" ] ||
    fail "zinf eval: $(number eval_loss "$work/eval"), the run had $(number eval_loss "$work/$base-2/metrics.jsonl")"

# Nothing is timed, and every rank takes the first algorithm: when asked to, where ranks differ, where no memory is left.
# shellcheck disable=SC2086
{
    whole first $n fast=3 $enabled --deterministic
    said first "the first algorithms; ready in"
    prepared first
    alike $base-0 first
    whole unlike $n fast=3,version=rank $enabled
    said unlike "rank 0 has cuBLASLt 0, a device for tests, rank 1 has cuBLASLt 1, a device for tests: no algorithms are timed"
    alike $base-0 unlike
    ZINF_LATE_FREE=8192 whole full $n fast=3 $enabled
    said full "by the first algorithm: no memory is left to time them"
    alike $base-0 full
}

# Without the library there is nothing to choose.
mkdir "$work/broken"
for file in tests/fake/libcublasLt.so.*; do
    echo "no library" > "$work/broken/$(basename "$file")"
done
ZINF_CUDA_LIBRARIES=$work/broken whole none 1 -
said none "cuBLASLt cannot be used"
said none "by zinf's own kernel; ready in"

# TF32 where it is asked for: other bits, and a choice of its own.
whole exact 1 fast=2
whole tf32 1 fast=2 --set zinf.tf32=true
said tf32 "with TF32, a device for tests"
differ exact tf32
finish
