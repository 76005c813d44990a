/*
 * Causal attention, forward and backward, against the plain formulas in double.
 */
#include "ops_test.h"

using namespace ops_test;

namespace
{

struct Shape {
    int64_t batch, sequence, heads, kv_heads, head_size;
    float dropout;
};

/* Everything in double, one sample and one head after the other. */
struct Reference {
    std::vector<double> y, log_sum_exp, dqkv;
    std::vector<double> y_size, dqkv_size; /* sums of absolute values */
    std::vector<double> dqkv_rounding;     /* effect of the output's rounding, in units of u */
};

struct Setting {
    Shape s;
    zinf_attention op;
    int64_t row, out_row;
    Array qkv, dy;
    std::vector<double> wide_qkv, wide_dy; /* their values */
    Vector<int32_t> boundaries;            /* none: every sample has s.sequence tokens */

    int64_t first(int64_t b) const
    {
        return boundaries.empty() ? b * s.sequence : boundaries[b];
    }
    int64_t length(int64_t b) const
    {
        return first(b + 1) - first(b);
    }
    int64_t tokens() const
    {
        return first(s.batch);
    }
    /** Where the statistic of a sample's query stands. */
    int64_t statistic(int64_t b, int64_t head, int64_t query) const
    {
        return boundaries.empty() ? (b * s.heads + head) * s.sequence + query
                                  : head * tokens() + first(b) + query;
    }
};

double at(const Setting &t, int64_t token, int64_t head, int64_t i)
{
    return t.wide_qkv[token * t.row + head * t.s.head_size + i];
}

void reference_head(const Setting &t, int64_t b, int64_t h, Reference &r)
{
    int64_t S = t.length(b), D = t.s.head_size, kv = h / (t.s.heads / t.s.kv_heads);
    int64_t K = t.s.heads + kv, V = K + t.s.kv_heads, first = t.first(b);
    for (int64_t q = 0; q < S; q++) {
        int64_t token = first + q;
        std::vector<double> p(q + 1), f(q + 1), dp(q + 1);
        double maximum = -INFINITY, sum = 0, delta = 0;
        for (int64_t k = 0; k <= q; k++) {
            for (int64_t i = 0; i < D; i++)
                p[k] += at(t, token, h, i) * at(t, first + k, K, i) * t.op.scale;
            maximum = std::max(maximum, p[k]);
            f[k] = dropout_factor(t.op.dropout, b, (h * S + q) * S + k);
        }
        for (double &x : p)
            x = std::exp(x - maximum), sum += x;
        r.log_sum_exp[t.statistic(b, h, q)] = maximum + std::log(sum);
        for (int64_t k = 0; k <= q; k++) {
            p[k] /= sum;
            for (int64_t i = 0; i < D; i++) {
                double v = at(t, first + k, V, i), dy = t.wide_dy[token * t.out_row + h * D + i];
                r.y[token * t.out_row + h * D + i] += p[k] * f[k] * v;
                r.y_size[token * t.out_row + h * D + i] += p[k] * f[k] * std::fabs(v);
                dp[k] += dy * v * f[k];
                r.dqkv[(first + k) * t.row + V * D + i] += p[k] * f[k] * dy;
                r.dqkv_size[(first + k) * t.row + V * D + i] += p[k] * f[k] * std::fabs(dy);
            }
            delta += p[k] * dp[k];
        }
        /* What delta, taken from an output that is rounded, may be off: |dy| |y|, in units of u. */
        double rounding = 0;
        for (int64_t i = 0; i < D; i++)
            rounding += std::fabs(t.wide_dy[token * t.out_row + h * D + i] *
                                  r.y[token * t.out_row + h * D + i]);
        for (int64_t k = 0; k <= q; k++)
            for (int64_t i = 0; i < D; i++) {
                double ds = p[k] * (dp[k] - delta) * t.op.scale;
                double size = p[k] * (std::fabs(dp[k]) + std::fabs(delta)) * t.op.scale +
                              1e-3 * std::fabs(ds);
                double off = p[k] * t.op.scale * rounding;
                r.dqkv_rounding[token * t.row + h * D + i] +=
                    off * std::fabs(at(t, first + k, K, i));
                r.dqkv_rounding[(first + k) * t.row + K * D + i] +=
                    off * std::fabs(at(t, token, h, i));
                r.dqkv[token * t.row + h * D + i] += ds * at(t, first + k, K, i);
                r.dqkv_size[token * t.row + h * D + i] += size * std::fabs(at(t, first + k, K, i));
                r.dqkv[(first + k) * t.row + K * D + i] += ds * at(t, token, h, i);
                r.dqkv_size[(first + k) * t.row + K * D + i] +=
                    size * std::fabs(at(t, token, h, i));
            }
    }
}

Setting setting(const Shape &s, zinf_dtype dtype, const Vector<int32_t> &boundaries = {})
{
    int64_t row = (s.heads + 2 * s.kv_heads) * s.head_size, out_row = s.heads * s.head_size;
    int64_t tokens = boundaries.empty() ? s.batch * s.sequence : boundaries.back();
    Setting t = {s,
                 {},
                 row,
                 out_row,
                 normal(dtype, tokens * row, 11),
                 normal(dtype, tokens * out_row, 12),
                 {},
                 {},
                 boundaries};
    t.wide_qkv = values(t.qkv), t.wide_dy = values(t.dy);
    t.op = {dtype,
            s.batch,
            s.sequence,
            s.heads,
            s.kv_heads,
            s.head_size,
            1.0 / std::sqrt((double)s.head_size),
            nullptr,
            nullptr,
            nullptr,
            {zinf_rng_key(5, "dropout"), 3, 8 * 2 + 1, 6, s.dropout, nullptr},
            nullptr,
            tokens};
    return t;
}

Reference reference(const Setting &t)
{
    size_t tokens = t.tokens();
    Reference r;
    r.y.resize(tokens * t.out_row), r.y_size.resize(tokens * t.out_row);
    r.dqkv.resize(tokens * t.row), r.dqkv_size.resize(tokens * t.row);
    r.dqkv_rounding.resize(tokens * t.row);
    r.log_sum_exp.resize(tokens * t.s.heads);
    for (int64_t b = 0; b < t.s.batch; b++)
        for (int64_t h = 0; h < t.s.heads; h++)
            reference_head(t, b, h, r);
    return r;
}

struct Results {
    Array y, dqkv;
    Vector<float> log_sum_exp;
};

Results compute(const zinf_ops *ops, Setting &t)
{
    Results r = {Array(t.op.dtype, t.dy.size()), Array(t.op.dtype, t.qkv.size()),
                 Vector<float>(t.tokens() * t.s.heads)};
    t.op.qkv = t.qkv.data();
    t.op.boundaries = t.boundaries.empty() ? nullptr : t.boundaries.data();
    t.op.log_sum_exp = r.log_sum_exp.data();
    ops->attention_forward(&t.op, r.y.data());
    t.op.output = r.y.data();
    ops->attention_backward(&t.op, t.dy.data(), r.dqkv.data());
    return r;
}

/**
 * half_products: probabilities and their gradients are rounded to the type before they are
 * multiplied (that is what tensor cores take), which adds half a unit of each term. What the
 * reference makes NaN is not looked at.
 */
void check(const Setting &t, const Results &got, bool half_products)
{
    const Reference want = reference(t);
    ASSERT_TRUE(got.y.guard_is_whole() && got.dqkv.guard_is_whole());
    double u = roundoff(t.op.dtype), least = smallest(t.op.dtype);
    for (size_t i = 0; i < want.log_sum_exp.size(); i++)
        ASSERT_FALSE(std::fabs(got.log_sum_exp[i] - want.log_sum_exp[i]) >
                         64 * u32 * (1 + std::fabs(want.log_sum_exp[i])) ||
                     (std::isnan(got.log_sum_exp[i]) && !std::isnan(want.log_sum_exp[i])));
    /* scores are sums of head_size products near 1: their absolute error, some u32 times
     * sqrt(head_size), is p's relative error */
    double c = 16.0 * std::sqrt((double)t.s.head_size) + (half_products ? 1.05 * u / u32 : 0.0);
    for (size_t i = 0; i < want.y.size(); i++)
        if (!std::isnan(want.y[i])) {
            ASSERT_LE(std::fabs(got.y[i] - want.y[i]),
                      u * std::fabs(want.y[i]) + c * u32 * want.y_size[i] + least)
                << "y " << i;
        }
    for (size_t i = 0; i < want.dqkv.size(); i++)
        if (!std::isnan(want.dqkv[i])) {
            ASSERT_LE(std::fabs(got.dqkv[i] - want.dqkv[i]),
                      u * (std::fabs(want.dqkv[i]) + want.dqkv_rounding[i]) +
                          c * u32 * want.dqkv_size[i] + least)
                << "dqkv " << i;
        }
}

void check(const zinf_ops *ops, const Shape &s, zinf_dtype dtype, bool half_products)
{
    SCOPED_TRACE(testing::Message()
                 << "B" << s.batch << " S" << s.sequence << " H" << s.heads << "/" << s.kv_heads
                 << " D" << s.head_size << " p" << s.dropout);
    Setting t = setting(s, dtype);
    check(t, compute(ops, t), half_products);
}

/** Sample b of packed ones, by itself. */
Setting alone(const Setting &packed, int64_t b)
{
    Shape s = packed.s;
    s.batch = 1, s.sequence = packed.length(b);
    Setting t = setting(s, packed.op.dtype);
    t.op.dropout.sample += (uint32_t)b;
    for (size_t i = 0; i < t.qkv.size(); i++)
        t.qkv.set(i, packed.wide_qkv[packed.first(b) * t.row + i]);
    for (size_t i = 0; i < t.dy.size(); i++)
        t.dy.set(i, packed.wide_dy[packed.first(b) * t.out_row + i]);
    return t;
}

/**
 * Samples of `lengths` tokens, packed: like the formulas, and each to the bit like itself alone. A
 * length below zero: that many tokens, all of them NaN, which no other sample may notice.
 * s.batch, s.sequence: set here, the latter to one more than the longest.
 */
void check_packed(const zinf_ops *ops, Shape s, const std::vector<int64_t> &lengths,
                  zinf_dtype dtype, bool half_products)
{
    SCOPED_TRACE(testing::Message() << "packed H" << s.heads << "/" << s.kv_heads << " D"
                                    << s.head_size << " p" << s.dropout);
    Vector<int32_t> boundaries = {0};
    s.batch = (int64_t)lengths.size(), s.sequence = 0;
    for (int64_t length : lengths) {
        boundaries.push_back(boundaries.back() + (int32_t)std::abs(length));
        s.sequence = std::max(s.sequence, std::abs(length) + 1);
    }
    Setting t = setting(s, dtype, boundaries);
    for (int64_t b = 0; b < s.batch; b++)
        for (int64_t token = t.first(b); lengths[b] < 0 && token < t.first(b + 1); token++) {
            for (int64_t i = 0; i < t.row; i++)
                t.qkv.set(token * t.row + i, NAN);
            for (int64_t i = 0; i < t.out_row; i++)
                t.dy.set(token * t.out_row + i, NAN);
        }
    t.wide_qkv = values(t.qkv), t.wide_dy = values(t.dy);
    const Results got = compute(ops, t);
    check(t, got, half_products);
    for (int64_t b = 0; b < s.batch; b++) {
        if (lengths[b] <= 0)
            continue;
        SCOPED_TRACE(testing::Message() << "sample " << b << " of " << lengths[b]);
        Setting one = alone(t, b);
        const Results want = compute(ops, one);
        for (size_t i = 0; i < want.y.size(); i++)
            ASSERT_EQ(got.y[t.first(b) * t.out_row + i], want.y[i]) << "y " << i;
        for (size_t i = 0; i < want.dqkv.size(); i++)
            ASSERT_EQ(got.dqkv[t.first(b) * t.row + i], want.dqkv[i]) << "dqkv " << i;
        for (int64_t h = 0; h < s.heads; h++)
            for (int64_t q = 0; q < lengths[b]; q++)
                ASSERT_EQ(got.log_sum_exp[t.statistic(b, h, q)],
                          want.log_sum_exp[one.statistic(0, h, q)])
                    << "log-sum-exp " << h << ", " << q;
    }
}

} // namespace

