/*
 * Attention backward on compute capability 9.0a: all three gradients by one kernel, five products a tile. A block owns keys and goes over the
 * queries that see them, from its diagonal on, as the dkv pass of attention.h does; the gradient of a tile of queries is a sum over blocks.
 *
 * That sum has one order all the same. A block adds to a tile when the blocks of all later keys have: a counter a tile gives them turns. Blocks
 * begin in the order of descending keys, so each finds its turn come, or one step away: its predecessor has begun before it and has one
 * block of queries less before that tile. Nobody waits for a block that has not begun: blocks take their numbers when they begin. The first to
 * come, the block of the diagonal, writes: nothing has to be zero before. (FlashAttention-3's deterministic backward pass gives turns likewise.)
 *
 * dS, made transposed in registers, goes through shared memory to become the left side of dQ = dS K; each computing warpgroup makes half of dQ. The
 * sums of dQ are fp32 in the order of accumulators; a second kernel rounds them into dqkv.
 */
#ifndef ZINF_CUDA_ATTENTION_HOPPER_BACKWARD_H
#define ZINF_CUDA_ATTENTION_HOPPER_BACKWARD_H

#include "cuda/attention_hopper.h"

namespace zinf_cuda
{
namespace attention
{

/* What the kernel needs beside the tiles: dS of two steps (while one is multiplied the next is written), and dQ on its way out. */
template <int D_, int TILE_, int STAGES_, bool DROPS_> struct GradientPlan : HopperPlan<D_, TILE_, STAGES_, DKV, DROPS_> {
    typedef HopperPlan<D_, TILE_, STAGES_, DKV, DROPS_> Base;
    static constexpr int SCORES_AT = Base::STATISTICS_AT, SCORES_BYTES = HOPPER_OWNED * TILE_ * 2;
    static constexpr int QUERIES_AT = SCORES_AT + 2 * SCORES_BYTES, QUERIES_BYTES = TILE_ * D_ * 4;
    static constexpr int STATISTICS_AT = QUERIES_AT + QUERIES_BYTES;
    static constexpr int BARRIERS_AT = STATISTICS_AT + STAGES_ * Base::STATISTICS * 4;
    static constexpr int BARRIERS = 1 + 3 * STAGES_ + 2; /* the last two: dQ is there, dQ has gone */
    static constexpr int SHARED_BYTES = BARRIERS_AT + BARRIERS * 8 + TILE_ALIGNMENT;
    static_assert(SHARED_BYTES <= 227 * 1024, "what a block may have on compute capability 9.0");
    static_assert(TILE_ * D_ == QUERY_TILE_FLOATS, "two warpgroups make dQ in products of 64 by 64");
};

#if HOPPER_CODE

template <typename T, class PLAN> struct GradientWorker : HopperWorker<T, PLAN> {
    typedef HopperWorker<T, PLAN> Base;
    static constexpr int D = PLAN::D, TILE = PLAN::TILE;
    using Base::at, Base::op, Base::shared;

    struct Sums {
        float keys[D / 8][4], values[D / 8][4];
    };

    __device__ __forceinline__ GradientWorker(const Operands &op, unsigned char *unaligned, int order, int row)
        : Base(op, unaligned, order, row)
    {
    }

    __device__ __forceinline__ unsigned char *scores(int step) const
    {
        return shared + PLAN::SCORES_AT + step % 2 * PLAN::SCORES_BYTES;
    }

    __device__ __forceinline__ float *queries() const
    {
        return (float *)(shared + PLAN::QUERIES_AT);
    }

    __device__ __forceinline__ uint64_t *queries_there() const
    {
        return Base::barriers + PLAN::BARRIERS - 2;
    }

    __device__ __forceinline__ uint64_t *queries_gone() const
    {
        return Base::barriers + PLAN::BARRIERS - 1;
    }

    __device__ __forceinline__ void make_barriers() const
    {
        if (threadIdx.x == 0) {
            barrier_init(queries_there(), COMPUTING / 32);
            barrier_init(queries_gone(), 1);
        }
        Base::make_barriers();
    }

    /* --- The first warpgroup --- */

    /** By one thread: dQ of each step to its sum in device memory, in turn. */
    __device__ __forceinline__ void add_queries() const
    {
        for (int step = 0; step < Base::steps(); step++) {
            const int first = Base::first_of(step), before = (first - at.first) / HOPPER_OWNED; /* blocks whose keys are later */
            const int64_t tile = query_tile_at(op, at.sample, Base::query_head(step), first / TILE, TILE);
            barrier_wait(queries_there(), step % 2);
            wait_turn(op.turns + tile, before);
            copy_out(op.query_sums + tile * QUERY_TILE_FLOATS, queries(), PLAN::QUERIES_BYTES, before > 0);
            copies_out_read();
            barrier_arrive(queries_gone());
            copies_out_made();
            give_turn(op.turns + tile);
        }
    }

    __device__ __forceinline__ void serve(const Maps &maps) const
    {
        if (threadIdx.x == 64)
            add_queries();
        else
            Base::bring_all(maps);
    }

    /* --- The other warpgroups --- */

    /** dS^T of this warp's keys into scores(step): rows are keys, columns queries. */
    __device__ __forceinline__ void put_scores(int step, const uint32_t (*ds)[4]) const
    {
        const int row = at.warp_first - at.first + at.lane % 16;
        unsigned char *first = scores(step) + tile_offset<PANEL>(row, at.lane / 16);
#pragma unroll
        for (int k = 0; k < TILE / 16; k++) /* chunks 2 k and 2 k + 1 of the row; the XOR is that of tile_offset() */
            store_matrices((unsigned char *)((uintptr_t)first ^ k % 4 * 32) + k / 4 * HOPPER_OWNED * PANEL_ROW, ds[k]);
        writes_made();
    }

    /** Begin dq (64, 64) = this warpgroup's part of dS K: half of the columns, or where the head has one panel, of the queries. */
    __device__ __forceinline__ void multiply_scores(float (*dq)[4], int step) const
    {
        const uint32_t panel = (uint32_t)((int)threadIdx.x / GROUP_THREADS - 1) * HOPPER_OWNED * PANEL_ROW;
        const uint32_t rows = shared_address(scores(step)) + (D == PANEL ? panel : 0);
        const uint32_t columns = shared_address(Base::own(0)) + (D == PANEL ? 0 : panel);
        hold<8>(dq);
        products_begin();
#pragma unroll
        for (int k = 0; k < HOPPER_OWNED / 16; k++)
            wgmma_across<T>(dq, sum_by_columns(rows + k * 16 * PANEL_ROW, HOPPER_OWNED),
                            sum_by_columns(columns + k * 16 * PANEL_ROW, HOPPER_OWNED), k > 0);
        products_commit();
    }

    /** dq to the thread that adds it, in the order of accumulators, as query_kernel() reads it. */
    __device__ __forceinline__ void hand_over(int step, const float (*dq)[4]) const
    {
        barrier_wait(queries_gone(), step % 2 ^ 1);
#pragma unroll
        for (int n = 0; n < 8; n++) {
            Pack<float, 4> pack;
            memcpy(&pack, dq[n], sizeof pack);
            store(queries() + (n * COMPUTING + (int)threadIdx.x - GROUP_THREADS) * 4, pack);
        }
        writes_made();
        __syncwarp();
        if (at.lane == 0)
            barrier_arrive(queries_there());
    }

    __device__ __forceinline__ void take(int step, Sums &sums)
    {
        float s[TILE / 8][4], dp[TILE / 8][4], dq[8][4];
        uint32_t p[TILE / 16][4], ds[TILE / 16][4];
        const float *from = Base::numbers(step);
        Base::multiply(s, Base::own(0), Base::tile(step, 0));
        Base::wait_full(step, 1);
        Base::multiply(dp, Base::own(1), Base::tile(step, 1));
        products_wait<1>();
        hold<TILE / 8>(s);
        probabilities<true, TILE>(op, at, Base::first_of(step), s, nullptr, from);
        products_wait<0>();
        hold<TILE / 8>(dp);
        differentiate<true, true, PLAN::DROPS, TILE>(op, at, Base::query_head(step), Base::first_of(step), s, dp, nullptr, from + TILE);
        Base::pack(p, s);
        Base::add_product(sums.values, p, Base::tile(step, 1));
        Base::pack(ds, dp);
        put_scores(step, ds);
        groups_barrier(COMPUTING); /* all dS of this step are there, and nobody multiplies those before the last */
        multiply_scores(dq, step);
        Base::add_product(sums.keys, ds, Base::tile(step, 0));
        products_wait<1>();
        hold<D / 8>(sums.values);
        hold<TILE / 16>(p);
        hold<8>(dq);
        hand_over(step, dq);
        products_wait<0>();
        hold<D / 8>(sums.keys);
        hold<TILE / 16>(ds);
    }

    __device__ __forceinline__ void compute()
    {
        Sums sums;
        const float one[2] = {1.0f, 1.0f}, scale[2] = {op.scale, op.scale};
        Base::template clear<D / 8>(sums.keys);
        Base::template clear<D / 8>(sums.values);
        barrier_wait(Base::barriers, 0);
        for (int step = 0; step < Base::steps(); step++) {
            Base::wait_full(step, 0);
            take(step, sums);
            Base::release(step);
        }
        groups_barrier(COMPUTING); /* own rows become room for all */
        T *out = (T *)op.out + qkv_at(op, at.sample, 0, op.heads + at.head);
        write_rows<T, D>(op, at, sums.keys, scale, Base::own(0), out, op.row);
        write_rows<T, D>(op, at, sums.values, one, Base::own(0), out + op.kv_heads * op.head_size, op.row);
    }
};

#endif

/** Owned keys in the order in which blocks begin: of each head the last first. */
template <typename T, class PLAN>
__global__ void __launch_bounds__(HOPPER_THREADS, 1) gradient_kernel(const GRID_CONSTANT Maps maps, const GRID_CONSTANT Operands op)
{
#if HOPPER_CODE
    SHARED_MEMORY(shared);
    if (threadIdx.x == 0)
        *(int *)shared = atomicAdd(op.begun, 1);
    __syncthreads();
    const int number = *(const int *)shared, blocks = (int)gridDim.x;
    GradientWorker<T, PLAN> worker(op, shared, blocks - 1 - number % blocks, number / blocks);
    if (worker.tiles <= 0)
        return; /* the whole block: its sample is shorter than the longest */
    worker.make_barriers();
    if (threadIdx.x < GROUP_THREADS) {
        give_registers<40>();
        worker.serve(maps);
    } else {
        take_registers<232>();
        worker.compute();
    }
#endif
}

/** dq of dqkv: a block takes a tile of queries of a head, a warp 16 of them. */
template <typename T, class PLAN> __global__ void __launch_bounds__(PLAN::TILE * 2) query_kernel(const GRID_CONSTANT Operands op)
{
    constexpr int D = PLAN::D, TILE = PLAN::TILE;
    SHARED_MEMORY(shared);
    Owner at;
    place_block<false, TILE>(op, at, (int)blockIdx.x, (int)blockIdx.y);
    if (at.first < 0)
        return; /* the whole block: its sample is shorter than the longest */
    at.warp_first = at.first + (int)threadIdx.x / 32 * 16;
    const float *from = op.query_sums + query_tile_at(op, at.sample, at.head, at.first / TILE, TILE) * QUERY_TILE_FLOATS;
    const float scale[2] = {op.scale, op.scale};
    float sum[D / 8][4];
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
        const int maker = n / 8 * GROUP_THREADS + (int)threadIdx.x; /* where the head has one panel n / 8 is 0 */
        const Pack<float, 4> pack = load<4>(from + (n % 8 * COMPUTING + maker) * 4);
        memcpy(sum[n], &pack, sizeof pack);
    }
    write_rows<T, D>(op, at, sum, scale, shared, (T *)op.out + qkv_at(op, at.sample, 0, at.head), op.row);
}

template <typename T, class PLAN> void run_gradients(const struct zinf_attention &options, const Operands &op)
{
    LAUNCH((gradient_kernel<T, PLAN>),
           Shape(ceil_div(op.longest, HOPPER_OWNED), HOPPER_THREADS, PLAN::SHARED_BYTES, options.batch * op.kv_heads),
           maps_of(options, op), op);
    LAUNCH((query_kernel<T, PLAN>),
           Shape(ceil_div(op.longest, PLAN::TILE), PLAN::TILE * 2, PLAN::TILE * PLAN::D * 2, options.batch * op.heads), op);
}

} // namespace attention
} // namespace zinf_cuda

#endif
