// What stays in host memory, worked out on counting pools: budgets are kept, what is resident has
// no extent and no traffic, and the records that the next forward pass uses first come first.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "zero/zero.h"

namespace
{

// Two embedding tiles, four layers, a norm, an own head: sharded over two ranks.
class Layout
{
  public:
    Layout(enum zinf_dtype dtype, enum zinf_tier optimizer, enum zinf_tier parameters,
           size_t cache_bytes, int64_t max_in_cpu, int64_t record_elements = 4096)
    {
        std::memset(&model, 0, sizeof model);
        std::memset(&comm, 0, sizeof comm);
        std::memset(&zero, 0, sizeof zero);
        std::memset(&options, 0, sizeof options);
        for (int64_t count : {9000, 7000, 30000, 30000, 30000, 30000, 128, 16000}) {
            struct zinf_block block;
            std::memset(&block, 0, sizeof block);
            block.element_count = count;
            blocks.push_back(block);
        }
        model.blocks = blocks.data();
        model.block_count = static_cast<int>(blocks.size());
        model.embedding_block_count = 2;
        model.first_layer_block = 2;
        model.layers = 4;
        model.final_norm_block = 6;
        model.first_head_block = 7;
        model.head_block_count = 1;
        comm.size = comm.local_size = 2;
        struct zinf_plan_options step;
        std::memset(&step, 0, sizeof step);
        step.model = &model;
        step.ranks = 2;
        step.sharding = zinf_sharding_of_stage(3);
        step.micro_count = 1;
        step.training = true;
        step.dtype = dtype;
        step.accumulation_dtype = step.wire_dtype = ZINF_FP32;
        step.prefetch_elements = 50000;
        step.max_live_elements = 1000000000;
        step.max_reuse_elements = 1000000000;
        zinf_plan_build(&plan, &step);
        options.model = &model;
        options.comm = &comm;
        options.sharding = step.sharding;
        options.dtype = dtype;
        options.accumulation_dtype = options.wire_dtype = ZINF_FP32;
        options.training = true;
        options.moment_count = 2;
        options.offload.optimizer = optimizer;
        options.offload.parameters = parameters;
        options.offload.optimizer_path = options.offload.parameter_path = "drive";
        options.offload.optimizer_buffers = options.offload.parameter_buffers = 4;
        options.offload.record_elements = record_elements;
        options.offload.cache_bytes = cache_bytes;
        options.offload.resident_parameters = max_in_cpu;
        lay_out();
    }
    ~Layout()
    {
        zinf_zero_close(&zero);
        zinf_plan_release(&plan);
    }
    Layout(const Layout &) = delete;
    Layout &operator=(const Layout &) = delete;

    void lay_out()
    {
        struct zinf_pool device, host;
        std::memset(&device, 0, sizeof device);
        std::memset(&host, 0, sizeof host);
        zinf_zero_layout(&zero, &options, &plan, &device, &host);
        host_bytes = host.used_bytes;
        zinf_zero_nvme_traffic(&zero, &plan, &read_bytes, &write_bytes);
    }
    // Parts of all records, in the order of records, that may stream: resident or not.
    std::vector<bool> resident(int part) const
    {
        std::vector<bool> flags;
        for (int r = 0; r < zero.record_count; r++)
            flags.push_back(zero.records[r].resident[part]);
        return flags;
    }
    size_t count(int part) const
    {
        size_t resident_count = 0;
        for (bool flag : resident(part))
            resident_count += flag;
        return resident_count;
    }

