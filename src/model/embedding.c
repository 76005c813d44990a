/*
 * The model's first step: rows of the token table, plus learned positions where the family has
 * them, and their dropout.
 */
#include "model/pass.h"

static struct zinf_embedding embedding_of(const struct zinf_pass *pass,
                                          const struct zinf_block *block)
{
    return (struct zinf_embedding){.dtype = pass->dtype,
                                   .batch = pass->batch,
                                   .sequence = pass->sequence,
                                   .columns = pass->model->hidden,
                                   .first_row = block->first_row,
                                   .row_count = block->row_count,
                                   .ids = pass->inputs};
}

void zinf_embedding_forward(const struct zinf_pass *pass, const struct zinf_block *block,
                            const void *weights, void *x)
{
    const struct zinf_embedding embedding = embedding_of(pass, block);
    if (block->kind == ZINF_BLOCK_POSITION)
        pass->ops->position_forward(&embedding, weights, x);
    else
        pass->ops->embedding_forward(&embedding, weights, x);
}

void zinf_embedding_dropout(const struct zinf_pass *pass, void *x)
{
    const struct zinf_dropout_add drop =
        zinf_pass_dropout_add(pass, 0, ZINF_DROPOUT_EMBEDDING, pass->model->embedding_dropout);
    if (drop.dropout.p > 0)
        pass->ops->dropout_add(&drop, x, NULL, x);
}

/* torch.nn.Embedding gives the row of padding_idx no gradient. */
static void zero_padding_row(const struct zinf_pass *pass, const struct zinf_block *block,
                             void *dweights)
{
    const int64_t row = pass->model->padding_row - block->first_row, columns = pass->model->hidden;
    if (pass->model->padding_row >= 0 && row >= 0 && row < block->row_count)
        zinf_pass_zero(pass, zinf_pass_to(pass, dweights, row * columns), columns);
}

void zinf_embedding_backward(const struct zinf_pass *pass, const struct zinf_block *block,
                             const void *dx, void *dweights)
{
    const struct zinf_embedding embedding = embedding_of(pass, block);
    if (block->kind == ZINF_BLOCK_POSITION) {
        pass->ops->position_backward(&embedding, dx, dweights);
        return;
    }
    pass->ops->embedding_backward(&embedding, dx, dweights);
    zero_padding_row(pass, block, dweights);
}
