/*
 * Instructions of compute capability 9.0a: products of a warpgroup (wgmma), the copy engine for tiles (TMA) and the barriers in shared memory
 * that it completes on (mbarrier). PTX ISA 8.0 and later, chapters "Asynchronous Warpgroup Level Matrix Multiply-Accumulate", "Tensors",
 * "mbarrier". Only code compiled for sm_90a has them (HOPPER_CODE); the host launches it on such a card only.
 *
 * Tiles in shared memory are cut in panels of 64 columns of 16 bits: row r of a panel lies at 128 r bytes, its eight 16-byte chunks permuted by
 * XOR with r mod 8 ("128-byte swizzle"), a panel of R rows takes 128 R bytes and begins at a multiple of 1024. TMA writes and wgmma reads
 * this order by themselves; for D = 64 it is the order of tile_offset().
 *
 * Emulated: copies are made when somebody waits for their barrier, products when they are waited for, both from the bytes of shared memory at that
 * time, through the same descriptors.
 */
#ifndef ZINF_CUDA_HOPPER_H
#define ZINF_CUDA_HOPPER_H

#include "cuda/index.h"
#include "cuda/mma.h"
#include "cuda/tensor_map.h"

#if defined(__CUDA_ARCH__) && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HOPPER_CODE 0
#else
#define HOPPER_CODE 1 /* the host's pass reads it too */
#endif

#if defined(ZINF_CUDA_EMULATION)
#define GRID_CONSTANT
#else
#define GRID_CONSTANT __grid_constant__
#endif

namespace zinf_cuda
{

constexpr int PANEL = 64, PANEL_ROW = 128; /* columns of a panel, bytes of its row */

/* --- Descriptors of tiles for wgmma (PTX ISA, "Matrix Descriptor Format"): address, two strides in units of 16 bytes, the swizzle --- */

HD uint64_t tile_descriptor(uint32_t address, uint32_t leading_bytes, uint32_t stride_bytes)
{
    const uint64_t swizzle_128 = 1;
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)(leading_bytes >> 4) << 16 | (uint64_t)(stride_bytes >> 4) << 32 | swizzle_128 << 62;
}

/** Rows of the tile are the product's rows (of A) or columns (of B), its columns are summed over: 16 from `address` on. */
HD uint64_t rows_by_sum(uint32_t address)
{
    return tile_descriptor(address, 16, 8 * PANEL_ROW); /* groups of eight rows follow each other; the first stride has no use */
}

/** Rows of the tile are summed over, 16 from `address` on; its columns are the product's columns, panel after panel of `rows` rows. */
HD uint64_t sum_by_columns(uint32_t address, int rows)
{
    return tile_descriptor(address, (uint32_t)rows * PANEL_ROW, 8 * PANEL_ROW);
}

#if defined(ZINF_CUDA_EMULATION)

inline uint32_t shared_address(const void *pointer)
{
    return (uint32_t)((const unsigned char *)pointer - cuda_emulation::dynamic_shared());
}

inline void barrier_init(uint64_t *barrier, int count)
{
    cuda_emulation::barrier_init(barrier, count);
}

inline void barriers_made()
{
}

inline void barrier_arrive(uint64_t *barrier)
{
    cuda_emulation::barrier_arrive(barrier, 0);
}

inline void barrier_expect(uint64_t *barrier, int bytes)
{
    cuda_emulation::barrier_arrive(barrier, bytes);
}

inline void barrier_wait(uint64_t *barrier, int parity)
{
    cuda_emulation::barrier_wait(barrier, parity);
}

inline void copy_box(void *to, const TensorMap &map, uint64_t *barrier, int column, int head, int token, int sample)
{
    cuda_emulation::queue_box(to, barrier, [=, &map](void *box) {
        for (int row = 0; row < BOX_ROWS; row++)
            for (int i = 0; i < PANEL; i++) {
                const int64_t at[TENSOR_DIMENSIONS] = {column + i, head, token + row, sample, PACKED};
                const uint16_t bits = tensor_element(map, at);
                memcpy((unsigned char *)box + tile_offset<PANEL>(row, i / 8) + i % 8 * 2, &bits, 2);
            }
        return BOX_ROWS * PANEL_ROW;
    });
}

