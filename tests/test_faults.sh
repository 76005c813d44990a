#!/bin/sh
# The n-th I/O call of a run with both offloads and inputs of layers on NVMe and a checkpoint fails, for growing n until a run has fewer calls:
# never a wrong number, never a hang. What can be recovered changes no bit; the rest ends with the contract's code, a file and an offset. ZINF_LONG=1: every n and all kinds on both engines, else some.
. "${srcdir:-.}/tests/lib.sh"
text "$work/text" 80000
mkdir "$work/nvme"
config "$work/ds.json" 3
step=7 growth=31
kinds="err=EIO err=ENOSPC short=512 err=EAGAIN err=EINTR" others="err=EIO short=512" engines="io_uring threads"
[ -z "$quick" ] || { step=120 growth=240 kinds="err=EIO short=512 err=EAGAIN" others="err=EIO" engines=io_uring; }
[ -z "${ZINF_LONG:-}" ] || { step=1 others=$kinds; }
first=$step

# run NAME FAULT: three steps on one rank
run() {
    rm -rf "$work/$1"
    ZINF_FAULT=$2 timeout 20 "$program" "$work/ds.json" -q --threads 1 --run-dir "$work/$1" --set zinf.train.steps=3 \
        --set zero_optimization.sub_group_size=4096 --set zero_optimization.offload_optimizer.device=nvme \
        --set zero_optimization.offload_optimizer.nvme_path="$work/nvme" --set zero_optimization.offload_param.device=nvme \
        --set zero_optimization.offload_param.nvme_path="$work/nvme" --set gradient_accumulation_steps=1 \
        --set zinf.model.config.n_layer=6 --set zinf.memory.activations=nvme > "$work/out" 2>&1
}


# Inputs of layers alone on NVMe: what fails is named by layer and micro-batch, on either engine.
for engine in $engines; do
    for operation in read write; do
        named=0 n=$([ $operation = read ] && echo 165 || echo 5) # 168 samples of text are read through the same seam first
        while [ $named -lt 2 ] && [ $n -lt 300 ]; do
            rm -rf "$work/inputs"
            ZINF_IO_ENGINE=$engine ZINF_FAULT="op=$operation,n=$n,err=EIO" timeout 20 "$program" "$work/ds.json" -q --threads 1 \
                --run-dir "$work/inputs" --set zinf.train.steps=3 --set zinf.model.config.n_layer=7 \
                --set zinf.memory.activations=nvme --set zero_optimization.offload_param.nvme_path="$work/nvme" \
                --set zero_optimization.offload_param.buffer_count=2 --set gradient_accumulation_steps=3 > "$work/out" 2>&1
            code=$?
            grep -q "$operation of [0-9]* bytes at offset [0-9]* (extent [0-9]*: input of layer [0-4], micro-batch [0-2],.*Input/output error" "$work/out" &&
                named=$((named + 1)) && n=$((n - 4))
            case $code in 1 | 4) ;; *) fail "$engine, inputs of layers, $operation n=$n: exit code $code"; tail -n 3 "$work/out" ;; esac
            n=$((n + 9))
        done
        [ $named -eq 2 ] || { fail "$engine, inputs of layers, $operation: $named of 2 errors named"; tail -n 3 "$work/out"; }
    done
done

run whole "" || { fail "without a fault: $?"; cat "$work/out"; finish; }
for engine in io_uring threads; do
    export ZINF_IO_ENGINE=$engine
    for operation in read write; do
        for what in $([ $engine = io_uring ] && echo "$kinds" || echo "$others"); do
            n=1 runs=0
            while :; do
                run fault "op=$operation,n=$n,$what"
                code=$?
                name="$engine $operation $what n=$n"
                [ $code -ne 124 ] || { fail "$name: hangs"; break; }
                case $what in
                short* | *EAGAIN | *EINTR)
                    [ $code -eq 0 ] || { fail "$name: exit code $code"; tail -n 3 "$work/out"; }
                    out=$("$tools/metrics_diff" "$work/whole/metrics.jsonl" "$work/fault/metrics.jsonl" 0) ||
                        fail "$name: $out"
                    ;;
                *)
                    case $code in
                    0) out=$("$tools/metrics_diff" "$work/whole/metrics.jsonl" "$work/fault/metrics.jsonl" 0) || fail "$name: $out" ;;
                    1 | 2 | 3 | 4) grep -q 'error' "$work/out" || { fail "$name: no message"; cat "$work/out"; } ;;
                    *) fail "$name: exit code $code"; tail -n 3 "$work/out" ;;
                    esac
                    ;;
                esac
                runs=$((runs + 1))
                [ $n -gt 600 ] && break # more than such a run has calls
                n=$((n + step))
                [ -n "${ZINF_LONG:-}" ] || step=$((step + growth))
            done
            [ -n "${ZINF_LONG:-}" ] || step=$first
            [ -z "$(ls -A "$work/nvme")" ] || fail "$engine $operation $what: files are left on the drive"
        done
    done
done
finish
