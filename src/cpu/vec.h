/*
 * Vectors for the CPU kernels: as many floats as a register of the instruction set holds, loads and
 * stores that convert from and to the three element types, and the few operations the compilers'
 * vector extensions lack.
 *
 * Every kernel file is compiled once per instruction set (Makefile.inc) and all of them include
 * this one. Extensions of gcc and clang rather than intrinsics, so that one source serves x86-64,
 * AVX2, AVX-512 and machines that are none of them. A vector of 16 floats everywhere was tried and
 * dropped: gcc 12 puts vectors wider than a register on the stack.
 *
 * Sums run in 16 lanes on every instruction set (struct lanes): lane l adds the elements l, l + 16,
 * l + 32, ... in this order, and the lanes are folded in halves. So the order of a sum depends on
 * its length only.
 */
#ifndef ZINF_CPU_VEC_H
#define ZINF_CPU_VEC_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/dtype.h"

#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
#define VECTOR_FLOATS 16
#elif defined(__AVX2__)
#define VECTOR_FLOATS 8
#else
#define VECTOR_FLOATS 4
#endif

enum { WIDTH = VECTOR_FLOATS, LANES = 16, PARTS = LANES / WIDTH };

typedef float vfloat __attribute__((vector_size(VECTOR_FLOATS * 4)));
typedef int32_t vint __attribute__((vector_size(VECTOR_FLOATS * 4)));
typedef uint32_t vuint __attribute__((vector_size(VECTOR_FLOATS * 4)));
typedef uint64_t vlong __attribute__((vector_size(VECTOR_FLOATS * 4)));
typedef uint16_t vhalf __attribute__((vector_size(VECTOR_FLOATS * 2)));
typedef double vdouble __attribute__((vector_size(VECTOR_FLOATS * 8)));

INLINE vfloat all(float value)
{
    return value - (vfloat){0};
}

INLINE vuint all_bits(uint32_t value)
{
    return value - (vuint){0};
}

INLINE vfloat choose(vint where, vfloat yes, vfloat no)
{
    return (vfloat)(((vint)yes & where) | ((vint)no & ~where));
}

INLINE vfloat vabs(vfloat x)
{
    return (vfloat)((vuint)x & 0x7fffffffu);
}

/** NaN of x stays. */
INLINE vfloat vmax(vfloat x, vfloat y)
{
    return choose(x < y, y, x);
}

INLINE vfloat vmin(vfloat x, vfloat y)
{
    return choose(x > y, y, x);
}

/** a b + c, rounded once where the instruction set has that: bits that do not depend on what a
 * compiler fuses on its own. */
INLINE vfloat fused(vfloat a, vfloat b, vfloat c)
{
#if defined(__AVX512F__)
    return (vfloat)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    return (vfloat)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

INLINE vfloat vsqrt(vfloat x)
{
#if defined(__AVX512F__)
    return (vfloat)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX2__)
    return (vfloat)_mm256_sqrt_ps((__m256)x);
#elif defined(__x86_64__)
    return (vfloat)_mm_sqrt_ps((__m128)x);
#else
    for (int lane = 0; lane < WIDTH; lane++)
        x[lane] = sqrtf(x[lane]);
    return x;
#endif
}

/** Products of the even 32-bit lanes, 64 bits each. */
INLINE vlong multiply_even(vuint x, vuint y)
{
#if defined(__AVX512F__)
    return (vlong)_mm512_mul_epu32((__m512i)x, (__m512i)y);
#elif defined(__AVX2__)
    return (vlong)_mm256_mul_epu32((__m256i)x, (__m256i)y);
#elif defined(__x86_64__)
    return (vlong)_mm_mul_epu32((__m128i)x, (__m128i)y);
#else
    /* the even lane is the low half on little-endian machines, the only ones zinf's files are
     * written on */
    return ((vlong)x & 0xffffffffu) * ((vlong)y & 0xffffffffu);
#endif
}

