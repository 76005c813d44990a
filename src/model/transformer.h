/*
 * The mathematics of a model on given weights: embedding, one layer forward and backward, final norm, head with loss. Knows neither
 * ranks nor tiers: whoever calls has made the block's weights readable and gives memory for the results.
 *
 * All functions: Local. They do not fail. Shapes: B micro-batch, S sequence, T = B * S, C hidden; dtype is pass->dtype.
 */
#ifndef ZINF_MODEL_TRANSFORMER_H
#define ZINF_MODEL_TRANSFORMER_H

#include <stddef.h>
#include <stdint.h>

#include "device/ops.h"
#include "model/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/** What is the same for all layers of one forward and backward pass over a micro-batch. */
struct zinf_pass {
    const struct zinf_model *model;
    const struct zinf_ops *ops;
    enum zinf_dtype dtype;
    int64_t batch, sequence;
    const int32_t *inputs, *targets; /* (B, S) token ids; targets -100 = not counted */
    const float *cosine, *sine;      /* (S, head_size / 2), see zinf_rope_table(); NULL without rotary */
    struct zinf_rng_key dropout_key; /* of the run */
    uint32_t step;                   /* counted from 0 */
    uint32_t first_sample;           /* number of this micro-batch's first sample in its global batch */
    const uint32_t *counters;        /* NULL, or the two above in memory of the device, where operations read them: their arguments stay the same */
    bool training;                   /* false: no dropout */
    void *scratch;                   /* zinf_scratch_bytes(); contents need not survive between calls */
};

/** cosine and sine tables for positions 0 .. sequence - 1, fp32, (sequence, head_size / 2) each. */
void zinf_rope_table(const struct zinf_model *model, int64_t sequence, float *cosine, float *sine);

/** Bytes of scratch that any of the functions below needs at most. */
size_t zinf_scratch_bytes(const struct zinf_model *model, enum zinf_dtype dtype, int64_t batch,
                          int64_t sequence);
/** Bytes that a layer's forward pass keeps for its backward pass besides its input x. Multiple of 64. */
size_t zinf_layer_saved_bytes(const struct zinf_model *model, enum zinf_dtype dtype, int64_t batch,
                              int64_t sequence);

/** One tile of the embedding or position table: x (T, C), complete after the last tile of both; call in block order. */
void zinf_embedding_forward(const struct zinf_pass *pass, const struct zinf_block *block,
                            const void *weights, void *x);
/** After the last tile: dropout on x in place (forward) or dx in place (backward, before the first tile). */
void zinf_embedding_dropout(const struct zinf_pass *pass, void *x);
void zinf_embedding_backward(const struct zinf_pass *pass, const struct zinf_block *block,
                             const void *dx, void *dweights);

/**
 * One layer. weights: the layer block, flat. x, y (T, C), not the same memory.
 * @param saved  zinf_layer_saved_bytes(); filled for the backward pass
 */
void zinf_layer_forward(const struct zinf_pass *pass, int layer, const void *weights, const void *x,
                        void *y, void *saved);

/** Gradients that a backward pass takes and gives, in the pass's dtype. */
struct zinf_gradients {
    const void *dy; /* (T, C), e.g. 1024, 768: of the result */
    void *dx;       /* (T, C), out: of the input */
    void *dweights; /* out: of the whole block, gaps zero */
};
/**
 * One layer. `gradients`: dx takes the place of dy, both are the same memory (asserted).
 * Recomputation: call zinf_layer_forward() again with the same x first (its y may go to any buffer); the bits are the same.
 */
void zinf_layer_backward(const struct zinf_pass *pass, int layer, const void *weights, const void *x,
                         const void *saved, const struct zinf_gradients *gradients);

/** Final norm: y (T, C); statistics (2, T) fp32 kept for the backward pass. */
void zinf_final_norm_forward(const struct zinf_pass *pass, const void *weights, const void *x, void *y,
                             float *statistics);
void zinf_final_norm_backward(const struct zinf_pass *pass, const void *weights, const void *x,
                              const float *statistics, const struct zinf_gradients *gradients);

/** Loss state of a micro-batch: three fp32 of (T), memory of 3 * T floats is the caller's. */
struct zinf_loss {
    float *maximum, *sum, *target_logit;
    void *logits; /* zinf_head_logits_bytes() for the backward pass, which then spares a product; NULL: it makes them again */
};
/** What the head's logits of T tokens take, all tiles. */
size_t zinf_head_logits_bytes(const struct zinf_model *model, enum zinf_dtype dtype, int64_t tokens);
/** -inf, 0, 0: before the first tile. */
void zinf_loss_begin(const struct zinf_pass *pass, struct zinf_loss *loss);
/** One tile of the head: logits of its rows for all tokens (made in scratch, or where they are kept, a strip of rows at a time) go into `loss`. y (T, C): final norm's output. */
void zinf_head_forward(const struct zinf_pass *pass, const struct zinf_block *block,
                       const void *weights, const void *y, struct zinf_loss *loss);
/** After the last tile: sum over counted tokens of the cross entropy, in double; *counted = how many. */
double zinf_loss_end(const struct zinf_pass *pass, const struct zinf_loss *loss, int64_t *counted);
/** Gradients of the head, one tile after the other. */
struct zinf_head_gradients {
    float scale;    /* of (softmax - one_hot): 1 / global count, times the loss scale */
    bool first;     /* tile: dy = its part; else += */
    float *dy;      /* (T, C) fp32: of the final norm's output, the sum over the tiles */
    void *dweights; /* (row_count, C), out: of this tile */
};
/** Backward of one tile; logits that were not kept are made again in scratch. */
void zinf_head_backward(const struct zinf_pass *pass, const struct zinf_block *block,
                        const void *weights, const void *y, const struct zinf_loss *loss,
                        const struct zinf_head_gradients *gradients);
/** dy fp32 (T, C), summed over tiles -> dtype (one rounding). */
void zinf_head_backward_end(const struct zinf_pass *pass, const float *dy, void *dy_out);

#ifdef __cplusplus
}
#endif
#endif
