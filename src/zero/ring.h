/*
 * A ring of buffers through which records of the NVMe tier pass in a known order: read ahead, used, written behind.
 *
 * With n buffers, position p in use, p + 1 .. p + lookahead are being read and those before p are being written: "read i+2, update i,
 * write i-1" is n = 4 and lookahead 2. One buffer makes everything serial. A record has up to four parts, each an extent of its own with its own
 * checksum, so that a part (the weights) can be read alone.
 *
 * Used by one thread, with an I/O engine of its own.
 */
#ifndef ZINF_ZERO_RING_H
#define ZINF_ZERO_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/swap.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { ZINF_RING_PARTS = 4, ZINF_RING_BUFFERS = 64 };

/** What passes through one buffer: for each part its extent (-1 = none), and whether it is read before and written after use. */
struct zinf_ring_item {
    int extent[ZINF_RING_PARTS];
    bool read[ZINF_RING_PARTS], write[ZINF_RING_PARTS];
};

struct zinf_ring_options {
    struct zinf_swap *swap[ZINF_RING_PARTS]; /* where a part's extents are; borrowed */
    struct zinf_aio *aio;                /* of the thread that uses the ring; borrowed */
    int buffer_count;                    /* 1 .. ZINF_RING_BUFFERS */
    int lookahead;                       /* < buffer_count; at most buffer_count - 2 when records are written */
    char *memory;                        /* buffer_count * buffer_bytes; borrowed */
    size_t buffer_bytes;
    size_t part_offset[ZINF_RING_PARTS]; /* where a part stands in a buffer */
};

struct zinf_ring {
    struct zinf_ring_options options;
    const struct zinf_ring_item *items;
    const int *sequence; /* items in the order of use; NULL = 0, 1, 2 ... */
    int64_t length, position, started;
    struct {
        struct zinf_swap_transfer transfers[ZINF_RING_PARTS];
        bool busy[ZINF_RING_PARTS];
    } buffers[ZINF_RING_BUFFERS];
    double waited_s;                 /* since zinf_ring_begin() */
    int64_t read_bytes, write_bytes; /* begun since the ring was made, padding included */
};

/** Start a sequence of `length` items: the first reads begin. Borrowed: items and sequence until the next begin. */
void zinf_ring_begin(struct zinf_ring *ring, const struct zinf_ring_item *items,
                     const int *sequence, int64_t length);
/** The buffer of the next item, read and checked; later ones begin to be read. Valid until release. */
char *zinf_ring_next(struct zinf_ring *ring);
/** Done with what next() gave: its written parts begin to go back. */
void zinf_ring_release(struct zinf_ring *ring);
/** Wait for everything in flight. */
void zinf_ring_drain(struct zinf_ring *ring);

#ifdef __cplusplus
}
#endif
#endif
