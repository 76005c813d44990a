/*
 * What the kernels share: element types and their conversions, vector loads, sums of a block, the launch. C++, for .cu files only.
 *
 * Rules of all kernels. Grids and blocks depend on shapes only, never on the card, and no sum has an order that chance decides: so the bits do not change
 * from run to run or from card to card. Pointers that are aligned to 16 bytes are read and written 16 bytes at a time; where a pointer
 * or a row is not, the same kernel runs on single elements (N = 1). Counts are 64-bit.
 *
 * The same sources are compiled by a plain C++ compiler against tests/cuda_emulation.h, which runs a kernel's threads one after the
 * other on the CPU: that is how the kernels are tested where there is no card.
 */
#ifndef ZINF_CUDA_KERNEL_H
#define ZINF_CUDA_KERNEL_H

#include <math.h>
#include <string.h>

#if defined(ZINF_CUDA_EMULATION)
#include "tests/cuda_emulation.h"
#else
#include <cuda_runtime.h>
#endif

#include "base/dtype.h"
#include "cuda/cuda.h"
#include "cuda/index.h"

namespace zinf_cuda
{

#if !defined(ZINF_CUDA_EMULATION)
/** The block's dynamic shared memory, aligned to 128 bytes. */
#define SHARED_MEMORY(name) extern __shared__ __align__(128) unsigned char name[]
#endif

/* --- Element types: bits with a name --- */

struct bf16 {
    uint16_t bits;
};
struct fp16 {
    uint16_t bits;
};

HD uint32_t bits_of(float x)
{
#if defined(__CUDA_ARCH__)
    return __float_as_uint(x);
#else
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
#endif
}

HD float float_of(uint32_t bits)
{
#if defined(__CUDA_ARCH__)
    return __uint_as_float(bits);
#else
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
#endif
}

HD float widen(float x)
{
    return x;
}

HD float widen(bf16 x)
{
    return float_of((uint32_t)x.bits << 16);
}

HD float widen(fp16 x)
{
#if defined(__CUDA_ARCH__)
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
    return wide;
#else
    return zinf_fp16_to_float(x.bits);
#endif
}

/** To nearest, ties to even; the bits of base/dtype.h but for the payload of an fp16 NaN. */
template <typename T> HD T narrow(float x);

template <> HD float narrow<float>(float x)
{
    return x;
}

template <> HD bf16 narrow<bf16>(float x)
{
    uint32_t bits = bits_of(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return bf16{(uint16_t)((bits >> 16) | 0x40u)};
    return bf16{(uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

template <> HD fp16 narrow<fp16>(float x)
{
#if defined(__CUDA_ARCH__)
    uint16_t bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return fp16{bits};
#else
    return fp16{zinf_fp16_from_float(x)};
#endif
}

/** x rounded to T and back. */
template <typename T> HD float rounded(float x)
{
    return widen(narrow<T>(x));
}

/* --- Vectors --- */

template <typename T, int N> struct Pack {
    T item[N];
};

/** The hardware's type of so many bytes: one load or store instruction. */
template <int BYTES> struct Word;
template <> struct Word<16> {
    typedef uint4 type;
};
template <> struct Word<8> {
    typedef uint2 type;
};
template <> struct Word<4> {
    typedef uint32_t type;
};
template <> struct Word<2> {
    typedef uint16_t type;
};

template <int N, typename T> __device__ __forceinline__ Pack<T, N> load(const T *from)
{
    typedef typename Word<sizeof(T) * N>::type word;
    Pack<T, N> pack;
    word bits = *reinterpret_cast<const word *>(from);
    memcpy(&pack, &bits, sizeof bits);
    return pack;
}

template <int N, typename T> __device__ __forceinline__ void store(T *to, const Pack<T, N> &pack)
{
    typedef typename Word<sizeof(T) * N>::type word;
    word bits;
    memcpy(&bits, &pack, sizeof bits);
    *reinterpret_cast<word *>(to) = bits;
}

/** Elements of T in 16 bytes. */
template <typename T> constexpr int vector_of()
{
    return 16 / (int)sizeof(T);
}

/** Whether rows of `row` elements from `pointer` on may be read in vectors of `bytes`. */
inline bool aligned(const void *pointer, int64_t row_bytes, int bytes)
{
    return ((uintptr_t)pointer | (uint64_t)row_bytes) % (unsigned)bytes == 0;
}

/* --- Threads --- */

__device__ __forceinline__ int64_t thread_number()
{
    return (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
}

constexpr unsigned ALL_LANES = 0xffffffffu;

/** x of the lane whose number differs in the bits of `other`. */
__device__ __forceinline__ float from_lane(float x, int other)
{
    return __shfl_xor_sync(ALL_LANES, x, other);
}

__device__ __forceinline__ double from_lane(double x, int other)
{
    uint64_t bits; /* a double goes between lanes in two words */
    memcpy(&bits, &x, sizeof bits);
    const uint32_t low = __shfl_xor_sync(ALL_LANES, (uint32_t)bits, other);
    const uint32_t high = __shfl_xor_sync(ALL_LANES, (uint32_t)(bits >> 32), other);
    bits = (uint64_t)high << 32 | low;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* X: float or double. */
template <typename X> __device__ __forceinline__ X warp_sum(X x)
{
    for (int other = 16; other; other /= 2)
        x += from_lane(x, other);
    return x;
}

__device__ __forceinline__ float warp_max(float x)
{
    for (int other = 16; other; other /= 2)
        x = fmaxf(x, from_lane(x, other));
    return x;
}

/** Sum over a block of whole warps, the same in every thread. `room`: shared memory, one X of each warp, free again on return. */
template <typename X> __device__ __forceinline__ X block_sum(X x, X *room)
{
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0)
        room[threadIdx.x / 32] = x;
    __syncthreads();
    X sum = 0;
    for (unsigned warp = 0; warp < blockDim.x / 32; warp++)
        sum += room[warp];
    __syncthreads();
    return sum;
}

/* --- Host side --- */

/** CALL(tag) with a tag whose type is the element type of `dtype`: with_type(dtype, [&](auto tag) { typedef decltype(tag) T; ... }). */
template <typename F> void with_type(enum zinf_dtype dtype, F call)
{
    switch (dtype) {
    case ZINF_FP32:
        call(float());
        break;
    case ZINF_FP16:
        call(fp16());
        break;
    case ZINF_BF16:
        call(bf16());
        break;
    }
}

/** with_type, and the width of vectors: as many elements as 16 bytes hold where `wide`, else one. */
template <typename F> void with_vectors(enum zinf_dtype dtype, bool wide, F call);

template <int N> struct Width {
    static constexpr int value = N;
};

template <typename F> void with_vectors(enum zinf_dtype dtype, bool wide, F call)
{
    with_type(dtype, [&](auto tag) {
        typedef decltype(tag) T;
        if (wide)
            call(tag, Width<vector_of<T>()>());
        else
            call(tag, Width<1>());
    });
}

struct Place {
    const char *kernel, *file;
    int line;
};

/* Where and in what shape a kernel runs. */
struct Shape {
    int64_t blocks;
    int threads;
    int shared_bytes; /* dynamic */
    int64_t blocks_y;

    Shape(int64_t blocks, int threads, int shared_bytes = 0, int64_t blocks_y = 1)
        : blocks(blocks), threads(threads), shared_bytes(shared_bytes), blocks_y(blocks_y)
    {
    }
};

#if !defined(ZINF_CUDA_EMULATION)
/** Launch in the calling thread's lane; an error names kernel and place. Nothing is launched for an empty grid. */
template <typename... P>
void launch(const Place &place, void (*kernel)(P...), const Shape &shape, P... arguments)
{
    if (shape.blocks == 0 || shape.blocks_y == 0)
        return;
    ZINF_ASSERT(shape.blocks <= 2147483647 && shape.blocks_y <= 65535);
    ZINF_ASSERT(shape.threads % 32 == 0 && shape.threads <= 1024);
    if (shape.shared_bytes > 48 * 1024)
        zinf_cuda_check((int)cudaFuncSetAttribute((const void *)kernel,
                                                  cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                  shape.shared_bytes),
                        place.kernel, place.file, place.line);
    void *pointers[] = {(void *)&arguments...};
    cudaError_t code = cudaLaunchKernel((const void *)kernel, dim3((unsigned)shape.blocks, (unsigned)shape.blocks_y),
                                        dim3((unsigned)shape.threads), pointers,
                                        (size_t)shape.shared_bytes, (cudaStream_t)zinf_cuda_stream());
    cudaError_t pending = cudaGetLastError();
    zinf_cuda_check((int)(code == cudaSuccess ? pending : code), place.kernel, place.file, place.line);
    if (zinf_cuda_synchronous())
        zinf_cuda_check((int)cudaStreamSynchronize((cudaStream_t)zinf_cuda_stream()), place.kernel, place.file,
                        place.line);
}
#endif

template <typename... P, typename... A>
void launch_converted(const Place &place, void (*kernel)(P...), const Shape &shape, const A &...arguments)
{
    launch<P...>(place, kernel, shape, static_cast<P>(arguments)...);
}

/** LAUNCH((kernel<T, N>), Shape(blocks, threads), arguments...); */
#define LAUNCH(kernel, shape, ...)                                                                 \
    ::zinf_cuda::launch_converted(::zinf_cuda::Place{#kernel, __FILE__, __LINE__}, kernel, shape, __VA_ARGS__)

} // namespace zinf_cuda

#endif
