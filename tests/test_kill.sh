#!/bin/sh
# kill -9 of a random rank at a random moment, round after round in one run folder: the same command always goes on, and what comes out in the
# end is what an undisturbed run gives. ZINF_LONG=1: 50 rounds, else 6. test_kill_offload.sh sets `offload`: all states on disk, whose space
# is free again after every round.
. "${srcdir:-.}/tests/lib.sh"
needs pgrep procps
[ -z "$quick" ] || [ -n "${offload:-}" ] || { echo "ZINF_QUICK is set, and test_kill_offload.sh kills with more under way"; exit 77; }
rounds=6 need=1
[ -z "$quick" ] || rounds=3
[ -z "${ZINF_LONG:-}" ] || rounds=50
seed=${ZINF_SEED:-$$}
echo "$rounds rounds, ZINF_SEED=$seed"
text "$work/text" 80000
config "$work/ds.json" 3
steps=$((rounds * 40))
[ -z "${ZINF_LONG:-}" ] || need=15
options="--set zinf.train.steps=$steps --set zinf.checkpoint.every_steps=4 --set zinf.checkpoint.num_to_keep=3"
if [ -n "${offload:-}" ]; then
    mkdir "$work/nvme"
    own_disk "$work/nvme" 64
    for tier in optimizer param; do
        options="$options --set zero_optimization.offload_$tier.device=nvme --set zero_optimization.offload_$tier.nvme_path=$work/nvme"
    done
    options="$options --set zero_optimization.sub_group_size=4096"
fi
free_kib() {
    df -k --output=avail "$work/nvme" | tail -n 1
}

# The swap files have no names, and their space is free as soon as the last rank is gone.
check_drive() {
    [ -n "${offload:-}" ] || return
    [ -z "$(ls -A "$work/nvme")" ] || fail "round $round: files are left on the drive: $(ls -A "$work/nvme")"
    [ -n "$own" ] || return
    for _ in $(seq 50); do
        [ "$(free_kib)" -lt "$before" ] || return
        sleep 0.1
    done
    fail "round $round: swap space is not given back: $(free_kib) of $before KiB are free"
}

# shellcheck disable=SC2086
ranks 3 "$work/ds.json" -q --run-dir "$work/whole" $options || fail "the undisturbed run: $?"
[ -z "${offload:-}" ] || before=$(free_kib)
random=$seed inside=0 killed=0
for round in $(seq $rounds); do
    random=$(((random * 1103515245 + 12345) % 2147483648))
    # Every third round the drive is slow and the kill waits for a checkpoint being written; the others come between 0.2 and 1.7 seconds.
    fault=
    [ $((round % 3)) -ne 0 ] || fault="op=write,delay_us=20000"
    # shellcheck disable=SC2086
    ZINF_FAULT=$fault "$mpiexec" -n 3 "$program" "$work/ds.json" -q --threads 1 --run-dir "$work/run" $options > "$work/out" 2>&1 &
    pid=$!
    if [ -n "$fault" ]; then
        for _ in $(seq 500); do
            if ls "$work"/run/checkpoints/*.tmp.* > /dev/null 2>&1; then
                inside=$((inside + 1))
                break
            fi
            sleep 0.01
        done
    else
        sleep "$(awk -v r=$random 'BEGIN { print 0.2 + (r % 1500) / 1000 }')"
    fi
    victim=
    while [ -z "$victim" ] && kill -0 "$pid" 2> /dev/null; do # on a busy machine the ranks come later
        proxy=$(pgrep -P "$pid" | head -n 1)
        victim=$(pgrep -x zinf -P "${proxy:-$pid}" | sed -n "$((random % 3 + 1))p")
        [ -n "$victim" ] || sleep 0.01
    done
    [ -n "$victim" ] && kill -9 "$victim" 2> /dev/null && killed=$((killed + 1))
    wait "$pid"
    code=$?
    case $code in
    2 | 3 | 4 | 5 | 6) fail "round $round: exit code $code"; cat "$work/out" ;;
    esac
    check_drive
done
# shellcheck disable=SC2086
ranks 3 "$work/ds.json" -q --run-dir "$work/run" $options || { fail "the last start: $?"; cat "$work/out"; }
[ $killed -ge $((rounds - 2)) ] || fail "only $killed ranks were there to be killed"
echo "$inside of $killed kills fell into a checkpoint's writing"
[ $inside -ge $need ] || fail "fewer than $need kills inside a checkpoint"
"$tools/metrics_diff" "$work/whole/metrics.jsonl" "$work/run/metrics.jsonl" 0 || fail "the disturbed run ends elsewhere"
[ -z "$(find "$work/run" -name '*.tmp*')" ] || fail "temporary files are left: $(find "$work/run" -name '*.tmp*')"
finish
