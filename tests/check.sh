#!/bin/sh
# Build zinf and run all its tests: README's second command.
#
#   sh tests/check.sh [CONFIGURE OPTION...]       for example --enable-sanitizers, or CC=clang CXX=clang++
#
# Works in ./build (another folder: BUILD_DIR=...), configures it if needed or if options are given, and ends with
# "N passed, N failed, N skipped": every case of a GoogleTest program counts, and every other test as one. Exits non-zero if
# anything failed, or if nothing ran. CHECK_TARGET=check-units: only the tests that are programs of their own.
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
build=${BUILD_DIR:-$top/build}
jobs=${JOBS:-$(nproc)}

broken()
{
    echo "$1"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
}

[ -x "$top/configure" ] || "$top/autogen.sh" || broken "autogen.sh failed"
{ mkdir -p "$build" && cd "$build"; } || broken "$build cannot be made"
if [ $# -gt 0 ] || [ ! -f Makefile ]; then
    "$top/configure" --enable-werror "$@" || broken "configure failed"
fi
has_gtest()
{
    ! grep -q '^HAVE_GTEST_TRUE = #' Makefile
}
# Installed since the folder was configured?
has_gtest || { ./config.status --recheck > /dev/null && ./config.status > /dev/null; } || broken "configure failed"
make -j"$jobs" || broken "zinf does not build"
make -j"$jobs" check TESTS= || broken "the tests do not build"
rm -f tests/*.log tests/*.trs
make -k -j"$jobs" "${CHECK_TARGET:-check}"
status=$?

# Automake's verdict stands in .trs, the cases of a GoogleTest program in .log. Under mpiexec every rank prints the same
# cases; the largest count of a log is the one that counts.
# shellcheck disable=SC2046 # a list of names without blanks
count=$(awk '
function end_of_test()
{
    if (verdict == "") return
    if (verdict == "SKIP") { skipped++; print "skipped: " test ": " last > "/dev/stderr" }
    else if (verdict == "PASS") passed += cases + skips > 0 ? cases : 1
    else { failed += bad > 0 ? bad : 1; passed += good }
    if (verdict == "PASS") skipped += skips
}
FNR == 1 && FILENAME ~ /[.]trs$/ {
    end_of_test()
    verdict = last = ""
    cases = bad = good = skips = 0
    test = FILENAME
    sub(/[.]trs$/, "", test)
}
{ gsub(/\033\[[0-9;]*m/, "") } # Open MPI gives the ranks a terminal, GoogleTest then colours
/^:test-result:/ && FILENAME ~ /[.]trs$/ { verdict = $2; sub(/^X/, "", verdict) }
/^\[  PASSED  \] [0-9]+ test/ { if ($4 > cases) cases = good = $4 }
/^\[  SKIPPED \] [0-9]+ test/ { if ($4 > skips) skips = $4 }
/^\[  FAILED  \] [0-9]+ test/ { if ($4 > bad) bad = $4 }
FILENAME ~ /[.]log$/ && NF { last = $0 }
END { end_of_test(); printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped }
' $(printf '%s\n' tests/*.trs | sed 's/\(.*\)[.]trs$/& \1.log/'))
if ! has_gtest; then
    echo "skipped: the tests of modules: GoogleTest is not installed (Debian package: libgtest-dev)" >&2
    count=$(echo "$count" | awk '{ $5++; print }')
fi
echo "$count"
case $count in *' 0 failed, '*) ;; *) exit 1 ;; esac
case $count in '0 passed'*) exit 1 ;; esac
exit $status
