#!/bin/sh
# What `zinf bench device` measures against what it is to reach; run by tests/gpu/check.sh, which reads the lines that begin with "result".
#
#   operations.sh VALUES operations    products, attention, what moves bytes; attention beside PyTorch's in VALUES
#   operations.sh VALUES mma           attention without the instructions of compute capability 9.0, beside FlashAttention-2's in VALUES
#   operations.sh VALUES copies        copies between device and host
#   operations.sh VALUES gpt2|llama    training beside PyTorch: figures that speed.sh and torch_peer.py have left in VALUES
#
# VALUES: a file of lines "name<TAB>number"; what is measured here is added.
set -eu
values=$1
touch "$values"

value()
{
    awk -F'\t' -v name="$1" '$1 == name { x = $2 } END { print x }' "$values"
}

case $2 in
gpt2 | llama)
    own=$(value "$2 tokens/s") torch=$(value "torch $2 tokens/s")
    if [ -z "$own" ] || [ -z "$torch" ]; then
        echo "no figure of zinf or of PyTorch to compare"
        exit 77
    fi
    awk -v own="$own" -v torch="$torch" -v name="$2" 'BEGIN {
        printf "result\ttraining, %s, beside torch.compile, fused AdamW, SDPA\t%.2f of its %.0f tokens/s\tat least 1.10\t%s\n", name, own / torch, torch,
               (own / torch >= 1.10) ? "reached" : "missed" }'
    exit ;;
esac

[ "$2" != mma ] || export ZINF_ATTENTION=mma
bench=$(mktemp)
trap 'rm -f "$bench"' EXIT
./zinf bench device --json --device "$GPU_CHECK_DEVICE" ${GPU_CHECK_TRY:+--seconds 0.01 --rounds 2} > "$bench"
cat "$bench"
# a line each: name, dtype, shape, rate (FLOP/s or bytes/s), part of the limit
awk -F'"' '
    $2 == "name" { name = $4; of = "" }
    $2 == "dtype" { dtype = $4 }
    $2 == "shape" { shape = $4 }
    $2 ~ /_per_s$/ && $2 !~ /^peak/ { rate = $3; gsub(/[: ,]/, "", rate) }
    $2 ~ /^of_/ { of = $3; gsub(/[: ,]/, "", of) }
    /^ *}/ && name != "" { printf "%s\t%s\t%s\t%s\t%s\n", name, dtype, shape, rate, of; name = "" }' "$bench" > "$bench.tsv"
[ "$2" = mma ] || awk -F'\t' '{ printf "%s %s (%s)\t%s\n", $1, $2, $3, $4 }
    $1 == "product" && $2 == "bf16" { printf "product\t%s\n", $4 }' "$bench.tsv" >> "$values"

awk -F'\t' -v what="$2" -v values="$values" '
    function result(name, figure, reach, ok) { printf "result\t%s\t%s\t%s\t%s\n", name, figure, reach, ok }
    function judge(x, least) { return x >= least ? "reached" : "missed" }
    BEGIN { while ((getline line < values) > 0) { split(line, f, "\t"); of[f[1]] = f[2] } }
    what == "operations" && $1 == "product" { result("product, " $2 ", " $3, sprintf("%.0f TFLOP/s", $4 / 1e12), "the limit of what follows", "measured") }
    what == "operations" && $1 == "copy" { result("copy inside the device", sprintf("%.0f GB/s read and written", $4 / 1e9), "the limit of what follows", "measured") }
    (what == "operations" || what == "mma") && $1 == "attention" {
        split($3, f, /[ ,]+/)
        place = "head size " f[3] ", sequence " f[5]
        own = sprintf("%.0f TFLOP/s", $4 / 1e12)
        sdpa = of["torch attention " place]; flash = of["torch flash attention " place]
        if (what == "mma") {
            if (flash == "") result("attention by mma.sync, " place, own, "at least 0.95 of FlashAttention-2", "not measured: no PyTorch")
            else result("attention by mma.sync, " place, sprintf("%s, %.2f of FlashAttention-2", own, $4 / flash), "at least 0.95", judge($4 / flash, 0.95))
            next
        }
        if (sdpa == "") result("attention forward and backward, " place, own, "at least 0.80 of PyTorch", "not measured: no PyTorch")
        else result("attention forward and backward, " place, sprintf("%s, %.2f of SDPA (%s)", own, $4 / sdpa, of["torch attention backend " place]),
                    "at least 0.80", judge($4 / sdpa, 0.80))
        if (flash != "") result("the same beside FlashAttention-2, " place, sprintf("%.2f", $4 / flash), "", "measured")
    }
    what == "operations" && ($1 ~ /^(AdamW|cross-entropy|cast)$/ || $1 ~ /norm/) {
        result($1 " " $2 " (" $3 ")", sprintf("%.0f GB/s, %.2f of the copy", $4 / 1e9, $5), "at least 0.85", judge($5, 0.85)) }
    what == "operations" && ($1 ~ /GELU|SwiGLU|square/) {
        result($1 " " $2 " (" $3 ")", sprintf("%.0f GB/s, %.2f of the copy", $4 / 1e9, $5), "", "measured") }
    what == "copies" && $1 ~ /^(host|device) to|plain/ { result("pinned copies, " $1, sprintf("%.1f GB/s", $4 / 1e9), "", "measured") }
    what == "copies" && $1 ~ /pieces/ {
        result("pinned copies, " $1, sprintf("%.1f GB/s, %.2f of the plain probe", $4 / 1e9, $5), "at least 0.90", judge($5, 0.90))
        if (of["torch copies both ways"] != "")
            result("the same beside PyTorch with pinned memory of its own", sprintf("%.2f of %.1f GB/s", $4 / of["torch copies both ways"], of["torch copies both ways"] / 1e9),
                   "at least 0.90", judge($4 / of["torch copies both ways"], 0.90))
    }' "$bench.tsv"
rm -f "$bench.tsv"
