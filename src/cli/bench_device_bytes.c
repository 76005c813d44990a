/*
 * What only moves bytes inside the device, in figures of the bytes that it must read and write. See
 * bench_device.h.
 */
#include "cli/bench_device.h"

#include <stdlib.h>

static void call_update(const struct zinf_rig *rig, const struct zinf_rig_work *work)
{
    rig->ops->update(work->op);
}

static void measure_update(struct zinf_rig *rig)
{
    const int64_t count = rig->sizes->parameters;
    struct zinf_update_op op = {.options = zinf_bench_adamw,
                                .count = count,
                                .gradient_dtype = ZINF_BF16,
                                .low_dtype = ZINF_BF16};
    struct zinf_rig_work work = {.call = call_update, .op = &op};
    struct zinf_rig_point point = {.name = "AdamW", .dtype = "bf16", .bytes = 28.0 * (double)count};
    rig->used = 0;
    op.weights = zinf_rig_random(rig, ZINF_FP32, count);
    op.state[0] = zinf_rig_random(rig, ZINF_FP32, count);
    op.state[1] = zinf_rig_filled(rig, ZINF_FP32, count, 0.01f, 1.0f);
    op.gradient = zinf_rig_random(rig, ZINF_BF16, count);
    op.low = zinf_rig_take(rig, 2 * (size_t)count);
    snprintf(point.shape, sizeof point.shape, "%lld parameters", (long long)count);
    zinf_rig_point(rig, &work, &point);
}

static void call_norm_forward(const struct zinf_rig *rig, const struct zinf_rig_work *work)
{
    rig->ops->norm_forward(work->op, work->out[0]);
}

static void call_norm_backward(const struct zinf_rig *rig, const struct zinf_rig_work *work)
{
    rig->ops->norm_backward(work->op, work->in[0], work->in[1], work->out[0], work->out[1],
                            work->out[2]);
}

/* Forward reads x and writes y; backward reads x, dy and the residual's gradient and writes dx. */
static void measure_norm(struct zinf_rig *rig, bool layer)
{
    const int64_t rows = rig->sizes->tokens, columns = rig->sizes->hidden;
    struct zinf_norm op = {.dtype = ZINF_BF16, .rows = rows, .columns = columns, .epsilon = 1e-5};
    struct zinf_rig_work work = {.call = call_norm_forward, .op = &op};
    struct zinf_rig_point point = {.name = layer ? "layer norm forward" : "RMS norm forward",
                                   .dtype = "bf16"};
    rig->used = 0;
    op.x = zinf_rig_random(rig, ZINF_BF16, rows * columns);
    op.weight = zinf_rig_random(rig, ZINF_BF16, columns);
    op.bias = layer ? zinf_rig_random(rig, ZINF_BF16, columns) : NULL;
    op.mean = layer ? zinf_rig_take(rig, 4 * (size_t)rows) : NULL;
    op.rstd = zinf_rig_take(rig, 4 * (size_t)rows);
    work.in[0] = zinf_rig_random(rig, ZINF_BF16, rows * columns);
    work.in[1] = zinf_rig_random(rig, ZINF_BF16, rows * columns);
    work.out[0] = zinf_rig_take(rig, 2 * (size_t)(rows * columns));
    work.out[1] = zinf_rig_take(rig, 2 * (size_t)columns);
    work.out[2] = layer ? zinf_rig_take(rig, 2 * (size_t)columns) : NULL;
    snprintf(point.shape, sizeof point.shape, "%lld x %lld", (long long)rows, (long long)columns);
    point.bytes = 4.0 * (double)(rows * columns);
    zinf_rig_point(rig, &work, &point);
    work.call = call_norm_backward;
    point.name = layer ? "layer norm backward" : "RMS norm backward";
    point.bytes *= 2;
    zinf_rig_point(rig, &work, &point);
}

/* Twice over the logits: once to sum, once to overwrite them with their gradient. */
static void call_loss(const struct zinf_rig *rig, const struct zinf_rig_work *work)
{
    rig->ops->loss_tile_forward(work->op, work->out[0]);
    rig->ops->loss_tile_backward(work->op, work->out[0]);
}

static void measure_loss(struct zinf_rig *rig)
{
    const int64_t rows = rig->sizes->tokens / 2, columns = rig->sizes->vocabulary;
    int32_t *targets = zinf_alloc((size_t)rows * sizeof *targets);
    struct zinf_loss_tile op = {
        .dtype = ZINF_BF16, .rows = rows, .columns = columns, .row = columns, .scale = 1.0f};
    struct zinf_rig_work work = {.call = call_loss, .op = &op};
    struct zinf_rig_point point = {.name = "cross-entropy", .dtype = "bf16"};
    rig->used = 0;
    work.out[0] = zinf_rig_random(rig, ZINF_BF16, rows * columns);
    op.maximum = zinf_rig_filled(rig, ZINF_FP32, rows, 0.0f, 1.0f);
    op.sum = zinf_rig_filled(rig, ZINF_FP32, rows, 1.0f, 1.0f);
    op.target_logit = zinf_rig_filled(rig, ZINF_FP32, rows, 0.0f, 1.0f);
    op.targets = zinf_rig_take(rig, 4 * (size_t)rows);
    for (int64_t i = 0; i < rows; i++)
        targets[i] = (int32_t)(i * 7919 % columns);
    rig->device.backend->copy(&rig->device, ZINF_STREAM_COMPUTE, (void *)op.targets, targets,
                              4 * (size_t)rows);
    snprintf(point.shape, sizeof point.shape, "%lld x %lld, forward and backward", (long long)rows,
             (long long)columns);
    point.bytes = 6.0 * (double)(rows * columns);
    zinf_rig_point(rig, &work, &point);
    free(targets);
}

