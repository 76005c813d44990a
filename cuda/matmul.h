/*
 * Between the files of the matrix-product library: its life within an open device, and what is prepared before the first step. The product
 * itself: zinf_cuda_matmul_library() in cuda.h.
 */
#ifndef ZINF_CUDA_MATMUL_H
#define ZINF_CUDA_MATMUL_H

#include <stdbool.h>
#include <stddef.h>

#include "device/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/** An algorithm of the library, plain data. */
struct zinf_cuda_algorithm {
    unsigned char data[ZINF_PRODUCT_ALGORITHM_BYTES];
};

/**
 * Open cuBLASLt for the current device; without the library products are made by our own kernel, which is said once in the log.
 * @param scratch_bytes  that each stream has at least; the library may use 32 MiB of it
 * @param tf32           products of fp32 may round their factors
 */
void zinf_cuda_matmul_open(size_t scratch_bytes, bool tf32);
void zinf_cuda_matmul_close(void);

/** "cuBLASLt 130100", or "cuBLASLt 130100 with TF32"; "" without the library. */
void zinf_cuda_matmul_source(char *out, size_t out_bytes);
/**
 * The library's algorithms for a product, the one it thinks the fastest first. @return how many, at most `room`
 * @param fused  for those that make its activation too; else the activation follows as an operation of its own
 */
int zinf_cuda_matmul_candidates(const struct zinf_product *product, bool fused,
                                struct zinf_cuda_algorithm *algorithms, int room);
/** Make the product by `algorithm` from now on; NULL: by the library's first, not fused. @return false: it cannot, nothing has changed */
bool zinf_cuda_matmul_set(const struct zinf_product *product, bool fused,
                          const struct zinf_cuda_algorithm *algorithm);

extern const struct zinf_device_products zinf_cuda_products;

#ifdef __cplusplus
}
#endif
#endif
