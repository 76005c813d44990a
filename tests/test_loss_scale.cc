// The loss scaler against DeepSpeed's own class (tests/oracle/deepspeed_loss_scale.py), state by
// state.
#include "train/loss_scale.h"

#include <cstring>
#include <vector>

#include <gtest/gtest.h>

namespace
{

struct option_set {
    int power;
    int64_t window, hysteresis;
    bool consecutive;
    double minimum;
};

struct state {
    double scale;
    int64_t hysteresis, iteration, last_overflow;
};

#include "tests/data/deepspeed_loss_scale.h"

/* The generator of the script: the same overflows on both sides. */
std::vector<bool> pattern(uint64_t seed)
{
    std::vector<bool> overflows;
    uint64_t x = seed * 0x9e3779b97f4a7c15ull + 1;
    for (int i = 0; i < STEPS; i++) {
        x = x * 6364136223846793005ull + 1442695040888963407ull;
        overflows.push_back((x >> 33) % 1000 < 10 + 40 * (seed % 10));
    }
    return overflows;
}

struct zinf_loss_scale scale_of(const option_set &set)
{
    struct zinf_loss_scale_options options;
    zinf_loss_scale_defaults(&options);
    options.initial_scale_power = set.power;
    options.loss_scale_window = set.window;
    options.hysteresis = set.hysteresis;
    options.consecutive_hysteresis = set.consecutive;
    options.min_loss_scale = set.minimum;
    struct zinf_loss_scale scale;
    zinf_loss_scale_init(&scale, &options);
    return scale;
}

std::vector<state> states_of(const option_set &set, uint64_t seed)
{
    struct zinf_loss_scale scale = scale_of(set);
    std::vector<state> states;
    for (bool overflow : pattern(seed)) {
        const bool last = overflow && zinf_loss_scale_is_last(&scale);
        const int status = zinf_loss_scale_update(&scale, overflow, NULL);
        EXPECT_EQ(status, last ? ZINF_E_NUMERIC : 0);
        if (status) {
            states.push_back({-1, 0, 0, 0});
            break;
        }
        states.push_back({scale.scale, scale.hysteresis, scale.iteration, scale.last_overflow});
    }
    return states;
}

uint32_t folded(const std::vector<state> &states)
{
    uint64_t hash = 0xcbf29ce484222325ull;
    for (const state &s : states) {
        unsigned char bytes[sizeof s];
        memcpy(bytes, &s, sizeof s);
        for (unsigned char byte : bytes)
            hash = (hash ^ byte) * 0x100000001b3ull;
    }
    return (uint32_t)(hash ^ (hash >> 32));
}

TEST(LossScale, ShownPatternIsEqualStateByState)
{
    for (int set = 0; set < SETS; set++) {
        const std::vector<state> states = states_of(option_sets[set], 7);
        for (size_t i = 0; i < states.size() && i < SHOWN; i++) {
            SCOPED_TRACE(testing::Message() << "options " << set << ", step " << i);
            EXPECT_EQ(states[i].scale, shown[set][i].scale);
            EXPECT_EQ(states[i].hysteresis, shown[set][i].hysteresis);
            EXPECT_EQ(states[i].iteration, shown[set][i].iteration);
            EXPECT_EQ(states[i].last_overflow, shown[set][i].last_overflow);
        }
    }
}

TEST(LossScale, ThousandPatternsPerOptionSetAreEqualToDeepSpeeds)
{
    int ended = 0;
    for (int set = 0; set < SETS; set++) {
        for (int seed = 0; seed < PATTERNS; seed++) {
            const std::vector<state> states = states_of(option_sets[set], (uint64_t)seed);
            EXPECT_EQ(folded(states), hashes[set][seed]) << "options " << set << ", seed " << seed;
            ended += states.back().scale < 0;
        }
    }
    EXPECT_GT(ended, 100); // the patterns reach the minimum, too
}

TEST(LossScale, StaticScaleNeverMovesAndNeverEndsTheRun)
{
    struct zinf_loss_scale_options options;
    zinf_loss_scale_defaults(&options);
    options.loss_scale = 128;
    struct zinf_loss_scale scale;
    zinf_loss_scale_init(&scale, &options);
    for (int i = 0; i < 3000; i++) {
        EXPECT_FALSE(zinf_loss_scale_is_last(&scale));
        EXPECT_EQ(zinf_loss_scale_update(&scale, i % 3 == 0, NULL), 0);
        EXPECT_EQ(scale.scale, 128);
    }
}

TEST(LossScale, AtTheMinimumTheStateStaysAndTheMessageSaysSo)
{
    struct zinf_loss_scale scale = scale_of({0, 1000, 1, false, 1});
    struct zinf_error error = {};
    EXPECT_EQ(zinf_loss_scale_update(&scale, true, &error), ZINF_E_NUMERIC);
    EXPECT_NE(strstr(error.text, "minimum"), nullptr);
    EXPECT_EQ(scale.iteration, 0);
    EXPECT_EQ(scale.scale, 1);
}

} // namespace
