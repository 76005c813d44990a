/*
 * Which way ranks exchange: the choice for machines that are only described.
 */
#include "device/link.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

namespace
{

using Ranks = std::vector<zinf_link_rank>;

/* `nodes` nodes with `per_node` GPUs, one for each rank, all of them visible. */
Ranks cluster(int nodes, int per_node)
{
    Ranks ranks;
    for (int i = 0; i < nodes * per_node; i++) {
        zinf_link_rank rank = {};
        snprintf(rank.backend, sizeof rank.backend, "cuda");
        snprintf(rank.library, sizeof rank.library, "NCCL 2.28.9");
        snprintf(rank.bus_id, sizeof rank.bus_id, "00000000:%02x:00.0", 16 + i % per_node);
        rank.node = 77 + static_cast<uint64_t>(i / per_node);
        rank.devices = per_node;
        rank.has_link = true;
        ranks.push_back(rank);
    }
    return ranks;
}

struct Outcome {
    int status;
    zinf_link_choice choice;
    std::string error;
};

Outcome decide(const Ranks &ranks, const char *wanted = "auto")
{
    Outcome out = {};
    zinf_error error = {};
    out.status =
        zinf_link_decide(ranks.data(), static_cast<int>(ranks.size()), wanted, &out.choice, &error);
    out.error = error.text;
    return out;
}

bool has(const std::string &text, const char *part)
{
    return text.find(part) != std::string::npos;
}

} // namespace

TEST(Link, IsDirectWhereEachRankHasAGpuToItself)
{
    for (const char *wanted : {"auto", "nccl", ""}) {
        Outcome out = decide(cluster(2, 4), wanted);
        EXPECT_EQ(0, out.status) << out.error;
        EXPECT_TRUE(out.choice.direct);
        EXPECT_STREQ("NCCL 2.28.9 between 8 GPUs, one for each rank", out.choice.text);
        EXPECT_STREQ("", out.choice.note);
    }
}

TEST(Link, TwoRanksOnOneGpuGoThroughTheHostAndAreNamed)
{
    Ranks ranks = cluster(2, 4);
    strcpy(ranks[6].bus_id, ranks[5].bus_id);
    Outcome out = decide(ranks);
    EXPECT_EQ(0, out.status);
    EXPECT_FALSE(out.choice.direct);
    EXPECT_TRUE(has(out.choice.text, "ranks 5 and 6 share the GPU 00000000:11:00.0"))
        << out.choice.text;
    ranks = cluster(1, 1);
    ranks.insert(ranks.end(), 3, ranks[0]);
    EXPECT_TRUE(has(decide(ranks).choice.text, "ranks 0 and 1 share"));
    ranks[1].library[0] = '\0'; /* who does not use the library need not have it */
    EXPECT_EQ(0, decide(ranks).status);
}

TEST(Link, ASharedGpuIsAnErrorWhereNcclIsAskedFor)
{
    Ranks ranks = cluster(1, 2);
    strcpy(ranks[1].bus_id, ranks[0].bus_id);
    Outcome out = decide(ranks, "nccl");
    EXPECT_EQ(ZINF_E_USAGE, out.status);
    EXPECT_TRUE(has(out.error, "ZINF_LINK=nccl, but ranks 0 and 1 share the GPU")) << out.error;
    EXPECT_TRUE(has(out.error, "without ZINF_LINK")) << out.error;
}

TEST(Link, TheHostCanBeAskedFor)
{
    Outcome out = decide(cluster(1, 2), "host");
    EXPECT_EQ(0, out.status);
    EXPECT_FALSE(out.choice.direct);
    EXPECT_TRUE(has(out.choice.text, "ZINF_LINK=host"));
    Outcome wrong = decide(cluster(1, 2), "mpi2");
    EXPECT_EQ(ZINF_E_USAGE, wrong.status);
    EXPECT_TRUE(has(wrong.error, "neither auto, host nor nccl"));
}

TEST(Link, OneRankAndCpuRanksNeedNoLibrary)
{
    EXPECT_FALSE(decide(cluster(1, 1)).choice.direct);
    EXPECT_TRUE(decide(cluster(1, 1), "nccl").choice.direct); /* to try the library on one GPU */
    Ranks ranks = cluster(1, 3);
    ranks[2] = {};
    strcpy(ranks[2].backend, "cpu");
    Outcome out = decide(ranks);
    EXPECT_EQ(0, out.status);
    EXPECT_FALSE(out.choice.direct);
    EXPECT_TRUE(has(out.choice.text, "rank 2 computes on cpu, which has no other way"))
        << out.choice.text;
    EXPECT_EQ(ZINF_E_USAGE, decide(ranks, "nccl").status);
}

TEST(Link, ALibraryThatIsMissingOnOneRankIsAnErrorThatSaysWhatToChange)
{
    Ranks ranks = cluster(2, 2);
    ranks[3].library[0] = '\0';
    strcpy(ranks[3].why, "no libnccl.so.2 anywhere; install NCCL");
    Outcome out = decide(ranks);
    EXPECT_EQ(ZINF_E_USAGE, out.status);
    EXPECT_TRUE(has(out.error, "rank 3 cannot exchange with other GPUs: no libnccl.so.2 anywhere"))
        << out.error;
    EXPECT_TRUE(has(out.error, "ZINF_LINK=host")) << out.error;
    EXPECT_EQ(0, decide(ranks, "host").status);
}

TEST(Link, VersionsThatDifferAreAnError)
{
    Ranks ranks = cluster(2, 2);
    strcpy(ranks[2].library, "NCCL 2.19.3");
    Outcome out = decide(ranks);
    EXPECT_EQ(ZINF_E_USAGE, out.status);
    EXPECT_TRUE(has(out.error, "rank 0 has NCCL 2.28.9, rank 2 has NCCL 2.19.3")) << out.error;
}

TEST(Link, GpusThatSlurmHasHiddenFromNeighboursAreNoted)
{
    Ranks ranks = cluster(2, 4);
    for (zinf_link_rank &rank : ranks)
        rank.devices = 1;
    Outcome out = decide(ranks);
    EXPECT_TRUE(out.choice.direct);
    EXPECT_TRUE(has(out.choice.note, "srun --gpu-bind=none")) << out.choice.note;
    ranks = cluster(4, 1); /* one GPU a node: there is nothing to hide */
    EXPECT_STREQ("", decide(ranks).choice.note);
}

TEST(Link, WhatAPlanCountsGrowsWithTheNeighboursAndNotWithTheNodes)
{
    const size_t channel = ZINF_LINK_CHANNELS * (static_cast<size_t>(10) << 20);
    EXPECT_EQ(zinf_link_planned_bytes(1, 1), 0u);
    EXPECT_EQ(zinf_link_planned_bytes(2, 2), 2 * channel);
    EXPECT_EQ(zinf_link_planned_bytes(8, 8), 8 * channel);
    EXPECT_EQ(zinf_link_planned_bytes(16, 8), 10 * channel);
    EXPECT_EQ(zinf_link_planned_bytes(512, 8), 10 * channel);
}
