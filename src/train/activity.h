/*
 * Where the wall time of a rank goes: seconds per activity, without counting any moment twice, and the table at the end of a run.
 *
 * Activities nest: while an inner one runs, the outer one stands still. Inside an evaluation or a checkpoint everything belongs to it, so
 * that "forward" is the forward pass of training only. Used by the thread of the loop alone.
 */
#ifndef ZINF_TRAIN_ACTIVITY_H
#define ZINF_TRAIN_ACTIVITY_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum zinf_activity {
    ZINF_ACTIVITY_START,      /* model, data, plan, checkpoint read */
    ZINF_ACTIVITY_DATA,       /* waiting for samples */
    ZINF_ACTIVITY_FORWARD,
    ZINF_ACTIVITY_LOSS,
    ZINF_ACTIVITY_BACKWARD,
    ZINF_ACTIVITY_WAIT_GATHER, /* parameters that are not there yet */
    ZINF_ACTIVITY_WAIT_NVME,   /* because the drive has not brought them, or what their update needs */
    ZINF_ACTIVITY_WAIT_UPDATE, /* because the update lane has not made them */
    ZINF_ACTIVITY_WAIT_REDUCE, /* gradients still under way */
    ZINF_ACTIVITY_NORM,
    ZINF_ACTIVITY_OPTIMIZER,
    ZINF_ACTIVITY_EVALUATION,
    ZINF_ACTIVITY_CHECKPOINT,
    ZINF_ACTIVITY_LOGGING,
    ZINF_ACTIVITY_COUNT
};

/* Plain data of one rank; what ranks gather for the table. bytes 0: not given. */
struct zinf_activity_totals {
    double wall_s;
    struct {
        double seconds;
        int64_t calls, bytes;
    } rows[ZINF_ACTIVITY_COUNT];
};

enum { ZINF_ACTIVITY_DEPTH = 16 };

struct zinf_activities {
    struct zinf_activity_totals totals; /* wall_s is set by zinf_activities_totals() */
    enum zinf_activity stack[ZINF_ACTIVITY_DEPTH];
    int depth;
    double began_s, since_s; /* since_s: when the running activity was last charged */
};

/** Begin to count; the wall time starts here. */
void zinf_activities_init(struct zinf_activities *activities);
void zinf_activity_start(struct zinf_activities *activities, enum zinf_activity activity);
/** Ends the innermost activity, which must be `activity` (asserted). */
void zinf_activity_stop(struct zinf_activities *activities, enum zinf_activity activity);
/** Of the seconds just counted for one activity so many belong to another. */
void zinf_activity_move(struct zinf_activities *activities, enum zinf_activity from,
                        enum zinf_activity to, double seconds);
/** Bytes that the transfers moved for which this activity waits: read and written. */
void zinf_activity_add_bytes(struct zinf_activities *activities, enum zinf_activity activity,
                             int64_t bytes);
/** Everything up to now, with running activities. */
struct zinf_activity_totals zinf_activities_totals(struct zinf_activities *activities);

/**
 * The table over all ranks: min, mean and max seconds, share of the wall time, calls (of rank 0), bytes (of all ranks), and a row "rest" for
 * what no activity counted. Activities that never ran are left out.
 * @return lines, owned by the caller
 */
char *zinf_activity_table(const struct zinf_activity_totals *ranks, int rank_count);

#ifdef __cplusplus
}
#endif
#endif
