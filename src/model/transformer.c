/*
 * One layer forward and backward, and the final norm.
 *
 *     n1 = norm1(x)           qkv = n1 Wqkv + b, q and k turned by their positions
 *     att = attention(qkv)    h = x + dropout(att Wout + b)
 *     n2 = norm2(h)           u = n2 Wup + b (gate and up of a gated MLP behind each other)
 *     a = f(u)                y = h + dropout(a Wdown + b)
 *
 * Kept for the backward pass: qkv, att, h, u and the log-sum-exp. n1, n2 (with their statistics)
 * and a are made again from x, h and u: one pass over memory each against a product of the same
 * rows, and the bits are the same. (Not of an a that a backend's product makes itself, from sums it
 * has not rounded: as near as that rounding, and in every mode of activations alike.) Dropout masks
 * are Philox's, never stored.
 */
#include "model/pass.h"

#include "base/status.h"

/* A product of a layer: (T, in) -> (T, out), with the weight's place in the block. */
struct linear {
    int64_t in, out;
    int64_t weight, bias; /* elements; bias -1 = none */
};

struct layer {
    const struct zinf_pass *pass;
    const struct zinf_model *model;
    int number;
    const char *weights;
    int64_t tokens;
    struct linear qkv, out, up, down;
};

/* What the backward pass reads, in `saved`. */
struct saved {
    void *qkv;          /* (T, (H + 2 Hkv) D), rotated */
    void *attended;     /* (T, H D) */
    void *middle;       /* (T, C): h */
    void *up;           /* (T, F), gated (T, 2 F): u */
    float *log_sum_exp; /* (B, H, S) */
};

/* Memory of one call. The MLP's part and the attention's lie over each other: they are never needed
 * at the same time. */
struct scratch {
    void *normed;       /* (T, C) */
    void *masked;       /* (T, C): the gradient behind a dropout; forward: a projection before it */
    float *mean, *rstd; /* (T) */
    void *activated;    /* (T, F) */
    void *dup;          /* as u; non-gated: activated's memory */
    void *dattended;    /* (T, H D) */
    void *dqkv;         /* as qkv */
};

static int64_t qkv_width(const struct zinf_model *model)
{
    return (model->heads + 2 * model->kv_heads) * model->head_size;
}

static int64_t up_width(const struct zinf_model *model)
{
    return model->gated ? 2 * model->features : model->features;
}

static size_t place_saved(struct saved *saved, const struct zinf_model *model,
                          enum zinf_dtype dtype, int64_t batch, int64_t sequence, void *memory)
{
    const int64_t tokens = batch * sequence;
    const size_t bytes = zinf_dtype_bytes(dtype);
    struct zinf_carver carver = {memory, 0};
    saved->qkv = zinf_carve(&carver, tokens * qkv_width(model), bytes);
    saved->attended = zinf_carve(&carver, tokens * model->heads * model->head_size, bytes);
    saved->middle = zinf_carve(&carver, tokens * model->hidden, bytes);
    saved->up = zinf_carve(&carver, tokens * up_width(model), bytes);
    saved->log_sum_exp = zinf_carve(&carver, tokens * model->heads, sizeof(float));
    return carver.used;
}

static size_t place_scratch(struct scratch *scratch, const struct zinf_model *model,
                            enum zinf_dtype dtype, int64_t tokens, void *memory)
{
    const size_t bytes = zinf_dtype_bytes(dtype);
    struct zinf_carver common = {memory, 0};
    scratch->normed = zinf_carve(&common, tokens * model->hidden, bytes);
    scratch->masked = zinf_carve(&common, tokens * model->hidden, bytes);
    scratch->mean = zinf_carve(&common, tokens, sizeof(float));
    scratch->rstd = zinf_carve(&common, tokens, sizeof(float));
    struct zinf_carver mlp = common, attention = common;
    scratch->activated = zinf_carve(&mlp, tokens * model->features, bytes);
    scratch->dup = scratch->activated;
    if (model->gated)
        scratch->dup = zinf_carve(&mlp, tokens * 2 * model->features, bytes);
    scratch->dattended = zinf_carve(&attention, tokens * model->heads * model->head_size, bytes);
    scratch->dqkv = zinf_carve(&attention, tokens * qkv_width(model), bytes);
    return mlp.used > attention.used ? mlp.used : attention.used;
}

