/*
 * Maps of tensors for the copy engine. The only function of the driver's own interface that zinf
 * calls; the runtime finds it, so that nothing is linked against the driver.
 */
#include "cuda/tensor_map.h"

#include <cuda.h>
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/cuda.h"

enum { FIRST_VERSION = 12000 }; /* of the driver's interface: the function's first */

static __typeof__(&cuTensorMapEncodeTiled) encode;

static void find(void)
{
    const char *choice = getenv("ZINF_ATTENTION");
    enum cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    int device = 0, major = 0, minor = 0;
    void *function = NULL;
    if (choice && !strcmp(choice, "mma"))
        return;
    CUDA_CHECK(cudaGetDevice(&device));
    CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
    if (major != 9 || minor != 0)
        return;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, FIRST_VERSION,
                                         cudaEnableDefault, &found) != cudaSuccess ||
        found != cudaDriverEntryPointSuccess) {
        cudaGetLastError();
        zinf_warn("the NVIDIA driver has no cuTensorMapEncodeTiled: attention does without the "
                  "instructions of compute capability 9.0 and is slower");
        return;
    }
    memcpy(&encode, &function, sizeof encode);
}

bool zinf_cuda_hopper(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find);
    return encode != NULL;
}

void zinf_cuda_tensor_map(void *map, const struct zinf_cuda_tensor *tensor)
{
    const cuuint32_t box[] = {BOX_COLUMNS, 1, BOX_ROWS, 1, 1}, steps[] = {1, 1, 1, 1, 1};
    cuuint64_t size[TENSOR_DIMENSIONS], stride[TENSOR_DIMENSIONS - 1];
    for (int i = 0; i < tensor->dimensions; i++)
        size[i] = (cuuint64_t)tensor->size[i];
    for (int i = 0; i < tensor->dimensions - 1; i++)
        stride[i] = (cuuint64_t)tensor->stride_bytes[i];
    /* bf16 or fp16: copied, and zeros are the same */
    CUresult code = encode(map, CU_TENSOR_MAP_DATA_TYPE_UINT16, (cuuint32_t)tensor->dimensions,
                           (void *)(uintptr_t)tensor->base, size, stride, box, steps,
                           CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                           CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (code != CUDA_SUCCESS) {
        zinf_error_log("CUDA: cuTensorMapEncodeTiled failed with %d for a tensor of %lld x %lld x "
                       "%lld x %lld; ZINF_ATTENTION=mma does without",
                       (int)code, (long long)tensor->size[0], (long long)tensor->size[1],
                       (long long)tensor->size[2], (long long)tensor->size[3]);
        zinf_abort(ZINF_E_RUNTIME);
    }
}
