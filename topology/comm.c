/*
 * The control path: what ranks agree on while nothing is in flight. See comm.h.
 *
 * Everything is built on gather_small, so that a backend need not know reductions and every rank
 * computes the result from the same bytes in the same order. A single rank that has not started MPI
 * (ops NULL) agrees with itself.
 */
#include "topology/comm.h"

#include "base/status.h"

#include <stdlib.h>
#include <string.h>

int zinf_comm_agree(struct zinf_comm *comm, int status)
{
    int32_t mine = status, worst = status;
    if (comm->size == 1)
        return status;
    int32_t *all = zinf_alloc((size_t)comm->size * sizeof *all);
    comm->ops->gather_small(comm, &mine, sizeof mine, all);
    for (int rank = 0; rank < comm->size; rank++)
        if (all[rank] < worst)
            worst = all[rank];
    free(all);
    return worst;
}

bool zinf_comm_same(struct zinf_comm *comm, uint64_t value)
{
    bool same = true;
    if (comm->size == 1)
        return true;
    uint64_t *all = zinf_alloc((size_t)comm->size * sizeof *all);
    comm->ops->gather_small(comm, &value, sizeof value, all);
    for (int rank = 0; rank < comm->size; rank++)
        same = same && all[rank] == value;
    free(all);
    return same;
}

void zinf_comm_barrier(struct zinf_comm *comm)
{
    if (comm->ops)
        comm->ops->barrier(comm);
}

void zinf_comm_broadcast(struct zinf_comm *comm, int root, void *buffer, size_t bytes)
{
    ZINF_ASSERT(root >= 0 && root < comm->size);
    if (comm->ops)
        comm->ops->broadcast(comm, root, buffer, bytes);
}

char *zinf_comm_broadcast_text(struct zinf_comm *comm, const char *text)
{
    size_t length = text ? strlen(text) : 0; /* rank 0's counts */
    zinf_comm_broadcast(comm, 0, &length, sizeof length);
    char *copy = zinf_alloc(length + 1);
    if (comm->rank == 0 && text)
        memcpy(copy, text, length);
    zinf_comm_broadcast(comm, 0, copy, length);
    return copy;
}

void zinf_comm_gather_small(struct zinf_comm *comm, const void *mine, size_t bytes, void *all)
{
    if (comm->ops)
        comm->ops->gather_small(comm, mine, bytes, all);
    else
        memcpy(all, mine, bytes);
}

void zinf_comm_gather_bytes(struct zinf_comm *comm, const void *mine, size_t bytes, void **all,
                            size_t *offsets)
{
    if (comm->ops) {
        comm->ops->gather_bytes(comm, mine, bytes, all, offsets);
        return;
    }
    *all = zinf_alloc(bytes);
    if (bytes)
        memcpy(*all, mine, bytes);
    offsets[0] = 0;
    offsets[1] = bytes;
}
