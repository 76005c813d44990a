/*
 * Updates of fp32 weights by Adam, Adagrad, Lion and SGD: one fused pass over weights, state and
 * gradient. Formulas and sources: docs/optimizers.md. What depends on the step only is computed in
 * double, once a call. Each multiply-add is spelled out: builds and devices (cuda/update.h) agree
 * to the bit.
 */
#include "cpu/kernels.h"
#include "cpu/vec.h"

/* Coefficients of one call, rounded to fp32 once. */
struct update {
    const struct zinf_update *options;
    int64_t count;
    float *weights, *state0, *state1;
    const void *gradient;
    enum zinf_dtype gradient_dtype, low_dtype;
    void *low;
    float beta1, one_minus_beta1, beta2, one_minus_beta2;
    float step_size;   /* lr / (1 - beta1^t) */
    float root_factor; /* 1 / sqrt(1 - beta2^t) */
    float epsilon;
    float l2;     /* weight decay that is added to the gradient */
    float shrink; /* lr * weight decay, decoupled */
    float learning_rate, momentum, one_minus_dampening;
    float gradient_scale;
    bool first_step, nesterov;
};

/** m, v: first and second moment. decay is in g (l2) or taken off w (shrink); one of them is 0. */
INLINE vfloat adam(const struct update *op, vfloat w, vfloat g, vfloat *m, vfloat *v)
{
    g = fused(all(op->l2), w, g);
    *m = fused(all(op->beta1), *m, op->one_minus_beta1 * g);
    *v = fused(all(op->beta2), *v, op->one_minus_beta2 * (g * g));
    vfloat denominator = fused(vsqrt(*v), all(op->root_factor), all(op->epsilon));
    w = fused(all(-op->shrink), w, w);
    return fused(all(-op->step_size), *m / denominator, w);
}

INLINE vfloat adagrad(const struct update *op, vfloat w, vfloat g, vfloat *sum)
{
    g = fused(all(op->l2), w, g);
    *sum = fused(g, g, *sum);
    return fused(all(-op->learning_rate), g / (vsqrt(*sum) + op->epsilon), w);
}

/** The sign of a blend of moment and gradient, each weight moving by the whole learning rate. */
INLINE vfloat lion(const struct update *op, vfloat w, vfloat g, vfloat *m)
{
    vfloat c = fused(all(op->beta1), *m, op->one_minus_beta1 * g);
    vfloat rate = all(op->learning_rate);
    vfloat move = choose(c > 0.0f, rate, choose(c < 0.0f, -rate, c - c)); /* c - c: 0, or NaN */
    *m = fused(all(op->beta2), *m, op->one_minus_beta2 * g);
    return fused(all(-op->shrink), w, w) - move;
}

INLINE vfloat sgd(const struct update *op, vfloat w, vfloat g, vfloat *buffer)
{
    vfloat rate = all(-op->learning_rate), momentum = all(op->momentum);
    g = fused(all(op->l2), w, g);
    if (op->momentum == 0.0f)
        return fused(rate, g, w);
    *buffer = op->first_step ? g : fused(momentum, *buffer, op->one_minus_dampening * g);
    return fused(rate, op->nesterov ? fused(momentum, *buffer, g) : *buffer, w);
}

/** WIDTH elements from i on, of which `left` are there. */
INLINE void update_vector(enum zinf_optimizer optimizer, enum zinf_dtype gradient_dtype,
                          const struct update *op, int64_t i, int64_t left)
{
    vfloat w = load(ZINF_FP32, op->weights, i, left), m = {0}, v = {0};
    vfloat g = load(gradient_dtype, op->gradient, i, left) * op->gradient_scale;
    if (op->state0)
        m = load(ZINF_FP32, op->state0, i, left);
    if (optimizer == ZINF_ADAM)
        v = load(ZINF_FP32, op->state1, i, left);
    if (optimizer == ZINF_ADAM)
        w = adam(op, w, g, &m, &v);
    else if (optimizer == ZINF_ADAGRAD)
        w = adagrad(op, w, g, &m);
    else if (optimizer == ZINF_LION)
        w = lion(op, w, g, &m);
    else
        w = sgd(op, w, g, &m);
    store(ZINF_FP32, op->weights, i, left, w);
    if (op->state0)
        store(ZINF_FP32, op->state0, i, left, m);
    if (optimizer == ZINF_ADAM)
        store(ZINF_FP32, op->state1, i, left, v);
    if (op->low)
        store(op->low_dtype, op->low, i, left, w);
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
    switch (op->options->optimizer) {
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

static void set_coefficients(struct update *op, const struct zinf_update *options)
{
    bool decoupled = options->optimizer == ZINF_LION ||
                     (options->optimizer == ZINF_ADAM && options->decoupled_decay);
    double correction1 = 1.0, correction2 = 1.0;
    if (options->bias_correction) {
        correction1 = 1.0 - pow(options->beta1, (double)options->step);
        correction2 = 1.0 - pow(options->beta2, (double)options->step);
    }
    /* 1 - beta before rounding: 1 - (float)0.999 is 1.3e-5 relative off, and v is made of it */
    op->beta1 = (float)options->beta1;
    op->one_minus_beta1 = (float)(1.0 - options->beta1);
    op->beta2 = (float)options->beta2;
    op->one_minus_beta2 = (float)(1.0 - options->beta2);
    op->step_size = (float)(options->learning_rate / correction1);
    op->root_factor = (float)(1.0 / sqrt(correction2));
    op->epsilon = (float)options->epsilon;
    op->l2 = decoupled ? 0.0f : (float)options->weight_decay;
    op->shrink = decoupled ? (float)(options->learning_rate * options->weight_decay) : 0.0f;
    op->learning_rate = (float)options->learning_rate;
    op->momentum = (float)options->momentum;
    op->one_minus_dampening = (float)(1.0 - options->dampening);
    op->gradient_scale = options->gradient_scale;
    op->first_step = options->step == 1;
    op->nesterov = options->nesterov;
}

void KERNEL(update)(const struct zinf_update_op *op)
{
    const struct zinf_update *options = &op->options;
    bool stateless = options->optimizer == ZINF_SGD && options->momentum == 0.0;
    struct update update = {.options = options,
                            .count = op->count,
                            .weights = op->weights,
                            .state0 = stateless ? NULL : op->state[0],
                            .state1 = options->optimizer == ZINF_ADAM ? op->state[1] : NULL,
                            .gradient = op->gradient,
                            .gradient_dtype = op->gradient_dtype,
                            .low_dtype = op->low_dtype,
                            .low = op->low};
    set_coefficients(&update, options);
    zinf_cpu_for(chunks(op->count, CHUNK), update_task, &update);
}
