/*
 * The head and the loss, tile by tile: the vocabulary's logits never stand in memory as a whole.
 *
 * Logits of a tile are made for all tokens and a strip of its rows at a time, in the pass's dtype,
 * as PyTorch's are. Strips of rows, not chunks of tokens: then a strip's weight gradient is one
 * product, rounded once, and needs no fp32 copy of the tile. The backward pass makes the logits
 * again; only the running maximum, sum and target logit of each token are kept in between (online
 * softmax, Milakov and Gimelshein 2018, arXiv:1805.02867). Their number and order depend on shapes
 * only.
 */
#include "model/pass.h"

#include <math.h>

#include "base/status.h"

/* Bound of the strip: 32 MiB in fp32, wide enough that a product fills the machine. At least 64
 * rows however long the batch is. */
enum { STRIP_ELEMENTS = 8 << 20, STRIP_MIN_ROWS = 64 };

static int64_t strip_rows(int64_t tokens, int64_t row_count)
{
    int64_t most = STRIP_ELEMENTS / tokens;
    most = most < STRIP_MIN_ROWS ? STRIP_MIN_ROWS : most;
    int64_t strips = (row_count + most - 1) / most;
    return (row_count + strips - 1) / strips;
}

size_t zinf_head_scratch_bytes(const struct zinf_model *model, enum zinf_dtype dtype,
                               int64_t tokens)
{
    size_t bytes = 0;
    for (int i = 0; i < model->head_block_count; i++) {
        const struct zinf_block *block = &model->blocks[model->first_head_block + i];
        size_t strip =
            (size_t)(tokens * strip_rows(tokens, block->row_count)) * zinf_dtype_bytes(dtype);
        bytes = strip > bytes ? strip : bytes;
    }
    return (bytes + 63) / 64 * 64;
}

void zinf_loss_begin(const struct zinf_pass *pass, struct zinf_loss *loss)
{
    for (int64_t t = 0; t < zinf_pass_tokens(pass); t++) {
        loss->maximum[t] = -INFINITY;
        loss->sum[t] = 0;
        loss->target_logit[t] = 0;
    }
}

/* One strip: rows [first, first + count) of the tile. */
struct strip {
    int64_t tokens, first, count;
    const void *weights; /* (count, C) */
    struct zinf_loss_tile tile;
};

static struct strip strip_of(const struct zinf_pass *pass, const struct zinf_block *block,
                             const void *weights, const struct zinf_loss *loss, int64_t first)
{
    const int64_t tokens = zinf_pass_tokens(pass);
    int64_t count = strip_rows(tokens, block->row_count);
    if (count > block->row_count - first)
        count = block->row_count - first;
    return (struct strip){.tokens = tokens,
                          .first = first,
                          .count = count,
                          .weights = zinf_pass_at(pass, weights, first * pass->model->hidden),
                          .tile = {.dtype = pass->dtype,
                                   .rows = tokens,
                                   .columns = count,
                                   .first_column = block->first_row + first,
                                   .targets = pass->targets,
                                   .maximum = loss->maximum,
                                   .sum = loss->sum,
                                   .target_logit = loss->target_logit}};
}

/* logits (T, count) = y (T, C) W^T, into scratch */
static void make_logits(const struct zinf_pass *pass, const struct strip *strip, const void *y)
{
    const int64_t hidden = pass->model->hidden;
    const struct zinf_matmul product = {.dtype = pass->dtype,
                                        .c_dtype = pass->dtype,
                                        .m = strip->tokens,
                                        .n = strip->count,
                                        .k = hidden,
                                        .a = y,
                                        .lda = hidden,
                                        .b = strip->weights,
                                        .ldb = hidden,
                                        .transpose_b = true,
                                        .c = pass->scratch,
                                        .ldc = strip->count};
    pass->ops->matmul(&product);
}

void zinf_head_forward(const struct zinf_pass *pass, const struct zinf_block *block,
                       const void *weights, const void *y, struct zinf_loss *loss)
{
    for (int64_t first = 0; first < block->row_count;) {
        const struct strip strip = strip_of(pass, block, weights, loss, first);
        make_logits(pass, &strip, y);
        pass->ops->loss_tile_forward(&strip.tile, pass->scratch);
        first += strip.count;
    }
}

double zinf_loss_end(const struct zinf_pass *pass, const struct zinf_loss *loss, int64_t *counted)
{
    double sum = 0;
    int64_t count = 0;
    for (int64_t t = 0; t < zinf_pass_tokens(pass); t++) {
        if (pass->targets[t] == -100)
            continue;
        sum += log((double)loss->sum[t]) + (double)loss->maximum[t] - (double)loss->target_logit[t];
        count++;
    }
    *counted = count;
    return sum;
}

/* dy (T, C) fp32 [+]= dlogits (T, count) W (count, C) */
static void backward_input(const struct zinf_pass *pass, const struct strip *strip, bool first,
                           float *dy)
{
    const int64_t hidden = pass->model->hidden;
    const struct zinf_matmul product = {.dtype = pass->dtype,
                                        .c_dtype = ZINF_FP32,
                                        .m = strip->tokens,
                                        .n = hidden,
                                        .k = strip->count,
                                        .a = pass->scratch,
                                        .lda = strip->count,
                                        .b = strip->weights,
                                        .ldb = hidden,
                                        .c = dy,
                                        .ldc = hidden,
                                        .accumulate = !first};
    pass->ops->matmul(&product);
}

/* dW (count, C) = dlogits^T (count, T) y (T, C) */
static void backward_weight(const struct zinf_pass *pass, const struct strip *strip, const void *y,
                            void *dweights)
{
    const int64_t hidden = pass->model->hidden;
    const struct zinf_matmul product = {.dtype = pass->dtype,
                                        .c_dtype = pass->dtype,
                                        .m = strip->count,
                                        .n = hidden,
                                        .k = strip->tokens,
                                        .a = pass->scratch,
                                        .lda = strip->count,
                                        .transpose_a = true,
                                        .b = y,
                                        .ldb = hidden,
                                        .c = zinf_pass_to(pass, dweights, strip->first * hidden),
                                        .ldc = hidden};
    pass->ops->matmul(&product);
}

void zinf_head_backward(const struct zinf_pass *pass, const struct zinf_block *block,
                        const void *weights, const void *y, const struct zinf_loss *loss,
                        const struct zinf_head_gradients *gradients)
{
    for (int64_t first = 0; first < block->row_count;) {
        struct strip strip = strip_of(pass, block, weights, loss, first);
        strip.tile.scale = gradients->scale;
        make_logits(pass, &strip, y);
        pass->ops->loss_tile_backward(&strip.tile, pass->scratch);
        backward_input(pass, &strip, gradients->first && first == 0, gradients->dy);
        backward_weight(pass, &strip, y, gradients->dweights);
        first += strip.count;
    }
}

void zinf_head_backward_end(const struct zinf_pass *pass, const float *dy, void *dy_out)
{
    const struct zinf_cast cast = {ZINF_FP32, pass->dtype,
                                   zinf_pass_tokens(pass) * pass->model->hidden};
    pass->ops->cast(&cast, dy, dy_out);
}
