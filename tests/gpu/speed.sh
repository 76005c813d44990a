#!/bin/sh
# Speed of training on the card, in models of the sizes that people know; run by tests/gpu/check.sh, which reads the lines that begin with "result".
#
#   speed.sh gpt2 VALUES            GPT-2 1.5B, bf16, states on the card
#   speed.sh graphs VALUES          GPT-2 124M, bf16, one sequence a micro-batch: blocks as CUDA graphs, and without
#   speed.sh llama VALUES           a Llama-shaped 7B, bf16, states on the card; with fewer layers where they do not fit
#   speed.sh offload-cpu VALUES     that 7B with offload_optimizer cpu, clipping 1.0
#   speed.sh offload-nvme VALUES    4B with offload_optimizer nvme on the drive of this folder
#
# 32768 tokens a step: micro-batches as large as the plan lets them be with the activations of all layers kept, else the largest that fits.
# A run is ended by force when it has shown enough steps: a checkpoint of 80 GB is not what is measured. VALUES: see operations.sh.
#
# "The same step without the update" are steps of the same run: in fp16 the loss scale begins so high that the first steps overflow, do all that
# a step does, and skip the update.
#
# Environment: GPU_CHECK_DEVICE (cuda, cpu); GPU_CHECK_TRY=1: models of thousandths of the size.
set -eu
what=$1 values=$2
touch "$values"
work=$(mktemp -d "$PWD/gpu-check-XXXXXX")
pid=
trap '[ -z "$pid" ] || kill -9 "$pid" 2> /dev/null; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
try=${GPU_CHECK_TRY:-}

# pick SMALL LARGE: the first in a try of the script
pick()
{
    if [ -n "$try" ]; then echo "$1"; else echo "$2"; fi
}

# number KEY FILE: the first value of a key in JSON that stands a key a line
number()
{
    sed -n "s/^ *\"$1\": *\([0-9.e+-]*\).*/\1/p" "$2" | head -n 1
}

value()
{
    awk -F'\t' -v name="$1" '$1 == name { x = $2 } END { print x }' "$values"
}

result()
{
    printf 'result\t%s\t%s\t%s\t%s\n' "$@"
}

# verdict EXPRESSION: of awk
verdict()
{
    awk "BEGIN { if ($1) print \"reached\"; else print \"missed\" }"
}

# text FILE BYTES
text()
{
    awk -v bytes="$2" 'BEGIN {
        split("the a of rank shard block tensor moves gathers sums before after every step and then small large", w, " ")
        srand(7)
        while (n < bytes) {
            line = ""
            for (i = 0; i < 9; i++) line = line w[1 + int(rand() * 18)] " "
            print line "."; n += length(line) + 2
        }
    }' > "$1"
}

# model NAME LAYERS: $model, $sequence
model()
{
    case $1 in
    gpt2 | small)
        wide=$([ "$1" = small ] && echo '"n_embd": 768, "n_head": 12' || echo '"n_embd": 1600, "n_head": 25')
        sequence=$(pick 64 1024)
        model="\"model_type\": \"gpt2\", \"n_layer\": $2, \"n_positions\": $sequence, \"embd_pdrop\": 0, \"attn_pdrop\": 0, \"resid_pdrop\": 0"
        model="$model, $(pick '"vocab_size": 300, "n_embd": 64, "n_head": 2' '"vocab_size": 50257, '"$wide")" ;;
    llama)
        sequence=$(pick 64 2048)
        model="\"model_type\": \"llama\", \"num_hidden_layers\": $2, \"max_position_embeddings\": $sequence"
        model="$model, $(pick '"vocab_size": 300, "hidden_size": 64, "intermediate_size": 176, "num_attention_heads": 2, "num_key_value_heads": 2' \
            '"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "num_key_value_heads": 32')" ;;
    esac
}

