// The NVMe tier's file: what is written comes back, what comes back wrong is found, and nothing is
// left behind.
#include "io/swap.h"
#include "set_fault.h"
#include "temporary_folder.hh"

#include <cerrno>
#include <csetjmp>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <random>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace
{
void name(void *, int extent, char *out, size_t out_bytes)
{
    snprintf(out, out_bytes, "layer %d, record %d", extent / 4, extent % 4);
}

const char *engine_name; // of the test that runs

// A swap file of equal extents with an engine and two buffers.
struct Swap {
    zinf_swap *swap = nullptr;
    zinf_aio aio = {};
    std::vector<size_t> sizes;
    size_t padded;
    unsigned char *buffer, *other, *bounce;
    int descriptor = -1; // of the same file

    Swap(const std::string &folder, int count, size_t bytes, bool checksums = true)
        : sizes((size_t)count, bytes), padded(zinf_swap_padded(bytes))
    {
        buffer = (unsigned char *)aligned_alloc(4096, padded);
        other = (unsigned char *)aligned_alloc(4096, padded);
        bounce = (unsigned char *)aligned_alloc(4096, padded);
        memset(buffer, 0, padded);
        memset(other, 0, padded);
        zinf_swap_options options = {folder.c_str(), sizes.data(), count, checksums, name, nullptr};
        zinf_error error = {};
        EXPECT_EQ(zinf_swap_open(&swap, &options, &error), 0) << error.text;
        zinf_aio_options some = {4, 64 * 1024, 2, nullptr, 0};
        EXPECT_EQ(zinf_aio_open(&aio, engine_name, &some), 0);
        EXPECT_EQ(zinf_swap_attach(swap, &aio), 0);
        reopen();
    }
    ~Swap()
    {
        close(descriptor);
        zinf_aio_close(&aio);
        zinf_swap_close(swap);
        free(buffer);
        free(other);
        free(bounce);
    }
    // The newest nameless file of this process, once more.
    void reopen()
    {
        for (int i = 255; i > 2 && descriptor < 0; i--) {
            std::string link = "/proc/self/fd/" + std::to_string(i);
            char target[512] = "";
            if (readlink(link.c_str(), target, sizeof target - 1) > 0 &&
                strstr(target, " (deleted)"))
                descriptor = open(link.c_str(), O_RDWR | (zinf_swap_direct(swap) ? O_DIRECT : 0));
        }
        ASSERT_GE(descriptor, 0);
    }
    void write(int extent, unsigned char *data)
    {
        zinf_swap_transfer transfer;
        zinf_swap_write(swap, &aio, &transfer, extent, data);
        zinf_swap_wait(swap, &aio, &transfer);
    }
    void read(int extent, unsigned char *data)
    {
        zinf_swap_transfer transfer;
        zinf_swap_read(swap, &aio, &transfer, extent, data);
        zinf_swap_wait(swap, &aio, &transfer);
    }
    void raw_read(int extent, void *data)
    {
        EXPECT_EQ(pread(descriptor, bounce, padded, (off_t)padded * extent), (ssize_t)padded);
        memcpy(data, bounce, padded);
    }
    void raw_write(int extent, const void *data)
    {
        memcpy(bounce, data, padded);
        EXPECT_EQ(pwrite(descriptor, bounce, padded, (off_t)padded * extent), (ssize_t)padded);
    }
    void randomize(std::mt19937 &random, unsigned char *data)
    {
        for (size_t i = 0; i < padded; i += 4) {
            uint32_t value = (uint32_t)random();
            memcpy(data + i, &value, 4);
        }
    }
};

sigjmp_buf back;
void jump_back(int exit_code)
{
    siglongjmp(back, exit_code + 100);
}

// The exit code with which zinf_abort() ended `act`, or -1 when it did not.
template <class Act> int aborted(Act act)
{
    int code = sigsetjmp(back, 1);
    if (code)
        return code - 100;
    zinf_set_abort_hook(jump_back);
    act();
    return -1;
}

void be_silent(FILE *nowhere)
{
    zinf_log_options options = {};
    options.terminal = nowhere;
    zinf_log_configure(&options);
}

class SwapTest : public testing::TestWithParam<const zinf_aio_engine *>
{
  protected:
    void SetUp() override
    {
        engine_name = GetParam()->name;
        set_fault("");
        GTEST_FLAG_SET(death_test_style, "fast"); // the folder stays the same; no thread is alive
    }
    void TearDown() override
    {
        set_fault("");
        zinf_set_abort_hook(nullptr);
        be_silent(nullptr);
    }
    TemporaryFolder folder;
};

TEST(Swap, ExtentsAreRoundedUpToWholeBlocks)
{
    EXPECT_EQ(zinf_swap_padded(0), 0u);
    EXPECT_EQ(zinf_swap_padded(1), 4096u);
    EXPECT_EQ(zinf_swap_padded(4096), 4096u);
    EXPECT_EQ(zinf_swap_padded(4097), 8192u);
}

TEST_P(SwapTest, ExtentsOfDifferentSizesComeBackAsTheyWereWritten)
{
    std::vector<size_t> sizes = {1, 4096, 300001, 0, 8192, 1 << 20};
    zinf_swap_options options = {
        folder.path().c_str(), sizes.data(), (int)sizes.size(), true, name, nullptr};
    zinf_swap *swap;
    zinf_error error = {};
    ASSERT_EQ(zinf_swap_open(&swap, &options, &error), 0) << error.text;
    zinf_aio aio;
    zinf_aio_options some = {4, 64 * 1024, 2, nullptr, 0};
    ASSERT_EQ(zinf_aio_open(&aio, engine_name, &some), 0);
    ASSERT_EQ(zinf_swap_attach(swap, &aio), 0);
    auto *memory = (unsigned char *)aligned_alloc(4096, 2 << 20);
    std::mt19937 random(7);
    std::vector<unsigned> seeds(sizes.size());
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < sizes.size(); i++) {
            seeds[i] = (unsigned)random();
            std::mt19937 bytes(seeds[i]);
            for (size_t k = 0; k < zinf_swap_padded(sizes[i]); k++)
                memory[k] = (unsigned char)bytes();
            zinf_swap_transfer transfer;
            zinf_swap_write(swap, &aio, &transfer, (int)i, memory);
            zinf_swap_wait(swap, &aio, &transfer);
        }
        for (size_t i = 0; i < sizes.size(); i++) {
            zinf_swap_transfer transfer;
            zinf_swap_read(swap, &aio, &transfer, (int)i, memory);
            zinf_swap_wait(swap, &aio, &transfer);
            std::mt19937 bytes(seeds[i]);
            size_t wrong = 0;
            for (size_t k = 0; k < zinf_swap_padded(sizes[i]); k++)
                wrong += memory[k] != (unsigned char)bytes();
            EXPECT_EQ(wrong, 0u) << "extent " << i;
        }
    }
    free(memory);
    zinf_aio_close(&aio);
    zinf_swap_close(swap);
}

