/*
 * The element types zinf computes and stores in, and conversion between them on the host.
 *
 * fp16 and bf16 values are plain uint16_t. Every rounding is to nearest, ties to even; NaN stays NaN (made quiet), overflow gives
 * infinity. The fast conversions live in the backends (ops->cast); these are the reference they are held against.
 */
#ifndef ZINF_BASE_DTYPE_H
#define ZINF_BASE_DTYPE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum zinf_dtype { ZINF_FP32, ZINF_FP16, ZINF_BF16 };

size_t zinf_dtype_bytes(enum zinf_dtype dtype);

/** "fp32", "fp16" or "bf16". */
const char *zinf_dtype_name(enum zinf_dtype dtype);

/** @return 0, or -1 when `name` is none of the three (long forms "float32", "float16", "bfloat16" are taken too). */
int zinf_dtype_parse(const char *name, enum zinf_dtype *dtype);

uint16_t zinf_bf16_from_float(float value);
float zinf_bf16_to_float(uint16_t bits);
uint16_t zinf_fp16_from_float(float value);
float zinf_fp16_to_float(uint16_t bits);

/** Convert `count` elements; `to` and `from` do not overlap unless they are equal and the types too. */
void zinf_dtype_convert(void *to, enum zinf_dtype to_dtype, const void *from,
                        enum zinf_dtype from_dtype, int64_t count);

#ifdef __cplusplus
}
#endif
#endif
