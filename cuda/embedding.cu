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

/* Which rows of dx (T, C) are added to a row of the tile: those of the tokens token(first) .. token(end - 1), in this order. */

struct Listed {
    const int32_t *list, *begins;

    __device__ __forceinline__ int64_t begin(int64_t row) const { return begins[row]; }
    __device__ __forceinline__ int64_t end(int64_t row) const { return begins[row + 1]; }
    __device__ __forceinline__ int64_t token(int64_t, int64_t at) const { return list[at]; }
};

/* The same position in every sample; behind the sequence there is none. */
struct Positions {
    int64_t batch, sequence, first_row;

    __device__ __forceinline__ int64_t begin(int64_t) const { return 0; }
    __device__ __forceinline__ int64_t end(int64_t row) const { return first_row + row < sequence ? batch : 0; }
    __device__ __forceinline__ int64_t token(int64_t row, int64_t at) const { return at * sequence + first_row + row; }
};

struct Sum {
    int64_t total, packs, columns; /* packs: vectors of a row; total: of the tile */
    const void *dx;
    void *dtile;
};

/** A thread has N columns of a row of the tile. */
template <typename T, int N, typename TOKENS>
__global__ void __launch_bounds__(THREADS) sum_kernel(Sum op, TOKENS tokens)
{
    const int64_t thread = thread_number();
    if (thread >= op.total)
        return;
    const int64_t row = thread / op.packs, column = thread % op.packs * N, end = tokens.end(row);
    float sum[N];
#pragma unroll
    for (int i = 0; i < N; i++)
        sum[i] = 0.0f;
#pragma unroll 4
    for (int64_t at = tokens.begin(row); at < end; at++) {
        const Pack<T, N> p = load<N>((const T *)op.dx + tokens.token(row, at) * op.columns + column);
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

template <typename TOKENS>
void sum_rows(const zinf_embedding &op, const TOKENS &tokens, const void *dx, void *dtile)
{
    with_vectors(op.dtype, rows_aligned(op, dx, dtile), [&](auto tag, auto width) {
        typedef decltype(tag) T;
        constexpr int N = decltype(width)::value;
        const int64_t packs = op.columns / N;
        const Sum sum = {op.row_count * packs, packs, op.columns, dx, dtile};
        LAUNCH((sum_kernel<T, N, TOKENS>), Shape(ceil_div(sum.total, THREADS), THREADS), sum, tokens);
    });
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
    const int64_t tokens = op->batch * op->sequence;
    ZINF_ASSERT(tokens <= INT32_MAX);
    int32_t *memory = (int32_t *)zinf_cuda_scratch(4 * (size_t)(2 * tokens + op->row_count + 1));
    const Lists lists = {op->ids, tokens, op->first_row, op->row_count, memory, memory + tokens, memory + 2 * tokens};
    const Shape per_token(ceil_div(tokens, THREADS), THREADS);
    LAUNCH(clear_kernel, Shape(ceil_div(op->row_count + 1, THREADS), THREADS), lists);
    LAUNCH(place_kernel, per_token, lists);
    LAUNCH(positions_kernel, Shape(1, 1024), lists);
    LAUNCH(list_kernel, per_token, lists);
    sum_rows(*op, Listed{lists.list, lists.begin}, dx, dtile);
}

void zinf_cuda_position_backward(const struct zinf_embedding *op, const void *dx, void *dtile)
{
    using namespace zinf_cuda::embedding;
    sum_rows(*op, Positions{op->batch, op->sequence, op->first_row}, dx, dtile);
}
