#!/bin/sh
# What the checksums of states on NVMe cost: GPT-2 124M fp32 with both offloads on disk, 2 ranks with one thread each, steps with and without
# (ZINF_SWAP_CHECKSUMS=0) in turn. At most 5 %.
#
#   sh tests/bench/checksums.sh ZINF_PROGRAM [FOLDER [ROUNDS [STEPS]]]       default: . 3 8
#
# Exit 0: within 5 %, 1: not.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
zinf=$(readlink -f "$1") folder=${2:-.} rounds=${3:-3} steps=${4:-8}
need_space "$folder" 8
work=$(mktemp -d "$(readlink -f "$folder")/zinf-checksums-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
cd "$work"
mkdir nvme
cat "$here"/../*/*.c > corpus.txt
cat > ds.json << END
{
  "train_micro_batch_size_per_gpu": 2,
  "optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "weight_decay": 0.01}},
  "zero_optimization": {"stage": 3, "offload_optimizer": {"device": "nvme", "nvme_path": "$work/nvme"},
                        "offload_param": {"device": "nvme", "nvme_path": "$work/nvme"}},
  "zinf": {
    "model": {"config": {"model_type": "gpt2", "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}, "init": "random"},
    "data": {"train": "corpus.txt", "tokenizer": "bytes", "sequence_length": 256, "shuffle": false},
    "train": {"steps": $steps}
  }
}
END
: > with; : > without
for round in $(seq "$rounds"); do
    for arm in with without; do
        rm -rf run
        ZINF_SWAP_CHECKSUMS=$([ $arm = with ] && echo 1 || echo 0) "${MPIEXEC:-mpiexec}" -bind-to core -n 2 "$zinf" ds.json --threads 1 -q \
            --run-dir run > log 2>&1 || { cat log >&2; exit 1; }
        step_seconds run 2 > part
        cat part >> $arm
        printf 'round %d %s checksums: %.3f s a step\n' "$round" $arm "$(median < part)"
    done
done
echo "$(median < with) $(median < without)" | awk '{
    printf "median: %.3f s a step with checksums, %.3f without: %+.1f %%\n", $1, $2, 100 * ($1 / $2 - 1); exit $1 > 1.05 * $2 }'