static bool emulated(const zinf_ops *ops)
{
    return ops == cuda_emulated_ops() || ops == cuda_emulated_hopper_ops();
}

/** The emulation of tensor cores is slow, and slower yet under a sanitizer. */
static bool quick(const zinf_ops *ops)
{
    return emulated(ops) && getenv("ZINF_QUICK");
}

/** In fp16 it does what it does in bf16: that is enough in short. */
static bool left_out(const zinf_ops *ops, zinf_dtype dtype)
{
    return quick(ops) && dtype == ZINF_FP16;
}

TEST_P(Ops, AttentionOfManyHeadSizes)
{
    if (left_out(ops, dtype))
        GTEST_SKIP() << "bf16 shows it, and ZINF_QUICK is set";
    for (int64_t head_size : {8, 9, 16, 33, 64, 65, 80, 96, 128, 160, 250, 256})
        check(ops, {1, 17, 2, 2, head_size, 0.0f}, dtype, GetParam().half_products);
}

TEST_P(Ops, AttentionOverSeveralTilesAndOddLengths)
{
    if (left_out(ops, dtype))
        GTEST_SKIP() << "bf16 shows it, and ZINF_QUICK is set";
    for (int64_t sequence : {1, 2, 63, 64, 65, 131})
        if (sequence % 2 || !quick(ops))
            check(ops, {2, sequence, 2, 2, 24, 0.0f}, dtype, GetParam().half_products);
}

