/*
 * results.json: how a run ended or stands, for scripts. Contract, section 3.
 */
#ifndef ZINF_TRAIN_RESULTS_H
#define ZINF_TRAIN_RESULTS_H

#include <stdbool.h>
#include <stdint.h>

#include "train/metrics.h"

#ifdef __cplusplus
extern "C" {
#endif

struct zinf_results {
    struct zinf_metrics metrics;        /* of the last step; metrics.step 0 = none yet */
    struct zinf_evaluation evaluation;  /* the last; step 0 = none */
    bool has_best;
    double best_score;
    struct zinf_evaluation best_evaluation; /* of the best checkpoint; step 0 = it was not evaluated */
    struct zinf_metrics best_metrics;
    char checkpoint[1024], best_checkpoint[1024]; /* paths, "" = none */
    int checkpoints_failed;
    const char *io_engine;              /* of the NVMe tier; NULL = none is used */
    bool io_direct, io_registered;
    char device[160];                   /* what rank 0 computes on, "cuda: NVIDIA H200"; "" = not open */
    int64_t context_bytes, link_bytes, card_bytes; /* what rank 0 has on its device, see train/card.h: -1 = not known */
    double wall_s;                      /* of all starts of this run */
    bool ended;                         /* the run wrote this as its last word; else status is what stands if it dies */
};

/** The text of the file, owned by the caller. status: enum zinf_status. */
char *zinf_results_print(const struct zinf_results *results, int status);

/** What a resumed run carries on: best score and wall time. Local. A file that is missing or damaged leaves `results` as it is. */
void zinf_results_read(struct zinf_results *results, const char *path);

#ifdef __cplusplus
}
#endif
#endif
