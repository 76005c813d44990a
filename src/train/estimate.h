/*
 * What a run would need and move, worked out from its plan without memory, data or other ranks: `zinf plan`.
 *
 * The same code lays out the memory of a run (counting pools), so the figures are those of the run.
 */
#ifndef ZINF_TRAIN_ESTIMATE_H
#define ZINF_TRAIN_ESTIMATE_H

#include <stddef.h>
#include <stdint.h>

#include "train/budget.h"
#include "train/config.h"
#include "zero/activations.h"
#include "zero/zero.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Of one rank. */
struct zinf_estimate {
    struct zinf_zero_bytes bytes;
    size_t activation_bytes;                    /* on the device */
    struct zinf_activations_bytes inputs;       /* of layers, by tier; `device` is part of activation_bytes */
    int input_windows;                          /* in which they pass when they are on NVMe */
    int64_t inputs_nvme_bytes;                  /* that they read, and write, in one step */
    size_t scratch_bytes;                       /* of a GPU's streams */
    size_t graph_bytes;                         /* that recordings of blocks may take there */
    size_t device_bytes, host_bytes, nvme_bytes; /* in all */
    size_t card_bytes;                          /* device_bytes, and what CUDA and its libraries take beside; 0 on a CPU rank */
    int kept_layers, layers;
    bool kept_logits;
    int device_blocks, blocks;                  /* the first so many of all have their states on the device: offload_optimizer.ratio */
    int64_t parameters;                         /* of the model */
    int64_t comm_bytes;                         /* sent in one step */
    int64_t nvme_read_bytes, nvme_write_bytes;  /* of one step */
    int64_t operations, windows, records;
    size_t checkpoint_bytes;                    /* one checkpoint of all ranks */
    uint64_t checksum;                          /* of the plan */
    double cached_fraction;                     /* of the optimizer's records, by bytes */
    struct zinf_resident_run *resident;         /* (resident_count) what stays in host memory; owned */
    int resident_count;
    char *exceeded;                             /* what does not fit, or NULL; owned */
};

/**
 * Fill `estimate`; release it whatever comes back.
 * @return 0; ZINF_E_DOES_NOT_FIT (estimate is filled); ZINF_E_DATA or ZINF_E_USAGE with error filled
 */
int zinf_estimate(struct zinf_estimate *estimate, const struct zinf_config *config, int ranks,
                  const struct zinf_budget *budget, struct zinf_error *error);

void zinf_estimate_release(struct zinf_estimate *estimate);

/**
 * What would fit: stages and offloads from the fastest on, each with what it needs, nothing cached, activations "auto".
 * @return a table, each line ends with a newline; owned by the caller
 */
char *zinf_estimate_alternatives(const struct zinf_config *config, int ranks,
                                 const struct zinf_budget *budget);

/** The same operations as JSON: a list for each lane, by its name; owned by the caller. @return as zinf_estimate() */
int zinf_estimate_plan_json(struct zinf_json **plan, const struct zinf_config *config, int ranks,
                            const struct zinf_budget *budget, struct zinf_error *error);
/** Print every operation of a training step to standard output, lane by lane. @return as zinf_estimate() */
int zinf_estimate_print_plan(const struct zinf_config *config, int ranks,
                             const struct zinf_budget *budget, struct zinf_error *error);

#ifdef __cplusplus
}
#endif
#endif
