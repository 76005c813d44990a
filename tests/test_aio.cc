// The I/O engines: one body for each that is built in, with real files, real refusals and the fault
// seam.
#include "io/aio.h"
#include "set_fault.h"
#include "temporary_folder.hh"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <memory>
#include <random>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace
{
struct Memory {
    explicit Memory(size_t bytes) : bytes(bytes), data((unsigned char *)aligned_alloc(4096, bytes))
    {
        memset(data, 0, bytes);
    }
    ~Memory()
    {
        free(data);
    }
    Memory(const Memory &) = delete;
    Memory &operator=(const Memory &) = delete;
    size_t bytes;
    unsigned char *data;
};

// What stands at an offset of a file after its n-th writing.
unsigned char expected(uint64_t offset, uint64_t n)
{
    uint64_t x = (offset + 1) * 0x9e3779b97f4a7c15u + n * 0xbf58476d1ce4e5b9u;
    return (unsigned char)(x >> 56);
}

// An engine, a file and a registered pool.
struct Rig {
    zinf_aio aio = {};
    int descriptor = -1, file = -1;
    Memory memory;
    std::string path;

    Rig(const TemporaryFolder &folder, const char *engine, zinf_aio_options options,
        size_t pool_bytes, int flags)
        : memory(pool_bytes), path(folder / "file")
    {
        descriptor = open(path.c_str(), O_RDWR | O_CREAT | flags, 0600);
        EXPECT_GE(descriptor, 0);
        options.pool = memory.data;
        options.pool_bytes = memory.bytes;
        EXPECT_EQ(zinf_aio_open(&aio, engine, &options), 0);
        file = aio.engine->add_file(&aio, descriptor);
        EXPECT_GE(file, 0);
    }
    ~Rig()
    {
        zinf_aio_close(&aio);
        close(descriptor);
    }
    zinf_aio_request request(bool write, size_t place, size_t bytes, uint64_t offset)
    {
        zinf_aio_request request = {};
        request.write = write;
        request.file = file;
        request.buffer = memory.data + place;
        request.bytes = bytes;
        request.offset = offset;
        return request;
    }
    int move(bool write, size_t place, size_t bytes, uint64_t offset)
    {
        zinf_aio_request one = request(write, place, bytes, offset);
        aio.engine->submit(&aio, &one);
        aio.engine->wait(&aio, &one);
        EXPECT_TRUE(one.finished);
        return one.error;
    }
    void fill(size_t place, size_t bytes, uint64_t offset, uint64_t n)
    {
        for (size_t i = 0; i < bytes; i++)
            memory.data[place + i] = expected(offset + i, n);
    }
    bool holds(size_t place, size_t bytes, uint64_t offset, uint64_t n)
    {
        for (size_t i = 0; i < bytes; i++)
            if (memory.data[place + i] != expected(offset + i, n))
                return false;
        return true;
    }
};

class Engine : public testing::TestWithParam<const zinf_aio_engine *>
{
  protected:
    void SetUp() override
    {
        set_fault("");
    }
    void TearDown() override
    {
        set_fault("");
    }
    const char *name() const
    {
        return GetParam()->name;
    }
    TemporaryFolder folder;
};

zinf_aio_options options(int queue_depth, size_t block_bytes, int threads = 3)
{
    zinf_aio_options made = {};
    made.queue_depth = queue_depth;
    made.block_bytes = block_bytes;
    made.threads = threads;
    return made;
}

constexpr size_t KiB = 1024, MiB = 1024 * KiB;

TEST_P(Engine, WritesAndReadsTheSameBytesForAnyDepthAndBlock)
{
    for (int depth : {1, 3, 7, 64})
        for (size_t block : {4 * KiB, 12 * KiB, 1 * MiB, size_t(5000)}) {
            Rig rig(folder, name(), options(depth, block), 2 * MiB, O_DIRECT);
            const size_t bytes = 300 * KiB;
            rig.fill(0, bytes, 8192, depth);
            EXPECT_EQ(rig.move(true, 0, bytes, 8192), 0);
            EXPECT_EQ(rig.move(false, 1 * MiB, bytes, 8192), 0);
            EXPECT_TRUE(rig.holds(1 * MiB, bytes, 8192, depth)) << depth << " " << block;
            EXPECT_EQ(rig.aio.read_bytes, (int64_t)bytes);
            EXPECT_EQ(rig.aio.write_bytes, (int64_t)bytes);
        }
}

TEST_P(Engine, MovesBuffersOutsideThePoolAndBufferedFilesOfAnyLength)
{
    Rig rig(folder, name(), options(4, 64 * KiB), 1 * MiB, 0);
    std::vector<unsigned char> written(100001), read(100001);
    for (size_t i = 0; i < written.size(); i++)
        written[i] = expected(i, 5);
    for (bool write : {true, false}) {
        zinf_aio_request request = rig.request(write, 0, written.size(), 777);
        request.buffer = write ? written.data() : read.data();
        rig.aio.engine->submit(&rig.aio, &request);
        rig.aio.engine->wait(&rig.aio, &request);
        ASSERT_EQ(request.error, 0);
    }
    EXPECT_EQ(written, read);
    EXPECT_EQ(rig.move(false, 0, 0, 0), 0) << "nothing to move";
}

// 1000 writes and reads of random places, up to 8 at a time, each waited for in an order of its
// own; every byte checked.
TEST_P(Engine, AThousandRandomTransfersAreRight)
{
    const unsigned seed = 20260101;
    const size_t unit = 4 * KiB, slot = 16, slots = 8, units = 512;
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rig rig(folder, name(), options(5, 16 * KiB), slots * slot * unit, O_DIRECT);
    std::mt19937 random(seed);
    std::vector<int> written(units, 0), busy(units, 0); // which writing a unit holds
    struct Flight {
        zinf_aio_request request;
        size_t first = 0, count = 0;
        bool active = false;
    };
    std::vector<Flight> flights(slots);
    ASSERT_EQ(ftruncate(rig.descriptor, (off_t)(units * unit)), 0);
    auto land = [&](size_t place) {
        Flight &flight = flights[place];
        if (!flight.active)
            return;
        rig.aio.engine->wait(&rig.aio, &flight.request);
        ASSERT_EQ(flight.request.error, 0);
        for (size_t i = 0; i < flight.count; i++) {
            size_t u = flight.first + i, at = (place * slot + i) * unit;
            if (!flight.request.write && written[u]) {
                ASSERT_TRUE(rig.holds(at, unit, u * unit, (uint64_t)written[u])) << "unit " << u;
            }
            busy[u] = 0;
        }
        flight.active = false;
    };
    for (int transfer = 1; transfer <= 1000; transfer++) {
        size_t place = random() % slots;
        land(place);
        Flight &flight = flights[place];
        flight.count = 1 + random() % slot;
        flight.first = random() % (units - flight.count);
        bool write = random() % 2, clear = true;
        for (size_t i = 0; i < flight.count; i++)
            clear = clear && !busy[flight.first + i];
        if (!clear)
            for (size_t i = 0; i < slots; i++)
                land(i);
        for (size_t i = 0; i < flight.count; i++) {
            size_t u = flight.first + i;
            busy[u] = 1;
            if (write) {
                written[u] = transfer;
                rig.fill((place * slot + i) * unit, unit, u * unit, (uint64_t)transfer);
            }
        }
        flight.request =
            rig.request(write, place * slot * unit, flight.count * unit, flight.first * unit);
        flight.active = true;
        rig.aio.engine->submit(&rig.aio, &flight.request);
    }
    for (size_t i = 0; i < slots; i++)
        land(i);
}

TEST_P(Engine, TheEndOfTheFileIsAnError)
{
    Rig rig(folder, name(), options(4, 64 * KiB), 1 * MiB, O_DIRECT);
    ASSERT_EQ(rig.move(true, 0, 128 * KiB, 0), 0);
    zinf_aio_request request = rig.request(false, 0, 256 * KiB, 0);
    rig.aio.engine->submit(&rig.aio, &request);
    rig.aio.engine->wait(&rig.aio, &request);
    EXPECT_EQ(request.error, ENODATA);
    EXPECT_GE(request.error_offset, 128 * KiB);
    ASSERT_EQ(ftruncate(rig.descriptor, 100000), 0); // an end inside of a block
    auto begin = std::chrono::steady_clock::now();
    EXPECT_EQ(rig.move(false, 0, 128 * KiB, 0), ENODATA);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2));
    EXPECT_EQ(rig.move(false, 0, 64 * KiB, 0), 0) << "the engine works on";
}

