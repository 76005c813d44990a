/*
 * The table of one instruction set.
 */
#include "cpu/kernels.h"

#define ZINF_TEXT_OF(isa) #isa
#define ZINF_TEXT(isa)    ZINF_TEXT_OF(isa)

const struct zinf_ops KERNEL(ops) = {
    .name = "cpu " ZINF_TEXT(ZINF_ISA),
    .matmul = KERNEL(matmul),
    .bias_backward = KERNEL(bias_backward),
    .norm_forward = KERNEL(norm_forward),
    .norm_backward = KERNEL(norm_backward),
    .attention_forward = KERNEL(attention_forward),
    .attention_backward = KERNEL(attention_backward),
    .rope = KERNEL(rope),
    .activation_forward = KERNEL(activation_forward),
    .activation_backward = KERNEL(activation_backward),
    .gated_forward = KERNEL(gated_forward),
    .gated_backward = KERNEL(gated_backward),
    .dropout_add = KERNEL(dropout_add),
    .embedding_forward = KERNEL(embedding_forward),
    .embedding_backward = KERNEL(embedding_backward),
    .position_forward = KERNEL(position_forward),
    .position_backward = KERNEL(position_backward),
    .loss_tile_forward = KERNEL(loss_tile_forward),
    .loss_tile_backward = KERNEL(loss_tile_backward),
    .cast = KERNEL(cast),
    .accumulate = KERNEL(accumulate),
    .reduce = KERNEL(reduce),
    .scale = KERNEL(scale),
    .square_sum = KERNEL(square_sum),
    .first_nonfinite = KERNEL(first_nonfinite),
    .update = KERNEL(update),
};
