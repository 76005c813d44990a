#!/bin/sh
# Does the optimizer's traffic to NVMe hide behind the computation? 2 ranks with one thread each, 4 x 256 tokens a step in all, fp32, ZeRO stage 3.
#
#   sh tests/bench/overlap.sh ZINF_PROGRAM [ROUNDS [STEPS]]
#
# (a) GPT-2 124M with its optimizer on NVMe against no offload, interleaved (A B A B): ratio of the medians, with and without clipping (the
#     norm holds updates back until the backward pass has ended). With fio it says how long the drive needs for what a step moves.
# (b) The same model with a table of 257 rows on a drive that the fault seam slows to a known rate, set so that I/O takes RATIO (1) times as
#     long as the computation: a step against the longer of the two, with buffer_count 4 (the default) and 8; then serial (buffer_count 1, no
#     prefetch) against their sum. At RATIO 1 every moment without a free buffer is lost: the hardest case.
#
# Environment: MPIEXEC, NVME (folder on the drive, else $TMPDIR), RATIO, PARTS ("a", "b"; default both). The first two steps of a round do not count. Wants a machine with
# nothing else to do. TRACE=FILE: a trace of the last overlapped run of (a), FILE.0.json and FILE.1.json.
set -eu
zinf=$(readlink -f "$1") rounds=${2:-2} steps=${3:-8}
trace=${TRACE:+$(readlink -f "$TRACE")}
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
nvme=${NVME:+$(mktemp -d "$(readlink -f "$NVME")/zinf-overlap-nvme.XXXXXX")}
enter_work "${TMPDIR:-/tmp}" overlap
nvme=${nvme:-$work/nvme}
trap 'rm -rf "$work" "$nvme"' EXIT
gpt2_model ds.json "$steps" 0.0 '{"stage": 3, "sub_group_size": 20000000}' '"aio": {"block_size": 1048576}'
offload="--set zero_optimization.offload_optimizer.device=nvme --set zero_optimization.offload_optimizer.nvme_path=$nvme"

# of KEY: its value in the last line of metrics.jsonl
of()
{
    last_number "$1" run/metrics.jsonl
}

hidden_cost()
{
    for clipping in 0.0 1.0; do
        : > a; : > b
        for round in $(seq "$rounds"); do
            two_ranks --set gradient_clipping=$clipping > part && cat part >> a
            printf 'clipping %s, round %d: no offload %.3f s, ' $clipping "$round" "$(median < part)"
            # shellcheck disable=SC2086
            ZINF_TRACE=$trace two_ranks --set gradient_clipping=$clipping $offload > part && cat part >> b
            printf 'optimizer on NVMe %.3f s a step, of these %s s waiting for the drive\n' "$(median < part)" "$(of wait_nvme_s)"
        done
        echo "$(median < a) $(median < b)" | awk -v c=$clipping '{
            printf "clipping %s: no offload %.3f s, optimizer on NVMe %.3f s a step: %.1f %% more\n", c, $1, $2, 100 * ($2 / $1 - 1) }'
    done
    bytes=$(($(of nvme_read_bytes) + $(of nvme_write_bytes)))
    if command -v fio > /dev/null; then
        rate=$(mixed_rate "$nvme")
        echo "$bytes $rate" | awk '{ printf "the drive: %.2f GB a step at fio'"'"'s %.2f GB/s, half and half, take %.3f s\n", $1 / 1e9, $2 / 1e9, $1 / $2 }'
    fi
}

slowed_drive()
{
    small="--set zinf.model.config.vocab_size=257"
    # shellcheck disable=SC2086
    two_ranks $small > part
    compute=$(median < part)
    # shellcheck disable=SC2086
    two_ranks $small $offload > /dev/null
    pieces=$((($(of nvme_read_bytes) + $(of nvme_write_bytes)) / 2 / 1048576)) # of one rank, whose engine the seam slows
    delay=$(awk -v c="$compute" -v n=$pieces -v r="${RATIO:-1}" 'BEGIN { printf "%d", 1e6 * r * c / n }')
    io=$(awk -v d="$delay" -v n=$pieces 'BEGIN { print d * n / 1e6 }')
    export ZINF_FAULT="op=transfer,delay_us=$delay"
    printf 'slowed by %d us a MiB: compute alone %.3f s, I/O alone %.3f s\n' "$delay" "$compute" "$io"
    for buffers in 4 8; do
        # shellcheck disable=SC2086
        two_ranks $small $offload --set zero_optimization.offload_optimizer.buffer_count=$buffers > part
        echo "$compute $io $(median < part)" | awk -v n=$buffers '{
            printf "  a step with %d buffers %.3f s = %.2f x the longer (to reach: at most 1.1)\n", n, $3, $3 / ($1 > $2 ? $1 : $2) }'
    done
    # shellcheck disable=SC2086
    two_ranks $small $offload --set zero_optimization.offload_optimizer.buffer_count=1 --set zero_optimization.stage3_prefetch_bucket_size=0 > part
    serial=$(median < part)
    echo "$compute $io $serial" | awk '{ printf "  serial %.3f s = %.2f x the sum (to reach: at least 0.9)\n", $3, $3 / ($1 + $2) }'
}

case ${PARTS:-ab} in *a*) hidden_cost ;; esac
case ${PARTS:-ab} in *b*) slowed_drive ;; esac