TEST_P(Engine, ErrorsOfTheKernelReachTheRequest)
{
    Rig rig(folder, name(), options(4, 64 * KiB), 1 * MiB, O_DIRECT);
    int read_only = open(rig.path.c_str(), O_RDONLY);
    zinf_aio_request request = rig.request(true, 0, 256 * KiB, 0);
    request.file = rig.aio.engine->add_file(&rig.aio, read_only);
    ASSERT_GE(request.file, 0);
    rig.aio.engine->submit(&rig.aio, &request);
    rig.aio.engine->wait(&rig.aio, &request);
    EXPECT_EQ(request.error, EBADF);
    EXPECT_EQ(rig.move(true, 100, 4096, 0), EINVAL) << "a buffer that is not aligned";
    EXPECT_EQ(rig.aio.engine->add_file(&rig.aio, -1), -EBADF);
    close(read_only);
}

// A write across the limit of a file's length is cut by the kernel, and what is left refused.
TEST_P(Engine, AShortTransferOfTheKernelIsContinued)
{
    Rig rig(folder, name(), options(2, 1 * MiB), 1 * MiB, 0);
    rlimit before;
    getrlimit(RLIMIT_FSIZE, &before);
    rlimit limit = {300 * KiB, before.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    zinf_aio_request request = rig.request(true, 0, 512 * KiB, 0);
    rig.aio.engine->submit(&rig.aio, &request);
    rig.aio.engine->wait(&rig.aio, &request);
    setrlimit(RLIMIT_FSIZE, &before);
    EXPECT_EQ(request.error, EFBIG);
    EXPECT_EQ(request.error_offset, 300 * KiB);
    EXPECT_EQ(request.done_bytes, 300 * KiB);
}

struct Fault {
    const char *text;
    int error; // 0: the bytes must be right
};

// The n-th call of a transfer of ten pieces, for every n until none is hit.
TEST_P(Engine, EveryCallMayFailAndNothingIsSilent)
{
    const Fault faults[] = {{"err=EAGAIN", 0},  {"err=EINTR", 0}, {"short=4096", 0},
                            {"short=100", 0},   {"err=EIO", EIO}, {"err=ENOSPC", ENOSPC},
                            {"delay_us=300", 0}};
    for (const char *operation : {"read", "write"})
        for (const Fault &fault : faults)
            for (int n = 1; n <= 11; n++) {
                std::string text =
                    std::string("op=") + operation + ",n=" + std::to_string(n) + "," + fault.text;
                SCOPED_TRACE(text);
                bool writes = !strcmp(operation, "write");
                set_fault("");
                Rig rig(folder, name(), options(3, 16 * KiB), 1 * MiB, O_DIRECT);
                rig.fill(0, 160 * KiB, 0, (uint64_t)n);
                if (!writes) {
                    ASSERT_EQ(rig.move(true, 0, 160 * KiB, 0), 0);
                }
                set_fault(text);
                zinf_aio_request request =
                    rig.request(writes, writes ? 0 : 512 * KiB, 160 * KiB, 0);
                rig.aio.engine->submit(&rig.aio, &request);
                rig.aio.engine->wait(&rig.aio, &request);
                ASSERT_EQ(request.error, n > 10 ? 0 : fault.error);
                if (request.error) {
                    EXPECT_EQ(request.error_offset % (16 * KiB), 0u);
                    EXPECT_LT(request.error_offset, 160 * KiB);
                    continue;
                }
                EXPECT_EQ(request.done_bytes, 160 * KiB);
                if (writes) {
                    ASSERT_EQ(rig.move(false, 512 * KiB, 160 * KiB, 0), 0);
                }
                ASSERT_TRUE(rig.holds(512 * KiB, 160 * KiB, 0, (uint64_t)n));
            }
}

TEST_P(Engine, EveryCallShortStillMovesAll)
{
    Rig rig(folder, name(), options(4, 64 * KiB), 1 * MiB, O_DIRECT);
    rig.fill(0, 256 * KiB, 0, 3);
    set_fault("op=write,short=5000");
    ASSERT_EQ(rig.move(true, 0, 256 * KiB, 0), 0);
    set_fault("op=read,short=10");
    ASSERT_EQ(rig.move(false, 512 * KiB, 256 * KiB, 0), 0);
    EXPECT_TRUE(rig.holds(512 * KiB, 256 * KiB, 0, 3));
}

TEST_P(Engine, ADriveThatIsAlwaysBusyIsGivenUpWithinTwoSeconds)
{
    Rig rig(folder, name(), options(4, 64 * KiB), 1 * MiB, O_DIRECT);
    set_fault("op=write,err=EAGAIN");
    auto begin = std::chrono::steady_clock::now();
    EXPECT_EQ(rig.move(true, 0, 64 * KiB, 0), EAGAIN);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2));
}

