/*
 * Updates by every optimizer against the formulas of docs/optimizers.md in double, several steps
 * long.
 */
#include "cuda/update.h"
#include "ops_test.h"

using namespace ops_test;

namespace
{

/* State of one element in double. */
struct Element {
    double w, m, v;
};

void step(const zinf_update &o, Element &e, double g)
{
    g *= o.gradient_scale;
    bool decoupled = o.optimizer == ZINF_LION || (o.optimizer == ZINF_ADAM && o.decoupled_decay);
    if (decoupled)
        e.w -= o.learning_rate * o.weight_decay * e.w;
    else
        g += o.weight_decay * e.w;
    if (o.optimizer == ZINF_ADAM) {
        e.m = o.beta1 * e.m + (1 - o.beta1) * g;
        e.v = o.beta2 * e.v + (1 - o.beta2) * g * g;
        double c1 = o.bias_correction ? 1 - std::pow(o.beta1, o.step) : 1;
        double c2 = o.bias_correction ? 1 - std::pow(o.beta2, o.step) : 1;
        e.w -= o.learning_rate / c1 * e.m / (std::sqrt(e.v) / std::sqrt(c2) + o.epsilon);
    } else if (o.optimizer == ZINF_ADAGRAD) {
        e.m += g * g;
        e.w -= o.learning_rate * g / (std::sqrt(e.m) + o.epsilon);
    } else if (o.optimizer == ZINF_LION) {
        double c = o.beta1 * e.m + (1 - o.beta1) * g;
        e.w -= o.learning_rate * ((c > 0) - (c < 0));
        e.m = o.beta2 * e.m + (1 - o.beta2) * g;
    } else {
        if (o.momentum != 0) {
            e.m = o.step == 1 ? g : o.momentum * e.m + (1 - o.dampening) * g;
            g = o.nesterov ? g + o.momentum * e.m : e.m;
        }
        e.w -= o.learning_rate * g;
    }
}

/** Three steps of `count` elements; weights and state may differ from the doubles by a few
 * roundings of fp32 each step. */
void check(const zinf_ops *ops, zinf_dtype dtype, zinf_update o, int64_t count)
{
    Vector<float> w(count), m(count), v(count);
    std::vector<Element> e(count);
    Array weights = normal(ZINF_FP32, count, 1), low(ZINF_BF16, count), low16(ZINF_FP16, count);
    for (int64_t i = 0; i < count; i++)
        w[i] = (float)weights[i], e[i] = {weights[i], 0, 0};
    for (o.step = 1; o.step <= 3; o.step++) {
        Array g = normal(dtype, count, 10 + (unsigned)o.step, 0.3);
        Array *copy = o.step == 2 ? &low16 : &low;
        zinf_update_op op = {o,        count, w.data(),      {m.data(), v.data()},
                             g.data(), dtype, copy->dtype(), copy->data(),
                             false};
        ops->update(&op);
        ASSERT_TRUE(copy->guard_is_whole());
        for (int64_t i = 0; i < count; i++) {
            step(o, e[i], g[i]);
            Array want(copy->dtype(), 1);
            want.set(0, w[i]);
            ASSERT_EQ((*copy)[i], want[0]);
        }
    }
    for (int64_t i = 0; i < count; i++) {
        /* where sums of gradients cancel, the relative error of m and with it of the step grows:
         * measured against the terms */
        double moved = o.learning_rate * 4 * (1 + 1 / std::max(1e-3, std::sqrt(e[i].v)));
        ASSERT_NEAR(w[i], e[i].w, 12 * u32 * (std::fabs(e[i].w) + std::fabs(weights[i]) + moved))
            << i;
        ASSERT_NEAR(m[i], e[i].m, 12 * u32 * (std::fabs(e[i].m) + 1.0)) << i;
        ASSERT_NEAR(v[i], e[i].v, 12 * u32 * std::fabs(e[i].v) + 1e-12) << i;
    }
}

zinf_update options(zinf_optimizer optimizer)
{
    zinf_update o = {};
    o.optimizer = optimizer;
    o.learning_rate = 1e-2, o.beta1 = 0.9, o.beta2 = 0.99, o.epsilon = 1e-8;
    o.decoupled_decay = true, o.bias_correction = true, o.gradient_scale = 0.5f;
    return o;
}

} // namespace

