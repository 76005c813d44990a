#!/bin/sh
# zinf against DeepSpeed, interleaved (A B A B) in one run: GPT-2 124M, fp32, ZeRO stage 3, 4 x 256 tokens a step in all, 2 ranks with one
# thread each, each rank on a core of its own on both sides. Prints tokens/s of every round and the ratio of the medians.
#
#   PYTHON=/path/to/venv/bin/python sh tests/bench/deepspeed_speed.sh ZINF_PROGRAM [ROUNDS [STEPS]]
#
# The first two steps of a round do not count (allocation, DeepSpeed's trace of the modules). Wants a machine with nothing else to do.
# Environment: ZERO, another "zero_optimization" object (NVME in it stands for a folder of this run); PLAIN=1: zinf also without offload.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
zinf=$(readlink -f "$1") rounds=${2:-2} steps=${3:-8}
python=${PYTHON:-python3} zero=${ZERO:-'{"stage": 3}'}
PATH=$(dirname "$(command -v "$python")"):$PATH # ninja, which DeepSpeed builds its kernels with
enter_work "${TMPDIR:-/tmp}" speed
gpt2_model ds.json "$steps" 1.0 "$(echo "$zero" | sed "s|NVME|$work/nvme|g")"

deepspeed_seconds()
{
    DS_ACCELERATOR=cpu OMP_NUM_THREADS=1 "$python" -m torch.distributed.run --nproc-per-node 2 \
        "$here/deepspeed_speed.py" ds.json "$steps" 2> deepspeed.log | awk '$1 == "step" && $2 > 2 { print $3; n++ } END { exit n == 0 }' ||
        { tail -n 30 deepspeed.log >&2; exit 1; }
}

: > a; : > b; : > c
for round in $(seq "$rounds"); do
    deepspeed_seconds > part && cat part >> a
    printf 'round %d DeepSpeed %.1f tokens/s\n' "$round" "$(median < part | awk '{ print 1024 / $1 }')"
    two_ranks > part && cat part >> b
    printf 'round %d zinf      %.1f tokens/s\n' "$round" "$(median < part | awk '{ print 1024 / $1 }')"
    [ -n "${PLAIN:-}" ] || continue
    two_ranks --set zero_optimization.offload_optimizer.device=none > part && cat part >> c
    printf 'round %d zinf      %.1f tokens/s without offload\n' "$round" "$(median < part | awk '{ print 1024 / $1 }')"
done
echo "$(median < a) $(median < b)" | awk '{ printf "median: DeepSpeed %.3f s, zinf %.3f s a step: ratio %.2f\n", $1, $2, $1 / $2 }'
[ -z "${PLAIN:-}" ] || echo "$(median < b) $(median < c)" | awk '{ printf "offload: %.3f s a step against %.3f s without: %+.1f %%\n", $1, $2, 100 * ($1 / $2 - 1) }'
