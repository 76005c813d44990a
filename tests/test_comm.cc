/*
 * The communicator over MPI, on any number of ranks; tests/test_comm.sh runs it on 1, 2, 3, 4
 * and 7. Every rank runs every test, in the same order; nothing leaves a test early (EXPECT, not
 * ASSERT), since a rank must not leave a collective alone.
 */
#include "topology/comm.h"
#include "topology/comm_mpi.h"
#include "topology/consistency.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <sys/mman.h>

#include "base/clock.h"
#include "base/status.h"
#include "device/link.h"
#include "memory/pool.h"

/* What is tested, and what carries its control path: the same, or with "link" as argument the
 * communicator between devices. */
static struct zinf_comm comm, mpi;
static struct zinf_comm *const host[] = {&comm, &mpi};
static struct zinf_device device;
static bool linked;

static void set_piece(size_t bytes)
{
    zinf_comm_mpi_set_piece(host[linked], bytes);
}

/* Where buffers come from: the heap, whose bytes travel as messages, or memory that the ranks of a
 * node read from each other. */
enum { ARENA_BYTES = 96 << 20 };
static char *arena;
static size_t arena_used;
static bool use_arena;

template <class T> struct Place {
    using value_type = T;
    Place() = default;
    template <class U> Place(const Place<U> &)
    {
    }
    T *allocate(size_t count)
    {
        size_t bytes = (count * sizeof(T) + 63) / 64 * 64;
        if (!use_arena)
            return static_cast<T *>(malloc(bytes));
        EXPECT_LE(arena_used + bytes, size_t{ARENA_BYTES});
        arena_used += bytes;
        return reinterpret_cast<T *>(arena + arena_used - bytes);
    }
    void deallocate(T *memory, size_t)
    {
        if (!use_arena)
            free(memory);
    }
    bool operator==(const Place &) const
    {
        return true;
    }
    bool operator!=(const Place &) const
    {
        return false;
    }
};

using Buffer = std::vector<unsigned char, Place<unsigned char>>;

class Transfers : public testing::TestWithParam<bool>
{
  protected:
    void SetUp() override
    {
        use_arena = GetParam();
        arena_used = 0;
        if (linked && !use_arena && !strcmp(device.backend->name, "cuda"))
            GTEST_SKIP() << "a GPU does not reach memory that is not pinned";
        if (use_arena && !arena)
            GTEST_SKIP() << "no memory that ranks share";
    }
    void TearDown() override
    {
        use_arena = false;
    }
};

INSTANTIATE_TEST_SUITE_P(Comm, Transfers, testing::Bool(),
                         [](const testing::TestParamInfo<bool> &info) {
                             return info.param ? "SharedMemory" : "Messages";
                         });

/* A byte that depends on who sends to whom, where it stands, and the round. */
static unsigned char pattern(int from, int to, size_t at, int round)
{
    uint32_t x = static_cast<uint32_t>(from * 131 + to * 17 + round * 7 + 1);
    x ^= static_cast<uint32_t>(at) * 2654435761u;
    return static_cast<unsigned char>(x >> 13 ^ x >> 3);
}

static void finish(struct zinf_comm_request *request)
{
    while (!comm.ops->test(&comm, request))
        zinf_clock_nap(20e-6);
}

static Buffer shards_of_mine(size_t bytes, int round)
{
    Buffer buffer(bytes * comm.size, 0xee);
    for (size_t i = 0; i < bytes; i++)
        buffer[comm.rank * bytes + i] = pattern(comm.rank, 0, i, round);
    return buffer;
}

static long wrong_shards(const Buffer &buffer, size_t bytes, int round)
{
    long wrong = 0;
    for (int rank = 0; rank < comm.size; rank++)
        for (size_t i = 0; i < bytes; i++)
            wrong += buffer[rank * bytes + i] != pattern(rank, 0, i, round);
    return wrong;
}

static Buffer parts_of_mine(size_t bytes, int round)
{
    Buffer buffer(bytes * comm.size);
    for (int to = 0; to < comm.size; to++)
        for (size_t i = 0; i < bytes; i++)
            buffer[to * bytes + i] = pattern(comm.rank, to, i, round);
    return buffer;
}

static long wrong_parts(const Buffer &buffer, size_t bytes, int round)
{
    long wrong = 0;
    for (int from = 0; from < comm.size; from++)
        for (size_t i = 0; i < bytes; i++)
            wrong += buffer[from * bytes + i] != pattern(from, comm.rank, i, round);
    return wrong;
}

static const size_t odd_sizes[] = {0, 1, 3, 1023, 4096, 65537, 1000003};

