/*
 * Small matrix products in fp32 for tiles that lie in a core's caches: c (m, n) = [c +] a (m, k) .
 * b (k, n), n a multiple of 16.
 *
 * Registers hold ROWS x VECTORS of c; each step of k loads VECTORS vectors of b and spreads one
 * number of each row of a. Each element of c is a sum over k in order, on every instruction set. a
 * is read number by number, so it may be transposed at no cost.
 */
#ifndef ZINF_CPU_PRODUCT_H
#define ZINF_CPU_PRODUCT_H

#include "cpu/vec.h"

struct product {
    float *c;
    int64_t c_row; /* elements from row to row */
    const float *a;
    int64_t a_row, a_column; /* element (i, j) of a stands at i * a_row + j * a_column */
    const float *b;
    int64_t b_row;
    int64_t m, n, k;
    bool add;
};

#if VECTOR_FLOATS == 16
enum { ROWS = 4, VECTORS = 4 }; /* 16 of 32 registers hold c */
#else
enum { ROWS = 6, VECTORS = 2 }; /* 12 of 16 */
#endif

INLINE void product_block(int rows, int vectors, const struct product *op, int64_t i, int64_t j)
{
    vfloat sum[ROWS][VECTORS];
    float *c = op->c + i * op->c_row + j;
    const float *a = op->a + i * op->a_row, *b = op->b + j;
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            sum[r][v] = op->add ? load_whole(ZINF_FP32, c, r * op->c_row + v * WIDTH) : all(0.0f);
    for (int64_t k = 0; k < op->k; k++, a += op->a_column, b += op->b_row) {
        vfloat column[VECTORS];
        for (int v = 0; v < vectors; v++)
            column[v] = load_whole(ZINF_FP32, b, v * WIDTH);
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < vectors; v++)
                sum[r][v] += a[r * op->a_row] * column[v];
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            store_whole(ZINF_FP32, c, r * op->c_row + v * WIDTH, sum[r][v]);
}

INLINE void product_columns(int vectors, const struct product *op, int64_t j)
{
    int64_t i = 0;
    for (; i + ROWS <= op->m; i += ROWS)
        product_block(ROWS, vectors, op, i, j);
    for (; i + 2 <= op->m; i += 2)
        product_block(2, vectors, op, i, j);
    if (i < op->m)
        product_block(1, vectors, op, i, j);
}

static __attribute__((noinline)) void product(const struct product *op)
{
    int64_t j = 0;
    for (; j + VECTORS * WIDTH <= op->n; j += VECTORS * WIDTH)
        product_columns(VECTORS, op, j);
#if VECTOR_FLOATS == 16
    for (; j + 2 * WIDTH <= op->n; j += 2 * WIDTH)
        product_columns(2, op, j);
    for (; j < op->n; j += WIDTH)
        product_columns(1, op, j);
#endif
}

#endif
