/*
 * Look-up tables of tokens and positions, forward and backward, for tiles of rows.
 *
 * The gradient of a row is the sum over its tokens in token order. Each token counts how many tokens before it have the same id: that is
 * its place in the row's list; the lists lie behind each other in the order of rows, and each row is summed by threads that walk its list.
 * So the order does not depend on who comes first. Cost of the counting: T^2 / 2 comparisons of ids in shared memory (0.5 G at 32k tokens,
 * about 0.1 ms on a card of 30 T/s). Rejected: atomic additions (another sum every run) and a radix sort (more code, more passes, no faster
 * at these lengths).
 */
#include "cuda/kernel.h"

namespace zinf_cuda
{
namespace embedding
{

constexpr int THREADS = 256;

struct Lookup {
    int64_t total, packs; /* packs: vectors of a row; total: of all tokens */
    const int32_t *ids;   /* NULL: positions */
    int64_t sequence, first_row, row_count, columns;
    const void *tile;
    void *x;
};

/** x (T, C) = the tile's rows, or += them for positions. */
template <typename T, int N> __global__ void __launch_bounds__(THREADS) lookup_kernel(Lookup op)
{
    const int64_t thread = thread_number();
    if (thread >= op.total)
        return;
    const int64_t token = thread / op.packs, column = thread % op.packs * N;
    const int64_t row = (op.ids ? op.ids[token] : token % op.sequence) - op.first_row;
    if (row < 0 || row >= op.row_count)
        return;
    const Pack<T, N> from = load<N>((const T *)op.tile + row * op.columns + column);
    T *to = (T *)op.x + token * op.columns + column;
    if (op.ids) {
        store(to, from);
        return;
    }
    Pack<T, N> x = load<N>((const T *)to);
#pragma unroll
    for (int i = 0; i < N; i++)
        x.item[i] = narrow<T>(widen(x.item[i]) + widen(from.item[i]));
    store(to, x);
}

/** Whether rows of both may be read and written in vectors of 16 bytes. */
bool rows_aligned(const zinf_embedding &op, const void *from, const void *to)
{
    return aligned(from, op.columns * (op.dtype == ZINF_FP32 ? 4 : 2), 16) && aligned(to, 0, 16);
}

/** ids: NULL = positions. */
void lookup(const zinf_embedding &op, const int32_t *ids, const void *tile, void *x)
{
    with_vectors(op.dtype, rows_aligned(op, tile, x), [&](auto tag, auto width) {
        typedef decltype(tag) T;
        constexpr int N = decltype(width)::value;
        const int64_t packs = op.columns / N;
        const Lookup cut = {op.batch * op.sequence * packs, packs, ids, op.sequence, op.first_row, op.row_count,
                            op.columns, tile, x};
        LAUNCH((lookup_kernel<T, N>), Shape(ceil_div(cut.total, THREADS), THREADS), cut);
    });
}

/* Working memory of the gradient: list (tokens), place (tokens), begin (row_count + 1), of int. */
struct Lists {
    const int32_t *ids;
    int64_t tokens, first_row, row_count;
    int32_t *list, *place, *begin;
};

__global__ void __launch_bounds__(THREADS) clear_kernel(Lists op)
{
    const int64_t row = thread_number();
    if (row <= op.row_count)
        op.begin[row] = 0;
}

/** place[t] = how many tokens before t have its id; begin[row + 1] = how many tokens the row has. A block takes THREADS tokens. */
__global__ void __launch_bounds__(THREADS) place_kernel(Lists op)
{
    __shared__ int32_t ids[THREADS];
    const int64_t token = thread_number(), first = (int64_t)blockIdx.x * THREADS;
    const int32_t own = token < op.tokens ? op.ids[token] : -1;
    const int64_t row = own - op.first_row;
    const bool inside = token < op.tokens && row >= 0 && row < op.row_count;
    int32_t before = 0;
    for (int64_t begin = 0; begin <= first; begin += THREADS) {
        const int64_t at = begin + threadIdx.x;
        __syncthreads();
        ids[threadIdx.x] = at < op.tokens ? op.ids[at] : -1;
        __syncthreads();
        const int count = begin == first ? (int)threadIdx.x : THREADS;
        if (inside)
            for (int i = 0; i < count; i++)
                before += ids[i] == own;
    }
    if (!inside)
        return;
    op.place[token] = before;
    atomicAdd(&op.begin[row + 1], 1); /* a count of integers: the same in any order */
}

/** begin: counts become positions in the list. One block. */
__global__ void __launch_bounds__(1024) positions_kernel(Lists op)
{
    __shared__ int32_t sums[1024];
    const int64_t run = ceil_div(op.row_count, 1024), from = 1 + (int64_t)threadIdx.x * run;
    const int64_t to = from + run < op.row_count + 1 ? from + run : op.row_count + 1;
    int32_t sum = 0;
    for (int64_t row = from; row < to; row++)
        sum += op.begin[row];
    sums[threadIdx.x] = sum;
    __syncthreads();
    int32_t before = 0;
    for (unsigned i = 0; i < threadIdx.x; i++)
        before += sums[i];
    for (int64_t row = from; row < to; row++) {
        before += op.begin[row];
        op.begin[row] = before;
    }
}

__global__ void __launch_bounds__(THREADS) list_kernel(Lists op)
{
    const int64_t token = thread_number();
    const int64_t row = token < op.tokens ? op.ids[token] - op.first_row : -1;
    if (row >= 0 && row < op.row_count)
        op.list[op.begin[row] + op.place[token]] = (int32_t)token;
}

struct Gather {
    int64_t total, packs, columns;
    const int32_t *list, *begin;
    const void *dx;
    void *dtile;
};

/** dtile[row] = sum of dx over the row's list, in order; a thread has N columns. */
template <typename T, int N> __global__ void __launch_bounds__(THREADS) gather_kernel(Gather op)
{
    const int64_t thread = thread_number();
    if (thread >= op.total)
        return;
    const int64_t row = thread / op.packs, column = thread % op.packs * N;
    float sum[N];
#pragma unroll
    for (int i = 0; i < N; i++)
        sum[i] = 0.0f;
#pragma unroll 4
    for (int32_t at = op.begin[row]; at < op.begin[row + 1]; at++) {
        const Pack<T, N> p = load<N>((const T *)op.dx + op.list[at] * op.columns + column);
#pragma unroll
        for (int i = 0; i < N; i++)
            sum[i] += widen(p.item[i]);
    }
    Pack<T, N> out;
#pragma unroll
    for (int i = 0; i < N; i++)
        out.item[i] = narrow<T>(sum[i]);
    store((T *)op.dtile + row * op.columns + column, out);
}

struct Positions {
    int64_t total, packs, columns, tokens, sequence, first_row;
    const void *dx;
    void *dtile;
};

/** Sum over the samples; positions behind the sequence have no gradient. */
template <typename T, int N> __global__ void __launch_bounds__(THREADS) position_kernel(Positions op)
{
    const int64_t thread = thread_number();
    if (thread >= op.total)
        return;
    const int64_t row = thread / op.packs, column = thread % op.packs * N, position = op.first_row + row;
    float sum[N];
#pragma unroll
    for (int i = 0; i < N; i++)
        sum[i] = 0.0f;
    for (int64_t token = position; token < op.tokens && position < op.sequence; token += op.sequence) {
        const Pack<T, N> p = load<N>((const T *)op.dx + token * op.columns + column);
#pragma unroll
        for (int i = 0; i < N; i++)
            sum[i] += widen(p.item[i]);
    }
    Pack<T, N> out;
#pragma unroll
    for (int i = 0; i < N; i++)
        out.item[i] = narrow<T>(sum[i]);
    store((T *)op.dtile + row * op.columns + column, out);
}

} // namespace embedding
} // namespace zinf_cuda

