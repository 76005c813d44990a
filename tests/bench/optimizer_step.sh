#!/bin/sh
# The update of a model whose states are on NVMe and whose compute is small, against the drive: at most
# (24 B x parameters / fio's mixed rate of the same run) / 0.85.
#
#   sh tests/bench/optimizer_step.sh ZINF_PROGRAM [FOLDER [STEPS]]       default: . 4
#
# A step's update time is the step without forward, loss and backward, so waits for gathers and reductions count as well. fio runs before and
# after. Environment: LAYERS, WIDTH (20 and 2048: 1.007 G parameters), RANKS (2). Takes 24 bytes a parameter of disk (the states, and the
# checkpoint at the end, whose rate is printed too) and 8 of memory. Exit 0: within the limit, 1: not, 77: no fio or no space.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
zinf=$(readlink -f "$1") folder=${2:-.} steps=${3:-4}
layers=${LAYERS:-20} width=${WIDTH:-2048} ranks=${RANKS:-2}
need_fio
need_space "$folder" $((24 * 12 * layers * width * width / 1073741824 + 6))
enter_work "$folder" optimizer
wide_model ds.json "$layers" "$width" 8 "{\"stage\": 3, \"stage3_max_live_parameters\": $((24 * width * width)),
    \"offload_optimizer\": {\"device\": \"nvme\", \"nvme_path\": \"$work/nvme\"}, \"offload_param\": {\"device\": \"cpu\"}}"
before=$(mixed_rate "$work")
"${MPIEXEC:-mpiexec}" -n "$ranks" "$zinf" ds.json --threads 1 --run-dir run --set zinf.train.steps="$steps" > log 2>&1 || { cat log >&2; exit 1; }
rm -rf run/checkpoints
after=$(mixed_rate "$work")
parameters=$(sed -n 's/^model .*(\([0-9]*\)).*/\1/p' log | head -n 1)
compute=0
for name in forward loss backward; do
    compute=$(awk -v sum="$compute" -v one="$(activity_seconds $name log)" 'BEGIN { print sum + one }')
done
awk -v n="$parameters" -v step="$(step_seconds run 1 | median)" -v compute="$compute" -v steps="$steps" -v before="$before" -v after="$after" \
    -v optimizer="$(activity_seconds optimizer log)" -v read="$(last_number nvme_read_bytes run/metrics.jsonl)" \
    -v write="$(last_number nvme_write_bytes run/metrics.jsonl)" -v written="$(sed -n 's/^checkpoint .* written in \([0-9.]*\) s.*/\1/p' log)" 'BEGIN {
    rate = (before + after) / 2; update = step - compute / steps; limit = 24 * n / rate / 0.85
    printf "%.0f M parameters, fio %.2f and %.2f GB/s, %.2f B read and %.2f B written a parameter and step\n", n / 1e6, before / 1e9, after / 1e9, read / n, write / n
    printf "step %.2f s, compute %.2f s, optimizer lane %.2f s; update %.2f s against a limit of %.2f s: %.2f of it, %.2f of the drive\n",
        step, compute / steps, optimizer / steps, update, limit, update / limit, 24 * n / rate / update
    if (written > 0) printf "checkpoint: %.1f s, %.2f of the drive (12 B read, 12 B written a parameter)\n", written, 24 * n / rate / written
    exit update > limit }'
