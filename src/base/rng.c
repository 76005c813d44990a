/*
 * Philox4x32-10 and what is drawn with it. See rng.h.
 *
 * Normal numbers use sin, cos and log of the C library in double and are rounded to float once: the
 * last double bits may differ between libraries, the floats practically never do, and every rank of
 * a job runs the same library (agreed at start by the build's version).
 */
#include "base/rng.h"

#include <math.h>

#include "base/status.h"

/* FNV-1a, 64 bits (Fowler, Noll, Vo), over seed and name, then the finaliser of SplitMix64 so that
 * all bits depend on all. */
struct zinf_rng_key zinf_rng_key(uint64_t seed, const char *name)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (int i = 0; i < 8; i++)
        hash = (hash ^ (seed >> (8 * i) & 0xff)) * 0x100000001b3u;
    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 0x100000001b3u;
    hash = (hash ^ hash >> 30) * 0xbf58476d1ce4e5b9u;
    hash = (hash ^ hash >> 27) * 0x94d049bb133111ebu;
    hash ^= hash >> 31;
    return (struct zinf_rng_key){{(uint32_t)hash, (uint32_t)(hash >> 32)}};
}

/* Constants: Salmon et al., SC11, section 4 (multipliers by search, key increments golden ratio and
 * sqrt(3) - 1). */
void zinf_rng_philox(const uint32_t counter[4], struct zinf_rng_key key, uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key.word[0], k1 = key.word[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xd2511f53 * c0, p1 = (uint64_t)0xcd9e8d57 * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        k0 += 0x9e3779b9;
        k1 += 0xbb67ae85;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* Two normal numbers of pair number `pair`; u1 is in (0, 1], so that its logarithm is finite. */
static void normal_pair(struct zinf_rng_key key, int64_t pair, double out[2])
{
    uint32_t counter[4] = {(uint32_t)pair, (uint32_t)((uint64_t)pair >> 32), 0, 0}, word[4];
    zinf_rng_philox(counter, key, word);
    uint64_t a = (uint64_t)word[1] << 32 | word[0], b = (uint64_t)word[3] << 32 | word[2];
    double u1 = (double)((a >> 11) + 1) * 0x1p-53, u2 = (double)(b >> 11) * 0x1p-53;
    double radius = sqrt(-2.0 * log(u1)), angle = 6.283185307179586476925 * u2;
    out[0] = radius * cos(angle);
    out[1] = radius * sin(angle);
}

void zinf_rng_normal(float *out, struct zinf_rng_key key, int64_t first, int64_t count, double mean,
                     double std)
{
    double pair[2] = {0, 0};
    ZINF_ASSERT(first >= 0 && count >= 0);
    for (int64_t i = 0; i < count; i++) {
        int64_t element = first + i;
        if (i == 0 || element % 2 == 0)
            normal_pair(key, element / 2, pair);
        out[i] = (float)(mean + std * pair[element % 2]);
    }
}

/*
 * A balanced Feistel network of eight rounds on 2 * half bits, the smallest such domain that holds
 * `count`; values outside are sent through again until they fall inside (cycle walking), at most
 * four times on average because the domain is less than 4 * count.
 */
int64_t zinf_rng_permute(struct zinf_rng_key key, int64_t count, int64_t index)
{
    ZINF_ASSERT(0 <= index && index < count);
    int half = 1;
    while (half < 31 && (int64_t)1 << (2 * half) < count)
        half++;
    uint32_t mask = (uint32_t)(((uint64_t)1 << half) - 1);
    uint64_t value = (uint64_t)index;
    do {
        uint32_t left = (uint32_t)(value >> half), right = (uint32_t)value & mask;
        for (uint32_t round = 0; round < 8; round++) {
            uint32_t counter[4] = {right, round, 0x7065726d, 0},
                     word[4]; /* "perm": its own stream */
            zinf_rng_philox(counter, key, word);
            uint32_t next = left ^ (word[0] & mask);
            left = right;
            right = next;
        }
        value = (uint64_t)left << half | right;
    } while (value >= (uint64_t)count);
    return (int64_t)value;
}
