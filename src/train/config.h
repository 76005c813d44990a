/*
 * ds.json: what the user wants, checked and complete. Contract section 2; keys, types and defaults: config_keys.h.
 *
 * The configuration stops at this floor (design rule 5): train/ reads struct zinf_config and fills the option structs of the modules.
 */
#ifndef ZINF_TRAIN_CONFIG_H
#define ZINF_TRAIN_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/json.h"
#include "base/status.h"
#include "device/ops.h"
#include "topology/rankmap.h"
#include "train/graphs.h"
#include "train/loss_scale.h"
#include "train/schedule.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A list of strings; owned by the configuration. */
struct zinf_config_list {
    char **items;
    int count;
};

struct zinf_config_batch {
    int64_t micro, accumulation, global; /* global = micro * accumulation * ranks */
};

struct zinf_config_optimizer {
    bool given; /* false only for purposes that need none */
    enum zinf_optimizer kind;
    char name[16]; /* as DeepSpeed spells it: "AdamW" */
    double learning_rate, beta1, beta2, epsilon, weight_decay, momentum, dampening;
    bool nesterov, bias_correction;
    bool decoupled_decay; /* AdamW; Adam unless adam_w_mode is false */
};

struct zinf_config_precision {
    enum zinf_dtype dtype; /* of weights, activations and gradients */
    struct zinf_loss_scale_options loss_scale; /* for fp16 */
    enum zinf_dtype accumulation;  /* data_types.grad_accum_dtype, else dtype */
    enum zinf_dtype communication; /* communication_data_type, else dtype */
    bool tf32;                     /* fp32 products on a GPU may round their factors */
};

struct zinf_config_zero {
    int stage; /* 0 .. 3 */
    int64_t prefetch_bucket_size, max_live_parameters, max_reuse_distance, sub_group_size; /* elements */
};

enum zinf_config_init { ZINF_CONFIG_INIT_AUTO, ZINF_CONFIG_INIT_PRETRAINED, ZINF_CONFIG_INIT_RANDOM };

struct zinf_config_model {
    char *path;               /* NULL: inline only */
    struct zinf_json *config; /* path/config.json with zinf.model.config over it, key by key; NULL: neither could be read */
    char *config_source;      /* for messages: "models/gpt2/config.json" or "zinf.model.config" */
    enum zinf_config_init init;
    int64_t num_labels;
};

struct zinf_config_data {
    struct zinf_config_list train, eval; /* paths and globs, ${VAR} replaced */
    char *format, *tokenizer, *packing;  /* "auto", "bytes", "concat" */
    int64_t sequence_length;
    bool shuffle;
};

struct zinf_config_train {
    int64_t steps;  /* 0: epochs count */
    double epochs;  /* 0: steps count */
    int64_t eval_every, eval_batches; /* 0 = null: at checkpoints; all */
    int64_t eval_micro_batch;         /* null is the micro-batch */
    int64_t seed;
    struct zinf_config_list no_decay;
    bool loss_mean_micro_batch;
    int64_t max_nonfinite;
};

/** super_offload. AUTO: where it takes no memory. */
enum zinf_config_super { ZINF_SUPER_OFFLOAD_AUTO, ZINF_SUPER_OFFLOAD_OFF, ZINF_SUPER_OFFLOAD_ON };

enum zinf_config_device { ZINF_CONFIG_DEVICE_NONE, ZINF_CONFIG_DEVICE_CPU, ZINF_CONFIG_DEVICE_NVME };

struct zinf_config_offload {
    enum zinf_config_device optimizer, parameters;
    struct zinf_config_list optimizer_paths, parameter_paths; /* nvme_path; ranks of a node share out several */
    int optimizer_buffers, parameter_buffers;
    double ratio;              /* of the optimizer's states, what stands where `optimizer` says; the rest on the device */
    enum zinf_config_super super;
    int64_t max_in_cpu; /* elements of NVMe parameters that stay in host memory */
    int queue_depth, io_threads;
    int64_t block_bytes;
};

