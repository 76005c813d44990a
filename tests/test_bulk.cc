/*
 * Bulk writing: whatever the runs, every byte is where it belongs, neighbours' bytes in shared
 * blocks stay, and failures are told.
 */
#include "io/bulk.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fcntl.h>
#include <fstream>
#include <random>
#include <unistd.h>
#include <vector>

#include "set_fault.h"
#include "temporary_folder.hh"

class Bulk : public ::testing::Test
{
  protected:
    TemporaryFolder folder;
    int descriptor = -1;
    std::string path;
    struct zinf_error error = {};

    void make(size_t bytes)
    {
        path = folder / "file";
        descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
        ASSERT_GE(descriptor, 0);
        ASSERT_EQ(ftruncate(descriptor, static_cast<off_t>(bytes)), 0);
    }
    std::vector<char> contents() const
    {
        std::ifstream in(path, std::ios::binary);
        return {std::istreambuf_iterator<char>(in), {}};
    }
    void TearDown() override
    {
        set_fault("");
        if (descriptor >= 0)
            close(descriptor);
    }
};

struct Span {
    size_t begin, end;
};

/* The file cut into runs at random places, many of them inside blocks. */
static std::vector<Span> cut(size_t bytes, size_t runs, std::mt19937 &random)
{
    std::vector<size_t> borders = {0, bytes};
    for (size_t i = 0; i + 1 < runs; i++)
        borders.push_back(i % 3 ? random() % bytes : random() % bytes / 4096 * 4096);
    std::sort(borders.begin(), borders.end());
    std::vector<Span> list;
    for (size_t i = 0; i + 1 < borders.size(); i++)
        list.push_back({borders[i], borders[i + 1]});
    return list;
}

/* Two writers share the runs, as two ranks do: both write blocks, then both write edges. */
static int write_by_two(int descriptor, const char *path, const std::vector<Span> &runs,
                        const std::vector<char> &data, struct zinf_error *error)
{
    struct zinf_bulk *writers[2] = {};
    int status = 0;
    for (auto &writer : writers)
        if (!status)
            status = zinf_bulk_open(&writer, descriptor, path, error);
    for (size_t i = 0; i < runs.size() && !status; i++)
        zinf_bulk_write(writers[i * 7 % 3 % 2], &data[runs[i].begin], runs[i].end - runs[i].begin,
                        static_cast<int64_t>(runs[i].begin));
    for (auto &writer : writers)
        if (!status)
            status = zinf_bulk_flush(writer, error);
    for (auto &writer : writers)
        if (!status)
            status = zinf_bulk_write_edges(writer, error);
    for (auto &writer : writers)
        zinf_bulk_close(writer);
    return status;
}

TEST_F(Bulk, EveryByteIsInItsPlaceWhateverTheRuns)
{
    std::mt19937 random(5);
    for (size_t bytes : {size_t(1), size_t(4096), size_t(100000), size_t(23 << 20) + 77})
        for (size_t count : {1, 2, 9, 200}) {
            std::vector<char> data(bytes);
            for (char &byte : data)
                byte = static_cast<char>(random());
            make(bytes);
            std::vector<Span> runs = cut(bytes, count, random);
            std::shuffle(runs.begin(), runs.end(), random);
            EXPECT_EQ(write_by_two(descriptor, path.c_str(), runs, data, &error), 0) << error.text;
            EXPECT_TRUE(contents() == data) << bytes << " bytes in " << count << " runs";
            close(descriptor);
            descriptor = -1;
        }
}

TEST_F(Bulk, RunsThatFollowEachOtherShareBuffersAndBlocks)
{
    std::vector<char> data(1000003);
    for (size_t i = 0; i < data.size(); i++)
        data[i] = static_cast<char>(i * 31 >> 3);
    make(data.size());
    std::vector<Span> runs;
    for (size_t at = 0; at < data.size(); at += 1000)
        runs.push_back({at, std::min(at + 1000, data.size())});
    struct zinf_bulk *bulk = nullptr;
    set_fault("op=write,n=3,err=EIO"); /* one write of blocks, one edge: no third */
    ASSERT_EQ(zinf_bulk_open(&bulk, descriptor, path.c_str(), &error), 0);
    for (const Span &run : runs)
        EXPECT_EQ(zinf_bulk_write(bulk, &data[run.begin], run.end - run.begin,
                                  static_cast<int64_t>(run.begin)),
                  0);
    EXPECT_EQ(zinf_bulk_flush(bulk, &error), 0);
    EXPECT_EQ(zinf_bulk_write_edges(bulk, &error), 0);
    zinf_bulk_close(bulk);
    EXPECT_TRUE(contents() == data);
}

TEST_F(Bulk, AFailedWriteIsToldWithPlaceAndReason)
{
    std::vector<char> data(20 << 20, 'x');
    for (const char *fault : {"op=write,n=1,err=ENOSPC", "op=write,n=20,err=ENOSPC"}) {
        make(data.size() + 5);
        set_fault(fault);
        EXPECT_EQ(write_by_two(descriptor, path.c_str(), {{0, data.size()}}, data, &error),
                  ZINF_E_NO_SPACE);
        EXPECT_NE(std::string(error.text).find("bytes at offset"), std::string::npos) << error.text;
        EXPECT_NE(std::string(error.text).find("No space left"), std::string::npos) << error.text;
        set_fault("");
        close(descriptor);
        descriptor = -1;
    }
}

TEST_F(Bulk, ShortAndInterruptedWritesAreContinued)
{
    std::vector<char> data(9 << 20);
    for (size_t i = 0; i < data.size(); i++)
        data[i] = static_cast<char>(i >> 9);
    for (const char *fault :
         {"op=write,n=2,short=512", "op=write,n=2,err=EINTR", "op=write,n=2,err=EAGAIN"}) {
        make(data.size());
        set_fault(fault);
        EXPECT_EQ(
            write_by_two(descriptor, path.c_str(), {{0, 5000}, {5000, data.size()}}, data, &error),
            0)
            << fault << error.text;
        set_fault("");
        EXPECT_TRUE(contents() == data) << fault;
        close(descriptor);
        descriptor = -1;
    }
}
