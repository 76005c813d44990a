/*
 * Attention backward: delta, then the passes of attention.h on tensor cores.
 */
#include "cuda/attention_tile.h"

namespace zinf_cuda
{

namespace attention
{

constexpr int DELTA_WARPS = 8;

/** delta (as log_sum_exp) = sum over a head of dy * y; a warp takes one token's head. And zero to what the turns count. */
template <typename T>
__global__ void __launch_bounds__(DELTA_WARPS * 32)
    delta_kernel(Operands op, const T *y, float *delta, int64_t count, int64_t turns)
{
    for (int64_t i = thread_number(); i < turns; i += (int64_t)gridDim.x * blockDim.x)
        op.turns[i] = 0;
    const int64_t number = (int64_t)blockIdx.x * DELTA_WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (number >= count)
        return; /* the whole warp */
    const int64_t head = number % op.heads, token = number / op.heads; /* of all samples */
    const int64_t at = token * op.out_row + head * op.head_size;
    float sum = 0.0f;
    for (int64_t i = lane; i < op.head_size; i += 32)
        sum += widen(((const T *)op.dy)[at + i]) * widen(y[at + i]);
    sum = warp_sum(sum);
    if (lane == 0)
        delta[op.boundaries ? head * op.tokens + token : statistics_at(op, token / op.sequence, head) + token % op.sequence] = sum;
}

template <typename T> void backward(const struct zinf_attention &options, const Operands &op)
{
    if (op.head_size <= 64) {
        run<T, Plan<64, 64, 2, DQ>>(options, op);
        run<T, Plan<64, 64, 2, DKV>>(options, op);
    } else if (op.head_size <= 96) {
        run<T, Plan<96, 64, 2, DQ>>(options, op);
        run<T, Plan<96, 32, 2, DKV>>(options, op);
    } else if (op.head_size <= 128) {
        run<T, Plan<128, 64, 2, DQ>>(options, op);
        run<T, Plan<128, 32, 2, DKV>>(options, op);
    } else if (op.head_size <= 192) {
        run<T, Plan<192, 64, 1, DQ>>(options, op);
        run<T, Plan<192, 32, 2, DK>>(options, op);
        run<T, Plan<192, 64, 2, DV>>(options, op);
    } else {
        run<T, Plan<256, 32, 1, DQ>>(options, op);
        run<T, Plan<256, 32, 1, DK>>(options, op);
        run<T, Plan<256, 16, 2, DV>>(options, op);
    }
}

} // namespace attention

void attention_backward_half(const struct zinf_attention &options, attention::Operands op)
{
    if (options.dtype == ZINF_BF16)
        attention::backward<bf16>(options, op);
    else
        attention::backward<fp16>(options, op);
}

} // namespace zinf_cuda

using namespace zinf_cuda;

void zinf_cuda_attention_backward(const struct zinf_attention *options, const void *dy, void *dqkv)
{
    ZINF_ASSERT(options->head_size <= 256 && options->heads % options->kv_heads == 0);
    attention::Operands op = attention::operands_of(*options, dy, dqkv);
    if (!op.tokens)
        return;
    op.query_tiles = attention_query_tiles(*options, op);
    const int64_t count = op.tokens * op.heads, tiles = op.query_tiles * op.heads;
    const int64_t turns = tiles ? tiles + 1 : 0; /* and the number of blocks that have begun */
    op.query_sums = (float *)zinf_cuda_scratch(4 * (size_t)(tiles * attention::QUERY_TILE_FLOATS + turns + count));
    op.turns = (int *)(op.query_sums + tiles * attention::QUERY_TILE_FLOATS), op.begun = op.turns + tiles;
    float *delta = (float *)(op.turns + turns);
    with_type(options->dtype, [&](auto tag) {
        typedef decltype(tag) T;
        LAUNCH((attention::delta_kernel<T>),
               Shape(ceil_div(count, attention::DELTA_WARPS), attention::DELTA_WARPS * 32), op,
               (const T *)options->output, delta, count, turns);
    });
    op.delta = delta;
    if (options->dtype == ZINF_FP32)
        attention_backward_fp32(*options, op);
    else if (tiles)
        attention_backward_hopper(*options, op);
    else
        attention_backward_half(*options, op);
}