/** CPU and NVME: recompute, and the inputs of layers stand there. */
enum zinf_config_activations {
    ZINF_ACTIVATIONS_AUTO,
    ZINF_ACTIVATIONS_KEEP,
    ZINF_ACTIVATIONS_RECOMPUTE,
    ZINF_ACTIVATIONS_CPU,
    ZINF_ACTIVATIONS_NVME
};

struct zinf_config_memory {
    int64_t device_bytes, host_bytes, nvme_bytes; /* -1 = auto */
    int64_t cache_bytes; /* of host memory for the optimizer's records; -1 = auto: what host_bytes leaves */
    enum zinf_config_activations activations;
};

struct zinf_config_checkpoint {
    int64_t every_steps;  /* 0 = null */
    double every_minutes; /* 0 = null */
    bool every_epoch;
    int64_t num_to_keep; /* 0 = null: all */
    char *score_attribute; /* NULL = none */
    bool score_max;
    char *resume; /* "auto", "never" or a path */
};

/** What the command line adds to the file (no keys of ds.json). */
struct zinf_config_limits {
    int64_t max_steps; /* 0 = none */
    double max_hours;  /* 0 = none */
    int threads;       /* 0 = auto */
    bool deterministic, dry_run;
};

struct zinf_config {
    char *file;
    char *device; /* "auto", "cpu" or "cuda" */
    enum zinf_graphs_use graphs;
    int ranks;
    struct zinf_config_batch batch;
    struct zinf_config_optimizer optimizer;
    struct zinf_schedule_options schedule;
    bool schedule_total_auto; /* total_num_steps is "auto" and the run counts epochs: the caller fills schedule.total_num_steps */
    struct zinf_config_precision precision;
    struct zinf_config_zero zero;
    struct zinf_config_offload offload;
    double gradient_clipping; /* 0 = off */
    int64_t steps_per_print;  /* 0 = silent */
    struct zinf_config_model model;
    struct zinf_config_data data;
    struct zinf_config_train train;
    struct zinf_config_memory memory;
    struct zinf_config_checkpoint checkpoint;
    char *run_dir;
    bool log_jsonl;
    enum zinf_bind bind;
    double watchdog_s; /* 0 = off */
    struct zinf_config_limits limits;
    struct zinf_json *effective; /* every key with its value; itself a valid ds.json */
};

/** A --set or an option that stands for one; `place` is how messages call it. */
struct zinf_config_override {
    const char *path;  /* "zero_optimization.stage" */
    const char *value; /* JSON, else taken as a string */
    const char *place; /* "--set zero_optimization.stage", "--run-dir" */
};

enum zinf_config_purpose {
    ZINF_CONFIG_CHECK, /* the file alone: what only a run needs is a note, "not yet" is listed */
    ZINF_CONFIG_TRAIN, /* everything must be there; "not yet" is an error */
    ZINF_CONFIG_EVAL   /* as TRAIN, but no optimizer, steps or training data are needed */
};

struct zinf_config_options {
    const char *file;
    const struct zinf_config_override *overrides;
    int override_count;
    int ranks;
    enum zinf_config_purpose purpose;
    struct zinf_config_limits limits; /* copied into the result */
};

/** What the reader has to say. Each entry has its place; texts begin with the JSON path. Zeroed = empty. */
struct zinf_config_report {
    struct zinf_error_list errors;    /* not empty: the configuration is refused */
    struct zinf_error_list warnings;  /* misplaced and deprecated keys, with the right path */
    struct zinf_error_list no_effect; /* given keys that change nothing here */
    struct zinf_error_list not_yet;   /* given keys whose capability is still to come */
    struct zinf_error_list filled;    /* "auto" and what it became */
    struct zinf_error_list notes;     /* what a run would still need */
};
void zinf_config_report_release(struct zinf_config_report *report);

/**
 * Read, check and complete a configuration. Local; needs no MPI.
 * @param config  out; owned by the caller, zinf_config_free(); NULL when refused
 * @return 0; ZINF_E_USAGE, or ZINF_E_DATA when the only problems are in the model folder; every problem is in report->errors
 */
int zinf_config_load(struct zinf_config **config, const struct zinf_config_options *options,
                     struct zinf_config_report *report);
void zinf_config_free(struct zinf_config *config);

#ifdef __cplusplus
}
#endif
#endif
