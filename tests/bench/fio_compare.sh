#!/bin/sh
# zinf bench io beside the best fio setting on the same drive, in the same minutes.
#
#   sh tests/bench/fio_compare.sh [ZINF_PROGRAM [FOLDER [ROUNDS]]]      default: ./zinf . 9
#
# First every setting of both runs once and the fastest of each is kept, for each pattern. Then only these two run in turn, ROUNDS times;
# printed are the medians and the median of the rounds' ratios, because the speed of a shared drive drifts by more than what is
# compared. Environment: SIZE (MiB of the file, 1024), MS_CHOOSE, MS_COMPARE (milliseconds of one measurement, 500 and 1000), FIO_DEPTHS,
# FIO_BLOCKS_KIB. Exit 0: every ratio is at least 0.95; 1: one is not; 77: no fio here.
set -eu
. "$(dirname "$0")/lib.sh"
zinf=${1:-./zinf} folder=${2:-.} rounds=${3:-9}
size=${SIZE:-1024}
need_fio
work=$(mktemp -d "$folder/zinf-fio-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
dd if=/dev/zero of="$work/file" bs=8M count=$((size / 8)) oflag=direct status=none

# fio_rate PATTERN ENGINE BLOCK_KIB DEPTH MILLISECONDS HUGE: MB/s, read and written together; HUGE 1: buffers on huge pages, as zinf has
fio_rate()
{
    extra=
    rw=$1
    test "$1" = mixed && rw=rw
    test "$2" = io_uring && extra="--fixedbufs --registerfiles --nonvectored=1"
    # shellcheck disable=SC2086
    GLIBC_TUNABLES=glibc.malloc.hugetlb=$6 fio --name=z --filename="$work/file" --direct=1 --size="${size}M" --time_based --runtime="${5}ms" --rw="$rw" --ioengine="$2" \
        --bs="${3}k" --iodepth="$4" $extra --minimal --terse-version=3 | awk -F ';' '{ printf "%.1f\n", ($7 + $48) * 1024 / 1e6 }'
}

# zinf_rate PATTERN ENGINE BLOCK_KIB DEPTH MILLISECONDS
zinf_rate()
{
    "$zinf" bench io "$work" --size "${size}MiB" --engine "$2" --block-size "${3}KiB" --queue-depth "$4" --seconds "$(echo "$5" | awk '{ print $1 / 1000 }')" \
        --rounds 1 -q | awk -v pattern="$1" '$2 == pattern && !/best/ { printf "%.1f %.2f\n", $5 * 1000, $6 }'
}

# The fastest setting of fio as "MB/s ENGINE BLOCK DEPTH HUGE"
best_fio()
{
    for engine in io_uring libaio; do
        for block in ${FIO_BLOCKS_KIB:-256 1024 4096 8192}; do
            for depth in ${FIO_DEPTHS:-4 16 32}; do
                for huge in 0 1; do
                    echo "$(fio_rate "$1" $engine "$block" "$depth" "${MS_CHOOSE:-500}" $huge) $engine $block $depth $huge"
                done
            done
        done
    done | sort -rn | head -1
}

"$zinf" bench io "$work" --size "${size}MiB" --rounds 1 -q > "$work/zinf"
status=0
for pattern in read write mixed; do
    fio_best=$(best_fio $pattern) zinf_best=$(awk -v pattern=$pattern '$2 == pattern && /best/ { print $5, $1, $3, $4 }' "$work/zinf")
    round=0
    : > "$work/rounds"
    while [ $round -lt "$rounds" ]; do
        # shellcheck disable=SC2086
        set -- $fio_best
        fio_now=$(fio_rate $pattern "$2" "$3" "$4" "${MS_COMPARE:-1000}" "$5")
        # shellcheck disable=SC2086
        set -- $zinf_best
        echo "$fio_now $(zinf_rate $pattern "$2" "$3" "$4" "${MS_COMPARE:-1000}")" >> "$work/rounds"
        round=$((round + 1))
    done
    awk -v pattern=$pattern -v fio_best="${fio_best#* }" -v zinf_best="${zinf_best#* }" '
    function median(values, n,    i, j, x)
    {
        for (i = 2; i <= n; i++)
            for (j = i; j > 1 && values[j] < values[j - 1]; j--) { x = values[j]; values[j] = values[j - 1]; values[j - 1] = x }
        return n % 2 ? values[(n + 1) / 2] : (values[n / 2] + values[n / 2 + 1]) / 2
    }
    $1 > 0 { n++; f[n] = $1; z[n] = $2; c[n] = $3; r[n] = $2 / $1 }
    END {
        if (!n) exit 1
        ratio = median(r, n)
        printf "%-6s fio %7.1f MB/s (%s), zinf %7.1f MB/s (%s), ratio %.3f, %.1f %% of a core for each GB/s\n", pattern,
            median(f, n), fio_best, median(z, n), zinf_best, ratio, median(c, n)
        exit ratio < 0.95
    }' "$work/rounds" || status=1
done
exit $status
