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
 *
 * Each of them stands on a tier. What is on NVMe, or in host memory beside a device with memory of its own, is cut into records of at most
 * `record_elements` elements of one block's owned part, which are updated in a lane of their own (updates.h); from and to NVMe they pass
 * through rings of buffers (ring.h); accumulators stay in memory. On a CPU rank device
 * and host are both RAM and used in place. On a device with memory of its own staged.h has what passes between the two.
 */
#ifndef ZINF_ZERO_ZERO_H
#define ZINF_ZERO_ZERO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/partition.h"
#include "device/device.h"
#include "memory/pool.h"
#include "model/model.h"
#include "topology/comm.h"
#include "zero/lanes.h"
#include "zero/plan.h"
#include "zero/ring.h"
#include "zero/updates.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A run of owned elements that are updated alike. */
struct zinf_update_run {
    int64_t begin, count; /* elements of the owned part */
    bool decay;           /* weight decay falls on it */
};

enum zinf_tier { ZINF_TIER_DEVICE, ZINF_TIER_HOST, ZINF_TIER_NVME };

/* The parts of a record. */
enum { ZINF_PART_MASTER, ZINF_PART_MOMENT1, ZINF_PART_MOMENT2, ZINF_PART_LOW };

/** A run of a block's owned part that the update lane takes at once; where its bytes are on NVMe, they travel together. */
struct zinf_record {
    int block;
    int64_t begin, count;            /* elements of the owned part */
    bool resident[ZINF_RING_PARTS];  /* stays in host memory for the whole run and has no extent on the drive */
    void *memory[ZINF_RING_PARTS];   /* where a resident part is; NULL while counting */
    bool has_spare;                  /* extents for an update whose step is not decided yet */
    int spare[ZINF_RING_PARTS];      /* -1 = the part has no extent */
};

/** Neighbouring records of which the same parts are resident. */
struct zinf_resident_run {
    int first, last; /* records */
    bool resident[ZINF_RING_PARTS];
    size_t bytes;
    char from[64], to[64]; /* the blocks of the first and the last */
};

struct zinf_block_state {
    void *weights;      /* dtype: the whole block, or this rank's shard when parameters are sharded; NULL: on NVMe */
    float *master;      /* fp32, owned part; in fp32 it is what `low` would be, unless weights are made ahead; NULL: on NVMe */
    float *moment[2];   /* fp32, owned part; NULL where the optimizer has none, or on NVMe */
    void *low;          /* dtype: where an update writes the weights of the owned part; NULL where that is `master`, or on NVMe */
    void *mirror;       /* dtype, owned part in host memory, as the host has updated it; NULL: the update writes to `weights` */
    bool behind;        /* `weights`, on the device, are older than `mirror` */
    void *accumulator;  /* accumulation dtype: the whole block, or the shard when gradients are sharded */
    void *gradient;     /* accumulation dtype: what the update of the owned part reads, in the accumulator or a copy in host memory */
    double square_sum;  /* of this rank's shard of the reduced gradient; where the update is a device's with memory of its own, from AGREE on */
    struct zinf_update_run *runs;
    int run_count;
    int first_record, record_count; /* 0 records: the compute lane updates */
};

/** Where states stand. A zeroed one keeps everything on the device. */
struct zinf_offload {
    enum zinf_tier optimizer, parameters; /* parameters other than DEVICE need sharded parameters */
    const char *optimizer_path, *parameter_path; /* folders of the NVMe tier */
    int optimizer_buffers, parameter_buffers;    /* records in each ring */
    int64_t record_elements;                     /* largest record */
    int device_blocks; /* of the first so many blocks weights and states stand on the device all the same; with optimizer HOST */
    bool ahead; /* beside a device with memory of its own, optimizer HOST: the lane makes new weights before DECIDE, see updates_memory.c */
    size_t cache_bytes;          /* of the optimizer's records, what may stay in host memory */
    int64_t resident_parameters; /* elements of the owned parameters that may stay in host memory */
    size_t nvme_bytes;                           /* of the swap files at most: what is left holds spare extents for early updates */
    bool checksums;
    int queue_depth, io_threads;
    size_t io_block_bytes;
    const char *engine;                          /* NULL = the best that works */
};

