/*
 * Names of the kernels of one instruction set. Every kernel file is compiled once per set with
 * ZINF_ISA defined as its name (Makefile.inc), so that KERNEL(rope) is zinf_avx2_rope in one
 * library and zinf_plain_rope in another. What they do: device/ops.h.
 */
#ifndef ZINF_CPU_KERNELS_H
#define ZINF_CPU_KERNELS_H

#include "cpu/matmul.h"
#include "cpu/threads.h"
#include "device/ops.h"

#define ZINF_JOIN_NAMES(isa, name) zinf_##isa##_##name
#define ZINF_JOIN(isa, name)       ZINF_JOIN_NAMES(isa, name)
#define KERNEL(name)               ZINF_JOIN(ZINF_ISA, name)

enum {
    CHUNK = 16384
}; /* elements of one task of an elementwise operation: 64 KiB, fits a core's second-level cache */

/** Tasks of `size` that cover `count`. */
static inline int64_t chunks(int64_t count, int64_t size)
{
    return (count + size - 1) / size;
}

static inline int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/** Bytes behind `memory` where element i of `dtype` stands. */
static inline const void *element(const void *memory, enum zinf_dtype dtype, int64_t i)
{
    return (const char *)memory + i * (dtype == ZINF_FP32 ? 4 : 2);
}

static inline void *element_out(void *memory, enum zinf_dtype dtype, int64_t i)
{
    return (char *)memory + i * (dtype == ZINF_FP32 ? 4 : 2);
}

extern const struct zinf_cpu_rows KERNEL(rows);
extern const struct zinf_ops KERNEL(ops);

void KERNEL(matmul)(const struct zinf_matmul *op);
void KERNEL(bias_backward)(const struct zinf_column_sum *op, const void *dy, void *dbias);
void KERNEL(norm_forward)(const struct zinf_norm *op, void *y);
void KERNEL(norm_backward)(const struct zinf_norm *op, const void *dy, const void *residual,
                           void *dx, void *dweight, void *dbias);
void KERNEL(attention_forward)(const struct zinf_attention *op, void *y);
void KERNEL(attention_backward)(const struct zinf_attention *op, const void *dy, void *dqkv);
void KERNEL(rope)(const struct zinf_rope *op, void *x);
void KERNEL(activation_forward)(const struct zinf_activate *op, void *y);
void KERNEL(activation_backward)(const struct zinf_activate *op, const void *dy, void *dx);
void KERNEL(gated_forward)(const struct zinf_activate *op, void *y);
void KERNEL(gated_backward)(const struct zinf_activate *op, const void *dy, void *dx);
void KERNEL(dropout_add)(const struct zinf_dropout_add *op, const void *x, const void *residual,
                         void *y);
void KERNEL(embedding_forward)(const struct zinf_embedding *op, const void *tile, void *x);
void KERNEL(embedding_backward)(const struct zinf_embedding *op, const void *dx, void *dtile);
void KERNEL(position_forward)(const struct zinf_embedding *op, const void *tile, void *x);
void KERNEL(position_backward)(const struct zinf_embedding *op, const void *dx, void *dtile);
void KERNEL(loss_tile_forward)(const struct zinf_loss_tile *op, const void *logits);
void KERNEL(loss_tile_backward)(const struct zinf_loss_tile *op, void *logits);
void KERNEL(cast)(const struct zinf_cast *op, const void *from, void *to);
void KERNEL(accumulate)(const struct zinf_accumulate *op, const void *from, void *to);
void KERNEL(reduce)(const struct zinf_reduce *op, const void *parts, void *to);
void KERNEL(scale)(const struct zinf_scale *op, void *x);
double KERNEL(square_sum)(const struct zinf_scan *op, const void *x);
int64_t KERNEL(first_nonfinite)(const struct zinf_scan *op, const void *x);
void KERNEL(update)(const struct zinf_update_op *op);

#endif
