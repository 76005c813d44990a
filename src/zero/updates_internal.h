/*
 * What the files of the update lane share: updates.c (the thread, and records that pass through the ring), updates_memory.c (records in host
 * memory).
 */
#ifndef ZINF_ZERO_UPDATES_INTERNAL_H
#define ZINF_ZERO_UPDATES_INTERNAL_H

#include <pthread.h>

#include "zero/updates.h"
#include "zero/zero.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Numbers of training steps, from 1: for which step something was last done. */
struct zinf_update_progress {
    int64_t started;  /* taken into the ring */
    int64_t released; /* may be updated */
    int64_t updated;
    int64_t stored;   /* and on the drive, out of the ring */
    bool spare_taken; /* by an early update that is not decided yet */
    int64_t reduced;  /* its gradient is complete */
    int64_t output;   /* the new weights stand in memory, made ahead of the update; 0: thrown away */
};

struct zinf_update_moved {
    int64_t read_bytes, write_bytes;
};

struct zinf_updates {
    struct zinf_zero *zero;
    pthread_t thread;
    bool stop;
    struct zinf_update_progress *records; /* (record_count) */
    int *order; /* (order_count) records of the ring as they will be released in a step */
    int order_count;
    int *in_memory; /* (in_memory_count) the others, as their gradients will be complete */
    int in_memory_count;
    int64_t step;
    bool deciding;                /* between begin and decide */
    bool early;                   /* `update` is known before */
    bool ahead;                   /* outputs are made before DECIDE, in this step */
    bool undo;                    /* wanted by decide */
    double square_sum, square_limit; /* of the gradient as far as it is complete and the host has its sum; above it `update` will be another */
    int refused_in_a_row;         /* steps whose update was not the one that was known before */
    int64_t committed;            /* the last step whose update was */
    struct zinf_update update[2]; /* by the parity of the step */
    struct zinf_update_moved moved[2]; /* the same */
    int in_ring;
    int current; /* record being updated, -1 = none */
    struct zinf_updates_totals totals;
};

static inline int64_t zinf_updates_parity(int64_t step)
{
    return step & 1;
}

/** For the trace: "layer 3, record 17, step 2" and `what`. @return now */
double zinf_updates_trace_begin(const struct zinf_updates *u, int record, int64_t step,
                                const char *what);
void zinf_updates_trace_end(const struct zinf_updates *u, int record, int64_t step, double begin_s,
                            const char *what);

/* Records in host memory (updates_memory.c); all with the lock of the lanes. */

/** List them. When the first plan is known. */
void zinf_updates_find_in_memory(struct zinf_updates *u, const struct zinf_plan *plan);
/** A step begins. early: its update is known; square_limit as zinf_updates_begin(). */
void zinf_updates_begin_ahead(struct zinf_updates *u, bool early, double square_limit);
/** The gradient of a block is complete. */
void zinf_updates_reduced_ahead(struct zinf_updates *u, int block);
/** DECIDE has fallen; before records are released and `update` replaces what was known. NULL: the step is skipped. */
void zinf_updates_decide_ahead(struct zinf_updates *u, const struct zinf_update *update);
/** By the lane's thread: do one piece of work if there is one; the lock is given back meanwhile. */
bool zinf_updates_work_in_memory(struct zinf_updates *u);
/** By the lane's thread, without the lock: the step is skipped, the old weights come back. */
void zinf_updates_undo_ahead(struct zinf_updates *u);
/** Are the new weights of a record of memory or ring there? */
bool zinf_updates_has_weights(const struct zinf_update_progress *progress);

#ifdef __cplusplus
}
#endif
#endif