TEST_P(SwapTest, TheFileIsPrivateNamelessReservedAndWritten)
{
    Swap swap(folder.path(), 8, 100000);
    struct stat status;
    ASSERT_EQ(fstat(swap.descriptor, &status), 0);
    EXPECT_EQ(status.st_mode & 07777, 0600u);
    EXPECT_EQ(status.st_nlink, 0u);
    EXPECT_EQ(status.st_size, (off_t)(8 * swap.padded));
    EXPECT_GE(status.st_blocks * 512, (off_t)(8 * swap.padded));
    EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
    for (int i = 0; i < 8; i++) { // zeros, and their checksum is known
        memset(swap.buffer, 1, swap.padded);
        swap.read(i, swap.buffer);
        EXPECT_EQ(std::vector<unsigned char>(swap.buffer, swap.buffer + swap.padded),
                  std::vector<unsigned char>(swap.padded, 0));
    }
}

TEST_P(SwapTest, AKilledProcessLeavesNothing)
{
    struct statfs before, after;
    statfs(folder.path().c_str(), &before);
    pid_t child = fork();
    if (!child) {
        Swap swap(folder.path(), 4, 1 << 20);
        raise(SIGKILL);
    }
    int code;
    waitpid(child, &code, 0);
    EXPECT_TRUE(WIFSIGNALED(code));
    EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
    statfs(folder.path().c_str(), &after);
    EXPECT_EQ(before.f_files, after.f_files);
}

