// Near words and sizes.
#include "base/words.h"

#include <gtest/gtest.h>
#include <string>

namespace
{
TEST(Words, DistanceCountsLettersAndSwaps)
{
    EXPECT_EQ(zinf_word_distance("", ""), 0);
    EXPECT_EQ(zinf_word_distance("stage", "stage"), 0);
    EXPECT_EQ(zinf_word_distance("Stage", "sTAGE"), 0);
    EXPECT_EQ(zinf_word_distance("", "abc"), 3);
    EXPECT_EQ(zinf_word_distance("abc", ""), 3);
    EXPECT_EQ(zinf_word_distance("stgae", "stage"), 1) << "a swap is one change";
    EXPECT_EQ(zinf_word_distance("stag", "stage"), 1);
    EXPECT_EQ(zinf_word_distance("stagee", "stage"), 1);
    EXPECT_EQ(zinf_word_distance("kitten", "sitting"), 3);
    EXPECT_EQ(zinf_word_distance("ca", "abc"), 3) << "restricted: no change inside a swap";
}

TEST(Words, DistanceIsSymmetricAndHoldsTheTriangle)
{
    const char *words[] = {"fp16", "bf16", "stage", "optimizer", "optimiser", "", "x"};
    for (auto a : words)
        for (auto b : words) {
            EXPECT_EQ(zinf_word_distance(a, b), zinf_word_distance(b, a));
            for (auto c : words)
                EXPECT_LE(zinf_word_distance(a, c),
                          zinf_word_distance(a, b) + zinf_word_distance(b, c));
        }
}

TEST(Words, VeryLongWordsAreCutNotOverrun)
{
    std::string a(5000, 'a'), b(5000, 'b');
    EXPECT_EQ(zinf_word_distance(a.c_str(), a.c_str()), 0);
    EXPECT_GT(zinf_word_distance(a.c_str(), b.c_str()), 50);
}

TEST(Words, SizesOfEveryUnit)
{
    struct {
        const char *text;
        int64_t bytes;
    } cases[] = {{"0", 0},
                 {"4096", 4096},
                 {"6GB", 6000000000},
                 {"6gb", 6000000000},
                 {"6 GB", 6000000000},
                 {"1.5TB", 1500000000000},
                 {"512MiB", 512 << 20},
                 {"1K", 1024},
                 {"80G", INT64_C(80) << 30},
                 {"3B", 3},
                 {"2KiB", 2048},
                 {"2kB", 2000},
                 {"8000000000000000000", INT64_C(8000000000000000000)}};
    for (auto &c : cases) {
        int64_t bytes = -1;
        EXPECT_EQ(zinf_size_parse(c.text, &bytes), 0) << c.text;
        EXPECT_EQ(bytes, c.bytes) << c.text;
    }
}

TEST(Words, WhatIsNoSizeIsRefusedAndChangesNothing)
{
    for (auto text : {"", "GB", "-1", "-1GB", "1XB", "1 G B", "0x10", "nan", "inf", "1e400",
                      "99999999TB", "1GBx", " 1"}) {
        int64_t bytes = 7;
        EXPECT_EQ(zinf_size_parse(text, &bytes), -1) << text;
        EXPECT_EQ(bytes, 7);
    }
}
} // namespace