inline void copy_packed_box(void *to, const TensorMap &map, uint64_t *barrier, int column, int head, int from_end, int end)
{
    copy_box(to, map, barrier, column, head, PACKED + from_end, end);
}

inline void copy_out(float *to, const void *from, int bytes, bool add)
{
    cuda_emulation::queue_out([=] {
        for (int i = 0; i < bytes / 4; i++)
            to[i] = ((const float *)from)[i] + (add ? to[i] : 0.0f);
    });
}

inline void copies_out_read()
{
    cuda_emulation::make_out();
}

inline void copies_out_made()
{
    cuda_emulation::end_out();
}

inline void wait_turn(const int *turn, int number)
{
    if (*turn != number)
        cuda_emulation::give_up("a turn that nobody gives");
    cuda_emulation::take_turn();
}

inline void give_turn(int *turn)
{
    cuda_emulation::give_turn();
    (*turn)++;
}

inline void store_matrices(void *row, const uint32_t a[4])
{
    uint32_t *words = cuda_emulation::warp_words();
    const int lane = cuda_emulation::lane();
    memcpy(words + lane * 16, a, 16);
    cuda_emulation::warp_barrier();
    for (int i = 0; i < 4; i++)
        memcpy((unsigned char *)row + i * 4, &words[(lane % 8 * 4 + i) * 16 + lane / 8], 4);
    cuda_emulation::warp_barrier();
}

inline void writes_made()
{
}

inline void groups_barrier(int threads)
{
    cuda_emulation::named_barrier(threads);
}

template <int REGISTERS> void take_registers()
{
}

template <int REGISTERS> void give_registers()
{
}

inline uint32_t swizzled(uint32_t address)
{
    return address ^ (address >> 7 & 7) << 4;
}

/** The 16 elements that a product sums over for row or column `outer` of a tile, by its descriptor. */
template <typename T, bool SUM_BY_COLUMNS> void tile_run(uint64_t descriptor, int outer, float run[16])
{
    const uint32_t leading = (uint32_t)(descriptor >> 16 & 0x3fff) << 4, stride = (uint32_t)(descriptor >> 32 & 0x3fff) << 4;
    const unsigned char *shared = cuda_emulation::dynamic_shared();
    uint32_t address = (uint32_t)(descriptor & 0x3fff) << 4;
    T element[16];
    if (SUM_BY_COLUMNS) {
        address += (uint32_t)(outer / 64) * leading + (uint32_t)(outer % 64) * 2;
        for (uint32_t k = 0; k < 16; k++)
            memcpy(&element[k], shared + swizzled(address + k / 8 * stride + k % 8 * PANEL_ROW), 2);
    } else {
        address += (uint32_t)(outer / 8) * stride + (uint32_t)(outer % 8) * PANEL_ROW;
        for (uint32_t chunk = 0; chunk < 2; chunk++)
            memcpy(&element[chunk * 8], shared + swizzled(address + chunk * 16), 16);
    }
    for (int k = 0; k < 16; k++)
        run[k] = widen(element[k]);
}

/** d (64, N) += the calling thread's rows by a tile's columns. */
template <typename T, int N, bool SUM_BY_COLUMNS> void add_rows(float (*d)[4], const float row[2][16], uint64_t b)
{
    for (int n = 0; n < N / 8; n++)
        for (int i = 0; i < 2; i++) {
            float column[16];
            tile_run<T, SUM_BY_COLUMNS>(b, n * 8 + accumulator_column(cuda_emulation::lane(), i), column);
            for (int k = 0; k < 16; k++) {
                d[n][i] += row[0][k] * column[k];
                d[n][2 + i] += row[1][k] * column[k];
            }
        }
}

/** d (64, N) [+]= a (64, 16) b (16, N)^T, both from shared memory. */
template <typename T, int N> void wgmma(float (*d)[4], uint64_t a, uint64_t b, bool add)
{
    cuda_emulation::queue_product([=] {
        const int warp_row = (int)threadIdx.x / 32 % 4 * 16, lane = cuda_emulation::lane();
        float row[2][16];
        for (int half = 0; half < 2; half++)
            tile_run<T, false>(a, warp_row + accumulator_row(lane, half * 2), row[half]);
        if (!add)
            memset(d, 0, sizeof *d * (N / 8));
        add_rows<T, N, false>(d, row, b);
    });
}

