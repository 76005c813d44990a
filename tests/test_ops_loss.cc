/*
 * Cross entropy in tiles of the vocabulary against the plain formula in double.
 */
#include "ops_test.h"

using namespace ops_test;

namespace
{

/* One loss over tiles of the given widths. */
struct Tiles {
    Vector<float> maximum, sum, target_logit;
    std::vector<Array> logits; /* of each tile; after backward: gradients */
};

Array tile_of(const Array &logits, int64_t rows, int64_t vocabulary, int64_t first, int64_t columns)
{
    Array tile(logits.dtype(), rows * columns);
    for (int64_t i = 0; i < rows * columns; i++)
        tile.set(i, logits[i / columns * vocabulary + first + i % columns]);
    return tile;
}

Tiles run(const zinf_ops *ops, const Array &logits, const Vector<int32_t> &targets,
          const std::vector<int64_t> &widths, float scale)
{
    int64_t rows = (int64_t)targets.size(), vocabulary = (int64_t)logits.size() / rows, first = 0;
    Tiles t = {Vector<float>(rows, -INFINITY), Vector<float>(rows), Vector<float>(rows), {}};
    zinf_loss_tile op = {
        logits.dtype(),        rows, 0, 0, 0, targets.data(), t.maximum.data(), t.sum.data(),
        t.target_logit.data(), scale};
    for (int64_t columns : widths) {
        t.logits.push_back(tile_of(logits, rows, vocabulary, first, columns));
        op.columns = columns, op.row = columns, op.first_column = first;
        ops->loss_tile_forward(&op, t.logits.back().data());
        first += columns;
    }
    first = 0;
    for (Array &tile : t.logits) {
        op.columns = op.row = (int64_t)tile.size() / rows, op.first_column = first;
        ops->loss_tile_backward(&op, tile.data());
        EXPECT_TRUE(tile.guard_is_whole());
        first += op.columns;
    }
    return t;
}

/* numbers: maximum, sum, target_logit */
double row_loss_of(const Vector<float> numbers[3], int64_t row)
{
    return std::log((double)numbers[1][row]) + numbers[0][row] - numbers[2][row];
}

double row_loss(const Tiles &t, int64_t row)
{
    const Vector<float> numbers[3] = {t.maximum, t.sum, t.target_logit};
    return row_loss_of(numbers, row);
}

} // namespace

TEST_P(Ops, LossOverTilesIsTheCrossEntropy)
{
    const int64_t rows = 9, vocabulary = 137;
    const float scale = 0.125f;
    Array logits = normal(dtype, rows * vocabulary, 1, 4.0);
    Vector<int32_t> targets(rows);
    for (int64_t r = 0; r < rows; r++)
        targets[r] = r == 4 ? -100 : (int32_t)(r * 17 % vocabulary);
    for (const std::vector<int64_t> &widths :
         {std::vector<int64_t>{137}, {1, 16, 100, 20}, {64, 64, 9}}) {
        Tiles t = run(ops, logits, targets, widths, scale);
        for (int64_t r = 0; r < rows; r++) {
            double sum = 0;
            for (int64_t v = 0; v < vocabulary; v++)
                sum += std::exp(logits[r * vocabulary + v]);
            if (targets[r] >= 0) {
                EXPECT_NEAR(row_loss(t, r), std::log(sum) - logits[r * vocabulary + targets[r]],
                            64 * u32 * 20);
            }
            int64_t v = 0;
            for (const Array &tile : t.logits)
                for (int64_t i = 0, columns = (int64_t)tile.size() / rows; i < columns; i++, v++) {
                    double p = std::exp(logits[r * vocabulary + v]) / sum;
                    double want = targets[r] < 0 ? 0.0 : (p - (v == targets[r])) * scale;
                    expect_near(tile, r * columns + i, want,
                                targets[r] < 0 ? 0 : (p * 20 + (v == targets[r])) * scale, 8);
                }
        }
    }
}

TEST_P(Ops, LossOfTargetsThatDoNotCountIsNothing)
{
    const int64_t rows = 5, vocabulary = 33;
    Array logits = normal(dtype, rows * vocabulary, 1);
    logits.set(3, NAN); /* what is not counted may be anything */
    Tiles t = run(ops, logits, Vector<int32_t>(rows, -100), {20, 13}, 1.0f);
    for (const Array &tile : t.logits)
        for (size_t i = 0; i < tile.size(); i++)
            ASSERT_EQ(tile[i], 0.0);
    for (float x : t.target_logit)
        ASSERT_EQ(x, 0.0f);
}

