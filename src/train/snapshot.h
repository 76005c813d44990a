/*
 * A run's whole state as a checkpoint, and back: master weights and optimizer state of every rank's shard, and the numbers of the run.
 */
#ifndef ZINF_TRAIN_SNAPSHOT_H
#define ZINF_TRAIN_SNAPSHOT_H

#include <stdint.h>

#include "base/status.h"
#include "device/ops.h"
#include "io/checkpoint.h"
#include "zero/zero.h"

#ifdef __cplusplus
extern "C" {
#endif

/** The numbers of /run: contract section 4. Equal on all ranks. */
struct zinf_run_state {
    int64_t step, samples, tokens; /* done, skipped steps included */
    int64_t epoch, cursor;         /* epochs done; samples taken in this one */
    int64_t seed;
    int64_t optimizer_steps;       /* updates applied: Adam's t */
    int64_t skipped;
    int64_t nonfinite_in_a_row;    /* not saved: a resumed run may try again */
    int64_t scheduler_iteration;
    double lr;                     /* of the last step */
    double loss_scale;
    int64_t loss_scale_hysteresis, loss_scale_iteration, loss_scale_last_overflow;
};

/** Names of an optimizer's states as torch has them ("exp_avg", "exp_avg_sq"); count by `momentum` for SGD. */
int zinf_optimizer_state_names(enum zinf_optimizer optimizer, double momentum,
                               const char *names[2]);

struct zinf_snapshot {
    struct zinf_zero *zero;
    int moment_count;
    const char *moment_names[2];
    const struct zinf_text *texts; /* of /provenance */
    int text_count;
};

/** Write everything to `path` by the commit protocol. Collective. @return as zinf_checkpoint_save() */
int zinf_snapshot_save(const struct zinf_snapshot *snapshot, const struct zinf_run_state *state,
                       const char *path);

/** The run's numbers of an open checkpoint. @return 0 or ZINF_E_CHECKPOINT naming the attribute that is missing */
int zinf_snapshot_read_state(const struct zinf_checkpoint_file *file, struct zinf_run_state *state,
                             struct zinf_error *error);

/**
 * Fill master weights and moments of the owned parts, on any number of ranks and stage. Collective.
 * @return 0; ZINF_E_USAGE: a parameter is missing or has another shape (another model), or the optimizer's state is another's
 */
int zinf_snapshot_load(const struct zinf_snapshot *snapshot, struct zinf_checkpoint_file *file,
                       struct zinf_error *error);

#ifdef __cplusplus
}
#endif
#endif
