/*
 * Which element a thread touches: functions without memory, valid on the device and on the host, where tests/test_cuda_index.cc proves them
 * (every element exactly once, inside its bounds, no bank conflicts).
 */
#ifndef ZINF_CUDA_INDEX_H
#define ZINF_CUDA_INDEX_H

#include <stdint.h>

#if defined(__CUDACC__)
#define HD __host__ __device__ __forceinline__
#else
#define HD inline
#endif

namespace zinf_cuda
{

HD int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/**
 * Tiles of 16-bit elements in shared memory: rows of D elements (D a multiple of 32, at least 64), 16-byte chunks permuted within a row so that the
 * eight rows that one phase of ldmatrix reads at one column lie in eight different 16-byte columns of the 128-byte bank line, and so do the
 * eight consecutive chunks of a row that a quarter warp writes.
 * @return offset in bytes of chunk `chunk` (0 .. D / 8 - 1) of row `row`
 */
template <int D> HD int tile_offset(int row, int chunk)
{
    static_assert(D % 32 == 0 && D >= 64, "chunks are permuted in groups of 8, or of 4 where D / 8 is no multiple of 8");
    const int moved = D % 64 == 0 ? chunk ^ (row & 7) : chunk ^ ((row >> 1) & 3);
    return (row * (D / 8) + moved) * 16;
}

/* Fragments of mma.sync.m16n8k16 (PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type"). */

/** Row of accumulator register `i` (0 .. 3) of a lane in the 16 x 8 tile. */
HD int accumulator_row(int lane, int i)
{
    return lane / 4 + (i / 2) * 8;
}

HD int accumulator_column(int lane, int i)
{
    return lane % 4 * 2 + i % 2;
}

/**
 * Row and chunk whose address a lane gives to ldmatrix.x4, so that the four 8 x 8 matrices become the A fragment of the 16 x 16 block whose
 * first row is `row` and whose first chunk is `chunk`: matrices in the order (rows 0-7, left), (rows 8-15, left), (rows 0-7, right), (8-15, right).
 */
HD int a_row(int lane, int row)
{
    return row + lane % 16;
}

HD int a_chunk(int lane, int chunk)
{
    return chunk + lane / 16;
}

/**
 * The same for two B fragments at once (n0 .. n0 + 15, k0 .. k0 + 15) from a tile that is stored n by k (rows are n): registers 0, 1 are the
 * fragment of n0 .. n0 + 7, registers 2, 3 that of the next eight.
 */
HD int b_row(int lane, int n0)
{
    return n0 + lane % 8 + lane / 16 * 8;
}

HD int b_chunk(int lane, int k_chunk)
{
    return k_chunk + lane / 8 % 2;
}

/** And from a tile that is stored k by n (rows are k), read with .trans: chunk n_chunk is n0 / 8. */
HD int bt_row(int lane, int k0)
{
    return k0 + lane % 16;
}

HD int bt_chunk(int lane, int n_chunk)
{
    return n_chunk + lane / 16;
}

} // namespace zinf_cuda

#endif
