/*
 * Matrix products by oneDNN or a CBLAS, for all instruction sets: the library chooses its own
 * kernels.
 */
#ifndef ZINF_CPU_MATMUL_H
#define ZINF_CPU_MATMUL_H

#include "device/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/** The last step of a tile: to (rows, columns) of `dtype` = [to +] from [+ bias], rounded once. */
struct zinf_cpu_finish {
    void *to;
    enum zinf_dtype dtype;
    int64_t ld;
    const float *from; /* may be `to` where that is fp32 and not accumulated */
    int64_t from_ld;
    const void *bias; /* (columns); NULL = none */
    enum zinf_dtype bias_dtype;
    bool accumulate;
};

/** Conversions of matrix tiles, vectorised for one instruction set; ld = elements from row to row.
 */
struct zinf_cpu_rows {
    /** to (rows, columns), dense, fp32 = from. */
    void (*widen)(float *to, const void *from, enum zinf_dtype dtype, int64_t ld, int64_t rows,
                  int64_t columns);
    void (*finish)(const struct zinf_cpu_finish *op, int64_t rows, int64_t columns);
};

/** See zinf_ops.matmul. */
void zinf_cpu_matmul(const struct zinf_matmul *op, const struct zinf_cpu_rows *rows);

/** E.g. "oneDNN 2.6.3, bf16 native". Static text. */
const char *zinf_cpu_matmul_name(void);

#ifdef __cplusplus
}
#endif
#endif
