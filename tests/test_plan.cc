// The plan of a step, replayed without carrying it out: every order in which two lanes may run must
// be right.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "zero/plan.h"

namespace
{

// A model as the plan sees it: embedding tiles, positions, layers, final norm, head tiles (tied:
// the embedding's).
struct Shape {
    int tiles, positions, layers, heads;
    bool tied;
};

class Model
{
  public:
    explicit Model(const Shape &shape)
    {
        auto add = [&](enum zinf_block_kind kind, int layer, int64_t count) {
            struct zinf_block block;
            std::memset(&block, 0, sizeof block);
            block.kind = kind;
            block.layer = layer;
            block.element_count = count;
            blocks.push_back(block);
        };
        std::memset(&model, 0, sizeof model);
        for (int i = 0; i < shape.tiles; i++)
            add(ZINF_BLOCK_EMBEDDING, -1, 9000 - 100 * i);
        for (int i = 0; i < shape.positions; i++)
            add(ZINF_BLOCK_POSITION, -1, 3000);
        model.first_layer_block = static_cast<int>(blocks.size());
        for (int i = 0; i < shape.layers; i++)
            add(ZINF_BLOCK_LAYER, i, 12345);
        model.final_norm_block = static_cast<int>(blocks.size());
        add(ZINF_BLOCK_FINAL_NORM, -1, 64);
        model.first_head_block = shape.tied ? 0 : static_cast<int>(blocks.size());
        model.head_block_count = shape.tied ? shape.tiles : shape.heads;
        for (int i = 0; !shape.tied && i < shape.heads; i++)
            add(ZINF_BLOCK_HEAD, -1, 8000);
        model.embedding_block_count = shape.tiles;
        model.position_block_count = shape.positions;
        model.layers = shape.layers;
        model.tied = shape.tied;
        model.blocks = blocks.data();
        model.block_count = static_cast<int>(blocks.size());
    }
    struct zinf_model model;
    std::vector<struct zinf_block> blocks;
};

class Plan
{
  public:
    Plan(const Model &model, int stage, int ranks, int micro, int64_t prefetch = 30000,
         bool training = true, enum zinf_dtype accumulation = ZINF_FP32)
    {
        struct zinf_plan_options o;
        std::memset(&o, 0, sizeof o);
        o.model = &model.model;
        o.ranks = ranks;
        o.sharding = zinf_sharding_of_stage(stage);
        o.micro_count = micro;
        o.training = training;
        o.accumulation_dtype = accumulation;
        o.prefetch_elements = prefetch;
        o.max_live_elements = 1000000000;
        o.max_reuse_elements = 1000000000;
        zinf_plan_build(&plan, &o);
    }
    ~Plan()
    {
        zinf_plan_release(&plan);
    }
    struct zinf_plan plan;
};

const Shape shapes[] = {
    {1, 1, 2, 0, true}, {6, 2, 5, 0, true}, {3, 0, 4, 3, false}, {1, 0, 1, 1, false}};

bool reads_weights(enum zinf_plan_kind kind)
{
    return kind <= ZINF_PLAN_LAYER_BACKWARD && kind != ZINF_PLAN_LOSS;
}

bool makes_gradient(enum zinf_plan_kind kind)
{
    return kind >= ZINF_PLAN_HEAD_BACKWARD && kind <= ZINF_PLAN_EMBEDDING_BACKWARD;
}

// Runs both lanes in a random legal order; a communication has a begin and an end, and anything may
// happen between.
class Replay
{
  public:
    Replay(const struct zinf_plan &p, unsigned seed)
        : plan(p), random(seed), window(8, -1), gradient(2, -1)
    {
    }

    void run()
    {
        while (done[0] < plan.count[0] || done[1] < plan.count[1]) {
            bool can[2];
            for (int lane = 0; lane < 2; lane++)
                can[lane] = done[lane] < plan.count[lane] &&
                            done[1 - lane] >= plan.operations[lane][done[lane]].wait_other;
            ASSERT_TRUE(can[0] || can[1]) << "deadlock";
            int lane = can[0] && can[1] ? static_cast<int>(random() % 2) : can[1];
            const struct zinf_plan_operation &o = plan.operations[lane][done[lane]];
            if (lane == 0)
                compute(o);
            else
                communicate(o);
            done[lane]++;
        }
    }

