/*
 * Dropout masks: Philox4x32-10 (Salmon et al., SC11) on vectors, bit for bit zinf_rng_philox() of
 * base/rng.h.
 */
#ifndef ZINF_CPU_PHILOX_H
#define ZINF_CPU_PHILOX_H

#include "base/rng.h"
#include "cpu/vec.h"

/** What is the same for all elements of a sample. */
struct dropout_row {
    struct zinf_rng_key key;
    uint32_t place, sample, step;
    uint32_t threshold; /* kept when word >= threshold */
    float keep_scale;   /* 1 / (1 - p); with p = 1, which has no threshold of 32 bits, 0 */
};

INLINE struct dropout_row dropout_row(const struct zinf_dropout *dropout, int64_t sample)
{
    struct dropout_row row;
    row.key = dropout->key, row.place = dropout->place;
    row.step = dropout->counters ? dropout->counters[0] : dropout->step;
    row.sample = (dropout->counters ? dropout->counters[1] : dropout->sample) + (uint32_t)sample;
    row.threshold = dropout->p < 1.0f ? (uint32_t)((double)dropout->p * 4294967296.0) : 0;
    row.keep_scale = dropout->p < 1.0f ? 1.0f / (1.0f - dropout->p) : 0.0f;
    return row;
}

/** low and high half of x * constant. */
INLINE void multiply_wide(vuint x, uint32_t constant, vuint *low, vuint *high)
{
    vlong even = multiply_even(x, all_bits(constant));
    vlong odd = multiply_even((vuint)((vlong)x >> 32), all_bits(constant));
    *low = (vuint)((even & 0xffffffffu) | (odd << 32));
    *high = (vuint)((even >> 32) | (odd & 0xffffffff00000000u));
}

/** WIDTH counters: word w of counter i in out[w][i]. */
INLINE void philox(vuint counter[4], struct zinf_rng_key key)
{
    uint32_t key0 = key.word[0], key1 = key.word[1];
    for (int round = 0; round < 10; round++) {
        vuint low0, high0, low1, high1;
        multiply_wide(counter[0], 0xD2511F53u, &low0, &high0);
        multiply_wide(counter[2], 0xCD9E8D57u, &low1, &high1);
        counter[0] = high1 ^ counter[1] ^ key0;
        counter[1] = low1;
        counter[2] = high0 ^ counter[3] ^ key1;
        counter[3] = low0;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
}

/* 4 x 4 transposition of 32-bit words within each 128 bits. */
#if defined(__AVX512F__)
#define UNPACK32(half, x, y) (vlong) _mm512_unpack##half##_epi32((__m512i)(x), (__m512i)(y))
#define UNPACK64(half, x, y) (vuint) _mm512_unpack##half##_epi64((__m512i)(x), (__m512i)(y))
#elif defined(__AVX2__)
#define UNPACK32(half, x, y) (vlong) _mm256_unpack##half##_epi32((__m256i)(x), (__m256i)(y))
#define UNPACK64(half, x, y) (vuint) _mm256_unpack##half##_epi64((__m256i)(x), (__m256i)(y))
#elif defined(__x86_64__)
#define UNPACK32(half, x, y) (vlong) _mm_unpack##half##_epi32((__m128i)(x), (__m128i)(y))
#define UNPACK64(half, x, y) (vuint) _mm_unpack##half##_epi64((__m128i)(x), (__m128i)(y))
#endif

INLINE void transpose_words(vuint word[4])
{
#if defined(UNPACK32)
    vlong low01 = UNPACK32(lo, word[0], word[1]), high01 = UNPACK32(hi, word[0], word[1]);
    vlong low23 = UNPACK32(lo, word[2], word[3]), high23 = UNPACK32(hi, word[2], word[3]);
    word[0] = UNPACK64(lo, low01, low23);
    word[1] = UNPACK64(hi, low01, low23);
    word[2] = UNPACK64(lo, high01, high23);
    word[3] = UNPACK64(hi, high01, high23);
#else
    vuint from[4] = {word[0], word[1], word[2], word[3]};
    for (int lane = 0; lane < WIDTH; lane++)
        for (int w = 0; w < 4; w++)
            word[lane % 4][lane / 4 * 4 + w] = from[w][lane];
#endif
}

/** Which counter stands in which lane, so that after transpose_words() the words lie in the order
 * of elements. */
INLINE vuint counter_numbers(void)
{
    vuint number;
    for (int lane = 0; lane < WIDTH; lane++)
        number[lane] = (uint32_t)(WIDTH / 4 * (lane % 4) + lane / 4);
    return number;
}

/** Words of the elements 4 * first_counter ... of a sample: 4 * WIDTH of them, in order. */
INLINE void dropout_words(const struct dropout_row *row, int64_t first_counter, vuint word[4])
{
    vuint low = all_bits((uint32_t)first_counter) + counter_numbers();
    vuint carry =
        (vuint)(low < (uint32_t)first_counter); /* all ones where the low half went round */
    vuint high = all_bits((uint32_t)((uint64_t)first_counter >> 32) & 0xfffu) - carry;
    word[0] = low;
    word[1] = (high & 0xfffu) | (row->place << 12);
    word[2] = all_bits(row->sample);
    word[3] = all_bits(row->step);
    philox(word, row->key);
    transpose_words(word);
}

/**
 * Multipliers 0 or 1 / (1 - p) of the elements first .. first + count - 1 of a sample.
 * @param factors  room for count + 4 * WIDTH + 3 elements
 * @return where element `first` stands within factors
 */
static __attribute__((unused)) const float *
dropout_factors(const struct dropout_row *row, int64_t first, int64_t count, float *factors)
{
    int64_t skip = first % 4;
    for (int64_t done = 0; done < skip + count; done += 4 * WIDTH) {
        vuint word[4];
        dropout_words(row, first / 4 + done / 4, word);
        for (int w = 0; w < 4; w++)
            store_whole(ZINF_FP32, factors, done + w * WIDTH,
                        choose((vint)(word[w] >= row->threshold), all(row->keep_scale), all(0.0f)));
    }
    return factors + skip;
}

#endif
