/*
 * Cross entropy over tiles of the vocabulary: a running maximum and sum of exponentials per row (Milakov and Gimelshein 2018).
 *
 * A block takes a row: forward one pass over the logits, each thread with its own running maximum and sum, which are then combined in a
 * fixed order; backward one pass in place. Rows begin anywhere: the elements before the first 16-byte boundary and behind the last are
 * taken one by one, the rest 16 bytes at a time. How a row is cut depends on its address modulo 16 only.
 */
#include "cuda/kernel.h"

namespace zinf_cuda
{
namespace loss
{

constexpr int THREADS = 512;

/* The parts of a row: `head` single elements, then `packs` vectors, then `tail` single elements. */
struct Cut {
    int64_t head, packs, tail;
};

template <typename T, int N> __device__ __forceinline__ Cut cut_of(const T *row, int64_t columns)
{
    const int64_t before = (int64_t)((16 - (uintptr_t)row % 16) % 16 / sizeof(T));
    Cut cut;
    cut.head = before < columns ? before : columns;
    cut.packs = (columns - cut.head) / N;
    cut.tail = columns - cut.head - cut.packs * N;
    return cut;
}

/** f(first column, width) for what this thread has of the row. */
template <typename T, int N, typename F> __device__ __forceinline__ void each(const T *row, int64_t columns, F f)
{
    const Cut cut = cut_of<T, N>(row, columns);
    for (int64_t i = threadIdx.x; i < cut.head + cut.tail; i += blockDim.x)
        f(i < cut.head ? i : i + cut.packs * N, Width<1>());
    for (int64_t p = threadIdx.x; p < cut.packs; p += blockDim.x)
        f(cut.head + p * N, Width<N>());
}

/* Running maximum and sum of e^(x - maximum). A NaN ends up in the sum. */
struct Running {
    float maximum, sum;

    __device__ __forceinline__ void raise(float to)
    {
        if (to > maximum) {
            sum = maximum == -INFINITY ? sum : sum * expf(maximum - to);
            maximum = to;
        }
    }
    /* minus infinities add nothing, and -inf - -inf would be NaN */
    __device__ __forceinline__ void add(float x)
    {
        sum += x == -INFINITY ? 0.0f : expf(x - maximum);
    }
    __device__ __forceinline__ void merge(float other_maximum, float other_sum)
    {
        raise(other_maximum);
        sum += other_maximum == -INFINITY ? other_sum : other_sum * expf(other_maximum - maximum);
    }
};

struct Forward {
    int64_t columns, first_column, row;
    const int32_t *targets;
    float *maximum, *sum, *target_logit;
    const void *logits;
};

template <typename T, int N> __global__ void __launch_bounds__(THREADS) forward_kernel(Forward op)
{
    __shared__ float maxima[THREADS / 32], sums[THREADS / 32];
    const int64_t row = blockIdx.x;
    const int32_t wanted = op.targets[row];
    const T *x = (const T *)op.logits + row * op.row;
    if (wanted == -100)
        return; /* the whole block */
    Running own = {-INFINITY, 0.0f};
    each<T, N>(x, op.columns, [&](int64_t at, auto width) {
        constexpr int W = decltype(width)::value;
        const Pack<T, W> p = load<W>(x + at);
        float largest = widen(p.item[0]);
#pragma unroll
        for (int i = 1; i < W; i++)
            largest = fmaxf(largest, widen(p.item[i]));
        own.raise(largest);
#pragma unroll
        for (int i = 0; i < W; i++)
            own.add(widen(p.item[i]));
    });
    for (int other = 16; other; other /= 2) {
        const float maximum = __shfl_xor_sync(ALL_LANES, own.maximum, other);
        const float sum = __shfl_xor_sync(ALL_LANES, own.sum, other);
        own.merge(maximum, sum);
    }
    if (threadIdx.x % 32 == 0) {
        maxima[threadIdx.x / 32] = own.maximum;
        sums[threadIdx.x / 32] = own.sum;
    }
    __syncthreads();
    if (threadIdx.x != 0)
        return;
    for (unsigned warp = 1; warp < blockDim.x / 32; warp++)
        own.merge(maxima[warp], sums[warp]);
    const int64_t target = wanted - op.first_column;
    if (target >= 0 && target < op.columns)
        op.target_logit[row] = widen(x[target]);
    Running all = {op.maximum[row], op.sum[row]};
    all.merge(own.maximum, own.sum);
    op.maximum[row] = all.maximum;
    op.sum[row] = all.sum;
}

struct Backward {
    int64_t columns, first_column, row;
    const int32_t *targets;
    const float *maximum, *sum;
    float scale;
    void *logits;
};

template <typename T, int N> __global__ void __launch_bounds__(THREADS) backward_kernel(Backward op)
{
    const int64_t row = blockIdx.x;
    const bool counted = op.targets[row] != -100;
    const int64_t target = counted ? op.targets[row] - op.first_column : -1;
    T *x = (T *)op.logits + row * op.row;
    const float maximum = op.maximum[row], per_sum = counted ? op.scale / op.sum[row] : 0.0f;
    each<T, N>((const T *)x, op.columns, [&](int64_t at, auto width) {
        constexpr int W = decltype(width)::value;
        Pack<T, W> p = load<W>((const T *)x + at);
#pragma unroll
        for (int i = 0; i < W; i++) {
            float gradient = 0.0f; /* what is not counted may be anything, NaN too */
            if (counted)
                gradient = expf(widen(p.item[i]) - maximum) * per_sum;
            if (at + i == target)
                gradient -= op.scale;
            p.item[i] = narrow<T>(gradient);
        }
        store(x + at, p);
    });
}

} // namespace loss
} // namespace zinf_cuda

using namespace zinf_cuda;

void zinf_cuda_loss_tile_forward(const struct zinf_loss_tile *tile, const void *logits)
{
    const loss::Forward op = {tile->columns, tile->first_column, tile->row, tile->targets, tile->maximum,
                              tile->sum, tile->target_logit, logits};
    with_type(tile->dtype, [&](auto tag) {
        typedef decltype(tag) T;
        LAUNCH((loss::forward_kernel<T, vector_of<T>()>), Shape(tile->rows, loss::THREADS), op);
    });
}

void zinf_cuda_loss_tile_backward(const struct zinf_loss_tile *tile, void *logits)
{
    const loss::Backward op = {tile->columns, tile->first_column, tile->row, tile->targets, tile->maximum, tile->sum,
                               tile->scale, logits};
    with_type(tile->dtype, [&](auto tag) {
        typedef decltype(tag) T;
        LAUNCH((loss::backward_kernel<T, vector_of<T>()>), Shape(tile->rows, loss::THREADS), op);
    });
}
