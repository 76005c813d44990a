/*
 * Attention forward on tensor cores, and the operation's entries.
 */
#include "cuda/attention_tile.h"

namespace zinf_cuda
{

namespace attention
{

template <typename T> void forward(const struct zinf_attention &options, const Operands &op)
{
    if (op.head_size <= 64)
        run<T, Plan<64, 64, 2, FORWARD>>(options, op);
    else if (op.head_size <= 96)
        run<T, Plan<96, 64, 2, FORWARD>>(options, op);
    else if (op.head_size <= 128)
        run<T, Plan<128, 64, 2, FORWARD>>(options, op);
    else if (op.head_size <= 192)
        run<T, Plan<192, 64, 2, FORWARD>>(options, op);
    else
        run<T, Plan<256, 32, 1, FORWARD>>(options, op);
}

} // namespace attention

void attention_forward_half(const struct zinf_attention &options, attention::Operands op)
{
    if (options.dtype == ZINF_BF16)
        attention::forward<bf16>(options, op);
    else
        attention::forward<fp16>(options, op);
}

} // namespace zinf_cuda

using namespace zinf_cuda;

void zinf_cuda_attention_forward(const struct zinf_attention *options, void *y)
{
    ZINF_ASSERT(options->head_size <= 256 && options->heads % options->kv_heads == 0);
    const attention::Operands op = attention::operands_of(*options, nullptr, y);
    if (!op.tokens)
        return;
    if (options->dtype == ZINF_FP32)
        attention_forward_fp32(*options, op);
    else if (!attention_forward_hopper(*options, op))
        attention_forward_half(*options, op);
}
