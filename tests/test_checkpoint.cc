/*
 * Checkpoints on one rank: round trip, layout, and above all what must never happen: a file under
 * its name that is not whole, a damaged file that is taken, anything left behind.
 */
#include "io/checkpoint.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <hdf5.h>
#include <random>
#include <sys/resource.h>

#include "checkpoint_sample.h"
#include "io/checkpoint_format.h"
#include "io/hdf5_file.h"
#include "set_fault.h"
#include "topology/comm_mpi.h"

namespace fs = std::filesystem;

static struct zinf_comm comm;

class Checkpoint : public ::testing::Test
{
  protected:
    fs::path folder, path;
    struct zinf_error error = {};
    struct zinf_checkpoint_file *file = nullptr;

    void SetUp() override
    {
        char name[] = "/tmp/zinf-checkpoint-XXXXXX";
        ASSERT_NE(mkdtemp(name), nullptr);
        folder = name;
        path = folder / "step-00000012.h5";
    }
    void TearDown() override
    {
        set_fault("");
        zinf_checkpoint_close(file);
        fs::remove_all(folder);
    }
    int save(const Sample &sample)
    {
        return zinf_checkpoint_save(&comm, path.c_str(), &sample.checkpoint);
    }
    int open()
    {
        zinf_checkpoint_close(file);
        file = nullptr;
        return zinf_checkpoint_open(&file, &comm, path.c_str(), &error);
    }
    /* 0 when the file opens, verifies, and holds exactly the sample. */
    int64_t check(Sample &sample)
    {
        int status = open();
        if (!status)
            status = zinf_checkpoint_verify(file, &error);
        sample.clear();
        if (!status)
            status = zinf_checkpoint_load(file, sample.arrays.data(),
                                          static_cast<int>(sample.arrays.size()), &error);
        return status ? status : sample.wrong();
    }
    std::string bytes() const
    {
        std::ifstream in(path, std::ios::binary);
        return {std::istreambuf_iterator<char>(in), {}};
    }
    void put(const std::string &content) const
    {
        fs::remove(path); /* ext4 brings a file to disk that is cut and written again */
        std::ofstream(path, std::ios::binary) << content;
    }
    long files() const
    {
        return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
    }
};

TEST_F(Checkpoint, RoundTripIsBitEqual)
{
    Sample sample(0, 1, true);
    ASSERT_EQ(save(sample), 0);
    EXPECT_EQ(files(), 1);
    EXPECT_EQ(check(sample), 0) << error.text;
    int64_t integer = 0;
    double real = 0;
    EXPECT_EQ(zinf_checkpoint_attribute(file, "step", &integer, &real), 0);
    EXPECT_EQ(integer, 12);
    EXPECT_EQ(zinf_checkpoint_attribute(file, "lr", nullptr, &real), 0);
    EXPECT_EQ(real, 6.25e-5);
    EXPECT_EQ(zinf_checkpoint_attribute(file, "format_version", &integer, nullptr), 0);
    EXPECT_EQ(integer, ZINF_CHECKPOINT_VERSION);
    EXPECT_EQ(zinf_checkpoint_attribute(file, "none", &integer, &real), -1);
    EXPECT_STREQ(zinf_checkpoint_text(file, "config"), "{\"zinf\": {}}");
    EXPECT_STREQ(zinf_checkpoint_text(file, "empty"), "");
    EXPECT_EQ(zinf_checkpoint_text(file, "none"), nullptr);
}

TEST_F(Checkpoint, DatasetsAreAlignedAndTheLinkIsTheHead)
{
    Sample sample(0, 1, true);
    ASSERT_EQ(save(sample), 0);
    ASSERT_EQ(open(), 0) << error.text;
    const struct zinf_checkpoint_entry *entries;
    int count = zinf_checkpoint_entries(file, &entries), links = 0;
    EXPECT_EQ(count, static_cast<int>(sample.shapes.size()) + 1 + 4);
    for (int i = 0; i < count; i++) {
        if (entries[i].file_offset >= 0) {
            EXPECT_EQ(entries[i].file_offset % (entries[i].bytes >= 1 << 20 ? 1 << 20 : 4096), 0)
                << entries[i].path;
        }
        if (entries[i].link_target) {
            links++;
            EXPECT_STREQ(entries[i].path, "/model/lm_head.weight");
            EXPECT_STREQ(entries[i].link_target, "/model/transformer.wte.weight");
        }
    }
    EXPECT_EQ(links, 1);
    const int64_t shape[] = {97, 13}, other[] = {13, 97};
    EXPECT_TRUE(zinf_checkpoint_has(file, "/model/lm_head.weight", 2, shape));
    EXPECT_FALSE(zinf_checkpoint_has(file, "/model/lm_head.weight", 2, other));
    EXPECT_FALSE(zinf_checkpoint_has(file, "/model/lm_head", 2, shape));
    EXPECT_FALSE(zinf_checkpoint_has(file, "/provenance/config", 1, shape));
}

