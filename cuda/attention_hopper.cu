/*
 * Attention on compute capability 9.0a: which sizes, and in which tiles. Backward of heads wider than 128 has sums of more registers than a
 * warpgroup has: attention_backward.cu takes them.
 */
#include "cuda/attention_hopper.h"

namespace zinf_cuda
{

namespace attention
{

/** @return false: this size is not taken. With dropout scores need more registers, or smaller tiles. */
template <typename T, bool DROPS> bool hopper_forward(const struct zinf_attention &options, const Operands &op)
{
    const Maps maps = maps_of(options, op);
    if (op.head_size <= 64)
        run_hopper<T, HopperPlan<64, 128, 4, FORWARD, DROPS>>(options, op, maps);
    else if (op.head_size <= 128 && DROPS)
        run_hopper<T, HopperPlan<128, 64, 4, FORWARD, true>>(options, op, maps);
    else if (op.head_size <= 128)
        run_hopper<T, HopperPlan<128, 128, 2, FORWARD, false>>(options, op, maps);
    else if (op.head_size <= 192)
        run_hopper<T, HopperPlan<192, 64, 3, FORWARD, DROPS>>(options, op, maps);
    else if (!DROPS)
        run_hopper<T, HopperPlan<256, 64, 2, FORWARD, false>>(options, op, maps);
    else
        return false;
    return true;
}

template <typename T, bool DROPS> bool hopper_backward(const struct zinf_attention &options, const Operands &op)
{
    const Maps maps = maps_of(options, op);
    if (op.head_size <= 64) {
        run_hopper<T, HopperPlan<64, 128, 3, DQ, DROPS>>(options, op, maps);
        run_hopper<T, HopperPlan<64, 128, 3, DKV, DROPS>>(options, op, maps);
    } else if (op.head_size <= 128) {
        run_hopper<T, HopperPlan<128, 64, 3, DQ, DROPS>>(options, op, maps);
        run_hopper<T, HopperPlan<128, 64, 3, DKV, DROPS>>(options, op, maps);
    } else {
        return false;
    }
    return true;
}

} // namespace attention

bool attention_forward_hopper(const struct zinf_attention &options, const attention::Operands &op)
{
    if (!zinf_cuda_hopper() || !op.wide)
        return false;
    if (options.dtype == ZINF_BF16)
        return op.dropout.on ? attention::hopper_forward<bf16, true>(options, op) : attention::hopper_forward<bf16, false>(options, op);
    return op.dropout.on ? attention::hopper_forward<fp16, true>(options, op) : attention::hopper_forward<fp16, false>(options, op);
}

bool attention_backward_hopper(const struct zinf_attention &options, const attention::Operands &op)
{
    if (!zinf_cuda_hopper() || !op.wide)
        return false;
    if (options.dtype == ZINF_BF16)
        return op.dropout.on ? attention::hopper_backward<bf16, true>(options, op) : attention::hopper_backward<bf16, false>(options, op);
    return op.dropout.on ? attention::hopper_backward<fp16, true>(options, op) : attention::hopper_backward<fp16, false>(options, op);
}

} // namespace zinf_cuda
