/*
 * Much data into one file. See bulk.h.
 */
#include "io/bulk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io/aio.h"
#include "io/file.h"

enum { UNIT = 4096, SLOTS = 4, SLOT_BYTES = 4 << 20, PIECE_BYTES = 1 << 20, THREADS = 4 };

/* A buffer and the place of its bytes in the file. */
struct slot {
    char *data;    /* (SLOT_BYTES), on a page */
    int64_t begin; /* a multiple of UNIT */
    size_t filled;
    struct zinf_aio_request request; /* in flight or done; bytes 0: never used */
};

/* Bytes that share their block with others; they stand in `edge_bytes`. */
struct edge {
    int64_t offset;
    size_t bytes, place;
};

struct zinf_bulk {
    const char *path;
    int descriptor; /* through the page cache, borrowed */
    int own;        /* this one's, direct where that works */
    bool direct;
    struct zinf_aio aio;
    int file;
    char *memory; /* (SLOTS, SLOT_BYTES) */
    struct slot slots[SLOTS];
    int current; /* being filled when its `filled` is not 0 */
    struct edge *edges;
    size_t edge_count, edge_room;
    char *edge_bytes;
    size_t edge_bytes_used, edge_bytes_room;
    int status;
    struct zinf_error error;
};

static void say_not_direct(const char *path)
{
    static atomic_flag said = ATOMIC_FLAG_INIT;
    if (!atomic_flag_test_and_set(&said))
        zinf_info("%s: its file system has no direct I/O; checkpoints go through the page cache",
                  path);
}

/*
 * The engine of threads, not io_uring: four writes in flight are all that is asked for, and a run
 * without offload says nothing about an engine that it needs for nothing else.
 */
