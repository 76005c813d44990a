/*
 * A communicator: how the ranks of a job exchange bytes. One method table per backend: MPI (comm_mpi.c) between memory of the host, NCCL
 * (cuda/link_nccl.c) between memory of GPUs, with MPI for the control path.
 *
 * Data path (all_gather, exchange, test): nonblocking, called by one thread at a time (the mover thread), in the same order on all
 * ranks; where operations stand in a stream of a device (in_stream) they also end in it. Control path (the zinf_comm_* functions with
 * blocking names): called while nothing but what stands in a stream is in flight on the data path.
 *
 * Failure: any error of the library ends the job at once with one message (rank, host, operation) through zinf_abort();
 * a rank never leaves a sequence of collectives alone. So these calls return nothing.
 */
#ifndef ZINF_TOPOLOGY_COMM_H
#define ZINF_TOPOLOGY_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct zinf_comm;

/** A nonblocking operation in flight; storage is the caller's, zeroed before first use. */
struct zinf_comm_request {
    void *state; /* the backend's; NULL = done */
};

struct zinf_comm_ops {
    const char *name;
    bool in_stream; /* operations stand in a stream of the device, which orders them: who waits there need not test(), see device/device.h */
    /**
     * In place: `buffer` holds size * shard_bytes bytes, rank r's shard at r * shard_bytes; on completion every shard is there.
     * Cost per rank: sends and receives (p-1) * shard_bytes.
     */
    void (*all_gather)(struct zinf_comm *comm, void *buffer, size_t shard_bytes,
                       struct zinf_comm_request *request);
    /**
     * All-to-all of equal parts: part q of `send` goes to rank q, part q of `receive` comes from rank q (own part is copied).
     * Cost per rank: sends and receives (p-1) * part_bytes.
     */
    void (*exchange)(struct zinf_comm *comm, const void *send, void *receive, size_t part_bytes,
                     struct zinf_comm_request *request);
    /** Move things on; true when `request` is complete. */
    bool (*test)(struct zinf_comm *comm, struct zinf_comm_request *request);
    /** Optional. Which ranks `request` still waits for, e.g. "from rank 3, to rank 3", for the watchdog's message. */
    void (*describe)(struct zinf_comm *comm, struct zinf_comm_request *request, char *out,
                     size_t out_bytes);
    void (*barrier)(struct zinf_comm *comm);
    /** all: size * bytes, in rank order. */
    void (*gather_small)(struct zinf_comm *comm, const void *mine, size_t bytes, void *all);
    void (*broadcast)(struct zinf_comm *comm, int root, void *buffer, size_t bytes);
    /** Root 0 receives every rank's bytes: *all owned by the caller (NULL elsewhere), offsets[size + 1] into it. */
    void (*gather_bytes)(struct zinf_comm *comm, const void *mine, size_t bytes, void **all,
                         size_t *offsets);
    /**
     * Optional. Zeroed memory that the other ranks of this node can read: what all_gather moves inside it and exchange sends from it
     * is copied once between ranks of the node, in place of a message. Collective, as the last two; `bytes` may differ among ranks.
     * A buffer given to all_gather or exchange lies in such memory on all ranks or on none.
     * @return NULL on all ranks where it cannot be had; use own memory then
     */
    void *(*map_shared)(struct zinf_comm *comm, size_t bytes);
    void (*unmap_shared)(struct zinf_comm *comm, void *memory);
    /** Optional. Local: the library and the thread level it gave, for `zinf env`. */
    void (*describe_library)(struct zinf_comm *comm, char *out, size_t out_bytes);
    void (*close)(struct zinf_comm *comm);
};

struct zinf_comm {
    const struct zinf_comm_ops *ops;
    int rank, size;
    int local_rank, local_size; /* among the ranks that share this node's memory */
    uint64_t node;              /* the same on ranks that share a node's memory, and on no others */
    int64_t bytes_sent;         /* by all_gather, exchange and gather_small, counted where the transfer is posted, whichever way it goes */
    double watchdog_s;          /* end the run when a call of the control path waits longer; 0 = never (the start) */
    void *state;
};

/* Control path. Collective over comm; the result is the same on all ranks. A communicator of size 1 may have no backend (ops NULL). */

/** The worst (smallest) status of all ranks. Every operation that can fail on one rank ends with this. */
int zinf_comm_agree(struct zinf_comm *comm, int status);
void zinf_comm_barrier(struct zinf_comm *comm);
void zinf_comm_broadcast(struct zinf_comm *comm, int root, void *buffer, size_t bytes);
/** Rank 0's `text` (NULL counts as "") on every rank; the result is the caller's, free(). */
char *zinf_comm_broadcast_text(struct zinf_comm *comm, const char *text);
void zinf_comm_gather_small(struct zinf_comm *comm, const void *mine, size_t bytes, void *all);
void zinf_comm_gather_bytes(struct zinf_comm *comm, const void *mine, size_t bytes, void **all,
                            size_t *offsets);
/** Do all ranks hold the same value? */
bool zinf_comm_same(struct zinf_comm *comm, uint64_t value);

#ifdef __cplusplus
}
#endif
#endif
