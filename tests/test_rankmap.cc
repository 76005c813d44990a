/*
 * Which rank gets which cores, on machines that hwloc makes up, and which drive.
 */
#include "topology/rankmap.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <pthread.h>
#include <sched.h>

/* A node of packages x NUMA nodes x cores x threads. CPUs are numbered as Linux does on most
 * servers: all first threads, then all second ones. */
struct Node {
    zinf_topology topology = {};
    Node(int packages, int numas, int cores, int threads)
    {
        int total = packages * numas * cores;
        for (auto &cpu : topology.cpu)
            cpu.core = -1;
        for (int thread = 0; thread < threads; thread++)
            for (int core = 0; core < total; core++)
                topology.cpu[thread * total + core] = {int16_t(core / (numas * cores)),
                                                       int16_t(core / cores), int16_t(core)};
        topology.package_count = packages;
        topology.numa_count = packages * numas;
        topology.core_count = total;
        topology.cpu_count = total * threads;
    }
};

/* What is asked, and what comes of it. */
struct Job {
    const Node &node;
    std::vector<zinf_rankmap_rank> ranks;
    zinf_rankmap_request request = {ZINF_BIND_AUTO, 0, -1, nullptr, 0};
    std::vector<zinf_binding> places;
    zinf_error error = {};

    Job(const Node &n, int count, int threads) : node(n)
    {
        std::string all = "0-" + std::to_string(node.topology.cpu_count - 1);
        for (int i = 0; i < count; i++)
            rank(all.c_str(), false, threads);
    }
    void rank(const char *cpus, bool restricted, int threads)
    {
        zinf_rankmap_rank one = {};
        zinf_cpus_parse(cpus, one.cpus);
        one.restricted = restricted;
        one.threads = threads;
        ranks.push_back(one);
    }
    int place()
    {
        request.ranks = ranks.data();
        request.rank_count = int(ranks.size());
        places.assign(ranks.size(), zinf_binding());
        return zinf_rankmap_place(&node.topology, &request, places.data(), &error);
    }
    std::string cpus(int rank)
    {
        char *text = zinf_cpus_print(places[rank].cpus);
        std::string copy = text;
        free(text);
        return copy;
    }
    bool all(enum zinf_binding_kind kind)
    {
        return std::all_of(places.begin(), places.end(),
                           [&](const zinf_binding &place) { return place.kind == kind; });
    }
};

TEST(Bind, TwoCoresTwoRanks)
{
    Node node(1, 1, 2, 1);
    Job job(node, 2, 1);
    ASSERT_EQ(0, job.place());
    EXPECT_TRUE(job.all(ZINF_BINDING_BOUND));
    EXPECT_EQ("0", job.cpus(0));
    EXPECT_EQ("1", job.cpus(1));
    EXPECT_EQ(0, job.places[1].numa);
}

TEST(Bind, AutoBindsNobodyWhenRanksDoNotFitAndSaysWhy)
{
    Node node(1, 1, 2, 1);
    Job job(node, 4, 1);
    ASSERT_EQ(0, job.place());
    EXPECT_TRUE(job.all(ZINF_BINDING_FREE));
    EXPECT_EQ("0-1", job.cpus(3));
    EXPECT_STREQ("4 ranks x 1 threads on this node need 4 cores, 2 are free", job.places[0].why);
}

TEST(Bind, CoreAndNumaAreErrorsWhenRanksDoNotFit)
{
    Node node(1, 1, 2, 1);
    for (zinf_bind bind : {ZINF_BIND_CORE, ZINF_BIND_NUMA}) {
        Job job(node, 4, 1);
        job.request.bind = bind;
        EXPECT_EQ(ZINF_E_USAGE, job.place());
        EXPECT_NE(nullptr, strstr(job.error.text, "need 4 cores, 2 are free"));
        EXPECT_NE(nullptr, strstr(job.error.text, zinf_bind_name(bind)));
    }
}

TEST(Bind, NoneLeavesEverybody)
{
    Node node(1, 1, 8, 1);
    Job job(node, 2, 1);
    job.rank("3", true, 1);
    job.request.bind = ZINF_BIND_NONE;
    ASSERT_EQ(0, job.place());
    EXPECT_EQ(ZINF_BINDING_FREE, job.places[0].kind);
    EXPECT_EQ("0-7", job.cpus(1));
    EXPECT_EQ(ZINF_BINDING_LEFT, job.places[2].kind);
    EXPECT_EQ("3", job.cpus(2));
    EXPECT_STREQ("", job.places[0].why);
}