// Delays make a drive of a known rate: one piece each 2 ms, whatever the depth and the engine; and
// the caller is free meanwhile.
TEST_P(Engine, DelaysMakeASlowDriveAndDoNotHoldTheCaller)
{
    Rig rig(folder, name(), options(4, 16 * KiB), 1 * MiB, O_DIRECT);
    set_fault("op=write,delay_us=2000");
    auto begin = std::chrono::steady_clock::now();
    zinf_aio_request request = rig.request(true, 0, 800 * KiB, 0);
    rig.aio.engine->submit(&rig.aio, &request);
    std::chrono::duration<double> submitted = std::chrono::steady_clock::now() - begin;
    rig.aio.engine->wait(&rig.aio, &request);
    std::chrono::duration<double> finished = std::chrono::steady_clock::now() - begin;
    EXPECT_EQ(request.error, 0);
    EXPECT_LT(submitted.count(), 0.05);
    EXPECT_GE(finished.count(), 0.1);
}

TEST_P(Engine, TransfersGoOnWhileTheCallerDoesOtherThings)
{
    Rig rig(folder, name(), options(2, 16 * KiB), 2 * MiB, O_DIRECT);
    zinf_aio_request requests[8];
    for (int i = 0; i < 8; i++) {
        requests[i] = rig.request(true, (size_t)i * 256 * KiB, 256 * KiB, (uint64_t)i * 256 * KiB);
        rig.aio.engine->submit(&rig.aio, &requests[i]);
    }
    bool all = false;
    for (int i = 0; i < 2000 && !all; i++) {
        usleep(1000); // and never a call of the engine
        all = true;
        for (auto &request : requests)
            all = all && __atomic_load_n(&request.finished, __ATOMIC_ACQUIRE);
    }
    EXPECT_TRUE(all);
    for (int i = 7; i >= 0; i--) // any order
        rig.aio.engine->wait(&rig.aio, &requests[i]);
}

