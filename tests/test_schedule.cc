// The schedules against DeepSpeed's own numbers (tests/oracle/deepspeed_schedules.py): every double
// equal, bit by bit.
#include "train/schedule.h"

#include <cmath>
#include <cstring>

#include <gtest/gtest.h>

namespace
{

struct Values {
    double lr, beta1, beta2;
};

uint64_t fnv(uint64_t state, double value)
{
    unsigned char bytes[8];
    memcpy(bytes, &value, 8);
    for (unsigned char byte : bytes)
        state = (state ^ byte) * 0x100000001b3ull;
    return state;
}

void check_against(const struct zinf_schedule_options &options, uint64_t hash,
                   std::initializer_list<Values> shown)
{
    struct zinf_schedule schedule;
    struct zinf_error error = {};
    ASSERT_EQ(zinf_schedule_init(&schedule, &options, &error), 0) << error.text;
    uint64_t state = 0xcbf29ce484222325ull;
    for (size_t step = 0; step < 3000; step++) {
        const struct zinf_schedule_values v = zinf_schedule_next(&schedule);
        if (step < shown.size()) {
            const Values &w = shown.begin()[step];
            EXPECT_EQ(v.lr, w.lr) << "step " << step;
            EXPECT_EQ(v.beta1, w.beta1) << "step " << step;
            EXPECT_EQ(v.beta2, w.beta2) << "step " << step;
        }
        state = fnv(fnv(fnv(state, v.lr), v.beta1), v.beta2);
        zinf_schedule_advance(&schedule);
    }
    EXPECT_EQ(state, hash);
}

struct zinf_schedule_options options_of(enum zinf_schedule_type type)
{
    struct zinf_schedule_options options;
    zinf_schedule_defaults(&options, type);
    options.optimizer_beta1 = 0.91;
    options.optimizer_beta2 = 0.995;
    return options;
}

TEST(Schedule, EveryStepIsEqualToDeepSpeeds)
{
    int cases = 0;
#define CASE(kind, hash, set, ...)                                                                 \
    {                                                                                              \
        SCOPED_TRACE(#kind ": " #set);                                                             \
        struct zinf_schedule_options o = options_of(kind);                                         \
        set check_against(o, hash, {__VA_ARGS__});                                                 \
        cases++;                                                                                   \
    }
#include "tests/data/deepspeed_schedules.h"
#undef CASE
    EXPECT_EQ(cases, 78);
}

TEST(Schedule, WithoutSchedulerTheOptimizersOwnValuesStay)
{
    struct zinf_schedule schedule;
    const struct zinf_schedule_options options = options_of(ZINF_SCHEDULE_CONSTANT);
    ASSERT_EQ(zinf_schedule_init(&schedule, &options, NULL), 0);
    for (int i = 0; i < 3; i++, zinf_schedule_advance(&schedule)) {
        const struct zinf_schedule_values v = zinf_schedule_next(&schedule);
        EXPECT_EQ(v.lr, 1e-3);
        EXPECT_EQ(v.beta1, 0.91);
        EXPECT_EQ(v.beta2, 0.995);
    }
}

TEST(Schedule, IterationIsTheWholeState)
{
    struct zinf_schedule a, b;
    struct zinf_schedule_options options = options_of(ZINF_SCHEDULE_WARMUP_COSINE_LR);
    options.total_num_steps = 50;
    options.warmup_num_steps = 7;
    ASSERT_EQ(zinf_schedule_init(&a, &options, NULL), 0);
    ASSERT_EQ(zinf_schedule_init(&b, &options, NULL), 0);
    for (int i = 0; i < 23; i++)
        zinf_schedule_advance(&a);
    b.iteration = a.iteration;
    for (int i = 0; i < 40; i++, zinf_schedule_advance(&a), zinf_schedule_advance(&b))
        EXPECT_EQ(zinf_schedule_next(&a).lr, zinf_schedule_next(&b).lr);
}

void refused(const struct zinf_schedule_options &options, const char *key)
{
    struct zinf_schedule schedule;
    struct zinf_error error = {};
    EXPECT_EQ(zinf_schedule_init(&schedule, &options, &error), ZINF_E_USAGE);
    EXPECT_NE(strstr(error.text, key), nullptr) << error.text;
}

TEST(Schedule, WhatDeepSpeedRefusesIsRefusedByName)
{
    struct zinf_schedule_options o = options_of(ZINF_SCHEDULE_WARMUP_LR);
    o.warmup_num_steps = 0;
    refused(o, "warmup_num_steps");
    refused(options_of(ZINF_SCHEDULE_WARMUP_DECAY_LR), "total_num_steps");
    refused(options_of(ZINF_SCHEDULE_WARMUP_COSINE_LR), "total_num_steps");
    o = options_of(ZINF_SCHEDULE_ONE_CYCLE);
    refused(o, "cycle_min_lr");
    o.cycle_min_lr = 1e-4;
    refused(o, "cycle_max_lr");
    o.cycle_max_lr = 1e-3;
    o.cycle_first_step_size = 0;
    refused(o, "cycle_first_step_size");
    o.cycle_first_step_size = 3;
    o.cycle_second_step_size = -1;
    refused(o, "cycle_second_step_size");
    o = options_of(ZINF_SCHEDULE_LR_RANGE_TEST);
    o.lr_range_test_step_size = 0;
    refused(o, "lr_range_test_step_size");
}

} // namespace
