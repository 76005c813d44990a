/*
 * The two lanes of a plan, with a communicator that is a stopwatch: requests complete after so many
 * tests.
 */
#include "zero/lanes.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include <omp.h>
#include <signal.h>

#include "base/clock.h"
#include "base/status.h"

/* A request whose state is the number of tests it still needs; -1 never completes. */
static bool countdown(struct zinf_comm *, struct zinf_comm_request *request)
{
    intptr_t left = reinterpret_cast<intptr_t>(request->state);
    if (left > 0)
        request->state = reinterpret_cast<void *>(left - 1);
    return left == 0;
}

static void describe_request(struct zinf_comm *, struct zinf_comm_request *, char *out,
                             size_t bytes)
{
    snprintf(out, bytes, "from rank 5");
}

struct Fake {
    struct zinf_comm_ops ops = {};
    struct zinf_comm comm = {};
    Fake()
    {
        ops.test = countdown;
        ops.describe = describe_request;
        comm.ops = &ops;
        comm.size = 8;
        comm.rank = 3;
    }
};

/* A communicator whose operations stand in a stream: request n ends when the device has come so
 * far.
 */
struct Stream : Fake {
    static std::atomic<int64_t> reached;
    Stream()
    {
        ops.in_stream = true;
        ops.test = [](struct zinf_comm *, struct zinf_comm_request *request) {
            if (reinterpret_cast<intptr_t>(request->state) > reached)
                return false;
            request->state = nullptr;
            return true;
        };
        reached = 0;
    }
};
std::atomic<int64_t> Stream::reached;

static void describe(void *, enum zinf_lane lane, int64_t index, char *out, size_t out_bytes)
{
    snprintf(out, out_bytes, "%s %d",
             lane == ZINF_LANE_COMM ? "gather of block" : "forward of block",
             static_cast<int>(index));
}

/* A random plan: operations of both lanes in one legal order, so that it cannot deadlock; each
 * waits for some that come before it. */
struct Plan {
    struct Operation {
        int64_t wait = 0; /* so many of the other lane */
        int tests = 0;
    };
    std::vector<Operation> lane[ZINF_LANE_COUNT];
    explicit Plan(unsigned seed, int count)
    {
        std::mt19937 random(seed);
        for (int i = 0; i < count; i++) {
            int mine = static_cast<int>(random() % 2), other = 1 - mine;
            Operation operation;
            if (random() % 3)
                operation.wait = static_cast<int64_t>(random() % (lane[other].size() + 1));
            operation.tests = static_cast<int>(random() % 4);
            lane[mine].push_back(operation);
        }
    }
};

struct Execution {
    Plan plan;
    struct zinf_lanes *lanes = nullptr;
    std::atomic<int64_t> finished[ZINF_LANE_COUNT] = {};
    int64_t next_comm = 0; /* touched by the mover only while a plan runs */
    std::atomic<int> broken{0};
    explicit Execution(const Plan &p) : plan(p)
    {
    }
};

static void comm_operation(void *context, int64_t index)
{
    Execution *run = static_cast<Execution *>(context);
    const Plan::Operation &operation = run->plan.lane[ZINF_LANE_COMM][index];
    struct zinf_comm_request request = {reinterpret_cast<void *>(intptr_t{operation.tests})};
    zinf_lanes_wait(run->lanes, ZINF_LANE_COMPUTE, operation.wait);
    run->broken += run->finished[ZINF_LANE_COMPUTE] < operation.wait;
    run->broken += run->next_comm++ != index;
    zinf_lanes_complete(run->lanes, &request);
    run->finished[ZINF_LANE_COMM]++;
}

TEST(Lanes, RandomPlansRunInALegalOrder)
{
    Fake fake;
    struct zinf_lanes *lanes = nullptr;
    ASSERT_EQ(0, zinf_lanes_new(&lanes, &fake.comm, 20, describe, nullptr));
    for (unsigned seed = 1; seed <= 60;
         seed++) { /* one mover carries out many plans, one after the other */
        Execution run(Plan(seed, 100));
        int64_t count = static_cast<int64_t>(run.plan.lane[ZINF_LANE_COMM].size());
        run.lanes = lanes;
        zinf_lanes_begin(lanes, count, comm_operation, &run);
        for (const Plan::Operation &operation : run.plan.lane[ZINF_LANE_COMPUTE]) {
            zinf_lanes_wait(lanes, ZINF_LANE_COMM, operation.wait);
            run.broken += run.finished[ZINF_LANE_COMM] < operation.wait;
            run.finished[ZINF_LANE_COMPUTE]++;
            zinf_lanes_done(lanes, ZINF_LANE_COMPUTE);
        }
        zinf_lanes_end(lanes);
        EXPECT_EQ(0, run.broken) << "seed " << seed;
        EXPECT_EQ(count, run.finished[ZINF_LANE_COMM]) << "seed " << seed;
    }
    zinf_lanes_free(lanes);
}

