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
void KERNEL(bias_backward)(void *bias_gradient, const void *dy, enum zinf_dtype dtype, int64_t rows,
                           int64_t columns);
void KERNEL(norm_forward)(const struct zinf_norm *op, void *y);
void KERNEL(norm_backward)(const struct zinf_norm *op, const void *dy, const void *residual,
                           void *dx, void *dweight, void *dbias);
void KERNEL(attention_forward)(const struct zinf_attention *op, void *y);
void KERNEL(attention_backward)(const struct zinf_attention *op, const void *dy, void *dqkv);
void KERNEL(rope)(const struct zinf_rope *op, void *x);
void KERNEL(activation_forward)(enum zinf_activation kind, enum zinf_dtype dtype, int64_t count,
                                const void *x, void *y);
void KERNEL(activation_backward)(enum zinf_activation kind, enum zinf_dtype dtype, int64_t count,
                                 const void *x, const void *dy, void *dx);
void KERNEL(gated_forward)(enum zinf_activation kind, enum zinf_dtype dtype, int64_t rows,
                           int64_t features, const void *gate_up, void *y);
void KERNEL(gated_backward)(enum zinf_activation kind, enum zinf_dtype dtype, int64_t rows,
                            int64_t features, const void *gate_up, const void *dy, void *dgate_up);
void KERNEL(dropout_add)(const struct zinf_dropout *dropout, enum zinf_dtype dtype, int64_t batch,
                         int64_t per_sample, const void *x, const void *residual, void *y);
void KERNEL(embedding_forward)(enum zinf_dtype dtype, const int32_t *ids, int64_t tokens,
                               int64_t columns, int64_t first_row, int64_t row_count,
                               const void *tile, void *x);
void KERNEL(embedding_backward)(enum zinf_dtype dtype, const int32_t *ids, int64_t tokens,
                                int64_t columns, int64_t first_row, int64_t row_count,
                                const void *dx, void *dtile);
void KERNEL(position_forward)(enum zinf_dtype dtype, int64_t batch, int64_t sequence,
                              int64_t columns, int64_t first_row, int64_t row_count,
                              const void *tile, void *x);
void KERNEL(position_backward)(enum zinf_dtype dtype, int64_t batch, int64_t sequence,
                               int64_t columns, int64_t first_row, int64_t row_count,
                               const void *dx, void *dtile);
void KERNEL(loss_tile_forward)(const struct zinf_loss_tile *op, const void *logits);
void KERNEL(loss_tile_backward)(const struct zinf_loss_tile *op, float scale, void *logits);
void KERNEL(cast)(void *to, enum zinf_dtype to_dtype, const void *from, enum zinf_dtype from_dtype,
                  int64_t count);
void KERNEL(accumulate)(void *to, enum zinf_dtype to_dtype, const void *from,
                        enum zinf_dtype from_dtype, int64_t count, bool first);
void KERNEL(reduce)(void *to, enum zinf_dtype to_dtype, const void *parts, enum zinf_dtype dtype,
                    int ranks, int64_t count, float scale, bool first);
void KERNEL(scale)(void *x, enum zinf_dtype dtype, int64_t count, float scale);
double KERNEL(square_sum)(const void *x, enum zinf_dtype dtype, int64_t count);
int64_t KERNEL(first_nonfinite)(const void *x, enum zinf_dtype dtype, int64_t count);
void KERNEL(update)(const struct zinf_update *options, int64_t count, float *weights,
                    float *const state[2], const void *gradient, enum zinf_dtype gradient_dtype,
                    void *low, enum zinf_dtype low_dtype);

#endif