TEST(Bind, TwoSocketsShareTheRanksEvenlyInTheirOrder)
{
    Node node(2, 1, 64, 1);
    Job job(node, 4, 16);
    ASSERT_EQ(0, job.place());
    EXPECT_EQ("0-15", job.cpus(0));
    EXPECT_EQ("16-31", job.cpus(1));
    EXPECT_EQ("64-79", job.cpus(2));
    EXPECT_EQ("80-95", job.cpus(3));
    EXPECT_EQ(1, job.places[3].numa);
}

TEST(Bind, ACoreComesWithItsHardwareThreads)
{
    Node node(2, 1, 64, 2);
    Job job(node, 8, 16);
    ASSERT_EQ(0, job.place());
    EXPECT_EQ("0-15,128-143", job.cpus(0));
    EXPECT_EQ("112-127,240-255", job.cpus(7));
    Job twice(node, 2, 128); /* hardware threads are no cores */
    ASSERT_EQ(0, twice.place());
    EXPECT_TRUE(twice.all(ZINF_BINDING_FREE));
    EXPECT_NE(nullptr, strstr(twice.places[0].why, "need 256 cores, 128 are free"));
}

TEST(Bind, ARankIsNotBoundAcrossNumaNodes)
{
    Node node(2, 1, 64, 1);
    Job one(node, 1, 128);
    ASSERT_EQ(0, one.place());
    EXPECT_TRUE(one.all(ZINF_BINDING_FREE));
    EXPECT_EQ(-1, one.places[0].numa);
    EXPECT_NE(nullptr, strstr(one.places[0].why, "one NUMA node: that fits 0 of the 1 ranks"));
    Job three(node, 3, 40); /* 120 of 128 cores, but two nodes hold one rank each */
    ASSERT_EQ(0, three.place());
    EXPECT_TRUE(three.all(ZINF_BINDING_FREE));
    EXPECT_NE(nullptr, strstr(three.places[0].why, "fits 2 of the 3 ranks"));
}

TEST(Bind, AutoLeavesARankAloneThatSomebodyHasBound)
{
    Node node(1, 1, 8, 1);
    Job job(node, 0, 0);
    job.rank("0-3", true, 2);
    job.rank("4-7", true, 2);
    ASSERT_EQ(0, job.place());
    EXPECT_TRUE(job.all(ZINF_BINDING_LEFT));
    EXPECT_EQ("0-3", job.cpus(0));
    EXPECT_EQ("4-7", job.cpus(1));
}

TEST(Bind, OthersKeepOffTheCoresOfABoundRank)
{
    Node node(1, 1, 4, 1);
    Job job(node, 2, 1);
    job.rank("0", true, 1);
    ASSERT_EQ(0, job.place());
    EXPECT_EQ("1", job.cpus(0));
    EXPECT_EQ("2", job.cpus(1));
    EXPECT_EQ(ZINF_BINDING_LEFT, job.places[2].kind);
}

TEST(Bind, CoreStaysWithinTheCpusARankCameWith)
{
    Node node(2, 1, 8, 1);
    Job job(node, 0, 0);
    job.rank("4-11", true, 2);
    job.rank("4-11", true, 2);
    job.rank("12-15", true, 2);
    job.request.bind = ZINF_BIND_CORE;
    ASSERT_EQ(0, job.place());
    EXPECT_EQ("4-5", job.cpus(0));
    EXPECT_EQ("8-9", job.cpus(1)); /* the other NUMA node */
    EXPECT_EQ("12-13", job.cpus(2));
}

/* A container or a Slurm step: the control group offers fewer CPUs, all of them are inherited. */
TEST(Bind, AControlGroupsCpusAreTheNode)
{
    Node node(2, 1, 64, 1);
    Job job(node, 0, 0);
    job.rank("60-67", false, 4);
    job.rank("60-67", false, 4);
    ASSERT_EQ(0, job.place());
    EXPECT_EQ("60-63", job.cpus(0));
    EXPECT_EQ("64-67", job.cpus(1));
}