TEST_P(Transfers, AllGatherBringsEveryShardToItsPlace)
{
    for (size_t bytes : odd_sizes) {
        Buffer buffer = shards_of_mine(bytes, 1);
        struct zinf_comm_request request = {nullptr};
        comm.ops->all_gather(&comm, buffer.data(), bytes, &request);
        finish(&request);
        EXPECT_EQ(nullptr, request.state);
        EXPECT_EQ(0, wrong_shards(buffer, bytes, 1)) << bytes << " bytes";
    }
}

TEST_P(Transfers, ExchangeBringsPartQToRankQ)
{
    for (size_t bytes : odd_sizes) {
        Buffer send = parts_of_mine(bytes, 2), receive(bytes * comm.size, 0xee);
        Buffer before = send;
        struct zinf_comm_request request = {nullptr};
        comm.ops->exchange(&comm, send.data(), receive.data(), bytes, &request);
        finish(&request);
        EXPECT_EQ(0, wrong_parts(receive, bytes, 2)) << bytes << " bytes";
        EXPECT_EQ(before, send);
    }
}

TEST_P(Transfers, AShardLongerThanOneMessageIsSplit)
{
    size_t bytes = 100003;
    Buffer buffer = shards_of_mine(bytes, 3), send = parts_of_mine(bytes, 3);
    Buffer receive(bytes * comm.size);
    struct zinf_comm_request requests[2] = {{nullptr}, {nullptr}};
    set_piece(999);
    comm.ops->all_gather(&comm, buffer.data(), bytes, &requests[0]);
    comm.ops->exchange(&comm, send.data(), receive.data(), bytes, &requests[1]);
    finish(&requests[0]);
    finish(&requests[1]);
    EXPECT_EQ(0, wrong_shards(buffer, bytes, 3));
    EXPECT_EQ(0, wrong_parts(receive, bytes, 3));
    set_piece(static_cast<size_t>(1) << 30);
}

TEST_P(Transfers, ManyOperationsMayBeInFlight)
{
    enum { COUNT = 12 };
    Buffer gathered[COUNT], sent[COUNT], received[COUNT];
    struct zinf_comm_request gathers[COUNT], exchanges[COUNT];
    std::memset(gathers, 0, sizeof gathers);
    std::memset(exchanges, 0, sizeof exchanges);
    for (int i = 0; i < COUNT; i++) {
        size_t bytes = static_cast<size_t>(100000 / (i + 1));
        gathered[i] = shards_of_mine(bytes, i);
        sent[i] = parts_of_mine(bytes, i);
        received[i].resize(bytes * comm.size);
        comm.ops->all_gather(&comm, gathered[i].data(), bytes, &gathers[i]);
        comm.ops->exchange(&comm, sent[i].data(), received[i].data(), bytes, &exchanges[i]);
    }
    for (int i = COUNT - 1; i >= 0; i--) { /* completion may be asked for in any order */
        size_t bytes = static_cast<size_t>(100000 / (i + 1));
        finish(&exchanges[i]);
        finish(&gathers[i]);
        EXPECT_EQ(0, wrong_shards(gathered[i], bytes, i));
        EXPECT_EQ(0, wrong_parts(received[i], bytes, i));
    }
}

TEST_P(Transfers, BytesSentCountsPayloadToOthersOnly)
{
    Buffer buffer(1000 * comm.size), receive(1000 * comm.size);
    struct zinf_comm_request request = {nullptr};
    int64_t others = comm.size - 1, before = comm.bytes_sent;
    comm.ops->all_gather(&comm, buffer.data(), 1000, &request);
    EXPECT_EQ(before + others * 1000, comm.bytes_sent); /* where it is posted */
    finish(&request);
    comm.ops->exchange(&comm, buffer.data(), receive.data(), 777, &request);
    finish(&request);
    EXPECT_EQ(before + others * 1777, comm.bytes_sent);
    zinf_comm_gather_small(&comm, buffer.data(), 8, receive.data());
    EXPECT_EQ(before + others * 1785, comm.bytes_sent);
    zinf_comm_barrier(&comm);
    EXPECT_EQ(before + others * 1785, comm.bytes_sent);
}

