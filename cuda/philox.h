/*
 * Dropout's random words on the device: bit for bit zinf_rng_philox() and the counters of base/rng.h.
 */
#ifndef ZINF_CUDA_PHILOX_H
#define ZINF_CUDA_PHILOX_H

#include "base/rng.h"
#include "cuda/kernel.h"

namespace zinf_cuda
{

/** What is the same for all elements of a micro-batch; made on the host. */
struct Dropout {
    uint32_t key0, key1, place, sample, step, threshold;
    const uint32_t *counters; /* NULL, or {step, sample} in place of the two */
    float keep_scale; /* 1 / (1 - p); with p = 1, which has no threshold of 32 bits, 0 */
    bool on;
};

inline Dropout dropout_of(const struct zinf_dropout &d)
{
    Dropout made;
    made.key0 = d.key.word[0], made.key1 = d.key.word[1];
    made.place = d.place, made.sample = d.sample, made.step = d.step, made.counters = d.counters;
    made.threshold = d.p < 1.0f ? (uint32_t)((double)d.p * 4294967296.0) : 0;
    made.keep_scale = d.p < 1.0f ? 1.0f / (1.0f - d.p) : 0.0f;
    made.on = d.p > 0.0f;
    return made;
}

struct Words {
    uint32_t word[4];
};

/** The words of the elements 4 group .. 4 group + 3 of a sample, `sample` counted within the micro-batch. */
__device__ __forceinline__ Words dropout_words(const Dropout &d, uint32_t sample, uint64_t group)
{
    uint32_t c0 = (uint32_t)group, c1 = ((uint32_t)(group >> 32) & 0xfffu) | d.place << 12;
    uint32_t c2 = (d.counters ? d.counters[1] : d.sample) + sample, c3 = d.counters ? d.counters[0] : d.step;
    uint32_t k0 = d.key0, k1 = d.key1;
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const uint32_t high0 = __umulhi(0xd2511f53u, c0), low0 = 0xd2511f53u * c0;
        const uint32_t high1 = __umulhi(0xcd9e8d57u, c2), low1 = 0xcd9e8d57u * c2;
        c0 = high1 ^ c1 ^ k0;
        c2 = high0 ^ c3 ^ k1;
        c1 = low1;
        c3 = low0;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    return Words{{c0, c1, c2, c3}};
}

/** Multiplier of an element whose word is known: 0 or 1 / (1 - p). */
__device__ __forceinline__ float dropout_factor(const Dropout &d, uint32_t word)
{
    return word >= d.threshold ? d.keep_scale : 0.0f;
}

/** Multipliers of `element` and of the element `apart` behind it. Neighbours mostly share their words. */
__device__ __forceinline__ void dropout_pair(const Dropout &d, uint32_t sample, uint64_t element,
                                             uint64_t apart, float factor[2])
{
    const uint64_t second = element + apart;
    Words words = dropout_words(d, sample, element / 4);
    const uint32_t at = (uint32_t)element & 3u;
    factor[0] = dropout_factor(d, at == 0 ? words.word[0] : at == 1 ? words.word[1] : at == 2 ? words.word[2] : words.word[3]);
    if (second / 4 != element / 4)
        words = dropout_words(d, sample, second / 4);
    const uint32_t then = (uint32_t)second & 3u;
    factor[1] = dropout_factor(d, then == 0 ? words.word[0] : then == 1 ? words.word[1] : then == 2 ? words.word[2] : words.word[3]);
}

} // namespace zinf_cuda

#endif
