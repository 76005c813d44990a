#!/bin/sh
# Budgets of memory and drive: what does not fit is exit 3 before anything is taken, with the table of what would fit; a file that gives
# less makes the run smaller, not wrong.
. "${srcdir:-.}/tests/lib.sh"
text "$work/text" 80000
mkdir "$work/nvme"
config "$work/ds.json" 3
both="--set $o.device=nvme --set $o.nvme_path=$work/nvme --set $p.device=nvme --set $p.nvme_path=$work/nvme"

# refused WHAT PATTERN OPTION...: exit 3, the reason, one table, and nothing left behind
refused() {
    what=$1 pattern=$2
    shift 2
    # shellcheck disable=SC2086
    ranks 2 "$work/ds.json" --run-dir "$work/run" -q $both "$@"
    code=$?
    [ $code -eq 3 ] || { fail "$what: exit code $code"; cat "$work/out"; }
    grep -q "$pattern" "$work/out" || { fail "$what: not said"; cat "$work/out"; }
    [ "$(grep -c "what a rank would need" "$work/out")" -eq 1 ] || { fail "$what: not one table"; cat "$work/out"; }
    [ ! -d "$work/run/checkpoints" ] || fail "$what: it began"
    rm -rf "$work/run"
}
refused nvme "on NVMe, .* are allowed (zinf.memory.nvme)" --set zinf.memory.nvme=10KB
grep -q "optimizer nvme, param nvme .* does not fit" "$work/out" || fail "the table does not know the drive's budget"
grep -q "stage 3, optimizer cpu .* fits" "$work/out" || fail "the table does not say what fits"
refused host "in host memory, .* are allowed (zinf.memory.host)" --set zinf.memory.host=8KB
refused "an evaluation's batch" "of memory, .* are allowed (0.9 x " --set zinf.data.eval="$work/text" --set zinf.train.eval_micro_batch=1000000000
grep "out of memory" "$work/out" && fail "an evaluation's batch is taken although it does not fit"
refused device "on the device, .* are allowed (zinf.memory.device)" --set zinf.memory.device=100KB
# With one buffer a ring is smaller than what it spares: here a cache costs memory, and is not cut down in silence.
wide="--set zinf.model.config.n_embd=128 --set $o.buffer_count=1 --set $p.buffer_count=1"
# shellcheck disable=SC2086
"$program" plan "$work/ds.json" -q --ranks 2 --json $both $wide > "$work/plan" || fail "zinf plan: $?"
needed=$(sed -n 's/^ *"host_bytes": *\([0-9]*\).*/\1/p' "$work/plan")
# shellcheck disable=SC2086
refused cache "in host memory, .* are allowed (zinf.memory.host)" $wide --set zinf.memory.host=$((needed + 100000)) --set zinf.memory.cache=1GB
grep -q "nothing cached .* fits" "$work/out" || fail "the table does not say that it fits without a cache"

# Both pools together against what the process may have: nine tenths of it, less what is in use.
if sanitized; then
    echo "AddressSanitizer cannot start under RLIMIT_DATA: that limit is not tried in this build"
else
    (ulimit -d 600000 && ranks 1 "$work/ds.json" -q --run-dir "$work/run" --set train_batch_size=2048 --set zinf.train.steps=1 \
        --set zinf.model.config.n_embd=256 --set zinf.memory.activations=keep)
    code=$?
    [ $code -eq 3 ] || { fail "more than RLIMIT_DATA: exit code $code"; cat "$work/out"; }
    grep -q "of memory, .* are allowed (0.9 x (RLIMIT_DATA - data in use))" "$work/out" || { fail "RLIMIT_DATA is not named"; cat "$work/out"; }
fi

# Within a small budget the same numbers come out: fewer layers keep their activations, records get shorter.
# shellcheck disable=SC2086
ranks 2 "$work/ds.json" -q --run-dir "$work/wide" $both --set zinf.train.steps=4 || { fail "without budgets"; cat "$work/out"; }
# shellcheck disable=SC2086
ranks 2 "$work/ds.json" -q --run-dir "$work/tight" $both --set zinf.train.steps=4 --set zinf.memory.device=3MB --set zinf.memory.host=240KB \
    --set zinf.memory.nvme=1MB || { fail "within budgets"; cat "$work/out"; }
out=$("$tools/metrics_diff" "$work/wide/metrics.jsonl" "$work/tight/metrics.jsonl" 0) || fail "budgets change the numbers: $out"

# A drive that has room for each rank of the node, though not for all.
mkdir "$work/small"
if mount -t tmpfs -o size=100k tmpfs "$work/small" 2> /dev/null; then
    trap 'umount "$work/small" 2> /dev/null; rm -rf "$work"' EXIT
    refused "small drive" "nvme_path $work/small: the ranks of this node need" --set $o.nvme_path="$work/small" --set $p.nvme_path="$work/small"
    grep -q "optimizer nvme, param nvme .* does not fit" "$work/out" || fail "the table does not know the drive's space"
fi

[ -z "$(ls -A "$work/nvme")" ] || fail "files are left on the drive"
finish