TEST_P(Ops, AttentionOverMoreTilesThanBuffers)
{
    if (left_out(ops, dtype) || (ops != cuda_emulated_hopper_ops() && emulated(ops)))
        GTEST_SKIP() << "two buffers, and 131 rows above";
    check(ops, {1, 650, 1, 1, 16, 0.0f}, dtype, GetParam().half_products);
    check(ops, {1, 260, 1, 1, 72, 0.0f}, dtype, GetParam().half_products);
    check(ops, {1, 260, 1, 1, 72, 0.25f}, dtype, GetParam().half_products);
}

TEST_P(Ops, AttentionWithGroupedQueries)
{
    if (left_out(ops, dtype))
        GTEST_SKIP() << "bf16 shows it, and ZINF_QUICK is set";
    check(ops, {quick(ops) ? 1 : 2, 70, 6, 2, 16, 0.0f}, dtype, GetParam().half_products);
    check(ops, {1, 70, 4, 1, 20, 0.0f}, dtype, GetParam().half_products);
}

TEST_P(Ops, AttentionDropsTheSameProbabilitiesForwardAndBackward)
{
    if (left_out(ops, dtype))
        GTEST_SKIP() << "bf16 shows it, and ZINF_QUICK is set";
    check(ops, {2, 64, 2, 1, 16, 0.1f}, dtype, GetParam().half_products);
    check(ops, {1, 67, 3, 3, 16, 0.5f}, dtype, GetParam().half_products);
    Setting given = setting({2, 20, 2, 1, 16, 0.5f}, dtype);
    const Results want = compute(ops, given);
    const Vector<uint32_t> counters = {given.op.dropout.step, given.op.dropout.sample};
    given.op.dropout.step = given.op.dropout.sample = 77,
    given.op.dropout.counters = counters.data();
    const Results got = compute(ops, given);
    EXPECT_TRUE(values(got.y) == values(want.y) && values(got.dqkv) == values(want.dqkv));
}

