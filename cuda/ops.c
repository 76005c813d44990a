/*
 * The CUDA backend's table of operations, and the product's way: the library, else our own kernel.
 */
#include "cuda/cuda.h"

void zinf_cuda_matmul(const struct zinf_matmul *op)
{
    if (op->m == 0 || op->n == 0)
        return;
    enum zinf_cuda_made made = zinf_cuda_matmul_library(op);
    if (made == ZINF_CUDA_NOTHING)
        zinf_cuda_product(op);
    if (made != ZINF_CUDA_ALL)
        zinf_ops_follow(&zinf_cuda_ops, op);
}

struct zinf_ops zinf_cuda_ops = {
    .name = "cuda",
    .matmul = zinf_cuda_matmul,
    .bias_backward = zinf_cuda_bias_backward,
    .norm_forward = zinf_cuda_norm_forward,
    .norm_backward = zinf_cuda_norm_backward,
    .attention_forward = zinf_cuda_attention_forward,
    .attention_backward = zinf_cuda_attention_backward,
    .rope = zinf_cuda_rope,
    .activation_forward = zinf_cuda_activation_forward,
    .activation_backward = zinf_cuda_activation_backward,
    .gated_forward = zinf_cuda_gated_forward,
    .gated_backward = zinf_cuda_gated_backward,
    .dropout_add = zinf_cuda_dropout_add,
    .embedding_forward = zinf_cuda_embedding_forward,
    .embedding_backward = zinf_cuda_embedding_backward,
    .position_forward = zinf_cuda_position_forward,
    .position_backward = zinf_cuda_position_backward,
    .loss_tile_forward = zinf_cuda_loss_tile_forward,
    .loss_tile_backward = zinf_cuda_loss_tile_backward,
    .cast = zinf_cuda_cast,
    .accumulate = zinf_cuda_accumulate,
    .reduce = zinf_cuda_reduce,
    .scale = zinf_cuda_scale,
    .square_sum = zinf_cuda_square_sum,
    .first_nonfinite = zinf_cuda_first_nonfinite,
    .update = zinf_cuda_update,
};