TEST_F(Checkpoint, EqualContentsGiveEqualBytes)
{
    Sample sample(0, 1, false);
    ASSERT_EQ(save(sample), 0);
    std::string first = bytes();
    ASSERT_EQ(save(sample), 0); /* over the old one */
    EXPECT_EQ(bytes(), first);
}

/* Every n-th call of every operation fails, until a save needs no n calls. */
TEST_F(Checkpoint, AFailedCallLeavesNothingOrAWholeFile)
{
    Sample sample(0, 1, false);
    const struct {
        const char *name;
        int status;
    } errors[] = {
        {"EIO", ZINF_E_RUNTIME}, {"ENOSPC", ZINF_E_NO_SPACE}, {"EDQUOT", ZINF_E_NO_SPACE}};
    for (const char *operation : {"open", "fallocate", "write", "fsync", "rename"})
        for (const auto &one : errors) {
            int n = 1;
            for (;; n++) {
                std::string fault =
                    std::string("op=") + operation + ",n=" + std::to_string(n) + ",err=" + one.name;
                fs::remove(path);
                set_fault(fault);
                testing::internal::CaptureStderr();
                int status = save(sample);
                std::string said = testing::internal::GetCapturedStderr();
                set_fault("");
                if (status == 0)
                    break;
                EXPECT_EQ(status, one.status) << fault;
                EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << fault << said;
                EXPECT_NE(said.find(folder.string()), std::string::npos) << said;
                if (fs::exists(path)) {
                    EXPECT_EQ(check(sample), 0) << fault;
                    EXPECT_EQ(files(), 1) << fault;
                } else {
                    EXPECT_EQ(files(), 0) << fault;
                }
                ASSERT_LT(n, 500);
            }
            EXPECT_GT(n, 1) << operation << " never failed";
            EXPECT_EQ(check(sample), 0) << operation;
        }
}

TEST_F(Checkpoint, AnOlderFileSurvivesAFailedSave)
{
    Sample sample(0, 1, false);
    ASSERT_EQ(save(sample), 0);
    std::string before = bytes();
    set_fault("op=write,n=9,err=EIO");
    EXPECT_EQ(save(sample), ZINF_E_RUNTIME);
    set_fault("");
    EXPECT_EQ(bytes(), before);
    EXPECT_EQ(files(), 1);
}

TEST_F(Checkpoint, ShortAndInterruptedTransfersAreContinued)
{
    Sample sample(0, 1, false);
    ASSERT_EQ(save(sample), 0);
    std::string expected = bytes();
    for (const char *fault :
         {"op=write,short=1000", "op=write,n=3,err=EINTR", "op=write,n=5,err=EAGAIN",
          "op=open,n=1,err=EINTR", "op=fallocate,n=1,err=EINTR", "op=fallocate,n=1,err=EOPNOTSUPP",
          "op=fsync,n=1,err=EINTR", "op=rename,n=1,err=EINTR"}) {
        fs::remove(path);
        set_fault(fault);
        EXPECT_EQ(save(sample), 0) << fault;
        set_fault("");
        EXPECT_EQ(bytes(), expected) << fault;
    }
    for (const char *fault :
         {"op=read,short=999", "op=read,n=7,err=EINTR", "op=read,n=20,err=EAGAIN"}) {
        set_fault(fault);
        EXPECT_EQ(check(sample), 0) << fault << error.text;
    }
}

TEST_F(Checkpoint, EveryFailedReadIsAnError)
{
    Sample sample(0, 1, false);
    ASSERT_EQ(save(sample), 0);
    int n = 1;
    for (;; n++) {
        set_fault("op=read,n=" + std::to_string(n) + ",err=EIO");
        int64_t status = check(sample);
        set_fault("");
        /* The first reads belong to the look at the version, which a second look repeats. */
        if (status == 0 && check(sample) == 0 && n > 20)
            break;
        if (status != 0) {
            EXPECT_EQ(status, ZINF_E_CHECKPOINT) << n;
        }
        ASSERT_LT(n, 2000);
    }
    EXPECT_GT(n, 40);
}

