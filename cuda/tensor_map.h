/*
 * What the copy engine of compute capability 9.0 wants to know of a tensor in device memory: where it lies, its sizes and strides, the box that one
 * copy takes. Here always 16-bit elements in four dimensions (column, head, token, sample) and boxes of PANEL columns of one head by BOX_ROWS tokens
 * of one sample, which reach shared memory in the order of hopper.h; what a box holds beyond the tensor is zero.
 */
#ifndef ZINF_CUDA_TENSOR_MAP_H
#define ZINF_CUDA_TENSOR_MAP_H

#include <stdbool.h>
#include <stdint.h>

enum { BOX_COLUMNS = 64, BOX_ROWS = 64 };

/* base and strides: multiples of 16 bytes; sizes at least 1. */
struct zinf_cuda_tensor {
    const void *base;
    int64_t size[4];         /* columns, heads, tokens, samples */
    int64_t stride_bytes[3]; /* from head to head, token to token, sample to sample */
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

#if defined(ZINF_CUDA_EMULATION)

typedef zinf_cuda_tensor TensorMap;

inline TensorMap tensor_map_of(const zinf_cuda_tensor &tensor)
{
    return tensor;
}

inline uint16_t tensor_element(const TensorMap &map, const int64_t at[4])
{
    const char *from = (const char *)map.base + at[0] * 2;
    for (int i = 0; i < 4; i++)
        if (at[i] < 0 || at[i] >= map.size[i])
            return 0;
    for (int i = 1; i < 4; i++)
        from += at[i] * map.stride_bytes[i - 1];
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
