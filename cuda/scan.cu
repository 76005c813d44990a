/*
 * Sum of squares and the first element that is not finite. A block takes a chunk of fixed length; the chunks' sums are added in a fixed
 * order by one block. A result that goes to the host makes the call wait for its lane.
 */
#include "cuda/kernel.h"

namespace zinf_cuda
{
namespace scan
{

constexpr int THREADS = 256, CHUNK = 16384;

template <typename T, int N>
__global__ void __launch_bounds__(THREADS) square_kernel(const T *x, int64_t count, double *sums)
{
    __shared__ double room[THREADS / 32];
    const int64_t begin = (int64_t)blockIdx.x * CHUNK, end = begin + CHUNK < count ? begin + CHUNK : count;
    double sum = 0;
    for (int64_t i = begin + (int64_t)threadIdx.x * N; i < end; i += THREADS * N) {
        if (i + N <= end) {
            const Pack<T, N> v = load<N>(x + i);
#pragma unroll
            for (int j = 0; j < N; j++)
                sum += (double)widen(v.item[j]) * (double)widen(v.item[j]);
        } else {
            for (int64_t j = i; j < end; j++)
                sum += (double)widen(x[j]) * (double)widen(x[j]);
        }
    }
    sum = block_sum(sum, room);
    if (threadIdx.x == 0)
        sums[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(THREADS) total_kernel(const double *sums, int64_t count, double *total)
{
    __shared__ double room[THREADS / 32];
    double sum = 0;
    for (int64_t i = threadIdx.x; i < count; i += THREADS)
        sum += sums[i];
    sum = block_sum(sum, room);
    if (threadIdx.x == 0)
        *total = sum;
}

__global__ void start_kernel(unsigned long long *found)
{
    if (threadIdx.x == 0)
        *found = ~0ull;
}

template <typename T, int N>
__global__ void __launch_bounds__(THREADS) nonfinite_kernel(const T *x, int64_t count, unsigned long long *found)
{
    const int64_t begin = (int64_t)blockIdx.x * CHUNK, end = begin + CHUNK < count ? begin + CHUNK : count;
    for (int64_t i = begin + (int64_t)threadIdx.x * N; i < end; i += THREADS * N) {
        const bool whole = i + N <= end;
        float bad = 0.0f; /* 0, or NaN where an element is not finite */
        if (whole) {
            const Pack<T, N> v = load<N>(x + i);
#pragma unroll
            for (int j = 0; j < N; j++)
                bad += widen(v.item[j]) - widen(v.item[j]);
        }
        if (whole && bad == 0.0f)
            continue;
        for (int64_t j = i; j < i + N && j < end; j++)
            if (widen(x[j]) - widen(x[j]) != 0.0f) { /* the least index is the same whoever comes first */
                atomicMin(found, (unsigned long long)j);
                return;
            }
    }
}

} // namespace scan
} // namespace zinf_cuda

using namespace zinf_cuda;

void zinf_cuda_square_sum_to(const struct zinf_scan *op, const void *x, double *sum)
{
    const int64_t blocks = ceil_div(op->count, scan::CHUNK);
    double *sums = (double *)zinf_cuda_scratch(sizeof(double) * (size_t)(blocks + 1));
    with_vectors(op->dtype, aligned(x, 0, 16), [&](auto tag, auto width) {
        typedef decltype(tag) T;
        constexpr int N = decltype(width)::value;
        LAUNCH((scan::square_kernel<T, N>), Shape(blocks, scan::THREADS), (const T *)x, op->count, sums);
    });
    LAUNCH(scan::total_kernel, Shape(1, scan::THREADS), (const double *)sums, blocks, sum);
}

double zinf_cuda_square_sum(const struct zinf_scan *op, const void *x)
{
    zinf_cuda_square_sum_to(op, x, (double *)zinf_cuda_result());
    const uint64_t bits = zinf_cuda_result_read();
    double sum;
    memcpy(&sum, &bits, sizeof sum);
    return sum;
}

int64_t zinf_cuda_first_nonfinite(const struct zinf_scan *op, const void *x)
{
    unsigned long long *found = (unsigned long long *)zinf_cuda_result();
    LAUNCH(scan::start_kernel, Shape(1, 32), found);
    with_vectors(op->dtype, aligned(x, 0, 16), [&](auto tag, auto width) {
        typedef decltype(tag) T;
        constexpr int N = decltype(width)::value;
        LAUNCH((scan::nonfinite_kernel<T, N>), Shape(ceil_div(op->count, scan::CHUNK), scan::THREADS), (const T *)x,
               op->count, found);
    });
    return (int64_t)zinf_cuda_result_read(); /* all ones is -1 */
}
