/*
 * Dropout with residual addition. The mask is computed from the element's number, never stored.
 */
#include "cpu/kernels.h"
#include "cpu/philox.h"

struct dropout {
    const struct zinf_dropout *options;
    enum zinf_dtype dtype;
    int64_t per_sample, runs; /* runs: tasks of one sample */
    const void *x, *residual;
    void *y;
};

enum { RUN = 4096 }; /* elements of a task; multiple of 4, so that a run starts at a counter */

INLINE void dropout_run(enum zinf_dtype dtype, const struct dropout *op, int64_t sample,
                        int64_t first)
{
    float room[RUN + 4 * WIDTH + 3];
    int64_t count = least(RUN, op->per_sample - first), at = sample * op->per_sample + first;
    const float *factors = NULL;
    struct dropout_row row = dropout_row(op->options, sample);
    if (op->options->p > 0.0f)
        factors = dropout_factors(&row, first, count, room);
    for (int64_t i = 0; i < count; i += WIDTH) {
        int64_t left = count - i;
        vfloat v = load(dtype, op->x, at + i, left);
        if (factors)
            v *= load_whole(ZINF_FP32, factors, i);
        if (op->residual) /* dropout and addition are two operations in PyTorch: the first is
                             rounded too */
            v = rounded(dtype, v) + load(dtype, op->residual, at + i, left);
        store(dtype, op->y, at + i, left, v);
    }
}

static void dropout_task(void *context, int64_t task)
{
    const struct dropout *op = context;
    FOR_DTYPE(op->dtype, dropout_run(constant_dtype, op, task / op->runs, task % op->runs * RUN));
}

void KERNEL(dropout_add)(const struct zinf_dropout *dropout, enum zinf_dtype dtype, int64_t batch,
                         int64_t per_sample, const void *x, const void *residual, void *y)
{
    struct dropout op = {dropout, dtype, per_sample, chunks(per_sample, RUN), x, residual, y};
    zinf_cpu_for(batch * op.runs, dropout_task, &op);
}
