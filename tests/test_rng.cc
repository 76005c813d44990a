// Random numbers: the generator against the published vectors, the streams against their statistics
// and against being cut anywhere.
#include "base/rng.h"

#include <cmath>
#include <gtest/gtest.h>
#include <set>
#include <vector>

namespace
{
// Known answers of Random123 (kat_vectors, philox4x32 10).
TEST(Rng, PhiloxGivesThePublishedVectors)
{
    struct {
        uint32_t counter[4];
        struct zinf_rng_key key;
        uint32_t expected[4];
    } cases[] = {
        {{0, 0, 0, 0}, {{0, 0}}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {{0xffffffff, 0xffffffff}},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {{0xa4093822, 0x299f31d0}},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (auto &c : cases) {
        uint32_t out[4];
        zinf_rng_philox(c.counter, c.key, out);
        for (int i = 0; i < 4; i++)
            EXPECT_EQ(out[i], c.expected[i]);
    }
}

TEST(Rng, KeysDifferForEverySeedAndName)
{
    std::set<std::pair<uint32_t, uint32_t>> seen;
    int made = 0;
    for (uint64_t seed : {UINT64_C(0), UINT64_C(1), UINT64_C(42), UINT64_MAX, UINT64_C(1) << 40})
        for (const char *name : {"", "a", "b", "ab", "ba", "wte", "transformer.h.0.ln_1.weight"}) {
            struct zinf_rng_key key = zinf_rng_key(seed, name);
            seen.insert({key.word[0], key.word[1]});
            made++;
        }
    EXPECT_EQ((int)seen.size(), made);
    EXPECT_EQ(zinf_rng_key(42, "x").word[0], zinf_rng_key(42, "x").word[0]);
}

TEST(Rng, NormalSlicesAreThoseOfTheWholeStream)
{
    struct zinf_rng_key key = zinf_rng_key(7, "slices");
    std::vector<float> whole(101);
    zinf_rng_normal(whole.data(), key, 0, whole.size(), 0.5, 2);
    for (size_t first = 0; first < whole.size(); first++)
        for (size_t count : {0u, 1u, 2u, 3u, 20u}) {
            if (first + count > whole.size())
                continue;
            std::vector<float> part(count);
            zinf_rng_normal(part.data(), key, first, count, 0.5, 2);
            for (size_t i = 0; i < count; i++)
                ASSERT_EQ(part[i], whole[first + i]);
        }
}

// Bounds: five standard errors of each estimate for n = 200000 (mean 1/sqrt n, variance sqrt(2/n),
// third and fourth moment sqrt(15/n), sqrt(96/n)).
TEST(Rng, NormalHasTheMomentsOfANormalDistribution)
{
    const int n = 200000;
    std::vector<float> x(n);
    zinf_rng_normal(x.data(), zinf_rng_key(1, "moments"), INT64_C(1) << 35, n, 0, 1);
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0, lag = 0;
    for (int i = 0; i < n; i++) {
        double v = x[i];
        m1 += v, m2 += v * v, m3 += v * v * v, m4 += v * v * v * v;
        if (i)
            lag += v * x[i - 1];
    }
    EXPECT_NEAR(m1 / n, 0, 5 / std::sqrt(n));
    EXPECT_NEAR(m2 / n, 1, 5 * std::sqrt(2.0 / n));
    EXPECT_NEAR(m3 / n, 0, 5 * std::sqrt(15.0 / n));
    EXPECT_NEAR(m4 / n, 3, 5 * std::sqrt(96.0 / n));
    EXPECT_NEAR(lag / n, 0, 5 / std::sqrt(n));
}

TEST(Rng, MeanAndDeviationAreApplied)
{
    std::vector<float> unit(50), moved(50);
    struct zinf_rng_key key = zinf_rng_key(3, "w");
    zinf_rng_normal(unit.data(), key, 0, 50, 0, 1);
    zinf_rng_normal(moved.data(), key, 0, 50, 10, 0.02);
    for (int i = 0; i < 50; i++)
        EXPECT_NEAR(moved[i], 10 + 0.02 * unit[i], 2e-6);
}

TEST(Rng, PermutationHitsEveryIndexOnce)
{
    struct zinf_rng_key key = zinf_rng_key(42, "epoch 0");
    for (int64_t count : {1, 2, 3, 4, 5, 16, 17, 100, 1000, 4097}) {
        std::vector<bool> hit(count);
        for (int64_t i = 0; i < count; i++) {
            int64_t image = zinf_rng_permute(key, count, i);
            ASSERT_TRUE(0 <= image && image < count);
            ASSERT_FALSE(hit[image]) << count;
            hit[image] = true;
        }
    }
}

TEST(Rng, PermutationDependsOnTheKeyAndLooksShuffled)
{
    const int64_t n = 10000;
    int same = 0, fixed = 0, follow = 0;
    struct zinf_rng_key a = zinf_rng_key(42, "epoch 0"), b = zinf_rng_key(42, "epoch 1");
    for (int64_t i = 0; i < n; i++) {
        int64_t image = zinf_rng_permute(a, n, i);
        same += image == zinf_rng_permute(b, n, i);
        fixed += image == i;
        follow += i + 1 < n && zinf_rng_permute(a, n, i + 1) == image + 1;
    }
    // each is Poisson of mean 1 for random permutations: 10 has probability 1e-7
    EXPECT_LT(same, 10);
    EXPECT_LT(fixed, 10);
    EXPECT_LT(follow, 10);
}

TEST(Rng, PermutationOfFourElementsReachesAllOrders)
{
    std::set<int64_t> orders;
    for (int seed = 0; seed < 2000; seed++) {
        int64_t order = 0;
        for (int i = 0; i < 4; i++)
            order = order * 4 + zinf_rng_permute(zinf_rng_key(seed, "p"), 4, i);
        orders.insert(order);
    }
    EXPECT_EQ(orders.size(), 24u);
}

TEST(Rng, PermutationWorksPastTwoToTheFortieth)
{
    int64_t count = (INT64_C(1) << 41) + 12345;
    std::set<int64_t> seen;
    for (int64_t i = 0; i < 1000; i++) {
        int64_t image = zinf_rng_permute(zinf_rng_key(1, "big"), count, count - 1 - i);
        ASSERT_TRUE(0 <= image && image < count);
        seen.insert(image);
    }
    EXPECT_EQ(seen.size(), 1000u);
}
} // namespace