// 300 each of flipped bits, older data, data of a neighbour, and writes that never arrived.
TEST_P(SwapTest, WrongDataIsAlwaysFound)
{
    enum { FLIPPED, STALE, MISDIRECTED, LOST, KINDS };
    const int extents = 12;
    const unsigned seed = 4711;
    std::mt19937 random(seed);
    Swap swap(folder.path(), extents, 5000); // so padding is hit too
    std::vector<unsigned char> older(swap.padded), newer(swap.padded);
    FILE *nowhere = fopen("/dev/null", "w");
    be_silent(nowhere);
    int found[KINDS] = {}, right = 0;
    for (int round = 0; round < 300; round++)
        for (int kind = 0; kind < KINDS; kind++) {
            int extent = (int)(random() % extents),
                neighbour = (int)((extent + 1 + random() % (extents - 1)) % extents);
            swap.randomize(random, swap.buffer);
            swap.write(extent, swap.buffer);
            swap.raw_read(extent, older.data());
            swap.randomize(random, swap.buffer);
            swap.write(extent, swap.buffer);
            swap.raw_read(extent, newer.data());
            if (kind == FLIPPED) {
                std::vector<unsigned char> flipped = newer;
                size_t bit = random() % (8 * swap.padded);
                flipped[bit / 8] ^= (unsigned char)(1 << bit % 8);
                swap.raw_write(extent, flipped.data());
            } else if (kind == STALE) {
                swap.raw_write(extent, older.data());
            } else if (kind == MISDIRECTED) { // the neighbour's write came here
                swap.randomize(random, swap.buffer);
                swap.write(neighbour, swap.buffer);
                swap.raw_write(extent, swap.buffer);
            } else { // all but the first block of the last write was lost
                std::vector<unsigned char> torn = older;
                memcpy(torn.data(), newer.data(), 4096);
                swap.raw_write(extent, torn.data());
            }
            found[kind] += aborted([&] { swap.read(extent, swap.other); }) == 1;
            swap.raw_write(extent, newer.data());
            swap.read(extent, swap.other);
            right += !memcmp(swap.other, newer.data(), swap.padded);
        }
    be_silent(nullptr);
    fclose(nowhere);
    for (int kind = 0; kind < KINDS; kind++)
        EXPECT_EQ(found[kind], 300) << "kind " << kind << ", seed " << seed;
    EXPECT_EQ(right, 300 * KINDS);
}

TEST_P(SwapTest, WithoutChecksumsWrongDataIsNotLookedFor)
{
    Swap swap(folder.path(), 2, 4096, false);
    memset(swap.buffer, 3, swap.padded);
    swap.raw_write(1, swap.buffer);
    swap.read(1, swap.other);
    EXPECT_EQ(swap.other[0], 3);
}

TEST_P(SwapTest, WrongDataEndsTheRunNamingAllThatIsKnown)
{
    EXPECT_EXIT(
        {
            Swap swap(folder.path(), 8, 8192);
            swap.write(5, swap.buffer);
            memset(swap.buffer, 9, swap.padded);
            swap.raw_write(5, swap.buffer);
            swap.read(5, swap.other);
        },
        testing::ExitedWithCode(1),
        "swap file in " + folder.path() +
            ": read of 8192 bytes at offset 40960 .extent 5: layer 1, record 1, generation "
            "1.*checksum");
}

