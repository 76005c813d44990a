/*
 * A ring of buffers through which records of the NVMe tier pass: read ahead, used, written behind.
 *
 * A record takes the next buffer when its read begins, is used in that order, and leaves when what
 * is written of it is on the drive: with n buffers n records are under way at a time. One buffer
 * makes everything serial. A record has up to four parts, each an extent of its own with its own
 * checksum, so that a part (the weights) can be read alone.
 *
 * Two ways to say what comes: a sequence known at the start (begin, then next and release), read
 * ahead as far as `lookahead`; or record by record (add, as long as there is room), when the order
 * depends on what happens meanwhile.
 *
 * Used by one thread at a time, with an I/O engine of its own.
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

/** What passes through one buffer: for each part its extent (-1 = none), and whether it is read
 * before and written after use. */
struct zinf_ring_item {
    int extent[ZINF_RING_PARTS];
    bool read[ZINF_RING_PARTS], write[ZINF_RING_PARTS];
};

struct zinf_ring_options {
    struct zinf_swap *swap[ZINF_RING_PARTS]; /* where a part's extents are; borrowed */
    struct zinf_aio *aio;                    /* of the thread that uses the ring; borrowed */
    int buffer_count;                        /* 1 .. ZINF_RING_BUFFERS */
    int lookahead; /* of a sequence: < buffer_count; at most buffer_count - 2 when records are
                      written */
    char *memory;  /* buffer_count * buffer_bytes; borrowed */
    size_t buffer_bytes;
    size_t part_offset[ZINF_RING_PARTS]; /* where a part stands in a buffer */
    /** May item `index` of a sequence be read now? wait: return when it may. NULL: always. */
    bool (*readable)(void *context, int index, bool wait);
    void *context;
};

struct zinf_ring {
    struct zinf_ring_options options;
    const struct zinf_ring_item *items;
    const int *sequence; /* items in the order of use; NULL = 0, 1, 2 ... */
    int64_t length;      /* of the sequence */
    int64_t finished, position,
        started; /* [finished, position) are being written, [position, started) read */
    struct {
        const struct zinf_ring_item *item;
        struct zinf_swap_transfer transfers[ZINF_RING_PARTS];
        bool busy[ZINF_RING_PARTS];
    } buffers[ZINF_RING_BUFFERS];
    double waited_s;                 /* since zinf_ring_begin() */
    int64_t read_bytes, write_bytes; /* begun since the ring was made, padding included */
};

/** Start a sequence of `length` items: the first reads begin. Borrowed: items and sequence until
 * the next begin. Length 0: items are added. */
void zinf_ring_begin(struct zinf_ring *ring, const struct zinf_ring_item *items,
                     const int *sequence, int64_t length);
/** Is there a buffer for one more item, without a wait? */
bool zinf_ring_has_room(const struct zinf_ring *ring);
/** Begin to read one more item (borrowed until it is used). There must be room. */
void zinf_ring_add(struct zinf_ring *ring, const struct zinf_ring_item *item);
/** The item whose turn it is, NULL: none has been added or begun. */
const struct zinf_ring_item *zinf_ring_head(const struct zinf_ring *ring);
/** The buffer of the next item, read and checked; later ones of a sequence begin to be read. Valid
 * until release. */
char *zinf_ring_next(struct zinf_ring *ring);
/** Done with what next() gave: its written parts begin to go back. */
void zinf_ring_release(struct zinf_ring *ring);
/** The same, but it goes to the extents of `to`, of the same sizes. */
void zinf_ring_release_to(struct zinf_ring *ring, const struct zinf_ring_item *to);
/**
 * The oldest item that was released, once all of it is on the drive.
 * @param wait  for the drive
 * @return NULL: none, or (without wait) not yet
 */
const struct zinf_ring_item *zinf_ring_collect(struct zinf_ring *ring, bool wait);
/** Wait for everything in flight; the sequence is at its end. */
void zinf_ring_drain(struct zinf_ring *ring);

#ifdef __cplusplus
}
#endif
#endif
