/*
 * One copy between the ranks of a node. See comm_node.h.
 *
 * Memory is a memfd that neighbours open through /proc/PID/fd: it needs no room in /dev/shm (64 MB
 * in many containers, and a SIGBUS beyond), no permission to trace, and is gone with its processes.
 * A neighbour in another PID namespace would open a stranger's file: so every rank first proves a
 * random number in its control page. If anything fails on any rank, all do without.
 *
 * Each rank has a control page with a ring of slots. Operation n of a rank uses slot n modulo
 * SLOTS: the owner writes where its bytes are, then `ready` = n + 1 (release); a neighbour that
 * sees it (acquire) copies and adds one to `readers`; at neighbours' number the owner's bytes are
 * its own again. A slot is not used again before that, so nobody can miss a number.
 */
#include "topology/comm_node.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/status.h"

enum { SLOTS = 64, REGIONS = 16, NEIGHBOURS = 256 };

struct slot {
    _Alignas(64) _Atomic uint64_t ready; /* number + 1 of the operation whose bytes stand ready */
    uint64_t region, offset, stride, bytes;
    _Alignas(64) _Atomic int readers; /* neighbours that are through with it */
    _Atomic unsigned char
        through[NEIGHBOURS]; /* which; for messages only, so the first ones are enough */
};

struct control {
    uint64_t cookie;
    _Atomic int spoken; /* of the node's first rank only: somebody has said why the run ends */
    struct slot slots[SLOTS];
};

/* Memory of all ranks of the node that was mapped by one call. */
struct region {
    char **base; /* (count) of each rank of the node; NULL = unused region */
    size_t *bytes;
};

struct zinf_node {
    int count, mine;           /* ranks of this node; which one this is */
    int *ranks;                /* (count) their ranks in the communicator */
    int *place;                /* (comm->size) a rank's index here, -1 = on another node */
    struct control **controls; /* (count) */
    uint64_t posted;
    struct region regions[REGIONS];
};

/* What a rank tells its neighbours about a file. */
struct offer {
    int64_t pid, fd; /* fd -1: there is none */
    uint64_t bytes, cookie;
};

