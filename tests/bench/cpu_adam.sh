#!/bin/sh
# AdamW of zinf (zinf bench adam) against DeepSpeed's CPUAdam, in turn in one run: 16 M fp32 parameters, two threads each.
#
#   PYTHON=/path/to/venv/bin/python sh tests/bench/cpu_adam.sh ZINF_PROGRAM [ROUNDS [THREADS]]       default: 5 2
#
# DeepSpeed compiles cpu_adam at the first use, which needs ninja and a C++ compiler. Exit 0: at least as fast as DeepSpeed and 0.90 of the
# read-modify-write stream, 1: not.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
PATH=$(dirname "$(command -v "$python")"):$PATH # ninja
DS_ACCELERATOR=cpu OMP_NUM_THREADS=${3:-2} OMP_WAIT_POLICY=passive
export PATH DS_ACCELERATOR OMP_NUM_THREADS OMP_WAIT_POLICY
exec "$python" "$here/cpu_adam.py" "$(readlink -f "$1")" "${2:-5}" "${3:-2}"
