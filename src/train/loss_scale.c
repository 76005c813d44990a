/*
 * DeepSpeed's loss scaler. See loss_scale.h.
 */
#include "train/loss_scale.h"

#include <math.h>

void zinf_loss_scale_defaults(struct zinf_loss_scale_options *options)
{
    *options = (struct zinf_loss_scale_options){
        .initial_scale_power = 16, .loss_scale_window = 1000, .hysteresis = 2, .min_loss_scale = 1};
}

void zinf_loss_scale_init(struct zinf_loss_scale *scale,
                          const struct zinf_loss_scale_options *options)
{
    scale->options = *options;
    scale->scale =
        options->loss_scale != 0 ? options->loss_scale : ldexp(1.0, options->initial_scale_power);
    scale->hysteresis = options->hysteresis;
    scale->iteration = 0;
    scale->last_overflow = -1;
}

/* Lowered now, or is there hysteresis left? */
static bool lowers(const struct zinf_loss_scale *scale)
{
    return scale->options.hysteresis == 1 || scale->hysteresis == 1;
}

bool zinf_loss_scale_is_last(const struct zinf_loss_scale *scale)
{
    return scale->options.loss_scale == 0 && lowers(scale) &&
           scale->scale == scale->options.min_loss_scale;
}

/* Only so many overflows in a row halve the scale: one bad batch should not. Once it has been
 * halved, hysteresis stays 1 until a window has passed, so that further ones halve it at once. */
static void after_overflow(struct zinf_loss_scale *scale)
{
    if (lowers(scale))
        scale->scale = fmax(scale->scale / 2.0, scale->options.min_loss_scale);
    else
        scale->hysteresis--;
    scale->last_overflow = scale->iteration;
}

/* Doubled after every window of steps without overflow: last_overflow starts at -1, so the first
 * time after window + 1 steps. */
static void after_good_step(struct zinf_loss_scale *scale)
{
    const struct zinf_loss_scale_options *o = &scale->options;
    if (o->consecutive_hysteresis)
        scale->hysteresis = o->hysteresis;
    const int64_t stable = scale->iteration - scale->last_overflow - 1;
    if (stable > 0 && stable % o->loss_scale_window == 0) {
        scale->hysteresis = o->hysteresis;
        scale->scale *= 2.0;
    }
}

int zinf_loss_scale_update(struct zinf_loss_scale *scale, bool overflow, struct zinf_error *error)
{
    if (scale->options.loss_scale != 0)
        return 0;
    if (overflow && zinf_loss_scale_is_last(scale))
        return zinf_error_set(error, ZINF_E_NUMERIC,
                              "the loss scale is at its minimum (%g) and gradients still overflow: "
                              "lower the learning rate, or train in bf16",
                              scale->scale);
    if (overflow)
        after_overflow(scale);
    else
        after_good_step(scale);
    scale->iteration++;
    return 0;
}
