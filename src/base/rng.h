/*
 * Counter-based random numbers: a value depends on what it is for (key) and where it stands (counter), never on who asks or in
 * which order. So initialisation, shuffling and dropout are the same on any number of ranks, on any backend and after resume.
 *
 * Generator: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11).
 */
#ifndef ZINF_BASE_RNG_H
#define ZINF_BASE_RNG_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct zinf_rng_key {
    uint32_t word[2];
};

/** The key of a stream: depends on the seed and on every byte of `name`. */
struct zinf_rng_key zinf_rng_key(uint64_t seed, const char *name);

/** Ten rounds of Philox: 4 words of counter in, 4 random words out. */
void zinf_rng_philox(const uint32_t counter[4], struct zinf_rng_key key, uint32_t out[4]);

/**
 * out[i] = mean + std * normal(first + i), 0 <= i < count: element `first + i` of the key's infinite stream of normal numbers
 * (Box-Muller in double, rounded to float once), so that ranks can make their slices apart.
 */
void zinf_rng_normal(float *out, struct zinf_rng_key key, int64_t first, int64_t count, double mean,
                     double std);

/**
 * The image of `index` under a permutation of 0 .. count-1 that depends on the key only. O(1) memory: a Feistel network with cycle
 * walking (Black and Rogaway, CT-RSA 2002).
 */
int64_t zinf_rng_permute(struct zinf_rng_key key, int64_t count, int64_t index);

/*
 * Dropout. The word for element e of sample n at a place in step s is Philox(counter = {e / 4 low, e / 4 high 12 bits | place << 12,
 * sample low, step low}, key of the run)[e % 4]; the element is kept when word >= threshold, threshold = p * 2^32.
 * `place` = 8 * layer + kind, kind: 0 embedding, 1 attention, 2 residual after attention, 3 residual after MLP.
 */
struct zinf_dropout {
    struct zinf_rng_key key;
    uint32_t step; /* step of the run, counted from 0 */
    uint32_t place;
    uint32_t sample;          /* number of the first sample of this micro-batch in its global batch */
    float p;                  /* 0 = off */
    const uint32_t *counters; /* NULL, or {step, sample} in memory of the device, read in place of the two above when the operation runs */
};

#ifdef __cplusplus
}
#endif
#endif
