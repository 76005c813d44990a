/*
 * Keys of DeepSpeed's zero_optimization, offload and aio. Defaults: runtime/zero/config.py,
 * runtime/zero/offload_config.py and runtime/swap_tensor/constants.py of DeepSpeed 0.19, where the
 * code and its documentation differ the code. Two differ on purpose and are said in the log:
 * nothing of what is on NVMe stays in host memory unless asked for, and requests are 8 MiB long, of
 * which one tenth more goes through than of 1 MiB (`zinf bench io`: mixed, depth 8).
 */
#include "train/config_key_rows.h"

#define KEY                  ROW
#define ZERO(name, ...)      KEY("zero_optimization." name, __VA_ARGS__)
#define PARAM(name, ...)     KEY("zero_optimization.offload_param." name, __VA_ARGS__)
#define OPTIMIZER(name, ...) KEY("zero_optimization.offload_optimizer." name, __VA_ARGS__)
#define WITH_NVME            ZINF_COUNTS_WITH_NVME

// clang-format off
const struct zinf_key zinf_keys_zero[] = {
    KEY("zero_optimization", OBJECT, NULL, "", "", WORKS, "true and false are old spellings of stage 1 and 0"),
    ZERO("stage", INTEGER, "0", "[0,3]", "", WORKS, "1 shards the optimizer, 2 gradients too, 3 parameters too"),
    ZERO("contiguous_gradients", BOOL, "true", "", "", NO_EFFECT, "blocks are flat"),
    ZERO("reduce_scatter", BOOL, "true", "", "", NO_EFFECT, "always from stage 2 on"),
    ZERO("reduce_bucket_size", INTEGER, "500000000", "[0,)", "elements", NO_EFFECT, "a block is the bucket"),
    ZERO("use_multi_rank_bucket_allreduce", BOOL, "true", "", "", NO_EFFECT, ""),
    ZERO("allgather_partitions", BOOL, "true", "", "", NO_EFFECT, ""),
    ZERO("allgather_bucket_size", INTEGER, "500000000", "[0,)", "elements", NO_EFFECT, "a block is the bucket"),
    ZERO("overlap_comm", BOOL, "null", "", "", NO_EFFECT, "always"),
    ZERO("load_from_fp32_weights", BOOL, "true", "", "", NO_EFFECT, "checkpoints hold the float32 weights only"),
    ZERO("elastic_checkpoint", BOOL, "false", "", "", NO_EFFECT, "checkpoints do not depend on the ranks"),
    ZERO("offload_param", OBJECT, NULL, "", "", WORKS, ""),
    PARAM("device", CHOICE, "\"none\"", "none|cpu|nvme", "", WORKS, "stage 3"),
    PARAM("nvme_path", PATHS, "null", "", "", WORKS, "a folder, or a list that the ranks of a node share out; " WITH_NVME),
    PARAM("buffer_count", INTEGER, "5", "[1,)", "buffers", WORKS, WITH_NVME),
    PARAM("buffer_size", INTEGER, "100000000", "[1,)", "elements", NO_EFFECT, "records have one size"),
    PARAM("max_in_cpu", INTEGER, "0", "[0,)", "elements", WORKS, "parameters a rank keeps in host memory (DeepSpeed's default: 1e9); " WITH_NVME),
    PARAM("pin_memory", BOOL, "true", "", "", NO_EFFECT, "always, where the limit allows"),
    ZERO("offload_optimizer", OBJECT, NULL, "", "", WORKS, ""),
    OPTIMIZER("device", CHOICE, "\"none\"", "none|cpu|nvme", "", WORKS, ""),
    OPTIMIZER("nvme_path", PATHS, "null", "", "", WORKS, "a folder, or a list that the ranks of a node share out; " WITH_NVME),
    OPTIMIZER("buffer_count", INTEGER, "4", "[1,)", "records", WORKS, "records in the ring; 1 = serial"),
    OPTIMIZER("pin_memory", BOOL, "true", "", "", NO_EFFECT, "always, where the limit allows"),
    OPTIMIZER("pipeline_read", BOOL, "false", "", "", NO_EFFECT, "always pipelined"),
    OPTIMIZER("pipeline_write", BOOL, "false", "", "", NO_EFFECT, "always pipelined"),
    OPTIMIZER("fast_init", BOOL, "false", "", "", NO_EFFECT, ""),
    OPTIMIZER("ratio", NUMBER, "1.0", "[0,1]", "", WORKS, "device cpu: the share of the states that stands on the host; of the first blocks they stay on the device and are updated there"),
    OPTIMIZER("super_offload", BOOL, "null", "", "", WORKS, "on a GPU, device cpu: new weights are made in the backward pass, before the norm is known; the same bits; null: where it takes no memory (16 bits; in fp32 4 bytes a parameter); false: behind the norm"),
    OPTIMIZER("cpuadam_cores_perc", NUMBER, "0.8", "[0,1]", "", NO_EFFECT, "--threads says it"),
    ZERO("sub_group_size", INTEGER, "1000000000", "[0,)", "elements", WORKS, "the upper bound of a record on nvme"),
    ZERO("stage3_prefetch_bucket_size", INTEGER, "50000000", "[0,)", "elements", WORKS, "0 = no prefetch"),
    ZERO("stage3_param_persistence_threshold", INTEGER, "100000", "[0,)", "elements", NO_EFFECT, "flat blocks have no small messages"),
    ZERO("stage3_model_persistence_threshold", INTEGER, "9223372036854775807", "[0,)", "elements", NO_EFFECT, "flat blocks have no small messages"),
    ZERO("stage3_max_live_parameters", INTEGER, "1000000000", "[0,)", "elements", WORKS, "gathered at once at most"),
    ZERO("stage3_max_reuse_distance", INTEGER, "1000000000", "[0,)", "elements", WORKS, "a block used again within so many elements is kept"),
    ZERO("stage3_gather_16bit_weights_on_model_save", BOOL, "false", "", "", NO_EFFECT, "zinf export writes them"),
    ZERO("stage3_module_granularity_threshold", INTEGER, "0", "[0,)", "", NO_EFFECT, "a block is the unit"),
    ZERO("stage3_use_all_reduce_for_fetch_params", BOOL, "false", "", "", NO_EFFECT, ""),
    ZERO("stage3_allgather_sequential", BOOL, "false", "", "", NO_EFFECT, "blocks are flat already"),
    ZERO("ignore_unused_parameters", BOOL, "true", "", "", NO_EFFECT, "every parameter is used"),
    ZERO("legacy_stage1", BOOL, "false", "", "", REFUSED, "DeepSpeed refuses it too"),
    ZERO("round_robin_gradients", BOOL, "false", "", "", NO_EFFECT, ""),
    ZERO("zero_hpz_partition_size", INTEGER, "1", "[1,)", "ranks", NO_EFFECT, "ZeRO++ hpZ: a second copy inside the node, for speed only"),
    ZERO("zero_quantized_weights", BOOL, "false", "", "", REFUSED, "ZeRO++ qwZ: gathers int8"),
    ZERO("zero_quantized_nontrainable_weights", BOOL, "false", "", "", REFUSED, "keeps frozen weights as int8"),
    ZERO("zero_quantized_gradients", BOOL, "false", "", "", REFUSED, "ZeRO++ qgZ: reduces int4"),
    ZERO("zeropp_loco_param", OPEN, "null", "", "", REFUSED, "error feedback for quantised gradients"),
    ZERO("mics_shard_size", INTEGER, "-1", "[-1,)", "ranks", NO_EFFECT, "MiCS: shards are over all ranks, the numbers are the same"),
    ZERO("mics_hierarchical_params_gather", BOOL, "false", "", "", NO_EFFECT, ""),
    ZERO("memory_efficient_linear", BOOL, "true", "", "", NO_EFFECT, ""),
    ZERO("pipeline_loading_checkpoint", BOOL, "false", "", "", NO_EFFECT, "each rank reads its own slices"),
    ZERO("override_module_apply", BOOL, "true", "", "", NO_EFFECT, "Python"),
    ZERO("log_trace_cache_warnings", BOOL, "false", "", "", NO_EFFECT, "the order is known before step 1"),
    ZERO("enable_sanity_checks", BOOL, "false", "", "", NO_EFFECT, "the plan is agreed by checksum"),
    ZERO("save_muon_momentum_buffer_in_memory", BOOL, "false", "", "", NO_EFFECT, ""),
    ZERO("leaf_module", OPEN, "null", "", "", NO_EFFECT, "a block is the unit"),
    ZERO("grad_hooks", BOOL, "true", "", "", NO_EFFECT, "Python"),
    ZERO("compute_grad_norm", BOOL, "true", "", "", NO_EFFECT, "always: clipping, metrics and the check for NaN need it"),
    ZERO("parameter_alignment", BOOL, "false", "", "", NO_EFFECT, "blocks are aligned already"),
    ZERO("zenflow", OPEN, "null", "", "", REFUSED, "its updates are late: not Adam bit for bit"),

    KEY("aio", OBJECT, NULL, "", "", WORKS, ""),
    KEY("aio.block_size", INTEGER, "8388608", "[4096,)", "bytes", WORKS, "DeepSpeed's default: 1048576; " WITH_NVME),
    KEY("aio.queue_depth", INTEGER, "8", "[1,4096]", "requests", WORKS, WITH_NVME),
    KEY("aio.intra_op_parallelism", INTEGER, "1", "[1,256]", "threads", WORKS, WITH_NVME "; thread_count and num_threads are taken too"),
    KEY("aio.single_submit", BOOL, "false", "", "", NO_EFFECT, "always batched and overlapped"),
    KEY("aio.overlap_events", BOOL, "true", "", "", NO_EFFECT, "always batched and overlapped"),
    KEY("aio.use_gds", BOOL, "false", "", "", NO_EFFECT, "always through locked host memory"),
    {0}};
