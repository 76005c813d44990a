/*
 * One mapping, carved in order. See pool.h.
 */
#include "memory/pool.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/status.h"

enum { PAGE = 4096, LARGE = 1 << 20, CACHE_LINE = 64 };

void *zinf_pool_take(struct zinf_pool *pool, size_t bytes)
{
    size_t alignment = bytes >= LARGE ? PAGE : CACHE_LINE;
    size_t begin = (pool->used_bytes + alignment - 1) / alignment * alignment;
    pool->used_bytes = begin + bytes;
    if (!pool->base)
        return NULL;
    ZINF_ASSERT(pool->used_bytes <= pool->size_bytes);
    return pool->base + begin;
}

void zinf_pool_round(struct zinf_pool *pool)
{
    pool->used_bytes = (pool->used_bytes + PAGE - 1) / PAGE * PAGE;
}

static void touch(struct zinf_pool *pool)
{
#pragma omp parallel for schedule(static)
    for (size_t at = 0; at < pool->size_bytes; at += PAGE)
        pool->base[at] = 0;
}

int zinf_pool_open(struct zinf_pool *pool)
{
    size_t bytes = (pool->used_bytes + PAGE - 1) / PAGE * PAGE;
    void *base = mmap(NULL, bytes ? bytes : PAGE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
        zinf_last_words("memory: a mapping of %zu bytes was refused (%s); lower the model, the "
                        "micro-batch or the sequence length, or use more ranks",
                        bytes, strerror(errno));
        return ZINF_E_DOES_NOT_FIT;
    }
    /* Direct I/O takes what lies together in one piece: 2.5 times the rate of single pages was
     * measured. Refused, it is only slower. */
    madvise(base, bytes, MADV_HUGEPAGE);
    *pool = (struct zinf_pool){.base = base, .size_bytes = bytes ? bytes : PAGE};
    touch(pool);
    return ZINF_OK;
}

int zinf_pool_open_shared(struct zinf_pool *pool, struct zinf_comm *comm)
{
    size_t bytes = pool->used_bytes ? pool->used_bytes : 1;
    void *base = comm->ops->map_shared ? comm->ops->map_shared(comm, bytes) : NULL;
    if (!base) /* on all ranks */
        return zinf_pool_open(pool);
    *pool = (struct zinf_pool){.base = base, .size_bytes = bytes, .comm = comm};
    touch(pool);
    return ZINF_OK;
}

int zinf_pool_open_device(struct zinf_pool *pool, struct zinf_device *device)
{
    size_t bytes = (pool->used_bytes + PAGE - 1) / PAGE * PAGE;
    void *base = device->backend->allocate(device, bytes ? bytes : PAGE);
    if (!base)
        return ZINF_E_DOES_NOT_FIT;
    *pool = (struct zinf_pool){.base = base, .size_bytes = bytes ? bytes : PAGE, .device = device};
    return ZINF_OK;
}

void zinf_pool_close(struct zinf_pool *pool)
{
    if (pool->comm)
        pool->comm->ops->unmap_shared(pool->comm, pool->base);
    else if (pool->base && !pool->device)
        munmap(pool->base, pool->size_bytes);
    *pool = (struct zinf_pool){0};
}
