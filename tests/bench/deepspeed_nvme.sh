#!/bin/sh
# deepspeed_speed.sh with optimizer states on NVMe on both sides (sub_group_size 2e7), and zinf without offload beside it: how many times
# DeepSpeed's tokens/s, and what offload costs.
#
#   PYTHON=/path/to/venv/bin/python [TMPDIR=/folder/on/the/drive] sh tests/bench/deepspeed_nvme.sh ZINF_PROGRAM [ROUNDS [STEPS]]
#
# DeepSpeed compiles async_io and cpu_adam at the first use, which needs libaio-dev and ninja. Takes about 4 GB of disk below TMPDIR.
set -eu
# shellcheck disable=SC2089 # JSON: its quotes are meant
ZERO='{"stage": 3, "sub_group_size": 2e7,
    "offload_optimizer": {"device": "nvme", "nvme_path": "NVME", "buffer_count": 4, "pin_memory": false}}'
PLAIN=1
# shellcheck disable=SC2090
export ZERO PLAIN
exec sh "$(dirname "$0")/deepspeed_speed.sh" "$@"
