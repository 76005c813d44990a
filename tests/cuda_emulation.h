/*
 * The words of CUDA's language that the kernels use, on the CPU: a kernel's blocks run one after the other, the threads of a block are
 * coroutines that change at every barrier. So the kernels' sources can be tested where there is no card: indices, bounds, fragments,
 * barriers, the arithmetic up to its library functions. Not speed, not the memory model of a card, not ptxas.
 *
 * What is made stricter than a card: shared memory starts as NaN; cp.async copies when it is waited for, not before, wgmma multiplies likewise, the
 * copy engine brings a tile when somebody waits for it; blocks and threads run
 * forwards in one launch and backwards in the next, so that a missing barrier shows; a barrier that not all threads reach ends the test.
 */
#ifndef ZINF_TESTS_CUDA_EMULATION_H
#define ZINF_TESTS_CUDA_EMULATION_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __shared__ static
#define __launch_bounds__(...)
#define SHARED_MEMORY(name) unsigned char *name = ::cuda_emulation::dynamic_shared()

struct uint4 {
    uint32_t x, y, z, w;
};
struct uint2 {
    uint32_t x, y;
};
struct Index {
    unsigned x, y, z;
};

extern Index threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_emulation
{

/** Run `body` for every thread of every block. */
void run(int64_t blocks, int64_t blocks_y, int threads, int shared_bytes, const std::function<void()> &body);
unsigned char *dynamic_shared();
void block_barrier();
void warp_barrier();

/** 32 x 16 words of the calling thread's warp: what lanes hand to each other between two warp_barrier(). */
uint32_t *warp_words();
int lane();

/** Copies that wait_copies() makes. */
void queue_copy(void *to, const void *from, bool valid);
void commit_copies();
void wait_copies(int pending);

/* Barriers in shared memory (mbarrier): complete when all that arrive have come, and all bytes that they expect. */
void barrier_init(uint64_t *barrier, int count);
void barrier_arrive(uint64_t *barrier, int expected_bytes);
void barrier_wait(uint64_t *barrier, int parity);

/** A copy to `to` that is made when a thread waits for `barrier`: copy(to) returns the bytes that it has written. */
void queue_box(void *to, uint64_t *barrier, std::function<int(void *)> copy);

/* Copies of a thread from shared to device memory, in its turn: made when it waits for their reading, known to be there when it waits for their end. */
void take_turn();
void queue_out(std::function<void()> copy);
void make_out();
void end_out();
void give_turn();

[[noreturn]] void give_up(const char *why);

/** Of `threads` threads of the block. */
void named_barrier(int threads);

/** Products of the calling thread, which wait_products() makes in their order. */
void queue_product(std::function<void()> product);
void commit_products();
void wait_products(int pending);

template <typename T> T exchange(T value, int from)
{
    static_assert(sizeof(T) == 4, "32-bit values only");
    uint32_t *words = warp_words();
    T got;
    memcpy(&words[lane() * 16], &value, 4);
    warp_barrier();
    memcpy(&got, &words[(from & 31) * 16], 4);
    warp_barrier();
    return got;
}

} // namespace cuda_emulation

inline void __syncthreads()
{
    cuda_emulation::block_barrier();
}

inline void __syncwarp()
{
    cuda_emulation::warp_barrier();
}

template <typename T> T __shfl_xor_sync(unsigned, T value, int other)
{
    return cuda_emulation::exchange(value, cuda_emulation::lane() ^ other);
}

template <typename T> T __shfl_sync(unsigned, T value, int from)
{
    return cuda_emulation::exchange(value, from);
}

inline int atomicAdd(int *to, int value)
{
    int old = *to;
    *to += value;
    return old;
}

inline unsigned long long atomicMin(unsigned long long *to, unsigned long long value)
{
    unsigned long long old = *to;
    if (value < old)
        *to = value;
    return old;
}

inline uint32_t __umulhi(uint32_t a, uint32_t b)
{
    return (uint32_t)((uint64_t)a * b >> 32);
}

namespace zinf_cuda
{
struct Place;
struct Shape;
template <typename... P>
void launch(const Place &place, void (*kernel)(P...), const Shape &shape, P... arguments);
} // namespace zinf_cuda

#endif
