# Sourced by the benchmarks of this folder.
# shellcheck shell=sh

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

# need_space FOLDER GIB
need_space()
{
    free=$(df -k --output=avail "$1" | tail -n 1)
    [ "$free" -gt $(($2 * 1048576)) ] || { echo "skipped: $1 has $((free / 1048576)) GiB free, $2 are needed"; exit 77; }
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
