// Who owns what of a flat block.
#include "base/partition.h"

#include <gtest/gtest.h>

namespace
{
const int64_t counts[] = {0, 1, 1023, 1024, 1025, 4096, 5000, 7087872, 38597376, INT64_C(1) << 33};

TEST(Partition, EveryElementHasExactlyOneOwner)
{
    for (int64_t count : counts)
        for (int ranks : {1, 2, 3, 4, 7, 64, 1000}) {
            int64_t next = 0;
            for (int rank = 0; rank < ranks; rank++) {
                zinf_range range = zinf_partition_shard(count, ranks, rank);
                ASSERT_EQ(range.begin, next);
                ASSERT_LE(range.begin, range.end);
                ASSERT_LE(range.end - range.begin, zinf_partition_shard_count(count, ranks));
                next = range.end;
            }
            ASSERT_EQ(next, count) << ranks;
        }
}

TEST(Partition, ShardsAreTheSmallestAlignedOnesThatHoldTheBlock)
{
    EXPECT_EQ(zinf_partition_shard_count(7087872, 4), 1772544); // the example of the header
    for (int64_t count : counts)
        for (int ranks : {1, 2, 3, 4, 7, 64, 1000}) {
            int64_t shard = zinf_partition_shard_count(count, ranks);
            EXPECT_EQ(shard % ZINF_SHARD_ALIGNMENT, 0);
            EXPECT_GE(shard * ranks, count);
            EXPECT_TRUE(shard == 0 || (shard - ZINF_SHARD_ALIGNMENT) * ranks < count);
        }
}

TEST(Partition, ARankBehindTheEndOwnsNothing)
{
    zinf_range range = zinf_partition_shard(1500, 4, 3);
    EXPECT_EQ(range.begin, 1500);
    EXPECT_EQ(range.end, 1500);
}

TEST(Partition, IntersectionIsTheCommonElements)
{
    for (int64_t a = 0; a < 6; a++)
        for (int64_t b = a; b < 6; b++)
            for (int64_t c = 0; c < 6; c++)
                for (int64_t d = c; d < 6; d++) {
                    zinf_range both = zinf_range_intersect({a, b}, {c, d});
                    ASSERT_LE(both.begin, both.end);
                    for (int64_t i = 0; i < 6; i++)
                        ASSERT_EQ(both.begin <= i && i < both.end,
                                  a <= i && i < b && c <= i && i < d);
                }
}
} // namespace
