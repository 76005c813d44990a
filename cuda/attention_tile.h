/*
 * Attention on tensor cores (mma.sync), bf16 and fp16: the kernel of attention.h's table, one template for all passes. After FlashAttention-2
 * (arXiv:2307.08691); softmax and sums in fp32, P and dS rounded to 16 bits before their products.
 *
 * A block has 8 warps and owns 128 rows; a warp has 16 of them. Owned rows and the tiles of the other side lie in shared memory in the order of
 * index.h, the tiles in STAGES buffers: while one is used the next is on its way (cp.async). Scores stay in registers: the accumulator of the first
 * product has the layout that the second wants as its left side. Register figures: cuda/registers.txt.
 */
#ifndef ZINF_CUDA_ATTENTION_TILE_H
#define ZINF_CUDA_ATTENTION_TILE_H

#include "cuda/attention_math.h"

namespace zinf_cuda
{
namespace attention
{

constexpr int THREADS = 256, OWNED = 128;

/* What a pass needs, for head size D (rounded up) and tiles of TILE rows. */
template <int D_, int TILE_, int STAGES_, Pass PASS> struct Plan : Kind<PASS> {
    static constexpr int D = D_, TILE = TILE_, STAGES = STAGES_;
    static constexpr int OWN_BYTES = OWNED * D_ * 2, TILE_BYTES = TILE_ * D_ * 2;
    static constexpr int STATISTICS_BYTES = Kind<PASS>::TRANSPOSED ? 2 * TILE_ * 4 : 0;
    static constexpr int STAGE_BYTES = 2 * TILE_BYTES + STATISTICS_BYTES;
    static constexpr int SHARED_BYTES = (Kind<PASS>::GRADIENT ? 2 : 1) * OWN_BYTES + STAGES_ * STAGE_BYTES;
    static_assert(SHARED_BYTES <= 163 * 1024, "what a block may have on compute capability 8.0");
    static_assert(TILE_ % 16 == 0 && D_ % 16 == 0, "fragments");
};

/** Rows first .. first + ROWS - 1 of a head into a tile; what is not there (row >= length, column >= head_size) is zero. */
template <typename T, int D, int ROWS>
__device__ __forceinline__ void fetch(unsigned char *tile, const T *head, int64_t row_elements, int first, int length, const Operands &op)
{
    for (int i = (int)threadIdx.x; i < ROWS * (D / 8); i += THREADS) {
        const int row = i / (D / 8), chunk = i % (D / 8);
        const bool there = first + row < length && chunk * 8 < op.head_size;
        const T *from = there ? head + (int64_t)(first + row) * row_elements + chunk * 8 : head;
        unsigned char *to = tile + tile_offset<D>(row, chunk);
        if (op.wide) {
            copy16(to, from, there);
            continue;
        }
        Pack<T, 8> pack; /* rows that begin anywhere, or head sizes that are no multiple of 8 */
#pragma unroll
        for (int j = 0; j < 8; j++)
            pack.item[j] = there && chunk * 8 + j < op.head_size ? from[j] : narrow<T>(0.0f);
        store((T *)to, pack);
    }
}

/** c (16 own rows, TILE) = own . tile^T */
template <typename T, int D, int TILE>
__device__ __forceinline__ void multiply(float c[TILE / 8][4], const unsigned char *own, const unsigned char *tile)
{
    const int lane = (int)threadIdx.x % 32, first = (int)threadIdx.x / 32 * 16;
#pragma unroll
    for (int n = 0; n < TILE / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            c[n][i] = 0.0f;
#pragma unroll(D > 192 ? 2 : 4)
    for (int k = 0; k < D / 16; k++) {
        uint32_t a[4], b[4];
        ldmatrix(a, own + tile_offset<D>(a_row(lane, first), a_chunk(lane, k * 2)));
#pragma unroll
        for (int n = 0; n < TILE / 16; n++) {
            ldmatrix(b, tile + tile_offset<D>(b_row(lane, n * 16), b_chunk(lane, k * 2)));
            mma<T>(c[n * 2], a, b[0], b[1]);
            mma<T>(c[n * 2 + 1], a, b[2], b[3]);
        }
    }
}

/** sum (16 own rows, D) += p (16, TILE) . tile */
template <typename T, int D, int TILE>
__device__ __forceinline__ void add_product(float sum[D / 8][4], const float p[TILE / 8][4], const unsigned char *tile)
{
    const int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < TILE / 16; k++) {
        const uint32_t a[4] = {pack2<T>(p[k * 2][0], p[k * 2][1]), pack2<T>(p[k * 2][2], p[k * 2][3]),
                               pack2<T>(p[k * 2 + 1][0], p[k * 2 + 1][1]), pack2<T>(p[k * 2 + 1][2], p[k * 2 + 1][3])};
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            uint32_t b[4];
            ldmatrix_transposed(b, tile + tile_offset<D>(bt_row(lane, k * 16), bt_chunk(lane, n * 2)));
            mma<T>(sum[n * 2], a, b[0], b[1]);
            mma<T>(sum[n * 2 + 1], a, b[2], b[3]);
        }
    }
}

template <typename T, class PLAN> struct Worker {
    static constexpr int D = PLAN::D, TILE = PLAN::TILE, STAGES = PLAN::STAGES;

    const Operands &op;
    Owner at;
    unsigned char *own[2], *stages;
    int begin, tiles; /* first tile of the other side, their number, none where the block has no rows; dkv: of one query head */
    float output[PLAN::OUTPUT ? D / 8 : 1][4], gradient[PLAN::GRADIENT ? D / 8 : 1][4];
    float maximum[2], sum[2], log_sum_exp[2], delta[2]; /* of own rows; log_sum_exp times LOG2_E */

    __device__ __forceinline__ Worker(const Operands &op, unsigned char *shared) : op(op)
    {
        place_block<PLAN::TRANSPOSED, OWNED>(op, at, (int)blockIdx.x, (int)blockIdx.y);
        at.warp_first = at.first + (int)threadIdx.x / 32 * 16;
        own[0] = shared;
        own[1] = shared + PLAN::OWN_BYTES;
        stages = shared + (PLAN::GRADIENT ? 2 : 1) * PLAN::OWN_BYTES;
        const int behind = at.first + OWNED < at.length ? at.first + OWNED : at.length;
        begin = PLAN::TRANSPOSED ? at.first / TILE : 0;
        tiles = (int)ceil_div(PLAN::TRANSPOSED ? at.length : behind, TILE) - begin;
    }

    __device__ __forceinline__ int query_head(int step) const
    {
        return PLAN::TRANSPOSED ? at.head * at.group + step / tiles : at.head;
    }

    __device__ __forceinline__ int steps() const
    {
        return PLAN::TRANSPOSED ? tiles * at.group : tiles;
    }

    __device__ __forceinline__ const T *qkv_head(int64_t head) const
    {
        return (const T *)op.qkv + qkv_at(op, at.sample, 0, head);
    }

    __device__ __forceinline__ const T *dy_head(int64_t head) const
    {
        return (const T *)op.dy + out_at(op, at.sample, 0, head);
    }

    __device__ __forceinline__ void fetch_own()
    {
        const int64_t key_head = op.heads + at.head;
        fetch<T, D, OWNED>(own[0], qkv_head(PLAN::TRANSPOSED ? key_head : at.head), op.row, at.first, at.length, op);
        if (PLAN::GRADIENT && PLAN::TRANSPOSED)
            fetch<T, D, OWNED>(own[1], qkv_head(key_head + op.kv_heads), op.row, at.first, at.length, op);
        else if (PLAN::GRADIENT)
            fetch<T, D, OWNED>(own[1], dy_head(at.head), op.out_row, at.first, at.length, op);
    }

    __device__ __forceinline__ unsigned char *stage(int step) const
    {
        return stages + step % STAGES * PLAN::STAGE_BYTES;
    }

    __device__ __forceinline__ void fetch_tiles(int step)
    {
        const int head = query_head(step), first = (begin + step % tiles) * TILE;
        unsigned char *to = stage(step);
        if (PLAN::TRANSPOSED) {
            fetch<T, D, TILE>(to, qkv_head(head), op.row, first, at.length, op);
            fetch<T, D, TILE>(to + PLAN::TILE_BYTES, dy_head(head), op.out_row, first, at.length, op);
            float *numbers = (float *)(to + 2 * PLAN::TILE_BYTES);
            for (int i = (int)threadIdx.x; i < TILE; i += THREADS) {
                const bool there = first + i < at.length; /* a query that is not there has probability 0 */
                const int64_t from = statistics_at(op, at.sample, head) + first + i;
                numbers[i] = there ? op.log_sum_exp[from] * LOG2_E : INFINITY;
                numbers[TILE + i] = there ? op.delta[from] : 0.0f;
            }
        } else {
            const int64_t key_head = op.heads + at.head / at.group;
            fetch<T, D, TILE>(to, qkv_head(key_head), op.row, first, at.length, op);
            fetch<T, D, TILE>(to + PLAN::TILE_BYTES, qkv_head(key_head + op.kv_heads), op.row, first, at.length, op);
        }
        copy_commit();
    }

    __device__ __forceinline__ void start()
    {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = at.warp_first + at.lane / 4 + half * 8;
            const int64_t from = statistics_at(op, at.sample, at.head) + row;
            maximum[half] = -INFINITY, sum[half] = 0.0f;
            if (PLAN::GRADIENT && !PLAN::TRANSPOSED) {
                log_sum_exp[half] = row < at.length ? op.log_sum_exp[from] * LOG2_E : INFINITY;
                delta[half] = row < at.length ? op.delta[from] : 0.0f;
            }
        }
#pragma unroll
        for (int n = 0; n < D / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                if (PLAN::OUTPUT)
                    output[n][i] = 0.0f;
                if (PLAN::GRADIENT)
                    gradient[n][i] = 0.0f;
            }
    }