/* Conversions. To nearest, ties to even; NaN becomes a quiet NaN. */

INLINE vfloat from_bf16(vhalf bits)
{
    return (vfloat)(__builtin_convertvector(bits, vuint) << 16);
}

INLINE vhalf to_bf16(vfloat x)
{
    vuint bits = (vuint)x;
    vuint rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    vuint quiet = (bits >> 16) | 0x40u;
    return __builtin_convertvector((vuint)choose(x != x, (vfloat)quiet, (vfloat)rounded), vhalf);
}

INLINE vfloat from_fp16(vhalf bits)
{
#if defined(__AVX512F__)
    return (vfloat)_mm512_cvtph_ps((__m256i)bits);
#elif defined(__F16C__)
    return (vfloat)_mm256_cvtph_ps((__m128i)bits);
#else
    /* exponent and mantissa shifted into place, then 2^112 corrects the bias: exact, subnormal
     * numbers included */
    vuint wide = __builtin_convertvector(bits, vuint);
    vuint magnitude = (wide & 0x7fffu) << 13;
    vuint finite = (vuint)((vfloat)magnitude * 0x1p112f);
    vuint special = magnitude | 0x7f800000u;
    special |= (vuint)((wide & 0x3ffu) != 0u) & 0x400000u;
    vint is_special = (wide & 0x7c00u) == 0x7c00u;
    vuint sign = (wide & 0x8000u) << 16;
    return (vfloat)((vuint)choose(is_special, (vfloat)special, (vfloat)finite) | sign);
#endif
}

INLINE vhalf to_fp16(vfloat x)
{
#if defined(__AVX512F__)
    return (vhalf)_mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__F16C__)
    return (vhalf)_mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT);
#else
    vuint sign = ((vuint)x >> 16) & 0x8000u;
    vuint magnitude = (vuint)x & 0x7fffffffu;
    /* below 2^-14 the addition of 0.5 rounds at the place of fp16's last subnormal bit */
    vuint small = (vuint)((vfloat)magnitude + 0.5f) - 0x3f000000u;
    vuint normal = (magnitude + 0xc8000fffu + ((magnitude >> 13) & 1u)) >> 13;
    vuint result = (vuint)choose((vint)(magnitude < 0x38800000u), (vfloat)small, (vfloat)normal);
    result =
        (vuint)choose((vint)(magnitude >= 0x477ff000u), (vfloat)all_bits(0x7c00u), (vfloat)result);
    vuint quiet = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
    result = (vuint)choose(x != x, (vfloat)quiet, (vfloat)result);
    return __builtin_convertvector(result | sign, vhalf);
#endif
}

/* Loads and stores. `i` counts elements; `left` elements are there from i on: past them loads give
 * 0 and stores write nothing. */

INLINE int64_t element_bytes(enum zinf_dtype dtype)
{
    return dtype == ZINF_FP32 ? 4 : 2;
}

INLINE vfloat load_whole(enum zinf_dtype dtype, const void *memory, int64_t i)
{
    if (dtype == ZINF_FP32) {
        vfloat x;
        memcpy(&x, (const char *)memory + i * 4, sizeof x);
        return x;
    }
    vhalf bits;
    memcpy(&bits, (const char *)memory + i * 2, sizeof bits);
    return dtype == ZINF_BF16 ? from_bf16(bits) : from_fp16(bits);
}

INLINE void store_whole(enum zinf_dtype dtype, void *memory, int64_t i, vfloat x)
{
    if (dtype == ZINF_FP32) {
        memcpy((char *)memory + i * 4, &x, sizeof x);
        return;
    }
    vhalf bits = dtype == ZINF_BF16 ? to_bf16(x) : to_fp16(x);
    memcpy((char *)memory + i * 2, &bits, sizeof bits);
}

