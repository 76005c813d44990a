#!/bin/sh
# make check-slurm: jobscripts/zinf.sbatch under a real Slurm, a private one that is gone afterwards: munged, slurmctld and two slurmds
# on this machine, no systemd, no database, no control groups. The scripts are what is tested: start, time limit, requeue, resume.
#
#   check_slurm.sh                   in the build folder; needs root and Debian's slurm-wlm, munge, slurm-client; else exit 77
#   SLURM_KEEP=1 check_slurm.sh      leaves the folder with all logs
#
# Takes a minute and a half, most of it waiting for a time limit: Slurm sends its signal up to a minute early.
. "${srcdir:-.}/tests/lib.sh"
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"

skip() {
    echo "skipped: $*"
    exit 77
}
[ "$(id -u)" -eq 0 ] || skip "a private slurmctld needs root"
for tool in munged slurmctld slurmd srun sbatch scontrol squeue scancel; do
    command -v $tool > /dev/null || skip "$tool is not there (Debian packages: slurm-wlm munge)"
done
ldd "$program" | grep -q libmpich || skip "this zinf was not built with MPICH, whose PMI2 Debian's srun speaks"

slurm=$work/slurm
stop_slurm() {
    for pid in "$slurm"/*.pid; do
        [ -s "$pid" ] && kill "$(cat "$pid")" 2> /dev/null
    done
    sleep 1
    [ -n "${SLURM_KEEP:-}" ] && echo "kept: $work" && return
    rm -rf "$work"
}
trap stop_slurm EXIT
trap 'exit 1' INT TERM

# A port that nobody listens on, from $1 upwards.
free_port() {
    port=$1
    while grep -qi ":$(printf %04X "$port") 0*:0000 0A" /proc/net/tcp; do port=$((port + 1)); done
    echo "$port"
}

start_slurm() {
    mkdir -m 700 "$slurm" "$slurm/state" "$slurm/spool-a" "$slurm/spool-b"
    dd if=/dev/urandom of="$slurm/key" bs=1024 count=1 2> /dev/null
    chmod 400 "$slurm/key"
    munged --socket="$slurm/sock" --key-file="$slurm/key" --pid-file="$slurm/munged.pid" --log-file="$slurm/munged.log" \
        --seed-file="$slurm/seed" --force || fail "munged does not start: $(tail -n 3 "$slurm/munged.log")"
    host=$(hostname)
    port=$(free_port 17800)
    cat > "$slurm/slurm.conf" <<CONF
ClusterName=zinfcheck
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$slurm/sock
CredType=cred/munge
StateSaveLocation=$slurm/state
SlurmdSpoolDir=$slurm/spool-%n
SlurmctldPidFile=$slurm/slurmctld.pid
SlurmdPidFile=$slurm/slurmd-%n.pid
SlurmctldLogFile=$slurm/slurmctld.log
SlurmdLogFile=$slurm/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
MpiDefault=pmi2
ReturnToService=2
MailProg=/bin/true
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
KillWait=10
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=5,bf_interval=5
NodeName=a NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=4 Gres=gpu:2 State=UNKNOWN
NodeName=b NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=4 Gres=gpu:2 State=UNKNOWN
PartitionName=check Nodes=a,b Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
CONF
    printf 'Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n' > "$slurm/gres.conf" # two GPUs in name only
    export SLURM_CONF="$slurm/slurm.conf"
    slurmctld -f "$SLURM_CONF" -c > "$slurm/out" 2>&1 || fail "slurmctld does not start: $(cat "$slurm/out")"
    for node in a b; do
        slurmd -f "$SLURM_CONF" -N $node > "$slurm/out" 2>&1 || fail "slurmd $node does not start: $(cat "$slurm/out")"
    done
    for _ in $(seq 60); do
        [ "$(sinfo -h -N -t idle -o %N 2> /dev/null | sort -u | tr '\n' ' ')" = "a b " ] && return
        sleep 0.5
    done
    fail "the two nodes do not become idle: $(sinfo 2>&1; tail -n 5 "$slurm"/*.log)"
    exit 1
}

# job NAME SBATCH-OPTION... -- ARGUMENT...: submit $script; its number to $job, its output to $work/NAME.out.
job() {
    name=$1
    shift
    options=
    while [ "$1" != -- ]; do
        options="$options $1"
        shift
    done
    shift
    # shellcheck disable=SC2086 # a list of options without blanks
    job=$(cd "$work" && ZINF="${ZINF:-$program}" MPIEXEC="$mpiexec" sbatch --parsable --job-name="$name" --output="$work/$name.out" $options \
        "$script" "$@") || fail "sbatch $name"
    echo "$job" > "$work/$name.job"
}

state() {
    scontrol show job "$job" 2> /dev/null | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p'
}

# wait_for SECONDS STATE...: until the job is in one of these states.
wait_for() {
    seconds=$1
    shift
    while [ "$seconds" -gt 0 ]; do
        now=$(state)
        for wanted in "$@"; do [ "$now" = "$wanted" ] && return; done
        sleep 1
        seconds=$((seconds - 1))
    done
    fail "job $job ($name) is $(state), not $*: $(tail -n 20 "$work/$name.out")"
}

wait_for_requeue() {
    for _ in $(seq "$1"); do
        scontrol show job "$job" | grep -q 'Restarts=1' && [ "$(state)" = PENDING ] && return
        sleep 1
    done
    fail "job $job ($name) was not requeued: $(state), $(tail -n 20 "$work/$name.out")"
}

same_losses() {
    "$tools/metrics_diff" "$work/$1/metrics.jsonl" "$work/$2/metrics.jsonl" 0 > "$work/diff" 2>&1 ||
        { fail "$1 and $2 have other losses"; cat "$work/diff"; }
}

says() { grep -q -- "$2" "$work/$1.out" || { fail "$1 does not say '$2'"; tail -n 30 "$work/$1.out"; }; }

jobscripts=$(cd "${srcdir:-.}" && pwd)/jobscripts
script=$jobscripts/zinf.sbatch
two_by_two="--nodes=2 --ntasks-per-node=2 --cpus-per-task=1"
start_slurm
text "$work/text" 80000
mkdir "$work/nvme"
config "$work/ds.json" 3
sed -i "s|\"zero_optimization\": {\"stage\": 3}|\"zero_optimization\": {\"stage\": 3, \"offload_optimizer\": {\"device\": \"nvme\", \
\"nvme_path\": \"$work/nvme\"}, \"offload_param\": {\"device\": \"nvme\", \"nvme_path\": \"$work/nvme\"}}|" "$work/ds.json"
grep -q nvme_path "$work/ds.json" || fail "ds.json has no offload"

# An undisturbed run of 20 steps without Slurm: what all others are held against.
ranks 4 "$work/ds.json" --run-dir "$work/plain" || { fail "a run without Slurm: $?"; cat "$work/out"; }

# 2 "nodes" x 2 ranks, both ways to start.
# shellcheck disable=SC2086
job srun $two_by_two --time=30 -- "$work/ds.json" --run-dir "$work/srun" --threads 1
wait_for 60 COMPLETED
says srun "4 x 1 threads"
same_losses plain srun
# shellcheck disable=SC2086
job mpiexec $two_by_two --time=30 --export=ALL,ZINF_LAUNCH=mpiexec -- "$work/ds.json" --run-dir "$work/mpiexec" --threads 1
wait_for 60 COMPLETED
says mpiexec "4 x 1 threads"
same_losses plain mpiexec

# The GPU script: GPUs in name only, the folder for swap files from the environment, one folder for each rank of a "node".
mkdir "$work/nvme/0" "$work/nvme/1"
sed "s|\"nvme_path\": \"$work/nvme\"|\"nvme_path\": [\"\${ZINF_NVME}/0\", \"\${ZINF_NVME}/1\"]|g" "$work/ds.json" > "$work/gpu.json"
grep -q 'ZINF_NVME}/1' "$work/gpu.json" || fail "gpu.json has no list"
script=$jobscripts/zinf-gpu-nvme.sbatch
# shellcheck disable=SC2086
SLURM_TMPDIR=$work/nvme job gpu $two_by_two --gpus-per-node=2 --time=30 -- "$work/gpu.json" --run-dir "$work/gpu" --threads 1
wait_for 60 COMPLETED
says gpu "$work/nvme/1"
same_losses plain gpu
rmdir "$work/nvme/0" "$work/nvme/1" || fail "swap files are left: $(ls "$work"/nvme/*)"
script=$jobscripts/zinf.sbatch

# srun without PMI starts single ranks: refused, not trained four times over.
# shellcheck disable=SC2086
job lonely $two_by_two --time=30 --export=ALL,ZINF_PMI=none -- "$work/ds.json" --run-dir "$work/lonely"
wait_for 60 FAILED
says lonely "--mpi="
[ ! -e "$work/lonely/metrics.jsonl" ] || fail "single ranks under srun trained"

# The time limit finds a run in the middle: SIGTERM, a checkpoint, exit code 75, requeue, and in the end the losses of a run that nobody
# disturbed. The first attempt is slowed down by the fault seam so that it cannot end before the signal; the second goes on at full speed.
cat > "$work/slow" <<SLOW
#!/bin/sh
[ "\${SLURM_RESTART_COUNT:-0}" -gt 0 ] || export ZINF_FAULT="op=gather,delay_us=600000"
exec "$program" "\$@"
SLOW
chmod +x "$work/slow"
for launch in srun mpiexec; do
    # shellcheck disable=SC2086
    ZINF=$work/slow job limit-$launch $two_by_two --time=2 --signal=TERM@70 --export=ALL,ZINF_LAUNCH=$launch -- \
        "$work/ds.json" --run-dir "$work/limit-$launch" --threads 1
done
for launch in srun mpiexec; do
    name=limit-$launch
    job=$(cat "$work/$name.job")
    wait_for_requeue 110
    steps=$(cat "$work/$name/metrics.jsonl" 2> /dev/null | wc -l)
    [ "$steps" -gt 0 ] && [ "$steps" -lt 20 ] || fail "$name was stopped after $steps of 20 steps"
    [ -e "$work/$name/checkpoints/latest" ] || fail "$name has left no checkpoint"
    [ -z "$(ls -A "$work/nvme")" ] || fail "$name has left swap files: $(ls "$work/nvme")"
    scontrol update JobId="$job" StartTime=now || fail "scontrol update"
    wait_for 60 COMPLETED
    says $name "resume  *from .*step $steps of 20"
    same_losses plain $name
done

[ "$failures" -eq 0 ] && echo "Slurm $(sinfo --version | cut -d ' ' -f 2): srun and mpiexec on 2 nodes x 2 ranks, time limit and requeue: passed"
finish
