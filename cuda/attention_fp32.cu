/*
 * Attention of fp32 models, without tensor cores: the table of attention.h with fused multiply-adds in fp32.
 *
 * A block has 256 threads and owns 32 rows, eight threads to a row; tiles have 32 rows. Of a row of scores thread l of the eight has the columns l,
 * l + 8, ...; of a sum of D columns likewise. Rows in shared memory are D + 1 floats apart: the eight rows that eight threads read at one
 * column lie in eight banks.
 */
#include "cuda/attention.h"

namespace zinf_cuda
{
namespace attention
{

constexpr int ROWS = 32, SCALAR_THREADS = 256, SHARE = 8; /* threads of a row */

enum ScalarPass { SCALAR_FORWARD, SCALAR_DQ, SCALAR_DKV };

template <int D> struct ScalarShared {
    static constexpr int PITCH = D + 1;
    float own[2][ROWS * PITCH], tile[2][ROWS * PITCH];
    float p[ROWS][ROWS + 1], ds[ROWS][ROWS + 1];
    float statistics[2][ROWS]; /* log-sum-exp and delta of the tile's queries */
};

template <int D>
__device__ __forceinline__ void scalar_fetch(float *to, const float *head, int64_t row_elements, int first,
                                             int length, const Operands &op)
{
    for (int i = (int)threadIdx.x; i < ROWS * D; i += SCALAR_THREADS) {
        const int row = i / D, column = i % D;
        const bool there = first + row < length && column < op.head_size;
        to[row * (D + 1) + column] = there ? head[(int64_t)(first + row) * row_elements + column] : 0.0f;
    }
}

/** c[j] = own row . tile row l + 8 j */
template <int D>
__device__ __forceinline__ void scalar_multiply(float c[ROWS / SHARE], const float *own, const float *tile, int row, int l)
{
#pragma unroll
    for (int j = 0; j < ROWS / SHARE; j++)
        c[j] = 0.0f;
#pragma unroll 4
    for (int i = 0; i < D; i++) {
        const float a = own[row * (D + 1) + i];
#pragma unroll
        for (int j = 0; j < ROWS / SHARE; j++)
            c[j] += a * tile[(l + SHARE * j) * (D + 1) + i];
    }
}

/** sum[j] += p (row, ROWS) . tile column l + 8 j */
template <int D>
__device__ __forceinline__ void scalar_add(float sum[D / SHARE], const float p[ROWS + 1], const float *tile, int l)
{
#pragma unroll 2
    for (int k = 0; k < ROWS; k++) {
        const float a = p[k];
#pragma unroll
        for (int j = 0; j < D / SHARE; j++)
            sum[j] += a * tile[k * (D + 1) + l + SHARE * j];
    }
}

/* The place of a thread. */
struct ScalarPlace {
    int sample, head, group, own, length; /* own: its row of the sample, which has `length` */
    int row, l;
};

/** Online softmax of a row: c becomes p in shared memory, with dropout. */
template <int D>
__device__ __forceinline__ void scalar_softmax(const Operands &op, const ScalarPlace &at, int tile_first,
                                               float c[ROWS / SHARE], float *p, float &maximum, float &sum,
                                               float output[D / SHARE])
{
    float largest = maximum;
#pragma unroll
    for (int j = 0; j < ROWS / SHARE; j++) {
        const int key = tile_first + at.l + SHARE * j;
        c[j] = key <= at.own && key < at.length ? c[j] * op.scale : -INFINITY;
        largest = fmaxf(largest, c[j]);
    }
    for (int other = SHARE / 2; other; other /= 2)
        largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, other));
    const float kept = expf(maximum - largest); /* key 0 is in every first tile: largest is finite */
    maximum = largest;
    sum *= kept;
#pragma unroll
    for (int j = 0; j < D / SHARE; j++)
        output[j] *= kept;
#pragma unroll
    for (int j = 0; j < ROWS / SHARE; j++) {
        const int column = at.l + SHARE * j;
        const float e = expf(c[j] - largest);
        float factor[2] = {1.0f, 1.0f};
        if (op.dropout.on)
            dropout_pair(op.dropout, (uint32_t)at.sample, element_of(at.length, at.head, at.own, tile_first + column), 0, factor);
        sum += e;
        p[column] = e * factor[0];
    }
}

