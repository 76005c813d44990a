/*
 * Conversions, sums, scaling and scans of flat arrays.
 */
#include "ops_test.h"

using namespace ops_test;

namespace
{

const int64_t counts[] = {0, 1, 15, 16, 17, 100, 16384, 33001};
const zinf_dtype types[] = {ZINF_FP32, ZINF_FP16, ZINF_BF16};

float rounded(zinf_dtype dtype, float x)
{
    Array one(dtype, 1);
    one.set(0, x);
    return (float)one[0];
}

} // namespace

TEST_P(Ops, CastIsTheReferenceConversion)
{
    for (int64_t count : counts)
        for (zinf_dtype to : types) {
            Array from = normal(dtype, count, 1, 1000.0), got(to, count), want(to, count);
            zinf_cast op = {dtype, to, count};
            ops->cast(&op, from.data(), got.data());
            zinf_dtype_convert(want.data(), to, from.data(), dtype, count);
            ASSERT_TRUE(got == want) << count << " to " << zinf_dtype_name(to);
        }
}

TEST_P(Ops, CastKeepsWhatIsNotFinite)
{
    Array from(dtype, std::vector<double>{INFINITY, -INFINITY, NAN, 0.0, -0.0, 1.0, 1e-30});
    for (zinf_dtype to : types) {
        Array got(to, from.size());
        zinf_cast op = {dtype, to, (int64_t)from.size()};
        ops->cast(&op, from.data(), got.data());
        EXPECT_EQ(got[0], INFINITY);
        EXPECT_EQ(got[1], -INFINITY);
        EXPECT_TRUE(std::isnan(got[2]));
        EXPECT_TRUE(got[4] == 0.0 && std::signbit(got[4]) && !std::signbit(got[3]));
    }
    Array large(ZINF_FP32, std::vector<double>{65519.0, 65520.0, -1e30, 3.4e38}), got(ZINF_FP16, 4);
    zinf_cast op = {ZINF_FP32, ZINF_FP16, 4};
    ops->cast(&op, large.data(), got.data());
    EXPECT_EQ(got[0], 65504.0);
    EXPECT_EQ(got[1], INFINITY);
    EXPECT_EQ(got[2], -INFINITY);
}

TEST_P(Ops, AccumulateAddsInFp32AndRoundsOnce)
{
    for (int64_t count : counts)
        for (zinf_dtype to : types) {
            Array from = normal(dtype, count, 1), before = normal(to, count, 2), got = before;
            zinf_accumulate op = {dtype, to, count, false};
            ops->accumulate(&op, from.data(), got.data());
            ASSERT_TRUE(got.guard_is_whole());
            for (int64_t i = 0; i < count; i++)
                ASSERT_EQ(got[i], rounded(to, (float)before[i] + (float)from[i])) << i;
            op.first = true;
            ops->accumulate(&op, from.data(), got.data());
            for (int64_t i = 0; i < count; i++)
                ASSERT_EQ(got[i], rounded(to, (float)from[i]));
        }
}

TEST_P(Ops, ReduceAddsTheRanksInOrder)
{
    for (int ranks : {1, 2, 3, 7})
        for (zinf_dtype to : types) {
            const int64_t count = 1029;
            const float scale = 0.3f;
            Array parts = normal(dtype, ranks * count, 1), before = normal(to, count, 2),
                  got = before, first = before;
            zinf_reduce op = {dtype, to, ranks, count, scale, false};
            ops->reduce(&op, parts.data(), got.data());
            op.first = true;
            ops->reduce(&op, parts.data(), first.data());
            ASSERT_TRUE(got.guard_is_whole() && first.guard_is_whole());
            for (int64_t i = 0; i < count; i++) {
                float sum = (float)parts[i];
                for (int rank = 1; rank < ranks; rank++)
                    sum += (float)parts[rank * count + i];
                ASSERT_EQ(first[i], rounded(to, sum * scale)) << i;
                /* a fused multiply-add may spare the middle rounding where `to` is fp32 */
                float want = rounded(to, (float)before[i] + rounded(to, sum * scale));
                ASSERT_NEAR(got[i], want,
                            to == ZINF_FP32 ? 2 * u32 * (std::fabs(want) + std::fabs(sum)) : 0.0)
                    << i;
            }
        }
}

TEST_P(Ops, ScaleMultipliesInPlace)
{
    for (int64_t count : counts) {
        Array before = normal(dtype, count, 1), got = before;
        zinf_scale op = {dtype, count, 0.7f};
        ops->scale(&op, got.data());
        ASSERT_TRUE(got.guard_is_whole());
        for (int64_t i = 0; i < count; i++)
            ASSERT_EQ(got[i], rounded(dtype, (float)before[i] * 0.7f));
    }
}

TEST_P(Ops, SquareSumIsInDouble)
{
    for (int64_t count : counts) {
        Array x = normal(dtype, count, 1);
        long double sum = 0;
        for (int64_t i = 0; i < count; i++)
            sum += (long double)x[i] * x[i];
        double want = (double)sum;
        zinf_scan op = {dtype, count};
        double got = ops->square_sum(&op, x.data());
        ASSERT_NEAR(got, want,
                    std::ldexp(want, -53) * 1100); /* a lane adds 1024 squares, then chunks */
    }
    Array large(ZINF_FP32, std::vector<double>(100, 1e30)); /* squares past fp32's range */
    zinf_scan op = {ZINF_FP32, 100};
    EXPECT_NEAR(ops->square_sum(&op, large.data()) / 1e62, 1.0, 1e-6);
}

TEST_P(Ops, SquareSumHasTheSameBitsForAnyNumberOfThreads)
{
    Array x = normal(dtype, 200001, 1);
    zinf_scan op = {dtype, 200001};
    zinf_cpu_set_threads(1);
    double one = ops->square_sum(&op, x.data());
    for (int threads : {2, 3, 8}) {
        zinf_cpu_set_threads(threads);
        EXPECT_EQ(ops->square_sum(&op, x.data()), one);
    }
    zinf_cpu_set_threads(2);
}

TEST_P(Ops, WhatIsNotFiniteIsFound)
{
    const int64_t count = 50001;
    Array x = normal(dtype, count, 1);
    const zinf_scan op = {dtype, count}, none = {dtype, 0};
    EXPECT_EQ(ops->first_nonfinite(&op, x.data()), -1);
    EXPECT_EQ(ops->first_nonfinite(&none, x.data()), -1);
    for (double bad : {(double)INFINITY, -(double)INFINITY, (double)NAN})
        for (int64_t at :
             {(int64_t)50000, (int64_t)33000, (int64_t)16384, (int64_t)17, (int64_t)0}) {
            Array y = x;
            y.set(at, bad);
            y.set(count - 1, bad);
            EXPECT_EQ(ops->first_nonfinite(&op, y.data()), at);
            double sum = ops->square_sum(&op, y.data());
            EXPECT_FALSE(std::isfinite(sum));
        }
    x.set(3, dtype == ZINF_FP16 ? 65504 : 3e38); /* the largest numbers are finite */
    EXPECT_EQ(ops->first_nonfinite(&op, x.data()), -1);
}

INSTANTIATE_OPS_TESTS();
