/*
 * The matrix products that a model's passes are made of: for whoever prepares them before the first step (device/products.h).
 */
#ifndef ZINF_MODEL_PRODUCTS_H
#define ZINF_MODEL_PRODUCTS_H

#include "device/ops.h"
#include "model/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Passes of one shape. */
struct zinf_products_pass {
    const struct zinf_model *model;
    enum zinf_dtype dtype;
    int64_t batch, sequence;
    bool training; /* the backward pass too */
};

/**
 * Call `found` for every matrix product of a pass, one layer standing for all: the same more than once. Operands are as large and as aligned
 * as in a step, their addresses mean nothing. Local, not from two threads with one `context`.
 */
void zinf_model_products(const struct zinf_products_pass *pass,
                         void (*found)(void *context, const struct zinf_matmul *op), void *context);

#ifdef __cplusplus
}
#endif
#endif