/** c and dp become P f and dS in shared memory. */
template <bool TRANSPOSED>
__device__ __forceinline__ void scalar_differentiate(const Operands &op, const ScalarPlace &at, int head, int tile_first,
                                                     const float c[ROWS / SHARE], const float dp[ROWS / SHARE],
                                                     const float own_statistics[2], const float (*statistics)[ROWS],
                                                     float *p_row, float *ds_row)
{
#pragma unroll
    for (int j = 0; j < ROWS / SHARE; j++) {
        const int column = at.l + SHARE * j;
        const int other = tile_first + column, query = TRANSPOSED ? other : at.own, key = TRANSPOSED ? at.own : other;
        const float log_sum_exp = TRANSPOSED ? statistics[0][column] : own_statistics[0];
        const float delta = TRANSPOSED ? statistics[1][column] : own_statistics[1];
        const bool seen = key <= query && query < at.length; /* a key of the sample, then */
        const float p = seen ? expf(c[j] * op.scale - log_sum_exp) : 0.0f;
        float factor[2] = {1.0f, 1.0f};
        if (op.dropout.on)
            dropout_pair(op.dropout, (uint32_t)at.sample, element_of(at.length, head, query, key), 0, factor);
        p_row[column] = p * factor[0];
        ds_row[column] = p * (dp[j] * factor[0] - delta);
    }
}

/** A row's sum, times `factor`, to global memory. */
template <int D>
__device__ __forceinline__ void scalar_write(const Operands &op, const ScalarPlace &at, const float sum[D / SHARE],
                                             float factor, float *head, int64_t row_elements)
{
    if (at.own >= at.length)
        return;
#pragma unroll
    for (int j = 0; j < D / SHARE; j++)
        if (at.l + SHARE * j < op.head_size)
            head[(int64_t)at.own * row_elements + at.l + SHARE * j] = sum[j] * factor;
}

/* Of 256 columns shared memory has room for one block on a multiprocessor: its threads may have all registers. Of 128, dkv with dropout's counters is to
 * have what two blocks leave it, or it spills. */