TEST_F(Checkpoint, AFileSizeLimitIsAFullDisk)
{
    Sample sample(0, 1, true);
    struct rlimit old, limit;
    getrlimit(RLIMIT_FSIZE, &old);
    limit = old;
    limit.rlim_cur = 8 << 20; /* the sample has 9 MB */
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    testing::internal::CaptureStderr();
    EXPECT_EQ(save(sample), ZINF_E_NO_SPACE);
    EXPECT_NE(testing::internal::GetCapturedStderr().find("warning: "), std::string::npos);
    setrlimit(RLIMIT_FSIZE, &old);
    EXPECT_EQ(files(), 0);
}

/* What the file says, all of it, as one string: equal strings = nothing that zinf reads has
 * changed. */
static std::string contents(struct zinf_checkpoint_file *file)
{
    std::string all;
    const struct zinf_checkpoint_entry *entries;
    struct zinf_error error;
    int count = zinf_checkpoint_entries(file, &entries);
    for (int i = 0; i < count; i++) {
        std::vector<float> values(entries[i].bytes / 4);
        all += std::string(entries[i].path) + ":" + std::to_string(entries[i].dim_count);
        for (int d = 0; d < entries[i].dim_count; d++)
            all += "," + std::to_string(entries[i].shape[d]);
        if (entries[i].file_offset >= 0 &&
            !zinf_checkpoint_read(file, entries[i].path, 0, static_cast<int64_t>(values.size()),
                                  values.data(), &error))
            all.append(reinterpret_cast<char *>(values.data()), 4 * values.size());
        else
            all += zinf_checkpoint_text(file, entries[i].path + strlen("/provenance/"));
    }
    const struct zinf_attribute *attributes;
    count = zinf_checkpoint_attributes(file, &attributes);
    for (int i = 0; i < count; i++)
        all += std::string(attributes[i].name) + "=" + std::to_string(attributes[i].integer) + "," +
               std::to_string(attributes[i].real);
    return all;
}

/* ZINF_TEST_FLIPS=N for more; 0 = each byte of the file. */
TEST_F(Checkpoint, AFlippedByteIsFoundOrLiesInAnUnusedGap)
{
    Sample sample(0, 1, false);
    ASSERT_EQ(save(sample), 0);
    const std::string good = bytes();
    ASSERT_EQ(open(), 0) << error.text;
    const std::string expected = contents(file);
    const char *more = getenv("ZINF_TEST_FLIPS");
    long rounds = more ? atol(more) : 200, found = 0, gaps = 0;
    unsigned seed = std::random_device()();
    std::mt19937 random(seed);
    long total = rounds ? rounds : static_cast<long>(good.size());
    for (long i = 0; i < total; i++) {
        std::string bad = good;
        /* Half of the rounds hit the headers, which are a small part of the file. */
        size_t at =
            rounds ? random() % (i % 2 ? good.size() : size_t{40000}) : static_cast<size_t>(i);
        bad[at] = static_cast<char>(bad[at] ^ (1 + random() % 255));
        put(bad);
        int status = open();
        if (!status)
            status = zinf_checkpoint_verify(file, &error);
        if (status) {
            found++;
            ASSERT_EQ(status, ZINF_E_CHECKPOINT) << "byte " << at << " seed " << seed;
            ASSERT_TRUE(strstr(error.text, "metadata") || strchr(error.text, '/')) << error.text;
        } else {
            gaps++;
            ASSERT_EQ(contents(file), expected) << "byte " << at << " seed " << seed;
            ASSERT_EQ(good[at], '\0') << "a used byte at " << at << " was not missed";
        }
    }
    printf("%ld flips (seed %u): %ld found, %ld in gaps\n", total, seed, found, gaps);
    EXPECT_GT(found, total / 10);
}

TEST_F(Checkpoint, AFlippedElementIsNamed)
{
    Sample sample(0, 1, true);
    ASSERT_EQ(save(sample), 0);
    ASSERT_EQ(open(), 0);
    const struct zinf_checkpoint_entry *entries;
    int count = zinf_checkpoint_entries(file, &entries);
    std::string good = bytes();
    for (int i = 0; i < count; i++) {
        if (entries[i].link_target || entries[i].file_offset < 0)
            continue;
        std::string bad = good, path_of_it = entries[i].path;
        bad[static_cast<size_t>(entries[i].file_offset) + entries[i].bytes - 1] ^= 0x10;
        if (path_of_it != "/model/transformer.wpe.weight" && i % 4)
            continue;
        put(bad);
        struct zinf_checkpoint_file *damaged = nullptr;
        ASSERT_EQ(zinf_checkpoint_open(&damaged, &comm, path.c_str(), &error), 0);
        EXPECT_EQ(zinf_checkpoint_verify(damaged, &error), ZINF_E_CHECKPOINT);
        if (path_of_it != "/model/lm_head.weight") {
            EXPECT_EQ(std::string(error.text).find(path_of_it), 0u) << error.text;
        }
        zinf_checkpoint_close(damaged);
    }
}

