/*
 * The loss scale of fp16 training: DeepSpeed's dynamic and static scaler to the letter (runtime/fp16/loss_scaler.py of 0.19.8).
 *
 * Local. Every rank holds the same state, because every rank is told the same `overflow` (agreed with the gradient norm).
 */
#ifndef ZINF_TRAIN_LOSS_SCALE_H
#define ZINF_TRAIN_LOSS_SCALE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The keys of ds.json's "fp16". */
struct zinf_loss_scale_options {
    double loss_scale; /* 0 = dynamic, else the scale for ever */
    int initial_scale_power;
    int64_t loss_scale_window, hysteresis;
    bool consecutive_hysteresis;
    double min_loss_scale;
};

struct zinf_loss_scale {
    struct zinf_loss_scale_options options;
    double scale;
    int64_t hysteresis, iteration, last_overflow; /* with scale the whole state: /run loss_scale... of a checkpoint */
};

/** DeepSpeed's defaults: dynamic, 2^16, window 1000, hysteresis 2, minimum 1. */
void zinf_loss_scale_defaults(struct zinf_loss_scale_options *options);

void zinf_loss_scale_init(struct zinf_loss_scale *scale,
                          const struct zinf_loss_scale_options *options);

/** Would an overflow in this step end the run? (Such a step is traced first, so that the message can name the parameter.) */
bool zinf_loss_scale_is_last(const struct zinf_loss_scale *scale);

/**
 * Tell the scaler how a step went; the step is skipped by the caller when `overflow`.
 * @return 0, or ZINF_E_NUMERIC with the state unchanged: the scale is at its minimum and cannot be lowered
 */
int zinf_loss_scale_update(struct zinf_loss_scale *scale, bool overflow, struct zinf_error *error);

#ifdef __cplusplus
}
#endif
#endif