    struct zinf_model model;
    std::vector<struct zinf_block> blocks;
    struct zinf_comm comm;
    struct zinf_plan plan;
    struct zinf_zero_options options;
    struct zinf_zero zero;
    size_t host_bytes;
    int64_t read_bytes, write_bytes;
};

const enum zinf_tier NVME = ZINF_TIER_NVME, DEVICE = ZINF_TIER_DEVICE;

TEST(Residency, WithoutBudgetsNothingStays)
{
    Layout none(ZINF_BF16, NVME, NVME, 0, 0);
    struct zinf_resident_run *runs;
    EXPECT_EQ(none.zero.bytes.cache, 0u);
    EXPECT_EQ(zinf_zero_resident_runs(&none.zero, &runs), 0);
    EXPECT_EQ(runs, nullptr);
    EXPECT_EQ(none.zero.update_length, none.zero.record_count);
}

TEST(Residency, ABudgetIsKeptAndSparesExactlyItsPart)
{
    Layout none(ZINF_BF16, NVME, DEVICE, 0, 0);
    size_t all = none.zero.bytes.nvme;
    for (size_t budget = 0; budget < all + 100000; budget += 12345) {
        Layout some(ZINF_BF16, NVME, DEVICE, budget, 0);
        double fraction = zinf_zero_cached_fraction(&some.zero);
        EXPECT_LE(some.zero.bytes.cache, budget);
        EXPECT_EQ(some.zero.bytes.cache + some.zero.bytes.nvme, all);
        EXPECT_EQ(some.read_bytes, static_cast<int64_t>(some.zero.bytes.nvme));
        EXPECT_EQ(some.write_bytes, static_cast<int64_t>(some.zero.bytes.nvme));
        EXPECT_NEAR(fraction, static_cast<double>(some.zero.bytes.cache) / static_cast<double>(all),
                    1e-12);
        EXPECT_LE(some.zero.bytes.rings, none.zero.bytes.rings);
        EXPECT_LE(some.host_bytes, none.host_bytes + budget + 8192); /* what "auto" relies on */
        /* Not a part more would have fitted. */
        for (int r = 0; r < some.zero.record_count; r++)
            for (int part = 0; part < 3; part++)
                EXPECT_TRUE(some.zero.records[r].resident[part] ||
                            some.zero.bytes.cache + zinf_zero_part_bytes(&some.zero, r, part) >
                                budget);
    }
}

TEST(Residency, AllOfItLeavesNoRingAndNoFile)
{
    Layout all(ZINF_BF16, NVME, NVME, SIZE_MAX, INT64_MAX);
    EXPECT_EQ(all.zero.update_length, 0);
    EXPECT_EQ(all.zero.bytes.rings, 0u);
    EXPECT_EQ(all.zero.bytes.nvme, 0u);
    EXPECT_EQ(all.read_bytes + all.write_bytes, 0);
    EXPECT_EQ(zinf_zero_cached_fraction(&all.zero), 1);
}

TEST(Residency, WhatTheForwardPassUsesFirstComesFirst)
{
    Layout some(ZINF_BF16, NVME, NVME, 300000, 20000);
    for (int part : {ZINF_PART_MASTER, ZINF_PART_LOW}) {
        size_t first = some.count(part);
        ASSERT_GT(first, 0u);
        ASSERT_LT(first, static_cast<size_t>(some.zero.record_count));
        for (size_t r = 0; r + 1 < first; r++)
            EXPECT_TRUE(some.resident(part)[r]) << "record " << r << ", part " << part;
    }
    struct zinf_resident_run *runs;
    int count = zinf_zero_resident_runs(&some.zero, &runs);
    size_t bytes = 0;
    ASSERT_GT(count, 0);
    EXPECT_EQ(runs[0].first, 0);
    for (int i = 0; i < count; i++) {
        bytes += runs[i].bytes;
        EXPECT_LE(runs[i].first, runs[i].last);
        EXPECT_TRUE(i == 0 || runs[i].first > runs[i - 1].last);
    }
    EXPECT_EQ(bytes, some.zero.bytes.cache);
    std::free(runs);
}

TEST(Residency, TheTwoBudgetsDoNotMix)
{
    Layout parameters(ZINF_BF16, NVME, NVME, 0, 20000), optimizer(ZINF_BF16, NVME, NVME, 300000, 0);
    EXPECT_EQ(parameters.count(ZINF_PART_MASTER) + parameters.count(ZINF_PART_MOMENT1), 0u);
    EXPECT_EQ(optimizer.count(ZINF_PART_LOW), 0u);
    EXPECT_EQ(zinf_zero_cached_fraction(&parameters.zero), 0);
    int64_t elements = 0;
    for (int r = 0; r < parameters.zero.record_count; r++)
        elements += parameters.zero.records[r].resident[ZINF_PART_LOW]
                        ? parameters.zero.records[r].count
                        : 0;
    EXPECT_LE(elements, 20000);
    EXPECT_GT(elements, 20000 - 4096);
    /* Parameters that stay are neither fetched nor written back. */
    Layout none(ZINF_BF16, NVME, NVME, 0, 0);
    EXPECT_LE(parameters.read_bytes, none.read_bytes - 2 * elements);
    EXPECT_EQ(parameters.write_bytes,
              none.write_bytes - static_cast<int64_t>(parameters.zero.bytes.cache));
}

TEST(Residency, InFp32MaxInCpuKeepsMastersAndTheCacheTheRest)
{
    Layout masters(ZINF_FP32, NVME, NVME, 0, INT64_MAX);
    EXPECT_EQ(masters.count(ZINF_PART_MASTER), static_cast<size_t>(masters.zero.record_count));
    EXPECT_EQ(masters.count(ZINF_PART_MOMENT1) + masters.count(ZINF_PART_MOMENT2), 0u);
    EXPECT_EQ(masters.zero.fetch_ring.options.buffer_bytes, 0u); /* nothing to fetch */
    Layout both(ZINF_FP32, NVME, NVME, SIZE_MAX, 0);
    EXPECT_EQ(both.zero.update_length, 0) << "the cache takes masters too: they are in the record";
    Layout alone(ZINF_FP32, DEVICE, NVME, SIZE_MAX, 0);
    EXPECT_EQ(alone.zero.bytes.cache, 0u) << "no optimizer's record is on the drive";
}

TEST(Residency, EveryPartThatTravelsHasOneExtentAndNoOther)
{
    Layout some(ZINF_BF16, NVME, NVME, 300000, 20000);
    std::set<int> extents;
    int parts = 0;
    for (int r = 0; r < some.zero.record_count; r++)
        for (int part = 0; part < ZINF_RING_PARTS; part++) {
            int extent = some.zero.update_items[r].extent[part];
            EXPECT_EQ(extent < 0, some.zero.records[r].resident[part]);
            if (extent < 0)
                continue;
            parts++;
            extents.insert(extent);
        }
    EXPECT_EQ(extents.size(), static_cast<size_t>(parts));
    EXPECT_EQ(*extents.begin(), 0);
    EXPECT_EQ(*extents.rbegin(), parts - 1);
    EXPECT_EQ(some.zero.swap_bytes[0] + some.zero.swap_bytes[1], some.zero.bytes.nvme);
}

TEST(Residency, ANewRecordSizeIsCutAnew)
{
    Layout layout(ZINF_BF16, NVME, NVME, 0, 0, 4096);
    int records = layout.zero.record_count;
    size_t rings = layout.zero.bytes.rings;
    layout.options.offload.record_elements = 1024;
    layout.lay_out();
    EXPECT_GT(layout.zero.record_count, records);
    EXPECT_LT(layout.zero.bytes.rings, rings);
    int64_t elements = 0;
    for (int r = 0; r < layout.zero.record_count; r++)
        elements += layout.zero.records[r].count;
    Layout fresh(ZINF_BF16, NVME, NVME, 0, 0, 1024);
    EXPECT_EQ(layout.zero.bytes.nvme, fresh.zero.bytes.nvme);
    EXPECT_EQ(layout.read_bytes, fresh.read_bytes);
    int64_t owned = 0;
    for (int b = 0; b < layout.model.block_count; b++)
        owned += zinf_zero_owned(&layout.zero, b).end - zinf_zero_owned(&layout.zero, b).begin;
    EXPECT_EQ(elements, owned);
}

} // namespace
