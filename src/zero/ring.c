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

static bool is_finished(const struct zinf_ring *ring, int buffer)
{
    for (int part = 0; part < ZINF_RING_PARTS; part++)
        if (ring->buffers[buffer].busy[part] &&
            !zinf_swap_finished(&ring->buffers[buffer].transfers[part]))
            return false;
    return true;
}

static void move(struct zinf_ring *ring, int64_t position, const struct zinf_ring_item *item,
                 bool write)
{
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

bool zinf_ring_has_room(const struct zinf_ring *ring)
{
    return ring->started - ring->finished < ring->options.buffer_count;
}

void zinf_ring_add(struct zinf_ring *ring, const struct zinf_ring_item *item)
{
    ZINF_ASSERT(zinf_ring_has_room(ring));
    ring->buffers[buffer_of(ring, ring->started)].item = item;
    move(ring, ring->started, item, false);
    ring->started++;
}

const struct zinf_ring_item *zinf_ring_head(const struct zinf_ring *ring)
{
    return ring->position < ring->started ? ring->buffers[buffer_of(ring, ring->position)].item
                                          : NULL;
}

const struct zinf_ring_item *zinf_ring_collect(struct zinf_ring *ring, bool wait)
{
    int buffer = buffer_of(ring, ring->finished);
    if (ring->finished == ring->position || (!wait && !is_finished(ring, buffer)))
        return NULL;
    finish(ring, buffer);
    ring->finished++;
    return ring->buffers[buffer].item;
}

/* Begin the reads of all positions up to `last`; a buffer's writes must be on the drive before it
 * is filled again. Nothing is waited for that is not used next. */
static void read_ahead(struct zinf_ring *ring, int64_t last, bool next_is_needed)
{
    const struct zinf_ring_options *o = &ring->options;
    while (ring->started <= last && ring->started < ring->length) {
        int index = ring->sequence ? ring->sequence[ring->started] : (int)ring->started;
        bool wait = next_is_needed && ring->started == ring->position;
        if (o->readable && !o->readable(o->context, index, wait))
            return;
        if (!zinf_ring_has_room(ring))
            zinf_ring_collect(ring, true);
        zinf_ring_add(ring, &ring->items[index]);
    }
}

void zinf_ring_begin(struct zinf_ring *ring, const struct zinf_ring_item *items,
                     const int *sequence, int64_t length)
{
    zinf_ring_drain(ring);
    ring->items = items;
    ring->sequence = sequence;
    ring->length = length;
    ring->finished = ring->position = ring->started = 0;
    ring->waited_s = 0;
    read_ahead(ring, ring->options.lookahead, false);
}

char *zinf_ring_next(struct zinf_ring *ring)
{
    read_ahead(ring, ring->position + ring->options.lookahead, true);
    ZINF_ASSERT(ring->position < ring->started);
    finish(ring, buffer_of(ring, ring->position));
    return memory_of(ring, buffer_of(ring, ring->position));
}

void zinf_ring_release(struct zinf_ring *ring)
{
    zinf_ring_release_to(ring, zinf_ring_head(ring));
}

void zinf_ring_release_to(struct zinf_ring *ring, const struct zinf_ring_item *to)
{
    move(ring, ring->position, to, true);
    ring->position++;
}

void zinf_ring_drain(struct zinf_ring *ring)
{
    for (int buffer = 0; buffer < ring->options.buffer_count; buffer++)
        finish(ring, buffer);
    ring->finished = ring->position = ring->started;
    ring->length = 0;
}
