// What is recorded and launched in a step, and what decides it: over a device of this file, whose
// recordings are counted, with operations that write down what reached them.
#include "train/graphs.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "device/calls.h"

namespace
{

std::vector<float> reached; // the factors of zinf_scale, in the order of the stream
std::vector<float> *into = &reached;
int recorded, launched, released;
bool refuse;

void scale(const struct zinf_scale *op, void *)
{
    into->push_back(op->factor);
}

void *record(struct zinf_device *, void (*issue)(void *context), void *context, size_t *bytes,
             struct zinf_error *error)
{
    if (refuse) {
        zinf_error_set(error, ZINF_E_RUNTIME, "somebody waited");
        return nullptr;
    }
    auto *own = new std::vector<float>;
    into = own;
    issue(context);
    into = &reached;
    *bytes = 1000;
    recorded++;
    return own;
}

void launch(struct zinf_device *, void *recording)
{
    auto *own = static_cast<std::vector<float> *>(recording);
    reached.insert(reached.end(), own->begin(), own->end());
    launched++;
}

void release(struct zinf_device *, void *recording)
{
    delete static_cast<std::vector<float> *>(recording);
    released++;
}

// Steps of a plan with some operations; a pass calls scale() five times, with one factor.
class Graphs : public testing::Test
{
  protected:
    struct zinf_device_recorder recorder = {record, launch, release};
    struct zinf_device_backend backend;
    struct zinf_device device;
    struct zinf_ops inner;
    struct zinf_model model;
    struct zinf_block blocks[2];
    struct zinf_plan plan;
    const struct zinf_ops *ops;
    struct zinf_graphs *graphs = nullptr;
    struct zinf_graphs_options options;
    char data[8] = {};

