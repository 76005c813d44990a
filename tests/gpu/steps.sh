#!/bin/sh
# Twenty steps on the card against twenty on CPU ranks: losses and gradient norms within what the type allows. Run by tests/gpu/check.sh in a
# build folder, ranks sharing the card; a line for each comparison, exit status 1 if one failed.
#
#   steps.sh train        stages 0-3 on 1, 2 and 4 ranks, fp32, bf16 and fp16, gpt2 and llama
#   steps.sh offload      stages 1-3 with offload_optimizer and offload_param to cpu and nvme
#
# CARD_PROGRAM and CARD_DEVICE try the script itself on a machine without a card: CARD_PROGRAM=tests/tools/zinf_late CARD_DEVICE=auto.
. "${srcdir:-.}/tests/lib.sh"
card=${CARD_PROGRAM:-$program} device=${CARD_DEVICE:-cuda}
text "$work/text" 80000
mkdir "$work/nvme"
o=zero_optimization.offload_optimizer p=zero_optimization.offload_param
llama='--set zinf.model.config={"model_type":"llama","vocab_size":257,"hidden_size":64,"intermediate_size":96,"num_hidden_layers":3,"num_attention_heads":4,"num_key_value_heads":2,"max_position_embeddings":32}'

# steps FOLDER RANKS STAGE OPTION...
steps() {
    folder=$1 n=$2
    config "$work/ds.json" "$3"
    shift 3
    ranks "$n" "$work/ds.json" -q --run-dir "$folder" --set zinf.train.steps=20 "$@"
}

# same NAME TOLERANCE RANKS STAGE OPTION...: the CPU's run is made once for a NAME up to its first blank
same() {
    name=$1 tolerance=$2
    base=$work/cpu-${1%% *}
    shift 2
    if [ ! -d "$base" ]; then
        # shellcheck disable=SC2086
        steps "$base" "$1" "$2" --device cpu ${base_options:-} || { fail "$name: CPU ranks: $?"; cat "$work/out"; return; }
    fi
    cpu=$program program=$card
    rm -rf "$work/card"
    steps "$work/card" "$@" --device "$device" || { fail "$name: on the card: $?"; tail -n 5 "$work/out"; program=$cpu; return; }
    program=$cpu
    if out=$("$tools/metrics_diff" "$base/metrics.jsonl" "$work/card/metrics.jsonl" "$tolerance"); then
        echo "pass: $name: $out"
    else
        fail "$name: $out"
    fi
}

# shellcheck disable=SC2086
for type in fp32 bf16 fp16; do
    enabled=$([ $type = fp32 ] || echo "--set $type.enabled=true")
    tolerance=$([ $type = fp32 ] && echo 1e-5 || echo 1e-2)
    for model in gpt2 llama; do
        options="$enabled --set gradient_accumulation_steps=2"
        [ $model = gpt2 ] || options="$options $llama"
        base_options=$options
        case ${1:-} in
        train)
            for n in 1 2 4; do
                for stage in 0 1 2 3; do
                    same "$type-$model-$n stage $stage" $tolerance $n $stage $options
                done
            done ;;
        offload)
            [ $model = gpt2 ] || continue
            for where in cpu nvme; do
                on="--set $o.device=$where --set $o.nvme_path=$work/nvme"
                for stage in 1 2 3; do
                    same "$type-$model-2 stage $stage, optimizer $where" $tolerance 2 $stage $options $on
                done
                for n in 1 2; do
                    same "$type-$model-$n stage 3, optimizer and param $where" $tolerance $n 3 $options $on \
                        --set $p.device=$where --set $p.nvme_path="$work/nvme"
                done
            done ;;
        *) echo "usage: steps.sh train | offload" >&2; exit 2 ;;
        esac
    done
done
finish
