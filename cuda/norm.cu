/*
 * Layer and RMS normalisation (Ba et al. 2016; Zhang and Sennrich 2019) and sums over rows.
 *
 * A block works on one row at a time. Where the row is aligned and at most 384 threads x 4 vectors long it stays in registers: each thread
 * holds up to 4 vectors, the block has as many warps as that takes. Longer or unaligned rows are read again for each pass (they are in the
 * first-level cache by then).
 *
 * Gradients of weight and bias are sums over all rows. A block adds up every parts-th row, in registers where the row is, else in its part
 * of the working memory; then the parts are added in order. Their number depends on shapes only. Bytes: parts x 2 x columns x 4, at most 16 MiB.
 */
#include "cuda/kernel.h"

namespace zinf_cuda
{
namespace norm
{

constexpr int HELD = 4, LARGEST_BLOCK = 384; /* vectors of a thread; threads: 168 registers each */

/* The columns of a row that a thread has: vectors threadIdx.x, threadIdx.x + blockDim.x, ... of N columns. HELD of them, or any number. */
template <int N, bool IN_REGISTERS, typename F> __device__ __forceinline__ void each(int64_t columns, F f)
{
    if (IN_REGISTERS) {
#pragma unroll
        for (int v = 0; v < HELD; v++) {
            const int64_t at = ((int64_t)v * blockDim.x + threadIdx.x) * N;
            if (at < columns)
                f(v, at);
        }
    } else {
        for (int64_t at = (int64_t)threadIdx.x * N; at < columns; at += (int64_t)blockDim.x * N)
            f(0, at);
    }
}

/* One row of a tensor, in registers or not. */
template <typename T, int N, bool IN_REGISTERS> struct Row {
    Pack<T, N> held[IN_REGISTERS ? HELD : 1];
    const T *from;

    __device__ __forceinline__ void read(const T *row, int64_t columns)
    {
        from = row;
        if (IN_REGISTERS)
            each<N, IN_REGISTERS>(columns, [&](int v, int64_t at) { held[v] = load<N>(row + at); });
    }
    __device__ __forceinline__ Pack<T, N> at(int v, int64_t column) const
    {
        return IN_REGISTERS ? held[v] : load<N>(from + column);
    }
};

struct Forward {
    int64_t columns;
    float epsilon;
    const void *x, *weight, *bias;
    float *mean, *rstd;
    void *y;
};

template <typename T, int N, bool IN_REGISTERS>
__global__ void __launch_bounds__(LARGEST_BLOCK) forward_kernel(Forward op)
{
    __shared__ float room[32];
    const int64_t row = blockIdx.x, columns = op.columns;
    Row<T, N, IN_REGISTERS> x;
    x.read((const T *)op.x + row * columns, columns);
    float mean = 0.0f, squares = 0.0f;
    if (op.mean) {
        float sum = 0.0f;
        each<N, IN_REGISTERS>(columns, [&](int v, int64_t at) {
            const Pack<T, N> p = x.at(v, at);
#pragma unroll
            for (int i = 0; i < N; i++)
                sum += widen(p.item[i]);
        });
        mean = block_sum(sum, room) / (float)columns;
    }
    /* in two passes: the difference of large sums of squares would cancel */
    each<N, IN_REGISTERS>(columns, [&](int v, int64_t at) {
        const Pack<T, N> p = x.at(v, at);
#pragma unroll
        for (int i = 0; i < N; i++) {
            const float d = widen(p.item[i]) - mean;
            squares += d * d;
        }
    });
    const float rstd = 1.0f / sqrtf(block_sum(squares, room) / (float)columns + op.epsilon);
    if (threadIdx.x == 0) {
        if (op.mean)
            op.mean[row] = mean;
        op.rstd[row] = rstd;
    }
    each<N, IN_REGISTERS>(columns, [&](int v, int64_t at) {
        Pack<T, N> p = x.at(v, at), w = load<N>((const T *)op.weight + at), b;
        if (op.bias)
            b = load<N>((const T *)op.bias + at);
#pragma unroll
        for (int i = 0; i < N; i++) {
            const float n = (widen(p.item[i]) - mean) * rstd * widen(w.item[i]);
            p.item[i] = narrow<T>(op.bias ? n + widen(b.item[i]) : n);
        }
        store((T *)op.y + row * columns + at, p);
    });
}

struct Backward {
    int64_t rows, columns, parts;
    const void *x, *weight, *dy, *residual;
    const float *mean, *rstd;
    void *dx;
    float *partial; /* (parts, 2, columns) */
};

/**
 * With n = (x - mean) rstd and g = dy weight: dx = rstd (g - mean(g) - n mean(g n)); mean(g) is left out for RMS norm. dweight += dy n,
 * dbias += dy.
 */
template <typename T, int N, bool IN_REGISTERS>
__global__ void __launch_bounds__(LARGEST_BLOCK) backward_kernel(Backward op)
{
    __shared__ float room[32];
    const int64_t columns = op.columns;
    float *own = op.partial + (int64_t)blockIdx.x * 2 * columns;
    float dweight[IN_REGISTERS ? HELD : 1][N], dbias[IN_REGISTERS ? HELD : 1][N];
    each<N, IN_REGISTERS>(columns, [&](int v, int64_t at) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            dweight[v][i] = dbias[v][i] = 0.0f;
            if (!IN_REGISTERS)
                own[at + i] = own[columns + at + i] = 0.0f;
        }
    });
    for (int64_t row = blockIdx.x; row < op.rows; row += op.parts) {
        const float mean = op.mean ? op.mean[row] : 0.0f, rstd = op.rstd[row];
        Row<T, N, IN_REGISTERS> x, dy;
        x.read((const T *)op.x + row * columns, columns);
        dy.read((const T *)op.dy + row * columns, columns);
        float sum_g = 0.0f, sum_gn = 0.0f;
        each<N, IN_REGISTERS>(columns, [&](int v, int64_t at) {
            const Pack<T, N> p = x.at(v, at), q = dy.at(v, at), w = load<N>((const T *)op.weight + at);
#pragma unroll
            for (int i = 0; i < N; i++) {
                const float n = (widen(p.item[i]) - mean) * rstd, d = widen(q.item[i]), g = d * widen(w.item[i]);
                sum_g += g;
                sum_gn += g * n;
                if (IN_REGISTERS) {
                    dweight[v][i] += d * n;
                    dbias[v][i] += d;
                } else {
                    own[at + i] += d * n;
                    own[columns + at + i] += d;
                }
            }
        });
        const float mean_g = op.mean ? block_sum(sum_g, room) / (float)columns : 0.0f;
        const float mean_gn = block_sum(sum_gn, room) / (float)columns;
        each<N, IN_REGISTERS>(columns, [&](int v, int64_t at) {
            Pack<T, N> p = x.at(v, at), r;
            const Pack<T, N> q = dy.at(v, at), w = load<N>((const T *)op.weight + at);
            if (op.residual)
                r = load<N>((const T *)op.residual + row * columns + at);
#pragma unroll
            for (int i = 0; i < N; i++) {
                const float n = (widen(p.item[i]) - mean) * rstd, g = widen(q.item[i]) * widen(w.item[i]);
                const float dx = rstd * (g - mean_g - n * mean_gn);
                p.item[i] = narrow<T>(op.residual ? dx + widen(r.item[i]) : dx);
            }
            store((T *)op.dx + row * columns + at, p);
        });
    }
    if (IN_REGISTERS)
        each<N, IN_REGISTERS>(columns, [&](int v, int64_t at) {
#pragma unroll
            for (int i = 0; i < N; i++) {
                own[at + i] = dweight[v][i];
                own[columns + at + i] = dbias[v][i];
            }
        });
}

