#!/bin/sh
# Makes all of tests/data/deepspeed again: about four minutes on two cores. PYTHON: see README.md here.
set -e
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/../data/deepspeed}
python=${PYTHON:-python3}
PATH=$(dirname "$(command -v "$python")"):$PATH # ninja, which DeepSpeed builds its kernels with
mkdir -p "$out"
rm -f "$out"/*.json
cd "$here"
"$python" cases.py "$out"
for ranks in 1 2 3 4; do
    DS_ACCELERATOR=cpu OMP_NUM_THREADS=1 nice "$python" -m torch.distributed.run --nproc-per-node $ranks \
        deepspeed_train.py "$out" 2>/dev/null | grep loss
done
"$python" formula_train.py make "$out"
"$python" formula_train.py check "$out"
"$python" formula_train.py mutants "$out"
