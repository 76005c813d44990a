#!/bin/sh
# Where states stand changes no bit: stages x offload targets x types x record sizes x ring depths against no offload, on 1 to 4 ranks; resume
# with states on NVMe, also across tiers and rank counts; and the bytes that go to the drive are those of the formulas. ZINF_LONG=1: all types and
# depths everywhere.
. "${srcdir:-.}/tests/lib.sh"
text "$work/text" 80000
mkdir "$work/nvme"
steps=12

# equal_lines KEY A B: the lines of metrics.jsonl that have KEY
equal_lines() {
    grep "$1" "$work/$2/metrics.jsonl" > "$work/a"
    grep "$1" "$work/$3/metrics.jsonl" | cmp -s - "$work/a" || fail "$1 lines of $2 and $3 differ"
    [ -s "$work/a" ] || fail "$2 has no $1"
}

# shellcheck disable=SC2046,SC2086
types="fp32 bf16 fp16" some="fp32 bf16" depths="1 3 7" optimizers="SGD Lion Adagrad" stages="1 2 3" rings="1 2 4"
[ -z "${ZINF_LONG:-}" ] || some=$types depths="1 2 3 7"
[ -z "$quick" ] || { types=bf16 some=bf16 depths=1 optimizers=SGD stages=3 rings="1 4"; }
for type in $types; do
    enabled=$([ $type = fp32 ] || echo "--set $type.enabled=true --set gradient_accumulation_steps=2")
    for stage in $stages; do
        n=$((stage + 1))
        train $type-$stage $n $stage $enabled
        for where in cpu nvme; do
            train $type-$stage-o$where $n $stage $enabled $(optimizer_on $where) --set zero_optimization.sub_group_size=2048
            same $type-$stage $type-$stage-o$where
        done
    done
    for optimizer in none cpu nvme; do
        for where in cpu nvme; do
            name=$type-o$optimizer-p$where
            train $name 4 3 $enabled $(optimizer_on $optimizer) $(parameters_on $where)
            same $type-3 $name
        done
    done
done

# Without clipping updates begin in the backward pass; evaluations between steps see whole weights.
# shellcheck disable=SC2046,SC2086
for type in $some; do
    enabled=$([ $type = fp32 ] || echo "--set $type.enabled=true")
    for stage in $stages; do
        base=early-$type-$stage
        unclipped="$enabled --set gradient_clipping=0 --set gradient_accumulation_steps=2 --set zinf.data.eval=$work/text
            --set zinf.train.eval_every=5 --set zinf.train.eval_batches=2"
        train $base 3 $stage $unclipped
        for buffers in $rings; do
            train $base-o$buffers 3 $stage $unclipped $(optimizer_on nvme) --set $o.buffer_count=$buffers \
                --set zero_optimization.sub_group_size=2048
            same $base $base-o$buffers
            equal_lines eval_loss $base $base-o$buffers
        done
        [ $stage -eq 3 ] || continue
        train $base-op 3 3 $unclipped $(optimizer_on nvme) $(parameters_on nvme) --set zero_optimization.sub_group_size=1024
        train $base-p 3 3 $unclipped $(parameters_on nvme) --set zero_optimization.sub_group_size=1024
        for where in op p; do
            same $base $base-$where
            equal_lines eval_loss $base $base-$where
        done
    done
done

# Ring depths, record sizes, one rank; the serial ring; no prefetch.
train one 1 3
for buffers in $depths; do
    for size in 1024 $([ -n "$quick" ] || echo 4096 1000000000); do
        # shellcheck disable=SC2046
        train one-$buffers-$size 1 3 $(optimizer_on nvme) $(parameters_on nvme) --set $o.buffer_count=$buffers \
            --set $p.buffer_count=$buffers --set zero_optimization.sub_group_size=$size
        same one one-$buffers-$size
    done
