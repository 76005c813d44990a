/*
 * The operations of a transformer's forward and backward pass and of the optimizer: the table every backend fills.
 *
 * Conventions. Matrices are row-major. T = tokens = B * S rows. "dtype" is that of activations, weights and their gradients; statistics
 * (mean, rstd, log-sum-exp, losses) are fp32, sums are taken in fp32 or better and rounded once at the end. Every sum has a fixed
 * order that depends on shapes only: results do not change from run to run, nor with the number of threads. Pointers are
 * device memory, aligned to at least 4 bytes. Outputs do not overlap inputs unless said. Operations do not fail: what can fail is asserted
 * (shape) or ends the run (a library's error). They run in order on the caller's stream and do not wait for it.
 *
 * Every entry takes one struct, which says what to do in which shape, and then what it reads and what it writes, in this order. The struct
 * is read before the call returns: a caller may copy it to call later, or change it for the next call.
 *
 * Source of formulas: PyTorch 2.9's definitions of the layers of the same name; backward formulas are their derivatives.
 */
#ifndef ZINF_DEVICE_OPS_H
#define ZINF_DEVICE_OPS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/rng.h"

#ifdef __cplusplus
extern "C" {
#endif

enum zinf_activation { ZINF_GELU_TANH, ZINF_GELU_ERF, ZINF_RELU, ZINF_SILU };

/**
 * c (m, n) = [c +] op(a) (m, k) . op(b) (k, n) [+ bias (n)]. lda, ldb, ldc: elements from row to row as stored.
 *
 * What may follow it element by element, on c (m, n) without gaps between rows in dtype: activated = f(c), c is kept; or c = f'(slope_of) * c.
 * As the table's own operation would do it, on c as it is rounded; but a backend may choose, once for all calls of a shape, a product that goes on
 * with its sums before they are rounded. c, activated and slope_of do not overlap.
 */
struct zinf_matmul {
    enum zinf_dtype dtype;   /* of a, b, bias */
    enum zinf_dtype c_dtype; /* dtype, or fp32 */
    int64_t m, n, k;
    const void *a;
    int64_t lda;
    bool transpose_a; /* a is stored (k, m) */
    const void *b;
    int64_t ldb;
    bool transpose_b; /* b is stored (n, k) */
    void *c;
    int64_t ldc;
    const void *bias; /* NULL = none */
    bool accumulate;  /* c += */
    enum zinf_activation activation; /* f */
    void *activated;                 /* (m, n) in c_dtype; NULL = none */
    const void *slope_of;            /* (m, n) in c_dtype; NULL = none */
};

/** Sums of columns: the gradient of a bias. */
struct zinf_column_sum {
    enum zinf_dtype dtype;
    int64_t rows, columns; /* of dy; no rows: zeros are written */
};

/** An activation function of x (T, F), or of the first half of each row of x (T, 2 F): gate, then up (gated units). */
struct zinf_activate {
    enum zinf_activation kind;
    enum zinf_dtype dtype;
    int64_t rows, features; /* T, F */
    const void *x;          /* as it was before the function, backward too */
};

/** Dropout of x (B, per_sample), e.g. (4, 1024 * 768), then an addition: two operations in PyTorch, so the first is rounded too. */
struct zinf_dropout_add {
    enum zinf_dtype dtype;
    int64_t batch, per_sample;
    struct zinf_dropout dropout;
};

/** Rows first_row .. first_row + row_count - 1 (the tile, (row_count, C)) of the table of tokens or of learned positions; x is (B, S, C). */
struct zinf_embedding {
    enum zinf_dtype dtype;
    int64_t batch, sequence, columns;
    int64_t first_row, row_count;
    const int32_t *ids; /* (B, S); not read where rows are positions */
};

/** Layer or RMS normalisation of rows (T, C): bias and mean NULL = RMS norm (y = x * rstd * weight). */
struct zinf_norm {
    enum zinf_dtype dtype;
    int64_t rows, columns;
    double epsilon;
    const void *x, *weight, *bias; /* (T, C), (C), (C) or NULL */
    float *mean, *rstd;            /* (T) each; written forward, read backward; mean NULL for RMS norm */
};

/**
 * Causal self-attention with grouped queries. qkv (T, (heads + 2 * kv_heads) * head_size): per token all q heads, then all k heads,
 * then all v heads (of `row` elements from token to token). head h uses k, v head h / (heads / kv_heads). scores are scaled by `scale`.
 * Never holds S x S for all heads: works in tiles of one head with an online softmax (Milakov and Gimelshein 2018; FlashAttention-2,
 * arXiv:2307.08691). Softmax in fp32. Dropout falls on the probabilities after softmax, element = (head * S + query) * S + key.
 *
 * Samples of different lengths, packed behind each other without padding: `boundaries`. Sample b is the tokens boundaries[b] ..
 * boundaries[b + 1] - 1, which attend to each other only; each has at most `sequence`, or none, e.g. 0, 5, 5, 12 with sequence 7. They ascend
 * from 0 to `tokens`: every token belongs to one sample (padding: to one that nobody looks at). S is then the sample's own length, in
 * dropout's elements too: a sample's results are those that it has alone, as sample dropout.sample + b, to the bit, whatever the others hold (NaN
 * too). The CPU asserts boundaries as said; a device reads them when the operation runs and does not look: its host may
 * issue the same operation again for other samples (a graph), as long as batch, sequence and tokens hold. On a device batch * heads <= 65535.
 */
struct zinf_attention {
    enum zinf_dtype dtype;
    int64_t batch, sequence, heads, kv_heads, head_size; /* head_size <= 256 */
    double scale;
    const void *qkv;
    float *log_sum_exp;          /* (B, heads, S), with boundaries (heads, T); written forward, read backward */
    const void *output;          /* (T, heads * head_size): backward only */
    struct zinf_dropout dropout;
    const int32_t *boundaries;   /* (B + 1); NULL = every sample has `sequence` tokens */
    int64_t tokens;              /* T; read with boundaries only */
};

/** Rotary embedding, half-split pairs (x[i], x[i + D/2]), on the first `heads` heads of `head_size` in each row. */
struct zinf_rope {
    enum zinf_dtype dtype;
    int64_t batch, sequence, heads, head_size, row; /* row: elements from token to token */
    const float *cosine, *sine;                     /* (S, head_size / 2) */
    bool backward;                                  /* rotate by the negative angle */
};

/**
 * One tile of the loss: logits (rows, columns) of vocabulary entries first_column .. first_column + columns - 1. Forward keeps a running
 * maximum and sum of exponentials per row; after all tiles the loss of a row is log(sum) + maximum - target_logit.
 */
struct zinf_loss_tile {
    enum zinf_dtype dtype; /* of logits */
    int64_t rows, columns, first_column;
    int64_t row; /* elements from row to row, at least `columns`; what is between is neither read nor written */
    const int32_t *targets;            /* (rows); -100 = not counted */
    float *maximum, *sum, *target_logit; /* (rows) each; start: -inf, 0, 0 */
    float scale;                         /* of the gradient: backward only */
};

enum zinf_optimizer { ZINF_ADAM, ZINF_ADAGRAD, ZINF_LION, ZINF_SGD };

/** Options of one update, equal for all elements of a run. Formulas: docs/optimizers.md. */
struct zinf_update {
    enum zinf_optimizer optimizer;
    double learning_rate, beta1, beta2, epsilon, weight_decay, momentum, dampening;
    bool decoupled_decay; /* AdamW */
    bool bias_correction;
    bool nesterov;
    int64_t step;         /* t, from 1: updates applied to this state, this one included */
    float gradient_scale; /* multiplied into each gradient first: 1 / loss scale / clip coefficient */
};

/** One run of elements and the update it gets. */
struct zinf_update_op {
    struct zinf_update options;
    int64_t count;
    float *weights;
    float *state[2]; /* as the optimizer needs: Adam exp_avg, exp_avg_sq; Adagrad sum; Lion exp_avg; SGD momentum_buffer */
    const void *gradient;
    enum zinf_dtype gradient_dtype;
    enum zinf_dtype low_dtype;
    void *low; /* the copy of the new weights, rounded to low_dtype; NULL = none */
    bool low_only;        /* weights and state stay as they are: what the update would make of the weights goes to `low` alone */
};

/** Elements of one type rounded to another; from and to (count). */
struct zinf_cast {
    enum zinf_dtype from_dtype, to_dtype;
    int64_t count;
};

/** to (count) = to + from, summed in fp32 and rounded once; first: to = from. */
struct zinf_accumulate {
    enum zinf_dtype from_dtype, to_dtype;
    int64_t count;
    bool first;
};

/**
 * The sum of a reduce-scatter: parts (ranks, count), added in fp32 in the order of ranks, times `scale`, rounded once to to_dtype, then
 * added to `to` (count) as zinf_accumulate says.
 */
struct zinf_reduce {
    enum zinf_dtype from_dtype, to_dtype;
    int ranks;
    int64_t count;
    float scale;
    bool first;
};

/** x (count) *= factor. */
struct zinf_scale {
    enum zinf_dtype dtype;
    int64_t count;
    float factor;
};

/** What is looked for in x (count). */
struct zinf_scan {
    enum zinf_dtype dtype;
    int64_t count;
};

struct zinf_ops {
    const char *name; /* e.g. "cpu avx512" */

    void (*matmul)(const struct zinf_matmul *op);

    /** dbias (C) = sum over rows of dy (T, C). */
    void (*bias_backward)(const struct zinf_column_sum *op, const void *dy, void *dbias);

    void (*norm_forward)(const struct zinf_norm *op, void *y);
    /** dx (T, C) = gradient + residual (T, C; NULL = none, may be dx itself); dweight, dbias (C) written. */
    void (*norm_backward)(const struct zinf_norm *op, const void *dy, const void *residual, void *dx,
                          void *dweight, void *dbias);

    /** y (T, heads * head_size) */
    void (*attention_forward)(const struct zinf_attention *op, void *y);
    /** dqkv as qkv, all of it written; dy as y. */
    void (*attention_backward)(const struct zinf_attention *op, const void *dy, void *dqkv);

    void (*rope)(const struct zinf_rope *op, void *x); /* in place */

    /** y = f(x); dx = f'(x) * dy, dx may be dy. All (T, F). */
    void (*activation_forward)(const struct zinf_activate *op, void *y);
    void (*activation_backward)(const struct zinf_activate *op, const void *dy, void *dx);
    /** y (T, F) = f(gate) * up; dx (T, 2 F) as op->x. f is rounded to dtype before the product, as PyTorch does. */
    void (*gated_forward)(const struct zinf_activate *op, void *y);
    void (*gated_backward)(const struct zinf_activate *op, const void *dy, void *dx);

    /** y (B, per_sample) = residual (NULL = none) + dropout(x); y may be x or residual. */
    void (*dropout_add)(const struct zinf_dropout_add *op, const void *x, const void *residual, void *y);

    /** The rows of x whose id lies in the tile are written from it; others stay. */
    void (*embedding_forward)(const struct zinf_embedding *op, const void *tile, void *x);
    /** dtile (row_count, C) is written: row r = sum over tokens with that id, in token order (fp32), of dx. */
    void (*embedding_backward)(const struct zinf_embedding *op, const void *dx, void *dtile);
    /** Learned positions: row s of every sample of x += row s of the table, where it lies in the tile. */
    void (*position_forward)(const struct zinf_embedding *op, const void *tile, void *x);
    /** dtile (row_count, C) is written: row s = sum over samples, in their order (fp32), of dx; behind the sequence 0. */
    void (*position_backward)(const struct zinf_embedding *op, const void *dx, void *dtile);

    void (*loss_tile_forward)(const struct zinf_loss_tile *op, const void *logits);
    /** logits become their gradient: (softmax - one_hot) * scale; rows not counted become 0. */
    void (*loss_tile_backward)(const struct zinf_loss_tile *op, void *logits);

    void (*cast)(const struct zinf_cast *op, const void *from, void *to);
    void (*accumulate)(const struct zinf_accumulate *op, const void *from, void *to);
    void (*reduce)(const struct zinf_reduce *op, const void *parts, void *to);
    void (*scale)(const struct zinf_scale *op, void *x); /* in place */
    /** Sum of squares in double; inf or nan when an element is not finite. */
    double (*square_sum)(const struct zinf_scan *op, const void *x);
    /** Index of the first element that is not finite, or -1. */
    int64_t (*first_nonfinite)(const struct zinf_scan *op, const void *x);

    void (*update)(const struct zinf_update_op *op);
};

/** X(name) for every operation of the table, in its order: for tables whose functions are named alike. */
#define ZINF_OPERATIONS(X) \
    X(matmul) X(bias_backward) X(norm_forward) X(norm_backward) X(attention_forward) X(attention_backward) X(rope) \
    X(activation_forward) X(activation_backward) X(gated_forward) X(gated_backward) X(dropout_add) \
    X(embedding_forward) X(embedding_backward) X(position_forward) X(position_backward) X(loss_tile_forward) X(loss_tile_backward) \
    X(cast) X(accumulate) X(reduce) X(scale) X(square_sum) X(first_nonfinite) X(update)

/** Zeros to `count` elements of `dtype`, whatever stood there (inf too): a sum over no rows, no operation of its own. */
static inline void zinf_ops_zero(const struct zinf_ops *ops, enum zinf_dtype dtype, void *to,
                                 int64_t count)
{
    const struct zinf_column_sum none = {dtype, 0, count};
    ops->bias_backward(&none, to, to);
}

/** What follows a product (zinf_matmul), by the operations of `ops`: for backends that have made the product alone. */
static inline void zinf_ops_follow(const struct zinf_ops *ops, const struct zinf_matmul *op)
{
    const struct zinf_activate after = {op->activation, op->c_dtype, op->m, op->n,
                                        op->slope_of ? op->slope_of : op->c};
    if (op->activated)
        ops->activation_forward(&after, op->activated);
    if (op->slope_of)
        ops->activation_backward(&after, op->c, op->c);
}

/** The CPU backend for this machine: the widest instruction set it has, unless ZINF_ISA (avx512, avx2, plain) names a narrower one. */
const struct zinf_ops *zinf_cpu_ops(void);
/** All instruction sets this machine can run, for conformance tests; NULL behind the last. */
const struct zinf_ops *const *zinf_cpu_ops_all(void);

/** Threads of this rank for operations (oneDNN's and our own); 1 <= count. */
void zinf_cpu_set_threads(int count);
/** Operations that the calling thread begins run on it alone from now on. */
void zinf_cpu_thread_alone(void);

#ifdef __cplusplus
}
#endif
#endif