TEST_P(Ops, AdamWithEveryFlag)
{
    for (int flags = 0; flags < 8; flags++) {
        zinf_update o = options(ZINF_ADAM);
        o.decoupled_decay = flags & 1, o.bias_correction = flags & 2,
        o.weight_decay = flags & 4 ? 0.1 : 0.0;
        check(ops, dtype, o, 1003);
    }
}

TEST_P(Ops, AdamWOfAHundredThousandElements)
{
    zinf_update o = options(ZINF_ADAM);
    o.weight_decay = 0.01, o.beta2 = 0.999;
    check(ops, dtype, o, 100003);
}

TEST_P(Ops, AdagradWithAndWithoutDecay)
{
    for (double decay : {0.0, 0.1}) {
        zinf_update o = options(ZINF_ADAGRAD);
        o.weight_decay = decay, o.epsilon = 1e-10;
        check(ops, dtype, o, 517);
    }
}

TEST_P(Ops, LionWithAndWithoutDecay)
{
    for (double decay : {0.0, 0.1}) {
        zinf_update o = options(ZINF_LION);
        o.weight_decay = decay;
        check(ops, dtype, o, 517);
    }
}

TEST_P(Ops, SgdWithEveryFlag)
{
    for (int flags = 0; flags < 16; flags++) {
        zinf_update o = options(ZINF_SGD);
        o.momentum = flags & 1 ? 0.9 : 0.0, o.dampening = flags & 2 ? 0.3 : 0.0;
        o.nesterov = flags & 4, o.weight_decay = flags & 8 ? 0.1 : 0.0;
        check(ops, dtype, o, 300);
    }
}

TEST_P(Ops, SgdWithoutMomentumNeedsNoState)
{
    zinf_update o = options(ZINF_SGD);
    o.step = 1, o.gradient_scale = 1.0f;
    Vector<float> w(20, 1.0f);
    Array g(dtype, std::vector<double>(20, 2.0));
    zinf_update_op op = {o,         20,      w.data(), {nullptr, nullptr}, g.data(), dtype,
                         ZINF_BF16, nullptr, false};
    ops->update(&op);
    for (float x : w)
        ASSERT_NEAR(x, 1.0 - 1e-2 * 2.0, 2 * u32);
}

TEST_P(Ops, LionDoesNotMoveWhereThereIsNoSign)
{
    zinf_update o = options(ZINF_LION);
    o.step = 1;
    Vector<float> w(20, 1.0f), m(20);
    Array g(dtype, std::vector<double>(20, 0.0));
    zinf_update_op op = {o,         20,      w.data(), {m.data(), nullptr}, g.data(), dtype,
                         ZINF_BF16, nullptr, false};
    ops->update(&op);
    for (float x : w)
        ASSERT_EQ(x, 1.0f);
}

TEST_P(Ops, PaddingOfZerosStaysZero)
{
    for (zinf_optimizer optimizer : {ZINF_ADAM, ZINF_ADAGRAD, ZINF_LION, ZINF_SGD}) {
        zinf_update o = options(optimizer);
        o.weight_decay = 0.1, o.momentum = 0.9, o.step = 5;
        Vector<float> w(50), m(50), v(50);
        Array g(dtype, std::vector<double>(50, 0.0)), low(ZINF_FP16, 50);
        zinf_update_op op = {o,         50,         w.data(), {m.data(), v.data()}, g.data(), dtype,
                             ZINF_FP16, low.data(), false};
        ops->update(&op);
        for (int i = 0; i < 50; i++)
            ASSERT_TRUE(w[i] == 0 && m[i] == 0 && v[i] == 0 && low[i] == 0);
    }
}