TEST_P(Transfers, AHundredOperationsReuseWhatEarlierOnesUsed)
{
    Buffer buffer = shards_of_mine(3000, 0), send = parts_of_mine(500, 0), receive(500 * comm.size);
    long wrong = 0;
    for (int round = 0; round < 130; round++) {
        struct zinf_comm_request requests[2] = {{nullptr}, {nullptr}};
        for (size_t i = 0; i < 3000; i++)
            buffer[comm.rank * 3000 + i] = pattern(comm.rank, 0, i, round);
        for (int to = 0; to < comm.size; to++)
            send[to * 500] = pattern(comm.rank, to, 0, round);
        comm.ops->all_gather(&comm, buffer.data(), 3000, &requests[0]);
        comm.ops->exchange(&comm, send.data(), receive.data(), 500, &requests[1]);
        finish(&requests[0]);
        finish(
            &requests[1]); /* from here on nobody reads ours any more: the next round writes it */
        wrong += wrong_shards(buffer, 3000, round);
        for (int from = 0; from < comm.size; from++)
            wrong += receive[from * 500] != pattern(from, comm.rank, 0, round);
    }
    EXPECT_EQ(0, wrong);
}

TEST(Comm, SharedMemoryIsZeroedAndComesAndGoes)
{
    for (int i = 0; i < 40; i++) { /* more often than there is room for at once */
        size_t bytes = 10000 + 4096 * static_cast<size_t>(comm.rank);
        if (!comm.ops->map_shared)
            break;
        unsigned char *memory = static_cast<unsigned char *>(comm.ops->map_shared(&comm, bytes));
        EXPECT_EQ(memory != nullptr, zinf_comm_agree(&comm, memory ? 0 : -1) == 0);
        EXPECT_TRUE(memory || !arena);
        if (!memory)
            continue;
        long sum = 0;
        for (size_t at = 0; at < bytes; at++)
            sum += memory[at];
        EXPECT_EQ(0, sum);
        memset(memory, 1, bytes);
        comm.ops->unmap_shared(&comm, memory);
    }
}

TEST(Comm, APoolOfSharedMemoryIsCarvedLikeAnyOther)
{
    struct zinf_pool pool = {};
    for (int pass = 0; pass < 2; pass++) {
        void *first = zinf_pool_take(&pool, 100), *second = zinf_pool_take(&pool, 3 << 20);
        EXPECT_EQ(pass == 0, first == nullptr);
        EXPECT_EQ(0u, reinterpret_cast<uintptr_t>(second) % 4096);
        if (pass == 0) {
            EXPECT_EQ(0, zinf_pool_open_shared(&pool, &comm));
            EXPECT_TRUE(pool.comm || !arena || linked);
        } else {
            memset(second, 7, 3 << 20);
        }
    }
    zinf_pool_close(&pool);
    EXPECT_EQ(nullptr, pool.base);
}

TEST(Comm, GatherSmallIsInRankOrder)
{
    int mine[3] = {comm.rank, comm.rank * comm.rank, -comm.rank};
    std::vector<int> all(3 * comm.size, -1);
    zinf_comm_gather_small(&comm, mine, sizeof mine, all.data());
    for (int rank = 0; rank < comm.size; rank++) {
        EXPECT_EQ(rank, all[3 * rank]);
        EXPECT_EQ(rank * rank, all[3 * rank + 1]);
        EXPECT_EQ(-rank, all[3 * rank + 2]);
    }
}

TEST(Comm, AgreeIsTheWorstStatusOnEveryRank)
{
    int last = comm.size - 1;
    EXPECT_EQ(0, zinf_comm_agree(&comm, 0));
    EXPECT_EQ(ZINF_E_DATA, zinf_comm_agree(&comm, comm.rank == last ? ZINF_E_DATA : 0));
    int mine = comm.rank == 0 ? ZINF_E_CHECKPOINT : comm.rank == last ? ZINF_E_USAGE : 0;
    EXPECT_EQ(ZINF_E_CHECKPOINT, zinf_comm_agree(&comm, mine));
}

TEST(Comm, SameSeesOneDifferentRank)
{
    EXPECT_TRUE(zinf_comm_same(&comm, 0x123456789abcdefull));
    for (int odd = 0; odd < comm.size; odd++) {
        uint64_t value = comm.rank == odd ? 0x8000000000000001ull : 1;
        EXPECT_EQ(comm.size == 1, zinf_comm_same(&comm, value)) << "odd rank " << odd;
    }
}

TEST(Comm, BroadcastComesFromAnyRoot)
{
    for (int root = 0; root < comm.size; root++) {
        std::vector<unsigned char> buffer(70001);
        for (size_t i = 0; comm.rank == root && i < buffer.size(); i++)
            buffer[i] = pattern(root, 0, i, 5);
        set_piece(4099);
        zinf_comm_broadcast(&comm, root, buffer.data(), buffer.size());
        set_piece(static_cast<size_t>(1) << 30);
        long wrong = 0;
        for (size_t i = 0; i < buffer.size(); i++)
            wrong += buffer[i] != pattern(root, 0, i, 5);
        EXPECT_EQ(0, wrong) << "root " << root;
    }
}

