/*
 * CRC32C: folding by carry-less products of 512 bits where the machine has them (Gopal et al.,
 * "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ", 2009: memory sets the rate), else
 * the instruction of SSE4.2 (three interleaved streams, because one stream waits three cycles for
 * each result), else eight tables ("slicing by eight", Kounavis and Berry, 2005). Combination of
 * parts: multiplication by x^(8 n) modulo the polynomial, as in zlib's crc32_combine, but by
 * repeated squaring of the polynomial itself.
 */
#include "base/crc32c.h"

#include <pthread.h>
#include <string.h>

#define POLYNOMIAL 0x82f63b78u /* Castagnoli's 0x1edc6f41, bits reversed */

static uint32_t table[8][256];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static void make_tables(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
        table[0][i] = crc;
    }
    for (int i = 0; i < 256; i++)
        for (int k = 1; k < 8; k++)
            table[k][i] = table[k - 1][i] >> 8 ^ table[0][table[k - 1][i] & 0xff];
}

static uint32_t crc_tables(uint32_t crc, const unsigned char *data, size_t bytes)
{
    pthread_once(&tables_once, make_tables);
    for (; bytes >= 8; data += 8, bytes -= 8) {
        uint32_t low = crc ^ ((uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 |
                              (uint32_t)data[3] << 24);
        crc = table[7][low & 0xff] ^ table[6][low >> 8 & 0xff] ^ table[5][low >> 16 & 0xff] ^
              table[4][low >> 24] ^ table[3][data[4]] ^ table[2][data[5]] ^ table[1][data[6]] ^
              table[0][data[7]];
    }
    for (; bytes; bytes--)
        crc = crc >> 8 ^ table[0][(crc ^ *data++) & 0xff];
    return crc;
}

/* a(x) * b(x) modulo the polynomial; bit 31 is x^0. */
static uint32_t multiply(uint32_t a, uint32_t b)
{
    uint32_t product = 0;
    for (uint32_t bit = 1u << 31; bit; bit >>= 1) {
        if (a & bit)
            product ^= b;
        b = b >> 1 ^ (b & 1 ? POLYNOMIAL : 0);
    }
    return product;
}

/* x^(8 n) modulo the polynomial */
static uint32_t power_of_bytes(uint64_t n)
{
    uint32_t power = 1u << 23, result = 1u << 31; /* x^8, x^0 */
    for (; n; n >>= 1) {
        if (n & 1)
            result = multiply(result, power);
        power = multiply(power, power);
    }
    return result;
}

uint32_t zinf_crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t bytes_b)
{
    return multiply(power_of_bytes(bytes_b), crc_a) ^ crc_b;
}

#if defined(__x86_64__)
#include <immintrin.h>

enum {
    STREAM = 1024
}; /* bytes of one of the three streams; 3 * STREAM stays in the first-level cache */

static uint32_t stream_power[2]; /* x^(8 STREAM), x^(16 STREAM) */
static pthread_once_t stream_once = PTHREAD_ONCE_INIT;

static void make_stream_powers(void)
{
    stream_power[0] = power_of_bytes(STREAM);
    stream_power[1] = power_of_bytes(2 * STREAM);
}

static uint64_t word_at(const unsigned char *data)
{
    uint64_t word;
    memcpy(&word, data, sizeof word);
    return word;
}

__attribute__((target("sse4.2"))) static uint32_t crc_sse42(uint32_t crc, const unsigned char *data,
                                                            size_t bytes)
{
    pthread_once(&stream_once, make_stream_powers);
    for (; bytes >= 3 * STREAM; data += 3 * STREAM, bytes -= 3 * STREAM) {
        uint64_t a = crc, b = 0, c = 0;
        for (int i = 0; i < STREAM; i += 8) {
            a = _mm_crc32_u64(a, word_at(data + i));
            b = _mm_crc32_u64(b, word_at(data + STREAM + i));
            c = _mm_crc32_u64(c, word_at(data + 2 * STREAM + i));
        }
        crc = multiply(stream_power[1], (uint32_t)a) ^ multiply(stream_power[0], (uint32_t)b) ^
              (uint32_t)c;
    }
    for (; bytes >= 8; data += 8, bytes -= 8)
        crc = (uint32_t)_mm_crc32_u64(crc, word_at(data));
    for (; bytes; bytes--)
        crc = _mm_crc32_u8(crc, *data++);
    return crc;
}

enum { FOLD = 256 }; /* bytes that one step of folding moves on: four vectors */

static uint64_t fold_factor[2]; /* for the low and high half of 16 bytes */
static pthread_once_t fold_once = PTHREAD_ONCE_INIT;

/* A product of reflected 64 and 32 bit polynomials stands one bit lower than its place, and 32 bits
 * of it are the distance of the halves. */
static void make_fold_factors(void)
{
    fold_factor[0] = (uint64_t)power_of_bytes(FOLD + 4) << 1;
    fold_factor[1] = (uint64_t)power_of_bytes(FOLD - 4) << 1;
}

/* Each vector is carried FOLD bytes on, where it has the same remainder, and the data there are
 * added. What is left at the end is a message with the CRC of everything before it. */
__attribute__((target("avx512f,vpclmulqdq,sse4.2"))) static uint32_t
crc_folded(uint32_t crc, const unsigned char *data, size_t bytes)
{
    unsigned char rest[FOLD];
    __m512i part[FOLD / 64];
    if (bytes < 2 * FOLD)
        return crc_sse42(crc, data, bytes);
    pthread_once(&fold_once, make_fold_factors);
    const __m512i factor = _mm512_set_epi64((long long)fold_factor[1], (long long)fold_factor[0],
                                            (long long)fold_factor[1], (long long)fold_factor[0],
                                            (long long)fold_factor[1], (long long)fold_factor[0],
                                            (long long)fold_factor[1], (long long)fold_factor[0]);
    for (int i = 0; i < FOLD / 64; i++)
        part[i] = _mm512_loadu_si512(data + 64 * i);
    part[0] = _mm512_xor_si512(part[0], _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)crc)));
    for (data += FOLD, bytes -= FOLD; bytes >= FOLD; data += FOLD, bytes -= FOLD)
        for (int i = 0; i < FOLD / 64; i++) {
            __m512i low = _mm512_clmulepi64_epi128(part[i], factor, 0x00);
            __m512i high = _mm512_clmulepi64_epi128(part[i], factor, 0x11);
            part[i] = _mm512_ternarylogic_epi64(low, high, _mm512_loadu_si512(data + 64 * i),
                                                0x96); /* xor of three */
        }
    for (int i = 0; i < FOLD / 64; i++)
        _mm512_storeu_si512(rest + 64 * i, part[i]);
    return crc_sse42(crc_sse42(0, rest, sizeof rest), data, bytes);
}

static uint32_t crc_best(uint32_t crc, const unsigned char *data, size_t bytes)
{
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("vpclmulqdq"))
        return crc_folded(crc, data, bytes);
    return __builtin_cpu_supports("sse4.2") ? crc_sse42(crc, data, bytes)
                                            : crc_tables(crc, data, bytes);
}
#else
static uint32_t crc_best(uint32_t crc, const unsigned char *data, size_t bytes)
{
    return crc_tables(crc, data, bytes);
}
#endif

uint32_t zinf_crc32c(uint32_t crc, const void *data, size_t bytes)
{
    return ~crc_best(~crc, data, bytes);
}

uint32_t zinf_crc32c_portable(uint32_t crc, const void *data, size_t bytes)
{
    return ~crc_tables(~crc, data, bytes);
}
