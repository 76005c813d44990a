/*
 * One training step, and one evaluation batch: the compute lane of the plan.
 */
#ifndef ZINF_TRAIN_STEP_H
#define ZINF_TRAIN_STEP_H

#include <stdbool.h>
#include <stdint.h>

#include "memory/pool.h"
#include "model/transformer.h"
#include "train/activity.h"
#include "train/batch_copy.h"
#include "train/device_times.h"
#include "train/graphs.h"
#include "zero/activations.h"
#include "zero/zero.h"

#ifdef __cplusplus
extern "C" {
#endif

struct zinf_step_options {
    struct zinf_zero *zero;            /* laid out; borrowed */
    int64_t batch, sequence;           /* micro-batch m and S */
    int64_t evaluation_batch;          /* 0 = no evaluation */
    int micro_count;                   /* accumulation steps k */
    struct zinf_activations_options activations; /* where the inputs of layers stand; sizes are filled by the step */
    int kept_layers;                   /* the last so many layers keep their activations, the others recompute them */
    bool keep_logits;                  /* so does the head, for the backward pass */
    const struct zinf_plan *plan, *evaluation_plan;
    struct zinf_rng_key dropout_key;
    struct zinf_activities *activities; /* where the time of the compute lane is counted; borrowed */
    enum zinf_graphs_use graphs; /* of a device with a recorder */
    size_t graph_bytes;      /* that recordings may take there */
    int first_event;         /* of the device's: from there on they are the step's, zinf_device_times_events() of them */
};

struct zinf_step {
    struct zinf_step_options options;
    struct zinf_pass pass;
    struct zinf_activations activations; /* inputs of the layers, (T, C) each, and the final norm's */
    void **saved;            /* (layers) what a layer keeps; layers that recompute share one */
    void *normalized;        /* final norm's output; later the scrap output of a recomputation */
    float *statistics;       /* (2, T) of the final norm */
    struct zinf_loss loss;   /* (T) each */
    struct zinf_device_times times;
    struct zinf_updates_totals told; /* of the update lane, as reported last */
    struct zinf_graphs *graphs; /* NULL: none */
    struct zinf_batch_copy copy; /* of ids and losses, where device memory is not the host's */
    float *dy;               /* (T, C) gradient of `normalized` */
    void *dx;                /* (T, C) gradient on its way down */
    float *cosine, *sine;
    size_t activation_bytes; /* all of the above and scratch, on the device */
};

/** Take the step's memory from counting or open pools, as zinf_zero_layout() does. */
void zinf_step_layout(struct zinf_step *step, const struct zinf_step_options *options,
                      struct zinf_pool *device, struct zinf_pool *host);
/** Once zero has its device: make the swap file of the inputs, if they go to NVMe. Local. @return as zinf_swap_open() */
int zinf_step_open(struct zinf_step *step, struct zinf_error *error);
void zinf_step_release(struct zinf_step *step);

struct zinf_step_input {
    const int32_t *inputs, *targets; /* (k, m, S) of this rank */
    uint32_t step;                   /* counted from 0: what dropout depends on */
    int64_t counted;                 /* counted target tokens of the global batch */
    double loss_scale;               /* 1 unless fp16 */
    double gradient_clipping;        /* 0 = off */
    struct zinf_update update;       /* gradient_scale is filled by the step */
    /* Fills this rank's wishes (zero at first), see zinf_step_result. Called once, as late as the ranks can still agree; NULL: none. */
    void (*wish)(void *context, double wishes[4]);
    void *wish_context;
    double waited_data_s;            /* reported as maximum over ranks */
    double pinned_bytes;
    bool trace;                      /* look for the first value that is not finite; nothing is updated */
};

enum zinf_nonfinite_kind { ZINF_NONFINITE_WEIGHT, ZINF_NONFINITE_OUTPUT, ZINF_NONFINITE_GRADIENT };

/** The first value that is not finite, in the order of execution on this rank. */
struct zinf_nonfinite {
    int64_t order; /* operation number + 1; 0 = none found */
    enum zinf_nonfinite_kind kind;
    int micro, block;
    int param; /* WEIGHT, GRADIENT: which; OUTPUT: -1, the block's weights are finite */
};

struct zinf_step_result {
    double loss;       /* mean over the global batch; not finite when a rank's is not */
    double grad_norm;  /* before clipping, loss scale removed */
    bool skipped;      /* loss or norm not finite: nothing was updated */
    double signals[4]; /* maximum over ranks */
    double wait_comm_s, wait_data_s, wait_nvme_s, rss_bytes, pinned_bytes; /* maximum over ranks */
    double nvme_read_bytes, nvme_write_bytes; /* of this step without its update, which may go on under the next; sum over ranks */
    double wait_update_s;                    /* for weights that the update lane makes; maximum over ranks */
    double early_records, refused_records;   /* see zinf_updates_totals; sum over ranks */
    double before_read_bytes, before_write_bytes; /* of the update of the step before; sum over ranks */
    int64_t comm_bytes; /* this rank's, counted by the communicator */
    struct zinf_nonfinite nonfinite; /* trace only */
};

/** Collective over the communicator of zero; all but inputs and targets must be equal on all ranks. Does not fail. */
void zinf_step_run(struct zinf_step *step, const struct zinf_step_input *input,
                   struct zinf_step_result *result);

/** Wait for the update of the last step; its bytes, sum over ranks. Collective. */
void zinf_step_settle(struct zinf_step *step, double *read_bytes, double *write_bytes);

/** Sum of the cross entropy over the counted tokens of all ranks' (evaluation_batch, S) rows, and their number. Collective. */
void zinf_step_evaluate(struct zinf_step *step, const int32_t *inputs, const int32_t *targets,
                        double *loss_sum, double *counted);

#ifdef __cplusplus
}
#endif
#endif
