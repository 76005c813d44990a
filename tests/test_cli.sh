#!/bin/sh
# The program itself: exit codes, where messages go, the nearest word, one copy of everything under mpiexec.
. "${srcdir:-.}/tests/lib.sh"
sources=$(cd "${srcdir:-.}" && pwd)
cd "$work" || exit 1

# try CODE ARGUMENTS...: run zinf; output to out, messages to err; the exit code must be CODE.
try() {
    code=$1
    shift
    "$program" "$@" > out 2> err
    got=$?
    [ "$got" -eq "$code" ] || fail "zinf $*: exit code $got, not $code: $(cat out err)"
}
says() { grep -qF -- "$1" err || fail "no '$1' in the messages: $(cat err)"; }
prints() { grep -qF -- "$1" out || fail "no '$1' in the output: $(head -n 20 out)"; }
silent() { [ ! -s out ] || fail "standard output should be empty: $(head -n 3 out)"; }
count() { [ "$(grep -cF -- "$2" "$3")" -eq "$1" ] || fail "'$2' should stand $1 times in $3: $(cat "$3")"; }

text text 20000
config ds.json 3

# the command line
try 2; silent; says "usage:"
try 0 --help; prints "commands:"; prints "--set"
try 0 --version; prints "zinf "; prints "HDF5"
try 0 help train; prints "usage: zinf train ds.json"
try 0 config --help; prints "--effective"
try 2 help nonsense; says "nonsense is neither a command nor a file"
try 2 help trian; says "unknown command trian; did you mean train?"
try 2 ds.json --bind x; says "unknown option --bind; did you mean the key of ds.json, --set zinf.bind=VALUE?"
try 2 --eval-every 5 ds.json; says "--set zinf.train.eval_every=VALUE?"
try 2 trian ds.json; silent; says "unknown command trian; did you mean train?"
try 2 zzzzzz; says "zzzzzz is neither a command nor a file; the nearest command is"
try 2 ds.json --maximum; says "unknown option --maximum; the nearest known one is --max-hours, \`zinf help train\` lists all"
try 2 "$(printf 'x%.0s' $(seq 200))"; says "neither a command nor a file; the nearest command is "
try 2 config ds.json --efective; says "unknown option --efective; did you mean --effective?"
try 2 --stet x ds.json; says "did you mean --set?"
try 2 config ds.json --set; says "--set needs a value"
try 2 config ds.json --set novalue; says "a key and a value should stand here"
try 2 config ds.json --max-steps 0; says "--max-steps 0: a whole number of at least 1"
try 2 config ds.json --max-hours x; says "--max-hours x"
try 2 config ds.json --threads -1; says "--threads -1"
try 2 config ds.json --ranks 0; says "--ranks 0"
try 2 config ds.json --dry-run=1; says "takes no value"
try 2 config ds.json other.json; says "one argument too many"
try 2 config; says "which file?"
try 2 init; says "right is: zinf init NAME"
for command in tokenize generate; do
    try 2 $command; says "zinf $command: not yet in this version"
done
try 0 plan ds.json --ranks 4 --gpu-memory 80GB; prints "memory of a rank"; prints "device: working memory of its streams"
try 0 plan ds.json --ranks 4 --gpu-memory 80GB --set zinf.memory.activations=cpu; prints "memory of a rank"
try 0 plan ds.json --ranks 4 --gpu-memory 80GB --set zero_optimization.stage=3 --set zero_optimization.offload_param.device=cpu; prints "memory of a rank"
try 3 plan ds.json --ranks 4 --host-memory 1MB; says "does not fit"; says "optimizer nvme, param nvme"
try 2 plan ds.json --ranks 4 --host-memory much; says "right is a size"
"$program" plan ds.json --ranks 4 > /dev/full 2> err && fail "a plan that could not be written: exit code 0"
says "standard output cannot be written"
try 2 plan ds.json --ranks 5000000000; says "--ranks 5000000000: more than 16777216 ranks"
try 0 plan ds.json --ranks 4 --ranks-per-node 8; prints "4 ranks (4 a node)"
"$program" plan ds.json --ranks 4 --host-memory 1MB > both 2>&1
[ "$(grep -n "a checkpoint has" both | cut -d: -f1)" -lt "$(grep -n "this does not fit" both | cut -d: -f1)" ] ||
    fail "plan: what it prints and what it says of it change places: $(cat both)"
