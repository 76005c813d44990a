/*
 * What lies between the products of attention on tensor cores: softmax, its derivative, dropout, the way of a sum to memory. A warp has 16 rows of its
 * side and a tile of the other; its scores lie in accumulators (index.h), which mma.sync and wgmma lay out alike: so both share this file.
 */
#ifndef ZINF_CUDA_ATTENTION_MATH_H
#define ZINF_CUDA_ATTENTION_MATH_H

#include "cuda/attention.h"
#include "cuda/mma.h"

namespace zinf_cuda
{
namespace attention
{

enum Pass { FORWARD, DQ, DKV, DK, DV }; /* DK, DV: one of the two, where both do not fit the registers */

/** What a pass of attention.h's table does. */
template <Pass PASS> struct Kind {
    static constexpr bool TRANSPOSED = PASS == DKV || PASS == DK || PASS == DV; /* owns keys */
    static constexpr bool FORWARD_PASS = PASS == FORWARD;
    static constexpr bool GRADIENT = PASS == DQ || PASS == DKV || PASS == DK; /* needs dp and sums dS times the first tile */
    static constexpr bool OUTPUT = PASS == FORWARD || PASS == DKV || PASS == DV; /* sums P times the second tile */
};

/* The rows that a block, and of these a warp, owns. */
struct Owner {
    int sample, head, group, first; /* head: of queries, dkv: of keys; group: query heads of a key head */
    int length;                     /* tokens of the sample */
    int warp_first;                 /* of this warp's rows */
    int lane;
};

/**
 * The sample and head of `row`, which counts samples and their heads (of keys where these are owned), and the first of the OWNED rows of block `order`: keys are
 * counted from the first on, queries from the last on, whose blocks, with the most keys to see, are to begin first. Of a sample shorter than the longest
 * some blocks own none.
 */
template <bool TRANSPOSED, int OWNED> __device__ __forceinline__ void place_block(const Operands &op, Owner &at, int order, int row)
{
    const int heads = (int)(TRANSPOSED ? op.kv_heads : op.heads);
    at.sample = row / heads, at.head = row % heads, at.group = (int)(op.heads / op.kv_heads);
    /* by the shuffle the compiler knows that all lanes have one number, and keeps what follows from it out of the registers that scores need */
    at.length = __shfl_sync(ALL_LANES, length_of(op, at.sample), 0);
    at.first = (TRANSPOSED ? order : (int)ceil_div(at.length, OWNED) - 1 - order) * OWNED;
    at.lane = (int)threadIdx.x % 32;
}

/** 2^x by the special function unit, two units in the last place; 0 for what is not normal. */
__device__ __forceinline__ float power_of_two(float x)
{
#if defined(__CUDA_ARCH__)
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return exp2f(x);
#endif
}

/** Dropout's multipliers of the two neighbours in a register pair. */
template <bool TRANSPOSED>
__device__ __forceinline__ void factors_of(const Operands &op, const Owner &at, int head, int own,
                                           int other, float factor[2])
{
    const uint64_t element = TRANSPOSED ? element_of(at.length, head, other, own) : element_of(at.length, head, own, other);
    dropout_pair(op.dropout, (uint32_t)at.sample, element, TRANSPOSED ? (uint64_t)at.length : 1, factor);
}

/** Scores that this warp's rows must not see become -infinity. Tiles off the diagonal have none: what is behind the sample is behind all its queries, and
 * rows that are themselves behind it are written nowhere. */
template <bool TRANSPOSED, int TILE> __device__ __forceinline__ void mask(const Owner &at, int tile_first, float (*s)[4])
{
    if (TRANSPOSED ? at.warp_first + 15 <= tile_first : tile_first + TILE - 1 <= at.warp_first)
        return;
#pragma unroll
    for (int n = 0; n < TILE / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int own = at.warp_first + accumulator_row(at.lane, i), other = tile_first + n * 8 + accumulator_column(at.lane, i);
            if (TRANSPOSED ? own > other : other > own)
                s[n][i] = -INFINITY;
        }
}

/** Online softmax of one tile: scores become probabilities not yet divided by their sum, with dropout. kept: what is left of earlier sums. DROPS: a
 * kernel that knows that there is no dropout is spared the question. */
template <bool DROPS, int TILE>
__device__ __forceinline__ void softmax(const Operands &op, const Owner &at, int tile_first, float (*s)[4],
                                        float maximum[2], float sum[2], float kept[2])
{
    const float scale = op.scale * LOG2_E;
    mask<false, TILE>(at, tile_first, s);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float largest = maximum[half];
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
            largest = fmaxf(largest, fmaxf(s[n][half * 2], s[n][half * 2 + 1]));
        largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, 2));
        kept[half] = power_of_two((maximum[half] - largest) * scale); /* key 0 is in every first tile: largest is finite */
        maximum[half] = largest;
        sum[half] *= kept[half];
        const float shift = largest * scale;
#pragma unroll
        for (int n = 0; n < TILE / 8; n++) {
            float factor[2] = {1.0f, 1.0f};
            if (DROPS && op.dropout.on)
                factors_of<false>(op, at, at.head, at.warp_first + accumulator_row(at.lane, half * 2),
                                  tile_first + n * 8 + accumulator_column(at.lane, 0), factor);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const float p = power_of_two(fmaf(s[n][half * 2 + i], scale, -shift));
                sum[half] += p;
                s[n][half * 2 + i] = p * factor[i];
            }
        }
    }
}