/* The rare end of a row, out of the loops' way. */
static __attribute__((noinline, cold, unused)) void load_part(char *lanes, const char *memory,
                                                              int64_t bytes)
{
    memset(lanes, 0, WIDTH * 4);
    memcpy(lanes, memory, bytes > 0 ? (size_t)bytes : 0);
}

static __attribute__((noinline, cold, unused)) void store_part(char *memory, const char *lanes,
                                                               int64_t bytes)
{
    memcpy(memory, lanes, bytes > 0 ? (size_t)bytes : 0);
}

INLINE vfloat load(enum zinf_dtype dtype, const void *memory, int64_t i, int64_t left)
{
    if (__builtin_expect(left >= WIDTH, 1))
        return load_whole(dtype, memory, i);
    char lanes[WIDTH * 4];
    int64_t size = element_bytes(dtype);
    load_part(lanes, (const char *)memory + i * size, left * size);
    return load_whole(dtype, lanes, 0);
}

INLINE void store(enum zinf_dtype dtype, void *memory, int64_t i, int64_t left, vfloat x)
{
    if (__builtin_expect(left >= WIDTH, 1)) {
        store_whole(dtype, memory, i, x);
        return;
    }
    char lanes[WIDTH * 4];
    int64_t size = element_bytes(dtype);
    store_whole(dtype, lanes, 0, x);
    store_part((char *)memory + i * size, lanes, left * size);
}

/** x rounded to `dtype` and back. */
INLINE vfloat rounded(enum zinf_dtype dtype, vfloat x)
{
    return dtype == ZINF_FP32   ? x
           : dtype == ZINF_BF16 ? from_bf16(to_bf16(x))
                                : from_fp16(to_fp16(x));
}

/** Number of the lane + first, as float. */
INLINE vint lane_numbers(void)
{
    vint lane;
    for (int i = 0; i < WIDTH; i++)
        lane[i] = i;
    return lane;
}

/** x in the first `left` lanes, `other` behind them. */
INLINE vfloat keep_first(int64_t left, vfloat x, float other)
{
    if (__builtin_expect(left >= WIDTH, 1))
        return x;
    return choose(lane_numbers() < (int32_t)left, x, all(other));
}

/* A sum in 16 lanes. */
struct lanes {
    vfloat part[PARTS];
};

INLINE void fold(float lane[LANES], const struct lanes *sum)
{
    memcpy(lane, sum->part, LANES * sizeof *lane);
}

INLINE float lanes_sum(const struct lanes *sum)
{
    float lane[LANES];
    fold(lane, sum);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            lane[i] += lane[i + half];
    return lane[0];
}

INLINE float lanes_max(const struct lanes *maximum)
{
    float lane[LANES];
    fold(lane, maximum);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            lane[i] = lane[i + half] > lane[i] || lane[i + half] != lane[i + half] ? lane[i + half]
                                                                                   : lane[i];
    return lane[0];
}

/**
 * CALL with `constant_dtype` as a constant: the compiler makes one copy of the inlined kernel for
 * each type. E.g. FOR_DTYPE(op->dtype, norm_rows(constant_dtype, op, y, begin, end));
 */
#define FOR_DTYPE(dtype, CALL)                                                                     \
    do {                                                                                           \
        switch (dtype) {                                                                           \
        case ZINF_FP32: {                                                                          \
            const enum zinf_dtype constant_dtype = ZINF_FP32;                                      \
            CALL;                                                                                  \
            break;                                                                                 \
        }                                                                                          \
        case ZINF_FP16: {                                                                          \
            const enum zinf_dtype constant_dtype = ZINF_FP16;                                      \
            CALL;                                                                                  \
            break;                                                                                 \
        }                                                                                          \
        case ZINF_BF16: {                                                                          \
            const enum zinf_dtype constant_dtype = ZINF_BF16;                                      \
            CALL;                                                                                  \
            break;                                                                                 \
        }                                                                                          \
        }                                                                                          \
    } while (0)

#endif