rm both
try 0 bench io . --size 16MiB --engine threads --block-size 1MiB --queue-depth 2 --seconds 0.01 --rounds 1 --json
for key in '"best"' '"mixed"' '"bytes_per_s"' '"cpu_s_per_gb"'; do prints "$key"; done
try 0 bench memory --rounds 1; prints "memcpy"
try 0 bench adam --rounds 1 --threads 1; prints "stream of the same bytes"
try 2 bench wrong; says "zinf bench wrong: right is io, adam"
try 0 bench checkpoint . --size 64MiB --rounds 1; prints "of the drive's"
try 2 bench checkpoint . --size 1MiB; says "right is 64MiB to 256GiB"
try 2 bench checkpoint nowhere; says "nowhere: no file can be made there"
try 2 bench collectives; says "one rank has nobody to exchange bytes with: mpiexec -n 4 zinf bench collectives"
"$mpiexec" -n 2 "$program" bench collectives --rounds 1 --seconds 0.001 --block-size 64KiB --json > out 2> err ||
    fail "bench collectives on two ranks: $(cat out err)"
for key in '"ranks": 2' '"all_gather"' '"exchange"' '"messages"' '"of_memcpy"' '"compute_kept"'; do prints "$key"; done
"$mpiexec" -n 2 "$program" bench memory --rounds 1 > out 2> err || fail "bench memory on two ranks: $(cat out err)"
count 1 memcpy out
try 2 bench io nowhere; says "nowhere: no file can be made there"
try 2 bench io --engine libaio; says "there is no such I/O engine here"
try 2 bench io --size 1; says "right is a size of at least"
try 2 bench io --size 1MiB; says "at least 16777216 bytes"
try 2 bench io --seconds x; says "--seconds x: right is a number above 0"

# options stand before and after, in both spellings; the last --set wins
try 0 config ds.json --ranks 4 --set train_batch_size=8; prints "batch 8 = micro-batch 2 x accumulation 1 x 4 ranks"
try 0 --set train_batch_size=8 config --ranks=4 ds.json; prints "x 4 ranks"
try 0 --ranks 4 --set=train_batch_size=8 config -- ds.json; prints "x 4 ranks"
try 0 config ds.json --set gradient_clipping=1 --set gradient_clipping=3 --effective; prints '"gradient_clipping": 3'
try 0 config ds.json --run-dir some/where --effective; prints '"dir": "some/where"'
try 2 config ds.json --set aio.queue_depth=100000 --set aio.thread_count=100000
says 'aio.queue_depth: 100000 is wrong; right is a whole number from 1 to 4096'; says 'a whole number from 1 to 256'
try 2 config ds.json --device tpu; says "--device: zinf.device: \"tpu\" is wrong; right is auto, cpu, cuda"

# a configuration: messages on standard error, results on standard output
try 0 config ds.json --check; prints "ds.json: ok"
"$mpiexec" -n 2 "$program" /dev/null > out 2> err && fail "a device as configuration of two ranks"
count 1 "/dev/null is no plain file: every rank reads the configuration for itself" err
mkfifo pipe
timeout 20 "$mpiexec" -n 2 "$program" pipe > out 2> err
[ $? -eq 2 ] || fail "a pipe as configuration of two ranks: $(cat err)"
rm pipe
try 2 ''; says "an empty word is neither a command nor a file"
try 2 ds.json --run-dir resumed --resume . ; says ".: is a folder; a checkpoint is a file, in a run folder checkpoints/latest"
try 2 config nowhere.json; silent; says "nowhere.json: cannot be read: No such file or directory"
try 2 nowhere.json; says "nowhere.json: cannot be read"
printf '{\n  "train_batch_size": 8,\n  "zero_optimisation": {"stage": 3},\n  "gradient_clipping": "x"\n}\n' > wrong.json
try 2 config wrong.json; silent
says "error: wrong.json:3:3: zero_optimisation: unknown key; did you mean zero_optimization?"
says "error: wrong.json:4:24: gradient_clipping: \"x\" is wrong; right is a number of at least 0"
try 2 wrong.json; says "wrong.json:3:3"; says "an optimizer: --set 'optimizer="
try 2 config wrong.json --json; prints '"ok": false'; prints '"line": 3'; [ ! -s err ] || fail "--json: $(cat err)"
try 0 config ds.json --json -q; prints '"ok": true'
try 0 config --keys; prints "zero_optimization.stage"; prints "no effect"; prints "refused"; prints "not yet"
try 0 config --keys --json; prints '  "keys": ['; [ "$(head -c 1 out)" = "{" ] || fail "config --keys --json is no object"
try 0 plan ds.json --ranks 3 --operations; prints "compute lane: number, operation"
try 0 plan ds.json --ranks 3 --operations --json; prints '"compute": ['; prints '"operation": "look up embedding rows'
[ "$(grep -c '^[{}]' out)" -eq 2 ] || fail "plan --operations --json is not one object"
try 0 config --schema; prints '"$schema"'
try 0 config ds.json --effective; cp out effective.json
try 0 config effective.json --effective; cmp -s out effective.json || fail "the effective configuration is not its own"