/** Natural logarithm of a row's sum of exponentials, from what softmax() leaves; `sum` is the whole row's. */
__device__ __forceinline__ float log_sum_exp_of(const Operands &op, float maximum, float sum)
{
    return maximum * (op.scale * LOG2_E) * LN_2 + logf(sum);
}

/** The lanes' sums of a row become the row's. */
__device__ __forceinline__ float row_sum(float sum)
{
    sum += __shfl_xor_sync(ALL_LANES, sum, 1);
    return sum + __shfl_xor_sync(ALL_LANES, sum, 2);
}

/** output (16 own rows, D) times kept of its row. */
template <int D> __device__ __forceinline__ void rescale(float (*output)[4], const float kept[2])
{
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            output[n][i] *= kept[i / 2];
}

/** scores become P, without dropout: log_sum_exp (times LOG2_E) of the queries, which are own rows, or the tile's. */
template <bool TRANSPOSED, int TILE>
__device__ __forceinline__ void probabilities(const Operands &op, const Owner &at, int tile_first, float (*s)[4],
                                              const float own_log_sum_exp[2], const float *tile_log_sum_exp)
{
    const float scale = op.scale * LOG2_E;
    mask<TRANSPOSED, TILE>(at, tile_first, s);
#pragma unroll
    for (int n = 0; n < TILE / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int column = n * 8 + accumulator_column(at.lane, i);
            s[n][i] = power_of_two(fmaf(s[n][i], scale, -(TRANSPOSED ? tile_log_sum_exp[column] : own_log_sum_exp[i / 2])));
        }
}

/** P becomes P f; dp, where there is one, becomes dS (without `scale`). delta of the queries, like log_sum_exp above. */
template <bool TRANSPOSED, bool GRADIENT, bool DROPS, int TILE>
__device__ __forceinline__ void differentiate(const Operands &op, const Owner &at, int head, int tile_first, float (*p)[4],
                                              float (*dp)[4], const float own_delta[2], const float *tile_delta)
{
#pragma unroll
    for (int n = 0; n < TILE / 8; n++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int column = n * 8 + accumulator_column(at.lane, 0);
            float factor[2] = {1.0f, 1.0f};
            if (DROPS && op.dropout.on)
                factors_of<TRANSPOSED>(op, at, head, at.warp_first + accumulator_row(at.lane, half * 2), tile_first + column, factor);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const float own = p[n][half * 2 + i];
                p[n][half * 2 + i] = own * factor[i];
                if (GRADIENT) {
                    const float delta = TRANSPOSED ? tile_delta[column + i] : own_delta[half];
                    dp[n][half * 2 + i] = own * (dp[n][half * 2 + i] * factor[i] - delta);
                }
            }
        }
}

/**
 * This warp's rows of a sum, times a factor a row, to global memory, by way of the warp's rows of `room` (the block's rows, D wide): 16 bytes a
 * lane. Nobody else may use these rows of `room`.
 */
template <typename T, int D>
__device__ __forceinline__ void write_rows(const Operands &op, const Owner &at, const float (*sum)[4], const float factor[2],
                                           unsigned char *room, T *head, int64_t row_elements)
{
    const int warp_row = at.warp_first - at.first;
    __syncwarp();
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = warp_row + at.lane / 4 + half * 8;
            *(uint32_t *)(room + tile_offset<D>(row, n) + at.lane % 4 * 4) =
                pack2<T>(sum[n][half * 2] * factor[half], sum[n][half * 2 + 1] * factor[half]);
        }
    __syncwarp();
    for (int i = at.lane; i < 16 * (D / 8); i += 32) {
        const int row = i / (D / 8), chunk = i % (D / 8);
        if (at.warp_first + row >= at.length || chunk * 8 >= op.head_size)
            continue;
        const Pack<T, 8> pack = load<8>((const T *)(room + tile_offset<D>(warp_row + row, chunk)));
        T *to = head + (int64_t)(at.warp_first + row) * row_elements + chunk * 8;
        if (op.wide)
            store(to, pack);
        else
            for (int j = 0; j < 8 && chunk * 8 + j < op.head_size; j++)
                to[j] = pack.item[j];
    }
    __syncwarp();
}

} // namespace attention
} // namespace zinf_cuda

#endif