# config NAME LAYERS MICRO TYPE [OFFLOAD]: $work/ds.json; a batch of 32768 tokens
config()
{
    model "$1" "$2"
    batch=$(pick 32 $((32768 / sequence)))
    cat > "$work/ds.json" << END
{
  "train_batch_size": $batch, "train_micro_batch_size_per_gpu": $3, "steps_per_print": 1,
  "optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "betas": [0.9, 0.95], "weight_decay": 0.1}},
  "gradient_clipping": 1.0,
  "$4": {"enabled": true$([ "$4" = bf16 ] || echo ', "initial_scale_power": 26, "hysteresis": 1')},
  "zero_optimization": {"stage": $([ -n "${5:-}" ] && echo "3, \"offload_optimizer\": {\"device\": \"$5\", \"nvme_path\": \"$work\", \"pin_memory\": true}" || echo 0)},
  "zinf": {
    "model": {"init": "random", "config": {$model}},
    "data": {"train": "$work/text", "tokenizer": "bytes", "sequence_length": $sequence},
    "train": {"steps": 100000, "seed": 1}, "device": "$GPU_CHECK_DEVICE"
  }
}
END
}

# memory of the first cuda device; the plan takes off what CUDA and its libraries have of it
card_memory()
{
    if [ "$GPU_CHECK_DEVICE" = cuda ]; then
        ./zinf env --json | awk -F'[:,]' '/"device": "cuda/ { on = 1 } on && /"memory_bytes"/ { printf "%.0f\n", $2; exit }'
    else
        echo 4000000000
    fi
}
host_memory()
{
    awk '/^MemAvailable/ { printf "%.0f\n", $2 * 1024 * 0.9 }' /proc/meminfo
}

# fits NAME LAYERS MICRO TYPE [OFFLOAD]: does the plan say so? Its figures in $work/plan
fits()
{
    config "$@"
    ./zinf plan "$work/ds.json" --ranks 1 --gpu-memory "$card" --host-memory "$host" --json > "$work/plan" 2> "$work/why" || return 1
    grep -q '"fits": true' "$work/plan"
}

# choose NAME TYPE OFFLOAD LAYERS...: the most layers that fit; of micro-batches the largest that keeps all activations, else the largest that
# fits. Sets $layers, $micro, $kept and leaves ds.json and the plan so.
choose()
{
    name=$1 type=$2 offload=$3
    shift 3
    for layers; do
        largest=
        for micro in 32 16 8 4 2 1; do
            fits "$name" "$layers" "$micro" "$type" "$offload" || continue
            largest=${largest:-$micro}
            [ "$(number kept_layers "$work/plan")" -lt "$layers" ] || break
        done
        [ -n "$largest" ] || continue
        fits "$name" "$layers" "$micro" "$type" "$offload" && [ "$(number kept_layers "$work/plan")" -eq "$layers" ] || micro=$largest
        fits "$name" "$layers" "$micro" "$type" "$offload"
        kept=$(number kept_layers "$work/plan")
        parameters=$(number parameters "$work/plan")
        about="$(awk -v n="$parameters" 'BEGIN { printf "%.2f", n / 1e9 }') G parameters, $layers layers, $micro x $((batch / micro)), activations of $kept kept"
        return 0
    done
    cat "$work/why"
    echo "no number of layers of $name fits into $card bytes of the card and $host of the host"
    exit 77
}

# run STEPS SECONDS: until that many steps with an update are done, or the time is over. Exit status 1: not one was done (memory of a virtual
# machine may come at 0.2 GB/s when it is touched for the first time)
run()
{
    rm -rf "$work/run"
    cp "$work/ds.json" "$work/last.json"
    ./zinf "$work/ds.json" --run-dir "$work/run" -q ${try:+--threads 2} > "$work/out" 2>&1 &
    pid=$!
    end=$(($(date +%s) + $2))
    while kill -0 "$pid" 2> /dev/null; do
        [ "$(updates | wc -l)" -lt "$1" ] || break
        [ "$(date +%s)" -lt "$end" ] || break
        sleep 0.5
    done
    kill -9 "$pid" 2> /dev/null || { cat "$work/out"; pid=; echo "the run ended by itself"; exit 1; }
    wait "$pid" 2> /dev/null || true
    pid=
    cat "$work/out"
    cat "$work/run/metrics.jsonl" || { echo "no step was done in $2 s"; return 1; }
}

# steps KEY: "step updated value" a line
steps()
{
    [ -e "$work/run/metrics.jsonl" ] || return 0
    sed -n 's/^{"step": *\([0-9]*\),.*"skipped": *\([0-9]*\),.*"'"$1"'": *\([0-9.e+-]*\)[,}].*/\1 \2 \3/p' "$work/run/metrics.jsonl" |
        awk '{ print $1, $2 == last, $3; last = $2 }'
}
updates()
{
    steps step_s | awk '$2 == 1'
}

