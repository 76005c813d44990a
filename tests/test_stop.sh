#!/bin/sh
# How a run ends: signals to one rank or to all, the STOP file, limits, and what it leaves behind each time.
. "${srcdir:-.}/tests/lib.sh"
needs pgrep procps
text "$work/text" 80000

# start: a run of many steps in the background; waits until a step is done.
start() {
    rm -rf "$work/run"
    config "$work/ds.json" 3
    "$mpiexec" -n 2 "$program" "$work/ds.json" --threads 1 --run-dir "$work/run" --set zinf.train.steps=100000 \
        "$@" > "$work/out" 2>&1 &
    pid=$!
    for _ in $(seq 100); do
        [ -s "$work/run/metrics.jsonl" ] && return
        sleep 0.1
    done
    fail "no step within 10 s"
    cat "$work/out"
}

# ended CODE WHAT [hydra]: the run is over within a minute with this exit code. MPICH's mpiexec that was itself signalled sometimes
# leaves with 0; then the code of results.json is what counts.
ended() {
    for _ in $(seq 600); do
        kill -0 "$pid" 2> /dev/null || break
        sleep 0.1
    done
    kill -9 "$pid" 2> /dev/null && fail "$2: still running after a minute"
    wait "$pid"
    code=$?
    [ "${3-}" = hydra ] && [ "$code" -eq 0 ] && grep -q "\"exit_code\": *$1" "$work/run/results.json" && return
    [ "$code" -eq "$1" ] || { fail "$2: exit code $code, not $1"; cat "$work/out"; }
}

newest() {
    find "$work/run/checkpoints" -name 'step-*.h5' | sort | tail -n 1
}

one_rank() {
    pgrep -f "zinf $work/ds.json" | while read -r p; do
        [ "$(cat "/proc/$p/comm")" = zinf ] && echo "$p"
    done | head -n 1
}

start
kill -TERM $pid
ended 75 "SIGTERM to mpiexec" hydra
"$program" inspect --verify "$(newest)" > /dev/null || fail "the checkpoint of SIGTERM is not whole"
grep -q '"status": *"stopped"' "$work/run/results.json" || fail "results.json does not say stopped"

start
kill -TERM "$(one_rank)"
ended 75 "SIGTERM to one rank"

start
kill -USR1 "$(one_rank)"
for _ in $(seq 100); do
    [ -n "$(newest)" ] && break
    sleep 0.1
done
[ -n "$(newest)" ] || fail "SIGUSR1 to one rank wrote no checkpoint"
kill -0 $pid 2> /dev/null || fail "SIGUSR1 ended the run"
touch "$work/run/STOP"
ended 75 "the STOP file"
[ ! -e "$work/run/STOP" ] || fail "the STOP file was not removed"

# Steps of a second and more: what is asked for during a step is done behind this step, not the next.
lines() {
    grep -c '"loss"' "$work/run/metrics.jsonl"
}
export ZINF_FAULT=op=exchange,delay_us=80000
for how in signal file; do
    start
    before=$(lines)
    if [ $how = signal ]; then kill -TERM "$(one_rank)"; else touch "$work/run/STOP"; fi
    ended 75 "$how during a step"
    [ "$(lines)" -le $((before + 1)) ] || fail "$how during step $((before + 1)): the run ended after step $(lines)"
done
rm -rf "$work/run"
export ZINF_FAULT=op=exchange,delay_us=30000
ranks 2 "$work/ds.json" --run-dir "$work/run" --set zinf.train.steps=100000 --max-hours 0.0015
[ $? -eq 75 ] || { fail "--max-hours: not 75"; cat "$work/out"; }
unset ZINF_FAULT
awk -F'[:,]' '/"wall_s"/ { if ($2 + 0 > 5.4) { print "wall_s" $2; exit 1 } }' "$work/run/results.json" ||
    fail "--max-hours 0.0015 stopped after more than 5.4 s"
[ "$(lines)" -ge 2 ] || fail "--max-hours stopped after $(lines) steps"

# A rank that hangs: the watchdog ends the run, and what is left says that it failed.
rm -rf "$work/run"
ZINF_FAULT="op=exchange,delay_us=100000000" ranks 2 "$work/ds.json" --run-dir "$work/run" --set zinf.watchdog_s=1
[ $? -eq 1 ] || { fail "the watchdog: not 1"; cat "$work/out"; }
grep -q watchdog_s "$work/out" || { fail "the watchdog says nothing"; cat "$work/out"; }
grep -q '"status": *"failed"' "$work/run/results.json" || fail "results.json after the watchdog does not say failed"
grep -q '"exit_code": *1,' "$work/run/results.json" || fail "results.json after the watchdog does not say exit code 1"

