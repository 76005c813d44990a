#!/bin/sh
# Everything that only a card can show, on a card: run it in a bundle (make bundle) or in a build folder, on a machine with a GPU.
#
#   sh tests/gpu/check.sh tests        each kernel and the device against their CPU twins, 20 steps and their endings against CPU ranks,
#                                      compute-sanitizer where that exists
#   sh tests/gpu/check.sh train        speed of training and of its operations, beside PyTorch where a python with it is found
#   sh tests/gpu/check.sh offload      speed with states in host memory and on the drive of this folder
#   sh tests/gpu/check.sh all          the three in turn
#
# Each part ends within nine minutes (GPU_CHECK_SECONDS=530): a piece gets what is left, and a piece that hangs costs its own time only. Each
# result is written as it comes: to gpu-check.tsv (part, name, figure, what to reach, verdict, seconds), gpu-check.json and gpu-check.md. A part
# replaces its own lines. What a piece printed is in gpu-check.log. Exit status: 0 nothing missed, 1 something was, 77 no GPU here or nothing to run.
#
# PYTHON names the python for PyTorch. GPU_CHECK_TRY=1 tries these scripts on a machine without a card: CPU ranks, emulated kernels, models of
# thousandths of the size; its figures (gpu-try.*) mean nothing.
set -u
part=${1-}
try=${GPU_CHECK_TRY:-}
here=$(cd "$(dirname "$0")" && pwd)
results=${GPU_CHECK_RESULTS:-$([ -n "$try" ] && echo gpu-try || echo gpu-check)}
began=$(date +%s)
export srcdir="$here/../.."
export GPU_CHECK_DEVICE="${GPU_CHECK_DEVICE:-$([ -n "$try" ] && echo cpu || echo cuda)}"

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

# write_out: JSON and a table for docs/benchmarks.md from the lines
write_out()
{
    awk -F'\t' -v card="$card" -v date="$(date -u +%Y-%m-%dT%H:%M:%SZ)" -v commit="$commit" '
        function text(s) { gsub(/\\/, "\\\\", s); gsub(/"/, "\\\"", s); return "\"" s "\"" }
        BEGIN { printf "{\"card\": %s, \"commit\": %s, \"date\": \"%s\", \"results\": [", text(card), text(commit), date }
        { printf "%s\n  {\"part\": %s, \"name\": %s, \"figure\": %s, \"reach\": %s, \"verdict\": %s, \"seconds\": %d}",
                 (NR > 1 ? "," : ""), text($1), text($2), text($3), text($4), text($5), $6 }
        END { print "\n]}" }' "$results.tsv" > "$results.json"
    {
        printf '%s, %s, commit %s\n\n' "$card" "$(date -u +%Y-%m-%d)" "$commit"
        printf '| part | what | figure | to reach | verdict |\n|---|---|---|---|---|\n'
        awk -F'\t' '{ printf "| %s | %s | %s | %s | %s |\n", $1, $2, $3, $4, $5 }' "$results.tsv"
    } > "$results.md"
}

# add NAME FIGURE REACH VERDICT: one line of the table, in the place of an older one of the same name
add()
{
    touch "$results.tsv"
    awk -F'\t' -v part="$part" -v name="$1" '!($1 == part && $2 == name)' "$results.tsv" > "$results.new"
    printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$part" "$1" "$2" "$3" "$4" $(($(date +%s) - piece_began)) >> "$results.new"
    mv "$results.new" "$results.tsv"
    write_out
    printf '%-52s %-60s %-28s %s\n' "$1" "$2" "$3" "$4"
    case $4 in missed*) missed=$((missed + 1)) ;; esac
}

