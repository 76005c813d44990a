/*
 * The update lane: a thread of the rank that carries the optimizer's update out where states pass
 * through the ring from and to NVMe, and where they stand in host memory beside a device with memory
 * of its own, beside the compute lane, so that neither waits for the other without need.
 *
 * A record is *released* when its update may begin: behind DECIDE, or, where nothing but a value
 * that is not finite can stop the step (no clipping, no loss scale), as soon as its block's
 * gradient is reduced, in the middle of the backward pass. Of the released records the one whose
 * weights are needed first goes first: record numbers are the order of the forward pass. Updates
 * are elementwise, so the order changes no bit. The next step does not wait: who reads a block's
 * weights waits for that block. The ring reads ahead what will be released, in the order of the
 * plan's update lane; that cannot block, since whatever stands in the ring is released without any
 * update of the same step, and reading ahead for a step begins only when all records of the step
 * before are in the ring. Where the drive is slower than the backward pass, read-ahead leaves
 * records out rather than fall behind: they are read when the backward pass has ended, and so the
 * drive has work under the next forward pass, whose first blocks are not among them.
 *
 * An early update overwrites nothing that a skipped step would need: on NVMe it goes to the
 * record's spare extents, which become the current ones when the step is decided; weights in memory
 * are updated in place and the old ones kept in the bytes of the gradient, which is dead by then.
 *
 * A record that stays in host memory altogether does not pass through the ring. What of its update
 * is done before DECIDE: updates_memory.c.
 *
 * With a ring of one buffer nothing overlaps: the documented meaning of buffer_count 1.
 *
 * Rejected: waiting for the norm with everything (the drive idles while the backward pass
 * computes); undoing an update by arithmetic (not exact).
 */
#ifndef ZINF_ZERO_UPDATES_H
#define ZINF_ZERO_UPDATES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "device/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

struct zinf_zero;
struct zinf_updates;

/** Start the lane's thread; zero's rings and lanes are open. Local. */
int zinf_updates_new(struct zinf_updates **updates, struct zinf_zero *zero);
/** Ends the thread; what was released is carried out before. */
void zinf_updates_free(struct zinf_updates *updates);

/**
 * A training step begins.
 * @param early         options of the update where it is known before DECIDE, else NULL
 * @param square_limit  a sum of squares of the gradient above this proves that DECIDE will scale it
 *                      in another way; INFINITY: it cannot
 */
void zinf_updates_begin(struct zinf_updates *updates, const struct zinf_update *early,
                        double square_limit);
/** The gradient of a block is complete in its accumulator. By the mover. */
void zinf_updates_reduced(struct zinf_updates *updates, int block);
/**
 * DECIDE has fallen: carry out `update` on all records, or (NULL) undo what was early; then nothing
 * has changed.
 * @return seconds waited: for the undoing, or, with one buffer, for everything
 */
double zinf_updates_decide(struct zinf_updates *updates, const struct zinf_update *update);

/** Return when the weights of `block` are those after the last step that was decided; in memory,
 * where they stand there. */
void zinf_updates_wait(struct zinf_updates *updates, int block);
/** And when master and moments are too: its gradient may be replaced. */
void zinf_updates_wait_for_rest(struct zinf_updates *updates, int block);
/** May the weights of a record be read from NVMe? wait: return when they may. */
bool zinf_updates_readable(struct zinf_updates *updates, int record, bool wait);
/** Wait until everything released is done and on the drive; not inside a step. @return seconds
 * waited */
double zinf_updates_drain(struct zinf_updates *updates);

/** Since start: records updated, those of them whose new weights stood before DECIDE; those whose
 * weights were made before in vain; and the lane's seconds: computing, and waiting for its own reads.
 */
struct zinf_updates_totals {
    int64_t records, early_records, refused_records;
    double busy_s, read_wait_s;
};
struct zinf_updates_totals zinf_updates_totals(struct zinf_updates *updates);
/** Bytes moved for the update of the current step, or of the one before; complete once that is
 * drained or the next has read all weights. */
void zinf_updates_bytes(struct zinf_updates *updates, bool before, int64_t *read_bytes,
                        int64_t *write_bytes);
/** "update of layer 3, record 17 of 60", "" when idle. With the lock of the lanes. */
void zinf_updates_describe(const struct zinf_updates *updates, char *out, size_t out_bytes);

#ifdef __cplusplus
}
#endif
#endif
