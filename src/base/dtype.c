/*
 * Element types and their conversion on the host, one element at a time: the reference the
 * backends' vector conversions are held against, so it is written for clearness. Integer arithmetic
 * on the bit patterns, because it does not depend on the rounding mode.
 */
#include "base/dtype.h"

#include <string.h>

#include "base/status.h"

size_t zinf_dtype_bytes(enum zinf_dtype dtype)
{
    return dtype == ZINF_FP32 ? 4 : 2;
}

const char *zinf_dtype_name(enum zinf_dtype dtype)
{
    static const char *const name[] = {"fp32", "fp16", "bf16"};
    ZINF_ASSERT(dtype <= ZINF_BF16);
    return name[dtype];
}

int zinf_dtype_parse(const char *name, enum zinf_dtype *dtype)
{
    static const char *const names[][2] = {
        {"fp32", "float32"}, {"fp16", "float16"}, {"bf16", "bfloat16"}};
    for (int i = 0; i < 3; i++)
        if (!strcmp(name, names[i][0]) || !strcmp(name, names[i][1])) {
            *dtype = (enum zinf_dtype)i;
            return 0;
        }
    return -1;
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* value / 2^shift to the nearest integer, ties to even; 1 <= shift <= 31 */
static uint32_t round_shift(uint32_t value, int shift)
{
    uint32_t half = 1u << (shift - 1), rest = value & ((half << 1) - 1), whole = value >> shift;
    return whole + (rest > half || (rest == half && (whole & 1)));
}

uint16_t zinf_bf16_from_float(float value)
{
    uint32_t bits = bits_of(value);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 |
                          0x40); /* without the quiet bit a small payload would become infinity */
    return (uint16_t)(round_shift(bits & 0x7fffffff, 16) | (bits >> 16 & 0x8000));
}

float zinf_bf16_to_float(uint16_t bits)
{
    return float_of((uint32_t)bits << 16);
}

/*
 * fp16: 1 sign, 5 exponent (bias 15), 10 mantissa. A float of biased exponent e is normal in fp16
 * for e >= 113 (2^-14); the mantissa's carry into the exponent is wanted: it makes the next binade,
 * and infinity at the top.
 */
uint16_t zinf_fp16_from_float(float value)
{
    uint32_t bits = bits_of(value), magnitude = bits & 0x7fffffff, result;
    if (magnitude > 0x7f800000)
        result = 0x7e00 | (magnitude >> 13 & 0x3ff);
    else if (magnitude >= 0x47800000) /* 65536 and above */
        result = 0x7c00;
    else if (magnitude >= 0x38800000) /* 2^-14 */
        result = round_shift(magnitude - 0x38000000, 13);
    else if (magnitude < 0x33000000) /* below 2^-25: half of the smallest subnormal */
        result = 0;
    else
        result = round_shift((magnitude & 0x7fffff) | 0x800000, 126 - (int)(magnitude >> 23));
    return (uint16_t)(result | (bits >> 16 & 0x8000));
}

float zinf_fp16_to_float(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16, exponent = bits >> 10 & 31,
             mantissa = bits & 0x3ff;
    if (exponent == 31)
        return float_of(sign | 0x7f800000 | mantissa << 13 | (mantissa ? 0x400000 : 0));
    if (exponent)
        return float_of(sign | (exponent + 112) << 23 | mantissa << 13);
    float small = (float)mantissa * 0x1p-24f; /* exact: subnormals are multiples of 2^-24 */
    return sign ? -small : small;
}

static float load(const void *from, enum zinf_dtype dtype, int64_t i)
{
    if (dtype == ZINF_FP32)
        return ((const float *)from)[i];
    uint16_t bits = ((const uint16_t *)from)[i];
    return dtype == ZINF_FP16 ? zinf_fp16_to_float(bits) : zinf_bf16_to_float(bits);
}

static void store(void *to, enum zinf_dtype dtype, int64_t i, float value)
{
    if (dtype == ZINF_FP32)
        ((float *)to)[i] = value;
    else
        ((uint16_t *)to)[i] =
            dtype == ZINF_FP16 ? zinf_fp16_from_float(value) : zinf_bf16_from_float(value);
}

void zinf_dtype_convert(void *to, enum zinf_dtype to_dtype, const void *from,
                        enum zinf_dtype from_dtype, int64_t count)
{
    ZINF_ASSERT(count >= 0);
    if (to_dtype == from_dtype) {
        memmove(to, from, (size_t)count * zinf_dtype_bytes(to_dtype));
        return;
    }
    for (int64_t i = 0; i < count; i++)
        store(to, to_dtype, i, load(from, from_dtype, i));
}
