/*
 * Cross entropy over tiles of the vocabulary. A row has logits x(0) .. x(V-1) and a target t; its
 * loss is ln(sum e^x) - x(t). Tiles come one after the other, so a row keeps the largest logit m
 * seen so far and s = sum e^(x - m), and s is multiplied by e^(old m - new m) when m grows ("Online
 * normalizer calculation for softmax", Milakov and Gimelshein 2018, arXiv:1805.02867, algorithm 3).
 * At the end the loss is m + ln s - x(t), and the gradient of logit i is
 * scale (e^(x(i) - m) / s - [i = t]). No e^ ever overflows, since x - m <= 0.
 */
#include "cpu/kernels.h"
#include "cpu/vmath.h"

struct loss {
    const struct zinf_loss_tile *op;
    const void *logits;
    void *gradient;
};

INLINE float row_maximum(enum zinf_dtype dtype, const void *x, int64_t columns)
{
    struct lanes maximum;
    for (int p = 0; p < PARTS; p++)
        maximum.part[p] = all(-INFINITY);
    for (int64_t i = 0; i < columns; i += LANES)
        for (int p = 0; p < PARTS; p++) {
            int64_t left = columns - i - p * WIDTH;
            vfloat v = keep_first(left, load(dtype, x, i + p * WIDTH, left), -INFINITY);
            maximum.part[p] = choose((maximum.part[p] >= v) | (maximum.part[p] != maximum.part[p]),
                                     maximum.part[p], v);
        }
    return lanes_max(&maximum);
}

INLINE float row_exponentials(enum zinf_dtype dtype, const void *x, int64_t columns, float maximum)
{
    struct lanes sum = {0};
    for (int64_t i = 0; i < columns; i += LANES)
        for (int p = 0; p < PARTS; p++) {
            int64_t left = columns - i - p * WIDTH;
            vfloat e = vexp(load(dtype, x, i + p * WIDTH, left) - maximum);
            sum.part[p] += keep_first(left, e, 0.0f);
        }
    return lanes_sum(&sum);
}

INLINE void forward_row(enum zinf_dtype dtype, const struct loss *loss, int64_t row)
{
    const struct zinf_loss_tile *op = loss->op;
    int64_t target = op->targets[row] - op->first_column;
    if (op->targets[row] == -100)
        return;
    const void *x = element(loss->logits, dtype, row * op->row);
    if (target >= 0 && target < op->columns)
        op->target_logit[row] = load(dtype, x, target, 1)[0];
    float before = op->maximum[row], tile = row_maximum(dtype, x, op->columns);
    float now = tile <= before ? before : tile; /* a NaN of the tile stays */
    if (now == -INFINITY)
        return; /* only minus infinities so far: they add nothing, and -inf - -inf would be NaN */
    float kept = before == -INFINITY ? 0.0f : op->sum[row] * expf(before - now);
    op->maximum[row] = now;
    op->sum[row] = kept + row_exponentials(dtype, x, op->columns, now);
}

static void forward_task(void *context, int64_t row)
{
    const struct loss *loss = context;
    FOR_DTYPE(loss->op->dtype, forward_row(constant_dtype, loss, row));
}

void KERNEL(loss_tile_forward)(const struct zinf_loss_tile *op, const void *logits)
{
    struct loss loss = {.op = op, .logits = logits};
    zinf_cpu_for(op->rows, forward_task, &loss);
}

INLINE void backward_row(enum zinf_dtype dtype, const struct loss *loss, int64_t row)
{
    const struct zinf_loss_tile *op = loss->op;
    void *x = element_out(loss->gradient, dtype, row * op->row);
    if (op->targets[row] == -100) {
        memset(x, 0, (size_t)(op->columns * element_bytes(dtype)));
        return;
    }
    int64_t target = op->targets[row] - op->first_column;
    float maximum = op->maximum[row], scale = op->scale, per_sum = scale / op->sum[row];
    /* The gradient takes the logits' place: no rank has room for both. */
    bool inside = target >= 0 && target < op->columns;
    vfloat at_target = {0};
    if (inside) /* before the logit is overwritten */
        at_target = vexp(load(dtype, x, target, 1) - maximum) * per_sum - scale;
    for (int64_t i = 0; i < op->columns; i += WIDTH) {
        int64_t left = op->columns - i;
        store(dtype, x, i, left, vexp(load(dtype, x, i, left) - maximum) * per_sum);
    }
    if (inside)
        store(dtype, x, target, 1, at_target);
}

static void backward_task(void *context, int64_t row)
{
    const struct loss *loss = context;
    FOR_DTYPE(loss->op->dtype, backward_row(constant_dtype, loss, row));
}

void KERNEL(loss_tile_backward)(const struct zinf_loss_tile *op, void *logits)
{
    struct loss loss = {.op = op, .gradient = logits};
    zinf_cpu_for(op->rows, backward_task, &loss);
}
