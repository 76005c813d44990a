/*
 * Blocks of a step that are recorded once and put into the compute stream in one call each (device.h's recorder, CUDA graphs), where that pays.
 *
 * A pass is the operations of one block in one direction for one micro-batch, all of them between two edges: copies, events and collectives
 * stay outside. A pass is not issued as it is written down in src/model, it is collected first (device/calls.h) and looked at as bytes:
 *     other bytes than in the step before   issued; three times in a row: not looked at any more
 *     the same again                        issued, and remembered: what stands there once serves all passes with these bytes, e.g. a layer's of
 *                                           all micro-batches that use the same windows
 *     remembered and recorded               launched
 * A launch is therefore the same work with the same arguments as the calls it takes the place of, by comparison of all of them in every step;
 * the bits cannot differ. The first execution is always plain: libraries choose their algorithms in it.
 *
 * Recording allocates on the device and may wait: it is done between steps, from the remembered bytes, when no collective is under way. A step
 * only compares and launches. What cannot be recorded ends the recordings of this rank with a warning, never the run.
 *
 * Does it pay? Where the host issues faster than the device computes, a launch saves nothing: large models. So rank 0 measures and the others
 * follow its word in the next step, in what they exchange there anyway. Three steps are timed on the device from their first operation to the norm;
 * where issuing takes a tenth of that or more, passes are recorded and three more steps are timed, and the faster way stays. Issuing is counted by
 * the least time that a call took: a host far ahead of the device is held up in a call when the queue of launches is full, which is no cost of issuing.
 *
 * Rejected: a graph of a whole step, or updating one graph's arguments for each block (cudaGraphExecUpdate): the edges to the mover would be part of
 * it, and each update walks all nodes, half of what is to be saved. Recording while the step issues: the capture needs device memory and the driver's
 * locks while collectives of other ranks wait.
 */
#ifndef ZINF_TRAIN_GRAPHS_H
#define ZINF_TRAIN_GRAPHS_H

#include <stdbool.h>
#include <stddef.h>

#include "device/device.h"
#include "zero/plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/** zinf.graphs. AUTO: measured. */
enum zinf_graphs_use { ZINF_GRAPHS_AUTO, ZINF_GRAPHS_ON, ZINF_GRAPHS_OFF };

struct zinf_graphs_options {
    struct zinf_device *device;   /* open, with a recorder; borrowed */
    const struct zinf_plan *plan; /* of a training step; borrowed */
    enum zinf_graphs_use use;
    int rank;                     /* 0 measures */
    size_t device_bytes;          /* that recordings may take */
};

struct zinf_graphs;

/** Device memory that a plan's recordings are given, by the size of its model. Local. */
size_t zinf_graphs_bytes(const struct zinf_plan *plan);

/** Local. The step's operations have to go through zinf_calls_operations(). NULL: OFF; all functions below take it, and do nothing then. */
struct zinf_graphs *zinf_graphs_new(const struct zinf_graphs_options *options);
/** The device must still be open. */
void zinf_graphs_free(struct zinf_graphs *graphs);

/** A pass of operation `index` of the compute lane begins; until the end nothing but operations may be called. */
void zinf_graphs_begin(struct zinf_graphs *graphs, int64_t index);
/** It is in the stream now, one way or the other. */
void zinf_graphs_end(struct zinf_graphs *graphs);

/** What a rank tells all ranks in a step, and hears from each of them before its end: rank 0 what it has decided, others that they cannot. */
double zinf_graphs_word(const struct zinf_graphs *graphs);
void zinf_graphs_hear(struct zinf_graphs *graphs, int rank, double word);
/** Behind a step, when nothing of it is under way on the host. device_s: what it took on the device up to the norm. Local. */
void zinf_graphs_step_ended(struct zinf_graphs *graphs, double device_s);

/** What was decided and why, for the end of a run; owned by the caller. */
char *zinf_graphs_text(const struct zinf_graphs *graphs);

#ifdef __cplusplus
}
#endif
#endif