TEST(Comm, GatherBytesTakesDifferentLengthsAndSplitsLongOnes)
{
    size_t length = comm.rank % 3 == 1 ? 0 : 1000 + 5000 * static_cast<size_t>(comm.rank);
    std::vector<unsigned char> mine(length);
    std::vector<size_t> offsets(comm.size + 1, 12345);
    void *all = &offsets;
    int64_t before = comm.bytes_sent;
    for (size_t i = 0; i < length; i++)
        mine[i] = pattern(comm.rank, 9, i, 6);
    set_piece(1000);
    zinf_comm_gather_bytes(&comm, mine.data(), length, &all, offsets.data());
    set_piece(static_cast<size_t>(1) << 30);
    EXPECT_EQ(before, comm.bytes_sent);
    if (comm.rank) {
        EXPECT_EQ(nullptr, all);
        return;
    }
    EXPECT_EQ(0u, offsets[0]);
    for (int rank = 0; rank < comm.size; rank++) {
        size_t expected = rank % 3 == 1 ? 0 : 1000 + 5000 * static_cast<size_t>(rank);
        const unsigned char *bytes = static_cast<unsigned char *>(all) + offsets[rank];
        EXPECT_EQ(expected, offsets[rank + 1] - offsets[rank]);
        long wrong = 0;
        for (size_t i = 0; i < expected; i++)
            wrong += bytes[i] != pattern(rank, 9, i, 6);
        EXPECT_EQ(0, wrong) << "rank " << rank;
    }
    free(all);
}

/* One machine, unless tests/test_comm.sh plays several by giving ranks different node names. */
TEST(Comm, KnowsItsNeighbours)
{
    char mine[64] = "";
    std::vector<char> names(64 * comm.size);
    const char *name = getenv("SLURMD_NODENAME");
    snprintf(mine, sizeof mine, "%s", name ? name : "");
    zinf_comm_gather_small(&comm, mine, sizeof mine, names.data());
    int before = 0, all = 0;
    for (int rank = 0; rank < comm.size; rank++) {
        all += !strcmp(&names[64 * rank], mine);
        before += rank < comm.rank && !strcmp(&names[64 * rank], mine);
    }
    EXPECT_EQ(before, comm.local_rank);
    EXPECT_EQ(all, comm.local_size);
}

