#!/bin/sh
# A model whose states (16 B a parameter) are four times what memory allows (RLIMIT_DATA): bf16, 16-bit gradients, recomputed activations,
# both offloads on NVMe. It trains, its resident memory is the plan's, and a step takes at most 1.25 x max(compute, what the drive needs for
# the step's bytes by fio's mixed rate of the same run). Compute is the step of the same run without offload and without the limit.
#
#   sh tests/bench/memory_limit.sh ZINF_PROGRAM [FOLDER [STEPS]]       default: . 5
#
# Environment: LAYERS, WIDTH, SEQUENCE (24, 1024, 512: 304 M parameters). One rank with all cores. Exit 0: both hold, 1: not, 77: no fio or no space.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
zinf=$(readlink -f "$1") folder=${2:-.} steps=${3:-5}
layers=${LAYERS:-24} width=${WIDTH:-1024} sequence=${SEQUENCE:-512}
need_fio
need_space "$folder" $((40 * 12 * layers * width * width / 1073741824 + 6))
enter_work "$folder" limit
wide_model ds.json "$layers" "$width" "$sequence" "{\"stage\": 3, \"offload_optimizer\": {\"device\": \"nvme\", \"nvme_path\": \"$work/nvme\"},
    \"offload_param\": {\"device\": \"nvme\", \"nvme_path\": \"$work/nvme\"}}" '"memory": {"activations": "recompute"}'
parameters=$("$zinf" plan ds.json --ranks 1 --json 2> /dev/null | sed -n 's/.*"parameters": *\([0-9]*\).*/\1/p' | head -n 1)
[ -n "$parameters" ] || parameters=$((12 * layers * width * width))
kib=$((parameters * 16 / 4 / 1024))
before=$(mixed_rate "$work")
"$zinf" ds.json --run-dir free --set zinf.train.steps="$steps" --set zero_optimization.offload_optimizer.device=none \
    --set zero_optimization.offload_param.device=none -q > log 2>&1 || { cat log >&2; exit 1; }
rm -rf free/checkpoints
# shellcheck disable=SC3045 # ulimit -d: dash, bash and busybox have it
(ulimit -d "$kib"; exec "$zinf" ds.json --run-dir run --set zinf.train.steps="$steps" > log 2>&1) || { cat log >&2; exit 1; }
rm -rf run/checkpoints
after=$(mixed_rate "$work")
# shellcheck disable=SC3045
(ulimit -d "$kib"; exec "$zinf" plan ds.json --ranks 1 --json > planned 2> /dev/null) || { echo "no plan"; exit 1; }
awk -v n="$parameters" -v kib="$kib" -v step="$(step_seconds run 1 | median)" -v compute="$(step_seconds free 1 | median)" -v before="$before" -v after="$after" \
    -v read="$(last_number nvme_read_bytes run/metrics.jsonl)" -v write="$(last_number nvme_write_bytes run/metrics.jsonl)" \
    -v rss="$(last_number rss_bytes run/metrics.jsonl)" -v device="$(last_number device_bytes planned)" -v host="$(last_number host_bytes planned)" 'BEGIN {
    floor = 2 * (read + write) / (before + after); most = compute > floor ? compute : floor; plan = device + host
    printf "%.0f M parameters: states %.2f GB, limit %.2f GB; resident %.0f MB, plan %.0f MB (at most 1.10 x plan + 67 MB = %.0f)\n",
        n / 1e6, 16 * n / 1e9, kib * 1024 / 1e9, rss / 1e6, plan / 1e6, (1.1 * plan + 67108864) / 1e6
    printf "step %.2f s, compute %.2f s, drive %.2f s (%.1f B read, %.1f B written a parameter at %.2f GB/s): %.2f of the larger, at most 1.25\n",
        step, compute, floor, read / n, write / n, (before + after) / 2e9, step / most
    exit step > 1.25 * most || rss > 1.1 * plan + 67108864 }'