# under mpiexec: every message once, the same exit code from all ranks
for n in 3; do
    "$mpiexec" -n $n "$program" config wrong.json > out 2> err
    [ $? -eq 2 ] || fail "config on $n ranks: not exit code 2"
    count 1 "zero_optimisation" err
    "$mpiexec" -n $n "$program" wrong.json > out 2> err
    [ $? -eq 2 ] || fail "train on $n ranks: not exit code 2"
    count 1 "zero_optimisation" err
    "$mpiexec" -n $n "$program" --version > out 2> err
    count 1 "MPICH" out
    "$mpiexec" -n $n "$program" confg > out 2> err
    [ $? -eq 2 ] || fail "unknown command on $n ranks: not exit code 2"
    count 1 "did you mean config?" err
done
"$mpiexec" -n 2 "$program" config ds.json > out 2> err || fail "config on 2 ranks: $(cat err)"
count 1 "x 2 ranks" out

# where the ranks run, and which folder each takes of several
mkdir n0 n1
swap='zero_optimization.offload_optimizer={"device": "nvme", "nvme_path": '
dry() { "$mpiexec" -n 2 "$program" ds.json --threads 1 --dry-run "$@" > out 2> err; }
dry --set zinf.bind=none --set "$swap[\"n0\", \"n1\"]}" || fail "two folders: $(cat err)"
says "binding     none: "; says "  n0"; says "  n1"; count 1 "nvme_path" err
dry --set "$swap[\"n0\", \"n9\"]}"
[ $? -eq 2 ] || fail "one of two folders is missing: not exit code 2"
count 1 "nvme_path n9: " err
dry --set "$swap\"n0\"}" --set zinf.memory.cache=auto || fail "all of the optimizer cached: $(cat err)"
says "is kept in host memory"; count 0 "records by" err
dry --set "$swap[]}"
[ $? -eq 2 ] || fail "a list of no folders: not exit code 2"
says "right is a path or a list of paths"
dry --set zinf.bind=core --threads 4000
[ $? -eq 2 ] || fail "bind core that does not fit: not exit code 2"
count 1 'zinf.bind "core" cannot be: 2 ranks x 4000 threads' err

# A dry run does all that comes before the first step, weights included, and leaves nothing.
dry --run-dir never/made || fail "a dry run: $(cat err)"
says "start       from random weights"
[ ! -e never ] || fail "a dry run has made its folder"
mkdir model
echo '{"model_type": "gpt2", "vocab_size": 257, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 4}' > model/config.json
touch model/pytorch_model.bin model/optimizer.pt
dry --set zinf.model.path=model
[ $? -eq 4 ] || fail "weights in another format: not exit code 4: $(cat err)"
count 1 "model holds its weights as pytorch_model.bin" err
dry --set zinf.model.path=model --set zinf.model.init=random || fail "weights in another format, init random: $(cat err)"
printf '\2\0\0\0\0\0\0\0{}' > model/model.safetensors
dry --set zinf.model.path=model
[ $? -eq 4 ] || fail "missing tensors in a dry run: not exit code 4: $(cat err)"
says "transformer.wte.weight is missing"
"$mpiexec" -n 2 "$program" ds.json --threads 1 --set zinf.model.path=nowhere > out 2> err
[ $? -eq 4 ] || fail "a model.path that is not there: not exit code 4"
count 1 "zinf.model.path: nowhere: No such file or directory" err
rm -r model

