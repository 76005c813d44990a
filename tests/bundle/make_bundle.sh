#!/bin/sh
# Put programs, the libraries they need and the scripts of tests/gpu into one folder that runs anywhere, and pack it. Run by `make bundle`.
#
#   make_bundle.sh FOLDER PROGRAM.moved...       programs of this build folder, linked to find libraries in $ORIGIN/../lib
#
# Environment: srcdir, MPIEXEC, STRIP. BUNDLE_ARCHIVE=no leaves the archive out. The archive is what travels, so its size is what is limited
# (60 MB): the folder itself is 2.5 times as large, most of it MPICH and oneDNN.
#
# The C library stays the machine's: its driver and its libraries are made for that one, and two in one process do not go together. Newer
# ones run what older ones linked; for a machine with an older one it lies in lib/libc, unused until own-libc.sh is called.
# Rejected: copying NVIDIA's libraries (cuBLASLt alone has 540 MB); rewriting the run path of finished programs (needs patchelf).
set -eu
limit=60000000
folder=$1
shift
here=${srcdir:-.}/tests/bundle

stop()
{
    echo "make bundle: $1" >&2
    exit 1
}

# of the C library: names as programs ask for them
is_libc()
{
    case $1 in
    ld-linux* | libc.so.* | libm.so.* | libmvec.so.* | libpthread.so.* | libdl.so.* | librt.so.* | libresolv.so.* | libutil.so.* | libanl.so.*) return 0 ;;
    *) return 1 ;;
    esac
}

# needed FILE...: "NAME PATH" of the shared libraries they need, the C library's among them
needed()
{
    for file; do
        ldd "$file"
    done | awk '$2 == "=>" { print $1, $3 == "not" ? "" : $3 }' | LC_ALL=C sort -u
}

hydra=$(readlink -f "${MPIEXEC:-mpiexec}")
[ "${hydra##*/}" = mpiexec.hydra ] || stop "only MPICH's hydra can be carried along: ${MPIEXEC:-mpiexec} is $hydra (configure with MPICH)"
proxy=${hydra%/*}/hydra_pmi_proxy
[ -x "$proxy" ] || stop "no hydra_pmi_proxy beside $hydra"

rm -rf "$folder"
mkdir -p "$folder/bin" "$folder/lib/hydra" "$folder/lib/libc" "$folder/lib/ucx" "$folder/tests/gpu" "$folder/tests/tools"
for program; do
    name=${program##*/}
    name=${name%.moved}
    cp "$program" "$folder/bin/$name"
    case $program in
    tests/tools/*) ln -s "../../bin/$name" "$folder/tests/tools/$name" ;;
    tests/*) ln -s "../bin/$name" "$folder/tests/$name" ;;
    *) ln -s "bin/$name" "$folder/$name" ;;
    esac
done

# hydra looks for its proxy beside itself
loader=$(readelf -lW "$hydra" | sed -n 's/.*interpreter: \(.*\)\]/\1/p')
[ -n "$loader" ] || stop "readelf -l $hydra names no interpreter"
for file in "$hydra" "$proxy"; do
    name=${file##*/}
    cp "$file" "$folder/lib/hydra/$name.elf"
    sed -e "s,@loader@,$loader," -e "s,@loader_name@,${loader##*/}," "$here/start.sh" > "$folder/lib/hydra/$name"
    chmod 755 "$folder/lib/hydra/$name"
done
needed "$folder"/bin/* "$folder"/lib/hydra/*.elf > "$folder/libraries"
ln -s ../lib/hydra/mpiexec.hydra "$folder/bin/mpiexec"
# what UCX loads by name from a folder beside itself: the transport between processes of a node
ucx=$(dirname "$(readlink -f "$(sed -n 's/^libucs[.]so[.]0 //p' "$folder/libraries")")")/ucx
if [ -e "$ucx/libuct_cma.so.0" ]; then
    cp -L "$ucx/libuct_cma.so.0" "$folder/lib/ucx/"
    ln -s libuct_cma.so.0 "$folder/lib/ucx/libuct_cma.so"
    needed "$folder/lib/ucx/libuct_cma.so.0" >> "$folder/libraries"
fi
LC_ALL=C sort -u -o "$folder/libraries" "$folder/libraries"
while read -r name path; do
    [ -n "$path" ] || stop "$name, which a program needs, is not found here (ldd)"
    if is_libc "$name"; then
        cp -L "$path" "$folder/lib/libc/$name"
    else
        cp -L "$path" "$folder/lib/$name"
        chmod u+w "$folder/lib/$name"
        ${STRIP:-strip} --strip-unneeded "$folder/lib/$name" || stop "strip $path"
    fi
done < "$folder/libraries"
# and what libraries of the machine may ask for, as NVIDIA's driver does
libc=$(sed -n 's/^libc[.]so[.]6 //p' "$folder/libraries")
for name in libpthread.so.0 libdl.so.2 librt.so.1 libresolv.so.2 libmvec.so.1; do
    [ -e "${libc%/*}/$name" ] && cp -L "${libc%/*}/$name" "$folder/lib/libc/"
done
cp -L "$loader" "$folder/lib/libc/${loader##*/}"
rm "$folder/libraries"
for file in "$folder"/bin/* "$folder"/lib/hydra/*.elf; do
    [ -h "$file" ] || ${STRIP:-strip} "$file" || stop "strip $file"
done

cp "$here/README" "$here/own-libc.sh" "$folder/"
cp "${srcdir:-.}/tests/lib.sh" "$folder/tests/"
cp "${srcdir:-.}"/tests/gpu/*.sh "${srcdir:-.}"/tests/gpu/*.py "$folder/tests/gpu/"
cp "${srcdir:-.}/LICENSE" "$folder/"
{ git -C "${srcdir:-.}" describe --always --dirty 2> /dev/null || echo unknown; } > "$folder/commit"

[ "${BUNDLE_ARCHIVE:-}" != no ] || exit 0
name=${folder##*/}
tar -C "$(dirname "$folder")" --owner=0 --group=0 -cf - "$name" | gzip -6 > "$folder.tar.gz.new"
bytes=$(wc -c < "$folder.tar.gz.new")
if [ "$bytes" -gt "$limit" ]; then
    rm "$folder.tar.gz.new"
    echo "the largest files (bytes):" >&2
    find "$folder" -type f -exec ls -l {} + | sort -k5,5nr | awk 'NR <= 15 { print $5, $9 }' >&2
    stop "$folder.tar.gz would have $bytes bytes, over $limit: a machine that is lent takes no more"
fi
mv "$folder.tar.gz.new" "$folder.tar.gz"
echo "$folder.tar.gz: $((bytes / 1000000)) MB ($(du -sm "$folder" | cut -f1) MiB unpacked)"