TEST(Bind, ThreadsBeyondTheQuotaAreNotBound)
{
    Node node(1, 1, 16, 1);
    Job job(node, 4, 2);
    job.request.cores = 4;
    ASSERT_EQ(0, job.place());
    EXPECT_TRUE(job.all(ZINF_BINDING_FREE));
    EXPECT_STREQ("8 threads on this node, but the control group's quota is 4 cores",
                 job.places[0].why);
    job.request.cores = 8;
    ASSERT_EQ(0, job.place());
    EXPECT_TRUE(job.all(ZINF_BINDING_BOUND));
}

TEST(Bind, NumaGivesAllTheCpusOfANode)
{
    Node node(2, 2, 8, 2);
    Job job(node, 8, 2);
    job.request.bind = ZINF_BIND_NUMA;
    ASSERT_EQ(0, job.place());
    EXPECT_EQ("0-7,32-39", job.cpus(0));
    EXPECT_EQ("0-7,32-39", job.cpus(1));
    EXPECT_EQ("24-31,56-63", job.cpus(7));
    EXPECT_EQ(3, job.places[7].numa);
}

/* Two jobs that leave cores free do not meet on the first ones. */
TEST(Bind, CoresAreTakenFromTheIdleOneOn)
{
    Node node(2, 1, 8, 1);
    Job job(node, 1, 2);
    job.request.hint = 13;
    ASSERT_EQ(0, job.place());
    EXPECT_EQ("12-13", job.cpus(0));
    Job last(node, 2, 8); /* no choice */
    last.request.hint = 13;
    ASSERT_EQ(0, last.place());
    EXPECT_EQ("0-7", last.cpus(0));
    EXPECT_EQ("8-15", last.cpus(1));
    Job end(node, 6, 2); /* three ranks each: only the last place is spare */
    end.request.hint = 15;
    ASSERT_EQ(0, end.place());
    EXPECT_EQ("0-1", end.cpus(0));
    EXPECT_EQ("10-11", end.cpus(3));
    EXPECT_EQ("14-15", end.cpus(5));
}

/* Whatever the machine, bound ranks have whole cores of their own inside what they came with. */
TEST(Bind, BoundRanksNeverShareACoreNorLeaveTheirCpus)
{
    std::mt19937 random(1);
    auto pick = [&](int low, int high) { return low + int(random() % unsigned(high - low + 1)); };
    int bound = 0;
    for (int round = 0; round < 300; round++) {
        Node node(pick(1, 2), pick(1, 4), pick(1, 12), pick(1, 2));
        Job job(node, 0, 0);
        int count = pick(1, 8), threads = pick(1, 4);
        int cpus = node.topology.cpu_count;
        for (int i = 0; i < count; i++) {
            int first = pick(0, cpus - 1);
            bool restricted = pick(0, 3) == 0;
            std::string some = std::to_string(first) + "-" + std::to_string(pick(first, cpus - 1));
            std::string all = "0-" + std::to_string(cpus - 1);
            job.rank((restricted ? some : all).c_str(), restricted, threads);
        }
        job.request.bind = pick(0, 1) ? ZINF_BIND_AUTO : ZINF_BIND_CORE;
        job.request.hint = pick(-1, cpus - 1);
        if (job.place())
            continue;
        std::vector<int> owner(size_t(node.topology.core_count), -1);
        for (int i = 0; i < count; i++) {
            if (job.places[i].kind != ZINF_BINDING_BOUND)
                continue;
            bound++;
            EXPECT_EQ(threads, zinf_topology_cores(&node.topology, job.places[i].cpus));
            EXPECT_EQ(job.places[i].numa,
                      zinf_topology_numa_of(&node.topology, job.places[i].cpus));
            for (int cpu = 0; cpu < cpus; cpu++) {
                if (!zinf_cpus_has(job.places[i].cpus, cpu))
                    continue;
                EXPECT_TRUE(zinf_cpus_has(job.ranks[i].cpus, cpu));
                int &who = owner[size_t(node.topology.cpu[cpu].core)];
                EXPECT_TRUE(who < 0 || who == i) << "round " << round << " core shared";
                who = i;
            }
        }
    }
    EXPECT_GT(bound, 100);
}