static void call_gated_forward(const struct zinf_rig *rig, const struct zinf_rig_work *work)
{
    rig->ops->gated_forward(work->op, work->out[0]);
}

static void call_gated_backward(const struct zinf_rig *rig, const struct zinf_rig_work *work)
{
    rig->ops->gated_backward(work->op, work->in[0], work->out[1]);
}

static void call_gelu_forward(const struct zinf_rig *rig, const struct zinf_rig_work *work)
{
    rig->ops->activation_forward(work->op, work->out[0]);
}

static void call_gelu_backward(const struct zinf_rig *rig, const struct zinf_rig_work *work)
{
    rig->ops->activation_backward(work->op, work->in[0], work->out[1]);
}

/* An activation and its gradient, in bf16. */
struct activation {
    enum zinf_activation kind;
    int64_t features;
    int inputs; /* values of the input for one of the output */
    const char *names[2];
    void (*calls[2])(const struct zinf_rig *rig, const struct zinf_rig_work *work);
    double bytes[2]; /* that an output's value must move */
};

static void measure_activation(struct zinf_rig *rig, const struct activation *a)
{
    const int64_t rows = rig->sizes->tokens, count = rows * a->features;
    struct zinf_activate op = {
        .kind = a->kind, .dtype = ZINF_BF16, .rows = rows, .features = a->features};
    struct zinf_rig_work work = {.op = &op};
    struct zinf_rig_point point = {.dtype = "bf16"};
    rig->used = 0;
    op.x = zinf_rig_random(rig, ZINF_BF16, a->inputs * count);
    work.in[0] = zinf_rig_random(rig, ZINF_BF16, count);
    work.out[0] = zinf_rig_take(rig, 2 * (size_t)count);
    work.out[1] = zinf_rig_take(rig, 2 * (size_t)(a->inputs * count));
    snprintf(point.shape, sizeof point.shape, "%lld x %lld", (long long)rows,
             (long long)a->features);
    for (int pass = 0; pass < 2; pass++) {
        work.call = a->calls[pass];
        point.name = a->names[pass];
        point.bytes = a->bytes[pass] * (double)count;
        zinf_rig_point(rig, &work, &point);
    }
}

static void measure_activations(struct zinf_rig *rig)
{
    const struct activation gated = {.kind = ZINF_SILU,
                                     .features = rig->sizes->inner,
                                     .inputs = 2,
                                     .names = {"SwiGLU forward", "SwiGLU backward"},
                                     .calls = {call_gated_forward, call_gated_backward},
                                     .bytes = {6, 10}};
    const struct activation gelu = {.kind = ZINF_GELU_TANH,
                                    .features = 4 * rig->sizes->hidden,
                                    .inputs = 1,
                                    .names = {"GELU forward", "GELU backward"},
                                    .calls = {call_gelu_forward, call_gelu_backward},
                                    .bytes = {4, 6}};
    measure_activation(rig, &gated);
    measure_activation(rig, &gelu);
}

static void call_cast(const struct zinf_rig *rig, const struct zinf_rig_work *work)
{
    rig->ops->cast(work->op, work->in[0], work->out[0]);
}

static void measure_cast(struct zinf_rig *rig, enum zinf_dtype from, enum zinf_dtype to)
{
    const struct zinf_cast op = {from, to, rig->sizes->parameters};
    struct zinf_rig_work work = {.call = call_cast, .op = &op};
    struct zinf_rig_point point = {.name = "cast", .dtype = zinf_dtype_name(to)};
    rig->used = 0;
    work.in[0] = zinf_rig_random(rig, from, op.count);
    work.out[0] = zinf_rig_take(rig, (size_t)op.count * zinf_dtype_bytes(to));
    snprintf(point.shape, sizeof point.shape, "%lld from %s", (long long)op.count,
             zinf_dtype_name(from));
    point.bytes = (double)((size_t)op.count * (zinf_dtype_bytes(from) + zinf_dtype_bytes(to)));
    zinf_rig_point(rig, &work, &point);
}

/* The host waits for each result: that is in the time, as it is in a step. */
static void call_scan(const struct zinf_rig *rig, const struct zinf_rig_work *work)
{
    rig->ops->square_sum(work->op, work->in[0]);
}

static void measure_scan(struct zinf_rig *rig)
{
    const struct zinf_scan op = {ZINF_BF16, 4 * rig->sizes->parameters};
    struct zinf_rig_work work = {.call = call_scan, .op = &op};
    struct zinf_rig_point point = {
        .name = "square sum", .dtype = "bf16", .bytes = 2.0 * (double)op.count};
    rig->used = 0;
    work.in[0] = zinf_rig_random(rig, ZINF_BF16, op.count);
    snprintf(point.shape, sizeof point.shape, "%lld", (long long)op.count);
    zinf_rig_point(rig, &work, &point);
}

void zinf_rig_bytes(struct zinf_rig *rig)
{
    measure_update(rig);
    measure_norm(rig, true);
    measure_norm(rig, false);
    measure_loss(rig);
    measure_activations(rig);
    measure_cast(rig, ZINF_FP32, ZINF_BF16);
    measure_cast(rig, ZINF_BF16, ZINF_FP32);
    measure_scan(rig);
}
