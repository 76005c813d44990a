/*
 * Ownership of the elements of a flat block. See partition.h.
 */
#include "base/partition.h"

#include "base/status.h"

int64_t zinf_partition_shard_count(int64_t count, int ranks)
{
    ZINF_ASSERT(count >= 0 && ranks >= 1);
    int64_t each = count / ranks + (count % ranks != 0);
    int64_t tiles = each / ZINF_SHARD_ALIGNMENT + (each % ZINF_SHARD_ALIGNMENT != 0);
    return tiles * ZINF_SHARD_ALIGNMENT;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

struct zinf_range zinf_partition_shard(int64_t count, int ranks, int rank)
{
    ZINF_ASSERT(rank >= 0 && rank < ranks);
    int64_t shard = zinf_partition_shard_count(count, ranks);
    return (struct zinf_range){smaller(shard * rank, count), smaller(shard * (rank + 1), count)};
}

struct zinf_range zinf_range_intersect(struct zinf_range a, struct zinf_range b)
{
    struct zinf_range both = {a.begin > b.begin ? a.begin : b.begin, smaller(a.end, b.end)};
    if (both.end < both.begin)
        both.end = both.begin;
    return both;
}