size_t zinf_layer_saved_bytes(const struct zinf_model *model, enum zinf_dtype dtype, int64_t batch,
                              int64_t sequence)
{
    struct saved saved;
    return place_saved(&saved, model, dtype, batch, sequence, NULL);
}

size_t zinf_layer_scratch_bytes(const struct zinf_model *model, enum zinf_dtype dtype,
                                int64_t batch, int64_t sequence)
{
    struct scratch scratch;
    return place_scratch(&scratch, model, dtype, batch * sequence, NULL);
}

static struct layer layer_of(const struct zinf_pass *pass, int number, const void *weights)
{
    const struct zinf_model *model = pass->model;
    const struct zinf_layer_offsets *at = &model->layer;
    const int64_t hidden = model->hidden, attended = model->heads * model->head_size;
    ZINF_ASSERT(number >= 0 && number < model->layers);
    ZINF_ASSERT(pass->batch > 0 && pass->sequence > 0 && pass->sequence <= model->positions);
    return (struct layer){
        .pass = pass,
        .model = model,
        .number = number,
        .weights = weights,
        .tokens = zinf_pass_tokens(pass),
        .qkv = {hidden, qkv_width(model), at->qkv_weight, at->qkv_bias},
        .out = {attended, hidden, at->out_weight, at->out_bias},
        .up = {hidden, up_width(model), at->up_weight, at->up_bias},
        .down = {model->features, hidden, at->down_weight, at->down_bias},
    };
}

static const void *weight_at(const struct layer *layer, int64_t offset)
{
    return zinf_pass_at(layer->pass, layer->weights, offset);
}

/* y (T, out) = x (T, in) W + b, and activated = f(y) unless it is NULL */
static void linear_forward(const struct layer *layer, const struct linear *linear, const void *x,
                           void *y, void *activated)
{
    const bool conv1d = layer->model->conv1d;
    const struct zinf_matmul product = {.dtype = layer->pass->dtype,
                                        .c_dtype = layer->pass->dtype,
                                        .m = layer->tokens,
                                        .n = linear->out,
                                        .k = linear->in,
                                        .a = x,
                                        .lda = linear->in,
                                        .b = weight_at(layer, linear->weight),
                                        .ldb = conv1d ? linear->out : linear->in,
                                        .transpose_b = !conv1d,
                                        .c = y,
                                        .ldc = linear->out,
                                        .bias = weight_at(layer, linear->bias),
                                        .activation = layer->model->activation,
                                        .activated = activated};
    layer->pass->ops->matmul(&product);
}

/* dx (T, in) = dy (T, out) W^T, times f'(x) unless `slope_of`, x, is NULL */
static void linear_backward_input(const struct layer *layer, const struct linear *linear,
                                  const void *dy, const void *slope_of, void *dx)
{
    const bool conv1d = layer->model->conv1d;
    const struct zinf_matmul product = {.dtype = layer->pass->dtype,
                                        .c_dtype = layer->pass->dtype,
                                        .m = layer->tokens,
                                        .n = linear->in,
                                        .k = linear->out,
                                        .a = dy,
                                        .lda = linear->out,
                                        .b = weight_at(layer, linear->weight),
                                        .ldb = conv1d ? linear->out : linear->in,
                                        .transpose_b = conv1d,
                                        .c = dx,
                                        .ldc = linear->in,
                                        .activation = layer->model->activation,
                                        .slope_of = slope_of};
    layer->pass->ops->matmul(&product);
}