using namespace zinf_cuda;

void zinf_cuda_embedding_forward(const struct zinf_embedding *op, const void *tile, void *x)
{
    embedding::lookup(*op, op->ids, tile, x);
}

void zinf_cuda_position_forward(const struct zinf_embedding *op, const void *tile, void *x)
{
    embedding::lookup(*op, nullptr, tile, x);
}

void zinf_cuda_embedding_backward(const struct zinf_embedding *op, const void *dx, void *dtile)
{
    using namespace zinf_cuda::embedding;
    const int64_t tokens = op->batch * op->sequence, columns = op->columns;
    ZINF_ASSERT(tokens <= INT32_MAX);
    int32_t *memory = (int32_t *)zinf_cuda_scratch(4 * (size_t)(2 * tokens + op->row_count + 1));
    const Lists lists = {op->ids, tokens, op->first_row, op->row_count, memory, memory + tokens, memory + 2 * tokens};
    const Shape per_token(ceil_div(tokens, THREADS), THREADS);
    LAUNCH(clear_kernel, Shape(ceil_div(op->row_count + 1, THREADS), THREADS), lists);
    LAUNCH(place_kernel, per_token, lists);
    LAUNCH(positions_kernel, Shape(1, 1024), lists);
    LAUNCH(list_kernel, per_token, lists);
    with_vectors(op->dtype, rows_aligned(*op, dx, dtile), [&](auto tag, auto width) {
        typedef decltype(tag) T;
        constexpr int N = decltype(width)::value;
        const Gather gather = {op->row_count * (columns / N), columns / N, columns, lists.list, lists.begin, dx,
                               dtile};
        LAUNCH((gather_kernel<T, N>), Shape(ceil_div(gather.total, THREADS), THREADS), gather);
    });
}

void zinf_cuda_position_backward(const struct zinf_embedding *op, const void *dx, void *dtile)
{
    using namespace zinf_cuda::embedding;
    const int64_t columns = op->columns;
    with_vectors(op->dtype, rows_aligned(*op, dx, dtile), [&](auto tag, auto width) {
        typedef decltype(tag) T;
        constexpr int N = decltype(width)::value;
        const Positions sum = {op->row_count * (columns / N), columns / N, columns, op->batch * op->sequence,
                               op->sequence, op->first_row, dx, dtile};
        LAUNCH((position_kernel<T, N>), Shape(ceil_div(sum.total, THREADS), THREADS), sum);
    });
}
