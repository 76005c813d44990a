#!/bin/sh
# A program with ranges for profilers (as --enable-nvtx makes it): everything that begins ends, in its thread; each operation has its range, each
# thread its name. The profiler is tests/fake_nvtx.c. Without one the same program writes the same numbers.
. "${srcdir:-.}/tests/lib.sh"
text "$work/text" 30000
mkdir "$work/nvme"
steps=4
more="--set gradient_accumulation_steps=2 --set zinf.data.eval=$work/text --set zinf.train.eval_every=2 --set zinf.train.eval_batches=1"
# shellcheck disable=SC2046,SC2086
train plain 2 3 $more $(optimizer_on nvme)
program=$(pwd)/tests/tools/zinf_nvtx
export NVTX_INJECTION64_PATH="$(pwd)/tests/fake/libnvtx.so" ZINF_FAKE_NVTX="$work/counts"
# shellcheck disable=SC2046,SC2086
train told 2 3 $more $(optimizer_on nvme)
out=$("$tools/metrics_diff" "$work/plain/metrics.jsonl" "$work/told/metrics.jsonl" 0) || fail "ranges change the numbers: $out"
n=0
for counts in "$work"/counts.*; do
    # 4 steps of 2 micro-batches, 6 blocks with weights; the layers' forward and backward, and the evaluations' forward
    awk '
        $1 == "range" { seen[$2] = $3 }
        $1 == "thread" { thread[$2]++ }
        $1 == "wrong" { wrong = $2; ended = 1 }
        END {
            if (!ended || wrong) print "ranges do not match: " wrong
            if (seen["step"] != 4) print "steps: " seen["step"]
            if (seen["evaluation"] < 2 || seen["checkpoint"] < 1) print "evaluations " seen["evaluation"] ", checkpoints " seen["checkpoint"]
            if (seen["forward"] < 8 * 5 || seen["backward"] < 8 * 5) print "forward " seen["forward"] ", backward " seen["backward"]
            if (!seen["all-gather"] || !seen["reduce-scatter"] || !seen["loss"]) print "no gather, reduction or loss"
            if (!seen["layer"] || !seen["embedding"]) print "no update of a sub-group"
            if (!thread["compute"] || !thread["mover"] || !thread["update"]) print "a thread has no name"
        }' "$counts" > "$work/wrong"
    [ ! -s "$work/wrong" ] || { fail "$(cat "$work/wrong")"; cat "$counts"; }
    n=$((n + 1))
done
[ $n -eq 2 ] || fail "$n ranks were seen by the profiler"
[ -z "${SAY:-}" ] || cat "$counts"
finish
