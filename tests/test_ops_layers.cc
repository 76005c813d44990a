/*
 * Normalisation, activations, gated units, rotary embedding, dropout and look-up tables, forward
 * and backward, against their formulas in double.
 */
#include "ops_test.h"

using namespace ops_test;

namespace
{

const int64_t column_counts[] = {1, 15, 16, 33, 100, 257};

/* Norm forward and backward in double from the same inputs. */
struct Norm {
    std::vector<double> y, dx, dx_size, dweight, dweight_size, dbias, dbias_size;
};

Norm reference(const zinf_norm &op, const Array &x, const Array &w, const Array *b, const Array &dy,
               const Array *residual)
{
    int64_t C = op.columns;
    Norm r;
    r.y.resize(op.rows * C), r.dx.resize(op.rows * C), r.dx_size.resize(op.rows * C);
    r.dweight.resize(C), r.dweight_size.resize(C), r.dbias.resize(C), r.dbias_size.resize(C);
    for (int64_t t = 0; t < op.rows; t++) {
        double mean = 0, variance = 0, mean_g = 0, mean_gn = 0, size = 0;
        for (int64_t i = 0; i < C; i++)
            mean += op.mean ? x[t * C + i] / C : 0;
        for (int64_t i = 0; i < C; i++)
            variance += (x[t * C + i] - mean) * (x[t * C + i] - mean) / C;
        double rstd = 1 / std::sqrt(variance + op.epsilon);
        for (int64_t i = 0; i < C; i++) {
            double n = (x[t * C + i] - mean) * rstd, g = dy[t * C + i] * w[i];
            r.y[t * C + i] = n * w[i] + (b ? (*b)[i] : 0);
            mean_g += op.mean ? g / C : 0, mean_gn += g * n / C;
            size += (std::fabs(g) + std::fabs(g * n)) / C;
            r.dweight[i] += dy[t * C + i] * n, r.dweight_size[i] += std::fabs(dy[t * C + i] * n);
            r.dbias[i] += dy[t * C + i], r.dbias_size[i] += std::fabs(dy[t * C + i]);
        }
        for (int64_t i = 0; i < C; i++) {
            double n = (x[t * C + i] - mean) * rstd, g = dy[t * C + i] * w[i];
            double add = residual ? (*residual)[t * C + i] : 0;
            r.dx[t * C + i] = rstd * (g - mean_g - n * mean_gn) + add;
            r.dx_size[t * C + i] =
                rstd * (std::fabs(g) + size * (1 + std::fabs(n))) + std::fabs(add);
        }
    }
    return r;
}

double act(zinf_activation kind, double x)
{
    switch (kind) {
    case ZINF_RELU:
        return x > 0 ? x : 0;
    case ZINF_SILU:
        return x / (1 + std::exp(-x));
    case ZINF_GELU_ERF:
        return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case ZINF_GELU_TANH:
        break;
    }
    return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

/** Central difference of act in double: error about 1e-9. */
double slope(zinf_activation kind, double x)
{
    if (kind == ZINF_RELU)
        return x > 0 ? 1 : 0;
    const double h = 1e-5;
    return (act(kind, x + h) - act(kind, x - h)) / (2 * h);
}

const zinf_activation kinds[] = {ZINF_GELU_TANH, ZINF_GELU_ERF, ZINF_RELU, ZINF_SILU};

} // namespace

class Norms : public Ops
{
  protected:
    void check(int64_t rows, int64_t columns, bool layer, bool with_residual)
    {
        SCOPED_TRACE(testing::Message() << rows << " x " << columns << (layer ? " layer" : " RMS"));
        Array x = normal(dtype, rows * columns, 1, 2.0), w = normal(dtype, columns, 2),
              b = normal(dtype, columns, 3);
        Array dy = normal(dtype, rows * columns, 4), residual = normal(dtype, rows * columns, 5);
        Array y(dtype, rows * columns), dx = residual, dw(dtype, columns), db(dtype, columns);
        Vector<float> mean(rows), rstd(rows);
        zinf_norm op = {dtype,
                        rows,
                        columns,
                        1e-5,
                        x.data(),
                        w.data(),
                        layer ? b.data() : nullptr,
                        layer ? mean.data() : nullptr,
                        rstd.data()};
        ops->norm_forward(&op, y.data());
        ops->norm_backward(&op, dy.data(), with_residual ? dx.data() : nullptr, dx.data(),
                           dw.data(), layer ? db.data() : nullptr);
        Norm want =
            reference(op, x, w, layer ? &b : nullptr, dy, with_residual ? &residual : nullptr);
        ASSERT_TRUE(y.guard_is_whole() && dx.guard_is_whole() && dw.guard_is_whole() &&
                    db.guard_is_whole());
        for (size_t i = 0; i < y.size(); i++) {
            expect_near(y, i, want.y[i], 1 + 4 * std::fabs(want.y[i]), 16);
            expect_near(dx, i, want.dx[i], want.dx_size[i], 32);
        }
        for (int64_t i = 0; i < columns; i++) {
            expect_near(dw, i, want.dweight[i], want.dweight_size[i] + 1, 32);
            if (layer)
                expect_near(db, i, want.dbias[i], want.dbias_size[i], 16);
        }
    }
};

TEST_P(Norms, LayerAndRmsNormAgreeWithTheirFormulas)
{
    for (int64_t columns : column_counts)
        for (bool layer : {true, false})
            if (columns > 1 ||
                !layer) /* one column has no variance: rstd magnifies rounding 300-fold */
                for (bool residual : {false, true})
                    check(5, columns, layer, residual);
    check(150, 40, true, true); /* more rows than partial sums */
    check(1, 768, true, false);
}

TEST_P(Norms, HaveTheSameBitsForAnyNumberOfThreads)
{
    const int64_t rows = 203, columns = 97;
    Array x = normal(dtype, rows * columns, 1), w = normal(dtype, columns, 2),
          dy = normal(dtype, rows * columns, 3);
    Vector<float> mean(rows), rstd(rows);
    zinf_norm op = {dtype,    rows,     columns,     1e-5,       x.data(),
                    w.data(), w.data(), mean.data(), rstd.data()};
    const zinf_column_sum sums = {dtype, rows, columns};
    Array first_dx(dtype, 0), first_dw(dtype, 0), first_bias(dtype, 0);
    for (int threads : {1, 2, 3}) {
        zinf_cpu_set_threads(threads);
        Array y(dtype, rows * columns), dx(dtype, rows * columns), dw(dtype, columns),
            db(dtype, columns), bias(dtype, columns);
        ops->norm_forward(&op, y.data());
        ops->norm_backward(&op, dy.data(), nullptr, dx.data(), dw.data(), db.data());
        ops->bias_backward(&sums, dy.data(), bias.data());
        if (threads == 1)
            first_dx = dx, first_dw = dw, first_bias = bias;
        EXPECT_TRUE(dx == first_dx && dw == first_dw && bias == first_bias);
    }
    zinf_cpu_set_threads(2);
}

TEST_P(Norms, OfConstantRowsStayFinite)
{
    Array x(dtype, std::vector<double>(3 * 20, 5.0)), w(dtype, std::vector<double>(20, 1.0)),
        y(dtype, 60);
    Vector<float> mean(3), rstd(3);
    zinf_norm op = {dtype, 3, 20, 1e-5, x.data(), w.data(), w.data(), mean.data(), rstd.data()};
    ops->norm_forward(&op, y.data());
    for (size_t i = 0; i < y.size(); i++)
        ASSERT_EQ(y[i], 1.0); /* (x - mean) * rstd = 0, plus the bias */
}

TEST_P(Ops, BiasGradientIsTheSumOverRows)
{
    for (int64_t columns : {1, 16, 127, 128, 300}) {
        const int64_t rows = 77;
        Array dy = normal(dtype, rows * columns, 1), got(dtype, columns);
        const zinf_column_sum op = {dtype, rows, columns};
        ops->bias_backward(&op, dy.data(), got.data());
        ASSERT_TRUE(got.guard_is_whole());
        for (int64_t i = 0; i < columns; i++) {
            double sum = 0, size = 0;
            for (int64_t t = 0; t < rows; t++)
                sum += dy[t * columns + i], size += std::fabs(dy[t * columns + i]);
            expect_near(got, i, sum, size);
        }
    }
}

TEST_P(Ops, ActivationsAndTheirSlopes)
{
    const int64_t count = 20001; /* longer than a task, and odd */
    for (zinf_activation kind : kinds) {
        Array x = normal(dtype, count, 1, 3.0), dy = normal(dtype, count, 2), y(dtype, count),
              dx = dy;
        x.set(0, 0.0), x.set(1, 40.0), x.set(2, -40.0), x.set(3, 1000.0), x.set(4, -1000.0);
        const zinf_activate op = {kind, dtype, 1, count, x.data()};
        ops->activation_forward(&op, y.data());
        ops->activation_backward(&op, dx.data(), dx.data()); /* in place */
        ASSERT_TRUE(y.guard_is_whole() && dx.guard_is_whole());
        for (int64_t i = 0; i < count; i++) {
            expect_near(y, i, act(kind, x[i]), std::fabs(x[i]), 6);
            double size = std::fabs(dy[i]) * (1 + std::min(std::fabs(x[i]), 20.0));
            if (i != 0 || kind != ZINF_RELU)
                expect_near(dx, i, dy[i] * slope(kind, x[i]), size + 1e-9 / u32 * std::fabs(dy[i]),
                            12);
        }
    }
}

TEST_P(Ops, GatedUnitsRoundTheActivationFirst)
{
    const int64_t rows = 3;
    for (zinf_activation kind : kinds)
        for (int64_t features : {1, 16, 37}) {
            Array x = normal(dtype, rows * 2 * features, 1, 2.0),
                  dy = normal(dtype, rows * features, 2);
            Array y(dtype, rows * features), dx(dtype, rows * 2 * features), f(dtype, 1);
            const zinf_activate op = {kind, dtype, rows, features, x.data()};
            ops->gated_forward(&op, y.data());
            ops->gated_backward(&op, dy.data(), dx.data());
            ASSERT_TRUE(y.guard_is_whole() && dx.guard_is_whole());
            for (int64_t r = 0; r < rows; r++)
                for (int64_t i = 0; i < features; i++) {
                    size_t gate = r * 2 * features + i, up = gate + features,
                           out = r * features + i;
                    f.set(0, act(kind, x[gate]));
                    /* where f lies near the middle of two numbers the other one is right as well */
                    double f_error =
                        std::fabs(x[up]) * roundoff(dtype) * (dtype == ZINF_FP32 ? 0 : 2e-2);
                    expect_near(y, out, f[0] * x[up],
                                (std::fabs(x[gate]) + f_error / u32) * std::fabs(x[up]), 8);
                    expect_near(dx, up, f[0] * dy[out],
                                (std::fabs(x[gate]) + f_error / u32) * std::fabs(dy[out]), 8);
                    double df = dy[out] * x[up];
                    expect_near(dx, gate, df * slope(kind, x[gate]),
                                std::fabs(df) * (3 + std::fabs(x[gate])), 12);
                }
        }
}

TEST_P(Ops, RopeTurnsPairsAndBackwardTurnsThemBack)
{
    const int64_t batch = 2, sequence = 5, heads = 3;
    for (int64_t head_size : {2, 8, 16, 34, 64}) {
        int64_t half = head_size / 2, row = heads * head_size + 7;
        Vector<float> cosine(sequence * half), sine(sequence * half);
        for (size_t i = 0; i < cosine.size(); i++)
            cosine[i] = std::cos(0.37f * i), sine[i] = std::sin(0.37f * i);
        Array before = normal(dtype, batch * sequence * row, 1), x = before;
        zinf_rope op = {dtype, batch,         sequence,    heads, head_size,
                        row,   cosine.data(), sine.data(), false};
        for (bool backward : {false, true}) {
            x = before, op.backward = backward;
            ops->rope(&op, x.data());
            ASSERT_TRUE(x.guard_is_whole());
            for (int64_t t = 0; t < batch * sequence; t++)
                for (int64_t i = 0; i < row; i++) {
                    int64_t in_head = i % head_size, pair = in_head % half;
                    double c = cosine[t % sequence * half + pair],
                           s = sine[t % sequence * half + pair];
                    if (i >= heads * head_size) {
                        ASSERT_EQ(x[t * row + i], before[t * row + i]);
                        continue;
                    }
                    bool low = in_head < half;
                    double a = before[t * row + i], b = before[t * row + i + (low ? half : -half)];
                    double want = a * c + (low == backward ? b * s : -b * s);
                    expect_near(x, t * row + i, want, std::fabs(a) + std::fabs(b), 4);
                }
        }
    }
}

TEST_P(Ops, DropoutKeepsAndScalesWhatPhiloxSays)
{
    const int64_t batch = 3;
    const Vector<uint32_t> counters = {41, 1000};
    for (int64_t per_sample : {1, 6, 64, 4097, 9001}) {
        Array x = normal(dtype, batch * per_sample, 1),
              residual = normal(dtype, batch * per_sample, 2);
        for (float p : {0.0f, 0.1f, 0.5f, 1.0f})
            for (bool add : {false, true}) {
                zinf_dropout d = {zinf_rng_key(1, "dropout"), 41, 8 * 3 + 2, 1000, p, nullptr};
                zinf_dropout_add op = {dtype, batch, per_sample, d};
                if (add) /* the same numbers, read when the operation runs */
                    op.dropout.step = op.dropout.sample = 77, op.dropout.counters = counters.data();
                Array y = residual; /* y may be the residual */
                ops->dropout_add(&op, x.data(), add ? y.data() : nullptr, y.data());
                ASSERT_TRUE(y.guard_is_whole());
                Array dropped(dtype, 1);
                for (int64_t i = 0; i < batch * per_sample; i++) {
                    double factor = p == 1.0f ? 0.0
                                    : p > 0   ? dropout_factor(d, i / per_sample, i % per_sample)
                                              : 1.0;
                    double want = x[i] * factor;
                    if (add)
                        dropped.set(0, want), want = dropped[0] + residual[i];
                    expect_near(y, i, want,
                                std::fabs(x[i]) * 2 + std::fabs(residual[i]) +
                                    (add && factor != 0 ? 2e-2 * roundoff(dtype) / u32 : 0),
                                4);
                }
            }
    }
}

TEST_P(Ops, DropoutKeepsItsRate)
{
    const int64_t count = 200000;
    Array x(dtype, std::vector<double>(count, 1.0)), y(dtype, count);
    const zinf_dropout_add op = {
        dtype, 1, count, {zinf_rng_key(2, "dropout"), 5, 11, 0, 0.1f, nullptr}};
    ops->dropout_add(&op, x.data(), nullptr, y.data());
    double ones = 0;
    for (int64_t i = 0; i < count; i++)
        ones += y[i] != 0.0;
    EXPECT_NEAR(ones / count, 0.9, 5 * std::sqrt(0.09 / count)); /* five standard deviations */
}

TEST_P(Ops, EmbeddingTilesWriteTheirOwnRowsOnly)
{
    const int64_t rows = 50, tokens = 37;
    for (int64_t columns : {1, 17, 64}) {
        Array table = normal(dtype, rows * columns, 1), x(dtype, tokens * columns);
        Vector<int32_t> ids(tokens);
        for (int64_t t = 0; t < tokens; t++)
            ids[t] = (int32_t)(t * 7 % rows);
        Array before = x;
        const int64_t cut = 20;
        zinf_embedding op = {dtype, 1, tokens, columns, 0, cut, ids.data()};
        ops->embedding_forward(&op, table.data(), x.data());
        for (int64_t i = 0; i < tokens * columns; i++)
            ASSERT_EQ(x[i], ids[i / columns] < cut ? table[ids[i / columns] * columns + i % columns]
                                                   : before[i]);
        const char *tile = (const char *)table.data() + cut * columns * zinf_dtype_bytes(dtype);
        op.first_row = cut, op.row_count = rows - cut;
        ops->embedding_forward(&op, tile, x.data());
        ASSERT_TRUE(x.guard_is_whole());
        for (int64_t i = 0; i < tokens * columns; i++)
            ASSERT_EQ(x[i], table[ids[i / columns] * columns + i % columns]);
    }
}

TEST_P(Ops, EmbeddingGradientSumsTokensInOrder)
{
    const int64_t tokens = 300, first = 10, rows = 40;
    for (int64_t columns : {1, 17, 64}) {
        Array dx = normal(dtype, tokens * columns, 1), got(dtype, rows * columns);
        Vector<int32_t> ids(tokens);
        for (int64_t t = 0; t < tokens; t++)
            ids[t] = (int32_t)(t * t % 61); /* some rows often, some never, some outside the tile */
        const zinf_embedding op = {dtype, 3, tokens / 3, columns, first, rows, ids.data()};
        ops->embedding_backward(&op, dx.data(), got.data());
        ASSERT_TRUE(got.guard_is_whole());
        for (int64_t r = 0; r < rows; r++)
            for (int64_t i = 0; i < columns; i++) {
                float sum = 0; /* exactly this order in fp32, rounded once */
                for (int64_t t = 0; t < tokens; t++)
                    if (ids[t] == first + r)
                        sum += (float)dx[t * columns + i];
                Array want(dtype, 1);
                want.set(0, sum);
                ASSERT_EQ(got[r * columns + i], want[0]);
            }
    }
}

TEST_P(Ops, PositionsAreAddedAndTheirGradientSummedOverSamples)
{
    const int64_t batch = 3, sequence = 11, columns = 35, first = 4,
                  rows = 9; /* the tile ends behind the sequence */
    Array table = normal(dtype, rows * columns, 1),
          x = normal(dtype, batch * sequence * columns, 2), before = x;
    const zinf_embedding op = {dtype, batch, sequence, columns, first, rows, nullptr};
    ops->position_forward(&op, table.data(), x.data());
    ASSERT_TRUE(x.guard_is_whole());
    for (int64_t i = 0; i < batch * sequence * columns; i++) {
        int64_t r = i / columns % sequence - first;
        double add = r >= 0 && r < rows ? table[r * columns + i % columns] : 0.0;
        expect_near(x, i, before[i] + add, 0);
    }
    Array got(dtype, rows * columns);
    ops->position_backward(&op, before.data(), got.data());
    ASSERT_TRUE(got.guard_is_whole());
    for (int64_t i = 0; i < rows * columns; i++) {
        double sum = 0, size = 0;
        for (int64_t b = 0; b < batch && first + i / columns < sequence; b++) {
            double term = before[(b * sequence + first + i / columns) * columns + i % columns];
            sum += term, size += std::fabs(term);
        }
        expect_near(got, i, sum, size, 4);
    }
}

INSTANTIATE_OPS_TESTS();
INSTANTIATE_TEST_SUITE_P(Backends, Norms, testing::ValuesIn(all_backends()), backend_name);