/* dW = x^T dy as (in, out), or dy^T x as (out, in); db = sum of dy */
static void linear_backward_weight(const struct layer *layer, const struct linear *linear,
                                   const void *x, const void *dy, void *dweights)
{
    const struct zinf_pass *pass = layer->pass;
    const bool conv1d = layer->model->conv1d;
    const struct zinf_matmul product = {.dtype = pass->dtype,
                                        .c_dtype = pass->dtype,
                                        .m = conv1d ? linear->in : linear->out,
                                        .n = conv1d ? linear->out : linear->in,
                                        .k = layer->tokens,
                                        .a = conv1d ? x : dy,
                                        .lda = conv1d ? linear->in : linear->out,
                                        .transpose_a = true,
                                        .b = conv1d ? dy : x,
                                        .ldb = conv1d ? linear->out : linear->in,
                                        .c = zinf_pass_to(pass, dweights, linear->weight),
                                        .ldc = conv1d ? linear->out : linear->in};
    pass->ops->matmul(&product);
    const struct zinf_column_sum bias = {pass->dtype, layer->tokens, linear->out};
    if (linear->bias >= 0)
        pass->ops->bias_backward(&bias, dy, zinf_pass_to(pass, dweights, linear->bias));
}

static struct zinf_norm norm_of(const struct zinf_pass *pass, const void *x, const void *weight,
                                const void *bias, float *mean, float *rstd)
{
    return (struct zinf_norm){.dtype = pass->dtype,
                              .rows = zinf_pass_tokens(pass),
                              .columns = pass->model->hidden,
                              .epsilon = pass->model->norm_epsilon,
                              .x = x,
                              .weight = weight,
                              .bias = bias,
                              .mean = pass->model->rms_norm ? NULL : mean,
                              .rstd = rstd};
}

static struct zinf_attention attention_of(const struct layer *layer, const struct saved *saved)
{
    const struct zinf_model *model = layer->model;
    const double divisor = model->attention_scale_by_layer ? layer->number + 1 : 1;
    return (struct zinf_attention){.dtype = layer->pass->dtype,
                                   .batch = layer->pass->batch,
                                   .sequence = layer->pass->sequence,
                                   .heads = model->heads,
                                   .kv_heads = model->kv_heads,
                                   .head_size = model->head_size,
                                   .scale = model->attention_scale_base / divisor,
                                   .qkv = saved->qkv,
                                   .log_sum_exp = saved->log_sum_exp,
                                   .output = saved->attended,
                                   .dropout = zinf_pass_dropout(layer->pass, layer->number,
                                                                ZINF_DROPOUT_ATTENTION,
                                                                model->attention_dropout)};
}

/* q and k heads stand first in a row of qkv: one call turns both. */
static void rotate(const struct layer *layer, void *qkv, bool backward)
{
    const struct zinf_model *model = layer->model;
    if (!model->rotary)
        return;
    const struct zinf_rope rope = {.dtype = layer->pass->dtype,
                                   .batch = layer->pass->batch,
                                   .sequence = layer->pass->sequence,
                                   .heads = model->heads + model->kv_heads,
                                   .head_size = model->head_size,
                                   .row = qkv_width(model),
                                   .cosine = layer->pass->cosine,
                                   .sine = layer->pass->sine,
                                   .backward = backward};
    layer->pass->ops->rope(&rope, qkv);
}

/* y = residual + dropout(x) */
static void add_residual(const struct layer *layer, enum zinf_dropout_kind kind, const void *x,
                         const void *residual, void *y)
{
    const struct zinf_pass *pass = layer->pass;
    const struct zinf_dropout_add add =
        zinf_pass_dropout_add(pass, layer->number, kind, layer->model->residual_dropout);
    pass->ops->dropout_add(&add, x, residual, y);
}

/* The gradient behind a dropout: dy itself when there is none. */
static const void *mask_gradient(const struct layer *layer, enum zinf_dropout_kind kind,
                                 const void *dy, void *masked)
{
    if (!layer->pass->training || layer->model->residual_dropout == 0)
        return dy;
    add_residual(layer, kind, dy, NULL, masked);
    return masked;
}

static struct zinf_activate activate_of(const struct layer *layer, const void *up)
{
    return (struct zinf_activate){.kind = layer->model->activation,
                                  .dtype = layer->pass->dtype,
                                  .rows = layer->tokens,
                                  .features = layer->model->features,
                                  .x = up};
}