/* Operations 0 .. count - 1 in a stream; number `settles` begins when all before it have ended. */
struct Ahead {
    struct zinf_lanes *lanes = nullptr;
    int64_t settles = -1;
    std::atomic<int64_t> begun{0}, ended{0};
    std::atomic<int> broken{0};
};

static bool has_ended(void *context, int64_t index)
{
    Ahead *run = static_cast<Ahead *>(context);
    run->broken += index != run->ended || Stream::reached < index + 1;
    run->ended++;
    return true;
}

static void post(void *context, int64_t index)
{
    Ahead *run = static_cast<Ahead *>(context);
    struct zinf_comm_request request = {reinterpret_cast<void *>(intptr_t{index + 1})};
    if (index == run->settles) {
        zinf_lanes_settle(run->lanes);
        run->broken += run->ended != index;
    }
    zinf_lanes_complete(run->lanes, &request);
    run->broken += request.state != nullptr; /* it is the mover's now */
    zinf_lanes_follow(run->lanes, has_ended);
    run->begun++;
}

/* The device gets to operation `to`, the mover begins as far as it may. */
static void expect_begun(Ahead *run, int64_t to, int64_t begun)
{
    Stream::reached = to;
    for (int i = 0; i < 2000 && run->begun < begun; i++)
        zinf_clock_nap(0.001);
    zinf_clock_nap(0.01);
    EXPECT_EQ(begun, run->begun);
    EXPECT_GE(to, run->ended);
}

TEST(Lanes, TheMoverRunsAheadOfAStreamSoFarAndNoFarther)
{
    const int64_t most = ZINF_LANES_UNDER_WAY, count = 3 * most;
    Stream stream;
    Ahead run;
    ASSERT_EQ(0, zinf_lanes_new(&run.lanes, &stream.comm, 20, describe, nullptr));
    for (int64_t settles : {int64_t{-1}, most + 4}) {
        run.settles = settles;
        run.begun = run.ended = Stream::reached = 0;
        zinf_lanes_begin(run.lanes, count, post, &run);
        expect_begun(&run, 0, most);
        EXPECT_EQ(0, zinf_lanes_wait(run.lanes, ZINF_LANE_COMM, most)); /* they stand in streams */
        expect_begun(&run, 3, most + 3);
        expect_begun(&run, most, settles < 0 ? 2 * most : settles);
        Stream::reached = count;
        zinf_lanes_end(run.lanes);
        EXPECT_EQ(count, run.ended); /* the end of a plan is the device's */
        EXPECT_EQ(0, run.broken);
    }
    zinf_lanes_free(run.lanes);
}

static void slow_operation(void *, int64_t)
{
    zinf_clock_nap(0.05);
}

TEST(Lanes, WaitReturnsTheSecondsWaited)
{
    Fake fake;
    struct zinf_lanes *lanes = nullptr;
    ASSERT_EQ(0, zinf_lanes_new(&lanes, &fake.comm, 0, describe, nullptr));
    zinf_lanes_begin(lanes, 2, slow_operation, nullptr);
    double waited = zinf_lanes_wait(lanes, ZINF_LANE_COMM, 1);
    EXPECT_GE(waited, 0.04);
    EXPECT_EQ(0, zinf_lanes_wait(lanes, ZINF_LANE_COMM, 1)); /* is done already */
    EXPECT_GE(zinf_lanes_end(lanes), 0.03);
    EXPECT_EQ(0, zinf_lanes_end(lanes));
    zinf_lanes_begin(lanes, 0, slow_operation, nullptr); /* a plan without communication */
    EXPECT_EQ(0, zinf_lanes_end(lanes));
    zinf_lanes_free(lanes);
    zinf_lanes_free(nullptr);
}

static void look_around(void *context, int64_t)
{
    int *seen = static_cast<int *>(context);
    sigset_t blocked;
    pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
    seen[0] = omp_get_max_threads();
    seen[1] = sigismember(&blocked, SIGTERM) && sigismember(&blocked, SIGUSR1);
}

