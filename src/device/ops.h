/*
 * The operations of a transformer's forward and backward pass and of the optimizer: the table every backend fills.
 *
 * Conventions. Matrices are row-major. T = tokens = B * S rows. "dtype" is that of activations, weights and their gradients; statistics
 * (mean, rstd, log-sum-exp, losses) are fp32, sums are taken in fp32 or better and rounded once at the end. Every sum has a fixed
 * order that depends on shapes only: results do not change from run to run, nor with the number of threads. Pointers are
 * device memory, aligned to at least 4 bytes. Outputs do not overlap inputs unless said. Operations do not fail: what can fail is asserted
 * (shape) or ends the run (a library's error). They run in order on the caller's stream and do not wait for it.
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

/** c (m, n) = [c +] op(a) (m, k) . op(b) (k, n) [+ bias (n)]. lda, ldb, ldc: elements from row to row as stored. */
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
};

enum zinf_activation { ZINF_GELU_TANH, ZINF_GELU_ERF, ZINF_RELU, ZINF_SILU };

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
 */
struct zinf_attention {
    enum zinf_dtype dtype;
    int64_t batch, sequence, heads, kv_heads, head_size; /* head_size <= 256 */
    double scale;
    const void *qkv;
    float *log_sum_exp;          /* (B, heads, S) written forward, read backward */
    const void *output;          /* (T, heads * head_size): backward only */
    struct zinf_dropout dropout;
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
    const int32_t *targets;            /* (rows); -100 = not counted */
    float *maximum, *sum, *target_logit; /* (rows) each; start: -inf, 0, 0 */
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

struct zinf_ops {
    const char *name; /* e.g. "cpu avx512" */

    void (*matmul)(const struct zinf_matmul *op);

    /** bias_gradient (C) = sum over rows of dy (T, C). */
    void (*bias_backward)(void *bias_gradient, const void *dy, enum zinf_dtype dtype, int64_t rows,
                          int64_t columns);

    void (*norm_forward)(const struct zinf_norm *op, void *y);
    /** dx (T, C) = gradient + residual (T, C; NULL = none, may be dx itself); dweight, dbias (C) written. */
    void (*norm_backward)(const struct zinf_norm *op, const void *dy, const void *residual, void *dx,
                          void *dweight, void *dbias);

    /** y (T, heads * head_size) */
    void (*attention_forward)(const struct zinf_attention *op, void *y);
    /** dqkv as qkv, all of it written; dy as y. */
    void (*attention_backward)(const struct zinf_attention *op, const void *dy, void *dqkv);

    void (*rope)(const struct zinf_rope *op, void *x); /* in place */

    /** y = f(x), `count` elements; dx = f'(x) * dy, dx may be dy. */
    void (*activation_forward)(enum zinf_activation kind, enum zinf_dtype dtype, int64_t count,
                               const void *x, void *y);
    void (*activation_backward)(enum zinf_activation kind, enum zinf_dtype dtype, int64_t count,
                                const void *x, const void *dy, void *dx);
    /** gate_up (T, 2 F): y (T, F) = f(gate) * up. dgate_up as gate_up. f is rounded to dtype before the product, as PyTorch does. */
    void (*gated_forward)(enum zinf_activation kind, enum zinf_dtype dtype, int64_t rows,
                          int64_t features, const void *gate_up, void *y);
    void (*gated_backward)(enum zinf_activation kind, enum zinf_dtype dtype, int64_t rows,
                           int64_t features, const void *gate_up, const void *dy, void *dgate_up);

    /** y (B, per_sample) = residual (NULL = none) + dropout(x); y may be x or residual. */
    void (*dropout_add)(const struct zinf_dropout *dropout, enum zinf_dtype dtype, int64_t batch,
                        int64_t per_sample, const void *x, const void *residual, void *y);

    /** x (T, C): rows whose id lies in first_row .. first_row + row_count - 1 are written from the tile (row_count, C); others stay. */
    void (*embedding_forward)(enum zinf_dtype dtype, const int32_t *ids, int64_t tokens, int64_t columns,
                              int64_t first_row, int64_t row_count, const void *tile, void *x);
    /** dtile (row_count, C) is written: row r = sum over tokens with that id, in token order (fp32), of dx. */
    void (*embedding_backward)(enum zinf_dtype dtype, const int32_t *ids, int64_t tokens,
                               int64_t columns, int64_t first_row, int64_t row_count, const void *dx,
                               void *dtile);
    /** Learned positions: x (B, S, C) += tile row s for first_row <= s < first_row + row_count. */
    void (*position_forward)(enum zinf_dtype dtype, int64_t batch, int64_t sequence, int64_t columns,
                             int64_t first_row, int64_t row_count, const void *tile, void *x);
    void (*position_backward)(enum zinf_dtype dtype, int64_t batch, int64_t sequence, int64_t columns,
                              int64_t first_row, int64_t row_count, const void *dx, void *dtile);

    void (*loss_tile_forward)(const struct zinf_loss_tile *op, const void *logits);
    /** logits become their gradient: (softmax - one_hot) * scale; rows not counted become 0. */
    void (*loss_tile_backward)(const struct zinf_loss_tile *op, float scale, void *logits);

    void (*cast)(void *to, enum zinf_dtype to_dtype, const void *from, enum zinf_dtype from_dtype,
                 int64_t count);
    /** to = to + from, summed in fp32 and rounded to to_dtype; first: to = from. */
    void (*accumulate)(void *to, enum zinf_dtype to_dtype, const void *from,
                       enum zinf_dtype from_dtype, int64_t count, bool first);
    /**
     * The sum of a reduce-scatter: parts (ranks, count) of `dtype`, added in fp32 in the order of ranks, times `scale`, rounded once to
     * to_dtype, then as accumulate() into `to`.
     */
    void (*reduce)(void *to, enum zinf_dtype to_dtype, const void *parts, enum zinf_dtype dtype,
                   int ranks, int64_t count, float scale, bool first);
    /** x *= scale in place. */
    void (*scale)(void *x, enum zinf_dtype dtype, int64_t count, float scale);
    /** Sum of squares in double; inf or nan when an element is not finite. */
    double (*square_sum)(const void *x, enum zinf_dtype dtype, int64_t count);
    /** Index of the first element that is not finite, or -1. */
    int64_t (*first_nonfinite)(const void *x, enum zinf_dtype dtype, int64_t count);

    /**
     * Update one run of `count` elements. state[0], state[1]: as the optimizer needs (Adam exp_avg, exp_avg_sq; Adagrad sum; Lion exp_avg;
     * SGD momentum_buffer). low (NULL = none): the 16-bit copy of the new weights.
     */
    void (*update)(const struct zinf_update *options, int64_t count, float *weights,
                   float *const state[2], const void *gradient, enum zinf_dtype gradient_dtype,
                   void *low, enum zinf_dtype low_dtype);
};

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
