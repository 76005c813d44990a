/*
 * Learning rate and betas of every step: DeepSpeed's five schedules, bit for bit in double, or the optimizer's own constants.
 *
 * The only state is the iteration i of the last applied step, -1 before the first, so a resumed run continues as if never stopped:
 * DeepSpeed's first step after a resume runs with the lr kept in the optimizer, which is the value of this function at the saved i.
 * The schedule is one behind on purpose (facts of DeepSpeed 0.19.8): its constructor sets the lr of step 0 at i = -1.
 *
 * Source of the formulas: DeepSpeed 0.19.8, runtime/lr_schedules.py, held against its own numbers in tests/test_schedule.cc.
 */
#ifndef ZINF_TRAIN_SCHEDULE_H
#define ZINF_TRAIN_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum zinf_schedule_type {
    ZINF_SCHEDULE_CONSTANT, /* no scheduler in the file */
    ZINF_SCHEDULE_WARMUP_LR,
    ZINF_SCHEDULE_WARMUP_DECAY_LR,
    ZINF_SCHEDULE_WARMUP_COSINE_LR,
    ZINF_SCHEDULE_ONE_CYCLE,
    ZINF_SCHEDULE_LR_RANGE_TEST
};

/* Names as in ds.json. Fill with zinf_schedule_defaults(), then set what the file gives. */
struct zinf_schedule_options {
    enum zinf_schedule_type type;
    double optimizer_lr, optimizer_beta1, optimizer_beta2;
    bool optimizer_has_betas; /* Adagrad and SGD have none: OneCycle then leaves momentum alone */

    double warmup_min_lr;
    double warmup_max_lr;      /* NAN in WarmupLR: optimizer_lr */
    int64_t warmup_num_steps;  /* W > 0; 1 counts as 2 */
    int64_t total_num_steps;   /* T; required by WarmupDecayLR and WarmupCosineLR */
    bool warmup_linear;        /* "linear"; else "log" */
    double warmup_min_ratio, cos_min_ratio;

    double cycle_min_lr, cycle_max_lr, decay_lr_rate; /* the first two are required */
    double cycle_first_step_size, cycle_second_step_size;   /* second NAN: as first */
    int64_t cycle_first_stair_count, cycle_second_stair_count; /* second -1: as first */
    double decay_step_size;
    bool cycle_momentum;
    double cycle_min_mom, cycle_max_mom, decay_mom_rate;

    double lr_range_test_min_lr, lr_range_test_step_rate;
    int64_t lr_range_test_step_size;
    bool lr_range_test_staircase;
};

/** DeepSpeed's defaults for `type`; optimizer: lr 1e-3, betas 0.9 and 0.999. Required members are NAN or 0. */
void zinf_schedule_defaults(struct zinf_schedule_options *options, enum zinf_schedule_type type);

/** What the next step uses. */
struct zinf_schedule_values {
    double lr, beta1, beta2;
};

struct zinf_schedule {
    struct zinf_schedule_options options; /* second_* and warmup_max_lr resolved */
    int64_t iteration;                    /* /run scheduler_iteration of a checkpoint */
};

/** @return 0 or ZINF_E_USAGE with the key that DeepSpeed would refuse. */
int zinf_schedule_init(struct zinf_schedule *schedule, const struct zinf_schedule_options *options,
                       struct zinf_error *error);

struct zinf_schedule_values zinf_schedule_next(const struct zinf_schedule *schedule);

/** After a step that was applied; never after a skipped one. */
void zinf_schedule_advance(struct zinf_schedule *schedule);

#ifdef __cplusplus
}
#endif
#endif
