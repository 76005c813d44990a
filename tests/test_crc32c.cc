// CRC32C against published check values, its own portable twin, and the algebra of parts.
#include "base/crc32c.h"

#include <cstring>
#include <gtest/gtest.h>
#include <vector>

namespace
{
std::vector<unsigned char> noise(size_t bytes)
{
    std::vector<unsigned char> data(bytes);
    uint32_t state = 12345;
    for (auto &byte : data) {
        state = state * 1664525u + 1013904223u;
        byte = state >> 24;
    }
    return data;
}

// RFC 3720, appendix B.4, and the usual check value.
TEST(Crc32c, GivesThePublishedValues)
{
    for (auto crc : {zinf_crc32c, zinf_crc32c_portable}) {
        EXPECT_EQ(crc(0, "123456789", 9), 0xe3069283u);
        unsigned char block[32];
        std::memset(block, 0, 32);
        EXPECT_EQ(crc(0, block, 32), 0x8a9136aau);
        std::memset(block, 0xff, 32);
        EXPECT_EQ(crc(0, block, 32), 0x62a8ab43u);
        for (int i = 0; i < 32; i++)
            block[i] = i;
        EXPECT_EQ(crc(0, block, 32), 0x46dd794eu);
        for (int i = 0; i < 32; i++)
            block[i] = 31 - i;
        EXPECT_EQ(crc(0, block, 32), 0x113fdb5cu);
        EXPECT_EQ(crc(0, block, 0), 0u);
    }
}

TEST(Crc32c, FastAndPortableAgreeAtEveryLengthAndAlignment)
{
    auto data = noise(20000);
    for (size_t length = 0; length < 300; length++)
        for (size_t offset = 0; offset < 8; offset++)
            ASSERT_EQ(zinf_crc32c(7, &data[offset], length),
                      zinf_crc32c_portable(7, &data[offset], length));
    for (size_t length : {3071u, 3072u, 3073u, 6144u, 9999u, 19993u})
        ASSERT_EQ(zinf_crc32c(0, &data[3], length), zinf_crc32c_portable(0, &data[3], length));
}

TEST(Crc32c, PartsContinueAndCombineToTheWhole)
{
    auto data = noise(10000);
    uint32_t whole = zinf_crc32c(0, data.data(), data.size());
    for (size_t cut : {0u, 1u, 7u, 512u, 4096u, 9999u, 10000u}) {
        uint32_t a = zinf_crc32c(0, data.data(), cut);
        EXPECT_EQ(zinf_crc32c(a, &data[0] + cut, data.size() - cut), whole);
        uint32_t b = zinf_crc32c(0, &data[0] + cut, data.size() - cut);
        EXPECT_EQ(zinf_crc32c_combine(a, b, data.size() - cut), whole) << cut;
    }
}

TEST(Crc32c, CombinesLengthsPastFourGigabytes)
{
    // crc(A + zeros of 2^33 + 5 bytes) two ways: at once, and as 2^33 and then 5
    uint32_t a = zinf_crc32c(0, "head", 4);
    uint32_t five = zinf_crc32c(0, "\0\0\0\0\0", 5), zeros = 0;
    uint32_t power = zinf_crc32c(0, "\0", 1);
    for (int i = 0; i < 33; i++)
        power = zinf_crc32c_combine(power, power, UINT64_C(1) << i);
    zeros = zinf_crc32c_combine(power, five, 5);
    EXPECT_EQ(zinf_crc32c_combine(a, zeros, (UINT64_C(1) << 33) + 5),
              zinf_crc32c_combine(zinf_crc32c_combine(a, power, UINT64_C(1) << 33), five, 5));
}

TEST(Crc32c, EveryFlippedBitIsSeen)
{
    auto data = noise(4096);
    uint32_t right = zinf_crc32c(0, data.data(), data.size());
    for (size_t bit = 0; bit < data.size() * 8; bit += 37) {
        data[bit / 8] ^= 1 << bit % 8;
        ASSERT_NE(zinf_crc32c(0, data.data(), data.size()), right);
        data[bit / 8] ^= 1 << bit % 8;
    }
}
} // namespace
