#!/bin/sh
# A loss or gradient that is not finite: the step is skipped on all ranks in every type, the place is named once, and too many end the run with 6.
. "${srcdir:-.}/tests/lib.sh"
text "$work/text" 80000
config "$work/ds.json" 3
for type in fp32 bf16; do
    ranks 3 "$work/ds.json" --run-dir "$work/$type" --set optimizer.params.lr=1e30 --set gradient_clipping=0 \
        --set zinf.train.max_nonfinite=4 --set "bf16.enabled=$([ $type = bf16 ] && echo true || echo false)"
    code=$?
    [ $code -eq 6 ] || { fail "$type: exit code $code, not 6"; cat "$work/out"; }
    [ "$(grep -c 'is not finite' "$work/out")" -eq 4 ] || { fail "$type: the place is not named once a step"; cat "$work/out"; }
    [ "$(grep -c '^error\|error:' "$work/out")" -eq 1 ] || { fail "$type: not one error"; cat "$work/out"; }
    tail -n 1 "$work/$type/metrics.jsonl" | grep -q '"loss": null.*"grad_norm": null.*"skipped": 4' ||
        fail "$type: the last line of metrics.jsonl"
done

# fp16, dynamic scale: early overflows only lower the scale; the schedule waits for the first applied step.
ranks 2 "$work/ds.json" --run-dir "$work/fp16" --set fp16.enabled=true --set fp16.initial_scale_power=30 --set fp16.hysteresis=1 ||
    { fail "fp16 with a scale that is too large at first"; cat "$work/out"; }
grep -q '"skipped": 0' "$work/fp16/metrics.jsonl" && fail "fp16: the first step was not skipped"
grep -q 'on rank .* is not finite' "$work/out" && { fail "fp16: an overflow above the minimum was traced"; cat "$work/out"; }
# At its minimum the scale cannot be lowered: traced, and exit 6.
ranks 2 "$work/ds.json" --run-dir "$work/minimum" --set fp16.enabled=true --set fp16.initial_scale_power=30 \
    --set fp16.min_loss_scale=1073741824 --set fp16.hysteresis=1
[ $? -eq 6 ] || { fail "fp16: the scale at its minimum"; cat "$work/out"; }
grep -q 'is not finite' "$work/out" || { fail "fp16: the overflow that ends the run was not traced"; cat "$work/out"; }

# A batch that is not finite, once, after updates that began in its backward pass: everything must be as if the step had not been. A row of an
# untied table is NaN, and one window of the text looks it up. On every tier the run ends with the same bits.
config "$work/llama.json" 3
sed -i 's/"model": {"config": {.*/"model": {"config": {"model_type": "llama", "vocab_size": 257, "max_position_embeddings": 32,/
    s/"embd_pdrop": 0.1, .*/"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "tie_word_embeddings": false}},/' \
    "$work/llama.json"
head -c 20000 "$work/text" > "$work/one" && printf 'Z' >> "$work/one" && head -c 40000 "$work/text" >> "$work/one"
plain="-q --set gradient_clipping=0 --set zinf.data.train=$work/one --set zinf.data.shuffle=false --set train_batch_size=160"
# shellcheck disable=SC2086
ranks 2 "$work/llama.json" $plain --run-dir "$work/made" --max-steps 1 --set zinf.train.steps=16
[ $? -eq 75 ] || { fail "a first step, to have weights"; cat "$work/out"; }
"$program" export "$work/made/checkpoints/latest" "$work/folder" > "$work/out" 2>&1 || { fail "export"; cat "$work/out"; }
file=$work/folder/model.safetensors
header=$(od -An -t u8 -N 8 "$file" | tr -d ' ')
offset=$(head -c $((8 + header)) "$file" | tr -d ' \n' |
    sed -n 's/.*"model.embed_tokens.weight":{[^}]*"data_offsets":\[\([0-9]*\),.*/\1/p')
[ -n "$offset" ] || { fail "no embedding in the header"; head -c $((8 + header)) "$file"; finish; }
printf '\000\000\300\177' | dd of="$file" bs=1 seek=$((8 + header + offset + 90 * 32 * 4)) conv=notrunc 2> /dev/null # row of 'Z'
types="fp32 bf16" stages="1 2 3"
[ -z "$quick" ] || { types=fp32 stages=3; }
for type in $types; do
    enabled="--set bf16.enabled=$([ $type = bf16 ] && echo true || echo false) --set zinf.train.steps=16 --set zinf.model.path=$work/folder"
    for stage in $stages; do
        base=$work/bad-$type-$stage
        # shellcheck disable=SC2086
        ranks 2 "$work/llama.json" $plain $enabled --run-dir "$base" --set zero_optimization.stage=$stage ||
            { fail "$type, stage $stage: $?"; cat "$work/out"; }
        grep -q '"skipped": 1,' "$base/metrics.jsonl" || fail "$type, stage $stage: no step was skipped"
        tail -n 1 "$base/metrics.jsonl" | grep -q '"skipped": 1,' || fail "$type, stage $stage: not one step was skipped"
        for tiers in o op; do
            [ $tiers = o ] || [ $stage -eq 3 ] || continue
            where="--set $o.device=nvme --set $o.nvme_path=$work"
            [ $tiers = o ] || where="$where --set $p.device=nvme --set $p.nvme_path=$work"
            # shellcheck disable=SC2086
            ranks 2 "$work/llama.json" $plain $enabled --run-dir "$base-$tiers" --set zero_optimization.stage=$stage $where \
                --set zero_optimization.sub_group_size=1024 || { fail "$type, stage $stage, $tiers: $?"; cat "$work/out"; }
            out=$("$tools/metrics_diff" "$base/metrics.jsonl" "$base-$tiers/metrics.jsonl" 0) || fail "$type, stage $stage, $tiers: $out"
            [ "$(grep -c 'is not finite' "$work/out")" -eq 1 ] || { fail "$type, stage $stage, $tiers: the place is not named"; cat "$work/out"; }
            if command -v h5diff > /dev/null; then
                h5diff --exclude-path /provenance "$base/checkpoints/latest" "$base-$tiers/checkpoints/latest" > "$work/diff" 2>&1 ||
                    { fail "$type, stage $stage, $tiers: the checkpoints differ"; head -3 "$work/diff"; }
            fi
        done
    done
done
finish