TEST_F(Checkpoint, ACutFileIsRefused)
{
    Sample sample(0, 1, false);
    ASSERT_EQ(save(sample), 0);
    std::string good = bytes();
    for (size_t length : {size_t{0}, size_t{7}, size_t{48}, size_t{4096}, good.size() / 3,
                          good.size() / 2, good.size() - 4096, good.size() - 1}) {
        put(good.substr(0, length));
        EXPECT_EQ(open(), ZINF_E_CHECKPOINT) << length;
        EXPECT_NE(std::string(error.text).find("metadata"), std::string::npos) << error.text;
        if (length >= 48) {
            EXPECT_NE(std::string(error.text).find("cut short"), std::string::npos) << error.text;
        }
    }
}

TEST_F(Checkpoint, WhatIsNotThereIsAUsageError)
{
    EXPECT_EQ(open(), ZINF_E_USAGE);
    EXPECT_NE(std::string(error.text).find("No such file"), std::string::npos) << error.text;
    fs::create_directory(path);
    EXPECT_NE(open(), 0);
}

TEST_F(Checkpoint, AnotherModelsArraysAreNotLoaded)
{
    Sample sample(0, 1, false);
    ASSERT_EQ(save(sample), 0);
    ASSERT_EQ(open(), 0);
    sample.arrays[0].shape[0]++;
    EXPECT_EQ(zinf_checkpoint_load(file, sample.arrays.data(), 1, &error), ZINF_E_USAGE);
    EXPECT_NE(std::string(error.text).find("/model/transformer.wte.weight"), std::string::npos);
}

TEST_F(Checkpoint, SlicesThatLeaveAHoleAreNotSaved)
{
    Sample sample(0, 1, false);
    sample.slices[0][0].count--;
    EXPECT_EQ(save(sample), ZINF_E_RUNTIME);
    EXPECT_EQ(files(), 0);
}

/* ---- files that others made ---- */