struct zinf_zero_options {
    const struct zinf_model *model; /* borrowed, as everything here, until close */
    struct zinf_comm *comm;
    bool direct;                    /* ranks exchange between their devices' memory, by `link` */
    struct zinf_comm *link;         /* direct: open from zinf_zero_start() on, else NULL; see device/link.h */
    struct zinf_device *device; /* NULL = the CPU; until zinf_zero_start() only its properties are looked at */
    const struct zinf_ops *ops; /* of the device */
    struct zinf_sharding sharding;
    enum zinf_dtype dtype, accumulation_dtype, wire_dtype;
    bool training;                  /* false: weights only, no gradients and no moments */
    int moment_count;               /* fp32 states per element that the optimizer keeps */
    struct zinf_offload offload;
    const bool *no_decay;           /* (param_count) parameters that weight decay leaves alone; NULL = none */
    double watchdog_s;
};

/** Bytes of this rank by purpose; their sum is what the pool holds. */
struct zinf_zero_bytes {
    size_t weights, optimizer, gradients, windows, communication, rings;
    size_t staging; /* in host memory, between the device and the host; 0 where the host addresses device memory */
    size_t cache; /* of what is on the NVMe tier, parts that stay in host memory, each padded to 4096 */
    size_t nvme;   /* in the swap files, padding and spare extents included */
    size_t spares; /* of these the spare extents */
};

/** Between a device with memory of its own and the host; see staged.h. */
struct zinf_staging {
    char *gather[2];      /* whole blocks in turn; gather_bytes each */
    char *send, *receive; /* wire dtype, window_elements each */
    char *sum;            /* on the device: a shard's, accumulation dtype */
    double *sums, *landed; /* (blocks) sums of squares: on the device, and come down */
    char *update;         /* on the device: of a record, in dtype, what the host has of it */
    int64_t update_elements;
    size_t gather_bytes;
    int next;                         /* of gather[] */
    bool gather_busy[2];              /* a copy reads it until its event is reached */
    int brought;                      /* the last event behind a gradient that goes down from `sum`; -1 = none in this step */
    double begun_s[ZINF_LANES_UNDER_WAY], over_s; /* for the trace: operation i at i modulo that was issued; the last one ended */
    int64_t passed;                   /* operations of the communication lane that the compute stream has waited for */
    int64_t computed;                 /* operations of the compute lane that have been issued */
};

struct zinf_zero {
    struct zinf_zero_options options;
    struct zinf_block_state *blocks;
    struct zinf_zero_bytes bytes;
    const struct zinf_plan *plan;   /* being carried out */
    struct zinf_lanes *lanes;
    struct zinf_staging staging;
    void *windows[8];               /* parameter windows, dtype, plan->window_elements each */
    void *gradients[2];             /* gradient windows */
    void *send, *receive;           /* wire dtype, window_elements each; send NULL when gradients travel as they are */
    double agree[ZINF_AGREE_COUNT], report[ZINF_REPORT_COUNT]; /* this rank's, set before the operation runs */
    double *agree_all, *report_all; /* (ranks, COUNT) afterwards */
    int rank, ranks;
    struct zinf_record *records;    /* of all blocks, in order */
    int64_t cut_elements;           /* the record_elements by which they were cut */
    int record_count;
    struct zinf_ring_item *update_items, *fetch_items; /* (record_count) */
    int *update_sequence;           /* records that pass through the update ring; those that are all resident do not */
    int64_t update_length;
    struct zinf_ring update_ring, fetch_ring; /* of the update lane; of the mover */
    struct zinf_updates *updates;   /* NULL: the compute lane updates */
    char *old_weights;              /* ZINF_UNDO_ELEMENTS of them while an early update replaces them */
    bool updating;                  /* the plan being carried out ends with an update */
    bool stale;                     /* resident weights are those of before the last update, but for the owned part */
    struct zinf_aio update_aio, fetch_aio;
    size_t swap_bytes[2];           /* of bytes.nvme, what is in each of these */
    struct zinf_swap *swaps[2];     /* of the optimizer's folder and of the parameters'; one serves both when they are the same */
    int *fetch_sequence;            /* records in the order of the plan's gathers */
    int64_t fetch_length;
};