TEST_P(Ops, AttentionOfPackedSamplesIsThatOfEachAlone)
{
    const bool half = GetParam().half_products;
    if (left_out(ops, dtype))
        GTEST_SKIP() << "bf16 shows it, and ZINF_QUICK is set";
    check_packed(ops, {0, 0, 2, 1, 16, 0.0f}, {1, 0, 63, -2, 65, 129, 0}, dtype, half);
    check_packed(ops, {0, 0, 1, 1, 72, 0.25f}, {-1, 65, -70, 3}, dtype, half);
    if (getenv("ZINF_QUICK"))
        return;
    check_packed(ops, {0, 0, 2, 1, 64, 0.1f}, {64, 1, 128, -3, 200, 63, -1}, dtype, half);
    check_packed(ops, {0, 0, 1, 1, 128, 0.0f}, {129, -1, 64, 5}, dtype, half);
    if (getenv("ZINF_LONG"))
        for (int64_t head_size : {9, 64, 96, 128, 160, 192, 250, 256})
            for (float dropout : {0.0f, 0.1f})
                check_packed(ops, {0, 0, 2, 1, head_size, dropout}, {129, -2, 66, 0, 1}, dtype,
                             half);
}

TEST_P(Ops, AttentionKeepsItsDropoutRate)
{
    if (dtype != ZINF_FP32)
        GTEST_SKIP() << "fp32 has shown it";
    /* values 1: y is the sum of the kept probabilities / (1 - p), whose mean is 1 */
    Setting t = setting({4, 128, 4, 4, 8, 0.25f}, ZINF_FP32);
    for (size_t i = 0; i < t.qkv.size(); i++)
        t.qkv.set(i, (int64_t)i % t.row >= 2 * 4 * 8 ? 1.0 : 0.0);
    Results got = compute(ops, t);
    double sum = 0, kept = 0, seen = 0;
    for (int64_t token = 0; token < 4 * 128; token++)
        for (int64_t h = 0; h < 4; h++) {
            double count = token % 128 + 1, y = got.y[token * 32 + h * 8];
            sum += y, kept += y * count * 0.75, seen += count;
        }
    EXPECT_NEAR(kept / seen, 0.75,
                5 * std::sqrt(0.75 * 0.25 / seen)); /* five standard deviations */
    EXPECT_NEAR(sum / (4 * 128 * 4), 1.0, 0.1);
}