/* Run `check` with the log in a file; returns what it wrote. */
static std::string logged(int *status, const struct zinf_fact *facts, size_t count)
{
    FILE *file = tmpfile();
    struct zinf_log_options options = {};
    options.rank = comm.rank;
    options.terminal = file;
    zinf_log_configure(&options);
    *status = zinf_consistency_check(&comm, facts, count);
    options.terminal = nullptr;
    zinf_log_configure(&options);
    char text[8192];
    rewind(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    return text;
}

TEST(Consistency, EqualFactsPassWithoutAWord)
{
    struct zinf_fact facts[] = {{"build", "0.1.0 abc"}, {"data", nullptr}, {"model", ""}};
    int status = 1;
    EXPECT_EQ("", logged(&status, facts, 3));
    EXPECT_EQ(0, status);
    EXPECT_EQ("", logged(&status, facts, 0));
    EXPECT_EQ(0, status);
}

TEST(Consistency, OneOddRankIsNamedWithItsValue)
{
    int last = comm.size - 1, status = 1;
    std::string data = "crc " + std::to_string(comm.rank == last ? 2 : 1);
    struct zinf_fact facts[] = {{"build", "0.1.0 abc"}, {"data", data.c_str()}, {"model", "m"}};
    std::string text = logged(&status, facts, 3);
    if (comm.size == 1) {
        EXPECT_EQ(0, status);
        return;
    }
    EXPECT_EQ(ZINF_E_USAGE, status);
    if (comm.rank) {
        EXPECT_EQ("", text); /* one message from one rank */
        return;
    }
    std::string first =
        comm.size == 2 ? "rank 0: crc 1" : "rank 0-" + std::to_string(last - 1) + ": crc 1";
    EXPECT_NE(std::string::npos, text.find("1 of 3 facts")) << text;
    EXPECT_NE(std::string::npos, text.find(first)) << text;
    EXPECT_NE(std::string::npos, text.find("rank " + std::to_string(last) + ": crc 2")) << text;
    EXPECT_EQ(std::string::npos, text.find("abc")) << text; /* what is equal is not shown */
}

TEST(Consistency, OfALongValueThePartThatDiffersIsTold)
{
    int status = 1;
    std::string value = std::string(3000, 'x') + "seed " + (comm.rank ? "7" : "6") + " end";
    struct zinf_fact facts[] = {{"configuration", value.c_str()}};
    std::string text = logged(&status, facts, 1);
    if (comm.rank == 0 && comm.size > 1) {
        EXPECT_NE(std::string::npos, text.find("xseed 6 end")) << text;
        EXPECT_NE(std::string::npos, text.find("xseed 7 end")) << text;
        EXPECT_LT(text.size(), 1000u);
    }
}

TEST(Consistency, AFactThatOnlyTheLastRankHasIsNamed)
{
    struct zinf_fact facts[] = {{"build", "b"}, {"zinf.train.epochs", "3"}};
    int status = 1;
    std::string text = logged(&status, facts, comm.rank == comm.size - 1 ? 2 : 1);
    EXPECT_EQ(comm.size == 1 ? 0 : ZINF_E_USAGE, status);
    if (comm.rank == 0 && comm.size > 1) {
        EXPECT_NE(std::string::npos, text.find("zinf.train.epochs rank 0")) << text;
        EXPECT_NE(std::string::npos, text.find("rank " + std::to_string(comm.size - 1) + ": 3"))
            << text;
    }
}

TEST(Consistency, AFactThatOneRankDoesNotHaveDiffers)
{
    struct zinf_fact facts[] = {{"build", "b"}, {"cuda", "12"}};
    int status = 1;
    std::string text = logged(&status, facts, comm.rank == comm.size - 1 ? 1 : 2);
    EXPECT_EQ(comm.size == 1 ? 0 : ZINF_E_USAGE, status);
    if (comm.rank == 0 && comm.size > 1) {
        EXPECT_NE(std::string::npos, text.find("(unknown here)")) << text;
    }
}

/* The device of this rank, its link to the others, and memory that it has pinned. */
static int open_link()
{
    struct zinf_device_options options = {};
    struct zinf_device_link_options link = {&mpi, 1,
                                            5}; /* fewer events than operations in flight */
    struct zinf_link_choice choice;
    struct zinf_error error = {};
    const struct zinf_device_backend *backend = zinf_device_backends()[0];
    options.event_count = 6;
    int status = backend->open(&device, &options, &error);
    if (!status)
        status = zinf_link_choose(&mpi, backend, &device.properties, &choice, &error);
    if (!status && !choice.direct)
        status = zinf_error_set(&error, ZINF_E_USAGE, "%s", choice.text);
    if (!status)
        status = backend->link->open(&device, &link, &comm, &error);
    if (status) {
        fprintf(stderr, "rank %d: %s\n", mpi.rank, error.text);
        return status;
    }
    arena = static_cast<char *>(
        mmap(nullptr, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    return arena == MAP_FAILED ? ZINF_E_RUNTIME : backend->pin(&device, arena, ARENA_BYTES);
}

static void close_link()
{
    comm.ops->close(&comm);
    device.backend->close(&device);
    munmap(arena, ARENA_BYTES);
}

int main(int argc, char **argv)
{
    linked = argc > 1 && !strcmp(argv[1], "link");
    int status = zinf_comm_mpi_open(host[linked], &argc, &argv);
    if (!status && linked)
        status = zinf_comm_agree(&mpi, open_link());
    if (status) {
        if (linked)
            mpi.ops->close(&mpi);
        return zinf_exit_code(status);
    }
    testing::InitGoogleTest(&argc, argv);
    if (!linked)
        arena = static_cast<char *>(comm.ops->map_shared(&comm, ARENA_BYTES));
    const char *wanted = getenv("WANT_SHARED");
    if (wanted && (atoi(wanted) != 0) != (arena != nullptr)) {
        fprintf(stderr, "rank %d: memory that ranks share is %s\n", comm.rank,
                arena ? "there" : "missing");
        zinf_abort(ZINF_E_RUNTIME);
    }
    if (comm.rank) {
        testing::TestEventListeners &listeners = testing::UnitTest::GetInstance()->listeners();
        if (!getenv("ALL_RANKS"))
            delete listeners.Release(listeners.default_result_printer());
    }
    int failed = RUN_ALL_TESTS();
    if (failed)
        fprintf(stderr, "rank %d of %d: failed (ALL_RANKS=1 shows every rank's output)\n",
                comm.rank, comm.size);
    failed = zinf_comm_agree(&comm, failed ? ZINF_E_RUNTIME : 0);
    if (linked)
        close_link();
    else if (arena)
        comm.ops->unmap_shared(&comm, arena);
    host[linked]->ops->close(host[linked]);
    return zinf_exit_code(failed);
}