/** d (64, 64) [+]= a (16, 64)^T b (16, 64), both from shared memory by sum_by_columns(). */
template <typename T> void wgmma_across(float (*d)[4], uint64_t a, uint64_t b, bool add)
{
    cuda_emulation::queue_product([=] {
        const int warp_row = (int)threadIdx.x / 32 % 4 * 16, lane = cuda_emulation::lane();
        float row[2][16];
        for (int half = 0; half < 2; half++)
            tile_run<T, true>(a, warp_row + accumulator_row(lane, half * 2), row[half]);
        if (!add)
            memset(d, 0, sizeof *d * 8);
        add_rows<T, 64, true>(d, row, b);
    });
}

/** d (64, N) += a (64, 16) b (16, N), a from registers in the order of mma.sync's left side. */
template <typename T, int N> void wgmma(float (*d)[4], const uint32_t a[4], uint64_t b)
{
    struct Rows {
        float at[2][16];
    } rows;
    uint32_t *words = cuda_emulation::warp_words();
    const int lane = cuda_emulation::lane();
    memcpy(words + lane * 16, a, 16);
    cuda_emulation::warp_barrier();
    for (int half = 0; half < 2; half++)
        for (int k = 0; k < 16; k++) {
            const uint32_t word = words[(lane / 4 * 4 + k % 8 / 2) * 16 + half + 2 * (k / 8)];
            rows.at[half][k] = widen(T{(uint16_t)(word >> (16 * (k % 2)))});
        }
    cuda_emulation::warp_barrier();
    cuda_emulation::queue_product([=] { add_rows<T, N, true>(d, rows.at, b); });
}

inline void products_begin()
{
}

inline void products_commit()
{
    cuda_emulation::commit_products();
}

template <int PENDING> void products_wait()
{
    cuda_emulation::wait_products(PENDING);
}

template <int COUNT> void hold(float (*)[4])
{
}

template <int COUNT> void hold(uint32_t (*)[4])
{
}

#elif HOPPER_CODE

/** The barrier completes a phase when `count` arrivals and all bytes that they expect have come. By one thread; then barriers_made(). */
__device__ __forceinline__ void barrier_init(uint64_t *barrier, int count)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" : : "r"(shared_address(barrier)), "r"(count) : "memory");
}

/** The copy engine sees barriers that this thread has made; other threads after a __syncthreads(). */
__device__ __forceinline__ void barriers_made()
{
    asm volatile("fence.mbarrier_init.release.cluster;" : : : "memory");
    asm volatile("fence.proxy.async.shared::cta;" : : : "memory");
}

__device__ __forceinline__ void barrier_arrive(uint64_t *barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" : : "r"(shared_address(barrier)) : "memory");
}

/** Arrive, and have the phase wait for `bytes` that copies will bring. */
__device__ __forceinline__ void barrier_expect(uint64_t *barrier, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" : : "r"(shared_address(barrier)), "r"(bytes) : "memory");
}

/** Until the phase of this parity (0, 1, 0, ...) is over; one that is before the first is. */
__device__ __forceinline__ void barrier_wait(uint64_t *barrier, int parity)
{
    uint32_t over = 0;
    while (!over)
        asm volatile("{\n\t.reg .pred over;\n\t"
                     "mbarrier.try_wait.parity.shared::cta.b64 over, [%1], %2;\n\t"
                     "selp.u32 %0, 1, 0, over;\n\t}"
                     : "=r"(over)
                     : "r"(shared_address(barrier)), "r"(parity)
                     : "memory");
}

/** BOX_ROWS tokens of a head from `token` on, columns column .. column + PANEL - 1, into a panel; what is not there is zero and counts all the same. */
__device__ __forceinline__ void copy_box(void *to, const TensorMap &map, uint64_t *barrier, int column, int head, int token, int sample)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];"
                 :
                 : "r"(shared_address(to)), "l"(&map), "r"(shared_address(barrier)), "r"(column), "r"(head), "r"(token), "r"(sample)
                 : "memory");
}

