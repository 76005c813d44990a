/*
 * What a late device does when: its memory, the queues of its streams, and the chance that moves
 * them. Part of late_device.c. The mutex is held by whoever calls what stands behind carry_out().
 */
#ifndef LATE_QUEUES_H
#define LATE_QUEUES_H

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "device/device.h"
#include "fake_stream.h"

enum { POINTERS = 5, LARGEST_STRUCT = 192, LARGEST_PINS = 16, LARGEST_ALLOCATIONS = 16 };

/* A piece of work in a queue. */
struct work {
    struct work *next;
    enum { COPY, RECORD, WAIT, OPERATION, LIBRARY, ENDED } kind;
    void *to;
    const void *from;
    size_t bytes;
    int event;
    int64_t generation; /* of the event: which of its records */
    void (*run)(struct work *work);
    bool (*poll)(void *context); /* LIBRARY */
    void *context;
    void *result; /* what the caller waits for; NULL = it does not */
    union {
        char bytes[LARGEST_STRUCT];
        double aligned;
    } op;
    void *pointers[POINTERS]; /* beside the struct */
};

struct event {
    int64_t recorded, reached; /* how often */
    double reached_s;
};

struct range {
    char *from, *bytes; /* what the caller has; where it is */
    size_t size;
};

static struct late {
    pthread_mutex_t mutex;
    struct work *first[ZINF_STREAM_COUNT], **last[ZINF_STREAM_COUNT];
    struct event *events;
    int event_count;
    struct range memory[LARGEST_ALLOCATIONS], pinned[LARGEST_PINS];
    int memory_count, pinned_count;
    int64_t scratch_bytes; /* that it would have, if it needed any */
    struct fake_stream streams[ZINF_STREAM_COUNT];
    uint64_t chance;
    int haste;         /* of 16 calls so many are followed by some work */
    int starved;       /* the stream whose turn comes last */
    uint64_t patience; /* pieces of work until it is another */
    int asked;         /* whether an event is reached, since work was put into a stream */
} late = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local enum zinf_stream current = ZINF_STREAM_COMPUTE;

static uint64_t draw(uint64_t below)
{
    late.chance = late.chance * 6364136223846793005u + 1442695040888963407u;
    return (late.chance >> 33) % below;
}

/* ---- memory ---- */

static const struct range *find(const struct range *ranges, int count, const void *at, size_t bytes)
{
    const char *p = at;
    for (int i = 0; i < count; i++)
        if (p >= ranges[i].from && p + bytes <= ranges[i].from + ranges[i].size)
            return &ranges[i];
    return NULL;
}

/* Where the bytes of device memory are. */
static void *real(const void *at)
{
    const struct range *range = find(late.memory, late.memory_count, at, 1);
    if (!at)
        return NULL;
    if (!range) {
        zinf_error_log("late device: an operation was given host memory (%p)", at);
        zinf_abort(ZINF_E_RUNTIME);
    }
    return range->bytes + ((const char *)at - range->from);
}

static void *real_or_host(const void *at)
{
    return find(late.memory, late.memory_count, at, 1) ? real(at) : (void *)at;
}

static void carry_out(struct work *work)
{
    switch (work->kind) {
    case COPY:
        memcpy(real_or_host(work->to), real_or_host(work->from), work->bytes);
        break;
    case RECORD:
        late.events[work->event].reached = work->generation;
        late.events[work->event].reached_s = zinf_clock_s();
        break;
    case OPERATION:
        work->run(work);
        break;
    default:
        break;
    }
}

/* The first of a stream may start; work of a library: has ended. */
static bool ready(struct work *work)
{
    if (work && work->kind == LIBRARY && work->poll(work->context))
        work->kind = ENDED;
    if (!work || work->kind == LIBRARY)
        return false;
    return work->kind != WAIT || late.events[work->event].reached >= work->generation;
}

/* A stream that can go on, -1: none. One is starved for a while, and goes on when no other can: at
 * even odds none falls far enough behind to be missed. */
static int choose(void)
{
    int able[ZINF_STREAM_COUNT], count = 0;
    if (late.patience-- == 0) {
        late.starved = (int)draw(ZINF_STREAM_COUNT);
        late.patience = draw(600);
    }
    for (int s = 0; s < ZINF_STREAM_COUNT; s++)
        if (s != late.starved && ready(late.first[s]))
            able[count++] = s;
    if (count > 0)
        return able[draw((uint64_t)count)];
    return ready(late.first[late.starved]) ? late.starved : -1;
}

/* One piece of work of a stream that can go on. false: there is none. */
static bool move(void)
{
    int stream = choose();
    if (stream < 0)
        return false;
    struct work *work = late.first[stream];
    late.first[stream] = work->next;
    if (!work->next)
        late.last[stream] = &late.first[stream];
    carry_out(work);
    free(work);
    return true;
}

static void append(enum zinf_stream stream, const struct work *work)
{
    struct work *own = zinf_alloc(sizeof *own);
    *own = *work;
    own->next = NULL;
    *late.last[stream] = own;
    late.last[stream] = &own->next;
    late.asked = 0;
    if ((int)draw(16) < late.haste)
        for (uint64_t n = draw(24); n > 0 && move(); n--)
            ;
}

/* Work of a library, which ends when others' does. */
static bool others_work(void)
{
    for (int s = 0; s < ZINF_STREAM_COUNT; s++)
        if (late.first[s] && late.first[s]->kind == LIBRARY)
            return true;
    return false;
}

/* Until the host may go on: the mutex is given back meanwhile. */
static void nap(void)
{
    pthread_mutex_unlock(&late.mutex);
    zinf_clock_nap(50e-6);
    pthread_mutex_lock(&late.mutex);
}

static void wait_for_host(int event)
{
    const struct event *e = &late.events[event];
    int64_t generation = e->recorded;
    while (e->reached < generation) {
        if (move())
            continue;
        if (!others_work()) {
            zinf_error_log("late device: a thread of the host waits for event %d, and no stream "
                           "can go on: the streams wait for each other",
                           event);
            zinf_abort(ZINF_E_RUNTIME);
        }
        nap();
    }
}

/* All that stands in a stream now. */
static void finish(enum zinf_stream stream)
{
    int event = late.event_count; /* one more than the caller has */
    const struct work record = {
        .kind = RECORD, .event = event, .generation = ++late.events[event].recorded};
    append(stream, &record);
    wait_for_host(event);
}

#endif