/** Threads of a block that holds a row in registers; 0 where that cannot be. */
int threads_for(int64_t columns, int width)
{
    const int64_t threads = ceil_div(ceil_div(columns, (int64_t)width * HELD), 32) * 32;
    return threads <= LARGEST_BLOCK ? (int)threads : 0;
}

/* --- Sums over rows --- */

constexpr int COLUMNS = 32, LINES = 16;

/**
 * out[c] = sum over parts of partial[part * stride + c], in order: line l adds parts l, l + LINES, ..., then the lines are added in order. A
 * block of COLUMNS x LINES threads takes COLUMNS columns.
 */
template <typename T>
__global__ void __launch_bounds__(COLUMNS *LINES)
    combine_kernel(T *out, const float *partial, int64_t columns, int64_t stride, int64_t parts)
{
    __shared__ float sums[LINES][COLUMNS];
    const int line = (int)(threadIdx.x / COLUMNS), lane = (int)(threadIdx.x % COLUMNS);
    const int64_t column = (int64_t)blockIdx.x * COLUMNS + lane;
    float sum = 0.0f;
    if (column < columns)
        for (int64_t part = line; part < parts; part += LINES)
            sum += partial[part * stride + column];
    sums[line][lane] = sum;
    __syncthreads();
    if (line != 0 || column >= columns)
        return;
    for (int other = 1; other < LINES; other++)
        sum += sums[other][lane];
    out[column] = narrow<T>(sum);
}

template <typename T> void combine(void *out, const float *partial, int64_t columns, int64_t stride, int64_t parts)
{
    LAUNCH((combine_kernel<T>), Shape(ceil_div(columns, COLUMNS), COLUMNS * LINES), (T *)out, partial, columns, stride,
           parts);
}

constexpr int RUN = 64; /* rows of a part */

