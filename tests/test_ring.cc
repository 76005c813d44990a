// The ring of buffers between memory and the drive: both ways to use it, with one buffer and with
// more buffers than items.
#include "zero/ring.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "temporary_folder.hh"

namespace
{

enum { ITEMS = 7, BYTES = 8192, MOMENT = 4096 };

// Items of two parts; the first 8 bytes of a part say what was written there last.
class Ring : public testing::TestWithParam<int>
{
  protected:
    void SetUp() override
    {
        std::vector<size_t> bytes(2 * 2 * ITEMS, 100); // extents: the items', then spare ones
        struct zinf_swap_options options = {};
        struct zinf_error error = {};
        options.folder = folder.path().c_str();
        options.extent_bytes = bytes.data();
        options.extent_count = static_cast<int>(bytes.size());
        options.checksums = true;
        ASSERT_EQ(0, zinf_swap_open(&swap, &options, &error)) << error.text;
        struct zinf_aio_options io = {};
        io.queue_depth = 4;
        io.block_bytes = 4096;
        io.threads = 1;
        ASSERT_EQ(0, zinf_aio_open(&aio, nullptr, &io));
        ASSERT_EQ(0, zinf_swap_attach(swap, &aio));
        for (int i = 0; i < ITEMS; i++) {
            struct zinf_ring_item item = {{2 * i, 2 * i + 1, -1, -1}, {true, true}, {true, true}};
            items.push_back(item);
        }
        ring.options.buffer_count = GetParam();
        ring.options.lookahead = GetParam() > 2 ? GetParam() - 2 : 0;
        ring.options.aio = &aio;
        ring.options.buffer_bytes = BYTES;
        ring.options.part_offset[1] = MOMENT;
        for (int part = 0; part < ZINF_RING_PARTS; part++)
            ring.options.swap[part] = swap;
        memory = static_cast<char *>(std::aligned_alloc(4096, size_t{BYTES} * GetParam()));
        std::memset(memory, 0, size_t{BYTES} * GetParam());
        ring.options.memory = memory;
    }
    void TearDown() override
    {
        zinf_ring_drain(&ring);
        zinf_aio_close(&aio);
        zinf_swap_close(swap);
        std::free(memory);
    }
    static int64_t &at(char *buffer, int part)
    {
        return *reinterpret_cast<int64_t *>(buffer + part * MOMENT);
    }
    TemporaryFolder folder;
    struct zinf_swap *swap = nullptr;
    struct zinf_aio aio = {};
    struct zinf_ring ring = {};
    std::vector<struct zinf_ring_item> items;
    char *memory = nullptr;
};

TEST_P(Ring, EveryItemOfASequenceComesBackAsItWasWritten)
{
    for (int64_t round = 0; round < 4; round++) {
        zinf_ring_begin(&ring, items.data(), nullptr, ITEMS);
        for (int64_t i = 0; i < ITEMS; i++) {
            char *buffer = zinf_ring_next(&ring);
            for (int part = 0; part < 2; part++) {
                EXPECT_EQ(at(buffer, part), round ? 100 * round + 10 * i + part : 0);
                at(buffer, part) = 100 * (round + 1) + 10 * i + part;
            }
            zinf_ring_release(&ring);
        }
    }
    EXPECT_EQ(ring.read_bytes, int64_t{4} * ITEMS * 2 * 4096);
    EXPECT_EQ(ring.write_bytes, ring.read_bytes);
}

TEST_P(Ring, ItemsAreUsedInTheOrderInWhichTheyWereAdded)
{
    const int order[] = {3, 0, 6, 1, 5, 2, 4};
    zinf_ring_begin(&ring, nullptr, nullptr, 0);
    EXPECT_EQ(zinf_ring_head(&ring), nullptr);
    EXPECT_EQ(zinf_ring_collect(&ring, true), nullptr);
    for (int64_t round = 0; round < 3; round++) {
        int added = 0, used = 0, stored = 0;
        while (stored < ITEMS) {
            while (added < ITEMS && zinf_ring_has_room(&ring))
                zinf_ring_add(&ring, &items[order[added++]]);
            EXPECT_LE(added - stored, GetParam()) << "more items under way than buffers";
            if (used < added) {
                EXPECT_EQ(zinf_ring_head(&ring), &items[order[used]]);
                int64_t &value = at(zinf_ring_next(&ring), 1);
                EXPECT_EQ(value, round ? 10 * round + order[used] : 0);
                value = 10 * (round + 1) + order[used++];
                zinf_ring_release(&ring);
            }
            const struct zinf_ring_item *item = zinf_ring_collect(&ring, used == added);
            if (item) {
                EXPECT_EQ(item, &items[order[stored]]);
                stored++;
            }
        }
        EXPECT_EQ(zinf_ring_collect(&ring, true), nullptr);
    }
}

TEST_P(Ring, WhatGoesElsewhereLeavesItsOwnExtentsAlone)
{
    struct zinf_ring_item elsewhere = items[2];
    elsewhere.extent[0] += 2 * ITEMS;
    elsewhere.extent[1] += 2 * ITEMS;
    zinf_ring_begin(&ring, nullptr, nullptr, 0);
    zinf_ring_add(&ring, &items[2]);
    at(zinf_ring_next(&ring), 0) = 1234;
    zinf_ring_release_to(&ring, &elsewhere);
    EXPECT_EQ(zinf_ring_collect(&ring, true), &items[2]);
    zinf_ring_add(&ring, &items[2]);
    EXPECT_EQ(at(zinf_ring_next(&ring), 0), 0);
    zinf_ring_release(&ring);
    zinf_ring_drain(&ring);
    zinf_ring_add(&ring, &elsewhere);
    EXPECT_EQ(at(zinf_ring_next(&ring), 0), 1234);
}

struct Gate {
    int open = 0; // items below it may be read
    int waits = 0;
};

bool may_be_read(void *context, int index, bool wait)
{
    Gate *gate = static_cast<Gate *>(context);
    if (wait && index >= gate->open) {
        gate->open = index + 1;
        gate->waits++;
    }
    return index < gate->open;
}

TEST_P(Ring, NothingIsReadBeforeItMayBe)
{
    Gate gate;
    ring.options.readable = may_be_read;
    ring.options.context = &gate;
    zinf_ring_begin(&ring, items.data(), nullptr, ITEMS);
    EXPECT_EQ(ring.started, 0) << "read, or waited, before somebody needs it";
    for (int i = 0; i < ITEMS; i++) {
        zinf_ring_next(&ring);
        EXPECT_EQ(ring.started, i + 1);
        zinf_ring_release(&ring);
    }
    EXPECT_EQ(gate.waits, ITEMS);
}

INSTANTIATE_TEST_SUITE_P(Buffers, Ring, testing::Values(1, 2, 3, 4, 9));

} // namespace