/** The same of samples that are packed (tensor_map.h): from the token on that is `from_end` (negative) before the sample's end, token `end` of all. */
__device__ __forceinline__ void copy_packed_box(void *to, const TensorMap &map, uint64_t *barrier, int column, int head, int from_end, int end)
{
    asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6, %7}], [%2];"
                 :
                 : "r"(shared_address(to)), "l"(&map), "r"(shared_address(barrier)), "r"(column), "r"(head), "r"(PACKED + from_end), "r"(end),
                   "r"((int)PACKED)
                 : "memory");
}

/** Begin to write, or to add, `bytes` (a multiple of 16) of floats from shared to device memory; both begin at multiples of 16. */
__device__ __forceinline__ void copy_out(float *to, const void *from, int bytes, bool add)
{
    if (add)
        asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;"
                     :
                     : "l"(to), "r"(shared_address(from)), "r"(bytes)
                     : "memory");
    else
        asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;"
                     :
                     : "l"(to), "r"(shared_address(from)), "r"(bytes)
                     : "memory");
    asm volatile("cp.async.bulk.commit_group;" : : : "memory");
}

/** Until what this thread's copies out read may be written again. */
__device__ __forceinline__ void copies_out_read()
{
    asm volatile("cp.async.bulk.wait_group.read 0;" : : : "memory");
}

/** Until they are in device memory. */
__device__ __forceinline__ void copies_out_made()
{
    asm volatile("cp.async.bulk.wait_group 0;" : : : "memory");
}

/** Until `turn`, in device memory, is `number`: what its givers have written is there, for this thread's copies too. */
__device__ __forceinline__ void wait_turn(const int *turn, int number)
{
    for (int seen = number - 1; seen != number;)
        asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(seen) : "l"(turn) : "memory");
    asm volatile("fence.proxy.async;" : : : "memory");
}

__device__ __forceinline__ void give_turn(int *turn)
{
    asm volatile("fence.proxy.async;" : : : "memory");
    asm volatile("red.release.gpu.global.add.s32 [%0], 1;" : : "l"(turn) : "memory");
}

/** A warp's 16 x 16 elements in the order of mma.sync's left side to shared memory; `row`: 16 bytes for row lane % 16, columns lane / 16 * 8 on. */
__device__ __forceinline__ void store_matrices(void *row, const uint32_t a[4])
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};"
                 :
                 : "r"(shared_address(row)), "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3])
                 : "memory");
}

/** What this thread has written to shared memory is seen by products and copies that begin behind a barrier which it comes to next. */
__device__ __forceinline__ void writes_made()
{
    asm volatile("fence.proxy.async.shared::cta;" : : : "memory");
}

/** Barrier 1 of the block's first... of `threads` threads, whole warps. */
__device__ __forceinline__ void groups_barrier(int threads)
{
    asm volatile("bar.sync 1, %0;" : : "r"(threads) : "memory");
}

/** Registers a thread that this warpgroup takes from, or gives to, the block's. By all of its threads. */
template <int REGISTERS> __device__ __forceinline__ void take_registers()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(REGISTERS));
}

template <int REGISTERS> __device__ __forceinline__ void give_registers()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(REGISTERS));
}

/** Registers that products use may have been written before, and are not touched by what the compiler moves. */
template <int COUNT> __device__ __forceinline__ void hold(float (*registers)[4])
{
#pragma unroll
    for (int n = 0; n < COUNT; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            asm volatile("" : "+f"(registers[n][i]) : : "memory");
}

template <int COUNT> __device__ __forceinline__ void hold(uint32_t (*registers)[4])
{
#pragma unroll
    for (int n = 0; n < COUNT; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            asm volatile("" : "+r"(registers[n][i]) : : "memory");
}

__device__ __forceinline__ void products_begin()
{
    asm volatile("wgmma.fence.sync.aligned;" : : : "memory");
}

__device__ __forceinline__ void products_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" : : : "memory");
}

/** Until at most PENDING committed groups of products are under way. */
template <int PENDING> __device__ __forceinline__ void products_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(PENDING) : "memory");
}