TEST_P(Ops, LossWithMinusInfiniteLogitsStaysFinite)
{
    const int64_t rows = 2, vocabulary = 40;
    Array logits = normal(dtype, rows * vocabulary, 1);
    for (int64_t v = 0; v < 30; v++)
        logits.set(v, -INFINITY), logits.set(vocabulary + v, -INFINITY); /* the whole first tile */
    Vector<int32_t> targets = {35, 30};
    Tiles t = run(ops, logits, targets, {20, 20}, 1.0f);
    for (int64_t r = 0; r < rows; r++) {
        double sum = 0;
        for (int64_t v = 30; v < vocabulary; v++)
            sum += std::exp(logits[r * vocabulary + v]);
        EXPECT_NEAR(row_loss(t, r), std::log(sum) - logits[r * vocabulary + targets[r]],
                    64 * u32 * 4);
    }
    for (const Array &tile : t.logits)
        for (size_t i = 0; i < tile.size(); i++)
            ASSERT_TRUE(std::isfinite(tile[i]));
    for (size_t i = 0; i < t.logits[0].size(); i++)
        ASSERT_EQ(t.logits[0][i], 0.0);
}

TEST_P(Ops, LossOfHugeLogitsStaysFinite)
{
    Array logits(dtype, std::vector<double>{60000, -60000, 0, 59968, -60000, -60000});
    Tiles t = run(ops, logits, {0, 2}, {2, 1}, 1.0f);
    EXPECT_EQ(row_loss(t, 0), 0.0);
    EXPECT_NEAR(row_loss(t, 1), logits[3] - logits[5], 1e-2);
    EXPECT_EQ(t.logits[0][0], 0.0);
    EXPECT_EQ(t.logits[0][2], 1.0);
    EXPECT_EQ(t.logits[1][1], -1.0);
}

TEST_P(Ops, LossOfNanIsNan)
{
    Array logits = normal(dtype, 40, 1);
    logits.set(7, NAN);
    Tiles t = run(ops, logits, {3}, {20, 20}, 1.0f);
    EXPECT_TRUE(std::isnan(row_loss(t, 0)));
}

TEST_P(Ops, LossHasTheSameBitsForAnyNumberOfThreads)
{
    Array logits = normal(dtype, 31 * 500, 1);
    Vector<int32_t> targets(31, 7);
    zinf_cpu_set_threads(1);
    Tiles one = run(ops, logits, targets, {250, 250}, 0.5f);
    zinf_cpu_set_threads(2);
    Tiles two = run(ops, logits, targets, {250, 250}, 0.5f);
    EXPECT_EQ(one.sum, two.sum);
    EXPECT_TRUE(one.logits[0] == two.logits[0] && one.logits[1] == two.logits[1]);
}

TEST_P(Ops, LossLeavesAloneWhatIsBetweenRows)
{
    const int64_t rows = 3, columns = 45;
    Vector<int32_t> targets = {44, -100, 0};
    Array close = normal(dtype, rows * columns, 1);
    for (int64_t row : {48, 51}) {
        Array apart(dtype, rows * row), together = close;
        for (int64_t r = 0; r < rows; r++)
            for (int64_t i = 0; i < row; i++)
                apart.set(r * row + i, i < columns ? close[r * columns + i] : 99.0);
        Vector<float> numbers[2][3];
        for (int which = 0; which < 2; which++) {
            Array &logits = which ? apart : together;
            Vector<float> *n = numbers[which];
            n[0].assign(rows, -INFINITY), n[1].assign(rows, 0.0f), n[2].assign(rows, 0.0f);
            const zinf_loss_tile op = {
                dtype,          rows,        columns,     0,           which ? row : columns,
                targets.data(), n[0].data(), n[1].data(), n[2].data(), 0.5f};
            ops->loss_tile_forward(&op, logits.data());
            ops->loss_tile_backward(&op, logits.data());
        }
        for (int64_t r = 0; r < rows; r++) {
            if (targets[r] >= 0) {
                EXPECT_NEAR(row_loss_of(numbers[1], r), row_loss_of(numbers[0], r), 64 * u32 * 20);
            }
            for (int64_t i = 0; i < row; i++) {
                if (i < columns)
                    ASSERT_NEAR(apart[r * row + i], together[r * columns + i],
                                roundoff(dtype) + 64 * u32);
                else
                    ASSERT_EQ(apart[r * row + i], 99.0);
            }
        }
    }
}

INSTANTIATE_OPS_TESTS();
