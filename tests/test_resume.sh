#!/bin/sh
# Stopped and resumed is the same as never stopped: bit for bit on the same ranks at every stage, and the loaded state on any others.
. "${srcdir:-.}/tests/lib.sh"
text "$work/text" 80000
needs h5diff hdf5-tools
h5diff=$(command -v h5diff)

checkpoint() {
    echo "$work/$1/checkpoints/step-$(printf %08d "$2").h5"
}

equal_files() {
    "$h5diff" --exclude-path /provenance "$1" "$2" > "$work/diff" 2>&1 ||
        { fail "$3"; head -5 "$work/diff"; }
}

stages="0 1 2 3" rank_counts="1 2 3 4 7"
[ -z "$quick" ] || { stages="1 3" rank_counts="2 3"; }
for options in "" "--set bf16.enabled=true" "--set fp16.enabled=true"; do
    for stage in $stages; do
        # in quick fp32 at stage 1, 16 bits at stage 3
        case $quick$stage$options in ?1--set* | ?3) continue ;; esac
        config "$work/ds.json" $stage
        # shellcheck disable=SC2086
        ranks 3 "$work/ds.json" -q --run-dir "$work/whole" $options || fail "whole run, stage $stage: $?"
        # shellcheck disable=SC2086
        ranks 3 "$work/ds.json" -q --run-dir "$work/parts" --max-steps 8 $options
        [ $? -eq 75 ] || { fail "--max-steps leaves with 75"; cat "$work/out"; }
        # shellcheck disable=SC2086
        ranks 3 "$work/ds.json" --run-dir "$work/parts" $options || fail "resumed run: $?"
        grep "changed since" "$work/out" && fail "nothing has changed since the checkpoint"
        equal_files "$(checkpoint whole 20)" "$(checkpoint parts 20)" "stage $stage $options: resumed differs from uninterrupted"
        "$tools/metrics_diff" "$work/whole/metrics.jsonl" "$work/parts/metrics.jsonl" 0 > "$work/out" ||
            { fail "losses after resume"; cat "$work/out"; }
        rm -rf "$work/whole" "$work/parts"
    done
done

# What is another since the checkpoint is said: by the configuration, and by what bits depend on besides.
config "$work/ds.json" 3
ranks 2 "$work/ds.json" -q --run-dir "$work/parts" --max-steps 2
"$mpiexec" -n 3 "$program" "$work/ds.json" --run-dir "$work/parts" --max-steps 3 --threads 2 \
    --set zero_optimization.stage=2 > "$work/out" 2>&1
for change in "ranks: 2 -> 3 (the" "threads of a rank: 1 -> 2 (the" "zero_optimization.stage: 3 -> 2"; do
    grep -qF "changed since the checkpoint: $change" "$work/out" || { fail "not said: $change"; cat "$work/out"; }
done
grep -E "changed.* (build|kernels): " "$work/out" && fail "neither build nor kernels have changed"
rm -r "$work/parts"

# Saved on n ranks, loaded on m at any stage: every element of weights and optimizer state is in its place.
for n in $rank_counts; do
    "$mpiexec" -n $n tests/test_snapshot save "$work/snapshot$n.h5" $((n % 4)) || fail "save on $n ranks"
    for m in $rank_counts; do
        "$mpiexec" -n $m tests/test_snapshot load "$work/snapshot$n.h5" $(((n + m) % 4)) || fail "saved on $n, loaded on $m"
    done
done
finish
