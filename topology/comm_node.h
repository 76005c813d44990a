/*
 * Ranks of one node read each other's memory: what an all-gather or exchange moves between them is copied once, by the reader, from memory
 * that both have mapped. For communicators (comm_mpi.c) only; others see it through comm.h's map_shared.
 *
 * Measured on a 2-core EPYC, 28 MB blocks, 2 ranks, per core-second of copying: MPICH's messages 1.5 GB (UCX without cross-memory attach, as
 * in many containers) to 4.5 GB (with it), this 10 GB: a copy of memcpy's speed without system calls or pinning of pages.
 */
#ifndef ZINF_TOPOLOGY_COMM_NODE_H
#define ZINF_TOPOLOGY_COMM_NODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "topology/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

struct zinf_node;

/* What one operation moves: to every peer `bytes` from send + peer * send_stride, from every peer `bytes` to receive + peer * bytes. */
struct zinf_transfer {
    const char *operation; /* "all-gather", "exchange" */
    const char *send;
    size_t send_stride; /* 0: everybody gets the same */
    char *receive;
    size_t bytes;
};

/* A transfer in flight among the ranks of a node. */
struct zinf_node_operation {
    uint64_t number;
    int unread;          /* peers whose bytes are still to be copied */
    unsigned char *read; /* owned until complete; one flag a rank of the node */
};

/**
 * Collective over comm, through its control path.
 * @param ids  (comm->size) equal for ranks that share a node's memory
 * @param node out; NULL on all ranks when any rank cannot map its neighbours' memory. Owned by the caller.
 */
void zinf_node_open(struct zinf_node **node, struct zinf_comm *comm, const uint64_t *ids);
void zinf_node_close(struct zinf_node *node);

/** See comm.h, map_shared. Collective. NULL on all ranks if one cannot. */
void *zinf_node_map(struct zinf_node *node, struct zinf_comm *comm, size_t bytes);
void zinf_node_unmap(struct zinf_node *node, void *memory);

bool zinf_node_holds(const struct zinf_node *node, const void *memory);
/** Does `rank` share this node? True for oneself. */
bool zinf_node_has(const struct zinf_node *node, int rank);

/** Make transfer->send (memory that holds) readable and begin. Same order on all ranks of the node. */
void zinf_node_post(struct zinf_node *node, const struct zinf_transfer *transfer,
                    struct zinf_node_operation *operation);
/** Copy what is ready. True when all is here and everybody has read what is ours. */
bool zinf_node_progress(struct zinf_node *node, const struct zinf_transfer *transfer,
                        struct zinf_node_operation *operation);
/** True for the first caller among the ranks of this node since it was opened. Local; at any time, by any thread. */
bool zinf_node_speaks_first(struct zinf_node *node);
/** Is `rank`'s part still to come, or ours still to be read by it? For what the watchdog says. */
bool zinf_node_waits_for(const struct zinf_node *node, const struct zinf_node_operation *operation,
                         int rank);

#ifdef __cplusplus
}
#endif
#endif