# piece NAME SECONDS COMMAND...: run it within SECONDS and what is left of the part. Its output goes to the log; a line "result<TAB>name<TAB>
# figure<TAB>reach<TAB>verdict" of it is added to the table at once. Sets $status, and $before, the length of the log before it.
piece()
{
    name=$1 limit=$2 left=$((${GPU_CHECK_SECONDS:-530} - $(date +%s) + began))
    shift 2
    piece_began=$(date +%s)
    before=$(($(wc -l < "$results.log") + 1))
    [ "$limit" -le "$left" ] || limit=$left
    if [ "$limit" -lt 5 ]; then
        add "$name" - - "not measured: the part's time was over"
        status=124
        return
    fi
    echo "== $name, at most $limit s: $*" >> "$results.log"
    timeout -k 5 "$limit" "$@" >> "$results.log" 2>&1 # no pipe: what outlives its parent would keep it open
    status=$?
    tail -n +"$before" "$results.log" > "$results.part"
    # a field that is empty has a dash: read takes several tabs for one
    sed -n "/^result$tab/ { s/$tab$tab/$tab-$tab/g; s/$tab$tab/$tab-$tab/g; p }" "$results.part" > "$results.lines"
    while IFS="$tab" read -r _ name_of figure reach verdict; do
        add "$name_of" "$figure" "$reach" "$verdict"
    done < "$results.lines"
    case $status in
    0) ;;
    124 | 137) add "$name: ended" "stopped after $limit s" - "$([ "$part" = tests ] && echo missed || echo "not measured"): too slow, or it hangs" ;;
    77) add "$name: ended" - - "not measured: $(tail -n 1 "$results.log")" ;;
    *) add "$name: ended" "exit status $status" "0" "missed: $(tail -n 1 "$results.log" | cut -c1-150)" ;;
    esac
}

# kernels NAME PROGRAM... : cases of a GoogleTest program on the card; what its summary says
kernels()
{
    kernel=$1 limit=$2
    shift 2
    piece "kernels, $kernel" "$limit" "$@"
    [ "$status" -ne 124 ] || return
    passed=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$results.part" | tail -n 1)
    skipped=$(sed -n 's/^\[  SKIPPED \] \([0-9]*\) test.*/\1/p' "$results.part" | tail -n 1)
    bad=$(grep -c '^\[  FAILED  \].*[/.].*(' "$results.part")
    verdict=reached
    # a program that ran nothing on the card has shown nothing
    [ "$status" -eq 0 ] && [ "${passed:-0}" -gt 0 ] || verdict=missed
    add "kernels, $kernel" "${passed:-0} passed, $bad failed, ${skipped:-0} skipped" "all pass" "$verdict"
    [ "$verdict" = reached ] || grep '^\[  FAILED  \]\|Failure\|is not\|error' "$results.part" | head -n 20
}

# find_python: one that has PyTorch and, but for a try, sees the card
find_python()
{
    for python in "${PYTHON:-}" python3 /opt/*/bin/python3 /opt/*/.venv/bin/python3 /opt/*/venv/bin/python3 /venv/bin/python3 "${HOME:-/nowhere}"/*/bin/python3; do
        command -v "${python:-no-such-program}" > /dev/null || continue
        timeout 100 "$python" -c "import sys, torch; sys.exit(not ('$try' or torch.cuda.is_available()))" > /dev/null 2>&1 || continue
        command -v "$python"
        return
    done
}

# cases NAMES: GoogleTest's filter for those of the suites Ops and Norms, on the card
cases()
{
    set -f
    for name in $1; do
        for suite in Ops Norms; do
            printf '*/%s.%s/%s:' $suite "$name" "$([ -n "$try" ] && echo 'cuda_emulated*' || echo 'cuda*')"
        done
    done
    printf -- '-%s' "$([ -n "$try" ] || echo '*cuda_emulated*')"
    set +f
}

# others NAMES: what of them such a filter leaves out
others()
{
    set -f
    for name in $1; do
        printf ':*/Ops.%s' "$name"
    done
    set +f
}

