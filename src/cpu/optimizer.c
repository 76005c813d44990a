/*
 * Updates of fp32 weights by Adam, Adagrad, Lion and SGD: one fused pass over weights, state and
 * gradient. Formulas and sources: docs/optimizers.md. What depends on the step only is computed in
 * double, once a call. Each multiply-add is spelled out: builds and devices (cuda/update.h) agree
 * to the bit.
 */
#include "cpu/kernels.h"
#include "cpu/vec.h"
#include "device/update.h"

struct update {
    enum zinf_optimizer optimizer;
    int64_t count;
    float *weights, *state0, *state1; /* NULL: this optimizer has none */
    const void *gradient;
    enum zinf_dtype gradient_dtype, low_dtype;
    void *low;
    bool low_only;
    struct zinf_coefficients coefficients;
};

/** m, v: first and second moment. decay is in g (l2) or taken off w (shrink); one of them is 0. */
INLINE vfloat adam(const struct zinf_coefficients *c, vfloat w, vfloat g, vfloat *m, vfloat *v)
{
    g = fused(all(c->l2), w, g);
    *m = fused(all(c->beta1), *m, c->one_minus_beta1 * g);
    *v = fused(all(c->beta2), *v, c->one_minus_beta2 * (g * g));
    vfloat denominator = fused(vsqrt(*v), all(c->root_factor), all(c->epsilon));
    w = fused(all(-c->shrink), w, w);
    return fused(all(-c->step_size), *m / denominator, w);
}

INLINE vfloat adagrad(const struct zinf_coefficients *c, vfloat w, vfloat g, vfloat *sum)
{
    g = fused(all(c->l2), w, g);
    *sum = fused(g, g, *sum);
    return fused(all(-c->learning_rate), g / (vsqrt(*sum) + c->epsilon), w);
}

/** The sign of a blend of moment and gradient, each weight moving by the whole learning rate. */
INLINE vfloat lion(const struct zinf_coefficients *c, vfloat w, vfloat g, vfloat *m)
{
    vfloat blend = fused(all(c->beta1), *m, c->one_minus_beta1 * g);
    vfloat rate = all(c->learning_rate);
    vfloat still = blend - blend; /* 0, or NaN */
    vfloat move = choose(blend > 0.0f, rate, choose(blend < 0.0f, -rate, still));
    *m = fused(all(c->beta2), *m, c->one_minus_beta2 * g);
    return fused(all(-c->shrink), w, w) - move;
}

INLINE vfloat sgd(const struct zinf_coefficients *c, vfloat w, vfloat g, vfloat *buffer)
{
    vfloat rate = all(-c->learning_rate), momentum = all(c->momentum);
    g = fused(all(c->l2), w, g);
    if (c->momentum == 0.0f)
        return fused(rate, g, w);
    *buffer = c->first_step ? g : fused(momentum, *buffer, c->one_minus_dampening * g);
    return fused(rate, c->nesterov ? fused(momentum, *buffer, g) : *buffer, w);
}

/** WIDTH elements from i on, of which `left` are there. */
INLINE void update_vector(enum zinf_optimizer optimizer, enum zinf_dtype gradient_dtype,
                          const struct update *op, int64_t i, int64_t left)
{
    const struct zinf_coefficients *c = &op->coefficients;
    vfloat w = load(ZINF_FP32, op->weights, i, left), m = {0}, v = {0};
    vfloat g = load(gradient_dtype, op->gradient, i, left) * c->gradient_scale;
    if (op->state0)
        m = load(ZINF_FP32, op->state0, i, left);
    if (optimizer == ZINF_ADAM)
        v = load(ZINF_FP32, op->state1, i, left);
    if (optimizer == ZINF_ADAM)
        w = adam(c, w, g, &m, &v);
    else if (optimizer == ZINF_ADAGRAD)
        w = adagrad(c, w, g, &m);
    else if (optimizer == ZINF_LION)
        w = lion(c, w, g, &m);
    else
        w = sgd(c, w, g, &m);
    if (op->low)
        store(op->low_dtype, op->low, i, left, w);
    if (op->low_only)
        return;
    store(ZINF_FP32, op->weights, i, left, w);
    if (op->state0)
        store(ZINF_FP32, op->state0, i, left, m);
    if (optimizer == ZINF_ADAM)
        store(ZINF_FP32, op->state1, i, left, v);
}

/** Whole vectors apart from the rest, and coefficients in a copy that stores cannot touch: both
 * keep the loop in registers. */
INLINE void update_chunk(enum zinf_optimizer optimizer, enum zinf_dtype gradient_dtype,
                         const struct update *shared, int64_t begin, int64_t end)
{
    const struct update op = *shared;
    int64_t i = begin;
    for (; i + WIDTH <= end; i += WIDTH)
        update_vector(optimizer, gradient_dtype, &op, i, WIDTH);
    if (i < end)
        update_vector(optimizer, gradient_dtype, &op, i, end - i);
}

INLINE void update_chunk_of(enum zinf_optimizer optimizer, const struct update *op, int64_t begin,
                            int64_t end)
{
    FOR_DTYPE(op->gradient_dtype, update_chunk(optimizer, constant_dtype, op, begin, end));
}

static void update_task(void *context, int64_t task)
{
    const struct update *op = context;
    int64_t begin = task * CHUNK, end = least(begin + CHUNK, op->count);
    switch (op->optimizer) {
    case ZINF_ADAM:
        update_chunk_of(ZINF_ADAM, op, begin, end);
        break;
    case ZINF_ADAGRAD:
        update_chunk_of(ZINF_ADAGRAD, op, begin, end);
        break;
    case ZINF_LION:
        update_chunk_of(ZINF_LION, op, begin, end);
        break;
    case ZINF_SGD:
        update_chunk_of(ZINF_SGD, op, begin, end);
        break;
    }
}

void KERNEL(update)(const struct zinf_update_op *op)
{
    const struct zinf_update *options = &op->options;
    bool stateless = options->optimizer == ZINF_SGD && options->momentum == 0.0;
    struct update update = {.optimizer = options->optimizer,
                            .count = op->count,
                            .weights = op->weights,
                            .state0 = stateless ? NULL : op->state[0],
                            .state1 = options->optimizer == ZINF_ADAM ? op->state[1] : NULL,
                            .gradient = op->gradient,
                            .gradient_dtype = op->gradient_dtype,
                            .low_dtype = op->low_dtype,
                            .low = op->low,
                            .low_only = op->low_only,
                            .coefficients = zinf_coefficients_of(options)};
    zinf_cpu_for(chunks(op->count, CHUNK), update_task, &update);
}