INSTANTIATE_TEST_SUITE_P(All, Engine, testing::ValuesIn([] {
                             std::vector<const zinf_aio_engine *> list;
                             for (auto engine = zinf_aio_engines(); *engine; engine++)
                                 list.push_back(*engine);
                             return list;
                         }()),
                         [](const auto &info) { return std::string(info.param->name); });

TEST(Aio, AnUnknownEngineIsRefusedWithTheListOfThoseThereAre)
{
    zinf_aio aio;
    zinf_aio_options some = options(4, 64 * KiB);
    testing::internal::CaptureStderr();
    EXPECT_EQ(zinf_aio_open(&aio, "libaio", &some), ZINF_E_USAGE);
    EXPECT_NE(testing::internal::GetCapturedStderr().find("threads"), std::string::npos);
}

// From now on io_uring_setup fails with `number` in this process.
bool forbid_io_uring(int number)
{
    sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ((unsigned)number & SECCOMP_RET_DATA)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    sock_fprog program = {4, filter};
    return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
           !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

int count_of(const std::string &text, const std::string &what)
{
    int count = 0;
    for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at++)
        count++;
    return count;
}

// In a child: the engine that is opened, twice, with what it says on standard error.
std::string refused(int number, int *code)
{
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    pid_t child = fork();
    if (!child) {
        dup2(ends[1], 2);
        zinf_aio aio[2];
        zinf_aio_options some = options(4, 64 * KiB);
        if (!forbid_io_uring(number))
            _exit(77);
        for (auto &one : aio)
            if (zinf_aio_open(&one, nullptr, &some) || strcmp(one.engine->name, "threads") != 0)
                _exit(1);
        zinf_aio named;
        _exit(zinf_aio_open(&named, "io_uring", &some) == ZINF_E_RUNTIME ? 0 : 2);
    }
    close(ends[1]);
    std::string said;
    char piece[512];
    for (ssize_t count; (count = read(ends[0], piece, sizeof piece)) > 0;)
        said.append(piece, (size_t)count);
    close(ends[0]);
    waitpid(child, code, 0);
    return said;
}

