#!/bin/sh
# --resume PATH: back to an older checkpoint, or on from another run's, and the same command again; and which checkpoints can become the best.
. "${srcdir:-.}/tests/lib.sh"
text "$work/text" 80000
config "$work/ds.json" 3
keep="--set zinf.checkpoint.every_steps=4 --set zinf.checkpoint.num_to_keep"
run=$work/run

# go CODE WHAT ARGUMENTS...
go() {
    want=$1 what=$2
    shift 2
    ranks 2 "$work/ds.json" --run-dir "$run" "$@"
    code=$?
    [ $code -eq "$want" ] || { fail "$what: exit code $code, not $want"; cat "$work/out"; }
}

# holds WHAT STEP...: these checkpoints are there, and no others; `latest` is the last of them.
holds() {
    what=$1
    shift
    have=$(find "$run/checkpoints" -name 'step-*.h5' | sed 's/.*step-0*//; s/[.]h5//' | sort -n | xargs)
    [ "$have" = "$*" ] || fail "$what: checkpoints of steps $have, not $*"
}

# latest WHAT STEP LINES: what the link says, and how many steps metrics.jsonl holds, each once.
latest() {
    [ "$(readlink "$run/checkpoints/latest")" = "step-$(printf %08d "$2").h5" ] || fail "$1: latest is $(readlink "$run/checkpoints/latest")"
    steps=$(sed -n 's/^{"step": *\([0-9]*\),.*"loss_scale".*/\1/p' "$run/metrics.jsonl" | xargs)
    [ "$steps" = "$(seq -s ' ' "$3")" ] || fail "$1: metrics of steps $steps"
}

said() {
    grep -q "$1" "$work/out" || { fail "not said: $1"; cat "$work/out"; }
}

# shellcheck disable=SC2086
go 0 "the first branch" $keep=9
holds "the first branch" 4 8 12 16 20
old=$run/checkpoints/step-00000008.h5

# Back to step 8 with another learning rate; it ends before it has a checkpoint of its own: nothing is lost, and auto does not take the old branch.
other="--set optimizer.params.lr=1e-3"
# shellcheck disable=SC2086
ZINF_FAULT="op=exchange,n=15,err=EIO" go 1 "the first start of the second branch" $keep=2 $other --resume "$old"
said "back to step 8: 3 later checkpoints"
holds "before the second branch has a checkpoint" 4 8 12 16 20
[ "$(readlink "$run/checkpoints/latest")" = step-00000008.h5 ] || fail "latest still leads to the branch that was left"
# shellcheck disable=SC2086
go 75 "auto while the old branch is there" $keep=9 $other --max-steps 9
said "resume .*step-00000008.h5"
said "^changed since the checkpoint: optimizer.params.lr: 0.003 -> 0.001$"
holds "after the first new checkpoint" 4 8 9
latest "after the first new checkpoint" 9 9

# The same command again goes on from the branch's newest and keeps its source, whatever num_to_keep says.
# shellcheck disable=SC2086
go 75 "the third branch" $keep=1 $other --resume "$old" --max-steps 11
holds "the third branch" 8 11
# shellcheck disable=SC2086
go 75 "the same command again" $keep=1 $other --resume "$old" --max-steps 14
said "resume .*step-00000011.h5"
said "goes on from its own newest checkpoint"
holds "the same command again" 8 14
latest "the same command again" 14 14
# shellcheck disable=SC2086
go 0 "auto behind it" $keep=1 $other
said "resume .*step-00000014.h5"
latest "auto behind it" 20 20

# From another run's checkpoint: the same, and a folder that did not begin there refuses it.
source=$run/checkpoints/step-00000020.h5
more="--set zinf.train.steps=30"
run=$work/second
# shellcheck disable=SC2086
go 75 "on from another run" $more --resume "$source" --max-steps 22
holds "on from another run" 22
# shellcheck disable=SC2086
go 0 "the same command again, from another run" $more --resume "$work/run/../run/checkpoints/step-00000020.h5"
said "resume .*step-00000022.h5"
holds "the same command again, from another run" 22 30
cp "$source" "$work/elsewhere.h5"
# shellcheck disable=SC2086
go 2 "a checkpoint that this folder did not begin with" $more --resume "$work/elsewhere.h5"
said "run-dir"
holds "a checkpoint that this folder did not begin with" 22 30
# shellcheck disable=SC2086
go 2 "a checkpoint that is not there" $more --resume "$work/nowhere.h5"
said "nowhere.h5: no checkpoint there: No such file or directory"

# Every scheduled checkpoint is evaluated, also with a rhythm of evaluations of its own; the one that scores best is linked.
run=$work/scored
head -c 4000 "$work/text" > "$work/eval"
# shellcheck disable=SC2086
go 0 "a run with a score" $keep=9 --set "zinf.data.eval=$work/eval" --set zinf.train.eval_every=7 --set zinf.train.eval_batches=9000000000000000000
steps=$(sed -n 's/^{"step": *\([0-9]*\), *"eval_loss".*/\1/p' "$run/metrics.jsonl" | xargs)
[ "$steps" = "4 7 8 12 14 16 20" ] || fail "evaluated after steps $steps"
best=$(sed -n 's/^{"step": *\([0-9]*\), *"eval_loss": *\([-+.e0-9]*\).*/\2 \1/p' "$run/metrics.jsonl" |
    awk '$2 % 4 == 0' | sort -g | sed -n '1s/.* //p')
[ "$(readlink "$run/checkpoints/best")" = "step-$(printf %08d "$best").h5" ] ||
    fail "best is $(readlink "$run/checkpoints/best"), the lowest loss is of step $best"
finish
