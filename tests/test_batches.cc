// Files -> byte tokens -> samples, as the contract's "What a batch is" fixes them.
#include "text/batches.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <set>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "set_fault.h"
#include "temporary_folder.hh"

namespace
{

using Tokens = std::vector<int32_t>;

struct Opened {
    struct zinf_batches *batches = nullptr;
    struct zinf_error error = {};
    int status;
    int64_t length;

    Opened(const std::vector<std::string> &patterns, int64_t sequence_length, bool shuffle = false,
           uint64_t seed = 42, int64_t vocab = 257)
        : length(sequence_length)
    {
        std::vector<const char *> names;
        for (const std::string &pattern : patterns)
            names.push_back(pattern.c_str());
        struct zinf_batches_options options = {};
        options.patterns = names.data();
        options.pattern_count = (int)names.size();
        options.sequence_length = sequence_length;
        options.vocab = vocab;
        options.shuffle = shuffle;
        options.seed = seed;
        options.name = "zinf.data.train";
        status = zinf_batches_open(&batches, &options, &error);
    }
    ~Opened()
    {
        zinf_batches_close(batches);
    }
    Opened(const Opened &) = delete;
    Opened &operator=(const Opened &) = delete;

    // S + 1 tokens of each sample, after a check that inputs and targets overlap as they must.
    std::vector<Tokens> read(int64_t epoch, int64_t position, int64_t count)
    {
        Tokens inputs((size_t)(count * length), -1), targets((size_t)(count * length), -1);
        const zinf_batch batch = {epoch, position, count, inputs.data(), targets.data()};
        EXPECT_EQ(zinf_batches_read(batches, &batch, &error), 0) << error.text;
        std::vector<Tokens> samples;
        for (int64_t i = 0; i < count; i++) {
            Tokens sample(inputs.begin() + i * length, inputs.begin() + (i + 1) * length);
            sample.push_back(targets[(size_t)((i + 1) * length - 1)]);
            for (int64_t j = 0; j < length; j++)
                EXPECT_EQ(targets[(size_t)(i * length + j)], sample[(size_t)j + 1]);
            samples.push_back(sample);
        }
        return samples;
    }
};

Tokens stream_of(const std::vector<std::string> &texts)
{
    Tokens stream;
    for (const std::string &text : texts) {
        for (unsigned char byte : text)
            stream.push_back(byte);
        stream.push_back(256);
    }
    return stream;
}

std::vector<Tokens> samples_of(const Tokens &stream, int64_t length)
{
    std::vector<Tokens> samples;
    for (int64_t i = 0; i < ((int64_t)stream.size() - 1) / length; i++)
        samples.emplace_back(stream.begin() + i * length, stream.begin() + i * length + length + 1);
    return samples;
}

std::string noise(size_t bytes, unsigned seed)
{
    std::string text(bytes, 0);
    for (char &byte : text)
        byte = (char)((seed = seed * 1664525u + 1013904223u) >> 24);
    return text;
}

TEST(Batches, SamplesAreWindowsOfOneStreamOverAllFiles)
{
    TemporaryFolder folder;
    const std::vector<std::string> texts = {
        "\xef\xbb\xbfhello\r\n", "", noise(1000, 1), "x", "", noise(257, 2), "last\n"};
    std::vector<std::string> paths;
    for (size_t i = 0; i < texts.size(); i++)
        paths.push_back(folder.write("f" + std::to_string(i), texts[i]));
    const Tokens stream = stream_of(texts);
    for (int64_t length : {1, 2, 3, 7, 16, 100, (int)stream.size() - 1}) {
        Opened data(paths, length);
        ASSERT_EQ(data.status, 0) << data.error.text;
        const std::vector<Tokens> want = samples_of(stream, length);
        ASSERT_EQ(zinf_batches_sample_count(data.batches), (int64_t)want.size());
        EXPECT_EQ(zinf_batches_token_count(data.batches), (int64_t)stream.size());
        EXPECT_EQ(zinf_batches_file_count(data.batches), 7);
        EXPECT_EQ(data.read(0, 0, (int64_t)want.size()), want) << "S = " << length;
        EXPECT_EQ(data.read(3, (int64_t)want.size() - 1, 1)[0], want.back());
    }
}

TEST(Batches, ShuffleIsAPermutationOfSeedAndEpochOnly)
{
    TemporaryFolder folder;
    const std::string path = folder.write("text", noise(5000, 3));
    std::vector<Tokens> plain = samples_of(stream_of({folder.read("text")}), 16);
    Opened a({path}, 16, true, 1), b({path}, 16, true, 1), c({path}, 16, true, 2);
    const int64_t count = zinf_batches_sample_count(a.batches);
    const std::vector<Tokens> first = a.read(0, 0, count), second = a.read(1, 0, count);
    EXPECT_EQ(b.read(0, 0, count), first);
    EXPECT_NE(first, plain);
    EXPECT_NE(first, second);
    EXPECT_NE(c.read(0, 0, count), first);
    std::vector<Tokens> sorted = first, sorted_second = second;
    std::sort(sorted.begin(), sorted.end());
    std::sort(sorted_second.begin(), sorted_second.end());
    std::sort(plain.begin(), plain.end());
    EXPECT_EQ(sorted, plain);
    EXPECT_EQ(sorted_second, plain);
    for (int64_t i = 0; i < count; i++) // one by one as in one piece
        EXPECT_EQ(b.read(1, i, 1)[0], second[(size_t)i]);
}

TEST(Batches, GlobsAreSortedBytewiseWithinTheirPatternAndManyFilesStayReadable)
{
    TemporaryFolder folder;
    std::vector<std::string> names = {"b.txt", "a.txt", "B.txt", "a-1.txt", "\xc3\xa9.txt"};
    for (const std::string &name : names)
        folder.write("d/" + name, name + "|");
    for (int i = 0; i < 70; i++) // more than descriptors are kept
        folder.write("many/" + std::to_string(100 + i), std::to_string(i));
    const std::string first = folder.write("z[1].txt", "literal");
    Opened data({first, folder / "d/*.txt", folder / "many/*"}, 4);
    ASSERT_EQ(data.status, 0) << data.error.text;
    std::sort(names.begin(), names.end());
    std::vector<std::string> texts = {"literal"};
    for (const std::string &name : names)
        texts.push_back(name + "|");
    for (int i = 0; i < 70; i++)
        texts.push_back(std::to_string(i));
    const std::vector<Tokens> want = samples_of(stream_of(texts), 4);
    for (int round = 0; round < 2; round++)
        EXPECT_EQ(data.read(0, 0, (int64_t)want.size()), want);
}

void refused(const std::vector<std::string> &patterns, int64_t length, int64_t vocab,
             const std::vector<std::string> &words)
{
    Opened data(patterns, length, false, 1, vocab);
    EXPECT_EQ(data.status, ZINF_E_DATA);
    EXPECT_EQ(data.batches, nullptr);
    for (const std::string &word : words)
        EXPECT_NE(strstr(data.error.text, word.c_str()), nullptr) << data.error.text;
}

TEST(Batches, WhatCannotBeReadIsRefusedByName)
{
    TemporaryFolder folder;
    const std::string text = folder.write("text", "0123456789");
    refused({folder / "none"}, 4, 257, {"zinf.data.train", "none", "No such file"});
    refused({folder / "*.md"}, 4, 257, {"no file matches", "*.md"});
    refused({folder.path()}, 4, 257, {"is a folder", "/*.txt"});
    refused({folder / "te*", text}, 4, 257, {"same file twice", "text"});
    ASSERT_EQ(symlink("text", (folder / "link").c_str()), 0);
    refused({folder / "*"}, 4, 257, {"same file twice", "link"});
    ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
    refused({folder / "pipe"}, 4, 257, {"no plain file"});
    refused({text}, 11, 257, {"11 tokens", "needs at least 12"});
    refused({text}, 4, 256, {"vocab_size", "at least 257"});
    refused({}, 4, 257, {"names no file"});
}

int read_one(Opened &data, int64_t position)
{
    Tokens inputs((size_t)data.length), targets((size_t)data.length);
    const zinf_batch batch = {0, position, 1, inputs.data(), targets.data()};
    return zinf_batches_read(data.batches, &batch, &data.error);
}

void touch(const std::string &path)
{
    const struct timespec times[2] = {{1, 0}, {1, 0}};
    ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
}

TEST(Batches, AFileThatShrinksGrowsChangesOrGoesIsAnErrorWithPathAndOffset)
{
    for (int change = 0; change < 4; change++) {
        TemporaryFolder folder;
        const std::string a = folder.write("a", noise(100, 1)),
                          b = folder.write("b", noise(100, 2));
        Opened data({a, b}, 10);
        ASSERT_EQ(read_one(data, 0), 0);
        if (change == 0) {
            ASSERT_EQ(truncate(b.c_str(), 5), 0);
        }
        if (change == 1)
            folder.write("b", noise(101, 2));
        if (change == 2)
            touch(b);
        if (change == 3)
            unlink(b.c_str());
        EXPECT_EQ(read_one(data, 3), 0); // the other file is as it was
        EXPECT_EQ(read_one(data, 15), ZINF_E_DATA);
        EXPECT_NE(strstr(data.error.text, b.c_str()), nullptr) << data.error.text;
        EXPECT_NE(strstr(data.error.text, "offset 49"), nullptr) << data.error.text;
    }
}

TEST(Batches, ShortReadsAreContinuedAndFailedOnesReported)
{
    TemporaryFolder folder;
    const std::string path = folder.write("a", noise(1000, 1));
    const std::vector<Tokens> want = samples_of(stream_of({folder.read("a")}), 100);
    Opened data({path}, 100);
    set_fault("op=read,n=1,short=7");
    EXPECT_EQ(data.read(0, 2, 1)[0], want[2]);
    set_fault("op=read,n=2,err=EIO");
    EXPECT_EQ(read_one(data, 0), 0);
    EXPECT_EQ(read_one(data, 5), ZINF_E_DATA);
    EXPECT_NE(strstr(data.error.text, "offset 500"), nullptr) << data.error.text;
    EXPECT_NE(strstr(data.error.text, "Input/output error"), nullptr) << data.error.text;
    set_fault("op=open,n=1,err=EACCES");
    refused({path}, 10, 257, {"Permission denied"});
    set_fault("");
    EXPECT_EQ(read_one(data, 5), 0);
}

TEST(Batches, FingerprintKnowsNamesSizesAndOptions)
{
    TemporaryFolder folder;
    const std::string a = folder.write("a", noise(100, 1)), b = folder.write("b", noise(100, 1));
    std::set<uint64_t> prints;
    Opened base({a}, 10), same({a}, 10), name({b}, 10), length({a}, 11), shuffle({a}, 10, true),
        seed({a}, 10, false, 43), both({a, b}, 10);
    for (Opened *data : {&base, &name, &length, &shuffle, &seed, &both})
        prints.insert(zinf_batches_fingerprint(data->batches));
    EXPECT_EQ(prints.size(), 6u);
    EXPECT_EQ(zinf_batches_fingerprint(base.batches), zinf_batches_fingerprint(same.batches));
    folder.write("a", noise(101, 1));
    Opened size({a}, 10);
    EXPECT_NE(zinf_batches_fingerprint(base.batches), zinf_batches_fingerprint(size.batches));
}

} // namespace
