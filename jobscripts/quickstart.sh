#!/bin/sh
# From a fresh clone on Debian 12 to a trained model: installs what is missing (as root or with sudo), builds in ./build, makes a
# corpus from two packages of English text, trains a small GPT-2 on four MPI ranks with ZeRO stage 3, optimizer state and parameters on disk,
# and shows the curve.
# Three to four minutes on two cores when the packages are there. Run it again: it goes on from its checkpoint, or says it is done.
#
#   sh jobscripts/quickstart.sh [ZINF OPTION...]          for example --set train.steps=2000
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top"

echo "== packages"
sh jobscripts/debian-packages.sh build text check # the tests are the second command

echo "== build"
[ -x configure ] || ./autogen.sh > /dev/null
mkdir -p build/quickstart
cd build
[ -f Makefile ] || ../configure > configure.log || { tail -n 20 configure.log >&2; exit 1; }
sed -n '/^  feature/,$p' configure.log 2>/dev/null || :
make -s -j"$(nproc)" zinf
mpiexec=$(sed -n 's/^MPIEXEC = //p' Makefile) # of the MPI that zinf was built with
cd quickstart

# Every twentieth hundred of lines is for evaluation, the others for training.
echo "== text"
find /usr/share/debian-reference /usr/share/doc/debian-policy -name '*.txt.gz' 2>/dev/null | LC_ALL=C sort | xargs -r zcat |
    awk '{ print > (int(NR / 100) % 20 == 19 ? "valid.txt" : "train.txt") }'
[ -s train.txt ] || { echo "no text in /usr/share/debian-reference and /usr/share/doc/debian-policy" >&2; exit 1; }
wc -c train.txt valid.txt

cat > ds.json << 'END'
{
  "train_batch_size": 4,
  "gradient_clipping": 1.0,
  "steps_per_print": 50,
  "zero_optimization": {"stage": 3, "offload_optimizer": {"device": "nvme", "nvme_path": "."},
                        "offload_param": {"device": "nvme", "nvme_path": "."}},
  "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "betas": [0.9, 0.99], "weight_decay": 0.1}},
  "scheduler": {"type": "WarmupCosineLR", "params": {"total_num_steps": 750, "warmup_num_steps": 50}},
  "zinf": {
    "model": {"config": {"model_type": "gpt2", "n_layer": 6, "n_head": 8, "n_embd": 256, "n_positions": 128,
                         "vocab_size": 257, "embd_pdrop": 0, "attn_pdrop": 0, "resid_pdrop": 0}},
    "data": {"train": "train.txt", "eval": "valid.txt", "tokenizer": "bytes", "sequence_length": 128},
    "train": {"steps": 750, "eval_every": 150, "eval_batches": 40},
    "checkpoint": {"every_steps": 150, "num_to_keep": 2, "score_attribute": "eval_loss", "score_order": "min"},
    "run": {"dir": "run"}
  }
}
END

echo "== cd build/quickstart && mpiexec -n 4 ../zinf ds.json $*"
"$mpiexec" -n 4 ../zinf ds.json "$@"

echo "== zinf report run"
../zinf report run
../zinf report run --svg loss.svg
echo "The curve is also in build/quickstart/loss.svg, the checkpoints are in build/quickstart/run/checkpoints."
