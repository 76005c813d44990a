/*
 * Keys of DeepSpeed around training: activations, logs, monitors, checkpoints, and whole systems
 * zinf does not have. Those are known by name, so that each is answered instead of ignored.
 * Defaults: DeepSpeed 0.19.
 */
#include "train/config_keys.h"

#define KEY(path, type, ...)                                                                       \
    {                                                                                              \
        path, ZINF_KEY_##type, __VA_ARGS__, NULL, NULL                                             \
    }
#define WORKS       ZINF_KEY_WORKS
#define NO_EFFECT   ZINF_KEY_NO_EFFECT
#define REFUSED     ZINF_KEY_REFUSED
#define NOT_YET     ZINF_KEY_NOT_YET
#define ACTIVATIONS "zinf.memory.activations says it"
#define METRICS     "metrics.jsonl holds it for every step"

// clang-format off
const struct zinf_key zinf_keys_other[] = {
    KEY("activation_checkpointing", OBJECT, NULL, "", "", NO_EFFECT, ACTIVATIONS),
    KEY("activation_checkpointing.partition_activations", BOOL, "false", "", "", NO_EFFECT, ACTIVATIONS),
    KEY("activation_checkpointing.cpu_checkpointing", BOOL, "false", "", "", NO_EFFECT, ACTIVATIONS),
    KEY("activation_checkpointing.contiguous_memory_optimization", BOOL, "false", "", "", NO_EFFECT, ACTIVATIONS),
    KEY("activation_checkpointing.number_checkpoints", INTEGER, "null", "[1,)", "", NO_EFFECT, ACTIVATIONS),
    KEY("activation_checkpointing.synchronize_checkpoint_boundary", BOOL, "false", "", "", NO_EFFECT, ""),
    KEY("activation_checkpointing.profile", BOOL, "false", "", "", NO_EFFECT, ""),

    KEY("steps_per_print", INTEGER, "10", "[0,)", "steps", WORKS, "0 = silent; DeepSpeed's code prints nothing unless it is set"),
    KEY("wall_clock_breakdown", BOOL, "false", "", "", NO_EFFECT, "the end table always has it"),
    KEY("memory_breakdown", BOOL, "false", "", "", NO_EFFECT, METRICS),
    KEY("dump_state", BOOL, "false", "", "", NO_EFFECT, "the run folder holds the effective config.json"),
    KEY("log_level", STRING, "null", "", "", NO_EFFECT, "-q and -v say it"),
    KEY("timers", OBJECT, NULL, "", "", NO_EFFECT, METRICS),
    KEY("timers.throughput", OBJECT, NULL, "", "", NO_EFFECT, METRICS),
    KEY("timers.throughput.enabled", BOOL, "true", "", "", NO_EFFECT, METRICS),
    KEY("timers.throughput.synchronized", BOOL, "true", "", "", NO_EFFECT, ""),
    KEY("flops_profiler", OBJECT, NULL, "", "", NO_EFFECT, METRICS),
    KEY("flops_profiler.enabled", BOOL, "false", "", "", NO_EFFECT, METRICS),
    KEY("flops_profiler.recompute_fwd_factor", NUMBER, "0.0", "[0,)", "", NO_EFFECT, ""),
    KEY("flops_profiler.profile_step", INTEGER, "1", "[0,)", "", NO_EFFECT, ""),
    KEY("flops_profiler.module_depth", INTEGER, "-1", "[-1,)", "", NO_EFFECT, ""),
    KEY("flops_profiler.top_modules", INTEGER, "1", "[0,)", "", NO_EFFECT, ""),
    KEY("flops_profiler.detailed", BOOL, "true", "", "", NO_EFFECT, ""),
    KEY("flops_profiler.output_file", STRING, "null", "", "", NO_EFFECT, ""),
    KEY("tensorboard", OBJECT, NULL, "", "", WORKS, ""),
    KEY("tensorboard.enabled", BOOL, "false", "", "", NOT_YET, "until then: metrics.jsonl and zinf report"),
    KEY("tensorboard.output_path", STRING, "\"\"", "", "", NO_EFFECT, "counts with enabled"),
    KEY("tensorboard.job_name", STRING, "\"DeepSpeedJobName\"", "", "", NO_EFFECT, "counts with enabled"),
    KEY("csv_monitor", OBJECT, NULL, "", "", WORKS, ""),
    KEY("csv_monitor.enabled", BOOL, "false", "", "", NOT_YET, "until then: metrics.jsonl and zinf report --csv"),
    KEY("csv_monitor.output_path", STRING, "\"\"", "", "", NO_EFFECT, "counts with enabled"),
    KEY("csv_monitor.job_name", STRING, "\"DeepSpeedJobName\"", "", "", NO_EFFECT, "counts with enabled"),
    KEY("wandb", OPEN, NULL, "", "", NO_EFFECT, "zinf opens no network connection; use metrics.jsonl"),
    KEY("comet", OPEN, NULL, "", "", NO_EFFECT, "zinf opens no network connection; use metrics.jsonl"),
    KEY("comms_logger", OBJECT, NULL, "", "", NO_EFFECT, METRICS),
    KEY("comms_logger.enabled", BOOL, "false", "", "", NO_EFFECT, METRICS),
    KEY("comms_logger.verbose", BOOL, "false", "", "", NO_EFFECT, ""),
    KEY("comms_logger.prof_all", BOOL, "true", "", "", NO_EFFECT, ""),
    KEY("comms_logger.debug", BOOL, "false", "", "", NO_EFFECT, ""),
    KEY("comms_logger.prof_ops", LIST, "[]", "", "", NO_EFFECT, ""),

    KEY("checkpoint", OBJECT, NULL, "", "", WORKS, "zinf.checkpoint has zinf's own keys"),
    KEY("checkpoint.tag_validation", CHOICE, "\"Warn\"", "Warn|Ignore|Fail|WARN|IGNORE|FAIL|warn|ignore|fail", "", NO_EFFECT, "ranks always agree"),
    KEY("checkpoint.load_universal", BOOL, "false", "", "", REFUSED, "DeepSpeed's checkpoints are not read; zinf's do not depend on the ranks"),
    KEY("checkpoint.use_node_local_storage", BOOL, "false", "", "", REFUSED, "a checkpoint is one file that all ranks write"),
    KEY("checkpoint.parallel_write", OBJECT, NULL, "", "", NO_EFFECT, "always"),
    KEY("checkpoint.parallel_write.pipeline_stage", BOOL, "false", "", "", NO_EFFECT, "always"),
    KEY("checkpoint.checkpoint_serialization", BOOL, "true", "", "", NO_EFFECT, ""),
    KEY("checkpoint.writer", OPEN, NULL, "", "", NO_EFFECT, "one writer, by all ranks"),
    KEY("nebula", OPEN, NULL, "", "", NO_EFFECT, "Azure's checkpoint service; checkpoints go to the run folder"),
    KEY("datastates_ckpt", OPEN, NULL, "", "", NO_EFFECT, "checkpoints go to the run folder"),

    KEY("elasticity", OBJECT, NULL, "", "", WORKS, ""),
    KEY("elasticity.enabled", BOOL, "false", "", "", REFUSED, "it chooses the batch; give the batch keys (checkpoints load on any number of ranks)"),
    KEY("elasticity.max_train_batch_size", INTEGER, NULL, "[1,)", "samples", NO_EFFECT, ""),
    KEY("elasticity.micro_batch_sizes", LIST, NULL, "", "samples", NO_EFFECT, ""),
    KEY("elasticity.min_gpus", INTEGER, "1", "[1,)", "", NO_EFFECT, ""),
    KEY("elasticity.max_gpus", INTEGER, "10000", "[1,)", "", NO_EFFECT, ""),
    KEY("elasticity.min_time", INTEGER, "0", "[-1,)", "min", NO_EFFECT, ""),
    KEY("elasticity.prefer_larger_batch", BOOL, "true", "", "", NO_EFFECT, "DeepSpeed's documentation says prefer_large_batch"),
    KEY("elasticity.prefer_large_batch", BOOL, "true", "", "", NO_EFFECT, ""),
    KEY("elasticity.ignore_non_elastic_batch_info", BOOL, "false", "", "", NO_EFFECT, ""),
    KEY("elasticity.version", NUMBER, "0.2", "", "", NO_EFFECT, ""),
    KEY("elasticity.num_gpus_per_node", INTEGER, "1", "[1,)", "", NO_EFFECT, ""),
    KEY("elasticity.model_parallel_size", INTEGER, "1", "[1,)", "", NO_EFFECT, ""),

    KEY("autotuning", OBJECT, NULL, "", "", NO_EFFECT, "nothing is tuned by trial runs"),
    KEY("autotuning.enabled", BOOL, "false", "", "", NO_EFFECT, ""),
    KEY("autotuning.fast", BOOL, "true", "", "", NO_EFFECT, ""),
    KEY("autotuning.results_dir", STRING, "\"autotuning_results\"", "", "", NO_EFFECT, ""),
    KEY("autotuning.exps_dir", STRING, "\"autotuning_exps\"", "", "", NO_EFFECT, ""),
    KEY("autotuning.overwrite", BOOL, "true", "", "", NO_EFFECT, ""),
    KEY("autotuning.start_profile_step", INTEGER, "3", "", "steps", NO_EFFECT, ""),
    KEY("autotuning.end_profile_step", INTEGER, "5", "", "steps", NO_EFFECT, ""),
    KEY("autotuning.metric", CHOICE, "\"throughput\"", "throughput|latency|flops", "", NO_EFFECT, ""),
    KEY("autotuning.metric_path", STRING, "null", "", "", NO_EFFECT, ""),
    KEY("autotuning.tuner_type", CHOICE, "\"gridsearch\"", "gridsearch|random|model_based", "", NO_EFFECT, ""),
    KEY("autotuning.tuner_early_stopping", INTEGER, "5", "", "", NO_EFFECT, ""),
    KEY("autotuning.tuner_num_trials", INTEGER, "50", "", "", NO_EFFECT, ""),
    KEY("autotuning.arg_mappings", OPEN, "null", "", "", NO_EFFECT, ""),
    KEY("autotuning.min_train_batch_size", INTEGER, "1", "", "samples", NO_EFFECT, ""),
    KEY("autotuning.max_train_batch_size", INTEGER, "null", "", "samples", NO_EFFECT, ""),
    KEY("autotuning.min_train_micro_batch_size_per_gpu", INTEGER, "1", "", "samples", NO_EFFECT, ""),
    KEY("autotuning.max_train_micro_batch_size_per_gpu", INTEGER, "1024", "", "samples", NO_EFFECT, ""),
    KEY("autotuning.num_tuning_micro_batch_sizes", INTEGER, "3", "", "", NO_EFFECT, ""),
    KEY("autotuning.mp_size", INTEGER, "1", "", "", NO_EFFECT, ""),
    KEY("autotuning.model_info", OPEN, "null", "", "", NO_EFFECT, ""),

    KEY("curriculum_learning", OPEN, NULL, "", "", REFUSED, "samples come in the order zinf.data says"),
    KEY("data_efficiency", OPEN, NULL, "", "", REFUSED, "samples come in the order zinf.data says"),
    KEY("progressive_layer_drop", OPEN, NULL, "", "", REFUSED, "every layer is computed"),
    KEY("pipeline", OPEN, NULL, "", "", NO_EFFECT, "there are no pipeline stages"),
    KEY("tensor_parallel", OPEN, NULL, "", "", REFUSED, "layers are not split"),
    KEY("expert_parallel", OPEN, NULL, "", "", REFUSED, "there are no experts"),
    KEY("compile", OPEN, NULL, "", "", NO_EFFECT, "compiled already"),
    KEY("hybrid_engine", OPEN, NULL, "", "", REFUSED, "training and generation are apart"),
    KEY("sparse_attention", OPEN, NULL, "", "", REFUSED, "attention is dense"),
    KEY("compression_training", OPEN, NULL, "", "", REFUSED, "weights are not compressed"),
    KEY("eigenvalue", OPEN, NULL, "", "", REFUSED, "nothing is quantised"),
    KEY("quantize_training", OPEN, NULL, "", "", REFUSED, "nothing is quantised"),
    KEY("weight_quantization", OPEN, NULL, "", "", REFUSED, "nothing is quantised"),
    KEY("sequence_parallel_size", INTEGER, "1", "[1,)", "ranks", REFUSED, "sequences are not split"),
    KEY("use_data_before_expert_parallelism", BOOL, "false", "", "", NO_EFFECT, "there are no experts"),
    KEY("disable_python_gc", BOOL, "false", "", "", NO_EFFECT, "Python"),
    KEY("graph_harvesting", BOOL, "false", "", "", NO_EFFECT, "CUDA graphs of PyTorch"),
    {0}};
