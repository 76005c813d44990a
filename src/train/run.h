/*
 * A run: everything between a configuration and the first step, and the loop that follows. Commands (train, eval) own a run and nothing else.
 *
 * run.c opens it: model, data, plan, memory, weights; facts.c says what all ranks must agree on. resume.c finds and reads the checkpoint to go
 * on from and writes new ones; changes.c compares it with the configuration.
 * products.c chooses how matrix products are made. evaluate.c measures on data.eval. loop.c trains. banner.c says what is about to happen and where the time went.
 */
#ifndef ZINF_TRAIN_RUN_H
#define ZINF_TRAIN_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "memory/pool.h"
#include "model/model.h"
#include "text/batches.h"
#include "topology/comm.h"
#include "topology/rankmap.h"
#include "train/activity.h"
#include "train/budget.h"
#include "train/card.h"
#include "train/config.h"
#include "train/loss_scale.h"
#include "train/results.h"
#include "train/run_folder.h"
#include "train/schedule.h"
#include "train/snapshot.h"
#include "train/step.h"
#include "device/link.h"
#include "zero/staged.h"
#include "zero/zero.h"

#ifdef __cplusplus
extern "C" {
#endif

struct zinf_run {
    const struct zinf_config *config; /* borrowed until close */
    struct zinf_comm *comm;
    int threads;
    struct zinf_rankmap rankmap; /* which rank runs where */
    const char *optimizer_path, *parameter_path, *activation_path; /* of nvme_path this rank's; NULL: none */
    size_t nvme_bytes;                 /* that its swap files may take; SIZE_MAX = all there is */
    struct zinf_model *model;
    struct zinf_batches *train, *eval; /* NULL: not needed by this command */
    struct zinf_plan plan, evaluation_plan;
    bool own_memory;               /* what this rank computes on has memory of its own: known before it is open */
    int device_blocks;             /* of offload_optimizer.ratio: zinf_offload.device_blocks */
    bool ahead;                    /* new weights are made before the norm is known: zinf_offload.ahead */
    struct zinf_device processor;  /* what this rank computes on; backend NULL: not open, a run that is only planned */
    int device_ranks;              /* ranks that share it */
    struct zinf_link_choice exchange; /* how ranks exchange what stands on their devices */
    struct zinf_comm link;         /* exchange.direct: open with the device; ops NULL: not open */
    struct zinf_products products; /* the algorithms of its matrix products; count 0: it has nothing to choose */
    char *products_text;           /* the table of the checkpoint that was loaded; NULL: it has none. Owned */
    int products_new;              /* of products, those that this start has timed, or had no memory to */
    double products_s;             /* what that took */
    struct zinf_card card;         /* of its memory what was not asked for */
    size_t scratch_bytes;          /* of its streams, on the device beside the pool; 0 on a CPU rank */
    size_t graph_bytes;            /* that recordings of its blocks may take there; 0 on a CPU rank */
    struct zinf_pool device, host; /* on a CPU rank both are RAM */
    size_t pinned_bytes;           /* of host, locked in memory */
    struct zinf_budget budget;     /* what this rank may use */
    int64_t largest_record;        /* elements; equal on all ranks */
    size_t cache_bytes;            /* zinf.memory.cache, "auto" worked out; equal on all ranks */
    struct zinf_zero zero;
    struct zinf_step step;
    struct zinf_schedule schedule;
    struct zinf_loss_scale loss_scale;
    struct zinf_run_state state;
    struct zinf_activities activities;
    struct zinf_run_folder *folder;    /* rank 0 of a training run; else NULL */
    bool *no_decay;                    /* (param_count) */
    int32_t *inputs, *targets;         /* (k, m, S), at least one evaluation batch */
    int64_t total_steps;               /* of the run as planned now; 0: an evaluation */
    double peak_flops_per_rank;        /* of the matrix product probe, dtype of the run */
    struct zinf_results results;       /* rank 0: what results.json says */
    int checkpoints_failed;
    bool has_checkpoint;               /* a whole checkpoint of this run exists */
    char resumed_from[1024];           /* "" = fresh */
    char branch_source[1024];          /* the --resume PATH this branch of the run began with; "" = the run's own start */
    int64_t own_step;                  /* of the checkpoint in this run's folder that was loaded; -1 = none was */
    int64_t source_step;               /* of the one in this folder that --resume names, not to be pruned; -1 = none */
    const char *model_weights_source;  /* fresh: "random", "pretrained" */
};

/**
 * Open everything, up to weights that are known to all ranks. Collective over comm.
 * @return 0 or the contract's code after one message; release with zinf_run_close() either way
 */
int zinf_run_open_training(struct zinf_run *run, const struct zinf_config *config,
                           struct zinf_comm *comm);
/** For `zinf eval`: weights from `checkpoint` (best, latest or a path), no optimizer state, no training data. Collective. */
int zinf_run_open_evaluation(struct zinf_run *run, const struct zinf_config *config,
                             struct zinf_comm *comm, const char *checkpoint);
void zinf_run_close(struct zinf_run *run);

/** Train to the end, a stop or a failure. Collective. @return 0, ZINF_E_STOPPED or what went wrong, logged */
int zinf_run_train(struct zinf_run *run);

/** Mean loss over data.eval (or its first eval_batches batches). Collective. */
int zinf_run_evaluate(struct zinf_run *run, double *loss, int64_t *tokens);

/* Between the files of a run. */

/** Log an error of this rank, then let all ranks agree: the message comes from the lowest rank that has one. Collective. */
int zinf_run_agree_on(struct zinf_comm *comm, int status, const struct zinf_error *error);
/** Set own_memory; a device that cannot be had is told where it is opened. Before the plans. Local. */
void zinf_run_find_processor(struct zinf_run *run);
/** Choose and open the device of zinf.device. After the plans, before memory is counted. Collective. @return 0 or ZINF_E_USAGE and what open() returns, logged */
int zinf_run_open_processor(struct zinf_run *run, bool training);
/** The first event behind those of the plans: the step's; the link's come last. Local. */
int zinf_run_step_event(const struct zinf_run *run, bool training);
/** Working memory of one stream. Local. */
size_t zinf_run_device_scratch(const struct zinf_run *run);
/** What recordings of blocks may take on a device that makes them. After the plans. Local. */
size_t zinf_run_graph_bytes(const struct zinf_run *run);
/** Set peak_flops_per_rank: the device's data sheet, else measured by a product. After memory is taken, before weights are there. Collective. */
void zinf_run_probe_peak(struct zinf_run *run);
/**
 * Choose how matrix products are made and prepare it: from the checkpoint that was loaded, else by timing on rank 0. Nothing happens where a
 * backend has one way. After resume, before the first step. Collective.
 */
void zinf_run_choose_products(struct zinf_run *run, bool training);
/** Remember the table of a checkpoint that is loaded. Local. */
void zinf_run_keep_products(struct zinf_run *run, const struct zinf_checkpoint_file *file);
/** The banner's line, and each product with -v. Local. */
void zinf_run_say_products(const struct zinf_run *run);
/** The plans of a training step (unless `training` is false) and of an evaluation batch. Local. */
void zinf_run_build_plans(struct zinf_run *run, bool training);
/**
 * Count all memory on empty pools: the last layers whose activations fit with everything else keep them, the others compute them again. Where
 * all layers do, the head keeps its logits if they fit too.
 * What still does not fit gets shorter records. A cache "auto" has what is left. Only as zinf.memory.activations says: "auto" never moves inputs to another tier. Local.
 * @return how many layers keep, one more with the logits; -1: it does not fit even without
 */
int zinf_run_choose_kept(struct zinf_run *run, bool training,
                         const struct zinf_budget *budget);
/** What this rank takes on its device: the pool, the scratch of its streams, and what recordings may take. */
size_t zinf_run_device_bytes(const struct zinf_run *run);
/** What this rank puts on NVMe, padding included, as laid out last. */
size_t zinf_run_nvme_bytes(const struct zinf_run *run);
/** Do all ranks run the same thing? Collective. @return 0 or ZINF_E_USAGE after a table of what differs, with the ranks. */
int zinf_run_check_ranks(struct zinf_run *run);
/** Work out, check and take all memory. Collective. @return 0 or ZINF_E_DOES_NOT_FIT with a table */
int zinf_run_take_memory(struct zinf_run *run, bool training);
/** Steps of an epoch at this batch size; an incomplete last batch is dropped. */
int64_t zinf_run_steps_per_epoch(const struct zinf_run *run);
/** Epochs done, a fraction. */
double zinf_run_epochs(const struct zinf_run *run);
/**
 * Lock the run folder (a dry run only asks whether it could); go on from the newest whole checkpoint, the one asked for, or from the first weights. Collective.
 * A PATH begins a branch, which every checkpoint remembers (/provenance/resumed_from); the same PATH again goes on from the branch's newest.
 */
int zinf_run_resume(struct zinf_run *run);
/**
 * Is an open checkpoint of this run's model, and made with its seed? Local; the same on all ranks.
 * @param path      of the file, for the message, which names all fields that differ with both values
 * @param training  dropout counts
 * @return 0 or ZINF_E_USAGE
 */
int zinf_run_check_model(const struct zinf_run *run, const struct zinf_checkpoint_file *file,
                         const char *path, bool training, struct zinf_error *error);
int zinf_run_check_seed(const struct zinf_run *run, int64_t seed, const char *path,
                        struct zinf_error *error);
/** What the bits of a run depend on besides its configuration: texts of /provenance by these names. */
struct zinf_circumstances {
    char world_size[16], build[512], kernels[256], threads[16]; /* threads: of rank 0 */
};
void zinf_run_circumstances(const struct zinf_run *run, struct zinf_circumstances *now);
/** Rank 0 logs a line for each value of the configuration, and each circumstance, that differs from the checkpoint's. Local. */
void zinf_run_list_changes(const struct zinf_run *run, const struct zinf_checkpoint_file *file);
/**
 * Write a checkpoint of the current step; then links and pruning. Collective.
 * @param score  of this step by checkpoint.score_attribute; NAN = none
 * @return 0; ZINF_E_NO_SPACE, ZINF_E_RUNTIME: logged and counted, nothing changed
 */
int zinf_run_save(struct zinf_run *run, double score);
/** Weights of a checkpoint ("best", "latest" of the run folder, or a path) for an evaluation. Collective. */
int zinf_run_load_weights(struct zinf_run *run, const char *checkpoint);
/** Replace results.json on rank 0. Local. @return 0 or what went wrong, logged */
int zinf_run_write_results(struct zinf_run *run, int status);
/** An engine of the NVMe tier, or NULL when nothing is there: all are of one kind. */
const struct zinf_aio *zinf_run_io(const struct zinf_run *run);
/** Do all files of the NVMe tier bypass the page cache? */
bool zinf_run_io_is_direct(const struct zinf_run *run);
/** Start banner, on rank 0. */
void zinf_run_banner(const struct zinf_run *run);
/** End table. Collective. */
void zinf_run_end_table(struct zinf_run *run);

#ifdef __cplusplus
}
#endif
#endif