# What weight decay leaves alone: words are parts of names, patterns are whole names, and what matches nothing is said.
dry --set 'zinf.train.no_decay=["bias", "ln_1.weight", "*.ln_?.weight", "h.0"]' || fail "no_decay: $(cat err)"
count 0 "no_decay" err
dry --set 'zinf.train.no_decay=["bias", "LayerNorm.weight", "ln", "*.ln_"]' || fail "no_decay: $(cat err)"
for pattern in LayerNorm.weight ln '*.ln_'; do says "zinf.train.no_decay: \"$pattern\" matches no parameter"; done
count 3 "no_decay" err

# The job scripts ask results.json how the run ended, because a launcher may have forgotten; of an attempt that wrote none, the launcher.
mkdir bin
printf '#!/bin/sh\necho "$@" >> requeued\n' > bin/scontrol
printf '#!/bin/sh\n[ ! -e dies ] || exit 9\nfor a; do case $a in --mpi* | --cpus* | --gpu* | --prop*) shift ;; esac; done\n[ "$1" = -n ] || set -- -n 2 "$@"\n"%s" "$@"\nexit 0\n' "$mpiexec" > bin/srun
chmod +x bin/*
for script in zinf zinf-gpu-nvme; do
    job() {
        PATH=$PWD/bin:$PATH ZINF=$program SLURM_NTASKS=2 SLURM_CPUS_PER_TASK=1 SLURM_JOB_ID=17 \
            sh "$sources/jobscripts/$script.sbatch" ds.json --run-dir "job $script" --threads 1 "$@" > out 2> err
    }
    rm -f requeued dies
    job --max-steps 2
    [ $? -eq 75 ] || fail "$script: a forgotten 75: $(cat out err)"
    [ "$(cat requeued)" = "requeue 17" ] || fail "$script: not requeued"
    rm requeued
    touch dies
    job
    [ $? -eq 9 ] || fail "$script: an attempt that wrote no results: not the launcher's 9"
    [ ! -e requeued ] || fail "$script: requeued for the results of an attempt before"
    rm dies
    job --set zinf.train.steps=3 || fail "$script: a run that ends: $? $(cat out err)"
    [ ! -e requeued ] || fail "$script: requeued after its end"
done
rm -r bin "job zinf" "job zinf-gpu-nvme"

# env: what is built in and what the machine allows; the same as JSON and nothing else on standard output
try 0 env; prints "zinf 0"; prints "machine"; prints "locked_memory"; prints "hdf5"; prints "threads: "
prints "cpu 0"
if grep -q "^  CUDA  *[0-9]" out; then
    grep -q "device cuda 0\|device cuda, state no device: " out || fail "env says nothing of the GPU: $(cat out)"
    prints "cuBLASLt"; prints "NCCL"
fi
if grep -q "device cuda 0" out; then
    echo "a GPU is here: that its absence is refused is not tried"
else
    try 2 ds.json --device cuda --set zinf.run.dir="$work/nodevice"; says 'zinf.device: "cuda", but there is no such device here: '
    [ ! -e "$work/nodevice" ] || fail "a run without its device has made a run folder"
fi
try 0 env "$work"; prints "swap_file works"
try 0 env "$work" --json; prints '"engines": {'; prints '"swap_file": "works"'; prints '"cpus_allowed": "'
[ "$(head -c 1 out)" = "{" ] || fail "env --json: more than an object on standard output"
[ -z "$(ls -A "$work" | grep -v -x -e text -e ds.json -e 'n[01]' -e out -e err -e '.*.json')" ] || fail "env left something: $(ls -A "$work")"
try 0 env no/such/folder; prints "swap_file No such file or directory"
ZINF_MARK=seen try 0 env; prints "ZINF_MARK"; prints "seen"
"$mpiexec" -n 2 "$program" env > out 2> err || fail "env on 2 ranks: $(cat err)"
count 1 "locked_memory" out
count 1 "rank 1, host" out

# init: an example that passes its own check, and nothing overwritten
try 0 init demo
try 0 config demo/ds.json --set zinf.data.train=text; prints "demo/ds.json: ok"
count 0 "warning" err
sh -n demo/job.sbatch || fail "the job script is no shell script"
echo mine > demo/ds.json
try 2 init demo; says "demo/ds.json exists already and is not overwritten"
[ "$(cat demo/ds.json)" = mine ] || fail "init has overwritten a file"
rm demo/ds.json
try 2 init demo; says "demo/job.sbatch exists already"
[ ! -e demo/ds.json ] || fail "init has left half of its files behind"
try 2 init no/such/folder; says "No such file or directory"

finish