TEST_P(SwapTest, AReadThatIsWrongOnceIsRepeated)
{
    Swap swap(folder.path(), 2, 4096);
    memset(swap.buffer, 9, swap.padded);
    swap.raw_write(1, swap.buffer);
    zinf_swap_transfer transfer;
    memset(swap.other, 1, swap.padded);
    zinf_swap_read(swap.swap, &swap.aio, &transfer, 1, swap.other);
    swap.aio.engine->wait(&swap.aio, &transfer.request); // has brought the nines
    memset(swap.buffer, 0, swap.padded);
    swap.raw_write(1, swap.buffer);
    testing::internal::CaptureStderr();
    zinf_swap_wait(swap.swap, &swap.aio, &transfer);
    EXPECT_NE(testing::internal::GetCapturedStderr().find("wrong once"), std::string::npos);
    EXPECT_EQ(swap.other[100], 0);
}

TEST_P(SwapTest, AFailedTransferEndsTheRunNamingAllThatIsKnown)
{
    EXPECT_EXIT(
        {
            Swap swap(folder.path(), 8, 200000);
            set_fault("op=read,n=2,err=EIO");
            swap.read(2, swap.other);
        },
        testing::ExitedWithCode(1),
        "swap file in " + folder.path() +
            ": read of 200704 bytes at offset 401408 .extent 2: layer 0, record 2.*failed at "
            "offset "
            "466944: Input/output error");
    EXPECT_EXIT(
        {
            Swap swap(folder.path(), 8, 200000);
            set_fault("op=write,n=1,err=ENOSPC");
            swap.write(2, swap.other);
        },
        testing::ExitedWithCode(1), "write of 200704 bytes at offset 401408.*No space left");
    EXPECT_EXIT(
        {
            Swap swap(folder.path(), 8, 200000);
            EXPECT_EQ(ftruncate(swap.descriptor, 1000000), 0);
            swap.read(7, swap.other);
        },
        testing::ExitedWithCode(1), "extent 7.*the file ends before");
}

TEST_P(SwapTest, WhatCanBeRecoveredIsBitExact)
{
    std::mt19937 random(3);
    Swap swap(folder.path(), 4, 200000);
    for (const char *operation : {"read", "write"})
        for (const char *fault : {"err=EAGAIN", "err=EINTR", "short=4096", "short=1"})
            for (int n = 1; n <= 5; n++) {
                set_fault(std::string("op=") + operation + ",n=" + std::to_string(n) + "," + fault);
                swap.randomize(random, swap.buffer);
                swap.write(n % 4, swap.buffer);
                swap.read(n % 4, swap.other);
                EXPECT_EQ(memcmp(swap.buffer, swap.other, swap.padded), 0);
            }
}

TEST_P(SwapTest, OneExtentMayBeReadWhileAnotherIsWritten)
{
    Swap swap(folder.path(), 3, 1 << 20);
    memset(swap.buffer, 5, swap.padded);
    swap.write(0, swap.buffer);
    zinf_swap_transfer writing, reading;
    zinf_swap_write(swap.swap, &swap.aio, &writing, 1, swap.buffer);
    zinf_swap_read(swap.swap, &swap.aio, &reading, 0, swap.other);
    zinf_swap_wait(swap.swap, &swap.aio, &reading);
    zinf_swap_wait(swap.swap, &swap.aio, &writing);
    EXPECT_EQ(swap.other[77], 5);
}

int open_status(const std::string &folder, size_t bytes, zinf_error *error)
{
    zinf_swap_options options = {folder.c_str(), &bytes, 1, true, name, nullptr};
    zinf_swap *swap = nullptr;
    int status = zinf_swap_open(&swap, &options, error);
    zinf_swap_close(swap);
    return status;
}

