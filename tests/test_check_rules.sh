#!/bin/sh
# check_rules.sh must accept a good tree and name each fault of a bad one: a check that cannot fail proves nothing.
set -u
srcdir=${srcdir:-$(dirname "$0")/..}
rules=$(cd "$srcdir/tests" && pwd)/check_rules.sh
unset srcdir
top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT
failed=0

# A small tree in which every rule is kept.
good_tree()
{
    rm -rf "$top/tree"
    mkdir -p "$top/tree/src/base" "$top/tree/src/zero" "$top/tree/src/cli" "$top/tree/src/cpu" "$top/tree/io" "$top/tree/topology"
    cd "$top/tree" || exit 1
    printf 'BasedOnStyle: LLVM\nSortIncludes: Never\n' > .clang-format
    echo '#include <stddef.h>' > src/base/word.h
    echo '#include "base/word.h"' > src/zero/plan.h
    echo '#include "topology/comm.h"' > topology/comm_mpi.h
    echo '#include <stddef.h>' > topology/comm.h
    printf '#include "zero/plan.h"\n#include "topology/comm_mpi.h"\n' > src/cli/main.c
    printf '#include "config.h"\n\n#if HAVE_ONEDNN\n#include <oneapi/dnnl/dnnl.h>\n#endif\n' > src/cpu/matmul.c
    printf '#include <hdf5.h>\n#include "topology/comm_mpi.h"\n' > io/hdf5_file.c
    echo 'libzinf_a_SOURCES += src/base/word.h src/zero/plan.h topology/comm.h topology/comm_mpi.h src/cli/main.c src/cpu/matmul.c' > Makefile.inc
    echo 'include Makefile.inc io/hdf5_file.c' > Makefile.am
}

# expect STATUS MESSAGE: what check_rules.sh must say about the tree.
expect()
{
    output=$(sh "$rules" "$top/tree" 2>&1)
    status=$?
    if [ $status -ne "$1" ] || ! echo "$output" | grep -q -e "$2"; then
        echo "FAIL: wanted status $1 and \"$2\", got $status and:"
        echo "$output"
        failed=$((failed + 1))
    fi
}

# bad FILE TEXT MESSAGE: one more line in one file of the good tree.
bad()
{
    good_tree
    mkdir -p "$(dirname "$1")"
    printf '%s\n' "$2" >> "$1"
    echo "$1" >> Makefile.inc
    expect 1 "$3"
}

good_tree
expect 0 ' 0 violations'

bad src/base/word.h '#include "zero/plan.h"' 'src/base/word.h:2: floor 0 includes "zero/plan.h" of floor 4'
bad io/tier.c '#include "src/zero/plan.h"' 'io/tier.c:1: floor 2 includes'
bad src/zero/gather.c '#include "plan.h"' 'is no header of this tree'
bad src/extra/new.c '#include "base/word.h"' 'this folder has no floor'
bad src/zero/gather.c '#include <mpi.h>' 'src/zero/gather.c:1: <mpi.h> belongs to topology/comm_mpi'
bad src/zero/gather.c '#  include <cuda_runtime.h>' 'belongs to cuda/'
bad src/zero/gather.c '#include "nccl.h"' 'belongs to cuda/'
bad src/zero/gather.c '#include <liburing.h>' 'belongs to io/aio_uring.c'
bad src/zero/gather.c '#include <hdf5.h>' 'belongs to io/hdf5_file.c'
bad src/zero/gather.c '#include <hwloc.h>' 'belongs to topology/machine_hwloc.c'
bad src/cpu/layers.c '#include <cblas.h>' 'belongs to src/cpu/matmul.c'
bad src/zero/gather.c '#include "topology/comm_mpi.h"' 'belongs to comm_mpi.c, io/hdf5_file.c and src/cli/main.c'
bad src/zero/gather.c '#ifdef HAVE_CUDA
#endif' 'only the lists of backends'
bad src/zero/gather.c '#if defined(X) && !defined(HAVE_CUDA)
#endif' 'only the lists of backends'
bad src/base/long.c "$(printf '// line\n%.0s' $(seq 601))" 'a file of 601 lines'
bad src/base/long.c "$(printf 'int f(void)\n{\n'; printf '    ;\n%.0s' $(seq 99); printf '}')" 'a function of 101 lines'
bad src/base/bad.h 'struct s { int class; };' 'src/base/bad.h:1: is not valid C++17 alone'
bad src/base/bad.h 'static inline size_t f(void) { return 0; }' 'src/base/bad.h:1: is not valid C11 alone'
good_tree
: > src/base/lost.c
expect 1 'src/base/lost.c:1: stands in no Makefile.inc'
good_tree
if ! sh "$rules" "$top/tree" | grep -q 'skipped: format'; then
    bad src/base/loose.c 'int    a;' 'src/base/loose.c:1: not as clang-format writes it'
fi

[ $failed -eq 0 ] && echo "all cases as expected"
exit $failed
