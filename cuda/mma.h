/*
 * Instructions of tensor cores and of copies to shared memory, for compute capability 8.0 and later (PTX ISA: mma, ldmatrix, cp.async). Fragments:
 * index.h. Emulated, they exchange through the warp's words exactly as the PTX manual lays the fragments out.
 */
#ifndef ZINF_CUDA_MMA_H
#define ZINF_CUDA_MMA_H

#include "cuda/kernel.h"

namespace zinf_cuda
{

/** Two floats rounded to T in one register, `low` in the low half. */
template <typename T> __device__ __forceinline__ uint32_t pack2(float low, float high);

#if defined(ZINF_CUDA_EMULATION)

template <typename T> uint32_t pack2(float low, float high)
{
    return (uint32_t)narrow<T>(low).bits | (uint32_t)narrow<T>(high).bits << 16;
}

/** d (16, 8) += a (16, 16) b (16, 8), summed in fp32. */
template <typename T> void mma(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    uint32_t *words = cuda_emulation::warp_words();
    const int lane = cuda_emulation::lane();
    const uint32_t own[6] = {a[0], a[1], a[2], a[3], b0, b1};
    memcpy(words + lane * 16, own, sizeof own);
    cuda_emulation::warp_barrier();
    auto half = [&](int from, int index, int odd) {
        return widen(T{(uint16_t)(words[from * 16 + index] >> (16 * odd))});
    };
    for (int i = 0; i < 4; i++) {
        const int row = accumulator_row(lane, i), column = accumulator_column(lane, i);
        for (int k = 0; k < 16; k++)
            d[i] += half(row % 8 * 4 + k % 8 / 2, row / 8 + 2 * (k / 8), k % 2) *
                    half(column * 4 + k % 8 / 2, 4 + k / 8, k % 2);
    }
    cuda_emulation::warp_barrier();
}

template <bool TRANSPOSED> void ldmatrix_emulated(uint32_t out[4], const void *row)
{
    uint32_t *words = cuda_emulation::warp_words();
    const int lane = cuda_emulation::lane();
    if ((uintptr_t)row % 16)
        abort();
    memcpy(words + lane * 16, &row, sizeof row);
    cuda_emulation::warp_barrier();
    for (int m = 0; m < 4; m++)
        for (int odd = 0; odd < 2; odd++) {
            const int at = TRANSPOSED ? lane % 4 * 2 + odd : lane / 4, column = TRANSPOSED ? lane / 4 : lane % 4 * 2 + odd;
            const uint16_t *from;
            uint16_t bits;
            memcpy(&from, words + (m * 8 + at) * 16, sizeof from);
            memcpy(&bits, from + column, sizeof bits);
            out[m] = odd ? out[m] | (uint32_t)bits << 16 : bits;
        }
    cuda_emulation::warp_barrier();
}

inline void ldmatrix(uint32_t out[4], const void *row)
{
    ldmatrix_emulated<false>(out, row);
}

inline void ldmatrix_transposed(uint32_t out[4], const void *row)
{
    ldmatrix_emulated<true>(out, row);
}

inline void copy16(void *shared, const void *global, bool valid)
{
    cuda_emulation::queue_copy(shared, global, valid);
}

inline void copy_commit()
{
    cuda_emulation::commit_copies();
}

template <int PENDING> void copy_wait()
{
    cuda_emulation::wait_copies(PENDING);
}

#else

template <> __device__ __forceinline__ uint32_t pack2<bf16>(float low, float high)
{
    uint32_t both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

template <> __device__ __forceinline__ uint32_t pack2<fp16>(float low, float high)
{
    uint32_t both;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

template <typename T> __device__ __forceinline__ void mma(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1);

template <> __device__ __forceinline__ void mma<bf16>(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <> __device__ __forceinline__ void mma<fp16>(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ uint32_t shared_address(const void *pointer)
{
    return (uint32_t)__cvta_generic_to_shared(pointer);
}

__device__ __forceinline__ void ldmatrix(uint32_t out[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ __forceinline__ void ldmatrix_transposed(uint32_t out[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/** 16 bytes from global to shared memory, asynchronously; zeros where not `valid` (`global` must be an address all the same). */
__device__ __forceinline__ void copy16(void *shared, const void *global, bool valid)
{
    const int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(shared_address(shared)), "l"(global), "r"(bytes)
                 : "memory");
}

/** What was copied since the last commit is one group. */
__device__ __forceinline__ void copy_commit()
{
    asm volatile("cp.async.commit_group;" : : : "memory");
}

/** Wait until at most PENDING of this thread's groups are under way. */
template <int PENDING> __device__ __forceinline__ void copy_wait()
{
    asm volatile("cp.async.wait_group %0;" : : "n"(PENDING) : "memory");
}

#endif

} // namespace zinf_cuda

#endif