/* An HDF5 file with a version and what `fill` adds. */
static void make_foreign(const fs::path &path, int64_t version, void (*fill)(hid_t file))
{
    hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    hid_t run = H5Gcreate2(file, "/run", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    hid_t scalar = H5Screate(H5S_SCALAR);
    hid_t attribute =
        H5Acreate2(run, "format_version", H5T_STD_I64LE, scalar, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(attribute, H5T_NATIVE_INT64, &version);
    H5Aclose(attribute);
    H5Sclose(scalar);
    H5Gclose(run);
    H5Gclose(H5Gcreate2(file, "/model", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    fill(file);
    H5Fclose(file);
}

static void add_array(hid_t file, const char *path, hid_t type, hid_t plist, int dims)
{
    const hsize_t shape[] = {16, 1, 1, 1, 1, 1};
    hid_t space = dims ? H5Screate_simple(dims, shape, nullptr) : H5Screate(H5S_SCALAR);
    hid_t dataset = H5Dcreate2(file, path, type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    EXPECT_GE(dataset, 0);
    H5Dclose(dataset);
    H5Sclose(space);
    H5Pclose(plist);
}

static hid_t early()
{
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_alloc_time(plist, H5D_ALLOC_TIME_EARLY);
    return plist;
}

static void add_external(hid_t file)
{
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(plist, "/etc/passwd", 0, 64);
    add_array(file, "/model/x", H5T_IEEE_F32LE, plist, 1);
}

static void add_virtual(hid_t file)
{
    const hsize_t shape[] = {16};
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(1, shape, nullptr);
    H5Pset_virtual(plist, space, "/etc/passwd", "x", space);
    H5Sclose(space);
    add_array(file, "/model/x", H5T_IEEE_F32LE, plist, 1);
}

static void add_chunked(hid_t file)
{
    const hsize_t chunk[] = {4};
    hid_t plist = early();
    H5Pset_chunk(plist, 1, chunk);
    add_array(file, "/model/x", H5T_IEEE_F32LE, plist, 1);
}

TEST_F(Checkpoint, TheGateRefusesWhatZinfDoesNotWrite)
{
    const struct {
        void (*fill)(hid_t file);
        const char *expected;
    } cases[] = {
        {[](hid_t f) { H5Lcreate_soft("/run", f, "/model/x", H5P_DEFAULT, H5P_DEFAULT); },
         "/model/x is not a hard link"},
        {[](hid_t f) {
             H5Lcreate_external("/etc/passwd", "/", f, "/model/x", H5P_DEFAULT, H5P_DEFAULT);
         },
         "/model/x is not a hard link"},
        {[](hid_t f) { H5Lcreate_hard(f, "/model", f, "/model/x", H5P_DEFAULT, H5P_DEFAULT); },
         "group with two names"},
        {[](hid_t f) {
             hid_t type = H5Tcopy(H5T_IEEE_F32LE);
             H5Tcommit2(f, "/model/x", type, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
             H5Tclose(type);
         },
         "/model/x is neither group nor dataset"},
        {add_external, "/model/x is not stored contiguously in this file"},
        {add_virtual, "/model/x is not stored contiguously in this file"},
        {add_chunked, "/model/x is not stored contiguously in this file"},
        {[](hid_t f) { add_array(f, "/model/x", H5T_IEEE_F64LE, early(), 1); },
         "/model/x has an element type"},
        {[](hid_t f) { add_array(f, "/model/x", H5T_IEEE_F32LE, early(), 5); },
         "/model/x has a shape"},
        {[](hid_t f) { add_array(f, "/model/x", H5T_IEEE_F32LE, early(), 0); },
         "/model/x has a shape"},
        {[](hid_t f) {
             add_array(f, "/model/x", H5T_IEEE_F32LE, H5Pcreate(H5P_DATASET_CREATE), 1);
         },
         "/model/x has bytes outside the file"},
        {[](hid_t f) { add_array(f, "/model/x", H5T_IEEE_F32LE, early(), 1); },
         "/checksums/model/x is missing"},
        {[](hid_t) {}, "/checksums/run is missing"},
    };
    for (const auto &one : cases) {
        make_foreign(path, 1, one.fill);
        EXPECT_EQ(open(), ZINF_E_CHECKPOINT) << one.expected;
        EXPECT_NE(std::string(error.text).find(one.expected), std::string::npos)
            << one.expected << " / " << error.text;
    }
}

TEST_F(Checkpoint, ANewerFormatSaysSo)
{
    make_foreign(path, ZINF_CHECKPOINT_VERSION + 1, add_chunked);
    EXPECT_EQ(open(), ZINF_E_CHECKPOINT);
    EXPECT_NE(std::string(error.text).find("use a newer zinf"), std::string::npos) << error.text;
}

TEST_F(Checkpoint, AnyOtherFileIsNoCheckpoint)
{
    put("not HDF5 at all, but long enough to have had a superblock in it, had it been one");
    EXPECT_EQ(open(), ZINF_E_CHECKPOINT);
    EXPECT_NE(std::string(error.text).find("no HDF5 file"), std::string::npos) << error.text;
    hid_t other = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(other);
    EXPECT_EQ(open(), ZINF_E_CHECKPOINT);
    EXPECT_NE(std::string(error.text).find("no checkpoint of zinf"), std::string::npos)
        << error.text;
}

TEST(ChecksumFormat, PathsSortAsHdf5VisitsThem)
{
    EXPECT_LT(zinf_checkpoint_path_compare("/a/b", "/a.b"), 0);
    EXPECT_LT(zinf_checkpoint_path_compare("/a", "/a/b"), 0);
    EXPECT_GT(zinf_checkpoint_path_compare("/b", "/a/z"), 0);
    EXPECT_LT(zinf_checkpoint_path_compare("/a", "/a\xc3"), 0);
    EXPECT_EQ(zinf_checkpoint_path_compare("/a/b", "/a/b"), 0);
    EXPECT_EQ(zinf_slab_count(1), 1);
    EXPECT_EQ(zinf_slab_count(ZINF_SLAB_BYTES), 1);
    EXPECT_EQ(zinf_slab_count(ZINF_SLAB_BYTES + 1), 2);
}

int main(int argc, char **argv)
{
    if (zinf_comm_mpi_open(&comm, &argc, &argv))
        return 1;
    testing::InitGoogleTest(&argc, argv);
    int result = RUN_ALL_TESTS();
    comm.ops->close(&comm);
    return result;
}
