#!/bin/sh
# The manual page knows every command and option that --help knows, and no other.
srcdir=${srcdir:-.}
page=$(mktemp) help=$(mktemp)
trap 'rm -f "$page" "$help"' EXIT
sed 's/\\-/-/g; s/\\f[BRI]//g' "$srcdir/docs/man/zinf.1" > "$page"
./zinf --help > "$help" || exit 1
commands=$(sed -n '/^commands:/,/^$/p' "$help" | grep -v 'not yet' | sed -n 's/^  \([a-z]*\) .*/\1/p')
[ -n "$commands" ] || { echo "no commands in --help"; exit 1; }
for command in $commands; do
    grep -q "zinf $command" "$page" || { echo "zinf.1 does not have the command $command"; exit 1; }
    ./zinf help "$command" >> "$help" || exit 1
done
for option in $(grep -o -e '--[a-z][a-z-]*' "$help" | sort -u); do
    grep -q -e "$option" "$page" || { echo "zinf.1 does not have the option $option"; exit 1; }
done
for option in $(grep -o -e '--[a-z][a-z-]*' "$page" | sort -u); do
    grep -q -e "$option" "$help" || { echo "zinf does not know the option $option of zinf.1"; exit 1; }
done
