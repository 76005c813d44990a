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
    uint64_t threshold; /* kept when word >= threshold; 2^32 drops everything */
    float keep_scale;   /* 1 / (1 - p) */
};

INLINE struct dropout_row dropout_row(const struct zinf_dropout *dropout, int64_t sample)
{
    struct dropout_row row;
    row.key = dropout->key, row.place = dropout->place, row.step = dropout->step;
    row.sample = dropout->sample + (uint32_t)sample;
    row.threshold = (uint64_t)((double)dropout->p * 4294967296.0);
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

/** Words of the elements 4 * first_counter ... of a sample, WIDTH counters' worth: 4 * WIDTH words.
 */
INLINE void dropout_words(const struct dropout_row *row, int64_t first_counter, uint32_t *words)
{
    vuint low = all_bits((uint32_t)first_counter) + (vuint)lane_numbers();
    vuint carry =
        (vuint)(low < (uint32_t)first_counter); /* all ones where the low half went round */
    vuint high = all_bits((uint32_t)((uint64_t)first_counter >> 32) & 0xfffu) - carry;
    vuint word[4] = {low, (high & 0xfffu) | (row->place << 12), all_bits(row->sample),
                     all_bits(row->step)};
    philox(word, row->key);
    uint32_t lane[4][WIDTH];
    memcpy(lane, word, sizeof lane);
    for (int i = 0; i < WIDTH; i++)
        for (int w = 0; w < 4; w++)
            words[i * 4 + w] = lane[w][i];
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
        uint32_t words[4 * WIDTH];
        dropout_words(row, first / 4 + done / 4, words);
        for (int i = 0; i < 4 * WIDTH; i++)
            factors[done + i] = words[i] >= row->threshold ? row->keep_scale : 0.0f;
    }
    return factors + skip;
}

#endif
