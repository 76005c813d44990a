#!/bin/sh
# Start the program that lies beside this file as NAME.elf with the libraries of the bundle. For programs that were not linked to find them
# (hydra), and, after own-libc.sh, for all of them. The loader passes nothing on: what the program starts has a clean environment.
self=$(readlink -f "$0")
here=${self%/*}
top=${here%/*}
[ -d "$top/lib" ] || top=${top%/*}
libc=
loader=@loader@
if [ -e "$top/lib/libc/use" ]; then
    libc=$top/lib/libc:
    loader=$top/lib/libc/@loader_name@
fi
exec "$loader" --library-path "$libc$top/lib" "$self.elf" "$@"
