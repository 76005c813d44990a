#!/bin/sh
# A disk that is full or fails on one rank, on another or on all in the same moment: one error line, from one rank, and the contract's code,
# whichever call meets it. A checkpoint that does not fit is one warning.
. "${srcdir:-.}/tests/lib.sh"
text "$work/text" 80000
mkdir "$work/nvme"
config "$work/ds.json" 3
# voice RANK OPERATION N ERROR: three ranks with both offloads; the N-th call on that rank ("all": on each) fails
voice() {
    rm -rf "$work/run"
    only=$([ "$1" = all ] || echo ",rank=$1")
    ZINF_FAULT="op=$2,n=$3,err=$4$only" timeout 30 "$mpiexec" -n 3 "$program" "$work/ds.json" -q --threads 1 --run-dir "$work/run" \
        --set zinf.train.steps=4 --set zinf.checkpoint.every_steps=2 --set $o.device=nvme --set $o.nvme_path="$work/nvme" \
        --set $p.device=nvme --set $p.nvme_path="$work/nvme" --set zero_optimization.sub_group_size=1024 > "$work/out" 2>&1
    code=$?
    name="rank $1, $2 $3 fails with $4"
    errors=$(grep -c 'error: ' "$work/out") warnings=$(grep -c 'warning: .*Input\|warning: .*No space' "$work/out")
    case $code in
    0) [ "$errors" -eq 0 ] && [ "$warnings" -le 1 ] || { fail "$name: a whole run with $errors errors and $warnings warnings"; cat "$work/out"; } ;;
    1 | 2 | 3 | 4)
        broken=$((broken + 1))
        [ "$errors" -eq 1 ] || { fail "$name: exit code $code with $errors errors"; cat "$work/out"; }
        ;;
    *) fail "$name: exit code $code"; cat "$work/out" ;;
    esac
    [ -z "$(ls -A "$work/nvme")" ] || fail "$name: files are left on the drive"
}
ranks_hit="all 1"
[ -n "$quick" ] || ranks_hit="all 0 1 2"
for rank in $ranks_hit; do
    broken=0
    voice "$rank" open 1 ENOSPC
    voice "$rank" fallocate 1 ENOSPC
    voice "$rank" fallocate 2 ENOSPC
    for n in 1 2 3 5 9 20 40 70; do
        voice "$rank" write $n ENOSPC
        [ -z "$quick" ] || [ $n -lt 9 ] || continue
        voice "$rank" read $n EIO
    done
    [ "$broken" -ge 5 ] || fail "rank $rank: only $broken runs met the fault"
done
finish
