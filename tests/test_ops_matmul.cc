/*
 * Matrix products of every table against sums in double.
 */
#include "ops_test.h"

using namespace ops_test;

namespace
{

struct Shape {
    int64_t m, n, k;
    bool transpose_a, transpose_b, bias, accumulate;
    int64_t pad; /* elements between rows */
};

struct Operands {
    Array a, b, bias, c;
    zinf_matmul op;
};

Operands operands(const Shape &s, zinf_dtype dtype, zinf_dtype c_dtype, unsigned seed)
{
    int64_t lda = (s.transpose_a ? s.m : s.k) + s.pad, ldb = (s.transpose_b ? s.k : s.n) + s.pad;
    int64_t ldc = s.n + s.pad;
    Operands o = {normal(dtype, (s.transpose_a ? s.k : s.m) * lda, seed),
                  normal(dtype, (s.transpose_b ? s.n : s.k) * ldb, seed + 1),
                  normal(dtype, s.n, seed + 2),
                  normal(c_dtype, s.m * ldc, seed + 3),
                  {}};
    o.op = {};
    o.op.dtype = dtype, o.op.c_dtype = c_dtype;
    o.op.m = s.m, o.op.n = s.n, o.op.k = s.k;
    o.op.lda = lda, o.op.transpose_a = s.transpose_a;
    o.op.ldb = ldb, o.op.transpose_b = s.transpose_b;
    o.op.ldc = ldc, o.op.accumulate = s.accumulate;
    return o;
}

/** The pointers, once the arrays have found their place. */
void point(Operands &o, bool bias)
{
    o.op.a = o.a.data(), o.op.b = o.b.data(), o.op.c = o.c.data();
    o.op.bias = bias ? o.bias.data() : nullptr;
}

void run(const zinf_ops *ops, const Shape &s, zinf_dtype dtype, zinf_dtype c_dtype)
{
    Operands o = operands(s, dtype, c_dtype, 7);
    point(o, s.bias);
    Array before = o.c;
    std::vector<double> a = values(o.a), b = values(o.b);
    ops->matmul(&o.op);
    ASSERT_TRUE(o.c.guard_is_whole());
    for (int64_t i = 0; i < s.m; i++)
        for (int64_t j = 0; j < o.op.ldc; j++) {
            size_t at = i * o.op.ldc + j;
            if (j >= s.n) {
                ASSERT_EQ(o.c[at], before[at]) << "between rows";
                continue;
            }
            double sum = s.accumulate ? before[at] : 0.0, size = std::fabs(sum);
            if (s.bias)
                sum += o.bias[j], size += std::fabs(o.bias[j]);
            for (int64_t k = 0; k < s.k; k++) {
                double term = a[s.transpose_a ? k * o.op.lda + i : i * o.op.lda + k] *
                              b[s.transpose_b ? j * o.op.ldb + k : k * o.op.ldb + j];
                sum += term, size += std::fabs(term);
            }
            /* sums of k terms in any order: sqrt(k) u32 of the terms' size is typical, k the bound
             */
            double bound =
                roundoff(c_dtype) * std::fabs(sum) + (4.0 + std::sqrt((double)s.k)) * u32 * size;
            ASSERT_LE(std::fabs(o.c[at] - sum), bound)
                << i << ", " << j << " of " << s.m << " x " << s.n;
        }
}

} // namespace

TEST_P(Ops, MatmulOfOddSizesInAllOrientations)
{
    for (int bits = 0; bits < 16; bits++) {
        Shape s = {13, 37, 29, bool(bits & 1), bool(bits & 2), bool(bits & 4), bool(bits & 8), 0};
        run(ops, s, dtype, dtype);
        run(ops, s, dtype, ZINF_FP32);
        s.pad = 3;
        run(ops, s, dtype, dtype);
    }
}

TEST_P(Ops, MatmulOfOneRowAndOneColumn)
{
    run(ops, {1, 65, 40, false, false, true, false, 0}, dtype, dtype);
    run(ops, {65, 1, 40, true, false, false, true, 0}, dtype, dtype);
    run(ops, {1, 1, 1, false, true, true, true, 0}, dtype, dtype);
}

TEST_P(Ops, MatmulLongerThanTilesAndRuns)
{
    run(ops, {70, 530, 20, false, true, true, true, 0}, dtype, dtype);
    run(ops, {530, 70, 20, true, false, false, false, 0}, dtype, ZINF_FP32);
    run(ops, {20, 70, 1600, false, false, true, true, 0}, dtype, dtype);
    run(ops, {20, 70, 1600, true, true, false, true, 0}, dtype, ZINF_FP32);
}

TEST_P(Ops, MatmulHasTheSameBitsForAnyNumberOfThreads)
{
    std::mt19937 random(3);
    const bool emulated = ops == cuda_emulated_ops(); /* some thousand times slower */
    for (int round = 0; round < (emulated ? 3 : 16); round++) {
        auto side = [&](int most) {
            return (int64_t)(1 + random() % (emulated ? most / 8 : most));
        };
        Shape s = {side(round % 3 ? 500 : 70),
                   side(round % 4 ? 600 : 90),
                   side(round % 5 ? 300 : 2000),
                   bool(random() & 1),
                   bool(random() & 1),
                   bool(random() & 1),
                   false,
                   0};
        Operands o = operands(s, dtype, dtype, round);
        point(o, s.bias);
        zinf_cpu_set_threads(1);
        ops->matmul(&o.op);
        Array one = o.c;
        for (int threads : {2, 3, 5}) {
            zinf_cpu_set_threads(threads);
            ops->matmul(&o.op);
            ASSERT_TRUE(o.c == one) << s.m << " x " << s.n << " x " << s.k << " on " << threads;
        }
    }
    zinf_cpu_set_threads(2);
}

/* On a table that makes both in one, not bit for bit; these tables do not. */
TEST_P(Ops, MatmulIsFollowedByTheActivationOfItsTable)
{
    for (zinf_activation kind : {ZINF_GELU_TANH, ZINF_GELU_ERF, ZINF_RELU, ZINF_SILU}) {
        const Shape s = {19, 40, 24, false, false, true, false, 0};
        Operands o = operands(s, dtype, dtype, 11), alone = o;
        Array activated(dtype, s.m * s.n), expected(dtype, s.m * s.n);
        point(o, true), point(alone, true);
        ops->matmul(&alone.op);
        const zinf_activate after = {kind, dtype, s.m, s.n, alone.c.data()};
        ops->activation_forward(&after, expected.data());
        o.op.activation = kind, o.op.activated = activated.data();
        ops->matmul(&o.op);
        EXPECT_TRUE(o.c == alone.c) << kind;
        EXPECT_TRUE(activated == expected) << kind;

        Array x = normal(dtype, s.m * s.n, 12);
        o.op.bias = alone.op.bias = nullptr;
        o.op.activated = nullptr, o.op.slope_of = x.data();
        ops->matmul(&alone.op);
        const zinf_activate slope = {kind, dtype, s.m, s.n, x.data()};
        ops->activation_backward(&slope, alone.c.data(), alone.c.data());
        ops->matmul(&o.op);
        EXPECT_TRUE(o.c == alone.c) << kind;
    }
}

INSTANTIATE_OPS_TESTS();