TEST(Lanes, TheMoverHasOneThreadOfOpenMPAndNoSignals)
{
    Fake fake;
    struct zinf_lanes *lanes = nullptr;
    int seen[2] = {0, 0}, here = 2;
    omp_set_num_threads(here);
    ASSERT_EQ(0, zinf_lanes_new(&lanes, &fake.comm, 0, describe, nullptr));
    zinf_lanes_begin(lanes, 1, look_around, seen);
    zinf_lanes_end(lanes);
    zinf_lanes_free(lanes);
    EXPECT_EQ(1, seen[0]);
    EXPECT_EQ(1, seen[1]);
    EXPECT_EQ(here, omp_get_max_threads()); /* the caller's setting is its own */
}

static void hang_in_request(void *context, int64_t index)
{
    struct zinf_comm_request never = {reinterpret_cast<void *>(intptr_t{-1})};
    if (index == 2)
        zinf_lanes_complete(*static_cast<struct zinf_lanes **>(context), &never);
}

static void hang_elsewhere(void *, int64_t)
{
    for (;;)
        zinf_clock_nap(1);
}

static void hang(zinf_comm_operation_fn operation)
{
    Fake fake;
    struct zinf_lanes *lanes = nullptr;
    zinf_lanes_new(&lanes, &fake.comm, 0.2, describe, nullptr);
    zinf_lanes_begin(lanes, 4, operation, &lanes);
    zinf_lanes_done(lanes, ZINF_LANE_COMPUTE);
    zinf_lanes_end(lanes);
}

TEST(LanesDeathTest, TheWatchdogNamesRankOperationAndPeers)
{
    testing::FLAGS_gtest_death_test_style = "threadsafe";
    EXPECT_EXIT(hang(hang_in_request), testing::ExitedWithCode(1),
                "rank 3 on .*no progress.*operation 2 of 4: gather of block 2, waits for transfers "
                "from rank 5; compute lane, operation 1: forward of block 1");
    double begin = zinf_clock_s();
    EXPECT_EXIT(hang(hang_elsewhere), testing::ExitedWithCode(1),
                "rank 3 on .*operation 0 of 4: gather of block 0; compute lane");
    EXPECT_LT(zinf_clock_s() - begin, 5);
}

static void hang_in_stream(void)
{
    Stream stream;
    Ahead run;
    zinf_lanes_new(&run.lanes, &stream.comm, 0.2, describe, nullptr);
    zinf_lanes_begin(run.lanes, 6, post, &run);
    Stream::reached = 2;
    zinf_lanes_wait(run.lanes, ZINF_LANE_COMM, 6); /* nobody waits for it: the mover looks on */
    zinf_clock_nap(30);
}

TEST(LanesDeathTest, TheWatchdogNamesTheOldestOperationUnderWay)
{
    testing::FLAGS_gtest_death_test_style = "threadsafe";
    EXPECT_EXIT(hang_in_stream(), testing::ExitedWithCode(1),
                "operation 2 of 6: gather of block 2, waits for transfers from rank 5");
}

static void wait_for_compute(void *context, int64_t)
{
    zinf_lanes_wait(*static_cast<struct zinf_lanes **>(context), ZINF_LANE_COMPUTE, 1);
}

static void never_compute(void)
{
    Fake fake;
    struct zinf_lanes *lanes = nullptr;
    zinf_lanes_new(&lanes, &fake.comm, 0.2, describe, nullptr);
    zinf_lanes_begin(lanes, 1, wait_for_compute, &lanes);
    zinf_clock_nap(30);
}

TEST(LanesDeathTest, TheWatchdogSeesAStuckComputeLane)
{
    testing::FLAGS_gtest_death_test_style = "threadsafe";
    EXPECT_EXIT(never_compute(), testing::ExitedWithCode(1),
                "compute lane, operation 0: forward of block 0");
}

TEST(Lanes, ProgressKeepsTheWatchdogQuiet)
{
    Fake fake;
    struct zinf_lanes *lanes = nullptr;
    ASSERT_EQ(0, zinf_lanes_new(&lanes, &fake.comm, 0.3, describe, nullptr));
    zinf_lanes_begin(lanes, 12, slow_operation,
                     nullptr); /* 0.6 s in all, 0.05 s between signs of life */
    zinf_lanes_end(lanes);
    zinf_clock_nap(0.4); /* between plans nobody waits and nothing fires */
    zinf_lanes_begin(lanes, 1, slow_operation, nullptr);
    zinf_lanes_end(lanes);
    zinf_lanes_free(lanes);
}