    __device__ __forceinline__ void compute(int step)
    {
        const unsigned char *first = stage(step), *second = first + PLAN::TILE_BYTES;
        const int tile_first = (begin + step % tiles) * TILE;
        /* rows behind the sequence, or a tile that this warp's rows do not see at all */
        const bool unseen = PLAN::TRANSPOSED ? tile_first + TILE <= at.warp_first : tile_first > at.warp_first + 15;
        if (unseen || at.warp_first >= at.length)
            return;
        float s[TILE / 8][4];
        multiply<T, D, TILE>(s, own[0], first);
        if constexpr (PLAN::FORWARD_PASS) {
            float kept[2];
            softmax<true, TILE>(op, at, tile_first, s, maximum, sum, kept);
            rescale<D>(output, kept);
            add_product<T, D, TILE>(output, s, second);
        } else {
            const float *numbers = (const float *)(first + 2 * PLAN::TILE_BYTES);
            float dp[PLAN::GRADIENT ? TILE / 8 : 1][4];
            if constexpr (PLAN::GRADIENT)
                multiply<T, D, TILE>(dp, own[1], second);
            probabilities<PLAN::TRANSPOSED, TILE>(op, at, tile_first, s, log_sum_exp, numbers);
            differentiate<PLAN::TRANSPOSED, PLAN::GRADIENT, true, TILE>(op, at, query_head(step), tile_first, s, dp, delta, numbers + TILE);
            if constexpr (PLAN::OUTPUT)
                add_product<T, D, TILE>(output, s, second);
            if constexpr (PLAN::GRADIENT)
                add_product<T, D, TILE>(gradient, dp, first);
        }
    }

