#!/bin/sh
# Install the Debian packages that zinf needs and that are missing here: by apt-get as root or with sudo; else it names them.
#
#   sh jobscripts/debian-packages.sh [--list] GROUP...       groups: build, check, text, ci
#
# --list prints the names and installs nothing.
set -u
list=
[ "${1-}" = --list ] && list=1 && shift

packages=
for group in "$@"; do
    case $group in
    build) packages="$packages gcc g++ make autoconf automake pkg-config mpich libmpich-dev libhdf5-mpich-dev libdnnl-dev
            libhwloc-dev liburing-dev" ;;
    check) packages="$packages libgtest-dev hdf5-tools procps" ;;
    text) packages="$packages debian-reference-en debian-policy" ;;
    ci) packages="$packages clang clang-format libomp-dev libopenblas-dev" ;;
    *) echo "debian-packages.sh: unknown group \"$group\" (build, check, text, ci)" >&2; exit 2 ;;
    esac
done
# shellcheck disable=SC2086 # one blank between names
[ -n "$list" ] && echo $packages && exit 0

missing=
for package in $packages; do
    dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif command -v sudo > /dev/null && sudo -n true 2>/dev/null; then
    as_root=sudo
else
    echo "These Debian packages are missing:$missing" >&2
    echo "Install them as root: apt-get install$missing" >&2
    exit 1
fi
echo "installing$missing"
# shellcheck disable=SC2086 # a list of names
$as_root apt-get -q update &&
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends $missing