# median KEY UPDATED SKIP: of the steps with an update (1) or without (0), without the first SKIP of them
median()
{
    steps "$1" | awk -v updated="$2" '$2 == updated { print $3 }' | tail -n +$(($3 + 1)) | sort -g |
        awk '{ x[NR] = $1 } END { if (NR) print NR % 2 ? x[(NR + 1) / 2] : (x[NR / 2] + x[NR / 2 + 1]) / 2 }'
}

# need NUMBER WHAT
need()
{
    [ -n "$1" ] || { echo "$2"; exit 1; }
}

train()
{
    # shellcheck disable=SC2086 # numbers of layers
    choose "$1" bf16 "" $2
    run 8 110
    seconds=$(median step_s 1 2) rate=$(median tokens_per_s 1 2) flop=$(median tflops 1 2) mfu=$(median mfu 1 2)
    need "$rate" "fewer than three steps: no rate"
    printf '%s tokens/s\t%s\n' "$1" "$rate" >> "$values"
    printf '%s layers\t%s\n' "$1" "$layers" >> "$values"
    product=$(value product)
    result "training, $1, bf16: $about" "$(awk -v s="$seconds" -v r="$rate" -v f="$flop" -v m="$mfu" -v p="${product:-0}" 'BEGIN {
        printf "%.3f s a step, %.0f tokens/s, %.1f model TFLOP/s, MFU %.3f", s, r, f, m
        if (p > 0) printf ", %.2f of the product", f * 1e12 / p }')" "at least 0.72 of the product" \
        "$(if [ -n "$product" ]; then verdict "$flop * 1e12 / $product >= 0.72"; else echo "not measured: no product"; fi)"
    used=$(steps device_bytes | awk 'END { print $3 }') planned=$(number device_bytes "$work/plan")
    result "memory of the device, $1: what zinf asks for" "$(awk -v u="$used" -v p="$planned" 'BEGIN { printf "%.0f MiB used, %.0f planned", u / 1048576, p / 1048576 }')" \
        "the same" "$(verdict "$used == $planned")"
    # And with CUDA's context and kernels, which nobody asks for: as the driver's monitor counts it against what the plan adds.
    used=$(number card_bytes "$work/run/results.json") planned=$(number card_bytes "$work/plan")
    result "memory of the device, $1: all the process has" "$(awk -v u="${used:-0}" -v p="$planned" -v c="$(number context_bytes "$work/run/results.json")" 'BEGIN {
        printf "%.0f MiB used (context %.0f), %.0f planned", u / 1048576, c / 1048576, p / 1048576 }')" "within 2 %" \
        "$(if [ -n "$used" ]; then verdict "$used / $planned < 1.02 && $used / $planned > 0.98"; else echo "not measured: libnvidia-ml does not tell"; fi)"
}

# Without recordings, with them, and as a run measures and decides itself, which takes ten steps.
graphs()
{
    for use in off on auto; do
        config small "$(pick 2 12)" 1 bf16
        sed -i 's/"device": "'"$GPU_CHECK_DEVICE"'"/"graphs": "'$use'", &/' "$work/ds.json"
        run 16 28
        median step_s 1 11 > "$work/$use.s"
        need "$(cat "$work/$use.s")" "graphs $use: fewer than twelve steps in 28 s"
        sed -n 's/^graphs  *//p' "$work/run/zinf.log" | tail -n 1 > "$work/$use.said"
    done
    result "CUDA graphs, GPT-2 124M, micro-batch of 1 x $sequence" "$(awk -v on="$(cat "$work/on.s")" -v off="$(cat "$work/off.s")" -v auto="$(cat "$work/auto.s")" 'BEGIN {
        printf "%.1f ms a step with, %.1f without: %.2f; auto %.1f", 1e3 * on, 1e3 * off, off / on, 1e3 * auto }'); $(cat "$work/auto.said")" \
        "auto within 1.03 of the faster" "$(verdict "$(cat "$work/auto.s") <= 1.03 * ($(cat "$work/on.s") < $(cat "$work/off.s") ? $(cat "$work/on.s") : $(cat "$work/off.s"))")"
}

