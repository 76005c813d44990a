#!/bin/sh
# On a machine whose C library is older than this bundle's programs ("version `GLIBC_2.xx' not found"): run them with the one that is in
# the bundle. Once, in the bundle; a second call changes nothing. The default is the machine's own, which its driver was made for.
set -eu
self=$(readlink -f "$0")
top=${self%/*}
: > "$top/lib/libc/use"
for program in "$top"/bin/*; do
    case $program in *.elf | */mpiexec) continue ;; esac
    [ -e "$program.elf" ] && continue
    mv "$program" "$program.elf"
    cp "$top/lib/hydra/hydra_pmi_proxy" "$program"
done
