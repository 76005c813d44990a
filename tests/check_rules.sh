#!/bin/sh
# Proves the rules of shape on a source tree: floors, one home per foreign library, one place for features, sizes, build
# lists, format, and headers that stand alone in C11 and C++17.
#
#   check_rules.sh [TREE]        default: $srcdir, else the folder above this script
#
# Prints one line per violation, "file:line: what is wrong", and exits 1 if there is one.
# Environment, set by make check: RULES_CC, RULES_CXX (compiler with include flags), CLANG_FORMAT ("" = not installed).
#
# Rejected: compiling each floor with the include path of the lower ones only. It proves the same but needs the libraries, and its
# message ("no such file") does not say which rule was broken.
set -u
tree=${1:-${srcdir:-$(dirname "$0")/..}}
cd "$tree" || exit 1

# Where the list of compiled-in backends stands: the only files that may ask what configure found.
backend_lists='src/cpu/matmul.c src/device/backends.c io/aio.c topology/topology.c'

list=$(mktemp) found=$(mktemp)
trap 'rm -f "$list" "$found"' EXIT
find src topology io cuda tests -type f \( -name '*.c' -o -name '*.h' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' \) \
    2>/dev/null | grep -v '^tests/data/' | LC_ALL=C sort > "$list"

# Includes and features. Tests stand above all floors and may use every library.
LC_ALL=C awk -v backend_lists="$backend_lists" '
function floor_of(path)
{
    if (path ~ /^src\/base\//) return 0
    if (path ~ /^(topology|src\/device|src\/cpu|cuda)\//) return 1
    if (path ~ /^(io|src\/memory)\//) return 2
    if (path ~ /^src\/(model|text)\//) return 3
    if (path ~ /^src\/zero\//) return 4
    if (path ~ /^src\/train\//) return 5
    if (path ~ /^src\/cli\//) return 6
    return -1
}
function complain(text) { printf "%s:%d: %s\n", file, line, text }
function home(name, header, allowed)
{
    if (target ~ header && file !~ allowed)
        complain("<" target "> belongs to " name " (one home per foreign library)")
}
function check_include(    own, path, to)
{
    target = text
    sub(/^[^<"]*[<"]/, "", target)
    sub(/[>"].*/, "", target)
    home("cuda/", "^(cuda|cublas|nccl|nvml|nvtx|nvToolsExt)[a-zA-Z_0-9]*[.]h", "^cuda/")
    home("io/aio_uring.c", "^liburing", "^io/aio_uring[.]c$")
    home("io/hdf5_file.c", "^(hdf5|H5)[a-zA-Z_0-9]*[.]h", "^io/hdf5_(file[.]c|driver[.][ch])$")
    home("io/hdf5_file.c", "(^|/)hdf5_driver[.]h$", "^io/hdf5_(file|driver)[.]c$")
    home("topology/machine_hwloc.c", "^hwloc", "^topology/machine_hwloc[.]c$")
    home("topology/comm_mpi.[ch]", "^mpi[.]h", "^topology/comm_mpi[.][ch]$")
    home("src/cpu/matmul.c", "^(oneapi/dnnl|dnnl|cblas|openblas|mkl)", "^src/cpu/matmul[.]c$")
    home("comm_mpi.c, io/hdf5_file.c and src/cli/main.c", "(^|/)comm_mpi[.]h$",
         "^(topology/comm_mpi[.]c|io/hdf5_file[.]c|src/cli/main[.]c)$")
    if (text !~ /"/ || target == "config.h") return
    path = ("src/" target) in known ? "src/" target : target
    if (!(path in known)) {
        complain("\"" target "\" is no header of this tree (write it relative to the top or to src/)")
        return
    }
    own = floor_of(file)
    to = floor_of(path)
    if (own < 0) complain("this folder has no floor: see floor_of() in tests/check_rules.sh")
    else if (to > own) complain("floor " own " includes \"" target "\" of floor " to " (own floor or below only)")
}
{ known[$0] = 1; files[++count] = $0 }
END {
    split(backend_lists, names, " ")
    for (i in names) may_ask[names[i]] = 1
    for (f = 1; f <= count; f++) {
        file = files[f]
        line = 0
        while ((getline text < file) > 0) {
            line++
            if (file !~ /^tests\// && text ~ /^[ \t]*#[ \t]*include[ \t]*[<"]/) check_include()
            if (file !~ /^tests\// && text ~ /^[ \t]*#[ \t]*(el)?if.*[^A-Z_]HAVE_/ && !(file in may_ask))
                complain("only the lists of backends may ask for a feature: " backend_lists)
            if (text ~ /^\{/ && file !~ /[.]h$/) start = line
            if (text ~ /^\}/ && start && line - start + 1 > 100 && file !~ /^tests\//)
                complain("a function of " line - start + 1 " lines (100 at most)")
            if (text ~ /^\}/) start = 0
        }
        close(file)
        if (line > 600) complain("a file of " line " lines (600 at most)")
    }
}' "$list" > "$found"

# Every source file stands in a build list, so that make dist carries it.
lists=$(find . -name Makefile.inc -exec cat {} + && cat Makefile.am)
while read -r file; do
    case $lists in *"$file"*) ;; *) echo "$file:1: stands in no Makefile.inc" ;; esac
done < "$list" >> "$found"

# clang-format 14 decides on .c and .cc; another version would decide otherwise. Headers keep their aligned comments.
format=${CLANG_FORMAT-$(command -v clang-format)}
case $(test -n "$format" && "$format" --version) in
*' 14.'*)
    grep '[.]cc*$' "$list" | xargs -r "$format" --dry-run 2>&1 |
        sed -n 's/^\([^ :]*:[0-9]*\):[0-9]*: .*-Wclang-format-violations.*/\1: not as clang-format writes it/p' >> "$found" ;;
*) echo "skipped: format (no clang-format 14)" ;;
esac

# A header is the first thing someone includes: alone, from C and from C++.
flags=$(pkg-config --cflags hdf5-mpich mpich 2> /dev/null)
alone()
{
    language=$1 header=$2
    shift 2
    message=$("$@" -Wall -Wextra -Werror -Wno-unused-function -fsyntax-only -I. -Isrc "$header" 2>&1) && return
    echo "$header:1: is not valid $language alone"
    echo "$message" | grep -m 2 'error:' | sed 's/^/    /'
}
for header in $(grep '[.]h$' "$list" | grep -v '^cuda/\|^tests/'); do
    alone C11 "$header" ${RULES_CC:-cc $flags} -x c -std=c11 -D_GNU_SOURCE
    alone C++17 "$header" ${RULES_CXX:-c++ $flags} -x c++ -std=c++17
done >> "$found"

cat "$found"
violations=$(grep -c '^[^ ]' "$found")
echo "$(wc -l < "$list") source files, $violations violations"
test "$violations" -eq 0