/* Four accumulators, sixteen, ... of d, as an instruction's operands. */
#define HOLD4(n)  "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])
#define HOLD16(n) HOLD4(n), HOLD4(n + 1), HOLD4(n + 2), HOLD4(n + 3)
#define HOLD32    HOLD16(0), HOLD16(4)
#define HOLD64    HOLD32, HOLD16(8), HOLD16(12)
#define NAMES_32                                                                                                                       \
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define NAMES_64                                                                                                                       \
    NAMES_32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"

/* wgmma of columns N whose N / 2 accumulators are `names` and `held`; the operands behind them are numbered from there on. across: "1" where rows of
 * both tiles are summed over. */
#define SHARED_PRODUCT(type, n, names, held, a_at, b_at, add_at, across)                                                                        \
    asm volatile("{\n\t.reg .pred add;\n\tsetp.ne.b32 add, %" add_at ", 0;\n\t"                                                         \
                 "wgmma.mma_async.sync.aligned.m64n" n "k16.f32." type "." type " " names "}, %" a_at ", %" b_at ", add, 1, 1, " across ", " across ";\n\t}" \
                 : held                                                                                                                \
                 : "l"(a), "l"(b), "r"((int)add))
#define REGISTER_PRODUCT(type, n, names, held, a_names, b_at)                                                                           \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" n "k16.f32." type "." type " " names "}, " a_names ", %" b_at ", 1, 1, 1, 1;"       \
                 : held                                                                                                                \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))

/** d (64, N) [+]= a (64, 16) b (16, N)^T, both from shared memory. */
template <typename T, int N> __device__ __forceinline__ void wgmma(float (*d)[4], uint64_t a, uint64_t b, bool add);

/** d (64, 64) [+]= a (16, 64)^T b (16, 64), both from shared memory by sum_by_columns(). */
template <typename T> __device__ __forceinline__ void wgmma_across(float (*d)[4], uint64_t a, uint64_t b, bool add);

/** d (64, N) += a (64, 16) b (16, N), a from registers in the order of mma.sync's left side. */
template <typename T, int N> __device__ __forceinline__ void wgmma(float (*d)[4], const uint32_t a[4], uint64_t b);

#define WGMMA_OF(T, type)                                                                                                              \
    template <> __device__ __forceinline__ void wgmma<T, 64>(float (*d)[4], uint64_t a, uint64_t b, bool add)                           \
    {                                                                                                                                  \
        SHARED_PRODUCT(type, "64", NAMES_32, HOLD32, "32", "33", "34", "0");                                                                \
    }                                                                                                                                  \
    template <> __device__ __forceinline__ void wgmma<T, 128>(float (*d)[4], uint64_t a, uint64_t b, bool add)                          \
    {                                                                                                                                  \
        SHARED_PRODUCT(type, "128", NAMES_64, HOLD64, "64", "65", "66", "0");                                                               \
    }                                                                                                                                  \
    template <> __device__ __forceinline__ void wgmma_across<T>(float (*d)[4], uint64_t a, uint64_t b, bool add)                        \
    {                                                                                                                                  \
        SHARED_PRODUCT(type, "64", NAMES_32, HOLD32, "32", "33", "34", "1");                                                           \
    }                                                                                                                                  \
    template <> __device__ __forceinline__ void wgmma<T, 64>(float (*d)[4], const uint32_t a[4], uint64_t b)                            \
    {                                                                                                                                  \
        REGISTER_PRODUCT(type, "64", NAMES_32, HOLD32, "{%32,%33,%34,%35}", "36");                                                      \
    }                                                                                                                                  \
    template <> __device__ __forceinline__ void wgmma<T, 128>(float (*d)[4], const uint32_t a[4], uint64_t b)                           \
    {                                                                                                                                  \
        REGISTER_PRODUCT(type, "128", NAMES_64, HOLD64, "{%64,%65,%66,%67}", "68");                                                     \
    }

WGMMA_OF(bf16, "bf16")
WGMMA_OF(fp16, "f16")

#endif

} // namespace zinf_cuda

#endif
