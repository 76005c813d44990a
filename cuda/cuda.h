/*
 * What the files of the CUDA backend share: the open device's lanes, working memory, and the check of every call. C and C++.
 *
 * The runtime's own types stay out of this header (a stream is a pointer), so that kernels compile against the emulation of
 * tests/cuda_emulation.h as well.
 */
#ifndef ZINF_CUDA_CUDA_H
#define ZINF_CUDA_CUDA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "device/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Ends the run when `code` is an error of the CUDA runtime: what was called, where, the error's name and what it may mean. */
void zinf_cuda_check(int code, const char *what, const char *file, int line);
#define CUDA_CHECK(call) zinf_cuda_check((int)(call), #call, __FILE__, __LINE__)

/** cudaStream_t of the calling thread's lane. */
void *zinf_cuda_stream(void);
/** Working memory of the calling thread's lane, aligned to 256 bytes, until the operation ends; too little ends the run. */
void *zinf_cuda_scratch(size_t bytes);
/** Device memory (8 bytes) of the lane for one number that goes to the host, and how it gets there: waits for the lane. */
void *zinf_cuda_result(void);
uint64_t zinf_cuda_result_read(void);
/** With ZINF_CUDA_SYNC=1 in the environment every launch is waited for, so that a fault is blamed on the kernel that made it. */
bool zinf_cuda_synchronous(void);

/** What of an operation was made. */
enum zinf_cuda_made {
    ZINF_CUDA_NOTHING, /* no algorithm for these operands, or no library */
    ZINF_CUDA_PRODUCT, /* without what follows it */
    ZINF_CUDA_ALL
};
/** cuBLASLt's product on the calling thread's lane. What is not made is left to zinf_cuda_product() and zinf_ops_follow(). */
enum zinf_cuda_made zinf_cuda_matmul_library(const struct zinf_matmul *op);
/** Our own product, for whatever the library does not take. */
void zinf_cuda_product(const struct zinf_matmul *op);
/** c (m, n) += bias (n): what an epilogue could not do. */
void zinf_cuda_add_bias(const struct zinf_matmul *op);

/* The kernels' entries; what they do: device/ops.h. */
void zinf_cuda_matmul(const struct zinf_matmul *op);
void zinf_cuda_bias_backward(const struct zinf_column_sum *op, const void *dy, void *dbias);
void zinf_cuda_norm_forward(const struct zinf_norm *op, void *y);
void zinf_cuda_norm_backward(const struct zinf_norm *op, const void *dy, const void *residual, void *dx,
                             void *dweight, void *dbias);
void zinf_cuda_attention_forward(const struct zinf_attention *op, void *y);
void zinf_cuda_attention_backward(const struct zinf_attention *op, const void *dy, void *dqkv);
void zinf_cuda_rope(const struct zinf_rope *op, void *x);
void zinf_cuda_activation_forward(const struct zinf_activate *op, void *y);
void zinf_cuda_activation_backward(const struct zinf_activate *op, const void *dy, void *dx);
void zinf_cuda_gated_forward(const struct zinf_activate *op, void *y);
void zinf_cuda_gated_backward(const struct zinf_activate *op, const void *dy, void *dx);
void zinf_cuda_dropout_add(const struct zinf_dropout_add *op, const void *x, const void *residual, void *y);
void zinf_cuda_embedding_forward(const struct zinf_embedding *op, const void *tile, void *x);
void zinf_cuda_embedding_backward(const struct zinf_embedding *op, const void *dx, void *dtile);
void zinf_cuda_position_forward(const struct zinf_embedding *op, const void *tile, void *x);
void zinf_cuda_position_backward(const struct zinf_embedding *op, const void *dx, void *dtile);
void zinf_cuda_loss_tile_forward(const struct zinf_loss_tile *op, const void *logits);
void zinf_cuda_loss_tile_backward(const struct zinf_loss_tile *op, void *logits);
void zinf_cuda_cast(const struct zinf_cast *op, const void *from, void *to);
void zinf_cuda_accumulate(const struct zinf_accumulate *op, const void *from, void *to);
void zinf_cuda_reduce(const struct zinf_reduce *op, const void *parts, void *to);
void zinf_cuda_scale(const struct zinf_scale *op, void *x);
double zinf_cuda_square_sum(const struct zinf_scan *op, const void *x);
/** The same to device memory: the call does not wait. */
void zinf_cuda_square_sum_to(const struct zinf_scan *op, const void *x, double *sum);
int64_t zinf_cuda_first_nonfinite(const struct zinf_scan *op, const void *x);
void zinf_cuda_update(const struct zinf_update_op *op);

/** Its name becomes that of the kernels which the open device runs: other kernels, other bits. */
extern struct zinf_ops zinf_cuda_ops;

#ifdef __cplusplus
}
#endif
#endif