TEST(Swap, AFolderThatIsMissingOrNoFolderOrForbiddenIsAUsersError)
{
    TemporaryFolder folder;
    zinf_error error = {};
    EXPECT_EQ(open_status(folder / "missing", 4096, &error), ZINF_E_USAGE);
    EXPECT_NE(strstr(error.text, "missing"), nullptr);
    EXPECT_NE(strstr(error.text, "No such file"), nullptr);
    folder.write("file", "x");
    EXPECT_EQ(open_status(folder / "file", 4096, &error), ZINF_E_USAGE);
    EXPECT_NE(strstr(error.text, "Not a directory"), nullptr);
    set_fault("op=open,n=1,err=EACCES");
    EXPECT_EQ(open_status(folder.path(), 4096, &error), ZINF_E_USAGE);
    EXPECT_NE(strstr(error.text, "Permission denied"), nullptr);
    set_fault("op=open,n=1,err=EROFS");
    EXPECT_EQ(open_status(folder.path(), 4096, &error), ZINF_E_USAGE);
    set_fault("");
}

TEST(Swap, AFolderThatAnotherUserOwnsIsRefused)
{
    if (getuid() != 0)
        GTEST_SKIP() << "needs root to become another user";
    TemporaryFolder folder;
    ASSERT_EQ(chmod(folder.path().c_str(), 0755), 0);
    pid_t child = fork();
    if (!child) {
        zinf_error error = {};
        if (setgid(65534) || setuid(65534))
            _exit(77);
        bool said = open_status(folder.path(), 4096, &error) == ZINF_E_USAGE &&
                    strstr(error.text, "Permission denied") &&
                    strstr(error.text, folder.path().c_str());
        _exit(said ? 0 : 1);
    }
    int code;
    waitpid(child, &code, 0);
    EXPECT_EQ(code, 0);
}

TEST(Swap, WhatDoesNotFitIsFoundAtOnceWithNumbers)
{
    TemporaryFolder folder;
    zinf_error error = {};
    EXPECT_EQ(open_status(folder.path(), (size_t)1 << 50, &error), ZINF_E_DOES_NOT_FIT);
    EXPECT_NE(strstr(error.text, "1125899906842624 bytes"), nullptr) << error.text;
    set_fault("op=fallocate,n=1,err=ENOSPC");
    EXPECT_EQ(open_status(folder.path(), 1 << 20, &error), ZINF_E_DOES_NOT_FIT);
    set_fault("op=write,n=1,err=ENOSPC");
    EXPECT_EQ(open_status(folder.path(), 1 << 20, &error), ZINF_E_DOES_NOT_FIT);
    set_fault("op=write,n=2,err=EIO");
    EXPECT_EQ(open_status(folder.path(), 20 << 20, &error), ZINF_E_RUNTIME);
    EXPECT_NE(strstr(error.text, "Input/output error"), nullptr) << error.text;
    set_fault("");
    EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Swap, AFullTmpfsIsFoundAndAFittingOneWorksBuffered)
{
    TemporaryFolder folder;
    if (mount("zinf-test", folder.path().c_str(), "tmpfs", 0, "size=20m"))
        GTEST_SKIP() << "cannot mount a tmpfs: " << strerror(errno);
    zinf_error error = {};
    EXPECT_EQ(open_status(folder.path(), 30 << 20, &error), ZINF_E_DOES_NOT_FIT);
    EXPECT_NE(strstr(error.text, "31457280 bytes"), nullptr) << error.text;
    EXPECT_NE(strstr(error.text, "20971520 bytes (0.02 GiB) are free"), nullptr) << error.text;
    engine_name = nullptr;
    {
        Swap swap(folder.path(), 4, 1 << 20);
        EXPECT_FALSE(zinf_swap_direct(swap.swap));
        memset(swap.buffer, 5, swap.padded);
        swap.write(3, swap.buffer);
        swap.read(3, swap.other);
        EXPECT_EQ(swap.other[12345], 5);
    }
    /* The kernel lets go of a closed ring's files a moment later. */
    EXPECT_EQ(0, umount2(folder.path().c_str(), MNT_DETACH)) << strerror(errno);
}

INSTANTIATE_TEST_SUITE_P(All, SwapTest, testing::ValuesIn([] {
                             std::vector<const zinf_aio_engine *> list;
                             for (auto engine = zinf_aio_engines(); *engine; engine++)
                                 list.push_back(*engine);
                             return list;
                         }()),
                         [](const auto &info) { return std::string(info.param->name); });
} // namespace
