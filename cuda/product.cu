/*
 * Matrix products of our own, for operands that cuBLASLt does not take (rows that are aligned to one element only, some types) and where the library
 * is missing; and the oracle of the library on a card. Sums in fp32 by fused multiply-add in the order of k.
 *
 * A block of 256 threads makes a 64 x 64 tile of c, 16 of k at a time through shared memory; a thread has 4 x 4 elements. Any strides.
 */
#include "cuda/kernel.h"

namespace zinf_cuda
{
namespace product
{

constexpr int TILE = 64, DEPTH = 16, THREADS = 256, OWN = 4;

struct Operands {
    int64_t m, n, k, a_row, a_column, b_row, b_column, ldc; /* element (i, j) of op(a) stands at i a_row + j a_column */
    const void *a, *b, *bias;
    void *c;
    bool accumulate;
};

template <typename T, typename C> __global__ void __launch_bounds__(THREADS) tile_kernel(Operands op)
{
    __shared__ float a[DEPTH][TILE + 4], b[DEPTH][TILE + 4]; /* 4 more: rows begin in other banks */
    const int64_t i0 = (int64_t)blockIdx.y * TILE, j0 = (int64_t)blockIdx.x * TILE;
    const int row = (int)threadIdx.x / 16 * OWN, column = (int)threadIdx.x % 16 * OWN;
    float sum[OWN][OWN];
#pragma unroll
    for (int i = 0; i < OWN; i++)
#pragma unroll
        for (int j = 0; j < OWN; j++)
            sum[i][j] = 0.0f;
    for (int64_t k0 = 0; k0 < op.k; k0 += DEPTH) {
        for (int e = (int)threadIdx.x; e < TILE * DEPTH; e += THREADS) {
            /* neighbours read neighbours in memory, whichever way the matrix lies */
            const int ka = op.a_column == 1 ? e % DEPTH : e / TILE, ia = op.a_column == 1 ? e / DEPTH : e % TILE;
            const int kb = op.b_row == 1 ? e % DEPTH : e / TILE, jb = op.b_row == 1 ? e / DEPTH : e % TILE;
            const bool a_inside = i0 + ia < op.m && k0 + ka < op.k, b_inside = j0 + jb < op.n && k0 + kb < op.k;
            a[ka][ia] = a_inside ? widen(((const T *)op.a)[(i0 + ia) * op.a_row + (k0 + ka) * op.a_column]) : 0.0f;
            b[kb][jb] = b_inside ? widen(((const T *)op.b)[(k0 + kb) * op.b_row + (j0 + jb) * op.b_column]) : 0.0f;
        }
        __syncthreads();
        const int depth = op.k - k0 < DEPTH ? (int)(op.k - k0) : DEPTH;
        for (int k = 0; k < depth; k++)
#pragma unroll
            for (int i = 0; i < OWN; i++)
#pragma unroll
                for (int j = 0; j < OWN; j++)
                    sum[i][j] += a[k][row + i] * b[k][column + j];
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < OWN; i++)
#pragma unroll
        for (int j = 0; j < OWN; j++) {
            const int64_t ci = i0 + row + i, cj = j0 + column + j;
            if (ci >= op.m || cj >= op.n)
                continue;
            C *c = (C *)op.c + ci * op.ldc + cj;
            float x = sum[i][j];
            if (op.bias)
                x += widen(((const T *)op.bias)[cj]);
            if (op.accumulate)
                x += widen(*c);
            *c = narrow<C>(x);
        }
}

struct Bias {
    int64_t m, n, ldc;
    const void *bias;
    float *c;
};

template <typename T> __global__ void __launch_bounds__(THREADS) bias_kernel(Bias op)
{
    const int64_t thread = thread_number();
    if (thread >= op.m * op.n)
        return;
    op.c[thread / op.n * op.ldc + thread % op.n] += widen(((const T *)op.bias)[thread % op.n]);
}

} // namespace product
} // namespace zinf_cuda

using namespace zinf_cuda;

void zinf_cuda_product(const struct zinf_matmul *matmul)
{
    using namespace zinf_cuda::product;
    Operands op = {matmul->m, matmul->n, matmul->k, 0, 0, 0, 0, matmul->ldc, matmul->a, matmul->b, matmul->bias,
                   matmul->c, matmul->accumulate};
    op.a_row = matmul->transpose_a ? 1 : matmul->lda, op.a_column = matmul->transpose_a ? matmul->lda : 1;
    op.b_row = matmul->transpose_b ? 1 : matmul->ldb, op.b_column = matmul->transpose_b ? matmul->ldb : 1;
    const Shape shape(ceil_div(op.n, TILE), THREADS, 0, ceil_div(op.m, TILE));
    with_type(matmul->dtype, [&](auto tag) {
        typedef decltype(tag) T;
        if (matmul->c_dtype == ZINF_FP32)
            LAUNCH((tile_kernel<T, float>), shape, op);
        else
            LAUNCH((tile_kernel<T, T>), shape, op);
    });
}

void zinf_cuda_add_bias(const struct zinf_matmul *matmul)
{
    using namespace zinf_cuda::product;
    ZINF_ASSERT(matmul->c_dtype == ZINF_FP32);
    const Bias op = {matmul->m, matmul->n, matmul->ldc, matmul->bias, (float *)matmul->c};
    with_type(matmul->dtype, [&](auto tag) {
        LAUNCH((bias_kernel<decltype(tag)>), Shape(ceil_div(op.m * op.n, THREADS), THREADS), op);
    });
}
