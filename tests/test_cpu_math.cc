/*
 * The vector functions against libm's doubles, in units in the last place of fp32. Compiled for
 * this test without special instruction sets; that the other sets compute the same is seen by
 * tests/test_ops_layers.cc.
 */
#include <cmath>
#include <cstring>
#include <random>

#include <gtest/gtest.h>

#include "cpu/philox.h"
#include "cpu/vmath.h"

namespace
{

/** Distance of neighbouring fp32 numbers at `value`. */
double ulp(double value)
{
    int exponent;
    std::frexp(std::fabs(value), &exponent);
    return std::ldexp(1.0, std::max(exponent, -125) - 24);
}

template <typename Function>
double largest_error(Function function, double (*reference)(double), float from, float to)
{
    double largest = 0;
    const int steps = 200000;
    for (int i = 0; i < steps; i++) {
        float x = from + (to - from) * (float)i / steps;
        double want = reference(x), got = function(all(x))[0];
        largest = std::max(largest, std::fabs(got - want) / ulp(want));
    }
    return largest;
}

double sigmoid(double x)
{
    return 1.0 / (1.0 + std::exp(-x));
}

} // namespace

TEST(Math, ExpIsWithinTwoUlp)
{
    EXPECT_LE(largest_error([](vfloat x) { return vexp(x); }, std::exp, -87.0f, 88.7f), 2.0);
    EXPECT_LE(largest_error([](vfloat x) { return vexp(x); }, std::exp, -1.0f, 1.0f), 2.0);
    EXPECT_LE(largest_error([](vfloat x) { return vexp(x); }, std::exp, -103.0f, -87.0f), 2.0);
}

TEST(Math, ExpAtTheEdges)
{
    EXPECT_EQ(vexp(all(0.0f))[0], 1.0f);
    EXPECT_EQ(vexp(all(-INFINITY))[0], 0.0f);
    EXPECT_EQ(vexp(all(-1e30f))[0], 0.0f);
    EXPECT_EQ(vexp(all(89.0f))[0], INFINITY);
    EXPECT_EQ(vexp(all(INFINITY))[0], INFINITY);
    EXPECT_TRUE(std::isnan(vexp(all(NAN))[0]));
}

TEST(Math, TanhIsWithinTwoUlp)
{
    EXPECT_LE(largest_error([](vfloat x) { return vtanh(x); }, std::tanh, -12.0f, 12.0f), 2.0);
    EXPECT_LE(largest_error([](vfloat x) { return vtanh(x); }, std::tanh, -0.6f, 0.6f), 2.0);
    EXPECT_EQ(vtanh(all(-1e30f))[0], -1.0f);
    EXPECT_TRUE(std::isnan(vtanh(all(NAN))[0]));
}

TEST(Math, ErfIsWithinTwoUlp)
{
    EXPECT_LE(largest_error([](vfloat x) { return verf(x); }, std::erf, -6.0f, 6.0f), 2.0);
    EXPECT_LE(largest_error([](vfloat x) { return verf(x); }, std::erf, -1.0f, 1.0f), 2.0);
    EXPECT_EQ(verf(all(1e30f))[0], 1.0f);
    EXPECT_TRUE(std::isnan(verf(all(NAN))[0]));
}

TEST(Math, SigmoidIsWithinThreeUlp)
{
    EXPECT_LE(largest_error([](vfloat x) { return vsigmoid(x); }, sigmoid, -86.0f, 30.0f), 3.0);
    EXPECT_EQ(vsigmoid(all(-1000.0f))[0], 0.0f);
    EXPECT_EQ(vsigmoid(all(1000.0f))[0], 1.0f);
}

TEST(Math, ConversionsAgreeWithTheReferenceForEveryPattern)
{
    for (uint32_t bits = 0; bits < 65536; bits++) {
        vhalf pattern = (uint16_t)bits - vhalf{};
        for (zinf_dtype dtype : {ZINF_FP16, ZINF_BF16}) {
            float got = (dtype == ZINF_FP16 ? from_fp16(pattern) : from_bf16(pattern))[0];
            float want = dtype == ZINF_FP16 ? zinf_fp16_to_float((uint16_t)bits)
                                            : zinf_bf16_to_float((uint16_t)bits);
            if (std::isnan(want))
                ASSERT_TRUE(std::isnan(got)) << std::hex << bits;
            else
                ASSERT_EQ(memcmp(&got, &want, 4), 0) << std::hex << bits;
        }
    }
}

TEST(Math, RoundingAgreesWithTheReference)
{
    std::mt19937 random(1);
    for (int i = 0; i < 1000000; i++) {
        uint32_t bits = random();
        if (i % 4 == 0) /* around fp16's halfway points and limits */
            bits = (bits & 0x8fffe000u) | 0x30000000u | (random() % 3 + 0xfffu);
        float x;
        memcpy(&x, &bits, 4);
        uint16_t half = to_fp16(all(x))[0], brain = to_bf16(all(x))[0];
        if (std::isnan(x)) {
            ASSERT_TRUE(std::isnan(zinf_fp16_to_float(half)) &&
                        std::isnan(zinf_bf16_to_float(brain)));
            continue;
        }
        ASSERT_EQ(half, zinf_fp16_from_float(x)) << x;
        ASSERT_EQ(brain, zinf_bf16_from_float(x)) << x;
    }
}

TEST(Math, DropoutWordsAreThoseOfPhilox)
{
    zinf_dropout options = {zinf_rng_key(9, "x"), 77, 8 * 5 + 2, 1000, 0.25f, nullptr};
    struct dropout_row row = dropout_row(&options, 3);
    for (int64_t first :
         {(int64_t)0, (int64_t)12, ((int64_t)1 << 32) - 2, ((int64_t)5 << 40) + 7}) {
        vuint vectors[4];
        uint32_t words[4 * WIDTH];
        dropout_words(&row, first, vectors);
        memcpy(words, vectors, sizeof words);
        for (int i = 0; i < WIDTH; i++) {
            uint64_t counter = (uint64_t)(first + i);
            uint32_t in[4] = {(uint32_t)counter,
                              ((uint32_t)(counter >> 32) & 0xfff) | options.place << 12, 1003, 77};
            uint32_t want[4];
            zinf_rng_philox(in, options.key, want);
            ASSERT_EQ(memcmp(words + 4 * i, want, sizeof want), 0) << first << " + " << i;
        }
    }
}