static std::vector<int> share(const std::vector<int> &path_numa, const std::vector<int> &rank_numa)
{
    std::vector<int> path_of(rank_numa.size());
    zinf_rankmap_paths(path_numa.data(), int(path_numa.size()), rank_numa.data(),
                       int(rank_numa.size()), path_of.data());
    return path_of;
}

TEST(Paths, RoundRobinWhereNothingIsKnown)
{
    EXPECT_EQ((std::vector<int>{0, 1, 0, 1}), share({-1, -1}, {-1, -1, -1, -1}));
    EXPECT_EQ((std::vector<int>{0, 1, 2, 0}), share({-1, -1, -1}, {-1, -1, -1, -1}));
    EXPECT_EQ((std::vector<int>{0, 0}), share({-1}, {-1, -1}));
    EXPECT_EQ((std::vector<int>{0}), share({-1, -1, -1}, {-1}));
}

TEST(Paths, TheNearDriveIsPreferred)
{
    EXPECT_EQ((std::vector<int>{1, 1, 0, 0}), share({1, 0}, {0, 0, 1, 1}));
    EXPECT_EQ((std::vector<int>{0, 1, 2, 3}), share({0, 0, 1, 1}, {0, 0, 1, 1}));
    /* all ranks on one side: the far drive is used all the same */
    EXPECT_EQ((std::vector<int>{0, 1, 0, 1}), share({0, 1}, {0, 0, 0, 0}));
}

TEST(Paths, LoadsDifferByOneAtMost)
{
    std::mt19937 random(2);
    for (int round = 0; round < 300; round++) {
        std::vector<int> paths(1 + random() % 5), ranks(1 + random() % 17);
        for (int &numa : paths)
            numa = int(random() % 4) - 1;
        for (int &numa : ranks)
            numa = int(random() % 4) - 1;
        std::vector<int> load(paths.size(), 0);
        for (int path : share(paths, ranks))
            load[size_t(path)]++;
        auto ends = std::minmax_element(load.begin(), load.end());
        EXPECT_LE(*ends.second - *ends.first, 1);
    }
}

static void *look(void *out)
{
    sched_getaffinity(0, sizeof(cpu_set_t), static_cast<cpu_set_t *>(out));
    return nullptr;
}

TEST(Apply, ThreadsMadeAfterwardsInheritIt)
{
    cpu_set_t before, main_thread, later;
    ASSERT_EQ(0, sched_getaffinity(0, sizeof before, &before));
    int last = -1;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &before))
            last = cpu;
    struct zinf_binding place = {};
    zinf_cpus_add(place.cpus, last);
    place.kind = ZINF_BINDING_FREE; /* nothing happens */
    ASSERT_EQ(0, zinf_rankmap_apply(&place));
    look(&main_thread);
    EXPECT_TRUE(CPU_EQUAL(&before, &main_thread));
    place.kind = ZINF_BINDING_BOUND;
    ASSERT_EQ(0, zinf_rankmap_apply(&place));
    pthread_t thread;
    pthread_create(&thread, nullptr, look, &later);
    pthread_join(thread, nullptr);
    look(&main_thread);
    sched_setaffinity(0, sizeof before, &before);
    for (const cpu_set_t *set : {&main_thread, &later}) {
        EXPECT_EQ(1, CPU_COUNT(set));
        EXPECT_TRUE(CPU_ISSET(last, set));
    }
}

TEST(Apply, CpusThatAreNotThereAreAnErrno)
{
    struct zinf_binding place = {};
    place.kind = ZINF_BINDING_BOUND;
    zinf_cpus_add(place.cpus, 4095);
    EXPECT_EQ(EINVAL, zinf_rankmap_apply(&place));
}

