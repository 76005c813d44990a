#!/bin/sh
# Steps of ranks that exchange between their devices, by NCCL's communicator, give the bits of CPU ranks and send as many bytes; a run ends in
# one sentence when the library fails, hangs or cannot be used. Device and library are those for tests (late_device.c, fake_nccl.c).
# ZINF_LONG=1: 4 ranks and fp16 as well, four times each.
. "${srcdir:-.}/tests/lib.sh"
text "$work/text" 60000
mkdir "$work/nvme" "$work/fake"
late=$(pwd)/tests/tools/zinf_late
seed=0
link="ZINF_FAKE_NCCL=$work/fake ZINF_CUDA_LIBRARIES=$(pwd)/tests/fake ZINF_LATE_LINK=own"

# train NAME RANKS STAGE OPTION...: ten steps; what fails is seen when another run is compared with it
train() {
    name=$1 n=$2
    config "$work/$name.json" "$3"
    shift 3
    ranks "$n" "$work/$name.json" --run-dir "$work/$name" --set zinf.train.steps=10 "$@"
}

# bytes of each step
sent() {
    sed -n 's/.*"comm_bytes": *\([0-9]*\).*/\1/p' "$work/$1/metrics.jsonl"
}

# linked NAME AS RANKS STAGE OPTION...: the same steps as AS, over the link, with the next seed
linked() {
    name=$1 other=$2 seed=$((seed + 1))
    shift 2
    cpu=$program program="env $link ZINF_LATE_SEED=$seed $late"
    train "$name" "$@" || { fail "$name (seed $seed): exit code $?"; cat "$work/out"; }
    program=$cpu
    grep -q "1 rank on it" "$work/out" || fail "$name: takes its device for one that is shared"
    grep -q "exchange    NCCL [0-9.]* between $1 GPUs" "$work/out" || fail "$name: does not say how ranks exchange"
    out=$("$tools/metrics_diff" "$work/$other/metrics.jsonl" "$work/$name/metrics.jsonl" 0) || fail "$name (seed $seed) against $other: $out"
    [ "$(sent "$other")" = "$(sent "$name")" ] || fail "$name: sent" $(sent "$name") "and not" $(sent "$other")
    if command -v h5diff > /dev/null; then
        h5diff --exclude-path /provenance "$work/$other/checkpoints/step-00000010.h5" "$work/$name/checkpoints/step-00000010.h5" > "$work/differ" ||
            fail "$name (seed $seed): its checkpoint differs from $other's: $(head -n 3 "$work/differ")"
    fi
}

# program and its environment are words
ranks() {
    n=$1
    shift
    # shellcheck disable=SC2086
    "$mpiexec" -n "$n" $program "$@" --threads 1 > "$work/out" 2>&1
}

rank_counts=2 types="fp32 bf16" seeds=1
[ -z "$quick" ] || types=bf16
[ -z "${ZINF_LONG:-}" ] || { rank_counts="2 4" types="fp32 bf16 fp16" seeds="1 2 3 4"; }
# Few windows, used again at once.
tight="--set zero_optimization.stage3_max_live_parameters=12000"
common="--set zinf.model.config.n_layer=4 --set gradient_accumulation_steps=2 --set zinf.data.eval=$work/text --set zinf.train.eval_every=4 --set zinf.train.eval_batches=2"
# shellcheck disable=SC2046,SC2086
for type in $types; do
    for n in $rank_counts; do
        options=$common
        [ $type = fp32 ] || options="$options --set $type.enabled=true"
        for stage in 0 1 2 3; do
            base=$type-$n-$stage
            train $base $n $stage $options
            for s in $seeds; do
                linked $base-link$s $base $n $stage $options
            done
            [ $stage -gt 0 ] || continue
            for where in cpu nvme; do
                linked $base-o$where $base $n $stage $options $(optimizer_on $where) --set zero_optimization.sub_group_size=2048
            done
        done
        train $base-tight $n 3 $options $tight
        for s in $seeds; do
            linked $base-tight$s $base-tight $n 3 $options $tight
        done
        for where in cpu nvme; do
            linked $base-ocpu-p$where $base-tight $n 3 $options $tight $(optimizer_on cpu) $(parameters_on $where)
            linked $base-p$where $base-tight $n 3 $options $tight $(parameters_on $where)
        done
        linked $base-ratio $base-tight $n 3 $options $tight $(optimizer_on cpu) --set $o.ratio=0.5
        linked $base-onvme-pnvme $base $n 3 $options $(optimizer_on nvme) $(parameters_on nvme)
    done
