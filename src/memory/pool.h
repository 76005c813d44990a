/*
 * Memory of exact size, taken once: a rank's tensors are carved from one mapping whose size is known before it is made.
 *
 * Used twice with the same code: on a zeroed pool every take() only counts; after zinf_pool_open() the same calls hand out memory.
 * So the figure that the plan prints and the memory that a run uses cannot differ.
 */
#ifndef ZINF_MEMORY_POOL_H
#define ZINF_MEMORY_POOL_H

#include <stdbool.h>
#include <stddef.h>

#include "device/device.h"
#include "topology/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

struct zinf_pool {
    char *base; /* NULL: counting */
    size_t used_bytes, size_bytes;
    bool locked; /* its pages stay where they are: set by who locks them; I/O may register it */
    struct zinf_comm *comm; /* whose shared memory it is; NULL = private */
    struct zinf_device *device; /* whose own memory it is, which the host may not touch; NULL = the host's */
};

/** The next `bytes`, aligned to 4096 bytes from 1 MiB on and to 64 below; zero on first use. NULL while counting. */
void *zinf_pool_take(struct zinf_pool *pool, size_t bytes);

/**
 * Map what was counted and start over. The pages are touched by this thread's OpenMP team, so that no page fault falls into a step.
 * @return 0 or ZINF_E_DOES_NOT_FIT (logged with the size)
 */
int zinf_pool_open(struct zinf_pool *pool);
/** End what was counted at a page: what zinf_pool_open() then maps is what was counted. */
void zinf_pool_round(struct zinf_pool *pool);
/**
 * The same in memory that the other ranks of the node can read, so that gathers and exchanges inside it are one copy (comm.h, map_shared);
 * private where that cannot be had. Collective over comm, which must outlive the pool; so is its close.
 */
int zinf_pool_open_shared(struct zinf_pool *pool, struct zinf_comm *comm);
/** The same in the memory of `device`, which is open, has memory of its own and gives it back when it is closed. Local.
 * What is refused is not logged: the caller says what would fit, and the pool goes on counting. */
int zinf_pool_open_device(struct zinf_pool *pool, struct zinf_device *device);
void zinf_pool_close(struct zinf_pool *pool);

#ifdef __cplusplus
}
#endif
#endif
