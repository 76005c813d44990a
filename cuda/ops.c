/*
 * The CUDA backend's table of operations, and the product's way: the library, else our own kernel.
 */
#include "cuda/cuda.h"

void zinf_cuda_matmul(const struct zinf_matmul *op)
{
    if (op->m == 0 || op->n == 0)
        return;
    enum zinf_cuda_made made = zinf_cuda_matmul_library(op);
    if (made == ZINF_CUDA_NOTHING)
        zinf_cuda_product(op);
    if (made != ZINF_CUDA_ALL)
        zinf_ops_follow(&zinf_cuda_ops, op);
}

#define OWN(operation) .operation = zinf_cuda_##operation,

struct zinf_ops zinf_cuda_ops = {.name = "cuda", ZINF_OPERATIONS(OWN)};
