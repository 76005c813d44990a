/*
 * Attention on compute capability 9.0a, bf16 and fp16: what forward and backward (attention_hopper_backward.h) share, by wgmma on tiles that the
 * copy engine brings, and the forward pass. After FlashAttention-3 (arXiv:2407.08608): its roles and, forward, its overlap of one tile's softmax
 * with the next tile's scores; without its clusters and persistent blocks.
 *
 * A block is three warpgroups. The first brings tiles: one thread asks the copy engine, backward a warp fetches the statistics. The other two own 64 rows
 * each and compute; what one does between its products hides behind the other's. A stage holds a tile of both kinds; `full` of a stage's
 * first and second tile and `empty` hand it over. Scores and sums stay in registers, which the first warpgroup gives up for the others.
 */
#ifndef ZINF_CUDA_ATTENTION_HOPPER_H
#define ZINF_CUDA_ATTENTION_HOPPER_H

#include "cuda/attention_math.h"
#include "cuda/hopper.h"

namespace zinf_cuda
{
namespace attention
{

constexpr int GROUPS = 2, GROUP_ROWS = 64, GROUP_THREADS = 128, HOPPER_OWNED = GROUPS * GROUP_ROWS;
constexpr int COMPUTING = GROUPS * GROUP_THREADS, HOPPER_THREADS = COMPUTING + GROUP_THREADS;
constexpr int TILE_ALIGNMENT = 1024;

/* What a pass needs, for head size D (rounded up) and tiles of TILE rows. */
template <int D_, int TILE_, int STAGES_, Pass PASS, bool DROPS_> struct HopperPlan : Kind<PASS> {
    static constexpr int D = D_, TILE = TILE_, STAGES = STAGES_;
    static constexpr bool DROPS = DROPS_; /* has dropout */
    static constexpr int COLUMNS = D_ % 128 == 0 ? 128 : 64; /* of a product whose columns are the head's */
    static constexpr int OWN_BYTES = HOPPER_OWNED * D_ * 2, TILE_BYTES = TILE_ * D_ * 2, STAGE_BYTES = 2 * TILE_BYTES;
    static constexpr int OWN_COUNT = Kind<PASS>::GRADIENT ? 2 : 1;
    static constexpr int STATISTICS = Kind<PASS>::TRANSPOSED ? 2 * TILE_ : 0; /* floats a stage: log-sum-exp, delta */
    static constexpr int STATISTICS_AT = OWN_COUNT * OWN_BYTES + STAGES_ * STAGE_BYTES;
    static constexpr int BARRIERS_AT = STATISTICS_AT + STAGES_ * STATISTICS * 4;
    static constexpr int SHARED_BYTES = BARRIERS_AT + (1 + 3 * STAGES_) * 8 + TILE_ALIGNMENT;
    static_assert(SHARED_BYTES <= 227 * 1024, "what a block may have on compute capability 9.0");
    static_assert(D_ % PANEL == 0 && (TILE_ == 64 || TILE_ == 128), "panels, boxes and products");
};

struct Maps {
    TensorMap qkv, dy;
};

inline TensorMap map_of(const void *tensor, const struct zinf_attention &options, int64_t heads, int64_t row)
{
    const int64_t size = options.head_size, length = options.sequence, row_bytes = row * 2;
    if (options.boundaries)
        return tensor_map_of(packed_tensor(tensor, size, heads, options.tokens, row_bytes));
    return tensor_map_of({tensor, 4, {size, heads, length, options.batch}, {size * 2, row_bytes, length * row_bytes}});
}

#if HOPPER_CODE

template <typename T, class PLAN> struct HopperWorker {
    static constexpr int D = PLAN::D, TILE = PLAN::TILE, STAGES = PLAN::STAGES;

    const Operands &op;
    Owner at;
    unsigned char *shared;
    uint64_t *barriers; /* own rows; then of each stage: first tile, second tile, empty */
    int end;            /* where samples are packed: the token of all that is behind the sample */
    int begin, tiles;   /* first tile of the other side, their number, none where the block has no rows; dkv: of one query head */

    __device__ __forceinline__ HopperWorker(const Operands &op, unsigned char *unaligned, int order, int row) : op(op)
    {
        shared = unaligned + (TILE_ALIGNMENT - shared_address(unaligned) % TILE_ALIGNMENT) % TILE_ALIGNMENT;
        barriers = (uint64_t *)(shared + PLAN::BARRIERS_AT);
        place_block<PLAN::TRANSPOSED, HOPPER_OWNED>(op, at, order, row);
        end = __shfl_sync(ALL_LANES, op.boundaries ? op.boundaries[at.sample + 1] : 0, 0);
        at.warp_first = at.first + ((int)threadIdx.x - GROUP_THREADS) / 32 * 16;
        const int behind = at.first + HOPPER_OWNED < at.length ? at.first + HOPPER_OWNED : at.length;
        begin = PLAN::TRANSPOSED ? at.first / TILE : 0;
        tiles = (int)ceil_div(PLAN::TRANSPOSED ? at.length : behind, TILE) - begin;
    }

    /* --- What both roles know --- */

    __device__ __forceinline__ int steps() const
    {
        return PLAN::TRANSPOSED ? tiles * at.group : tiles;
    }

    __device__ __forceinline__ int query_head(int step) const
    {
        return PLAN::TRANSPOSED ? at.head * at.group + step / tiles : at.head;
    }

    __device__ __forceinline__ int first_of(int step) const
    {
        return (begin + (PLAN::TRANSPOSED ? step % tiles : step)) * TILE;
    }

    __device__ __forceinline__ unsigned char *own(int which) const
    {
        return shared + which * PLAN::OWN_BYTES;
    }

    __device__ __forceinline__ unsigned char *tile(int step, int which) const
    {
        return shared + PLAN::OWN_COUNT * PLAN::OWN_BYTES + step % STAGES * PLAN::STAGE_BYTES + which * PLAN::TILE_BYTES;
    }

    __device__ __forceinline__ float *numbers(int step) const
    {
        return (float *)(shared + PLAN::STATISTICS_AT) + step % STAGES * PLAN::STATISTICS;
    }

    __device__ __forceinline__ uint64_t *full(int step, int which) const
    {
        return barriers + 1 + step % STAGES * 3 + which;
    }

    __device__ __forceinline__ uint64_t *empty(int step) const
    {
        return full(step, 2);
    }

    __device__ __forceinline__ void make_barriers() const
    {
        if (threadIdx.x == 0) {
            barrier_init(barriers, 1);
            for (int i = 0; i < STAGES; i++) {
                barrier_init(full(i, 0), PLAN::TRANSPOSED ? 1 + 32 : 1); /* statistics come by a warp */
                barrier_init(full(i, 1), 1);
                barrier_init(empty(i), COMPUTING / 32);
            }
            barriers_made();
        }
        __syncthreads();
    }

    /* --- The first warpgroup --- */

    __device__ __forceinline__ void bring(unsigned char *to, int rows, const TensorMap &map, uint64_t *barrier, int64_t head,
                                          int first) const
    {
        if (op.boundaries) {
#pragma unroll 1
            for (int panel = 0; panel < D / PANEL; panel++)
#pragma unroll 1
                for (int row = 0; row < rows; row += BOX_ROWS)
                    copy_packed_box(to + (panel * rows + row) * PANEL_ROW, map, barrier, panel * PANEL, (int)head, first + row - at.length, end);
            return;
        }
        for (int panel = 0; panel < D / PANEL; panel++)
            for (int row = 0; row < rows; row += BOX_ROWS)
                copy_box(to + (panel * rows + row) * PANEL_ROW, map, barrier, panel * PANEL, (int)head, first + row, at.sample);
    }

    __device__ __forceinline__ void bring_own(const Maps &maps) const
    {
        const int64_t key_head = op.heads + at.head;
        barrier_expect(barriers, PLAN::OWN_COUNT * PLAN::OWN_BYTES);
        bring(own(0), HOPPER_OWNED, maps.qkv, barriers, PLAN::TRANSPOSED ? key_head : at.head, at.first);
        if (PLAN::GRADIENT)
            bring(own(1), HOPPER_OWNED, PLAN::TRANSPOSED ? maps.qkv : maps.dy, barriers,
                  PLAN::TRANSPOSED ? key_head + op.kv_heads : at.head, at.first);
    }

    __device__ __forceinline__ void wait_empty(int step) const
    {
        barrier_wait(empty(step), step / STAGES % 2 ^ 1);
    }

    __device__ __forceinline__ void bring_tiles(const Maps &maps) const
    {
        for (int step = 0; step < steps(); step++) {
            const int64_t key_head = op.heads + at.head / at.group, head = PLAN::TRANSPOSED ? query_head(step) : key_head;
            wait_empty(step);
            barrier_expect(full(step, 0), PLAN::TILE_BYTES);
            bring(tile(step, 0), TILE, maps.qkv, full(step, 0), head, first_of(step));
            barrier_expect(full(step, 1), PLAN::TILE_BYTES);
            bring(tile(step, 1), TILE, PLAN::TRANSPOSED ? maps.dy : maps.qkv, full(step, 1),
                  PLAN::TRANSPOSED ? head : head + op.kv_heads, first_of(step));
        }
    }

    __device__ __forceinline__ void bring_statistics() const
    {
        for (int step = 0; step < steps(); step++) {
            const int first = first_of(step), there = at.length - first; /* a query that is not there has probability 0 */
            const int64_t from = statistics_at(op, at.sample, query_head(step)) + first;
            float *to = numbers(step);
            wait_empty(step);
            for (int i = at.lane; i < TILE; i += 32) {
                to[i] = i < there ? op.log_sum_exp[from + i] * LOG2_E : INFINITY;
                to[TILE + i] = i < there ? op.delta[from + i] : 0.0f;
            }
            barrier_arrive(full(step, 0));
        }
    }

    __device__ __forceinline__ void bring_all(const Maps &maps) const
    {
        const int warp = (int)threadIdx.x / 32;
        if (warp == 0 && at.lane == 0) {
            bring_own(maps);
            bring_tiles(maps);
        } else if (PLAN::TRANSPOSED && warp == 1) {
            bring_statistics();
        }
    }

    /* --- The other warpgroups --- */

    __device__ __forceinline__ int group_first() const
    {
        return at.first + ((int)threadIdx.x / GROUP_THREADS - 1) * GROUP_ROWS;
    }

    __device__ __forceinline__ void wait_full(int step, int which) const
    {
        barrier_wait(full(step, which), step / STAGES % 2);
    }

    __device__ __forceinline__ void release(int step) const
    {
        __syncwarp();
        if (at.lane == 0)
            barrier_arrive(empty(step));
    }

    /** Begin c (64 own rows, TILE) = own . tile^T. */
    __device__ __forceinline__ void multiply(float (*c)[4], const unsigned char *own, const unsigned char *tile) const
    {
        const uint32_t rows = shared_address(own) + (uint32_t)(group_first() - at.first) * PANEL_ROW, columns = shared_address(tile);
        hold<TILE / 8>(c);
        products_begin();
#pragma unroll
        for (int k = 0; k < D / 16; k++) {
            const uint32_t panel = k / 4, inside = k % 4 * 32;
            wgmma<T, TILE>(c, rows_by_sum(rows + panel * HOPPER_OWNED * PANEL_ROW + inside),
                           rows_by_sum(columns + panel * TILE * PANEL_ROW + inside), k > 0);
        }
        products_commit();
    }

    /** Begin sum (64 own rows, D) += p (64, TILE) . tile. */
    __device__ __forceinline__ void add_product(float (*sum)[4], uint32_t (*p)[4], const unsigned char *tile) const
    {
        constexpr int COLUMNS = PLAN::COLUMNS;
        const uint32_t address = shared_address(tile);
        hold<D / 8>(sum);
        products_begin();
#pragma unroll
        for (int k = 0; k < TILE / 16; k++)
#pragma unroll
            for (int n = 0; n < D / COLUMNS; n++)
                wgmma<T, COLUMNS>(sum + n * (COLUMNS / 8), p[k],
                                  sum_by_columns(address + n * (COLUMNS / PANEL) * TILE * PANEL_ROW + k * 16 * PANEL_ROW, TILE));
        products_commit();
    }

    /** scores, rounded, as the left side of a product. */
    __device__ __forceinline__ static void pack(uint32_t (*p)[4], const float (*s)[4])
    {
#pragma unroll
        for (int k = 0; k < TILE / 16; k++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                p[k][i] = pack2<T>(s[k * 2 + i / 2][i % 2 * 2], s[k * 2 + i / 2][i % 2 * 2 + 1]);
    }

    template <int COUNT> __device__ __forceinline__ static void clear(float (*sum)[4])
    {
#pragma unroll
        for (int n = 0; n < COUNT; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                sum[n][i] = 0.0f;
    }

    /** Tiles that rows of this group see; the block's other tiles are beyond them. */
    __device__ __forceinline__ int seen_tiles() const
    {
        const int seen = (int)ceil_div(group_first() + GROUP_ROWS, TILE);
        return seen < tiles ? seen : tiles;
    }

    __device__ __forceinline__ T *out_rows(int64_t head) const
    {
        return (T *)op.out + (PLAN::FORWARD_PASS ? out_at(op, at.sample, 0, head) : qkv_at(op, at.sample, 0, head));
    }

    /** Softmax of tile step + 1 runs while tile step is added. */
    __device__ __forceinline__ void forward()
    {
        float s[TILE / 8][4], output[D / 8][4], maximum[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f}, kept[2], per_sum[2];
        uint32_t p[TILE / 16][4];
        const int last = seen_tiles() - 1;
        clear<D / 8>(output);
        barrier_wait(barriers, 0);
        wait_full(0, 0);
        multiply(s, own(0), tile(0, 0));
        products_wait<0>();
        hold<TILE / 8>(s);
        softmax<PLAN::DROPS, TILE>(op, at, 0, s, maximum, sum, kept);
        pack(p, s);
        for (int step = 0; step < last; step++) {
            wait_full(step + 1, 0);
            multiply(s, own(0), tile(step + 1, 0));
            wait_full(step, 1);
            add_product(output, p, tile(step, 1));
            products_wait<1>();
            hold<TILE / 8>(s);
            softmax<PLAN::DROPS, TILE>(op, at, first_of(step + 1), s, maximum, sum, kept);
            products_wait<0>();
            hold<D / 8>(output);
            hold<TILE / 16>(p);
            release(step);
            rescale<D>(output, kept);
            pack(p, s);
        }
        wait_full(last, 1);
        add_product(output, p, tile(last, 1));
        products_wait<0>();
        hold<D / 8>(output);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = at.warp_first + accumulator_row(at.lane, half * 2);
            sum[half] = row_sum(sum[half]);
            per_sum[half] = 1.0f / sum[half];
            if (at.lane % 4 == 0 && row < at.length)
                op.log_sum_exp[statistics_at(op, at.sample, at.head) + row] = log_sum_exp_of(op, maximum[half], sum[half]);
        }
        groups_barrier(COMPUTING); /* own rows become room for all */
        write_rows<T, D>(op, at, output, per_sum, own(0), out_rows(at.head), op.out_row);
    }
};

#endif

/** Late queries, which see the most keys, first. */
template <typename T, class PLAN>
__global__ void __launch_bounds__(HOPPER_THREADS, 1) hopper_kernel(const GRID_CONSTANT Maps maps, const GRID_CONSTANT Operands op)
{
#if HOPPER_CODE
    SHARED_MEMORY(shared);
    HopperWorker<T, PLAN> worker(op, shared, (int)blockIdx.x, (int)blockIdx.y);
    if (worker.tiles <= 0)
        return; /* the whole block: its sample is shorter than the longest */
    worker.make_barriers();
    if (threadIdx.x < GROUP_THREADS) {
        give_registers<40>();
        worker.bring_all(maps);
    } else {
        take_registers<232>();
        worker.forward();
    }
#endif
}

/* How the copy engine finds qkv and dy. */
inline Maps maps_of(const struct zinf_attention &options, const Operands &op)
{
    Maps maps;
    maps.qkv = map_of(op.qkv, options, op.heads + 2 * op.kv_heads, op.row);
    maps.dy = op.dy ? map_of(op.dy, options, op.heads, op.out_row) : maps.qkv;
    return maps;
}

template <typename T, class PLAN> void run_hopper(const struct zinf_attention &options, const Operands &op, const Maps &maps)
{
    LAUNCH((hopper_kernel<T, PLAN>),
           Shape(ceil_div(op.longest, HOPPER_OWNED), HOPPER_THREADS, PLAN::SHARED_BYTES, options.batch * op.heads), maps, op);
}

} // namespace attention
} // namespace zinf_cuda

#endif