/**
 * Take memory for everything above from the pools; on counting pools only the sizes are worked out. `plan` gives the number and size of windows.
 * The first call opens `zero` (zeroed storage of the caller); call again with the opened pools.
 */
void zinf_zero_layout(struct zinf_zero *zero, const struct zinf_zero_options *options,
                      const struct zinf_plan *plan, struct zinf_pool *device,
                      struct zinf_pool *host);
/** Open the NVMe tier if one is used (host is the pool that I/O may register), and start the lanes. Local. */
int zinf_zero_start(struct zinf_zero *zero, const struct zinf_pool *host,
                    struct zinf_error *error);
void zinf_zero_close(struct zinf_zero *zero);

/** The part of a block whose master weights and moments this rank keeps, in elements of the block, padding included. */
struct zinf_range zinf_zero_owned(const struct zinf_zero *zero, int block);
/** The part this rank writes to a checkpoint: its shard without padding; all ranks' parts cover the block once. */
struct zinf_range zinf_zero_shard(const struct zinf_zero *zero, int block);

/**
 * Begin carrying out `plan`: the mover starts at once. Collective.
 * @param update  of a training step, as far as it is known before DECIDE (where the plan has early updates all of it, but for a clipped
 *                gradient's scale); NULL: nothing will be updated
 * @param square_limit  see zinf_updates_begin()
 */
void zinf_zero_begin(struct zinf_zero *zero, const struct zinf_plan *plan,
                     const struct zinf_update *update, double square_limit);
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
/** ZINF_PLAN_UPDATE of a block: its owned part, here and now. weight_decay of `update` is left out on runs without decay. */
void zinf_zero_update(struct zinf_zero *zero, int block, const struct zinf_update *update);
/** ZINF_PLAN_UPDATE of all blocks: in the update lane. NULL: the step is skipped. @return seconds waited for the drive */
double zinf_zero_hand_over(struct zinf_zero *zero, const struct zinf_update *update);
/** Wait until no update is under way any more. Not inside a step. @return seconds waited */
double zinf_zero_drain(struct zinf_zero *zero);
/** Make the new weights known to all ranks if they are resident: after load or init. Collective. */
void zinf_zero_publish(struct zinf_zero *zero);

/** A part of a block's owned elements, readable and writable during the call; moments NULL where the optimizer has none. */
typedef int (*zinf_part_fn)(void *context, int block, struct zinf_range part, float *master,
                            float *const moment[2]);
/**
 * Visit everything this rank owns, block by block; what is on NVMe passes through the ring. If `write`, all of it is to be filled: what is on
 * NVMe comes as zeros and goes there, and in 16 bits the weights are made from the master. Else it is read, several records ahead.
 * Not during a step. @return 0 or what `visit` returned first
 */
int zinf_zero_visit(struct zinf_zero *zero, bool write, zinf_part_fn visit, void *context);

/** Is any state on the NVMe tier? */
bool zinf_zero_uses_nvme(const struct zinf_zero_options *options);
/** Bytes this rank reads from and writes to NVMe in a step of `plan`, padding included. Local. */
void zinf_zero_nvme_traffic(const struct zinf_zero *zero, const struct zinf_plan *plan,
                            int64_t *read_bytes, int64_t *write_bytes);

/**
 * What stays in host memory, as runs of records. Local.
 * @param runs  out; owned by the caller, free()
 * @return how many
 */
int zinf_zero_resident_runs(const struct zinf_zero *zero, struct zinf_resident_run **runs);
/** Of the bytes of the optimizer's records those that are resident, 0..1. Local. */
double zinf_zero_cached_fraction(const struct zinf_zero *zero);
/** "first moment": for messages. */
const char *zinf_zero_part_name(int part);
/** Bytes the update of the last step, or of the one before, has moved from and to NVMe: complete when the next step has ended, or drained. */
void zinf_zero_update_bytes(const struct zinf_zero *zero, bool before, int64_t *read_bytes,
                            int64_t *write_bytes);

/* Between the files of this folder. */

