#!/bin/sh
# A program with CUDA on a machine where there is no GPU for it: no driver, a driver that is too old, one that sees no card. "auto" computes on the
# CPU and says why, "cuda" ends with 2 and what to change. The driver is tests/fake_driver.c.
. "${srcdir:-.}/tests/lib.sh"
text "$work/text" 9000
config "$work/ds.json" 1
fake=$(pwd)/tests/fake_driver

# told VERSION INIT TEXT: under a driver for that CUDA whose start answers INIT
told() {
    export FAKE_CUDA_VERSION="$1" FAKE_CUDA_INIT="$2"
    rm -rf "$work/run"
    LD_LIBRARY_PATH=$fake ranks 2 "$work/ds.json" --run-dir "$work/run" --set zinf.train.steps=1 || { fail "driver $1: auto ends with $?"; cat "$work/out"; }
    grep -qF "device      cpu; cuda: no device: $3" "$work/out" || { fail "driver $1: auto does not say why it is the CPU"; cat "$work/out"; }
    [ "$(grep -c 'no device' "$work/out")" -eq 1 ] || fail "driver $1: said more than once"
    LD_LIBRARY_PATH=$fake ranks 2 "$work/ds.json" --run-dir "$work/run" --device cuda
    code=$?
    [ $code -eq 2 ] && grep -qF "zinf.device: \"cuda\", but there is no such device here: $3" "$work/out" || { fail "driver $1: cuda ends with $code"; cat "$work/out"; }
    [ "$(grep -c 'no such device' "$work/out")" -eq 1 ] || fail "driver $1: told by more than one rank"
}
told 0 0 'no NVIDIA driver is loaded'
told 12040 0 'the NVIDIA driver (for CUDA 12.4) is older than this zinf'
grep -qF 'install a newer driver, or build zinf with a toolkit of CUDA 12.4 or older' "$work/out" || fail "an old driver: not said what to change"
told 99000 100 'the NVIDIA driver sees no GPU'
grep -qF 'srun --gpus-per-node=N --gpu-bind=none' "$work/out" || fail "no card: not said what to change"
finish
