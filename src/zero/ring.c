/*
 * Records on their way between the NVMe tier and a few buffers. See ring.h.
 */
#include "zero/ring.h"

#include "base/clock.h"

static int buffer_of(const struct zinf_ring *ring, int64_t position)
{
    return (int)(position % ring->options.buffer_count);
}

static char *memory_of(const struct zinf_ring *ring, int buffer)
{
    return ring->options.memory + (size_t)buffer * ring->options.buffer_bytes;
}

static const struct zinf_ring_item *item_at(const struct zinf_ring *ring, int64_t position)
{
    return &ring->items[ring->sequence ? ring->sequence[position] : position];
}

static void finish(struct zinf_ring *ring, int buffer)
{
    double begin = zinf_clock_s();
    for (int part = 0; part < ZINF_RING_PARTS; part++) {
        if (!ring->buffers[buffer].busy[part])
            continue;
        zinf_swap_wait(ring->options.swap[part], ring->options.aio,
                       &ring->buffers[buffer].transfers[part]);
        ring->buffers[buffer].busy[part] = false;
    }
    ring->waited_s += zinf_clock_s() - begin;
}

static void move(struct zinf_ring *ring, int64_t position, bool write)
{
    const struct zinf_ring_item *item = item_at(ring, position);
    int buffer = buffer_of(ring, position);
    for (int part = 0; part < ZINF_RING_PARTS; part++) {
        struct zinf_swap_transfer *transfer = &ring->buffers[buffer].transfers[part];
        char *memory = memory_of(ring, buffer) + ring->options.part_offset[part];
        if (item->extent[part] < 0 || !(write ? item->write : item->read)[part])
            continue;
        if (write)
            zinf_swap_write(ring->options.swap[part], ring->options.aio, transfer,
                            item->extent[part], memory);
        else
            zinf_swap_read(ring->options.swap[part], ring->options.aio, transfer,
                           item->extent[part], memory);
        *(write ? &ring->write_bytes : &ring->read_bytes) += (int64_t)transfer->request.bytes;
        ring->buffers[buffer].busy[part] = true;
    }
}

/* Begin the reads of all positions up to `last`; a buffer's writes must be on the drive before it
 * is filled again. */
static void read_ahead(struct zinf_ring *ring, int64_t last)
{
    for (; ring->started <= last && ring->started < ring->length; ring->started++) {
        finish(ring, buffer_of(ring, ring->started));
        move(ring, ring->started, false);
    }
}

void zinf_ring_begin(struct zinf_ring *ring, const struct zinf_ring_item *items,
                     const int *sequence, int64_t length)
{
    zinf_ring_drain(ring);
    ring->items = items;
    ring->sequence = sequence;
    ring->length = length;
    ring->position = ring->started = 0;
    ring->waited_s = 0;
    read_ahead(ring, ring->options.lookahead);
}

char *zinf_ring_next(struct zinf_ring *ring)
{
    ZINF_ASSERT(ring->position < ring->length);
    read_ahead(ring, ring->position + ring->options.lookahead);
    finish(ring, buffer_of(ring, ring->position));
    return memory_of(ring, buffer_of(ring, ring->position));
}

void zinf_ring_release(struct zinf_ring *ring)
{
    move(ring, ring->position, true);
    ring->position++;
}

void zinf_ring_drain(struct zinf_ring *ring)
{
    for (int buffer = 0; buffer < ring->options.buffer_count; buffer++)
        finish(ring, buffer);
}