TEST_P(Ops, AttentionOfLargeScoresStaysFinite)
{
    Setting t = setting({1, 66, 1, 1, 8, 0.0f}, dtype);
    for (size_t i = 0; i < t.qkv.size(); i++)
        t.qkv.set(i, 60.0 * t.qkv[i]); /* scores up to some 10^4: all but one probability vanish */
    Results got = compute(ops, t);
    for (size_t i = 0; i < got.y.size(); i++)
        ASSERT_TRUE(std::isfinite(got.y[i]));
    for (size_t i = 0; i < got.dqkv.size(); i++)
        ASSERT_TRUE(std::isfinite(got.dqkv[i]));
}

TEST_P(Ops, AttentionHasTheSameBitsForAnyNumberOfThreads)
{
    if (quick(ops))
        GTEST_SKIP() << "the emulation, and ZINF_QUICK is set";
    Setting t = setting({2, 150, 4, 2, 16, 0.1f}, dtype);
    zinf_cpu_set_threads(1);
    Results one = compute(ops, t);
    for (int threads : {2, 5}) {
        if (threads == 5 && emulated(ops))
            continue; /* has run twice: forwards and backwards */
        zinf_cpu_set_threads(threads);
        Results more = compute(ops, t);
        EXPECT_TRUE(more.y == one.y && more.dqkv == one.dqkv);
        EXPECT_EQ(more.log_sum_exp, one.log_sum_exp);
    }
    zinf_cpu_set_threads(2);
}

INSTANTIATE_OPS_TESTS({cuda_emulated_hopper_ops(), ZINF_BF16, nullptr, true},
                      {cuda_emulated_hopper_ops(), ZINF_FP16, nullptr, true});