part_tests()
{
    program=tests/test_gpu
    [ -x "$program" ] || skip "no $program: make bundle, or make $program"
    [ -x tests/tools/metrics_diff ] || skip "no tests/tools/metrics_diff: make check TESTS= builds it"
    updates='Ada* Lion* Sgd* Padding* Update*'
    kernels device 60 "$program" --gtest_filter="*/Devices.*/$([ -n "$try" ] && echo cpu || echo cuda)"
    kernels products 90 "$program" --gtest_filter="$(cases 'Matmul*')"
    kernels attention 120 "$program" --gtest_filter="$(cases 'Attention*')"
    kernels "attention by mma.sync" 60 env ZINF_ATTENTION=mma "$program" --gtest_filter="$(cases 'Attention*')"
    kernels loss 60 "$program" --gtest_filter="$(cases 'Loss*')"
    kernels "updates (1 M elements of AdamW bit for bit)" 90 "$program" --gtest_filter="$(cases "$updates")"
    kernels others 90 "$program" --gtest_filter="$(cases '*')$(others "Matmul* Attention* Loss* $updates")"
    if [ -x tests/test_comm ] && [ -z "$try" ]; then
        kernels "NCCL's communicator, one rank" 60 env ZINF_LINK=nccl tests/test_comm link
    fi
    piece "steps" 200 sh "$here/steps.sh" train
    piece "resume and export" 60 sh "$here/steps.sh" endings
    piece "steps with offload" 150 sh "$here/steps.sh" offload
    if command -v compute-sanitizer > /dev/null && [ -z "$try" ]; then
        kernels "memcheck" 200 compute-sanitizer --error-exitcode 1 "$program" --gtest_filter="$(cases '*')"
    else
        piece_began=$(date +%s)
        add "kernels, memcheck" - "all pass" "not measured: no compute-sanitizer here"
    fi
}

# What torch can do is measured first: its figures are what others are held against.
part_train()
{
    values=$results.values
    rm -f "$values"
    python=$(find_python)
    [ -n "$python" ] || echo "no python with PyTorch that sees this card: PYTHON=... names one" | tee -a "$results.log"
    [ -z "$python" ] || piece "PyTorch's operations" 110 "$python" "$here/torch_peer.py" operations --device "$GPU_CHECK_DEVICE" --values "$values"
    piece "operations" 70 sh "$here/operations.sh" "$values" operations
    piece "attention by mma.sync" 50 sh "$here/operations.sh" "$values" mma
    for model in gpt2 llama; do
        piece "training, $model" 130 sh "$here/speed.sh" "$model" "$values"
        [ -n "$python" ] || continue
        piece "training, $model, PyTorch" 130 "$python" "$here/torch_peer.py" "$model" --device "$GPU_CHECK_DEVICE" --values "$values"
        piece "training, $model, beside PyTorch" 10 sh "$here/operations.sh" "$values" "$model"
    done
    piece "CUDA graphs" 90 sh "$here/speed.sh" graphs "$values"
}

part_offload()
{
    values=$results.values
    rm -f "$values"
    python=$(find_python)
    [ -z "$python" ] || piece "PyTorch's copies" 60 "$python" "$here/torch_peer.py" copies --device "$GPU_CHECK_DEVICE" --values "$values"
    piece "copies" 60 sh "$here/operations.sh" "$values" copies
    piece "7B, optimizer in host memory" 300 sh "$here/speed.sh" offload-cpu "$values"
    piece "4B, optimizer on the drive" 230 sh "$here/speed.sh" offload-nvme "$values"
}

case $part in
tests | train | offload) ;;
all)
    worst=0
    for each in tests train offload; do
        sh "$0" $each || { status=$?; [ $status -le $worst ] || worst=$status; }
    done
    exit $worst ;;
*) echo "usage: check.sh tests | train | offload | all" >&2; exit 2 ;;
esac
[ -x ./zinf ] || skip "no ./zinf here: run it in the bundle or in the build folder"
[ ! -x bin/mpiexec ] || export MPIEXEC="$PWD/bin/mpiexec"
commit=$(cat commit 2> /dev/null || git -C "$here" describe --always --dirty 2> /dev/null || echo unknown)
if [ -n "$try" ]; then
    card="none: a try of the scripts, figures mean nothing"
else
    card=$(card) || skip "$card"
fi
echo "card: $card; commit $commit"
tab=$(printf '\t') missed=0
touch "$results.tsv"
awk -F'\t' -v part="$part" '$1 != part' "$results.tsv" > "$results.new" && mv "$results.new" "$results.tsv"
{ echo "=== $part, $(date -u)"; ./zinf env; } >> "$results.log" 2>&1
"part_$part"
rm -f "$results.new" "$results.lines" "$results.part"
echo "table: $results.tsv, $results.json, $results.md; log: $results.log; $(($(date +%s) - began)) s"
[ "$missed" -eq 0 ]
