/*
 * The model's first step: rows of the token table, plus learned positions where the family has
 * them, and their dropout.
 */
#include "model/pass.h"

void zinf_embedding_forward(const struct zinf_pass *pass, const struct zinf_block *block,
                            const void *weights, void *x)
{
    const int64_t columns = pass->model->hidden;
    if (block->kind == ZINF_BLOCK_POSITION)
        pass->ops->position_forward(pass->dtype, pass->batch, pass->sequence, columns,
                                    block->first_row, block->row_count, weights, x);
    else
        pass->ops->embedding_forward(pass->dtype, pass->inputs, zinf_pass_tokens(pass), columns,
                                     block->first_row, block->row_count, weights, x);
}

void zinf_embedding_dropout(const struct zinf_pass *pass, void *x)
{
    struct zinf_dropout dropout =
        zinf_pass_dropout(pass, 0, ZINF_DROPOUT_EMBEDDING, pass->model->embedding_dropout);
    if (dropout.p > 0)
        pass->ops->dropout_add(&dropout, pass->dtype, pass->batch,
                               pass->sequence * pass->model->hidden, x, NULL, x);
}

/* torch.nn.Embedding gives the row of padding_idx no gradient. A sum over no rows writes zeros,
 * whatever stood there (inf too). */
static void zero_padding_row(const struct zinf_pass *pass, const struct zinf_block *block,
                             void *dweights)
{
    const int64_t row = pass->model->padding_row - block->first_row, columns = pass->model->hidden;
    if (pass->model->padding_row < 0 || row < 0 || row >= block->row_count)
        return;
    pass->ops->bias_backward(zinf_pass_to(pass, dweights, row * columns), dweights, pass->dtype, 0,
                             columns);
}

void zinf_embedding_backward(const struct zinf_pass *pass, const struct zinf_block *block,
                             const void *dx, void *dweights)
{
    const int64_t columns = pass->model->hidden;
    if (block->kind == ZINF_BLOCK_POSITION) {
        pass->ops->position_backward(pass->dtype, pass->batch, pass->sequence, columns,
                                     block->first_row, block->row_count, dx, dweights);
        return;
    }
    pass->ops->embedding_backward(pass->dtype, pass->inputs, zinf_pass_tokens(pass), columns,
                                  block->first_row, block->row_count, dx, dweights);
    zero_padding_row(pass, block, dweights);
}
