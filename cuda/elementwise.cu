/*
 * Conversions, sums and scaling of flat arrays. Bound by memory: a thread takes 16 bytes of the narrower type, reads and writes each
 * once; the last elements, fewer than a vector, are taken by the thread behind the last whole vector.
 */
#include "cuda/kernel.h"

namespace zinf_cuda
{
namespace elementwise
{

constexpr int THREADS = 256;

/** f(first, n) for the elements of this thread: n = N, or once fewer. */
template <int N, typename F> __device__ __forceinline__ void each_vector(int64_t count, F f)
{
    const int64_t first = thread_number() * N;
    if (first + N <= count)
        f(first, Width<N>());
    else
        for (int64_t i = first; i < count; i++)
            f(i, Width<1>());
}

inline Shape shape_of(int64_t count, int width)
{
    return Shape(ceil_div(ceil_div(count, width), THREADS), THREADS);
}

template <typename To, typename From, int N>
__global__ void __launch_bounds__(THREADS)
    add_kernel(To *to, const From *from, int64_t count, bool first)
{
    each_vector<N>(count, [&](int64_t at, auto width) {
        constexpr int W = decltype(width)::value;
        const Pack<From, W> x = load<W>(from + at);
        Pack<To, W> y;
        if (!first)
            y = load<W>(to + at);
#pragma unroll
        for (int i = 0; i < W; i++)
            y.item[i] = narrow<To>(first ? widen(x.item[i]) : widen(x.item[i]) + widen(y.item[i]));
        store(to + at, y);
    });
}

template <typename To, typename From>
void add(void *to, const void *from, int64_t count, bool first)
{
    constexpr int N = sizeof(To) + sizeof(From) == 4 ? 8 : 4; /* no side above 16 bytes */
    if (aligned(to, 0, N * sizeof(To)) && aligned(from, 0, N * sizeof(From)))
        LAUNCH((add_kernel<To, From, N>), shape_of(count, N), (To *)to, (const From *)from, count, first);
    else
        LAUNCH((add_kernel<To, From, 1>), shape_of(count, 1), (To *)to, (const From *)from, count, first);
}

/** parts (ranks, count): added in the order of ranks. */
template <typename To, typename From, int N>
__global__ void __launch_bounds__(THREADS) reduce_kernel(To *to, const From *parts, int ranks, int64_t count,
                                                         float scale, bool first)
{
    each_vector<N>(count, [&](int64_t at, auto width) {
        constexpr int W = decltype(width)::value;
        const Pack<From, W> first_part = load<W>(parts + at);
        float sum[W];
#pragma unroll
        for (int i = 0; i < W; i++)
            sum[i] = widen(first_part.item[i]);
        for (int rank = 1; rank < ranks; rank++) {
            const Pack<From, W> x = load<W>(parts + rank * count + at);
#pragma unroll
            for (int i = 0; i < W; i++)
                sum[i] += widen(x.item[i]);
        }
        Pack<To, W> y;
        if (!first)
            y = load<W>(to + at);
#pragma unroll
        for (int i = 0; i < W; i++) {
            const float scaled = rounded<To>(sum[i] * scale);
            y.item[i] = narrow<To>(first ? scaled : scaled + widen(y.item[i]));
        }
        store(to + at, y);
    });
}

template <typename T, int N>
__global__ void __launch_bounds__(THREADS) scale_kernel(T *x, int64_t count, float scale)
{
    each_vector<N>(count, [&](int64_t at, auto width) {
        constexpr int W = decltype(width)::value;
        Pack<T, W> v = load<W>(x + at);
#pragma unroll
        for (int i = 0; i < W; i++)
            v.item[i] = narrow<T>(widen(v.item[i]) * scale);
        store(x + at, v);
    });
}

} // namespace elementwise
} // namespace zinf_cuda

using namespace zinf_cuda;

void zinf_cuda_accumulate(const struct zinf_accumulate *op, const void *from, void *to)
{
    with_type(op->to_dtype, [&](auto to_tag) {
        with_type(op->from_dtype, [&](auto from_tag) {
            elementwise::add<decltype(to_tag), decltype(from_tag)>(to, from, op->count, op->first);
        });
    });
}

void zinf_cuda_cast(const struct zinf_cast *op, const void *from, void *to)
{
    const zinf_accumulate first = {op->from_dtype, op->to_dtype, op->count, true};
    zinf_cuda_accumulate(&first, from, to);
}

void zinf_cuda_reduce(const struct zinf_reduce *op, const void *parts, void *to)
{
    with_type(op->to_dtype, [&](auto to_tag) {
        with_type(op->from_dtype, [&](auto tag) {
            typedef decltype(to_tag) To;
            typedef decltype(tag) T;
            constexpr int N = sizeof(To) + sizeof(T) == 4 ? 8 : 4;
            To *out = (To *)to;
            const T *in = (const T *)parts;
            const int64_t count = op->count;
            if (aligned(to, 0, N * sizeof(To)) && aligned(parts, count * (int64_t)sizeof(T), N * sizeof(T)))
                LAUNCH((elementwise::reduce_kernel<To, T, N>), elementwise::shape_of(count, N), out, in,
                       op->ranks, count, op->scale, op->first);
            else
                LAUNCH((elementwise::reduce_kernel<To, T, 1>), elementwise::shape_of(count, 1), out, in,
                       op->ranks, count, op->scale, op->first);
        });
    });
}

void zinf_cuda_scale(const struct zinf_scale *op, void *x)
{
    with_vectors(op->dtype, aligned(x, 0, 16), [&](auto tag, auto width) {
        typedef decltype(tag) T;
        constexpr int N = decltype(width)::value;
        LAUNCH((elementwise::scale_kernel<T, N>), elementwise::shape_of(op->count, N), (T *)x, op->count,
               op->factor);
    });
}
