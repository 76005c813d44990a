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
enter_work "$folder" checksums
gpt2_model ds.json "$steps" 0.0 "{\"stage\": 3, \"offload_optimizer\": {\"device\": \"nvme\", \"nvme_path\": \"$work/nvme\"},
    \"offload_param\": {\"device\": \"nvme\", \"nvme_path\": \"$work/nvme\"}}"
: > with; : > without
for round in $(seq "$rounds"); do
    for arm in with without; do
        ZINF_SWAP_CHECKSUMS=$([ $arm = with ] && echo 1 || echo 0)
        export ZINF_SWAP_CHECKSUMS
        # shellcheck disable=SC2119 # no options
        two_ranks > part
        cat part >> $arm
        printf 'round %d %s checksums: %.3f s a step\n' "$round" $arm "$(median < part)"
    done
done
echo "$(median < with) $(median < without)" | awk '{
    printf "median: %.3f s a step with checksums, %.3f without: %+.1f %%\n", $1, $2, 100 * ($1 / $2 - 1); exit $1 > 1.05 * $2 }'