static void activate(const struct layer *layer, const void *up, void *activated)
{
    const struct zinf_activate op = activate_of(layer, up);
    if (layer->model->gated)
        layer->pass->ops->gated_forward(&op, activated);
    else
        layer->pass->ops->activation_forward(&op, activated);
}

/* u and a = f(u): one operation of the table, or two where two halves of u make one a. */
static void up_forward(const struct layer *layer, const void *normed, void *up, void *activated)
{
    const bool gated = layer->model->gated;
    linear_forward(layer, &layer->up, normed, up, gated ? NULL : activated);
    if (gated)
        activate(layer, up, activated);
}

/* du from dy; `activated`: where da stands meanwhile, du's own place unless gated. */
static void down_backward(const struct layer *layer, const void *dy, const void *up,
                          void *activated, void *dup)
{
    const struct zinf_activate op = activate_of(layer, up);
    const bool gated = layer->model->gated;
    linear_backward_input(layer, &layer->down, dy, gated ? NULL : up, activated);
    if (gated)
        layer->pass->ops->gated_backward(&op, activated, dup);
}

void zinf_layer_forward(const struct zinf_pass *pass, int number, const void *weights,
                        const void *x, void *y, void *saved_memory)
{
    const struct layer layer = layer_of(pass, number, weights);
    const struct zinf_layer_offsets *at = &pass->model->layer;
    struct saved saved;
    struct scratch scratch;
    place_saved(&saved, pass->model, pass->dtype, pass->batch, pass->sequence, saved_memory);
    place_scratch(&scratch, pass->model, pass->dtype, layer.tokens, pass->scratch);

    const struct zinf_norm norm1 =
        norm_of(pass, x, weight_at(&layer, at->norm1_weight), weight_at(&layer, at->norm1_bias),
                scratch.mean, scratch.rstd);
    pass->ops->norm_forward(&norm1, scratch.normed);
    linear_forward(&layer, &layer.qkv, scratch.normed, saved.qkv, NULL);
    rotate(&layer, saved.qkv, false);
    const struct zinf_attention attention = attention_of(&layer, &saved);
    pass->ops->attention_forward(&attention, saved.attended);
    linear_forward(&layer, &layer.out, saved.attended, scratch.masked, NULL);
    add_residual(&layer, ZINF_DROPOUT_AFTER_ATTENTION, scratch.masked, x, saved.middle);

    const struct zinf_norm norm2 =
        norm_of(pass, saved.middle, weight_at(&layer, at->norm2_weight),
                weight_at(&layer, at->norm2_bias), scratch.mean, scratch.rstd);
    pass->ops->norm_forward(&norm2, scratch.normed);
    up_forward(&layer, scratch.normed, saved.up, scratch.activated);
    linear_forward(&layer, &layer.down, scratch.activated, y, NULL);
    add_residual(&layer, ZINF_DROPOUT_AFTER_MLP, y, saved.middle, y);
}

static void zero_gaps(const struct zinf_pass *pass, void *dweights)
{
    const struct zinf_block *block = &pass->model->blocks[pass->model->first_layer_block];
    int64_t end = 0;
    for (int i = 0; i < block->piece_count; i++) {
        const struct zinf_piece *piece = &block->pieces[i];
        if (piece->block_offset > end)
            zinf_pass_zero(pass, zinf_pass_to(pass, dweights, end), piece->block_offset - end);
        end = piece->block_offset + piece->count;
    }
}

/* dx: in the gradient of y, out that of h. */
static void mlp_backward(const struct layer *layer, const struct saved *saved,
                         const struct scratch *scratch, void *dx, void *dweights)
{
    const struct zinf_pass *pass = layer->pass;
    const struct zinf_layer_offsets *at = &layer->model->layer;
    const void *dy = mask_gradient(layer, ZINF_DROPOUT_AFTER_MLP, dx, scratch->masked);
    activate(layer, saved->up, scratch->activated);
    linear_backward_weight(layer, &layer->down, scratch->activated, dy, dweights);
    down_backward(layer, dy, saved->up, scratch->activated, scratch->dup);
    const struct zinf_norm norm =
        norm_of(pass, saved->middle, weight_at(layer, at->norm2_weight),
                weight_at(layer, at->norm2_bias), scratch->mean, scratch->rstd);
    pass->ops->norm_forward(&norm, scratch->normed);
    linear_backward_weight(layer, &layer->up, scratch->normed, scratch->dup, dweights);
    linear_backward_input(layer, &layer->up, scratch->dup, NULL, scratch->normed);
    pass->ops->norm_backward(&norm, scratch->normed, dx, dx,
                             zinf_pass_to(pass, dweights, at->norm2_weight),
                             zinf_pass_to(pass, dweights, at->norm2_bias));
}