done
# shellcheck disable=SC2046
train one-serial 1 3 $(optimizer_on nvme) $(parameters_on nvme) --set $o.buffer_count=1 --set zero_optimization.stage3_prefetch_bucket_size=0
same one one-serial
for optimizer in $optimizers; do
    plain="--set optimizer={\"type\":\"$optimizer\",\"params\":{\"lr\":1e-3}}"
    # shellcheck disable=SC2086
    train $optimizer 2 3 $plain
    # shellcheck disable=SC2046,SC2086
    train $optimizer-nvme 2 3 $plain $(optimizer_on nvme) $(parameters_on nvme)
    same $optimizer $optimizer-nvme
done

# What stays in host memory changes no bit either, and spares its part of the traffic: none, some, all.
# plan NAME RANKS OPTION...: to $work/plan
plan() {
    name=$1 n=$2
    shift 2
    "$program" plan "$work/$name.json" -q --ranks "$n" --json --set zinf.train.steps=12 "$@" > "$work/plan" || fail "zinf plan of $name: $?"
}
# planned_traffic NAME RANKS: what a step moved, summed over ranks, is what $work/plan says of each
planned_traffic() {
    for bytes in nvme_read_bytes nvme_write_bytes; do
        [ "$(number $bytes "$work/$1/metrics.jsonl")" -eq $(($(number $bytes "$work/plan") * $2)) ] ||
            fail "$1, $bytes: run $(number $bytes "$work/$1/metrics.jsonl"), plan $2 x $(number $bytes "$work/plan")"
    done
}
# shellcheck disable=SC2046,SC2086
for type in $some; do
    enabled=$([ $type = fp32 ] || echo "--set $type.enabled=true --set gradient_accumulation_steps=2")
    for where in $([ -n "$quick" ] || echo none) nvme; do
        where_to="$(optimizer_on nvme) $(parameters_on $where) --set zero_optimization.sub_group_size=2048"
        plan $type-3 4 $enabled $where_to
        moved=$(number nvme_read_bytes "$work/plan") swap=$(number nvme_bytes "$work/plan")
        for cache in 30000 $((swap / 2)) auto; do
            kept="--set zinf.memory.cache=$cache --set $p.max_in_cpu=$([ $cache = auto ] && echo 1000000000 || echo 5000)"
            name=$type-$where-cache-$cache
            train $name 4 3 $enabled $where_to $kept
            same $type-3 $name
            plan $name 4 $enabled $where_to $kept
            planned_traffic $name 4
            [ "$(number nvme_read_bytes "$work/plan")" -lt "$moved" ] || fail "$name: the cache spares nothing"
        done
        [ "$(number nvme_read_bytes "$work/plan")" -eq 0 ] || fail "$name: all is resident and yet read"
    done
done

# Two folders, as two drives would be.
mkdir "$work/second"
# shellcheck disable=SC2046
train two-folders 4 3 --set bf16.enabled=true --set gradient_accumulation_steps=2 $(optimizer_on nvme) $(parameters_on nvme) \
    --set $p.nvme_path="$work/second"
same bf16-3 two-folders

# Resume: states on NVMe, stopped in the middle, gone on with on other ranks and tiers.
whole=$work/bf16-3/checkpoints/step-00000012.h5
config "$work/resume.json" 3
bf16="-q --set zinf.train.steps=12 --set bf16.enabled=true --set gradient_accumulation_steps=2"
# shellcheck disable=SC2046,SC2086
ranks 4 "$work/resume.json" $bf16 --run-dir "$work/resume" --max-steps 5 $(optimizer_on nvme) $(parameters_on nvme)
[ $? -eq 75 ] || { fail "a run with both on NVMe, stopped"; cat "$work/out"; }
cp -r "$work/resume" "$work/other"
# shellcheck disable=SC2046,SC2086
ranks 4 "$work/resume.json" $bf16 --run-dir "$work/resume" $(optimizer_on nvme) $(parameters_on nvme) || fail "resume on NVMe: $?"
if command -v h5diff > /dev/null; then
    h5diff --exclude-path /provenance "$whole" "$work/resume/checkpoints/step-00000012.h5" || fail "resumed on NVMe differs"
    # shellcheck disable=SC2086
    ranks 4 "$work/resume.json" $bf16 --run-dir "$work/other" --set $o.device=cpu || fail "from NVMe to the host: $?"
    h5diff --exclude-path /provenance "$whole" "$work/other/checkpoints/step-00000012.h5" || fail "resumed on the host differs"