static void *map_file(int fd, size_t bytes, int protection)
{
    void *memory = mmap(NULL, bytes, protection, MAP_SHARED | MAP_NORESERVE, fd, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

/* A file of memory; -1 = none to be had. A limit on file size holds for it too, and would send a
 * signal. */
static int make_file(size_t bytes)
{
    struct rlimit limit;
    int fd;
    if (getrlimit(RLIMIT_FSIZE, &limit) || limit.rlim_cur < bytes)
        return -1;
    if ((fd = memfd_create("zinf", MFD_CLOEXEC)) < 0 || ftruncate(fd, (off_t)bytes) == 0)
        return fd;
    close(fd);
    return -1;
}

static void *map_offer(const struct offer *offer, int protection)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%lld/fd/%lld", (long long)offer->pid, (long long)offer->fd);
    int fd = open(path, (protection & PROT_WRITE ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    void *memory = map_file(fd, offer->bytes, protection);
    close(fd);
    return memory;
}

/* Everybody's memory of one kind: (count) bases, or NULL on all ranks when one rank failed. bytes:
 * in mine, out everybody's. */
static char **share(struct zinf_node *node, struct zinf_comm *comm, size_t *bytes, int protection,
                    uint64_t cookie)
{
    struct offer mine = {getpid(), -1, bytes[node->mine], cookie};
    struct offer *all = zinf_alloc((size_t)comm->size * sizeof *all);
    char **base = zinf_alloc((size_t)node->count * sizeof *base);
    int status = 0;
    mine.fd = make_file(mine.bytes);
    if (mine.fd >= 0)
        base[node->mine] = map_file((int)mine.fd, mine.bytes, PROT_READ | PROT_WRITE);
    if (base[node->mine] && cookie)
        memcpy(base[node->mine], &cookie, sizeof cookie);
    zinf_comm_gather_small(comm, &mine, sizeof mine, all);
    for (int i = 0; i < node->count; i++) {
        const struct offer *offer = &all[node->ranks[i]];
        bytes[i] = offer->bytes;
        if (i != node->mine)
            base[i] = map_offer(offer, protection);
        if (!base[i] || (cookie && memcmp(base[i], &offer->cookie, sizeof cookie)))
            status = ZINF_E_RUNTIME;
    }
    status = zinf_comm_agree(comm, status); /* and everybody has opened what it needs */
    if (mine.fd >= 0)
        close((int)mine.fd);
    free(all);
    if (!status)
        return base;
    for (int i = 0; i < node->count; i++)
        if (base[i])
            munmap(base[i], bytes[i]);
    free(base);
    return NULL;
}

static void find_neighbours(struct zinf_node *node, const struct zinf_comm *comm,
                            const uint64_t *ids)
{
    node->ranks = zinf_alloc((size_t)comm->size * sizeof *node->ranks);
    node->place = zinf_alloc((size_t)comm->size * sizeof *node->place);
    for (int rank = 0; rank < comm->size; rank++) {
        node->place[rank] = -1;
        if (ids[rank] != ids[comm->rank])
            continue;
        node->place[rank] = node->count;
        node->ranks[node->count++] = rank;
    }
    node->mine = node->place[comm->rank];
}

void zinf_node_open(struct zinf_node **out, struct zinf_comm *comm, const uint64_t *ids)
{
    struct zinf_node *node = zinf_alloc(sizeof *node);
    uint64_t cookie = 0;
    find_neighbours(node, comm, ids);
    size_t *bytes = zinf_alloc((size_t)node->count * sizeof *bytes);
    bytes[node->mine] = sizeof(struct control);
    if (getrandom(&cookie, sizeof cookie, 0) != sizeof cookie)
        cookie = (uint64_t)getpid();
    node->controls =
        (struct control **)share(node, comm, bytes, PROT_READ | PROT_WRITE, cookie | 1);
    free(bytes);
    *out = node;
    if (!node->controls) {
        zinf_node_close(node);
        *out = NULL;
    }
}

static void unmap_region(struct zinf_node *node, struct region *region)
{
    for (int i = 0; region->base && i < node->count; i++)
        munmap(region->base[i], region->bytes[i]);
    free(region->base);
    free(region->bytes);
    *region = (struct region){0};
}

void zinf_node_close(struct zinf_node *node)
{
    if (!node)
        return;
    for (int i = 0; i < REGIONS; i++)
        unmap_region(node, &node->regions[i]);
    for (int i = 0; node->controls && i < node->count; i++)
        munmap(node->controls[i], sizeof(struct control));
    free(node->controls);
    free(node->ranks);
    free(node->place);
    free(node);
}

void *zinf_node_map(struct zinf_node *node, struct zinf_comm *comm, size_t bytes)
{
    for (int i = 0; i < REGIONS; i++) {
        struct region *region = &node->regions[i];
        if (region->base)
            continue;
        region->bytes = zinf_alloc((size_t)node->count * sizeof *region->bytes);
        region->bytes[node->mine] = bytes ? bytes : 1;
        region->base = share(node, comm, region->bytes, PROT_READ, 0);
        if (region->base)
            return region->base[node->mine];
        free(region->bytes);
        *region = (struct region){0};
        return NULL;
    }
    return NULL; /* no region left: the same everywhere, since mapping is collective */
}

/* The region that holds `memory`; -1 = none. */
static int find_region(const struct zinf_node *node, const void *memory)
{
    for (int i = 0; i < REGIONS; i++) {
        const struct region *region = &node->regions[i];
        if (!region->base)
            continue;
        const char *base = region->base[node->mine], *end = base + region->bytes[node->mine];
        if ((const char *)memory >= base && (const char *)memory < end)
            return i;
    }
    return -1;
}

void zinf_node_unmap(struct zinf_node *node, void *memory)
{
    int region = find_region(node, memory);
    ZINF_ASSERT(region >= 0);
    unmap_region(node, &node->regions[region]);
}

bool zinf_node_holds(const struct zinf_node *node, const void *memory)
{
    return find_region(node, memory) >= 0;
}

bool zinf_node_has(const struct zinf_node *node, int rank)
{
    return node->place[rank] >= 0;
}

bool zinf_node_speaks_first(struct zinf_node *node)
{
    return atomic_exchange(&node->controls[0]->spoken, 1) == 0;
}

static struct slot *slot_of(const struct zinf_node *node, int neighbour, uint64_t number)
{
    return &node->controls[neighbour]->slots[number % SLOTS];
}

void zinf_node_post(struct zinf_node *node, const struct zinf_transfer *transfer,
                    struct zinf_node_operation *operation)
{
    uint64_t number = node->posted++;
    struct slot *slot = slot_of(node, node->mine, number);
    int region = find_region(node, transfer->send);
    ZINF_ASSERT(region >= 0);
    /* the operation SLOTS before this one is complete */
    ZINF_ASSERT(number < SLOTS || atomic_load(&slot->readers) == node->count - 1);
    operation->number = number;
    operation->unread = node->count - 1;
    operation->read = zinf_alloc((size_t)node->count);
    operation->read[node->mine] = 1;
    slot->region = (uint64_t)region;
    slot->offset = (uint64_t)(transfer->send - node->regions[region].base[node->mine]);
    slot->stride = transfer->send_stride;
    slot->bytes = transfer->bytes;
    atomic_store_explicit(&slot->readers, 0, memory_order_relaxed);
    for (int i = 0; i < node->count && i < NEIGHBOURS; i++)
        atomic_store_explicit(&slot->through[i], 0, memory_order_relaxed);
    atomic_store_explicit(&slot->ready, number + 1, memory_order_release);
}

/* Copy a neighbour's part, if it is ready. */
static bool read_part(struct zinf_node *node, const struct zinf_transfer *transfer, uint64_t number,
                      int neighbour)
{
    struct slot *slot = slot_of(node, neighbour, number);
    int me = node->ranks[node->mine], rank = node->ranks[neighbour];
    if (atomic_load_explicit(&slot->ready, memory_order_acquire) != number + 1)
        return false;
    size_t begin = slot->offset + (size_t)me * slot->stride;
    ZINF_ASSERT(slot->bytes == transfer->bytes && slot->region < REGIONS);
    const struct region *region = &node->regions[slot->region];
    ZINF_ASSERT(region->base && begin + transfer->bytes <= region->bytes[neighbour]);
    memcpy(transfer->receive + (size_t)rank * transfer->bytes, region->base[neighbour] + begin,
           transfer->bytes);
    if (node->mine < NEIGHBOURS)
        atomic_store_explicit(&slot->through[node->mine], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&slot->readers, 1, memory_order_release);
    return true;
}

bool zinf_node_progress(struct zinf_node *node, const struct zinf_transfer *transfer,
                        struct zinf_node_operation *operation)
{
    struct slot *own = slot_of(node, node->mine, operation->number);
    if (!operation->read)
        return true;
    for (int step = 1; operation->unread && step < node->count; step++) {
        int neighbour = (node->mine + step) % node->count; /* nobody is everybody's first */
        if (operation->read[neighbour] || !read_part(node, transfer, operation->number, neighbour))
            continue;
        operation->read[neighbour] = 1;
        operation->unread--;
    }
    if (operation->unread ||
        atomic_load_explicit(&own->readers, memory_order_acquire) < node->count - 1)
        return false;
    free(operation->read);
    operation->read = NULL;
    return true;
}

bool zinf_node_waits_for(const struct zinf_node *node, const struct zinf_node_operation *operation,
                         int rank)
{
    int neighbour = node->place[rank];
    if (!operation->read || neighbour < 0)
        return false;
    struct slot *own = slot_of(node, node->mine, operation->number);
    return !operation->read[neighbour] ||
           (neighbour < NEIGHBOURS && !atomic_load(&own->through[neighbour]));
}
