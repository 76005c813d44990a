/*
 * Who owns which elements of a flat block.
 *
 * A block of n elements on p ranks is cut in p shards of equal length: ceil(n / p) rounded up to 1024 elements, so that
 * every shard is aligned for vectors, direct I/O and NCCL. What lies behind element n is padding: zero, and stays zero.
 */
#ifndef ZINF_BASE_PARTITION_H
#define ZINF_BASE_PARTITION_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { ZINF_SHARD_ALIGNMENT = 1024 }; /* elements */

/** Elements of a shard, padding included; 0 <= count, 1 <= ranks. E.g. (7087872, 4) -> 1772544. */
int64_t zinf_partition_shard_count(int64_t count, int ranks);

struct zinf_range {
    int64_t begin, end; /* elements of the block; begin == end for a rank that owns only padding */
};

/** The elements of the block that `rank` owns, padding left out. */
struct zinf_range zinf_partition_shard(int64_t count, int ranks, int rank);

/** What two ranges have in common; empty ranges have begin == end. */
struct zinf_range zinf_range_intersect(struct zinf_range a, struct zinf_range b);

#ifdef __cplusplus
}
#endif
#endif
