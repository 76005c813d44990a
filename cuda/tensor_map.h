/*
 * What the copy engine of compute capability 9.0 wants to know of a tensor in device memory: where it lies, its sizes and strides, the box that one
 * copy takes. Here always 16-bit elements in four dimensions (column, head, token, sample) and boxes of PANEL columns of one head by BOX_ROWS tokens
 * of one sample, which reach shared memory in the order of hopper.h; what a box holds beyond the tensor is zero.
 *
 * Samples of different lengths, packed behind each other, are to end in zeros too and not in the next sample, whose NaN times a probability of 0
 * would be NaN. The engine looks at a map's sizes only, so their token is the sum of three coordinates of five: (column, head, PACKED - length +
 * token, end, PACKED), in a sample of `length` tokens that ends before token `end` of the tensor. The third leaves the map, PACKED tokens wide,
 * where the sample ends; the last takes off what the third has too much, PACKED rows, by going round the 64 bits of an address: PACKED * (2^34 - row)
 * = 2^64 - PACKED * row. Triton's maps of ragged tensors do it so (triton/tools/ragged_tma.py).
 */
#ifndef ZINF_CUDA_TENSOR_MAP_H
#define ZINF_CUDA_TENSOR_MAP_H

#include <stdbool.h>
#include <stdint.h>

enum { BOX_COLUMNS = 64, BOX_ROWS = 64, TENSOR_DIMENSIONS = 5, PACKED = 1 << 30 };

/* base and strides: multiples of 16 bytes; sizes at least 1. */
struct zinf_cuda_tensor {
    const void *base;
    int dimensions;                              /* 4, packed 5 */
    int64_t size[TENSOR_DIMENSIONS];             /* columns, heads, tokens, samples */
    int64_t stride_bytes[TENSOR_DIMENSIONS - 1]; /* from head to head, token to token, sample to sample */
};

#ifdef __cplusplus
extern "C" {
#endif

/** Whether the open device is of compute capability 9.0 and its driver makes maps; ZINF_ATTENTION=mma in the environment says no. */
bool zinf_cuda_hopper(void);

/** Fill the 128 bytes of `map`, aligned to 64. Some microseconds of the host; a tensor that breaks the rules above ends the run. */
void zinf_cuda_tensor_map(void *map, const struct zinf_cuda_tensor *tensor);

#ifdef __cplusplus
}

namespace zinf_cuda
{

/** Samples packed behind each other, `tokens` (below 2^31) of all of them. */
inline zinf_cuda_tensor packed_tensor(const void *base, int64_t columns, int64_t heads, int64_t tokens, int64_t row_bytes)
{
    const int64_t around = ((int64_t)1 << 34) - row_bytes;
    return {base, 5, {columns, heads, PACKED, tokens + 1, (int64_t)PACKED + 1}, {columns * 2, row_bytes, row_bytes, around}};
}

#if defined(ZINF_CUDA_EMULATION)

typedef zinf_cuda_tensor TensorMap;

inline TensorMap tensor_map_of(const zinf_cuda_tensor &tensor)
{
    return tensor;
}

inline uint16_t tensor_element(const TensorMap &map, const int64_t at[TENSOR_DIMENSIONS])
{
    uint64_t from = (uint64_t)map.base + (uint64_t)at[0] * 2;
    for (int i = 0; i < map.dimensions; i++)
        if (at[i] < 0 || at[i] >= map.size[i])
            return 0;
    for (int i = 1; i < map.dimensions; i++)
        from += (uint64_t)at[i] * (uint64_t)map.stride_bytes[i - 1];
    return *(const uint16_t *)from;
}

#else

struct alignas(64) TensorMap {
    uint64_t words[16];
};

inline TensorMap tensor_map_of(const zinf_cuda_tensor &tensor)
{
    TensorMap map;
    zinf_cuda_tensor_map(&map, &tensor);
    return map;
}

#endif

} // namespace zinf_cuda

#endif
#endif
