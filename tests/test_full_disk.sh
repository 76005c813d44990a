#!/bin/sh
# A full disk at a checkpoint: warned and counted, training goes on, nothing hangs; at the last checkpoint the run fails and says why.
. "${srcdir:-.}/tests/lib.sh"
text "$work/text" 80000
mkdir "$work/disk"
mount -t tmpfs -o size=4m tmpfs "$work/disk" 2> /dev/null ||
    { echo "cannot mount a tmpfs here (needs root)"; exit 77; }
trap 'umount "$work/disk"; rm -rf "$work"' EXIT

config "$work/ds.json" 3
options="--set zinf.train.steps=6 --set zinf.checkpoint.every_steps=1 --set zinf.checkpoint.num_to_keep=1"
# shellcheck disable=SC2086
timeout 60 "$mpiexec" -n 3 "$program" "$work/ds.json" --threads 1 --run-dir "$work/disk/run" $options > "$work/out" 2>&1
code=$?
[ $code -eq 0 ] || { fail "with room for two checkpoints: $code"; cat "$work/out"; }

# Room for one checkpoint and a half: the run may begin, but nothing after its first checkpoint can be kept.
kib=$(($(wc -c < "$work/disk/run/checkpoints/step-00000006.h5") / 1024))
rm -rf "$work/disk/run"
dd if=/dev/zero of="$work/disk/ballast" bs=1k count=$(($(df -k --output=avail "$work/disk" | tail -n 1) - kib * 3 / 2 - 64)) 2> /dev/null
# shellcheck disable=SC2086
timeout 60 "$mpiexec" -n 3 "$program" "$work/ds.json" --threads 1 --run-dir "$work/disk/run" $options > "$work/out" 2>&1
code=$?
[ $code -eq 1 ] || { fail "the last checkpoint could not be written, but the exit code is $code"; cat "$work/out"; }
grep -q "No space left" "$work/out" || { fail "it does not say that the disk is full"; cat "$work/out"; }
[ "$(grep -c '"step"' "$work/disk/run/metrics.jsonl")" -eq 6 ] || fail "training did not go on"
[ -z "$(find "$work/disk/run" -name '*.tmp*')" ] || fail "temporary files are left"
rm "$work/disk/ballast"
# shellcheck disable=SC2086
timeout 60 "$mpiexec" -n 3 "$program" "$work/ds.json" --threads 1 --run-dir "$work/disk/run" $options > "$work/out" 2>&1
code=$?
[ $code -eq 0 ] || { fail "with space again: $code"; cat "$work/out"; }
finish
