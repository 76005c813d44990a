/*
 * Dropout with residual addition. The mask is computed from the element's number, never stored.
 */
#include "cpu/kernels.h"
#include "cpu/philox.h"

struct dropout {
    const struct zinf_dropout_add *op;
    int64_t runs; /* tasks of one sample */
    const void *x, *residual;
    void *y;
};

enum { RUN = 4096 }; /* elements of a task; multiple of 4, so that a run starts at a counter */

INLINE void dropout_run(enum zinf_dtype dtype, const struct dropout *dropout, int64_t sample,
                        int64_t first)
{
    float room[RUN + 4 * WIDTH + 3];
    const struct zinf_dropout_add *op = dropout->op;
    int64_t count = least(RUN, op->per_sample - first), at = sample * op->per_sample + first;
    const float *factors = NULL;
    struct dropout_row row = dropout_row(&op->dropout, sample);
    if (op->dropout.p > 0.0f)
        factors = dropout_factors(&row, first, count, room);
    for (int64_t i = 0; i < count; i += WIDTH) {
        int64_t left = count - i;
        vfloat v = load(dtype, dropout->x, at + i, left);
        if (factors)
            v *= load_whole(ZINF_FP32, factors, i);
        if (dropout->residual)
            v = rounded(dtype, v) + load(dtype, dropout->residual, at + i, left);
        store(dtype, dropout->y, at + i, left, v);
    }
}

static void dropout_task(void *context, int64_t task)
{
    const struct dropout *dropout = context;
    int64_t sample = task / dropout->runs, first = task % dropout->runs * RUN;
    FOR_DTYPE(dropout->op->dtype, dropout_run(constant_dtype, dropout, sample, first));
}

void KERNEL(dropout_add)(const struct zinf_dropout_add *op, const void *x, const void *residual,
                         void *y)
{
    struct dropout dropout = {op, chunks(op->per_sample, RUN), x, residual, y};
    zinf_cpu_for(op->batch * dropout.runs, dropout_task, &dropout);
}
