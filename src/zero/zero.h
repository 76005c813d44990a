/*
 * ZeRO: a rank's part of a model (weights, gradients, optimizer state), the windows in which other ranks' parts become readable, and the
 * communication lane that moves them. What to do when stands in the plan; this is where it is done.
 *
 * Where the bytes of a block of n elements (padded) stand, on p ranks:
 *                 weights (dtype)   master, moments (fp32)   accumulator (accumulation dtype)
 *   stage 0       n                 n each                   n
 *   stage 1       n                 n / p each               n
 *   stage 2       n                 n / p each               n / p
 *   stage 3       n / p             n / p each               n / p
 * In fp32 the weights are their own master. Source: ZeRO, arXiv:1910.02054, section 5.
 */
#ifndef ZINF_ZERO_ZERO_H
#define ZINF_ZERO_ZERO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/partition.h"
#include "device/ops.h"
#include "memory/pool.h"
#include "model/model.h"
#include "topology/comm.h"
#include "zero/lanes.h"
#include "zero/plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A run of owned elements that are updated alike. */
struct zinf_update_run {
    int64_t begin, count; /* elements of the owned part */
    bool decay;           /* weight decay falls on it */
};

struct zinf_block_state {
    void *weights;      /* dtype: the whole block, or this rank's shard when parameters are sharded */
    float *master;      /* fp32, owned part; in fp32 it points into `weights` */
    float *moment[2];   /* fp32, owned part; NULL where the optimizer has none */
    void *accumulator;  /* accumulation dtype: the whole block, or the shard when gradients are sharded */
    double square_sum;  /* of this rank's shard of the reduced gradient */
    struct zinf_update_run *runs;
    int run_count;
};

struct zinf_zero_options {
    const struct zinf_model *model; /* borrowed, as everything here, until close */
    struct zinf_comm *comm;
    const struct zinf_ops *ops;
    struct zinf_sharding sharding;
    enum zinf_dtype dtype, accumulation_dtype, wire_dtype;
    bool training;                  /* false: weights only, no gradients and no moments */
    int moment_count;               /* fp32 states per element that the optimizer keeps */
    const bool *no_decay;           /* (param_count) parameters that weight decay leaves alone; NULL = none */
    double watchdog_s;
};

/** Bytes of this rank by purpose; their sum is what the pool holds. */
struct zinf_zero_bytes {
    size_t weights, optimizer, gradients, windows, communication;
};

struct zinf_zero {
    struct zinf_zero_options options;
    struct zinf_block_state *blocks;
    struct zinf_zero_bytes bytes;
    const struct zinf_plan *plan;   /* being carried out */
    struct zinf_lanes *lanes;
    void *windows[8];               /* parameter windows, dtype, plan->window_elements each */
    void *gradients[2];             /* gradient windows */
    void *send, *receive;           /* wire dtype, window_elements each; send NULL when gradients travel as they are */
    double agree[ZINF_AGREE_COUNT], report[ZINF_REPORT_COUNT]; /* this rank's, set before the operation runs */
    double *agree_all, *report_all; /* (ranks, COUNT) afterwards */
    int rank, ranks;
};

/**
 * Take memory for everything above from `pool`; on a counting pool only the sizes are worked out. `plan` gives the number and size of windows.
 * The first call opens `zero` (zeroed storage of the caller); call again with the opened pool.
 */
void zinf_zero_layout(struct zinf_zero *zero, const struct zinf_zero_options *options,
                      const struct zinf_plan *plan, struct zinf_pool *pool);
/** Start the mover. Local. @return 0 or ZINF_E_RUNTIME */
int zinf_zero_start(struct zinf_zero *zero);
void zinf_zero_close(struct zinf_zero *zero);

/** The part of a block whose master weights and moments this rank keeps, in elements of the block, padding included. */
struct zinf_range zinf_zero_owned(const struct zinf_zero *zero, int block);
/** The part this rank writes to a checkpoint: its shard without padding; all ranks' parts cover the block once. */
struct zinf_range zinf_zero_shard(const struct zinf_zero *zero, int block);

/** Begin carrying out `plan`: the mover starts at once. Collective. */
void zinf_zero_begin(struct zinf_zero *zero, const struct zinf_plan *plan);
/** Wait until compute operation `index` may run; seconds waited. */
double zinf_zero_wait(struct zinf_zero *zero, int64_t index);
/** The compute lane has finished its next operation. */
void zinf_zero_done(struct zinf_zero *zero);
/** Wait for the rest of the communication lane; seconds waited. */
double zinf_zero_end(struct zinf_zero *zero);

/** Weights that a compute operation reads: whole block, dtype. Borrowed until the operation is done. */
const void *zinf_zero_weights(const struct zinf_zero *zero,
                              const struct zinf_plan_operation *operation);
/** Where a backward operation writes the block's gradient: whole block, dtype. */
void *zinf_zero_gradient(const struct zinf_zero *zero, const struct zinf_plan_operation *operation);
/** ZINF_PLAN_ACCUMULATE. */
void zinf_zero_accumulate(struct zinf_zero *zero, const struct zinf_plan_operation *operation);
/** ZINF_PLAN_UPDATE: the owned part of a block. weight_decay of `update` is left out on runs without decay. */
void zinf_zero_update(struct zinf_zero *zero, int block, const struct zinf_update *update);
/** Make the 16-bit weights from the master (owned part), then known to all ranks if they are resident: after load or init. Collective. */
void zinf_zero_publish(struct zinf_zero *zero);

#ifdef __cplusplus
}
#endif
#endif
