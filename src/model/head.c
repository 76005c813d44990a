/*
 * The head and the loss, tile by tile: where memory is short the vocabulary's logits never stand in
 * it as a whole.
 *
 * Logits of a tile are made for all tokens and a strip of its rows at a time, in the pass's dtype,
 * as PyTorch's are. Strips of rows, not chunks of tokens: then a strip's weight gradient is one
 * product, rounded once, and needs no fp32 copy of the tile. The backward pass makes the logits
 * again, unless the caller has memory to keep them; between the passes a token has the running
 * maximum, sum and target logit (online softmax, Milakov and Gimelshein 2018, arXiv:1805.02867).
 * Their number and order, and all bits, depend on shapes only, not on whether logits are kept.
 */
#include "model/pass.h"

#include <math.h>

#include "base/status.h"

/* Bound of the strip: 32 MiB in fp32, wide enough that a product fills the machine. At least 4096
 * rows however long the batch is: a strip's weight gradient has (rows, C) elements, and a GPU's
 * multiprocessors share these out. */
enum {
    STRIP_ELEMENTS = 8 << 20,
    STRIP_MIN_ROWS = 4096,
    STRIP_ROW_ALIGNMENT = 64,
    ROW_ALIGNMENT = 8
};

/* Rows of logits begin at multiples of 8 elements: libraries crawl where they do not. */
static int64_t padded(int64_t columns, int64_t to)
{
    return (columns + to - 1) / to * to;
}

static int64_t strip_rows(int64_t tokens, int64_t row_count)
{
    int64_t most = STRIP_ELEMENTS / tokens;
    most = most < STRIP_MIN_ROWS ? STRIP_MIN_ROWS : most;
    int64_t strips = (row_count + most - 1) / most;
    int64_t rows = padded((row_count + strips - 1) / strips, STRIP_ROW_ALIGNMENT);
    return rows < row_count ? rows : row_count;
}

size_t zinf_head_scratch_bytes(const struct zinf_model *model, enum zinf_dtype dtype,
                               int64_t tokens)
{
    size_t bytes = 0;
    for (int i = 0; i < model->head_block_count; i++) {
        const struct zinf_block *block = &model->blocks[model->first_head_block + i];
        size_t strip =
            (size_t)(tokens * padded(strip_rows(tokens, block->row_count), ROW_ALIGNMENT)) *
            zinf_dtype_bytes(dtype);
        bytes = strip > bytes ? strip : bytes;
    }
    return (bytes + 63) / 64 * 64;
}

size_t zinf_head_logits_bytes(const struct zinf_model *model, enum zinf_dtype dtype, int64_t tokens)
{
    return (size_t)(tokens * (model->vocab + model->head_block_count * 2 * ROW_ALIGNMENT)) *
           zinf_dtype_bytes(dtype);
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
    void *logits;        /* (T, count) */
    struct zinf_loss_tile tile;
};

/* Where a tile's logits are kept: each tile has room for its padding, and that of its beginning. */
static int64_t first_logit(const struct zinf_pass *pass, const struct zinf_block *block)
{
    const struct zinf_model *model = pass->model;
    int64_t tile = block - model->blocks - model->first_head_block;
    return (padded(block->first_row, ROW_ALIGNMENT) + tile * ROW_ALIGNMENT) *
           zinf_pass_tokens(pass);
}

static struct strip strip_of(const struct zinf_pass *pass, const struct zinf_block *block,
                             const void *weights, const struct zinf_loss *loss, int64_t first)
{
    const int64_t tokens = zinf_pass_tokens(pass);
    int64_t count = strip_rows(tokens, block->row_count);
    if (count > block->row_count - first)
        count = block->row_count - first;
    return (struct strip){
        .tokens = tokens,
        .first = first,
        .count = count,
        .weights = zinf_pass_at(pass, weights, first * pass->model->hidden),
        .logits = loss->logits
                      ? zinf_pass_to(pass, loss->logits, first_logit(pass, block) + first * tokens)
                      : pass->scratch,
        .tile = {.dtype = pass->dtype,
                 .rows = tokens,
                 .columns = count,
                 .first_column = block->first_row + first,
                 .row = padded(count, ROW_ALIGNMENT),
                 .targets = pass->targets,
                 .maximum = loss->maximum,
                 .sum = loss->sum,
                 .target_logit = loss->target_logit}};
}

/* logits (T, count) = y (T, C) W^T */
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
                                        .c = strip->logits,
                                        .ldc = strip->tile.row};
    pass->ops->matmul(&product);
}

void zinf_head_forward(const struct zinf_pass *pass, const struct zinf_block *block,
                       const void *weights, const void *y, struct zinf_loss *loss)
{
    for (int64_t first = 0; first < block->row_count;) {
        const struct strip strip = strip_of(pass, block, weights, loss, first);
        make_logits(pass, &strip, y);
        pass->ops->loss_tile_forward(&strip.tile, strip.logits);
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
                                        .a = strip->logits,
                                        .lda = strip->tile.row,
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
                                        .a = strip->logits,
                                        .lda = strip->tile.row,
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
        if (!loss->logits)
            make_logits(pass, &strip, y);
        pass->ops->loss_tile_backward(&strip.tile, strip.logits);
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