TEST_P(Ops, UpdateDoesNotDependOnWhereARunIsCut)
{
    /* whole runs and the same in pieces at multiples of 16: what sharding and records do */
    const int64_t count = 40000, cut = 16 * 77;
    zinf_update o = options(ZINF_ADAM);
    o.step = 3, o.weight_decay = 0.1;
    Array g = normal(dtype, count, 1), weights = normal(ZINF_FP32, count, 2);
    Vector<float> w[2], m[2], v[2];
    for (int run = 0; run < 2; run++) {
        w[run].resize(count), m[run].resize(count), v[run].resize(count);
        memcpy(w[run].data(), weights.data(), count * 4);
        int64_t pieces[] = {0, run ? cut : count, count};
        for (int p = 0; p < 2; p++) {
            int64_t at = pieces[p];
            const char *from = (const char *)g.data() + at * zinf_dtype_bytes(dtype);
            zinf_update_op op = {o,
                                 pieces[p + 1] - at,
                                 w[run].data() + at,
                                 {m[run].data() + at, v[run].data() + at},
                                 from,
                                 dtype,
                                 ZINF_FP16,
                                 nullptr,
                                 false};
            ops->update(&op);
        }
    }
    EXPECT_TRUE(w[0] == w[1] && m[0] == m[1] && v[0] == v[1]);
}

TEST_P(Ops, WhatIsMadeAheadHasTheBitsOfTheUpdateAndChangesNothingElse)
{
    const int64_t count = 1003;
    for (zinf_optimizer optimizer : {ZINF_ADAM, ZINF_ADAGRAD, ZINF_LION, ZINF_SGD})
        for (zinf_dtype low_dtype : {ZINF_BF16, ZINF_FP16, ZINF_FP32}) {
            zinf_update o = options(optimizer);
            o.weight_decay = 0.1, o.momentum = 0.9, o.step = 5;
            Array g = normal(dtype, count, 1), weights = normal(ZINF_FP32, count, 2),
                  state = normal(ZINF_FP32, 2 * count, 3), ahead(low_dtype, count),
                  low(low_dtype, count);
            Vector<float> w(count), m(count), v(count);
            for (int64_t i = 0; i < count; i++)
                w[i] = (float)weights[i], m[i] = (float)state[i],
                v[i] = (float)std::fabs(state[count + i]);
            Vector<float> w2 = w, m2 = m, v2 = v;
            zinf_update_op op = {o,        count, w.data(),  {m.data(), v.data()},
                                 g.data(), dtype, low_dtype, ahead.data(),
                                 true};
            ops->update(&op);
            ASSERT_TRUE(ahead.guard_is_whole());
            ASSERT_TRUE(w == w2 && m == m2 && v == v2);
            op.low = low.data(), op.low_only = false;
            ops->update(&op);
            ASSERT_FALSE(w == w2);
            ASSERT_EQ(memcmp(ahead.data(), low.data(), (size_t)count * zinf_dtype_bytes(low_dtype)),
                      0);
        }
}

TEST_P(Ops, AdamWHasTheBitsOfItsFormulaWithFusedMultiplyAdds)
{
    /* what lets ranks on devices and ranks on CPUs continue each other's runs bit for bit */
    if (std::string(ops->name) == "cpu plain")
        GTEST_SKIP() << "no fused multiply-add in this instruction set";
    const int64_t count = ops == cuda_emulated_ops() ? 20003 : 1000003;
    zinf_update o = options(ZINF_ADAM);
    o.weight_decay = 0.01, o.beta2 = 0.999, o.gradient_scale = 0.37f;
    Array g = normal(dtype, count, 1, 0.3), weights = normal(ZINF_FP32, count, 2),
          low(ZINF_BF16, count);
    Vector<float> w(count), m(count), v(count);
    memcpy(w.data(), weights.data(), count * 4);
    Vector<float> w2 = w, m2 = m, v2 = v;
    for (o.step = 1; o.step <= 2; o.step++) {
        zinf_coefficients c = zinf_coefficients_of(&o);
        zinf_update_op op = {o,         count,      w.data(), {m.data(), v.data()}, g.data(), dtype,
                             ZINF_BF16, low.data(), false};
        ops->update(&op);
        for (int64_t i = 0; i < count; i++)
            w2[i] = zinf_cuda::update_element<ZINF_ADAM>(c, w2[i], (float)g[i], m2[i], v2[i]);
    }
    EXPECT_TRUE(w == w2 && m == m2 && v == v2);
}

INSTANTIATE_OPS_TESTS();