static int start(struct zinf_bulk *bulk, struct zinf_error *error)
{
    const struct zinf_aio_options options = {
        .queue_depth = 2 * THREADS, .block_bytes = PIECE_BYTES, .threads = THREADS};
    int status = zinf_file_open(&bulk->own, bulk->path, O_RDWR | O_NOFOLLOW, error);
    if (status)
        return status;
    bulk->direct = zinf_file_make_direct(bulk->own);
    if (!bulk->direct)
        say_not_direct(bulk->path);
    void *memory = mmap(NULL, (size_t)SLOTS * SLOT_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return zinf_error_in(error, ZINF_E_RUNTIME, bulk->path,
                             "no memory for %d buffers of %d bytes to write it with", SLOTS,
                             SLOT_BYTES);
    bulk->memory = memory;
    madvise(memory, (size_t)SLOTS * SLOT_BYTES, MADV_HUGEPAGE); /* only faster */
    for (int i = 0; i < SLOTS; i++)
        bulk->slots[i].data = bulk->memory + (size_t)i * SLOT_BYTES;
    if (zinf_aio_open(&bulk->aio, "threads", &options))
        return zinf_error_in(error, ZINF_E_RUNTIME, bulk->path,
                             "no threads can be started to write it");
    bulk->file = bulk->aio.engine->add_file(&bulk->aio, bulk->own);
    ZINF_ASSERT(bulk->file >= 0);
    return 0;
}

int zinf_bulk_open(struct zinf_bulk **bulk, int descriptor, const char *path,
                   struct zinf_error *error)
{
    struct zinf_bulk *opened = zinf_alloc(sizeof *opened);
    opened->path = path;
    opened->descriptor = descriptor;
    opened->own = -1;
    int status = start(opened, error);
    if (status)
        zinf_bulk_close(opened);
    else
        *bulk = opened;
    return status;
}

bool zinf_bulk_direct(const struct zinf_bulk *bulk)
{
    return bulk->direct;
}

/* ---- buffers ---- */

static void finish(struct zinf_bulk *bulk, struct slot *slot)
{
    char what[96];
    if (!slot->request.bytes)
        return;
    bulk->aio.engine->wait(&bulk->aio, &slot->request);
    if (slot->request.error && !bulk->status) {
        snprintf(what, sizeof what, "cannot write %zu bytes at offset %llu", slot->request.bytes,
                 (unsigned long long)slot->request.error_offset);
        bulk->status = zinf_file_failed(&bulk->error, bulk->path, slot->request.error, what);
    }
    slot->request = (struct zinf_aio_request){0};
}

static void add_edge(struct zinf_bulk *bulk, const char *data, size_t bytes, int64_t offset)
{
    if (bulk->edge_count == bulk->edge_room) {
        bulk->edge_room = 2 * bulk->edge_room + 64;
        bulk->edges = zinf_realloc(bulk->edges, bulk->edge_room * sizeof *bulk->edges);
    }
    if (bulk->edge_bytes_used + bytes > bulk->edge_bytes_room) {
        bulk->edge_bytes_room = 2 * bulk->edge_bytes_room + 16 * UNIT;
        bulk->edge_bytes = zinf_realloc(bulk->edge_bytes, bulk->edge_bytes_room);
    }
    memcpy(bulk->edge_bytes + bulk->edge_bytes_used, data, bytes);
    bulk->edges[bulk->edge_count++] = (struct edge){offset, bytes, bulk->edge_bytes_used};
    bulk->edge_bytes_used += bytes;
}

/* The run in the current buffer ends: its whole blocks go, the rest is an edge. */
static void send_current(struct zinf_bulk *bulk)
{
    struct slot *slot = &bulk->slots[bulk->current];
    size_t whole = slot->filled / UNIT * UNIT;
    if (!slot->filled)
        return;
    if (slot->filled > whole)
        add_edge(bulk, slot->data + whole, slot->filled - whole, slot->begin + (int64_t)whole);
    slot->filled = 0;
    if (!whole)
        return;
    slot->request = (struct zinf_aio_request){.write = true,
                                              .file = bulk->file,
                                              .buffer = slot->data,
                                              .bytes = whole,
                                              .offset = (uint64_t)slot->begin};
    bulk->aio.engine->submit(&bulk->aio, &slot->request);
    bulk->current = (bulk->current + 1) % SLOTS;
}

/* Put bytes that begin on a block, or where the current buffer ends, into buffers. Returns how many
 * were taken. */
static size_t fill(struct zinf_bulk *bulk, const char *data, size_t bytes, int64_t offset)
{
    struct slot *slot = &bulk->slots[bulk->current];
    if (!slot->filled) {
        finish(bulk, slot);
        slot->begin = offset;
    }
    size_t room = SLOT_BYTES - slot->filled, taken = bytes < room ? bytes : room;
    memcpy(slot->data + slot->filled, data, taken);
    slot->filled += taken;
    if (slot->filled == SLOT_BYTES)
        send_current(bulk);
    return taken;
}

int zinf_bulk_write(struct zinf_bulk *bulk, const void *data, size_t bytes, int64_t offset)
{
    const char *from = data;
    const struct slot *slot = &bulk->slots[bulk->current];
    if (slot->filled && slot->begin + (int64_t)slot->filled != offset) {
        send_current(bulk);
        slot = &bulk->slots[bulk->current];
    }
    if (!slot->filled && offset % UNIT) {
        size_t head = UNIT - (size_t)(offset % UNIT);
        if (head > bytes)
            head = bytes;
        add_edge(bulk, from, head, offset);
        from += head;
        bytes -= head;
        offset += (int64_t)head;
    }
    while (bytes && !bulk->status) {
        size_t taken = fill(bulk, from, bytes, offset);
        from += taken;
        bytes -= taken;
        offset += (int64_t)taken;
    }
    return bulk->status;
}

/* ---- the ends ---- */

static int tell(const struct zinf_bulk *bulk, struct zinf_error *error)
{
    if (bulk->status)
        *error = bulk->error;
    return bulk->status;
}

int zinf_bulk_flush(struct zinf_bulk *bulk, struct zinf_error *error)
{
    send_current(bulk);
    for (int i = 0; i < SLOTS; i++)
        finish(bulk, &bulk->slots[i]);
    return tell(bulk, error);
}

int zinf_bulk_write_edges(struct zinf_bulk *bulk, struct zinf_error *error)
{
    for (size_t i = 0; i < bulk->edge_count && !bulk->status; i++) {
        const struct edge *edge = &bulk->edges[i];
        bulk->status = zinf_file_write(bulk->descriptor, bulk->path, bulk->edge_bytes + edge->place,
                                       edge->bytes, edge->offset, &bulk->error);
    }
    bulk->edge_count = bulk->edge_bytes_used = 0;
    return tell(bulk, error);
}

void zinf_bulk_close(struct zinf_bulk *bulk)
{
    if (!bulk)
        return;
    if (bulk->aio.engine) {
        for (int i = 0; i < SLOTS; i++)
            finish(bulk, &bulk->slots[i]);
        zinf_aio_close(&bulk->aio);
    }
    if (bulk->memory)
        munmap(bulk->memory, (size_t)SLOTS * SLOT_BYTES);
    if (bulk->own >= 0)
        close(bulk->own);
    free(bulk->edges);
    free(bulk->edge_bytes);
    free(bulk);
}
