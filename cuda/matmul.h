/*
 * Life of the matrix-product library within an open device. The product itself: zinf_cuda_matmul_library() in cuda.h.
 */
#ifndef ZINF_CUDA_MATMUL_H
#define ZINF_CUDA_MATMUL_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Open cuBLASLt for the current device; without the library products are made by our own kernel, which is said once in the log.
 * @param tune             time several algorithms of a shape at its first product instead of taking the library's first
 * @param workspace_bytes  of each lane
 */
void zinf_cuda_matmul_open(bool tune, size_t workspace_bytes);
void zinf_cuda_matmul_close(void);

#ifdef __cplusplus
}
#endif
#endif