fi

# Resume with the inputs of layers on NVMe, and with them elsewhere: nothing of them is in a checkpoint.
deep="-q --set zinf.train.steps=12 --set zinf.model.config.n_layer=7"
for where in recompute nvme; do
    cp "$work/resume.json" "$work/from-$where.json"
    # shellcheck disable=SC2046,SC2086
    ranks 2 "$work/from-$where.json" $deep --run-dir "$work/from-$where" --max-steps 5 $(optimizer_on nvme) \
        --set zinf.memory.activations=$where
    [ $? -eq 75 ] || { fail "activations $where, stopped"; cat "$work/out"; }
    # shellcheck disable=SC2046,SC2086
    ranks 2 "$work/from-$where.json" $deep --run-dir "$work/from-$where" $(optimizer_on nvme) --set zinf.memory.activations=nvme ||
        { fail "activations $where, resumed on NVMe: $?"; cat "$work/out"; }
done
# shellcheck disable=SC2086
ranks 2 "$work/resume.json" $deep --run-dir "$work/whole" --set zinf.memory.activations=keep || fail "seven layers: $?"
same whole from-recompute
same whole from-nvme
if command -v h5diff > /dev/null; then
    h5diff --exclude-path /provenance "$work/whole/checkpoints/step-00000012.h5" "$work/from-nvme/checkpoints/step-00000012.h5" ||
        fail "resumed with activations on NVMe differs"
fi

# The plan's figures are the run's: bytes on the wire and to the drive, memory (whole pages).
# planned NAME RANKS OPTION...: memory and traffic of a run that has been trained with these options
planned() {
    plan "$@"
    metrics=$work/$1/metrics.jsonl
    planned_traffic "$1" "$2"
    [ "$(number comm_bytes "$metrics")" -eq "$(number comm_bytes "$work/plan")" ] || fail "$1: comm_bytes differ from the plan's"
    for pair in device_bytes:device_bytes pinned_bytes:host_bytes; do
        used=$(number "${pair%:*}" "$metrics") bytes=$(number "${pair#*:}" "$work/plan")
        [ "$used" -eq "$bytes" ] || fail "$1: $pair: run $used, plan $bytes"
    done
}
bf16="--set bf16.enabled=true --set gradient_accumulation_steps=2"
# shellcheck disable=SC2046,SC2086
planned bf16-onvme-pnvme 4 $bf16 $(optimizer_on nvme) $(parameters_on nvme)

# The inputs of layers on each tier beside the states: 7 layers, 4 windows, so 3 inputs of each micro-batch travel.
deep="$bf16 --set zinf.model.config.n_layer=7"
for states in none nvme; do
    for where in keep recompute cpu nvme; do
        options="$deep $(optimizer_on $states) $(parameters_on $states) --set zinf.memory.activations=$where"
        # shellcheck disable=SC2086
        train $states-$where 4 3 $options
        same none-keep $states-$where
        # shellcheck disable=SC2086
        planned $states-$where 4 $options
    done
done
traffic() {
    number nvme_write_bytes "$work/$1/metrics.jsonl"
}
# 21 rows x 16 tokens x 16 channels x 2 bytes, padded to 12288, of 3 layers in 2 micro-batches on 4 ranks.
[ "$(traffic none-nvme)" -eq $((12288 * 3 * 2 * 4)) ] || fail "inputs of layers: $(traffic none-nvme) bytes written"
[ $(($(traffic nvme-nvme) - $(traffic nvme-recompute))) -eq "$(traffic none-nvme)" ] || fail "inputs beside states: $(traffic nvme-nvme)"

