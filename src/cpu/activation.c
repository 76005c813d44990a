/*
 * Activation functions, gated units and rotary embedding: elementwise, one task per chunk of
 * elements or run of rows.
 */
#include "cpu/kernels.h"
#include "cpu/vmath.h"

/** f(x) and, if `slope` is given, f'(x). Hendrycks and Gimpel 2016 (GELU), Elfwing et al. 2017
 * (SiLU). */
INLINE vfloat activate(enum zinf_activation kind, vfloat x, vfloat *slope)
{
    if (kind == ZINF_RELU) {
        if (slope)
            *slope = choose(x > 0.0f, all(1.0f), all(0.0f));
        return choose(x < 0.0f, all(0.0f), x);
    }
    if (kind == ZINF_SILU) {
        vfloat s = vsigmoid(x);
        if (slope)
            *slope = s * (1.0f + x * (1.0f - s));
        return x * s;
    }
    if (kind == ZINF_GELU_ERF) {
        vfloat half = 0.5f * (1.0f + verf(x * 0.70710678f));
        if (slope) /* Phi + x phi; 1 / sqrt(2 pi) */
            *slope = half + x * 0.39894228f * vexp(-0.5f * x * x);
        return x * half;
    }
    const float outer = 0.79788456f, inner = 0.044715f; /* sqrt(2 / pi) */
    vfloat t = vtanh(outer * (x + inner * (x * x * x)));
    if (slope)
        *slope = 0.5f * (1.0f + t) +
                 0.5f * x * (1.0f - t * t) * (outer * (1.0f + 3.0f * inner * (x * x)));
    return 0.5f * x * (1.0f + t);
}

struct activation {
    enum zinf_activation kind;
    enum zinf_dtype dtype;
    int64_t count, features;
    const void *x, *dy;
    void *out;
};

INLINE void forward_chunk(enum zinf_activation kind, enum zinf_dtype dtype,
                          const struct activation *op, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i += WIDTH)
        store(dtype, op->out, i, end - i, activate(kind, load(dtype, op->x, i, end - i), NULL));
}

INLINE void backward_chunk(enum zinf_activation kind, enum zinf_dtype dtype,
                           const struct activation *op, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i += WIDTH) {
        vfloat slope;
        activate(kind, load(dtype, op->x, i, end - i), &slope);
        store(dtype, op->out, i, end - i, slope * load(dtype, op->dy, i, end - i));
    }
}

/** One row: f is rounded before the product, as PyTorch's two operations do. */
INLINE void gated_row(enum zinf_activation kind, enum zinf_dtype dtype, const struct activation *op,
                      int64_t row)
{
    int64_t features = op->features, gate = row * 2 * features, up = gate + features;
    for (int64_t i = 0; i < features; i += WIDTH) {
        int64_t left = features - i;
        vfloat f = rounded(dtype, activate(kind, load(dtype, op->x, gate + i, left), NULL));
        store(dtype, op->out, row * features + i, left, f * load(dtype, op->x, up + i, left));
    }
}

INLINE void gated_backward_row(enum zinf_activation kind, enum zinf_dtype dtype,
                               const struct activation *op, int64_t row)
{
    int64_t features = op->features, gate = row * 2 * features, up = gate + features;
    for (int64_t i = 0; i < features; i += WIDTH) {
        int64_t left = features - i;
        vfloat slope, dy = load(dtype, op->dy, row * features + i, left);
        vfloat f = activate(kind, load(dtype, op->x, gate + i, left), &slope);
        vfloat df = dy * load(dtype, op->x, up + i, left);
        store(dtype, op->out, gate + i, left, df * slope);
        store(dtype, op->out, up + i, left, dy * rounded(dtype, f));
    }
}

INLINE void gated_rows(enum zinf_activation kind, enum zinf_dtype dtype,
                       const struct activation *op, int64_t begin, int64_t end)
{
    for (int64_t row = begin; row < end; row++)
        gated_row(kind, dtype, op, row);
}

INLINE void gated_backward_rows(enum zinf_activation kind, enum zinf_dtype dtype,
                                const struct activation *op, int64_t begin, int64_t end)
{
    for (int64_t row = begin; row < end; row++)
        gated_backward_row(kind, dtype, op, row);
}

