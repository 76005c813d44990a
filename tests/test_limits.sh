#!/bin/sh
# Places and limits that are not what a run would like: a small disk, little locked memory, a kernel without io_uring, an nvme_path that is wrong.
# Each gets the same bits with one line of warning, or one clear error at once with the contract's code; nothing is left behind.
. "${srcdir:-.}/tests/lib.sh"
text "$work/text" 80000
mkdir "$work/nvme" "$work/disk"
config "$work/ds.json" 3
counts="1 2"
[ -z "${ZINF_LONG:-}" ] || counts="1 2 3 4"

# both OPTIMIZER [PARAMETERS]: both offloads on disk, in these folders
both() {
    echo "--set zinf.train.steps=4 --set $o.device=nvme --set $o.nvme_path=$1 --set $p.device=nvme --set $p.nvme_path=${2:-$1}"
}

# expect CODE WHAT: how the last command ended, given in $code
expect() {
    [ "$code" -eq "$1" ] || { fail "$2: exit code $code"; cat "$work/out"; }
}

# says WORDS: one line of $work/out is a warning or an error, and it holds WORDS
says() {
    lines=$(grep -E 'warning:|error:' "$work/out")
    if [ "$(echo "$lines" | wc -l)" -ne 1 ] || ! echo "$lines" | grep -q -- "$1"; then
        fail "expected one line with: $1"
        cat "$work/out"
    fi
}

# same RUN: the losses of the undisturbed run
same() {
    out=$("$tools/metrics_diff" "$work/whole-$n/metrics.jsonl" "$1/metrics.jsonl" 0) || fail "$1: $out"
}

# engine RUN NAME DIRECT REGISTERED: what results.json says
engine() {
    for pair in "\"io_engine\": \"$2\"" "\"io_direct\": $3" "\"io_registered\": $4"; do
        grep -q "$pair" "$1/results.json" || { fail "$1: results.json does not say $pair"; grep io_ "$1/results.json"; }
    done
}

no_folder() {
    [ ! -e "$1" ] || [ -z "$(find "$1" -type f)" ] || fail "left behind: $(find "$1" -type f)"
}

for n in $counts; do
    # shellcheck disable=SC2046
    ranks "$n" "$work/ds.json" -q --run-dir "$work/whole-$n" $(both "$work/nvme") || { fail "undisturbed: $?"; cat "$work/out"; }
done
has_uring=$("$program" env 2> /dev/null | grep -c 'io_uring.*works')
direct=$(grep -c '"io_direct": true' "$work/whole-1/results.json")
direct=$([ "$direct" -eq 1 ] && echo true || echo false)

# The kernel refuses io_uring: containers with EPERM, old kernels with ENOSYS.
for error in EPERM ENOSYS; do
    [ "$has_uring" -gt 0 ] || { echo "no io_uring here: nothing to refuse"; break; }
    for n in $counts; do
        run=$work/$error-$n
        # shellcheck disable=SC2046
        "$tools/refuse_io_uring" $error "$mpiexec" -n "$n" "$program" "$work/ds.json" --threads 1 -q --run-dir "$run" \
            $(both "$work/nvme") > "$work/out" 2>&1
        code=$?
        [ $code -ne 77 ] || { cat "$work/out"; break; }
        expect 0 "io_uring refused with $error"
        says 'the engine "threads" does it instead'
        engine "$run" threads "$direct" false
        same "$run"
    done
done