# A second job in the same folder touches nothing.
start
before=$(ls -l "$work/run/config.json")
"$mpiexec" -n 2 "$program" "$work/ds.json" --threads 1 --run-dir "$work/run" > "$work/second" 2>&1
[ $? -eq 2 ] || { fail "a second job in the same folder"; cat "$work/second"; }
[ "$before" = "$(ls -l "$work/run/config.json")" ] || fail "the second job changed the folder"
kill -TERM $pid
ended 75 "the first job, after the second had tried" hydra

# Complete runs say so; never + a folder with checkpoints is an error; another seed too.
rm -rf "$work/run"
config "$work/ds.json" 3
ranks 2 "$work/ds.json" --run-dir "$work/run" || fail "a whole run: $?"
ranks 2 "$work/ds.json" --run-dir "$work/run" || fail "a complete run is not done again: $?"
grep -q complete "$work/out" || fail "a complete run does not say so"
ranks 2 "$work/ds.json" --run-dir "$work/run" --resume never
[ $? -eq 2 ] || fail "--resume never in a folder with checkpoints"
ranks 2 "$work/ds.json" --run-dir "$work/run" --set zinf.train.seed=8
[ $? -eq 2 ] || fail "another seed"
ranks 2 "$work/ds.json" --run-dir "$work/run" --set zinf.model.config.n_embd=32
[ $? -eq 2 ] || fail "another model"
grep -q "another model: n_embd is 16 in the checkpoint, 32 now;" "$work/out" ||
    { fail "another model: it does not say which"; cat "$work/out"; }
grep -q n_inner "$work/out" && fail "another model: n_inner only follows from n_embd"
"$mpiexec" -n 2 "$program" eval "$work/ds.json" --threads 1 --run-dir "$work/run" --checkpoint latest \
    --set zinf.data.eval="\"$work/text\"" --set 'zinf.model.config.activation_function="relu"' > "$work/out" 2>&1
[ $? -eq 2 ] || fail "an evaluation of another model"
grep -q "activation_function is gelu_new in the checkpoint, relu now" "$work/out" ||
    { fail "an evaluation of another model: it does not say which"; cat "$work/out"; }

# Ranks that were started with different things: which value differs, on which rank, and both values.
"$mpiexec" -n 1 "$program" "$work/ds.json" --threads 1 --run-dir "$work/odd" : \
    -n 1 "$program" "$work/ds.json" --threads 1 --run-dir "$work/odd" --set optimizer.params.lr=0.125 > "$work/out" 2>&1
[ $? -eq 2 ] || { fail "ranks with different learning rates"; cat "$work/out"; }
[ "$(grep -c 'the ranks do not run the same thing; 1 of' "$work/out")" -eq 1 ] || { fail "not one message with one fact"; cat "$work/out"; }
grep -q 'optimizer.params.lr *rank 0: 0.003$' "$work/out" || { fail "rank 0's learning rate is not told"; cat "$work/out"; }
grep -q 'rank 1: 0.125$' "$work/out" || { fail "rank 1's learning rate is not told"; cat "$work/out"; }
[ ! -e "$work/odd/metrics.jsonl" ] || fail "a run of different ranks has begun"

# A damaged checkpoint: refused by name when it was asked for, else the one before is taken and that is said.
rm -rf "$work/run"
ranks 2 "$work/ds.json" --run-dir "$work/run" --set zinf.checkpoint.every_steps=5 --set zinf.checkpoint.num_to_keep=4 ||
    fail "a run with checkpoints"
last=$(newest)
printf '\377\377\377\377' | dd of="$last" bs=1 seek=$(($(stat -c %s "$last") / 2)) conv=notrunc 2> /dev/null
ranks 2 "$work/ds.json" --run-dir "$work/other" --resume "$last"
[ $? -eq 5 ] || { fail "a damaged checkpoint that was asked for"; cat "$work/out"; }
ranks 2 "$work/ds.json" --run-dir "$work/run" || { fail "resume from the one before: $?"; cat "$work/out"; }
grep -q "step-00000015" "$work/out" || { fail "it does not say which checkpoint it took"; cat "$work/out"; }
grep -q "^warning: .*step-00000020.h5.*trying the checkpoint before" "$work/out" ||
    { fail "the warning does not name the damaged file"; cat "$work/out"; }
finish