/** RANGE with `kind` and the type as constants. */
#define FOR_KIND(op, RANGE, begin, end)                                                            \
    do {                                                                                           \
        switch ((op)->kind) {                                                                      \
        case ZINF_GELU_TANH:                                                                       \
            FOR_DTYPE((op)->dtype, RANGE(ZINF_GELU_TANH, constant_dtype, op, begin, end));         \
            break;                                                                                 \
        case ZINF_GELU_ERF:                                                                        \
            FOR_DTYPE((op)->dtype, RANGE(ZINF_GELU_ERF, constant_dtype, op, begin, end));          \
            break;                                                                                 \
        case ZINF_RELU:                                                                            \
            FOR_DTYPE((op)->dtype, RANGE(ZINF_RELU, constant_dtype, op, begin, end));              \
            break;                                                                                 \
        case ZINF_SILU:                                                                            \
            FOR_DTYPE((op)->dtype, RANGE(ZINF_SILU, constant_dtype, op, begin, end));              \
            break;                                                                                 \
        }                                                                                          \
    } while (0)

static void forward_task(void *context, int64_t task)
{
    const struct activation *op = context;
    int64_t begin = task * CHUNK, end = least(begin + CHUNK, op->count);
    FOR_KIND(op, forward_chunk, begin, end);
}

static void backward_task(void *context, int64_t task)
{
    const struct activation *op = context;
    int64_t begin = task * CHUNK, end = least(begin + CHUNK, op->count);
    FOR_KIND(op, backward_chunk, begin, end);
}

static void gated_task(void *context, int64_t task)
{
    const struct activation *op = context;
    FOR_KIND(op, gated_rows, task, task + 1);
}

static void gated_backward_task(void *context, int64_t task)
{
    const struct activation *op = context;
    FOR_KIND(op, gated_backward_rows, task, task + 1);
}

static struct activation activation_of(const struct zinf_activate *op, const void *dy, void *out)
{
    return (struct activation){op->kind, op->dtype, op->rows * op->features, op->features, op->x,
                               dy,       out};
}

void KERNEL(activation_forward)(const struct zinf_activate *op, void *y)
{
    struct activation flat = activation_of(op, NULL, y);
    zinf_cpu_for(chunks(flat.count, CHUNK), forward_task, &flat);
}

void KERNEL(activation_backward)(const struct zinf_activate *op, const void *dy, void *dx)
{
    struct activation flat = activation_of(op, dy, dx);
    zinf_cpu_for(chunks(flat.count, CHUNK), backward_task, &flat);
}

void KERNEL(gated_forward)(const struct zinf_activate *op, void *y)
{
    struct activation gated = activation_of(op, NULL, y);
    zinf_cpu_for(op->rows, gated_task, &gated);
}

void KERNEL(gated_backward)(const struct zinf_activate *op, const void *dy, void *dx)
{
    struct activation gated = activation_of(op, dy, dx);
    zinf_cpu_for(op->rows, gated_backward_task, &gated);
}

struct rope {
    const struct zinf_rope *op;
    void *x;
};

/** All heads of one token. Su et al. 2021 (RoFormer), with pairs (i, i + D/2) as in Hugging Face's
 * Llama. */
INLINE void rope_token(enum zinf_dtype dtype, const struct zinf_rope *op, void *x, int64_t token)
{
    int64_t half = op->head_size / 2, angle = token % op->sequence * half;
    for (int64_t head = 0; head < op->heads; head++) {
        int64_t first = token * op->row + head * op->head_size;
        for (int64_t i = 0; i < half; i += WIDTH) {
            int64_t left = half - i;
            vfloat a = load(dtype, x, first + i, left), b = load(dtype, x, first + half + i, left);
            vfloat c = load(ZINF_FP32, op->cosine, angle + i, left);
            vfloat s = load(ZINF_FP32, op->sine, angle + i, left);
            if (op->backward)
                s = -s;
            store(dtype, x, first + i, left, a * c - b * s);
            store(dtype, x, first + half + i, left, b * c + a * s);
        }
    }
}

static void rope_task(void *context, int64_t task)
{
    const struct rope *rope = context;
    FOR_DTYPE(rope->op->dtype, rope_token(constant_dtype, rope->op, rope->x, task));
}

void KERNEL(rope)(const struct zinf_rope *op, void *x)
{
    struct rope rope = {op, x};
    zinf_cpu_for(op->batch * op->sequence, rope_task, &rope);
}
