#!/bin/sh
# zinf inspect --diff of two run folders: equal where the numbers are, whatever else differs; else the first step and by how much.
. "${srcdir:-.}/tests/lib.sh"
text "$work/text" 80000
config "$work/ds.json" 3
same="--set zinf.train.steps=6 --set zinf.data.eval=$work/text --set zinf.train.eval_every=3 --set zinf.train.eval_batches=1"
# shellcheck disable=SC2086
{
    ranks 2 "$work/ds.json" $same --run-dir "$work/a" || { fail "a: $?"; cat "$work/out"; }
    ranks 2 "$work/ds.json" $same --run-dir "$work/stage 2" --set zero_optimization.stage=2 || fail "stage 2: $?"
    ranks 2 "$work/ds.json" $same --run-dir "$work/rate" --set optimizer.params.lr=4e-3 || fail "rate: $?"
    ranks 2 "$work/ds.json" $same --run-dir "$work/short" --max-steps 4
    [ $? -eq 75 ] || { fail "short: $?"; cat "$work/out"; }
}
# diff CODE A B [OPTION]: compare; exit code
diff_runs() {
    expected=$1
    shift
    "$program" inspect --diff "$@" > "$work/out" 2>&1
    code=$?
    [ $code -eq "$expected" ] || { fail "--diff $*: exit code $code, not $expected"; cat "$work/out"; }
}
says() { grep -Eq -- "$1" "$work/out" || { fail "no '$1'"; cat "$work/out"; }; }

diff_runs 0 "$work/a" "$work/a"
says '^configuration: 0 differ$'
diff_runs 0 "$work/a" "$work/stage 2"
says '^  zero_optimization.stage  *3 \| 2$'
says '^  loss  *0 of 6 *$'
says '^  eval_loss  *0 of 2 *$'
says '^equal: the same numbers at every step$'

# A start that has nothing left to do loses nothing of what the run has written.
cp "$work/a/results.json" "$work/results.json"
ranks 2 "$work/ds.json" $same --run-dir "$work/a" || { fail "a complete run again: $?"; cat "$work/out"; }
sed '/"wall_s"/d' "$work/results.json" > "$work/before"
sed '/"wall_s"/d' "$work/a/results.json" | diff "$work/before" - || fail "results.json of a complete run that was started again"

# WarmupLR begins with 0 twice: the third step's rate differs first, the fourth step's loss.
diff_runs 1 "$work/a" "$work/rate"
says '^  optimizer.params.lr  *0.003 \| 0.004$'
says '^  lr  *4 of 6  *first at step 3: [0-9.e-]* \| [0-9.e-]*, relative 0.25;'
says '^  loss  *3 of 6  *first at step 4: '
says '^different from step 3 on$'
"$program" inspect --json --diff "$work/a" "$work/rate" > "$work/json"
grep -q '"first_different_step": 3' "$work/json" || { fail "--json"; cat "$work/json"; }
for run in a rate; do
    side=$([ $run = a ] && echo a || echo b)
    loss=$(sed -n 's/.*"step": *4,.*"loss": *\([^,]*\),.*/\1/p' "$work/$run/metrics.jsonl")
    [ -n "$loss" ] || fail "no loss of step 4 in $run"
    sed -n '/"name": "loss"/,/}/p' "$work/json" | grep -q "\"$side\": $loss,\$" || { fail "--json: $side is not the loss $loss"; cat "$work/json"; }
done

diff_runs 1 "$work/a" "$work/short"
says '^  3 lines only in a, from step 5$'
says '^  status  *complete \| stopped$'
says '^different from step 5 on$'

# What cannot be compared is a usage error that says what can.
diff_runs 2 "$work/a" "$work/nowhere"
says 'nowhere: No such file or directory'
diff_runs 2 "$work/a" "$work/a/checkpoints/latest"
says 'is a run folder, .* is a file; --diff compares two checkpoints'
mkdir "$work/empty"
diff_runs 2 "$work/a" "$work/empty"
says 'empty: is no run folder \(there is no metrics.jsonl in it\)'
touch "$work/empty/metrics.jsonl"
diff_runs 4 "$work/a" "$work/empty"
says 'has not made a step yet'
finish