  private:
    void compute(const struct zinf_plan_operation &o)
    {
        if (reads_weights(o.kind) && plan.options.sharding.parameters) {
            ASSERT_GE(o.window, 0);
            EXPECT_EQ(window[o.window], o.block) << "operation " << done[0];
        }
        if (makes_gradient(o.kind) && o.gradient >= 0) {
            EXPECT_EQ(gradient[o.gradient], -1) << "a gradient is overwritten before it is reduced";
            gradient[o.gradient] = o.block;
        }
        if (o.kind == ZINF_PLAN_ACCUMULATE) {
            EXPECT_EQ(gradient[o.gradient], o.block);
            gradient[o.gradient] = -1;
        }
        if (o.kind == ZINF_PLAN_UPDATE) {
            EXPECT_TRUE(reduced.count(o.block)) << "updated before its gradient was whole";
            updated.insert(o.block);
        }
    }
    void communicate(const struct zinf_plan_operation &o)
    {
        if (o.kind == ZINF_PLAN_GATHER_WINDOW) {
            // All uses of the old content must be behind us: the next operation that names this
            // window must find the new block.
            window[o.window] = o.block;
        }
        if (o.kind == ZINF_PLAN_REDUCE) {
            if (o.gradient >= 0) {
                EXPECT_EQ(gradient[o.gradient], o.block);
                gradient[o.gradient] = -1;
            }
            EXPECT_FALSE(reduced.count(o.block));
            if (o.last)
                reduced.insert(o.block);
        }
        if (o.kind == ZINF_PLAN_AGREE && plan.options.training) {
            EXPECT_EQ(reduced.size(), static_cast<size_t>(plan.options.model->block_count));
        }
        if (o.kind == ZINF_PLAN_GATHER_WEIGHTS) {
            EXPECT_TRUE(updated.count(o.block));
        }
    }
    const struct zinf_plan &plan;
    std::mt19937 random;
    std::vector<int> window, gradient;
    std::set<int> reduced, updated;
    int64_t done[2] = {0, 0};
};

TEST(Plan, EveryLegalOrderFindsItsWeightsAndLosesNoGradient)
{
    for (const Shape &shape : shapes)
        for (int stage = 0; stage <= 3; stage++)
            for (int micro : {1, 3})
                for (int64_t prefetch : {0, 13000, 30000, 50000000})
                    for (auto accumulation : {ZINF_FP32, ZINF_BF16}) {
                        Model model(shape);
                        Plan p(model, stage, 4, micro, prefetch, true, accumulation);
                        for (unsigned seed = 0; seed < 8; seed++)
                            Replay(p.plan, seed).run();
                    }
}

TEST(Plan, EvaluationRunsForwardOnly)
{
    Model model(shapes[1]);
    Plan p(model, 3, 3, 1, 30000, false);
    Replay(p.plan, 1).run();
    for (int64_t i = 0; i < p.plan.count[ZINF_LANE_COMPUTE]; i++)
        EXPECT_LE(p.plan.operations[ZINF_LANE_COMPUTE][i].kind, ZINF_PLAN_LOSS);
    EXPECT_EQ(p.plan.operations[ZINF_LANE_COMM][p.plan.count[ZINF_LANE_COMM] - 1].kind,
              ZINF_PLAN_AGREE);
}

TEST(Plan, EveryBlockIsReducedAndUpdatedOnceAStep)
{
    for (const Shape &shape : shapes)
        for (int stage = 0; stage <= 3; stage++) {
            Model model(shape);
            Plan p(model, stage, 2, 2);
            std::multiset<int> first, last, updates;
            for (int lane = 0; lane < ZINF_LANE_COUNT; lane++)
                for (int64_t i = 0; i < p.plan.count[lane]; i++) {
                    const struct zinf_plan_operation &o = p.plan.operations[lane][i];
                    if (makes_gradient(o.kind) && o.first)
                        first.insert(o.block);
                    if (o.kind == ZINF_PLAN_REDUCE && o.last)
                        last.insert(o.block);
                    if (o.kind == ZINF_PLAN_UPDATE)
                        updates.insert(o.block);
                }
            for (int b = 0; b < model.model.block_count; b++) {
                EXPECT_EQ(first.count(b), 1u);
                EXPECT_EQ(last.count(b), 1u);
                EXPECT_EQ(updates.count(b), 1u);
            }
        }
}

// Bytes a rank sends, from the formulas of ZeRO (arXiv:1910.02054, section 7) with the listed
// differences: padding, the small agreements, tied tables by their uses, and what stays in a
// window.
TEST(Plan, SendsWhatTheFormulasSay)
{
    const int ranks = 4, micro = 3;
    Model model({2, 1, 6, 2, false});
    const int64_t scalars = (ranks - 1) * (ZINF_AGREE_COUNT + ZINF_REPORT_COUNT) * 8;
    int64_t n = 0;
    for (int stage = 0; stage <= 2; stage++) {
        Plan p(model, stage, ranks, micro);
        n = 0;
        for (int b = 0; b < model.model.block_count; b++)
            n += zinf_plan_padded_count(&p.plan, b);
        int64_t once = 4 * n / ranks * (ranks - 1);
        EXPECT_EQ(p.plan.comm_bytes, (stage == 2 ? micro + 1 : 2) * once + scalars);
    }
    Plan all(model, 3, ranks, micro,
             0); // one window: nothing stays but what is used twice in a row
    int64_t tables = 0, norm = 0, last = 0, heads = 0;
    for (int b = 0; b < model.model.block_count; b++) {
        int64_t padded = zinf_plan_padded_count(&all.plan, b);
        switch (model.blocks[b].kind) {
        case ZINF_BLOCK_EMBEDDING:
        case ZINF_BLOCK_POSITION:
            tables += padded; // not needed by their backward pass
            break;
        case ZINF_BLOCK_HEAD:
            heads += 2 * padded;
            last = padded; // its second use follows at once
            break;
        case ZINF_BLOCK_FINAL_NORM:
            norm += 2 * padded;
            break;
        default:
            norm += 2 * padded;
        }
    }
    int64_t expected = micro * (n + tables + norm + heads - last);
    EXPECT_EQ(all.plan.window_count, 1);
    EXPECT_EQ(all.plan.comm_bytes, 4 * expected / ranks * (ranks - 1) + scalars);
    Plan ahead(model, 3, ranks, micro);
    EXPECT_LT(ahead.plan.comm_bytes, all.plan.comm_bytes) << "windows that are kept save gathers";
}

TEST(Plan, FetchesTheSecondBlockWhileTheFirstComputes)
{
    Model model(shapes[1]);
    Plan p(model, 3, 2, 1, 50000000);
    EXPECT_GT(p.plan.window_count, 2);
    int64_t ready_at_start = 0;
    for (int64_t i = 0; i < p.plan.count[ZINF_LANE_COMM]; i++)
        ready_at_start += p.plan.operations[ZINF_LANE_COMM][i].wait_other == 0;
    EXPECT_EQ(ready_at_start, p.plan.window_count);
}

TEST(Plan, PrefetchBucketZeroFetchesWhenNeeded)
{
    Model model(shapes[0]);
    Plan p(model, 3, 2, 1, 0);
    for (int64_t i = 0; i < p.plan.count[ZINF_LANE_COMPUTE]; i++) {
        const struct zinf_plan_operation &o = p.plan.operations[ZINF_LANE_COMPUTE][i];
        for (int64_t c = 0; c < p.plan.count[ZINF_LANE_COMM]; c++) {
            const struct zinf_plan_operation &g = p.plan.operations[ZINF_LANE_COMM][c];
            if (g.kind == ZINF_PLAN_GATHER_WINDOW && o.wait_other == c + 1 &&
                reads_weights(o.kind)) {
                EXPECT_EQ(g.wait_other, i);
            }
        }
    }
}

class LanePlan
{
  public:
    LanePlan(const Model &model, int stage, bool early)
    {
        struct zinf_plan_options o;
        std::memset(&o, 0, sizeof o);
        o.model = &model.model;
        o.ranks = 3;
        o.sharding = zinf_sharding_of_stage(stage);
        o.micro_count = 2;
        o.training = true;
        o.accumulation_dtype = ZINF_FP32;
        o.prefetch_elements = 30000;
        o.max_live_elements = o.max_reuse_elements = 1000000000;
        o.update_lane = true;
        o.early_updates = early;
        zinf_plan_build(&plan, &o);
    }
    ~LanePlan()
    {
        zinf_plan_release(&plan);
    }
    struct zinf_plan plan;
};

TEST(Plan, TheUpdateLaneTakesEveryBlockOnceInTheOrderOfItsGradients)
{
    for (const Shape &shape : shapes)
        for (int stage = 1; stage <= 3; stage++)
            for (bool early : {false, true}) {
                Model model(shape);
                LanePlan p(model, stage, early);
                const struct zinf_plan_operation *comm = p.plan.operations[ZINF_LANE_COMM];
                std::set<int> blocks;
                int64_t before = 0;
                for (int64_t i = 0; i < p.plan.count[ZINF_LANE_UPDATE]; i++) {
                    const struct zinf_plan_operation &o = p.plan.operations[ZINF_LANE_UPDATE][i];
                    const struct zinf_plan_operation &wait = comm[o.wait_other - 1];
                    EXPECT_TRUE(blocks.insert(o.block).second);
                    EXPECT_GE(o.wait_other, before);
                    before = o.wait_other;
                    if (early) {
                        EXPECT_TRUE(wait.kind == ZINF_PLAN_REDUCE && wait.last &&
                                    wait.block == o.block);
                    } else {
                        EXPECT_EQ(wait.kind, ZINF_PLAN_AGREE);
                        EXPECT_EQ(o.block, i) << "not in the order of the forward pass";
                    }
                }
                EXPECT_EQ(blocks.size(), static_cast<size_t>(model.model.block_count));
            }
}

TEST(Plan, WithAnUpdateLaneResidentWeightsAreGatheredBeforeTheirFirstUse)
{
    for (const Shape &shape : shapes)
        for (int stage = 1; stage <= 2; stage++) {
            Model model(shape);
            LanePlan p(model, stage, true);
            std::set<int> used, gathered;
            const struct zinf_plan_operation *comm = p.plan.operations[ZINF_LANE_COMM];
            for (int64_t i = 0; i < p.plan.count[ZINF_LANE_COMPUTE]; i++) {
                const struct zinf_plan_operation &o = p.plan.operations[ZINF_LANE_COMPUTE][i];
                EXPECT_EQ(o.kind == ZINF_PLAN_UPDATE, i + 1 == p.plan.count[ZINF_LANE_COMPUTE]);
                if (!reads_weights(o.kind) || !used.insert(o.block).second)
                    continue;
                for (int64_t c = 0; c < o.wait_other; c++)
                    if (comm[c].kind == ZINF_PLAN_GATHER_WEIGHTS)
                        gathered.insert(comm[c].block);
                EXPECT_TRUE(gathered.count(o.block)) << "block " << o.block;
            }
        }
}

TEST(Plan, IsTheSameForEqualOptionsAndAnotherForOthers)
{
    Model model(shapes[1]);
    Plan a(model, 3, 4, 2), b(model, 3, 4, 2), c(model, 3, 5, 2), d(model, 2, 4, 2);
    EXPECT_EQ(a.plan.checksum, b.plan.checksum);
    EXPECT_NE(a.plan.checksum, c.plan.checksum);
    EXPECT_NE(a.plan.checksum, d.plan.checksum);
}

TEST(Plan, DescribesEveryOperation)
{
    Model model(shapes[2]);
    Plan p(model, 3, 2, 1);
    char text[128];
    for (int lane = 0; lane < ZINF_LANE_COUNT; lane++)
        for (int64_t i = 0; i <= p.plan.count[lane]; i++) {
            zinf_plan_describe(&p.plan, static_cast<enum zinf_lane>(lane), i, text, sizeof text);
            EXPECT_GT(std::strlen(text), 3u);
        }
    zinf_plan_describe(&p.plan, ZINF_LANE_COMPUTE, 3, text, sizeof text);
    EXPECT_STREQ(text, "forward layer 0");
}

} // namespace
