# Sourced by the tests that run the program: a folder of their own, a text, a ds.json, and a count of what failed.
# shellcheck shell=sh disable=SC2034
set -u
program=$(pwd)/zinf
tools=$(pwd)/tests/tools
mpiexec=${MPIEXEC:-mpiexec}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1
failures=0
# ZINF_QUICK=1: fewer combinations, for builds whose numbers another build has proved (sanitizers, a second compiler).
quick=${ZINF_QUICK:-}

fail() {
    echo "FAIL: $*"
    failures=$((failures + 1))
}

# text FILE BYTES: words of a small vocabulary in an order that no two lines share.
text() {
    awk -v bytes="$2" 'BEGIN {
        split("the a of rank shard block tensor moves gathers sums before after every step and then small large", w, " ")
        x = 12345
        while (n < bytes) {
            line = ""
            for (i = 0; i < 9; i++) { x = (x * 1103 + 12345) % 65536; line = line w[1 + int(x / 64) % 18] " " }
            print line "."; n += length(line) + 2
        }
    }' > "$1"
}

# config FILE STAGE [EXTRA]: gpt2 with two layers; EXTRA are further members of the top level, each behind a comma.
config() {
    cat > "$1" <<EOF
{
  "train_batch_size": 168,
  "optimizer": {"type": "AdamW", "params": {"lr": 3e-3, "weight_decay": 0.1}},
  "scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": 5}},
  "gradient_clipping": 0.5,
  "zero_optimization": {"stage": $2},
  "zinf": {
    "model": {"config": {"model_type": "gpt2", "vocab_size": 257, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 4,
                         "embd_pdrop": 0.1, "attn_pdrop": 0.1, "resid_pdrop": 0.1}},
    "data": {"train": "$work/text", "tokenizer": "bytes", "sequence_length": 16},
    "train": {"steps": 20, "seed": 7}
  }${3:-}
}
EOF
}

# ranks N ARGUMENTS...: run the program on N ranks, one thread each; output to $work/out; its exit code is returned.
ranks() {
    n=$1
    shift
    "$mpiexec" -n "$n" "$program" "$@" --threads 1 > "$work/out" 2>&1
}

# Where optimizer states and parameters stand: `device`, and a folder in $work for what is on NVMe.
o=zero_optimization.offload_optimizer p=zero_optimization.offload_param
optimizer_on() {
    echo "--set $o.device=$1 --set $o.nvme_path=$work/nvme"
}
parameters_on() {
    echo "--set $p.device=$1 --set $p.nvme_path=$work/nvme"
}

# train NAME RANKS STAGE OPTION...: $steps steps to $work/NAME
train() {
    name=$1 n=$2
    config "$work/$name.json" "$3"
    shift 3
    ranks "$n" "$work/$name.json" -q --run-dir "$work/$name" --set zinf.train.steps="$steps" "$@" ||
        { fail "$name: exit code $?"; cat "$work/out"; }
}

# same NAME NAME [TOLERANCE [STEPS]]: the numbers of two runs, bit for bit without a tolerance
same() {
    out=$("$tools/metrics_diff" "$work/$1/metrics.jsonl" "$work/$2/metrics.jsonl" "${3:-0}" ${4:+"$4"}) || fail "$1 against $2: $out"
}

# number KEY FILE: the last one of that name in JSON
number() {
    sed -n "s/.*\"$1\": *\([0-9.e-]*\).*/\1/p" "$2" | tail -n 1
}

# own_disk FOLDER MIB: mount a file system of that size there, so that its free space is nobody else's: ext4 in a file, else tmpfs. $own says
# which; empty: neither can be had here.
own_disk() {
    truncate -s "$2M" "$work/disk.img"
    if mkfs.ext4 -q -F "$work/disk.img" 2> /dev/null && mount -o loop "$work/disk.img" "$1" 2> /dev/null; then
        own=ext4
        rmdir "$1/lost+found"
    elif mount -t tmpfs -o size="$2m" tmpfs "$1" 2> /dev/null; then
        own=tmpfs
    else
        own=
        echo "no file system can be mounted here (needs root): its space is not watched"
    fi
    # shellcheck disable=SC2064
    [ -z "$own" ] || trap "umount '$1'; rm -rf '$work'" EXIT
}

# needs PROGRAM PACKAGE: this test is skipped where that program is not installed.
needs() {
    command -v "$1" > /dev/null || { echo "$1 is not installed (Debian package: $2)"; exit 77; }
}

# sanitized: AddressSanitizer is built in. It maps terabytes of shadow, and locks no memory (mlock() does nothing under it).
sanitized() {
    nm "$program" 2> /dev/null | grep -qw __asan_init
}

finish() {
    [ "$failures" -eq 0 ] && exit 0
    echo "$failures failures"
    exit 1
}