done

# What the plan counts for a GPU each is what such ranks take.
# shellcheck disable=SC2046,SC2086
train planned 2 3 $common
for where in none cpu nvme; do
    "$program" plan "$work/planned.json" -q --ranks 2 --json --gpu-memory 4GB --set zinf.train.steps=10 $common $(optimizer_on $where) > "$work/plan" ||
        fail "zinf plan --gpu-memory: $?"
    linked planned-$where planned 2 3 $common $(optimizer_on $where)
    for bytes in device_bytes:device_bytes pinned_bytes:host_bytes; do
        used=$(number "${bytes%:*}" "$work/planned-$where/metrics.jsonl") planned=$(number "${bytes#*:}" "$work/plan")
        [ "$used" -eq "$planned" ] || fail "optimizer $where: ${bytes%:*}: run $used, plan $planned"
    done
done

# Each of these ranks sees one GPU, and not its neighbour's: a run takes them for two and says what to change, and `zinf env` says the same.
grep -q 'each rank sees one GPU only, .* srun --gpu-bind=none' "$work/out" || { fail "GPUs that are hidden from neighbours: not said"; cat "$work/out"; }
# shellcheck disable=SC2086
"$mpiexec" -n 2 env $link "$late" env > "$work/out" 2>&1 || { fail "zinf env: $?"; cat "$work/out"; }
grep -q 'exchange .*NCCL [0-9.]* between 2 GPUs, .*gpu-bind=none' "$work/out" || { fail "zinf env: how ranks exchange"; cat "$work/out"; }
[ "$(grep 'device late 0, ' "$work/out" | sort -u | grep -c '^  rank [01],')" -eq 2 ] || { fail "zinf env: which rank has which device"; cat "$work/out"; }

# ends CODE TEXT OPTION...: a run whose environment is $link and $more
ends() {
    code=$1 text=$2
    shift 2
    rm -rf "$work/ends"
    cpu=$program program="env $link $more $late"
    train ends 2 3 "$@"
    got=$?
    program=$cpu
    [ $got -eq "$code" ] && grep -Eq "$text" "$work/out" && return
    fail "$more $*: exit code $got (not $code?), message:"
    cat "$work/out"
}
more=ZINF_FAKE_NCCL_FAULT=async,n=20,rank=1
ends 1 "rank 1 of 2 on .*: (all-gather|exchange) (1[0-9]|20) of [0-9]* bytes a rank failed: NCCL: remote error"
more=ZINF_FAKE_NCCL_FAULT=stuck,n=20,rank=1
ends 1 "no progress for .*communication lane, operation .* waits for transfers of NCCL, .* 20 of" --set zinf.watchdog_s=1
more=ZINF_FAKE_NCCL_FAULT=start,rank=0
ends 1 "rank 0 of 2 on .*: no progress for 1 s in the start of NCCL" --set zinf.watchdog_s=1
more=ZINF_FAKE_NCCL_FAULT=old
ends 2 "rank 0 cannot exchange with other GPUs: NCCL 21400 in .* is too old"
more=ZINF_LATE_LINK=shared
ends 0 "exchange    through host memory by MPI: ranks 0 and 1 share the GPU"
more="ZINF_LATE_LINK=shared ZINF_LINK=nccl"
ends 2 "ZINF_LINK=nccl, but ranks 0 and 1 share the GPU .*without ZINF_LINK ranks exchange through host memory"
more=ZINF_LINK=host
ends 0 "exchange    through host memory by MPI: ZINF_LINK=host"
finish