/** partial (parts, columns): a thread adds up N columns of RUN rows. */
template <typename T, int N>
__global__ void __launch_bounds__(128) bias_kernel(float *partial, const T *dy, int64_t rows, int64_t columns, int64_t run)
{
    const int64_t column = thread_number() * N, begin = (int64_t)blockIdx.y * run;
    const int64_t end = begin + run < rows ? begin + run : rows;
    if (column >= columns)
        return;
    float sum[N];
#pragma unroll
    for (int i = 0; i < N; i++)
        sum[i] = 0.0f;
    for (int64_t row = begin; row < end; row++) {
        const Pack<T, N> p = load<N>(dy + row * columns + column);
#pragma unroll
        for (int i = 0; i < N; i++)
            sum[i] += widen(p.item[i]);
    }
#pragma unroll
    for (int i = 0; i < N; i++)
        partial[(int64_t)blockIdx.y * columns + column + i] = sum[i];
}

} // namespace norm
} // namespace zinf_cuda

using namespace zinf_cuda;

/** Whether every row of the operands begins at 16 bytes. */
static bool rows_aligned(const struct zinf_norm *op)
{
    const int64_t row_bytes = op->columns * (op->dtype == ZINF_FP32 ? 4 : 2);
    return aligned(op->x, row_bytes, 16) && aligned(op->weight, 0, 16) && aligned(op->bias, 0, 16);
}

void zinf_cuda_norm_forward(const struct zinf_norm *options, void *y)
{
    using namespace zinf_cuda::norm;
    const Forward op = {options->columns, (float)options->epsilon, options->x, options->weight, options->bias,
                        options->mean, options->rstd, y};
    with_vectors(options->dtype, rows_aligned(options) && aligned(y, 0, 16), [&](auto tag, auto width) {
        typedef decltype(tag) T;
        constexpr int N = decltype(width)::value;
        const int threads = threads_for(op.columns, N);
        if (threads)
            LAUNCH((forward_kernel<T, N, true>), Shape(options->rows, threads), op);
        else
            LAUNCH((forward_kernel<T, N, false>), Shape(options->rows, LARGEST_BLOCK), op);
    });
}

void zinf_cuda_norm_backward(const struct zinf_norm *options, const void *dy, const void *residual, void *dx,
                             void *dweight, void *dbias)
{
    using namespace zinf_cuda::norm;
    Backward op = {options->rows, options->columns, 0, options->x, options->weight, dy, residual, options->mean,
                   options->rstd, dx, nullptr};
    const bool wide = rows_aligned(options) && aligned(dy, 0, 16) && aligned(residual, 0, 16) && aligned(dx, 0, 16);
    with_vectors(options->dtype, wide, [&](auto tag, auto width) {
        typedef decltype(tag) T;
        constexpr int N = decltype(width)::value;
        const int held = threads_for(op.columns, N), threads = held ? held : LARGEST_BLOCK;
        /* at least 4 rows a part; as many parts as keep 2 x columns x 4 bytes of each within 16 MiB */
        const int64_t most = ((int64_t)16 << 20) / (8 * op.columns), rows4 = ceil_div(op.rows, 4);
        op.parts = most < 1 ? 1 : most;
        op.parts = op.parts < rows4 ? op.parts : rows4;
        op.parts = op.parts < 65536 / threads ? op.parts : 65536 / threads;
        op.partial = (float *)zinf_cuda_scratch(8 * (size_t)(op.parts * op.columns));
        if (held)
            LAUNCH((backward_kernel<T, N, true>), Shape(op.parts, threads), op);
        else
            LAUNCH((backward_kernel<T, N, false>), Shape(op.parts, threads), op);
        combine<T>(dweight, op.partial, op.columns, 2 * op.columns, op.parts);
        if (dbias)
            combine<T>(dbias, op.partial + op.columns, op.columns, 2 * op.columns, op.parts);
    });
}

void zinf_cuda_bias_backward(const struct zinf_column_sum *op, const void *dy, void *dbias)
{
    using namespace zinf_cuda::norm;
    const int64_t rows = op->rows, columns = op->columns;
    const int64_t most = ((int64_t)16 << 20) / (4 * columns) < 1024 ? ((int64_t)16 << 20) / (4 * columns) : 1024;
    int64_t run = ceil_div(rows, most < 1 ? 1 : most);
    run = run < RUN ? RUN : run;
    const int64_t parts = ceil_div(rows, run);
    float *partial = (float *)zinf_cuda_scratch(4 * (size_t)(parts * columns));
    const bool wide = aligned(dy, columns * (op->dtype == ZINF_FP32 ? 4 : 2), 16);
    with_vectors(op->dtype, wide, [&](auto tag, auto width) {
        typedef decltype(tag) T;
        constexpr int N = decltype(width)::value;
        LAUNCH((bias_kernel<T, N>), Shape(ceil_div(ceil_div(columns, N), 128), 128, 0, parts), partial,
               (const T *)dy, rows, columns, run);
        combine<T>(dbias, partial, columns, columns, parts);
    });
}