void zinf_layer_backward(const struct zinf_pass *pass, int number, const void *weights,
                         const void *x, const void *saved_memory,
                         const struct zinf_gradients *gradients)
{
    void *dx = gradients->dx, *dweights = gradients->dweights;
    ZINF_ASSERT(gradients->dy == dx); /* the residual stream's gradient is added to in place */
    const struct layer layer = layer_of(pass, number, weights);
    const struct zinf_layer_offsets *at = &pass->model->layer;
    struct saved saved;
    struct scratch scratch;
    place_saved(&saved, pass->model, pass->dtype, pass->batch, pass->sequence,
                (void *)saved_memory);
    place_scratch(&scratch, pass->model, pass->dtype, layer.tokens, pass->scratch);
    zero_gaps(pass, dweights);
    mlp_backward(&layer, &saved, &scratch, dx, dweights);

    const void *dh = mask_gradient(&layer, ZINF_DROPOUT_AFTER_ATTENTION, dx, scratch.masked);
    linear_backward_weight(&layer, &layer.out, saved.attended, dh, dweights);
    linear_backward_input(&layer, &layer.out, dh, NULL, scratch.dattended);
    const struct zinf_attention attention = attention_of(&layer, &saved);
    pass->ops->attention_backward(&attention, scratch.dattended, scratch.dqkv);
    rotate(&layer, scratch.dqkv, true);
    const struct zinf_norm norm =
        norm_of(pass, x, weight_at(&layer, at->norm1_weight), weight_at(&layer, at->norm1_bias),
                scratch.mean, scratch.rstd);
    pass->ops->norm_forward(&norm, scratch.normed);
    linear_backward_weight(&layer, &layer.qkv, scratch.normed, scratch.dqkv, dweights);
    linear_backward_input(&layer, &layer.qkv, scratch.dqkv, NULL, scratch.normed);
    pass->ops->norm_backward(&norm, scratch.normed, dx, dx,
                             zinf_pass_to(pass, dweights, at->norm1_weight),
                             zinf_pass_to(pass, dweights, at->norm1_bias));
}

/* Where the final norm's bias lies in its block; -1 = it has none. */
static int64_t final_bias(const struct zinf_model *model)
{
    const struct zinf_block *block = &model->blocks[model->final_norm_block];
    return block->piece_count > 1 ? block->pieces[1].block_offset : -1;
}

void zinf_final_norm_forward(const struct zinf_pass *pass, const void *weights, const void *x,
                             void *y, float *statistics)
{
    const struct zinf_norm norm =
        norm_of(pass, x, weights, zinf_pass_at(pass, weights, final_bias(pass->model)), statistics,
                statistics + zinf_pass_tokens(pass));
    pass->ops->norm_forward(&norm, y);
}

void zinf_final_norm_backward(const struct zinf_pass *pass, const void *weights, const void *x,
                              const float *statistics, const struct zinf_gradients *gradients)
{
    const int64_t bias = final_bias(pass->model);
    void *dweights = gradients->dweights;
    float *kept =
        (float *)statistics; /* the table's struct serves both directions; backward only reads */
    const struct zinf_norm norm = norm_of(pass, x, weights, zinf_pass_at(pass, weights, bias), kept,
                                          kept + zinf_pass_tokens(pass));
    if (bias > pass->model->hidden)
        zinf_pass_zero(pass, zinf_pass_to(pass, dweights, pass->model->hidden),
                       bias - pass->model->hidden);
    pass->ops->norm_backward(&norm, gradients->dy, NULL, gradients->dx, dweights,
                             zinf_pass_to(pass, dweights, bias));
}