    __device__ __forceinline__ void go()
    {
        const int count = steps();
        start();
        fetch_own();
        fetch_tiles(0);
        for (int step = 0; step < count; step++) {
            if (STAGES > 1 && step + 1 < count) {
                fetch_tiles(step + 1);
                copy_wait<1>();
            } else {
                copy_wait<0>();
            }
            __syncthreads();
            compute(step);
            __syncthreads(); /* the buffer is free again */
            if (STAGES == 1 && step + 1 < count)
                fetch_tiles(step + 1);
        }
    }

    __device__ __forceinline__ void finish_forward()
    {
        float per_sum[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            sum[half] = row_sum(sum[half]);
            per_sum[half] = 1.0f / sum[half];
            const int row = at.warp_first + at.lane / 4 + half * 8;
            if (at.lane % 4 == 0 && row < at.length)
                op.log_sum_exp[statistics_at(op, at.sample, at.head) + row] = log_sum_exp_of(op, maximum[half], sum[half]);
        }
        write_rows<T, D>(op, at, output, per_sum, own[0], (T *)op.out + out_at(op, at.sample, 0, at.head), op.out_row);
    }

    __device__ __forceinline__ void finish_backward()
    {
        const float one[2] = {1.0f, 1.0f}, scale[2] = {op.scale, op.scale};
        const int64_t head = PLAN::TRANSPOSED ? op.heads + at.head : at.head;
        T *out = (T *)op.out + qkv_at(op, at.sample, 0, head);
        if constexpr (PLAN::GRADIENT)
            write_rows<T, D>(op, at, gradient, scale, own[0], out, op.row);
        if constexpr (PLAN::OUTPUT)
            write_rows<T, D>(op, at, output, one, own[0], out + op.kv_heads * op.head_size, op.row);
    }
};

template <typename T, class PLAN> __global__ void __launch_bounds__(THREADS, 1) pass_kernel(Operands op)
{
    SHARED_MEMORY(shared);
    Worker<T, PLAN> worker(op, shared);
    if (worker.tiles <= 0)
        return; /* the whole block: its sample is shorter than the longest */
    worker.go();
    if constexpr (PLAN::FORWARD_PASS)
        worker.finish_forward();
    else
        worker.finish_backward();
}

template <typename T, class PLAN> void run(const struct zinf_attention &options, const Operands &op)
{
    const int64_t heads = options.batch * (PLAN::TRANSPOSED ? op.kv_heads : op.heads);
    LAUNCH((pass_kernel<T, PLAN>), Shape(ceil_div(op.longest, OWNED), THREADS, PLAN::SHARED_BYTES, heads), op);
}

} // namespace attention
} // namespace zinf_cuda

#endif