/* Alone, without MPI: a communicator of size 1. */
TEST(Open, OneRankIsPlacedAndSaysSo)
{
    cpu_set_t before;
    sched_getaffinity(0, sizeof before, &before);
    struct zinf_comm alone = {};
    alone.size = alone.local_size = 1;
    struct zinf_rankmap map = {};
    ASSERT_EQ(0, zinf_rankmap_open(&map, &alone, ZINF_BIND_NONE, 3));
    EXPECT_EQ(1, map.size);
    EXPECT_EQ(3, map.rows[0].threads);
    char *summary = zinf_rankmap_summary(&map);
    EXPECT_EQ(0, strncmp(summary, "none: ", 6));
    free(summary);
    const char *const paths[] = {"/tmp", "/var/tmp"};
    EXPECT_EQ(0, zinf_rankmap_share_paths(&map, &alone, paths, 2));
    EXPECT_STREQ("/tmp", map.rows[0].path);
    zinf_rankmap_release(&map);
    ASSERT_EQ(0, zinf_rankmap_open(&map, &alone, ZINF_BIND_AUTO, 0));
    EXPECT_GE(map.rows[0].threads, 1);
    zinf_rankmap_release(&map);
    EXPECT_EQ(ZINF_E_USAGE, zinf_rankmap_open(&map, &alone, ZINF_BIND_CORE, 5000));
    sched_setaffinity(0, sizeof before, &before);
}

/* A job of nodes x ranks, four CPUs each rank. */
static std::vector<zinf_rankmap_row> job(int nodes, int ranks)
{
    std::vector<zinf_rankmap_row> rows(size_t(nodes * ranks));
    for (int i = 0; i < nodes * ranks; i++) {
        zinf_rankmap_row &row = rows[size_t(i)];
        snprintf(row.host, sizeof row.host, "node%02d", i / ranks);
        row.threads = 4;
        row.place.kind = ZINF_BINDING_BOUND;
        row.place.numa = i % ranks * 2 / ranks;
        for (int cpu = 0; cpu < 4; cpu++)
            zinf_cpus_add(row.place.cpus, i % ranks * 4 + cpu);
    }
    return rows;
}

static std::string table(std::vector<zinf_rankmap_row> &rows)
{
    struct zinf_rankmap map = {ZINF_BIND_AUTO, int(rows.size()), rows.data(), ""};
    char *text = zinf_rankmap_table(&map);
    std::string copy = text;
    free(text);
    return copy;
}

TEST(Table, ALineForEachRank)
{
    auto rows = job(1, 2);
    EXPECT_EQ("  rank  node             NUMA  threads  CPUs\n"
              "     0  node00              0        4  0-3\n"
              "     1  node00              1        4  4-7",
              table(rows));
    snprintf(rows[1].path, sizeof rows[1].path, "/nvme1");
    EXPECT_NE(std::string::npos, table(rows).find("4-7  /nvme1"));
}

TEST(Table, LargeJobsAreRunsOfNodesThatLookAlike)
{
    auto rows = job(4, 8);
    EXPECT_EQ(
        "0-31        node00 ... node03, 4 nodes: 8 ranks x 4 threads each, NUMA 0-1, CPUs 0-31",
        table(rows));
    zinf_cpus_add(rows[31].place.cpus, 99); /* the last node differs */
    EXPECT_EQ(
        "0-23        node00 ... node02, 3 nodes: 8 ranks x 4 threads each, NUMA 0-1, CPUs 0-31\n"
        "24-31       node03: 8 ranks x 4 threads, NUMA 0-1, CPUs 0-31,99",
        table(rows));
}

TEST(Table, TheSummarySaysWhatHappened)
{
    auto rows = job(1, 2);
    struct zinf_rankmap map = {ZINF_BIND_AUTO, 2, rows.data(), ""};
    auto summary = [&] {
        char *text = zinf_rankmap_summary(&map);
        std::string copy = text;
        free(text);
        return copy;
    };
    EXPECT_EQ("auto: each rank bound to cores of one NUMA node", summary());
    rows[0].place.kind = ZINF_BINDING_LEFT;
    EXPECT_EQ("auto: 1 ranks bound, 1 keep the CPUs they were given, 0 not bound", summary());
    rows[1].place.kind = ZINF_BINDING_LEFT;
    EXPECT_EQ("auto: ranks keep the CPUs they were given", summary());
    for (auto &row : rows) {
        row.place.kind = ZINF_BINDING_FREE;
        snprintf(row.place.why, sizeof row.place.why, "too many");
    }
    EXPECT_EQ("auto: not bound: too many", summary());
}

TEST(Bind, WordsAreThoseOfTheContract)
{
    for (const char *word : {"auto", "none", "core", "numa"})
        EXPECT_STREQ(word, zinf_bind_name(zinf_bind_parse(word)));
    EXPECT_EQ(ZINF_BIND_AUTO, zinf_bind_parse(nullptr));
}