    Graphs()
    {
        std::memset(&backend, 0, sizeof backend);
        std::memset(&device, 0, sizeof device);
        std::memset(&inner, 0, sizeof inner);
        std::memset(&model, 0, sizeof model);
        std::memset(blocks, 0, sizeof blocks);
        std::memset(&plan, 0, sizeof plan);
        std::memset(&options, 0, sizeof options);
        backend.recorder = &recorder, device.backend = &backend;
        inner.scale = scale, ops = zinf_calls_operations(&inner);
        model.blocks = blocks, model.block_count = 2, model.layers = 1, model.head_block_count = 1;
        blocks[0].kind = ZINF_BLOCK_LAYER, blocks[0].element_count = 64;
        blocks[1].kind = ZINF_BLOCK_HEAD, blocks[1].element_count = 64;
        model.first_head_block = 1, model.final_norm_block = 1;
        plan.options.model = &model, plan.count[ZINF_LANE_COMPUTE] = 4;
        operations.resize(4);
        plan.operations[ZINF_LANE_COMPUTE] = operations.data();
        options.device = &device, options.plan = &plan, options.device_bytes = 1 << 20;
        reached.clear();
        recorded = launched = released = 0, refuse = false;
    }
    ~Graphs() override
    {
        zinf_graphs_free(graphs);
    }
    void open(enum zinf_graphs_use use)
    {
        options.use = use;
        graphs = zinf_graphs_new(&options);
    }
    void pass(int64_t index, float factor, int calls = 5, const void *x = nullptr)
    {
        const struct zinf_scale op = {ZINF_FP32, 1, factor};
        zinf_graphs_begin(graphs, index);
        for (int i = 0; i < calls; i++)
            ops->scale(&op, x ? const_cast<void *>(x) : data);
        zinf_graphs_end(graphs);
    }
    void ended(double device_s)
    {
        zinf_graphs_hear(graphs, 0, zinf_graphs_word(graphs));
        zinf_graphs_step_ended(graphs, device_s);
    }
    std::string text()
    {
        char *said = zinf_graphs_text(graphs);
        std::string copy = said;
        free(said);
        return copy;
    }
    std::vector<struct zinf_plan_operation> operations;
};

TEST_F(Graphs, TheThirdEqualPassIsLaunched)
{
    open(ZINF_GRAPHS_ON);
    for (int step = 0; step < 4; step++) {
        pass(0, 2);
        ended(1);
        EXPECT_EQ(step >= 1 ? 1 : 0, recorded) << step; // between the steps
        EXPECT_EQ(step >= 2 ? step - 1 : 0, launched) << step;
    }
    EXPECT_EQ(std::vector<float>(20, 2), reached);
    EXPECT_EQ(0u, text().find("on: 1 of 1 passes")) << text();
}

TEST_F(Graphs, EveryChangedArgumentIsSeen)
{
    open(ZINF_GRAPHS_ON);
    for (int step = 0; step < 3; step++)
        pass(0, 2), ended(1);
    EXPECT_EQ(1, launched);
    reached.clear();
    pass(0, 3);              // a value in the struct
    pass(0, 2, 5, data + 1); // a pointer beside it
    EXPECT_EQ(1, launched);
    EXPECT_EQ((std::vector<float>{3, 3, 3, 3, 3, 2, 2, 2, 2, 2}), reached);
    pass(0, 2); // what is remembered is found again
    EXPECT_EQ(2, launched);
    pass(0, 2, 6); // one call more
    EXPECT_EQ(2, launched);
    EXPECT_EQ(21u, reached.size());
}

TEST_F(Graphs, OneRecordingServesAllPassesThatAreAlike)
{
    open(ZINF_GRAPHS_ON);
    for (int step = 0; step < 4; step++)
        pass(0, 2), pass(1, 2), pass(2, 4), ended(1);
    EXPECT_EQ(2, recorded);
    EXPECT_EQ(6, launched);
}

TEST_F(Graphs, WhatChangesWithEveryStepIsLeftAlone)
{
    open(ZINF_GRAPHS_ON);
    for (int step = 0; step < 6; step++)
        pass(0, (float)step), ended(1);
    pass(0, 5), pass(0, 5), ended(1), pass(0, 5);
    EXPECT_EQ(0, recorded);
    EXPECT_EQ(45u, reached.size());
}

TEST_F(Graphs, ShortPassesAndThoseWithoutEndAreIssued)
{
    open(ZINF_GRAPHS_ON);
    for (int step = 0; step < 4; step++)
        pass(0, 1, 3), pass(1, 2, 5000), ended(1);
    EXPECT_EQ(0, recorded);
    EXPECT_EQ(4 * 5003u, reached.size());
    EXPECT_EQ(2, reached[3]); // in order
}

TEST_F(Graphs, RecordingsStayInTheirMemory)
{
    options.device_bytes = 2500;
    open(ZINF_GRAPHS_ON);
    for (int step = 0; step < 3; step++)
        pass(0, 1), pass(1, 2), pass(2, 3), ended(1);
    EXPECT_EQ(2, recorded);
    EXPECT_EQ(2, launched);
    EXPECT_EQ(45u, reached.size());
}

TEST_F(Graphs, AFailedRecordingEndsThemAndNotTheRun)
{
    open(ZINF_GRAPHS_ON);
    pass(0, 1), ended(1), pass(0, 1);
    refuse = true;
    ended(1);
    refuse = false;
    for (int step = 0; step < 4; step++)
        pass(0, 1), ended(1);
    EXPECT_EQ(0, recorded);
    EXPECT_EQ(30u, reached.size());
    EXPECT_GT(0, zinf_graphs_word(graphs)); // the others are told
    EXPECT_NE(std::string::npos, text().find("could not be recorded: somebody waited")) << text();
}

// plain_s, recorded_s: what the device says a step takes. @return launches in 20 steps
int measured(const std::function<void()> &pass, const std::function<void(double)> &ended,
             double plain_s, double recorded_s)
{
    for (int step = 0; step < 20; step++) {
        int before = launched;
        pass();
        ended(launched > before ? recorded_s : plain_s);
    }
    return launched;
}

TEST_F(Graphs, WhereTheHostIsFastNothingIsRecorded)
{
    open(ZINF_GRAPHS_AUTO);
    EXPECT_EQ(0, measured([&] { pass(0, 1); }, [&](double s) { ended(s); }, 1000, 1));
    EXPECT_EQ(0, recorded);
    EXPECT_NE(std::string::npos, text().find("of the device's time")) << text();
}

TEST_F(Graphs, WhereItPaysItStays)
{
    open(ZINF_GRAPHS_AUTO);
    EXPECT_EQ(14, measured([&] { pass(0, 1); }, [&](double s) { ended(s); }, 1e-9, 0.9e-9));
    EXPECT_EQ(0, released);
    EXPECT_EQ(0u, text().find("on: ")) << text();
}

TEST_F(Graphs, WhereItDoesNotPayItEnds)
{
    open(ZINF_GRAPHS_AUTO);
    EXPECT_EQ(5, measured([&] { pass(0, 1); }, [&](double s) { ended(s); }, 1e-9, 1e-9));
    EXPECT_EQ(1, released);
    EXPECT_EQ(100u, reached.size());
    EXPECT_NE(std::string::npos, text().find("with them")) << text();
}

TEST_F(Graphs, OtherRanksFollowTheFirst)
{
    options.rank = 1;
    open(ZINF_GRAPHS_AUTO);
    for (int step = 0; step < 8; step++) {
        pass(0, 1);
        zinf_graphs_hear(graphs, 0, step >= 4 ? 1 : 0); // it tries
        zinf_graphs_step_ended(graphs, 1e-9);
    }
    EXPECT_EQ(3, launched);
    zinf_graphs_hear(graphs, 0, 3); // and gives up
    zinf_graphs_step_ended(graphs, 1e-9);
    pass(0, 1);
    EXPECT_EQ(3, launched);
    EXPECT_EQ(1, released);
}

} // namespace
