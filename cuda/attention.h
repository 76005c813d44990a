/*
 * Causal attention on the device: what forward and backward, tensor cores and fp32 have in common. Operands and formulas: device/ops.h.
 *
 * One scheme for all passes. A block owns a run of rows of one head and goes over tiles of the other side:
 *
 *     pass      owns            tiles     s             dp            sums
 *     forward   Q               K, V      Q K^T                       y  += P V
 *     dq        Q, dY           K, V      Q K^T         dY V^T        dq += dS K
 *     dkv       K, V            Q, dY     K Q^T         V dY^T        dv += P dY, dk += dS Q
 *
 * with P = e^(scale s - log-sum-exp) times dropout's factor f, dS = P (f dp - delta), delta = the row sum of dY o y, made before. dkv holds both
 * transposed. No sum is shared between blocks, so every sum has one order; dq pays for that with products made twice (7 for 5:
 * arXiv:2307.08691, algorithm 2), but on Hopper, where blocks of dkv add to dq in turns (attention_hopper_backward.h). Grouped heads: a dkv block
 * goes over all query heads of its group, one after the other.
 *
 * Grids are of the longest sample. Where samples are packed (boundaries) blocks beyond their own sample's length return at once, and rows behind it
 * are zero in shared memory, whatever follows in device memory.
 */
#ifndef ZINF_CUDA_ATTENTION_H
#define ZINF_CUDA_ATTENTION_H

#include "cuda/philox.h"

namespace zinf_cuda
{
namespace attention
{

struct Operands {
    int64_t sequence, heads, kv_heads, head_size, row, out_row; /* row, out_row: elements from token to token of qkv, y */
    float scale;
    const void *qkv, *dy;
    float *log_sum_exp;
    const float *delta; /* as log_sum_exp */
    void *out;          /* y or dqkv */
    /* Of the Hopper backward pass (attention_hopper_backward.h): dq's sums, the turns of its tiles, blocks that have begun; tiles of a head. */
    float *query_sums;
    int *turns, *begun;
    int64_t query_tiles;
    Dropout dropout;
    const int32_t *boundaries; /* of samples packed behind each other, or NULL */
    int64_t tokens;            /* of all samples */
    int longest; /* sequence once more: indices of rows fit 32 bits, and registers are scarce */
    bool wide;   /* rows begin at 16 bytes, head_size is a multiple of 8: 16-byte copies */
};

__device__ __forceinline__ int64_t first_token(const Operands &op, int64_t sample)
{
    return op.boundaries ? op.boundaries[sample] : sample * op.sequence;
}

/** Tokens of a sample. */
__device__ __forceinline__ int length_of(const Operands &op, int64_t sample)
{
    return op.boundaries ? op.boundaries[sample + 1] - op.boundaries[sample] : op.longest;
}

/** First element of head `head` (all query, then key, then value heads) of a token of qkv or dqkv. */
__device__ __forceinline__ int64_t qkv_at(const Operands &op, int64_t sample, int64_t token, int64_t head)
{
    return (first_token(op, sample) + token) * op.row + head * op.head_size;
}

__device__ __forceinline__ int64_t out_at(const Operands &op, int64_t sample, int64_t token, int64_t head)
{
    return (first_token(op, sample) + token) * op.out_row + head * op.head_size;
}

/** Where log_sum_exp and delta of a sample's head begin. */
__device__ __forceinline__ int64_t statistics_at(const Operands &op, int64_t sample, int64_t head)
{
    return op.boundaries ? head * op.tokens + op.boundaries[sample] : (sample * op.heads + head) * op.sequence;
}

/** Floats of a tile of dq's sums. */
constexpr int QUERY_TILE_FLOATS = 64 * 128;

/** Number of tile `tile` (of `rows` queries) of a sample's head among the tiles of dq's sums: samples begin at tiles of their own. */
__device__ __forceinline__ int64_t query_tile_at(const Operands &op, int64_t sample, int64_t head, int tile, int rows)
{
    return head * op.query_tiles + first_token(op, sample) / rows + sample + tile;
}

/** Number of a probability for dropout, in a sample of `length` tokens. */
__device__ __forceinline__ uint64_t element_of(int64_t length, int64_t head, int64_t query, int64_t key)
{
    return (uint64_t)((head * length + query) * length + key);
}

constexpr float LOG2_E = 1.44269504f, LN_2 = 0.69314718f;

inline Operands operands_of(const struct zinf_attention &a, const void *dy, void *out)
{
    Operands op;
    op.sequence = a.sequence, op.heads = a.heads, op.kv_heads = a.kv_heads, op.head_size = a.head_size;
    op.row = (a.heads + 2 * a.kv_heads) * a.head_size, op.out_row = a.heads * a.head_size;
    ZINF_ASSERT(a.sequence <= 1 << 30);
    op.longest = (int)a.sequence;
    op.boundaries = a.boundaries;
    op.tokens = a.boundaries ? a.tokens : a.batch * a.sequence;
    op.scale = (float)a.scale;
    op.qkv = a.qkv, op.dy = dy, op.out = out;
    op.log_sum_exp = a.log_sum_exp, op.delta = nullptr;
    op.query_sums = nullptr, op.turns = op.begun = nullptr, op.query_tiles = 0;
    op.dropout = dropout_of(a.dropout);
    op.wide = a.head_size % 8 == 0 && aligned(a.qkv, 0, 16) && aligned(dy, 0, 16) && aligned(out, 0, 16);
    return op;
}

} // namespace attention

/* Entries of the types; the backward ones take op.delta. */
void attention_forward_half(const struct zinf_attention &options, attention::Operands op);
void attention_backward_half(const struct zinf_attention &options, attention::Operands op);
void attention_forward_fp32(const struct zinf_attention &options, attention::Operands op);
void attention_backward_fp32(const struct zinf_attention &options, attention::Operands op);
/* @return false: not on this device (tensor_map.h), or not for these operands: then by the ones above */
bool attention_forward_hopper(const struct zinf_attention &options, const attention::Operands &op);
/* @return tiles of a head's sums that the function below wants; 0: by the ones above */
int64_t attention_query_tiles(const struct zinf_attention &options, const attention::Operands &op);
void attention_backward_hopper(const struct zinf_attention &options, const attention::Operands &op);

} // namespace zinf_cuda

#endif
