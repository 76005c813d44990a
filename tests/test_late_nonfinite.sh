#!/bin/sh
# A gradient that is not finite late in a backward pass: the loss and all layers but the first are finite, so updates of these have begun when
# it appears. The step is skipped, what was early is undone to the bit on every tier, and the parameter is named. "late": beside a device of its
# own memory (tests/late_device.c), where the new weights alone are early.
#
# How: one window of the text holds a letter that stands nowhere else. Its embedding alone has a value in column C; the first norm makes 1e38
# of that, and no product reads it, since column C of q, k and v is 0. Row J of v is 0 too and column J of o 1e8, so the gradient of v's row J
# is large and times 1e38 past what a float holds. Elsewhere column C stays 0 in every step: no norm behind passes it on, nothing writes to it.
. "${srcdir:-.}/tests/lib.sh"
text "$work/text" 80000
head -c 20000 "$work/text" > "$work/one" && printf 'Z' >> "$work/one" && head -c 40000 "$work/text" >> "$work/one"
config "$work/ds.json" 3
sed -i 's/"model": {"config": {.*/"model": {"config": {"model_type": "llama", "vocab_size": 257, "max_position_embeddings": 32,/
    s/"embd_pdrop": 0.1, .*/"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2, "tie_word_embeddings": false}},/' \
    "$work/ds.json"
common="--set gradient_clipping=0 --set optimizer.params.lr=1e-8 --set zinf.data.train=$work/one --set zinf.data.shuffle=false"
common="$common --set train_batch_size=160 --set zinf.train.steps=16"
# shellcheck disable=SC2086
ranks 2 "$work/ds.json" $common -q --run-dir "$work/made" --max-steps 1
[ $? -eq 75 ] || { fail "a first step, to have weights"; cat "$work/out"; }
"$program" export "$work/made/checkpoints/latest" "$work/folder" > "$work/out" 2>&1 || { fail "export"; cat "$work/out"; }
C=3 J=1 l=model.layers.
set -- model.embed_tokens.weight all $C 0 model.embed_tokens.weight 90 $C 0.05 model.norm.weight $C 0 0
for layer in 0 1 2; do
    set -- "$@" $l$layer.input_layernorm.weight $C 0 0 $l$layer.post_attention_layernorm.weight $C 0 0 \
        $l$layer.mlp.down_proj.weight $C all 0 $l$layer.self_attn.o_proj.weight $C all 0
done
for letter in q k v; do
    set -- "$@" ${l}0.self_attn.${letter}_proj.weight all $C 0
done
set -- "$@" ${l}0.input_layernorm.weight $C 0 1e38 ${l}0.self_attn.v_proj.weight $J all 0 \
    ${l}0.self_attn.o_proj.weight all $J 1e8 ${l}0.self_attn.o_proj.weight $C $J 0
"$tools/set_weights" "$work/folder" "$@" || { fail "the weights"; finish; }

named='step 8: the gradient of model.layers.0.self_attn.v_proj.weight (layer 0) on rank 1, micro-batch 0, is not finite'
# checked RUN: one step was skipped, it was the 8th, its loss was finite, and the place is named once
checked() {
    [ "$(grep -c '"skipped": 1,' "$1/metrics.jsonl")" -eq 9 ] || fail "$1: not one step was skipped, or not the 8th"
    sed -n 8p "$1/metrics.jsonl" | grep -q '"loss": [0-9].*"grad_norm": null.*"skipped": 1,' || fail "$1: step 8: $(sed -n 8p "$1/metrics.jsonl")"
    [ "$(grep -c 'is not finite' "$work/out")" -eq 1 ] || { fail "$1: the place is not named once"; cat "$work/out"; }
    grep -qF "$named" "$work/out" || { fail "$1: another place is named"; grep 'is not finite' "$work/out"; }
}
types="fp32 bf16" stages="1 2 3"
[ -z "$quick" ] || { types=fp32 stages="2 3"; }
for type in $types; do
    for stage in $stages; do
        base=$work/$type-$stage
        set -- --set "bf16.enabled=$([ "$type" = bf16 ] && echo true || echo false)" --set "zinf.model.path=$work/folder" \
            --set "zero_optimization.stage=$stage" --set zero_optimization.sub_group_size=1024
        # shellcheck disable=SC2086
        ranks 2 "$work/ds.json" $common "$@" --run-dir "$base" || { fail "$base: $?"; cat "$work/out"; }
        checked "$base"
        for tier in cpu nvme both late; do
            [ $tier != both ] || [ "$stage" -eq 3 ] || continue
            where="--set $o.device=$tier"
            [ $tier = cpu ] || where="--set $o.device=nvme --set $o.nvme_path=$work"
            [ $tier != both ] || where="$where --set $p.device=nvme --set $p.nvme_path=$work"
            cpu=$program
            [ $tier != late ] || { program=$(pwd)/tests/tools/zinf_late where="--set $o.device=cpu --set $o.super_offload=true"; }
            # shellcheck disable=SC2086
            ranks 2 "$work/ds.json" $common "$@" $where --run-dir "$base-$tier" || { fail "$base-$tier: $?"; cat "$work/out"; }
            program=$cpu
            checked "$base-$tier"
            out=$("$tools/metrics_diff" "$base/metrics.jsonl" "$base-$tier/metrics.jsonl" 0) || fail "$base-$tier: $out"
            [ $tier != late ] || grep -Eq 'new weights of [1-9][0-9]* more thrown away' "$work/out" ||
                { fail "$base-late: no weights were made before DECIDE, so nothing was thrown away"; cat "$work/out"; }
            [ $tier = cpu ] || grep -Eq 'records, [1-9][0-9]* % of them in the backward pass' "$work/out" ||
                { fail "$base-$tier: no update was early, so nothing was undone"; cat "$work/out"; }
            "$program" inspect --diff "$base/checkpoints/latest" "$base-$tier/checkpoints/latest" > "$work/diff" 2>&1 ||
                { fail "$base-$tier: the checkpoints differ"; head -5 "$work/diff"; }
        done
    done
done
finish