/** A stretch of a block's owned part with all that belongs to it: in memory, or in the update ring's buffer. */
struct zinf_stretch {
    int64_t begin, count; /* elements of the owned part */
    float *master, *moment[2];
    void *low;     /* where new weights are written beside `master`; NULL: nowhere */
    bool low_only; /* and there alone */
};

/** Is this part of a record on NVMe? */
bool zinf_zero_streams(const struct zinf_zero_options *options, int part);
/** Bytes of a part of a record, padded to 4096 as on the drive. */
size_t zinf_zero_part_bytes(const struct zinf_zero *zero, int record, int part);
/** Bring the gradient of REDUCE into the wire's type, in the calling thread's stream. @return where it stands, on the device */
void *zinf_zero_prepare(struct zinf_zero *zero, const struct zinf_plan_operation *operation);
/** How the parts of REDUCE are added. */
struct zinf_reduce zinf_zero_sum_of(const struct zinf_zero *zero,
                                    const struct zinf_plan_operation *operation);
/** What all-gathers and exchanges go through: on the device where they are direct, else in memory that the host addresses. */
struct zinf_comm *zinf_zero_data_path(const struct zinf_zero *zero);
/** An all-gather of equal shards from begin to end. By the mover. */
void zinf_zero_all_gather(struct zinf_zero *zero, void *buffer, size_t shard_bytes);
/** By the mover: the last step's update of a block may still be under way. */
void zinf_zero_wait_for_update(struct zinf_zero *zero, int block);
/** Where a block's states stand, and its weights. */
enum zinf_tier zinf_zero_optimizer_tier(const struct zinf_zero *zero, int block);
enum zinf_tier zinf_zero_parameter_tier(const struct zinf_zero *zero, int block);
/** Elements of this rank's shard of a block, padding included. */
int64_t zinf_zero_shard_count(const struct zinf_zero *zero, int block);

/** Does anything of this record pass through the update ring? */
bool zinf_zero_passes(const struct zinf_zero *zero, int record);
/** Choose what stays in host memory, within the two budgets of zinf_offload; sets bytes.cache. residency.c says how. */
void zinf_zero_choose_resident(struct zinf_zero *zero);
/** Memory for what was chosen. */
void zinf_zero_lay_out_resident(struct zinf_zero *zero, struct zinf_pool *host);
/** Cut blocks into records and size the rings; with open pools their memory. Part of zinf_zero_layout(). */
void zinf_zero_layout_records(struct zinf_zero *zero, const struct zinf_plan *plan,
                              struct zinf_pool *host);
int zinf_zero_open_records(struct zinf_zero *zero, const struct zinf_pool *host,
                           struct zinf_error *error);
void zinf_zero_close_records(struct zinf_zero *zero);
/** Read this rank's shard of a block into `to` (dtype) through the fetch ring. By the mover, in plan order. */
void zinf_zero_fetch_shard(struct zinf_zero *zero, int block, void *to);
enum { ZINF_UNDO_ELEMENTS = 65536 };
/**
 * Update one record in a buffer of the update ring (NULL: nothing of it passes there). keep: the weights among it that stand in memory are kept in the bytes of the gradient.
 * By the update lane.
 */
void zinf_zero_update_record(struct zinf_zero *zero, int record, char *buffer,
                             const struct zinf_update *update, bool keep);
/** The first half of the update of a record in memory: its new weights, to where they belong, and nothing else. */
void zinf_zero_update_ahead(struct zinf_zero *zero, int record, const struct zinf_update *update);
/** And the second: master and moments. */
void zinf_zero_update_rest(struct zinf_zero *zero, int record, const struct zinf_update *update);
/** The weights of a record are rounded from its master again. */
void zinf_zero_restore_output(struct zinf_zero *zero, int record);
/** Bring the kept weights back. */
void zinf_zero_undo_record(struct zinf_zero *zero, int record);
/** The spare extents of a record become the current ones, and these the spare. */
void zinf_zero_take_spare(struct zinf_zero *zero, int record);
/** Begin the fetches of a plan. */
void zinf_zero_begin_fetches(struct zinf_zero *zero, const struct zinf_plan *plan);

#ifdef __cplusplus
}
#endif
#endif
