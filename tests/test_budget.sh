#!/bin/sh
# Limits of memory decide what a run does with activations, and whether it begins: each pool has its own, auto keeps what fits and never moves
# anything to another tier, and what does not fit ends with 3 and says which limit.
. "${srcdir:-.}/tests/lib.sh"
text "$work/text" 80000
mkdir "$work/nvme"
config "$work/ds.json" 3
deep="--set zinf.model.config.n_layer=7 --set gradient_accumulation_steps=6 --set zero_optimization.offload_optimizer.nvme_path=$work/nvme"

# plan ACTIVATIONS [OPTION...]: to $work/plan; its exit code
plan() {
    where=$1
    shift
    # shellcheck disable=SC2086
    "$program" plan "$work/ds.json" --ranks 1 --json $deep --set zinf.memory.activations=$where "$@" > "$work/plan" 2> "$work/out"
}
# expect CODE ACTIVATIONS LIMIT [TEXT]: of a plan and of a run under the same limits
expect() {
    code=$1 where=$2 limit=$3 said=${4:-}
    # shellcheck disable=SC2086
    plan "$where" $limit
    got=$?
    [ $got -eq "$code" ] || fail "plan, $where, $limit: exit code $got, not $code"
    [ -z "$said" ] || grep -q "$said" "$work/out" || { fail "plan, $where, $limit: no \"$said\""; cat "$work/out"; }
    rm -rf "$work/run"
    # shellcheck disable=SC2086
    ranks 1 "$work/ds.json" -q --run-dir "$work/run" $deep --set zinf.train.steps=4 --set zinf.memory.activations=$where $limit
    got=$?
    [ $got -eq "$code" ] || { fail "run, $where, $limit: exit code $got, not $code"; cat "$work/out"; }
    [ -z "$said" ] || grep -q "$said" "$work/out" || { fail "run, $where, $limit: no \"$said\""; cat "$work/out"; }
    [ "$code" -ne 0 ] || [ ! -f "$work/free/metrics.jsonl" ] || "$tools/metrics_diff" "$work/free/metrics.jsonl" "$work/run/metrics.jsonl" 0 > /dev/null ||
        fail "$where, $limit: other losses"
}

expect 0 keep ""
mv "$work/run" "$work/free"
plan keep && keep=$(number device_bytes "$work/plan")
plan recompute && recompute=$(number device_bytes "$work/plan")
plan cpu && cpu=$(number device_bytes "$work/plan") cpu_host=$(number host_bytes "$work/plan")
plan nvme && nvme=$(number device_bytes "$work/plan") nvme_host=$(number host_bytes "$work/plan")
[ "$nvme" -eq "$cpu" ] && [ "$cpu" -lt "$recompute" ] && [ "$recompute" -lt "$keep" ] && [ "$nvme_host" -lt "$cpu_host" ] ||
    fail "device: keep $keep, recompute $recompute, cpu $cpu, nvme $nvme; host: cpu $cpu_host, nvme $nvme_host"

device="--set zinf.memory.device" host="--set zinf.memory.host"
# Between keeping and recomputing: auto keeps some layers' activations, and nothing goes to the drive though a folder is named.
between="$device=$(((keep + recompute) / 2))"
expect 3 keep "$between" "on the device, .* allowed (zinf.memory.device)"
expect 0 auto "$between"
[ "$(number nvme_write_bytes "$work/run/metrics.jsonl")" -eq 0 ] || fail "auto wrote to the drive"
# shellcheck disable=SC2086
plan auto $between
kept=$(number kept_layers "$work/plan")
[ "$kept" -gt 0 ] && [ "$kept" -lt 7 ] || fail "auto keeps $kept of 7 layers"
[ "$(number nvme_bytes "$work/plan")" -eq 0 ] && [ "$(number host_bytes "$work/plan")" -eq 0 ] || fail "auto plans for another tier"

# Below recomputing: the inputs have to go. To the host while its limit allows, else to the drive.
below="$device=$(((recompute + cpu) / 2))"
expect 3 auto "$below" "on the device, .* allowed (zinf.memory.device)"
expect 3 recompute "$below" "on the device, .* allowed (zinf.memory.device)"
expect 0 cpu "$below"
expect 0 cpu "$below $host=$cpu_host"
expect 3 cpu "$below $host=$((cpu_host - 1))" "in host memory, .* allowed (zinf.memory.host)"
expect 0 nvme "$below $host=$nvme_host"
expect 3 nvme "$below $host=$((nvme_host - 1))" "in host memory, .* allowed (zinf.memory.host)"

# The plan's bytes are the run's, also where a rank's shards are no whole pages.
host_states="--set zero_optimization.offload_optimizer.device=cpu --set zinf.model.config.n_embd=20"
for n in 1 2 3; do
    rm -rf "$work/run"
    # shellcheck disable=SC2086
    "$program" plan "$work/ds.json" --ranks $n --json $host_states > "$work/plan" || fail "plan on $n ranks"
    # shellcheck disable=SC2086
    ranks $n "$work/ds.json" -q --run-dir "$work/run" $host_states --set zinf.train.steps=1 || { fail "run on $n ranks"; cat "$work/out"; }
    for pair in device_bytes:device_bytes pinned_bytes:host_bytes; do
        used=$(number "${pair%:*}" "$work/run/metrics.jsonl") bytes=$(number "${pair#*:}" "$work/plan")
        [ "$bytes" -gt 0 ] && [ "$used" -eq "$bytes" ] || fail "$n ranks, $pair: run $used, plan $bytes"
    done
done
finish