template <int D, ScalarPass PASS>
__global__ void __launch_bounds__(SCALAR_THREADS, D > 128 ? 1 : D > 64 && PASS == SCALAR_DKV ? 2 : 0) scalar_kernel(Operands op)
{
    constexpr bool TRANSPOSED = PASS == SCALAR_DKV, BACKWARD = PASS != SCALAR_FORWARD;
    SHARED_MEMORY(memory);
    ScalarShared<D> &shared = *(ScalarShared<D> *)memory;
    const int heads = (int)(TRANSPOSED ? op.kv_heads : op.heads);
    ScalarPlace at;
    at.sample = (int)blockIdx.y / heads, at.head = (int)blockIdx.y % heads, at.group = (int)(op.heads / op.kv_heads);
    at.length = __shfl_sync(ALL_LANES, length_of(op, at.sample), 0); /* uniform, as far as the compiler can see */
    const int blocks = (int)ceil_div(at.length, ROWS), block = TRANSPOSED ? (int)blockIdx.x : blocks - 1 - (int)blockIdx.x;
    const int first = block * ROWS;
    if (first < 0 || first >= at.length)
        return; /* the whole block: the sample is shorter than the longest */
    at.row = (int)threadIdx.x / SHARE, at.l = (int)threadIdx.x % SHARE, at.own = first + at.row;
    const float *qkv = (const float *)op.qkv, *dy = (const float *)op.dy;
    const int64_t key_head = op.heads + (TRANSPOSED ? at.head : at.head / at.group);
    const float *keys = qkv + qkv_at(op, at.sample, 0, key_head), *values = keys + op.kv_heads * op.head_size;
    scalar_fetch<D>(shared.own[0], TRANSPOSED ? keys : qkv + qkv_at(op, at.sample, 0, at.head), op.row, first, at.length, op);
    if (TRANSPOSED)
        scalar_fetch<D>(shared.own[1], values, op.row, first, at.length, op);
    else if (BACKWARD)
        scalar_fetch<D>(shared.own[1], dy + out_at(op, at.sample, 0, at.head), op.out_row, first, at.length, op);
    float output[D / SHARE], gradient[BACKWARD ? D / SHARE : 1], maximum = -INFINITY, sum = 0.0f;
    float own_statistics[2] = {0.0f, 0.0f};
    if (PASS == SCALAR_DQ && at.own < at.length) {
        own_statistics[0] = op.log_sum_exp[statistics_at(op, at.sample, at.head) + at.own];
        own_statistics[1] = op.delta[statistics_at(op, at.sample, at.head) + at.own];
    }
#pragma unroll
    for (int j = 0; j < D / SHARE; j++) {
        output[j] = 0.0f;
        if (BACKWARD)
            gradient[j] = 0.0f;
    }
    const int begin = TRANSPOSED ? block : 0, tiles = (TRANSPOSED ? blocks : block + 1) - begin;
    const int steps = tiles * (TRANSPOSED ? at.group : 1);
    for (int step = 0; step < steps; step++) {
        const int tile_first = (begin + step % tiles) * ROWS;
        const int head = TRANSPOSED ? at.head * at.group + step / tiles : at.head;
        if (TRANSPOSED) {
            scalar_fetch<D>(shared.tile[0], qkv + qkv_at(op, at.sample, 0, head), op.row, tile_first, at.length, op);
            scalar_fetch<D>(shared.tile[1], dy + out_at(op, at.sample, 0, head), op.out_row, tile_first, at.length, op);
            const int query = tile_first + (int)threadIdx.x;
            if (threadIdx.x < ROWS) {
                const int64_t from = statistics_at(op, at.sample, head) + query;
                shared.statistics[0][threadIdx.x] = query < at.length ? op.log_sum_exp[from] : 0.0f;
                shared.statistics[1][threadIdx.x] = query < at.length ? op.delta[from] : 0.0f;
            }
        } else {
            scalar_fetch<D>(shared.tile[0], keys, op.row, tile_first, at.length, op);
            scalar_fetch<D>(shared.tile[1], values, op.row, tile_first, at.length, op);
        }
        __syncthreads();
        float c[ROWS / SHARE], dp[ROWS / SHARE];
        scalar_multiply<D>(c, shared.own[0], shared.tile[0], at.row, at.l);
        if (BACKWARD) {
            scalar_multiply<D>(dp, shared.own[1], shared.tile[1], at.row, at.l);
            scalar_differentiate<TRANSPOSED>(op, at, head, tile_first, c, dp, own_statistics, shared.statistics,
                                             shared.p[at.row], shared.ds[at.row]);
        } else {
            scalar_softmax<D>(op, at, tile_first, c, shared.p[at.row], maximum, sum, output);
        }
        __syncwarp(); /* a row of p belongs to threads of one warp */
        if (PASS != SCALAR_DQ)
            scalar_add<D>(output, shared.p[at.row], shared.tile[1], at.l);
        if constexpr (BACKWARD)
            scalar_add<D>(gradient, shared.ds[at.row], shared.tile[0], at.l);
        __syncthreads();
    }
    float *out = (float *)op.out;
    if constexpr (PASS == SCALAR_FORWARD) {
        for (int other = SHARE / 2; other; other /= 2)
            sum += __shfl_xor_sync(ALL_LANES, sum, other);
        if (at.l == 0 && at.own < at.length)
            op.log_sum_exp[statistics_at(op, at.sample, at.head) + at.own] = maximum + logf(sum);
        scalar_write<D>(op, at, output, 1.0f / sum, out + out_at(op, at.sample, 0, at.head), op.out_row);
    } else {
        float *to = out + qkv_at(op, at.sample, 0, TRANSPOSED ? key_head : at.head);
        scalar_write<D>(op, at, gradient, op.scale, to, op.row);
        if (TRANSPOSED)
            scalar_write<D>(op, at, output, 1.0f, to + op.kv_heads * op.head_size, op.row);
    }
}

template <int D, ScalarPass PASS> void run_scalar(const struct zinf_attention &options, const Operands &op)
{
    const int64_t heads = options.batch * (PASS == SCALAR_DKV ? op.kv_heads : op.heads);
    LAUNCH((scalar_kernel<D, PASS>),
           Shape(ceil_div(op.longest, ROWS), SCALAR_THREADS, (int)sizeof(ScalarShared<D>), heads), op);
}

template <ScalarPass PASS> void run_scalar_size(const struct zinf_attention &options, const Operands &op)
{
    if (op.head_size <= 64)
        run_scalar<64, PASS>(options, op);
    else if (op.head_size <= 128)
        run_scalar<128, PASS>(options, op);
    else
        run_scalar<256, PASS>(options, op);
}

} // namespace attention

void attention_forward_fp32(const struct zinf_attention &options, attention::Operands op)
{
    attention::run_scalar_size<attention::SCALAR_FORWARD>(options, op);
}

void attention_backward_fp32(const struct zinf_attention &options, attention::Operands op)
{
    attention::run_scalar_size<attention::SCALAR_DQ>(options, op);
    attention::run_scalar_size<attention::SCALAR_DKV>(options, op);
}

} // namespace zinf_cuda