# run_order: ds.json with super_offload as $order says
run_order()
{
    cp "$work/ds.json" "$work/ds.plain"
    ahead=$([ $order = super_offload ] && echo true || echo false)
    sed 's/"pin_memory": true/&, "super_offload": '"$ahead"'/' "$work/ds.plain" > "$work/ds.json"
    run 4 140
    code=$?
    mv "$work/ds.plain" "$work/ds.json"
    return $code
}

# New weights made before the norm is known, and updates that begin behind it.
offload_cpu()
{
    # shellcheck disable=SC2046
    choose llama fp16 cpu $(pick 2 "32 28 24 20 16 12 8")
    for order in super_offload norm-first; do
        run_order || {
            choose llama fp16 cpu "$(pick 2 8)"
            run_order
        }
        with=$(median step_s 1 1) without=$(median step_s 0 2)
        need "$with" "fewer than two steps with an update in 140 s"
        need "$without" "no skipped steps to compare with"
        result "7B, optimizer in host memory, $order: $about, fp16" "$(awk -v a="$with" -v b="$without" 'BEGIN {
            printf "%.2f s a step, %.2f without the update: %.2f", a, b, a / b }')" "$([ $order = super_offload ] && echo "at most 1.10" || echo "the one above")" \
            "$(if [ $order = super_offload ]; then verdict "$with / $without <= 1.10"; else echo measured; fi)"
    done
}

# As many layers as the drive holds, and moves within 40 s a step.
offload_nvme()
{
    ./zinf bench io "$work" --json --engine io_uring ${try:+--size 64MiB --seconds 0.1} --rounds 1 > "$work/io"
    cat "$work/io"
    drive=$(awk '/"best"/ { on = 1 } on && /"mixed"/ { mixed = 1 } mixed && /bytes_per_s/ { gsub(/[^0-9.e+-]/, "", $2); print $2; exit }' "$work/io")
    need "$drive" "zinf bench io gives no mixed rate"
    free=$(df -Pk "$work" | awk 'NR == 2 { printf "%.0f\n", $4 * 1024 }')
    most=$(awk -v free="$free" -v rate="$drive" 'BEGIN { n = (free - 4e9) / 12.5; m = rate * 40 / 24; n = n < m ? n : m; layers = int((n - 0.27e9) / 202.4e6)
        print layers > 19 ? 19 : layers }')
    most=$(pick 4 "$most")
    [ "$most" -gt 0 ] || { echo "$work has $free bytes free and moves $drive bytes/s: not one layer"; exit 77; }
    choose llama fp16 nvme "$most" $((most * 3 / 4)) $((most / 2))
    run 3 170
    with=$(median step_s 1 1) skipped=$(median step_s 0 2) waited=$(median wait_nvme_s 0 2)
    need "$with" "fewer than two steps with an update in 170 s"
    need "$skipped" "no skipped steps to compare with"
    compute=$(awk "BEGIN { print $skipped - ${waited:-0} }") # records that were read for nothing are no compute
    moved=$(awk -v a="$(median nvme_read_bytes 1 1)" -v b="$(median nvme_write_bytes 1 1)" 'BEGIN { print a + b }')
    result "4B, optimizer on the drive: $about, fp16" "$(awk -v s="$with" -v c="$compute" -v m="$moved" -v d="$drive" 'BEGIN {
        f = m / d; b = f > c ? f : c
        printf "%.2f s a step; compute %.2f, drive %.2f (%.1f GB at %.2f GB/s): %.2f", s, c, f, m / 1e9, d / 1e9, b / s }')" \
        "at least 0.90 of the larger" \
        "$(verdict "$compute / $with >= 0.90 || $moved / $drive / $with >= 0.90")"
}

card=$(card_memory) host=$(host_memory)
need "$card" "zinf env --json names no memory of a cuda device"
text "$work/text" "$(pick 200000 4000000)"
case $what in
gpt2) train gpt2 "$(pick 2 48)" ;;
graphs) graphs ;;
llama) train llama "$(pick 2 "32 28 24 20 16 12 8")" ;;
offload-cpu) offload_cpu ;;
offload-nvme) offload_nvme ;;
*) echo "usage: speed.sh gpt2 | graphs | llama | offload-cpu | offload-nvme VALUES" >&2; exit 2 ;;
esac
