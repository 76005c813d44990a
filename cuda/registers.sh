#!/bin/sh
# A table of what each kernel takes, from what "ptxas -v" said: registers, bytes of the stack, of spills, of static shared memory, target,
# name. Usage: registers.sh FILE.ptxas...
set -u
awk '
/Compiling entry function/ { split($0, quoted, "\047"); name = quoted[2]; target = quoted[4] }
/bytes stack frame/ { stack = $1; spill = $5 + $9 }
/Used [0-9]+ registers/ {
    shared = 0
    for (i = 1; i < NF; i++) {
        if ($i == "Used") registers = $(i + 1)
        if ($(i + 1) == "bytes" && $(i + 2) ~ /^smem/) shared = $i
    }
    printf "%5d %5d %5d %6d  %-7s %s\n", registers, stack, spill, shared, target, name
}' "$@" | if command -v c++filt > /dev/null; then c++filt; else cat; fi | sort -k5,5 -k1,1nr |
    { echo " regs stack spill shared  target  kernel"; cat; }
