/*
 * The plan of one step: every operation of its lanes, in order, with the buffers it uses and what it waits for. Computed once before
 * step 1 from the model's blocks and a few numbers, identical on every rank, and carried out again and again.
 *
 * Compute lane (the caller's thread): forward, loss, backward, accumulation, update. Communication lane (the mover thread): gathers of
 * parameters, reductions of gradients, small agreements. An operation waits for "the other lane has finished n operations".
 *
 * Update lane (a third thread, updates.h), where states pass through rings on their way from and to NVMe, or stand in host memory beside a
 * device with memory of its own: the compute lane then only hands the blocks over behind DECIDE and begins the next step; whoever reads
 * weights there waits for the block's update. Its operations stand in the order in which their gradients are complete (early_updates) or the
 * weights are needed again (else).
 *
 * How it is built: the compute lane is written down first, it is fixed by the model. Every use of a block's weights is then given a window
 * (Belady's rule: the window whose content is needed farthest in the future is taken), and every communication becomes ready behind a
 * compute operation: a gather behind the last use of the window's old content and no earlier than the prefetch bucket allows, a
 * reduction behind the backward pass that made the gradient. The communication lane is ordered by readiness. That order cannot deadlock:
 * whatever stands before a gather in its lane waits for compute operations that stand before the gather's use.
 *
 * Rejected: recording the order of the first steps at run time as DeepSpeed does; two steps run without prefetch and ranks can differ.
 */
#ifndef ZINF_ZERO_PLAN_H
#define ZINF_ZERO_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "model/model.h"
#include "zero/lanes.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A ZeRO stage is these three; nothing else in the program knows stages. */
struct zinf_sharding {
    bool optimizer, gradients, parameters;
};
/** 0 <= stage <= 3. The only place where a stage's number is looked at. */
struct zinf_sharding zinf_sharding_of_stage(int stage);

enum zinf_plan_kind {
    /* compute lane */
    ZINF_PLAN_EMBEDDING_FORWARD,
    ZINF_PLAN_LAYER_FORWARD,
    ZINF_PLAN_NORM_FORWARD,
    ZINF_PLAN_HEAD_FORWARD,
    ZINF_PLAN_LOSS,
    ZINF_PLAN_HEAD_BACKWARD,
    ZINF_PLAN_NORM_BACKWARD,
    ZINF_PLAN_LAYER_BACKWARD,
    ZINF_PLAN_EMBEDDING_BACKWARD,
    ZINF_PLAN_ACCUMULATE, /* gradient window -> full local accumulator */
    ZINF_PLAN_DECIDE,     /* norm known: clip, skip or go */
    ZINF_PLAN_UPDATE,     /* block -1: hand all blocks over to the update lane */
    /* communication lane */
    ZINF_PLAN_GATHER_WINDOW,   /* shards of a block -> window */
    ZINF_PLAN_GATHER_WEIGHTS,  /* updated shards -> the resident block; with an update lane in the next step, before its first use */
    ZINF_PLAN_GATHER_GRADIENT, /* reduced shards -> the resident gradient */
    ZINF_PLAN_REDUCE,
    ZINF_PLAN_AGREE, /* scalars of all ranks: norm, loss, signals */
    ZINF_PLAN_REPORT /* scalars of all ranks: waits, memory */
};

struct zinf_plan_operation {
    enum zinf_plan_kind kind;
    int block;          /* -1 = none */
    int micro;          /* micro-batch, -1 = none */
    int window;         /* parameter window, -1 = the block is resident */
    int gradient;       /* gradient window, -1 = straight into the accumulator */
    bool first;         /* the first gradient of this block in the step: replaces what is there */
    bool last;          /* REDUCE: the last of this block in the step; EMBEDDING_*: the last tile; HEAD_*: the first tile is `first` */
    int64_t wait_other; /* operations of the other lane that must be finished before; update lane: of the communication lane */
    bool waited;        /* compute lane: one of the communication lane waits for exactly this one */
};

struct zinf_plan_options {
    const struct zinf_model *model; /* borrowed for the plan's life */
    int ranks;
    struct zinf_sharding sharding;
    int micro_count;                /* accumulation steps */
    bool training;                  /* false: forward and loss only */
    enum zinf_dtype dtype;          /* of weights and gradients */
    enum zinf_dtype accumulation_dtype, wire_dtype;
    int64_t prefetch_elements;      /* stage3_prefetch_bucket_size; 0 = fetch when needed */
    int64_t max_live_elements;      /* stage3_max_live_parameters: bounds the windows */
    int64_t max_reuse_elements;     /* stage3_max_reuse_distance */
    bool update_lane;               /* updates run beside the next step; counts in training */
    int device_blocks;              /* with it: the first so many blocks are updated by the compute lane all the same */
    bool early_updates;             /* and beside the backward pass: nothing but a value that is not finite can stop them, or they begin with the new weights alone */
};

struct zinf_plan {
    struct zinf_plan_options options;
    struct zinf_plan_operation *operations[ZINF_LANE_COUNT]; /* owned */
    int64_t count[ZINF_LANE_COUNT];
    int window_count;          /* parameter windows; 0 when parameters are resident */
    int gradient_window_count;
    int64_t window_elements;   /* of one window: the largest block, padded to ranks * shard */
    int64_t comm_bytes;        /* that one rank sends in one step, padding included */
    uint64_t checksum;         /* of all operations; equal on all ranks */
};

/** Local. Does not fail. */
void zinf_plan_build(struct zinf_plan *plan, const struct zinf_plan_options *options);
void zinf_plan_release(struct zinf_plan *plan);

/** Elements of block `block` with shard padding: ranks * shard. */
int64_t zinf_plan_padded_count(const struct zinf_plan *plan, int block);

/** "layer 3", "embedding rows 0-9215" */
void zinf_plan_block_name(const struct zinf_model *model, int block, char *out, size_t out_bytes);

/** "all-gather layer 3", for messages and `zinf plan`. */
void zinf_plan_describe(const struct zinf_plan *plan, enum zinf_lane lane, int64_t index, char *out,
                        size_t out_bytes);

/** The calling thread begins an operation: for the trace, if there is one. @return for zinf_plan_trace_end() */
double zinf_plan_trace_begin(const struct zinf_plan *plan, enum zinf_lane lane, int64_t index);
/** And has ended it. */
void zinf_plan_trace_end(const struct zinf_plan *plan, enum zinf_lane lane, int64_t index,
                         double begin_s);
/** One that was issued in between, and has gone on by itself: it lasted so long (clock.h). */
void zinf_plan_trace_event(const struct zinf_plan *plan, enum zinf_lane lane, int64_t index,
                           double begin_s, double end_s);

/** Doubles each rank sends in AGREE and in REPORT. */
enum { ZINF_AGREE_COUNT = 8, ZINF_REPORT_COUNT = 12 };

#ifdef __cplusplus
}
#endif
#endif