# A model large enough that padding is little: 12 bytes read and 12 written per parameter and step, less what is cached; and what a step
# moves is what the kernel counts. Two lengths of the same run, so that start and checkpoint cancel out.
config "$work/large.json" 3
# shellcheck disable=SC2089
large="-q --threads 1 --set bf16.enabled=true --set zinf.model.config.n_embd=128 --set zinf.model.config.n_layer=6 --set train_batch_size=2"
# moved STEPS OPTION...: bytes read and written by a run of so many steps, to $work/moved.STEPS
moved() {
    steps=$1
    shift
    rm -rf "$work/large"
    # shellcheck disable=SC2086,SC2090
    "$tools/io_count" "$program" "$work/large.json" $large --run-dir "$work/large" --set zinf.train.steps="$steps" "$@" > "$work/out" 2>&1 ||
        { fail "large, $steps steps: $?"; cat "$work/out"; }
    sed -n 's/^io_count: //p' "$work/out" > "$work/moved.$steps"
}
within() {
    awk -v found="$1" -v wanted="$2" 'BEGIN { exit !(found > 0.98 * wanted - 1 && found < 1.02 * wanted + 1) }'
}
# near WHAT FOUND WANTED: within 2 %
near() {
    within "$2" "$3" || fail "$1: $2, not $3"
}
for cache in 0 7MB; do
    for where in none nvme; do
        # shellcheck disable=SC2046
        set -- $(optimizer_on nvme) $(parameters_on $where) --set zinf.memory.cache=$cache
        options=$*
        [ "$cache$where" != 0none ] || moved 2 "$@" # the program itself is read from the drive once
        moved 2 "$@"
        moved 6 "$@"
        # shellcheck disable=SC2086,SC2090
        "$program" plan "$work/large.json" --ranks 1 --json $large "$@" --set zinf.train.steps=6 > "$work/plan" 2> /dev/null || fail "plan of large"
        grep -q '^nvme wait .* [0-9.]* [KMG]iB$' "$work/large/zinf.log" || fail "the end table does not say what moved to and from the drive"
        parameters=$(number parameters "$work/plan") cached=$(number cached_fraction "$work/plan")
        read=$(number nvme_read_bytes "$work/large/metrics.jsonl") written=$(number nvme_write_bytes "$work/large/metrics.jsonl")
        extra=0 # weights of 2 bytes are written too
        [ $where = none ] || extra=2
        near "written, cache $cache, parameters $where" "$written" "$(echo "$parameters $cached $extra" | awk '{ print $1 * (12 * (1 - $2) + $3) }')"
        if [ $where = none ]; then
            near "read, cache $cache" "$read" "$(echo "$parameters $cached" | awk '{ print $1 * 12 * (1 - $2) }')"
        fi
        [ "$cache" = 0 ] || { [ "${cached%.*}" = 0 ] && [ "$cached" != 0 ]; } || fail "cache $cache: cached_fraction is $cached"
        # shellcheck disable=SC2046
        set -- $(cat "$work/moved.2" "$work/moved.6")
        for _ in 1 2; do # where the kernel has dropped pages of the program meanwhile, it has read them again
            within $((($3 - $1) / 4)) "$read" && break
            # shellcheck disable=SC2086
            moved 2 $options
            # shellcheck disable=SC2086
            moved 6 $options
            # shellcheck disable=SC2046
            set -- $(cat "$work/moved.2" "$work/moved.6")
        done
        if grep -q '"io_direct": true' "$work/large/results.json"; then
            near "read as the kernel counts, cache $cache, parameters $where" $((($3 - $1) / 4)) "$read"
            near "written as the kernel counts, cache $cache, parameters $where" $((($4 - $2) / 4)) "$written"
        fi
    done
done

[ -z "$(ls -A "$work/nvme")" ] || fail "files are left on the drive: $(ls "$work/nvme")"
finish
