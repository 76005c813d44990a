/*
 * Conversions of matrix tiles around a matrix product in fp32. See matmul.h.
 */
#include "cpu/kernels.h"
#include "cpu/vec.h"

INLINE void widen_rows(enum zinf_dtype dtype, float *to, const void *from, int64_t ld, int64_t rows,
                       int64_t columns)
{
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < columns; i += WIDTH) {
            int64_t left = columns - i;
            store(ZINF_FP32, to, row * columns + i, left, load(dtype, from, row * ld + i, left));
        }
}

static void widen(float *to, const void *from, enum zinf_dtype dtype, int64_t ld, int64_t rows,
                  int64_t columns)
{
    FOR_DTYPE(dtype, widen_rows(constant_dtype, to, from, ld, rows, columns));
}

INLINE void finish_rows(enum zinf_dtype dtype, const struct zinf_cpu_finish *op, int64_t rows,
                        int64_t columns)
{
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < columns; i += WIDTH) {
            int64_t left = columns - i;
            vfloat x = load(ZINF_FP32, op->from, row * op->from_ld + i, left);
            if (op->bias)
                x += load(op->bias_dtype, op->bias, i, left);
            if (op->accumulate)
                x += load(dtype, op->to, row * op->ld + i, left);
            store(dtype, op->to, row * op->ld + i, left, x);
        }
}

static void finish(const struct zinf_cpu_finish *op, int64_t rows, int64_t columns)
{
    FOR_DTYPE(op->dtype, finish_rows(constant_dtype, op, rows, columns));
}

const struct zinf_cpu_rows KERNEL(rows) = {
    .widen = widen,
    .finish = finish,
};

void KERNEL(matmul)(const struct zinf_matmul *op)
{
    zinf_cpu_matmul(op, &KERNEL(rows));
    zinf_ops_follow(&KERNEL(ops), op);
}
