# Sourced by the benchmarks of this folder. They set `here`, this folder, and `zinf`, the program.
# shellcheck shell=sh disable=SC2154

# Median of the numbers on standard input.
median()
{
    sort -g | awk '{ x[NR] = $1 } END { print NR % 2 ? x[(NR + 1) / 2] : (x[NR / 2] + x[NR / 2 + 1]) / 2 }'
}

# step_seconds RUN_DIR SKIP: seconds of each step but the first SKIP ones
step_seconds()
{
    sed -n 's/^{"step": *\([0-9]*\),.*"step_s": *\([0-9.e+-]*\),.*/\1 \2/p' "$1/metrics.jsonl" | awk -v skip="$2" '$1 > skip { print $2 }'
}

# last_number NAME FILE: the last value of a JSON key
last_number()
{
    sed -n "s/.*\"$1\": *\([0-9.e+-]*\).*/\1/p" "$2" | tail -n 1
}

# activity_seconds NAME LOG: the mean over the ranks in the table that a run prints at its end
activity_seconds()
{
    awk -v name="$1" 'index($0, name " ") == 1 { sub(name, ""); print $2; exit }' "$2"
}

# mixed_rate FOLDER: bytes a second that fio reads and writes together there, half and half, with direct I/O and few large requests
mixed_rate()
{
    dd if=/dev/zero of="$1/zinf-fio" bs=8M count=128 oflag=direct status=none # else fio fills it, through the page cache
    fio --name=z --filename="$1/zinf-fio" --size=1g --direct=1 --rw=rw --ioengine=io_uring --fixedbufs --registerfiles \
        --bs=4m --iodepth=16 --runtime=6 --time_based --minimal --terse-version=3 | awk -F ';' '{ printf "%.0f\n", ($7 + $48) * 1024 }'
    rm -f "$1/zinf-fio"
}

need_fio()
{
    command -v fio > /dev/null || { echo "skipped: no fio here (Debian package: fio)"; exit 77; }
}

# enter_work FOLDER NAME: into a folder of this run below FOLDER, which goes when the script ends; in it nvme/ and corpus.txt. Its path: $work
enter_work()
{
    work=$(mktemp -d "$(readlink -f "$1")/zinf-$2-XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' INT TERM
    cd "$work" || exit 1
    mkdir nvme
    cat "$here"/../*/*.py "$here"/../*/*.c "$here"/../../src/*/*.c > corpus.txt # any text will do
}

# two_ranks OPTION...: run ds.json in run/ with two ranks, each with one thread on a core of its own; seconds of each step but the first two
# (allocation)
two_ranks()
{
    rm -rf run
    "${MPIEXEC:-mpiexec}" -bind-to core -n 2 "$zinf" ds.json --threads 1 -q "$@" > zinf.log 2>&1 || { cat zinf.log >&2; exit 1; }
    step_seconds run 2
}

# need_space FOLDER GIB
need_space()
{
    free=$(df -k --output=avail "$1" | tail -n 1)
    [ "$free" -gt $(($2 * 1048576)) ] || { echo "skipped: $1 has $((free / 1048576)) GiB free, $2 are needed"; exit 77; }
}

# gpt2_model FILE STEPS CLIPPING ZERO [EXTRA]: a ds.json of GPT-2 124M without dropout, fp32, 2 x 256 tokens a rank and step
gpt2_model()
{
    cat > "$1" << END
{
  "train_micro_batch_size_per_gpu": 2,
  "gradient_clipping": $3,
  "steps_per_print": 1000000,
  "optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "weight_decay": 0.01}},
  "zero_optimization": $4,
  "zinf": {
    "model": {"config": {"model_type": "gpt2", "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}, "init": "random"},
    "data": {"train": "corpus.txt", "tokenizer": "bytes", "sequence_length": 256, "shuffle": false},
    "train": {"steps": $2},
    "run": {"dir": "run"}
  }${5:+,
  $5}
}
END
}

# wide_model FILE LAYERS WIDTH SEQUENCE ZERO [EXTRA]: a ds.json with little compute for its parameters (12 LAYERS WIDTH^2), bf16
wide_model()
{
    cat > "$1" << END
{
  "train_micro_batch_size_per_gpu": 1,
  "steps_per_print": 1,
  "bf16": {"enabled": true},
  "optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "weight_decay": 0.01}},
  "zero_optimization": $5,
  "zinf": {
    "model": {"config": {"model_type": "gpt2", "n_layer": $2, "n_embd": $3, "n_head": 16, "n_positions": $4, "vocab_size": 257}, "init": "random"},
    "data": {"train": "corpus.txt", "tokenizer": "bytes", "sequence_length": $4, "shuffle": false},
    "train": {"steps": 4}${6:+, $6}
  }
}
END
}
