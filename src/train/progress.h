/*
 * What a run shows while it goes on: a line each steps_per_print, and on a terminal a bar under the last line.
 *
 * There is one terminal, so there is one bar: its state is the process's. It wipes itself before a line of the log is printed
 * (zinf_log_set_hook) and is drawn again with the next step. Rank 0 only.
 */
#ifndef ZINF_TRAIN_PROGRESS_H
#define ZINF_TRAIN_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "train/metrics.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Start a bar on `terminal` (borrowed until close); nothing at all happens when it is no terminal or a dumb one. */
void zinf_progress_open(FILE *terminal, int64_t total_steps);
/** Draw the bar for a step that is done, ten times a second at most. */
void zinf_progress_step(const struct zinf_metrics *metrics);
/** Wipe the bar and forget it. */
void zinf_progress_close(void);

enum { ZINF_PROGRESS_LINE_BYTES = 512 };

/**
 * The line of a step, without newline, for zinf_info(): "step  120/690 | epoch 0.52 | loss 4.1270 | lr 2.00e-05 | ...".
 * @param show_scale  fp16: loss scale and skipped steps stand at the end; skipped steps do anyway when there are any
 */
void zinf_progress_line(const struct zinf_metrics *metrics, int64_t total_steps, bool show_scale,
                        char line[ZINF_PROGRESS_LINE_BYTES]);

#ifdef __cplusplus
}
#endif
#endif
