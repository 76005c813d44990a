#!/bin/sh
# The bundle runs where nothing is installed: in a root that holds the bundle, a C library and a shell, two ranks under its own mpiexec give
# the losses of this build. Where no root can be made, what its programs load is looked at only. Makes the bundle first, without packing it.
. "${srcdir:-.}/tests/lib.sh"
sanitized && { echo "a sanitizer's libraries are not for carrying"; exit 77; }
case $(readlink -f "$(command -v "$mpiexec")") in */mpiexec.hydra) ;; *) echo "only MPICH's hydra can be bundled"; exit 77 ;; esac
needs readelf binutils
unset LD_LIBRARY_PATH
BUNDLE_ARCHIVE=no
export BUNDLE_ARCHIVE
"${MAKE:-make}" bundle > "$work/make" 2>&1 || { cat "$work/make"; echo "FAIL: make bundle"; exit 1; }
bundle=$(sed -n 's/^BUNDLE = //p' Makefile | sed "s/\$(PACKAGE_VERSION)/$(sed -n 's/^PACKAGE_VERSION = //p' Makefile)/")
[ -x "$bundle/bin/zinf" ] || { echo "FAIL: no $bundle/bin/zinf"; exit 1; }

# What every file asks for is in the bundle or in the C library that is kept beside it, and no file looks elsewhere.
find "$bundle/bin" "$bundle/lib" -type f ! -name '*.sh' | while read -r file; do
    readelf -d "$file" 2> /dev/null | awk -v file="$file" '
        /NEEDED/ { gsub(/.*\[|\]/, ""); print file, "needs", $0 }
        /RUNPATH|RPATH/ { if ($0 !~ /\[\$ORIGIN\/[.][.]\/lib\]/) print file, "looks", $0 }'
done > "$work/asked"
grep -c ' needs ' "$work/asked" | grep -q '^[0-9][0-9]' || fail "hardly a library is needed: $(cat "$work/asked")"
grep ' looks ' "$work/asked" && fail "a file has a search path of its own"
awk '{ print $3 }' "$work/asked" | sort -u | while read -r name; do
    [ -e "$bundle/lib/$name" ] || [ -e "$bundle/lib/libc/$name" ] || echo "$name"
done > "$work/missing"
[ ! -s "$work/missing" ] || fail "not in the bundle: $(tr '\n' ' ' < "$work/missing")"
# the loader's own view, with nothing in the environment
env -i LD_TRACE_LOADED_OBJECTS=1 "$bundle/bin/zinf" > "$work/loaded"
grep -q "$bundle/bin/../lib/libmpi" "$work/loaded" || fail "MPI is not the bundle's: $(cat "$work/loaded")"
awk '$2 == "=>" { print $1, $3 }' "$work/loaded" | while read -r name path; do
    case $path in *"$bundle"/*) ;; *) [ -e "$bundle/lib/libc/$name" ] || echo "$name" ;; esac
done > "$work/missing"
[ ! -s "$work/missing" ] || fail "taken from this machine: $(tr '\n' ' ' < "$work/missing")"

text "$work/text" 40000
config "$work/ds.json" 3
ranks 2 "$work/ds.json" -q --run-dir "$work/here" --set zinf.train.steps=3 || { cat "$work/out"; fail "this build does not train"; }

# A root with another path, a shell and readlink; $libc: the files of this machine's C library
root=$work/root
mkdir -p "$root/bin" "$root/proc" "$root/dev" "$root/tmp" "$root/lib64" "$root/else/where"
cp "$(command -v sh)" "$(command -v readlink)" "$root/bin/"
cp -a "$bundle" "$root/else/where/bundle"
for file in "$root/bin/sh" "$root/bin/readlink"; do
    ldd "$file"
done | awk '$2 == "=>" { print $3 } $1 ~ /^\// { print $1 }' | sort -u > "$work/libc"
for file in $(cat "$work/libc") $(awk '/libm[.]so|libpthread|libdl|librt|libresolv/ { print $3 }' "$work/loaded"); do
    mkdir -p "$root/${file%/*}"
    cp -L "$file" "$root/$file"
done
cp "$work/text" "$root/tmp/text"
sed "s,$work/text,/tmp/text," "$work/ds.json" > "$root/tmp/ds.json"

# inside COMMAND: in the root, with no environment
inside() {
    # shellcheck disable=SC2016
    unshare -m sh -c 'mount --bind /proc "$1/proc" && mount --rbind /dev "$1/dev" && shift 1 && exec env -i "$@"' sh "$root" \
        "$(command -v chroot)" "$root" /bin/sh -c "cd /else/where/bundle && $1" > "$work/out" 2>&1
}
if ! inside true; then
    echo "no root of its own can be made here (needs root): ran in place only"
    env -i "$bundle/zinf" --version > /dev/null || fail "--version: $?"
    finish
fi
train="bin/mpiexec -n 2 ./zinf /tmp/ds.json -q --threads 1 --set zinf.train.steps=3"
inside './zinf --version' || { cat "$work/out"; fail "--version: $?"; }
inside './zinf env --json' || { cat "$work/out"; fail "env: $?"; }
grep -q '"mpi"\|MPICH' "$work/out" || fail "env knows no MPI: $(cat "$work/out")"
inside "$train --run-dir /tmp/there" || { cat "$work/out"; fail "two ranks in the root: $?"; }
out=$("$tools/metrics_diff" "$work/here/metrics.jsonl" "$root/tmp/there/metrics.jsonl" 0) || fail "other losses there: $out"
# Its own C library: without libm of the machine no program of ours starts.
find "$root/lib" "$root/lib64" "$root/usr" -name 'libm.so*' -exec rm {} + 2> /dev/null
inside './zinf --version' && fail "libm is not missed: this shows nothing"
for round in first second; do
    sh "$root/else/where/bundle/own-libc.sh" || fail "own-libc.sh, $round time: $?"
done
inside "$train --run-dir /tmp/own" || { cat "$work/out"; fail "two ranks with the bundle's own C library: $?"; }
out=$("$tools/metrics_diff" "$work/here/metrics.jsonl" "$root/tmp/own/metrics.jsonl" 0) || fail "other losses with its own C library: $out"
finish