TEST(Aio, WhereIoUringIsForbiddenThreadsDoItWithOneWarning)
{
    if (strcmp(zinf_aio_engines()[0]->name, "io_uring") != 0)
        GTEST_SKIP() << "built without liburing";
    for (int number : {EPERM, ENOSYS}) {
        int code;
        std::string said = refused(number, &code);
        if (WIFEXITED(code) && WEXITSTATUS(code) == 77)
            GTEST_SKIP() << "no seccomp filters here";
        EXPECT_EQ(code, 0) << said;
        EXPECT_EQ(count_of(said, "the engine \"threads\""), 1) << said;
        EXPECT_EQ(count_of(said, strerror(number)), 2) << said;
    }
}

// As a user with the usual limit of locked memory: not registered, said once, and working. root has
// no limit: become another user.
TEST(Aio, BeyondTheLimitOfLockedMemoryBuffersAreNotRegistered)
{
    if (strcmp(zinf_aio_engines()[0]->name, "io_uring") != 0)
        GTEST_SKIP() << "built without liburing";
    if (getuid() != 0)
        GTEST_SKIP() << "needs root to become another user";
    TemporaryFolder folder;
    pid_t child = fork();
    if (!child) {
        rlimit limit = {64 * KiB, 64 * KiB};
        std::string path = folder / "file";
        int descriptor = open(path.c_str(), O_RDWR | O_CREAT, 0600);
        if (setrlimit(RLIMIT_MEMLOCK, &limit) || setgid(65534) || setuid(65534))
            _exit(77);
        Memory memory(16 * MiB);
        zinf_aio_options some = options(4, 64 * KiB);
        some.pool = memory.data;
        some.pool_bytes = memory.bytes;
        zinf_aio aio;
        if (zinf_aio_open(&aio, nullptr, &some) || aio.registered)
            _exit(1);
        zinf_aio_request request = {};
        request.write = true;
        request.file = aio.engine->add_file(&aio, descriptor);
        request.buffer = memory.data;
        request.bytes = 1 * MiB;
        aio.engine->submit(&aio, &request);
        aio.engine->wait(&aio, &request);
        zinf_aio_close(&aio);
        _exit(request.error ? 2 : 0);
    }
    int code;
    waitpid(child, &code, 0);
    if (WIFEXITED(code) && WEXITSTATUS(code) == 77)
        GTEST_SKIP() << "cannot become another user";
    EXPECT_EQ(code, 0);
}
} // namespace