# Folders that are wrong. The error comes at once, and a run that could not begin leaves nothing.
# wrong CODE WORDS OPTION...
wrong() {
    expected=$1 words=$2
    shift 2
    for n in $counts; do
        timeout 20 "$mpiexec" -n "$n" "$program" "$work/ds.json" --threads 1 -q --run-dir "$work/wrong" "$@" > "$work/out" 2>&1
        code=$?
        expect "$expected" "$words"
        says "$words"
        no_folder "$work/wrong"
        [ -z "$(ls -A "$work/nvme")" ] || fail "$words: files are left on the drive"
    done
}
touch "$work/file"
# shellcheck disable=SC2046
{
    wrong 2 "nvme_path $work/missing: .*No such file" $(both "$work/missing")
    wrong 2 "nvme_path $work/missing: .*No such file" $(both "$work/nvme" "$work/missing")
    wrong 2 "nvme_path $work/file: .*Not a directory" $(both "$work/file")
    [ "$has_uring" -eq 0 ] || wrong 2 "nvme_path /proc: " $(both /proc)
}
# A list of folders that the ranks share out: the second fails. One rank alone takes the first and needs no other.
counts_before=$counts counts=${counts#1 }
# shellcheck disable=SC2046
wrong 2 "nvme_path $work/missing: .*No such file" $(both "$work/nvme") --set "$o.nvme_path=[\"$work/nvme\", \"$work/missing\"]"
counts=$counts_before

# What only root can make: another user, file systems of their own.
[ "$(id -u)" -eq 0 ] || { echo "not root: no other user, no small file systems"; finish; }
nobody() {
    setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
}
mkdir "$work/private" "$work/users"
chmod 700 "$work/private"
chmod 755 "$work"
chown 65534:65534 "$work/users"
# By a shell of that user: setpriv itself may still start what the user could not.
# shellcheck disable=SC2016
if nobody sh -c 'cd "$(dirname "$1")" && "$1" --version' sh "$program" > /dev/null 2>&1; then
    mkdir "$work/users/nvme"
    chmod 777 "$work/users/nvme"
    for n in $counts; do
        run=$work/users/locked-$n
        # shellcheck disable=SC2046,SC3045 # ulimit -l: dash, bash and busybox have it
        (ulimit -l 64; nobody timeout 60 "$mpiexec" -n "$n" "$program" "$work/ds.json" --threads 1 -q --run-dir "$run" \
            $(both "$work/users/nvme")) > "$work/out" 2>&1
        code=$?
        expect 0 "64 KiB of locked memory"
        says 'limit of locked memory is 64 KiB.*.ulimit -l unlimited'
        [ "$has_uring" -eq 0 ] || engine "$run" io_uring "$direct" false
        same "$run"
        # shellcheck disable=SC2046
        nobody "$mpiexec" -n "$n" "$program" "$work/ds.json" --threads 1 -q --run-dir "$work/users/none" \
            $(both "$work/private") > "$work/out" 2>&1
        code=$?
        expect 2 "a folder of another user"
        says "nvme_path $work/private: .*Permission denied"
        no_folder "$work/users/none"
    done
    [ -z "$(ls -A "$work/users/nvme")" ] || fail "another user: files are left on the drive"
else
    echo "the program cannot be run by another user from here"
fi

mount -t tmpfs -o size=20m tmpfs "$work/disk" 2> /dev/null || { echo "cannot mount a tmpfs here"; finish; }
trap 'umount "$work/disk"; rm -rf "$work"' EXIT
mkdir "$work/disk/nvme"
free_kib() {
    df -k --output=avail "$work/disk" | tail -n 1
}
before=$(free_kib)

# small OPTION...: swap and run folder on the small disk
small() {
    # shellcheck disable=SC2046
    timeout 30 "$mpiexec" -n "$n" "$program" "$work/ds.json" --threads 1 -q --run-dir "$work/disk/run" $(both "$work/disk/nvme") \
        "$@" > "$work/out" 2>&1
    code=$?
}
for n in $counts; do
    # A model that fits: the same bits.
    small
    expect 0 "a run on a small tmpfs"
    says "is on tmpfs, which is memory"
    same "$work/disk/run"
    engine "$work/disk/run" "$([ "$has_uring" -gt 0 ] && echo io_uring || echo threads)" false true
    rm -rf "$work/disk/run"
    # 1.2 M parameters: 14 MB of states fit, the checkpoint beside them does not. 3 M: the states do not.
    small --set zinf.model.config.n_embd=160 --set zinf.model.config.n_layer=4
    expect 3 "no space for a checkpoint"
    grep -q "run folder $work/disk/run: a checkpoint has .* are free there" "$work/out" || { fail "no word about space"; cat "$work/out"; }
    small --set zinf.model.config.n_embd=256 --set zinf.model.config.n_layer=4
    expect 3 "no space for states"
    says "nvme_path $work/disk/nvme: the ranks of this node need .* there, .* are free"
    no_folder "$work/disk/run"
    [ -z "$(ls -A "$work/disk/nvme")" ] || fail "files are left on the small disk"
    [ "$(free_kib)" -ge $((before - 64)) ] || fail "space is not given back: $(free_kib) of $before KiB"
done

# A drive that is full already.
dd if=/dev/zero of="$work/disk/ballast" bs=1k count=$((before - 40)) 2> /dev/null
# shellcheck disable=SC2046
wrong 3 "nvme_path $work/disk/nvme: the ranks of this node need" $(both "$work/disk/nvme")
finish
