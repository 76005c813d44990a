/*
 * Attention on compute capability 9.0a: which sizes, and in which tiles. Backward of heads wider than 128 has sums of more registers than a
 * warpgroup has: attention_backward.cu takes them.
 */
#include "cuda/attention_hopper_backward.h"

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

/** Width of the head in shared memory: a multiple of 64, and where dropout's bits take the registers of scores the one of the smaller tile. */
static int backward_width(const Operands &op)
{
    return op.head_size <= 64 && !op.dropout.on ? 64 : 128;
}

template <typename T, bool DROPS> void hopper_backward(const struct zinf_attention &options, const Operands &op)
{
    if constexpr (!DROPS)
        if (backward_width(op) == 64)
            return run_gradients<T, GradientPlan<64, 128, 2, false>>(options, op);
    run_gradients<T, GradientPlan<128, 64, 3, DROPS>>(options, op);
}

} // namespace attention

/** pass(tag of the type, whether there is dropout) where this device and these operands allow it. */
template <typename F> static bool where_hopper(const struct zinf_attention &options, const attention::Operands &op, F pass)
{
    bool taken = false;
    if (zinf_cuda_hopper() && op.wide)
        with_type(options.dtype, [&](auto tag) {
            if constexpr (sizeof tag == 2)
                taken = op.dropout.on ? pass(tag, Width<1>()) : pass(tag, Width<0>());
        });
    return taken;
}

bool attention_forward_hopper(const struct zinf_attention &options, const attention::Operands &op)
{
    return where_hopper(options, op, [&](auto tag, auto drops) {
        return attention::hopper_forward<decltype(tag), decltype(drops)::value != 0>(options, op);
    });
}

int64_t attention_query_tiles(const struct zinf_attention &options, const attention::Operands &op)
{
    if (!zinf_cuda_hopper() || !op.wide || options.dtype == ZINF_FP32 || op.head_size > 128)
        return 0;
    const int64_t rows = attention::QUERY_TILE_FLOATS / attention::backward_width(op);
    return op.tokens / rows + options.batch + 1;
}

void attention_backward_hopper(const struct zinf_attention &options, const attention::Operands &op)
{
    where_hopper(options, op, [&](auto tag, auto drops) {
        attention::hopper_backward<decltype(tag), decltype(drops)::value != 0>(options, op);
        return true;
    });
}

} // namespace zinf_cuda
