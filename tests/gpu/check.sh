#!/bin/sh
# Everything that only a card can show, on a card: run it in a build folder (or a bundle), on a machine with a GPU.
#
#   sh tests/gpu/check.sh tests        each kernel and the device against their CPU twins, then under compute-sanitizer where that exists
#   sh tests/gpu/check.sh train        20 steps on the card against CPU ranks (its speed: not there yet)
#   sh tests/gpu/check.sh offload      the same with offload_optimizer and offload_param
#
# Each part takes less than nine minutes and adds its lines to gpu-check.tsv (a table: part, check, passed, failed, skipped, seconds), from which
# gpu-check.json is made. Exit status: 0 all passed, 1 something failed, 77 no GPU here or nothing to run, and why.
set -u
part=${1-}
results=${GPU_CHECK_RESULTS:-gpu-check}

skip()
{
    echo "skipped: $1"
    exit 77
}

# card: the first device that zinf sees, "name (bus, driver)", or the reason why there is none
card()
{
    ./zinf env --json 2> /dev/null | awk -F'"' '
        $2 == "device" { cuda = $4 ~ /^cuda/ }
        cuda && $2 == "name" { name = $4 }
        cuda && $2 == "version" { version = $4 }
        cuda && $2 == "state" { state = $4 }
        END { if (name != "") print name " (" version ")"; else { print state == "" ? "this zinf was built without CUDA" : state; exit 1 } }'
}

# add CHECK PASSED FAILED SKIPPED SECONDS: one line of the table, in the place of an older one of the same name
add()
{
    touch "$results.tsv"
    awk -F'\t' -v part="$part" -v check="$1" '!($1 == part && $2 == check)' "$results.tsv" > "$results.new"
    printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$part" "$@" >> "$results.new"
    mv "$results.new" "$results.tsv"
    awk -F'\t' -v card="$card" -v date="$(date -u +%Y-%m-%dT%H:%M:%SZ)" '
        BEGIN { printf "{\"card\": \"%s\", \"date\": \"%s\", \"checks\": [", card, date }
        { printf "%s\n  {\"part\": \"%s\", \"check\": \"%s\", \"passed\": %d, \"failed\": %d, \"skipped\": %d, \"seconds\": %d}",
                 NR > 1 ? "," : "", $1, $2, $3, $4, $5, $6 }
        END { print "\n]}" }' "$results.tsv" > "$results.json"
}

# run NAME COMMAND...: one GoogleTest program; its cases on the card only
run()
{
    name=$1 began=$(date +%s)
    shift
    "$@" --gtest_filter='*/cuda*-*cuda_emulated*' > "$results.log" 2>&1
    status=$?
    passed=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$results.log" | tail -n 1)
    skipped=$(sed -n 's/^\[  SKIPPED \] \([0-9]*\) test.*/\1/p' "$results.log" | tail -n 1)
    bad=$(grep -c '^\[  FAILED  \].*[/.].*(' "$results.log")
    [ "$status" -eq 0 ] || [ "$bad" -gt 0 ] || bad=1
    [ "$status" -eq 0 ] && bad=0
    # a program that ran nothing on the card has shown nothing
    [ "${passed:-0}" -gt 0 ] || [ "$bad" -gt 0 ] || bad=1
    add "$name" "${passed:-0}" "$bad" "${skipped:-0}" $(($(date +%s) - began))
    printf '%-28s %4d passed %4d failed %4d skipped\n' "$name" "${passed:-0}" "$bad" "${skipped:-0}"
    [ "$bad" -eq 0 ] && return
    failed=$((failed + 1))
    tail -n 30 "$results.log"
}

case $part in
tests | train | offload) ;;
*) echo "usage: check.sh tests | train | offload" >&2; exit 2 ;;
esac
[ -x ./zinf ] || skip "no ./zinf here: run it in the build folder"
card=$(card) || skip "$card"
echo "card: $card"

failed=0
if [ "$part" != tests ]; then
    [ -x tests/tools/metrics_diff ] || skip "no tests/tools/metrics_diff: make check TESTS= builds it"
    began=$(date +%s)
    sh "${srcdir:-.}/tests/gpu/steps.sh" "$part" > "$results.log" 2>&1
    passed=$(grep -c '^pass: ' "$results.log") bad=$(grep -c '^FAIL: ' "$results.log")
    [ "$passed" -gt 0 ] || bad=$((bad + 1))
    add steps "$passed" "$bad" 0 $(($(date +%s) - began))
    cat "$results.log"
    echo "table: $results.tsv, $results.json"
    [ "$bad" -eq 0 ]
    exit
fi
programs='test_device test_ops_flat test_ops_layers test_ops_loss test_ops_matmul test_ops_attention test_ops_update'
for program in $programs; do
    [ -x "tests/$program" ] || skip "no tests/$program: make check TESTS= builds it"
    run "$program" "tests/$program"
done
if command -v compute-sanitizer > /dev/null; then
    for program in test_ops_flat test_ops_layers test_ops_loss test_ops_update; do
        run "$program memcheck" compute-sanitizer --error-exitcode 1 "tests/$program"
    done
else
    echo "skipped: memcheck (no compute-sanitizer)"
fi
echo "table: $results.tsv, $results.json"
[ "$failed" -eq 0 ]
