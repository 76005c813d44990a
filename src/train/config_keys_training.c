/*
 * Keys of DeepSpeed that say what is computed: batch, gradients, optimizer, scheduler, precision.
 * Defaults and ranges: runtime/config.py, runtime/lr_schedules.py, runtime/precision_config.py of
 * DeepSpeed 0.19.
 */
#include "train/config_keys.h"

#define ADAMS   "Adam|AdamW"
#define BETAS   "Adam|AdamW|Lion"
#define WARMUPS "WarmupLR|WarmupDecayLR|WarmupCosineLR"
#define DTYPES  "fp32|fp16|bf16|float32|float16|bfloat16"
/* path, type, default, range, unit, state, note */
#define KEY(path, type, ...)                                                                       \
    {                                                                                              \
        path, ZINF_KEY_##type, __VA_ARGS__, NULL, NULL                                             \
    }
/* the same, for certain types of optimizer or scheduler, and what "auto" becomes */
#define OF(path, type, otherwise, range, unit, state, note, only, automatic)                       \
    {                                                                                              \
        path, ZINF_KEY_##type, otherwise, range, unit, state, note, only, automatic                \
    }
#define WORKS     ZINF_KEY_WORKS
#define NO_EFFECT ZINF_KEY_NO_EFFECT
#define REFUSED   ZINF_KEY_REFUSED
#define NOT_YET   ZINF_KEY_NOT_YET

// clang-format off
const struct zinf_key zinf_keys_training[] = {
    OF("train_batch_size", INTEGER, NULL, "[1,)", "samples", WORKS, "micro-batch x accumulation x ranks; two of the three give the third", NULL, "null"),
    OF("train_micro_batch_size_per_gpu", INTEGER, NULL, "[1,)", "samples", WORKS, "what one rank computes at once", NULL, "null"),
    OF("gradient_accumulation_steps", INTEGER, NULL, "[1,)", "micro-batches", WORKS, "micro-batches of a rank in a step", NULL, "null"),
    KEY("managed_gradient_accumulation", BOOL, "true", "", "", REFUSED, "zinf always steps at the boundary"),
    KEY("dataloader_drop_last", BOOL, "false", "", "", NO_EFFECT, "an epoch's incomplete last batch is always dropped in training"),
    KEY("vocabulary_size", INTEGER, "null", "", "tokens", NO_EFFECT, "the model's config.json says it"),

    OF("gradient_clipping", NUMBER, "1.0", "[0,)", "L2 norm", WORKS, "global norm; 0 = off; true means 1.0", NULL, "1.0"),
    KEY("prescale_gradients", BOOL, "false", "", "", NO_EFFECT, "gradients are weighted by the counted tokens of the global batch"),
    KEY("gradient_predivide_factor", NUMBER, "1.0", "(0,)", "", NO_EFFECT, "gradients are summed in float32"),
    KEY("gradient_allreduce_op", CHOICE, "\"mean\"", "mean|sum^", "", WORKS, "the sum over ranks would change the learning rate's meaning"),
    KEY("communication_data_type", CHOICE, "null", DTYPES, "", WORKS, "of gradients on the wire; null = the model's"),
    KEY("seq_parallel_communication_data_type", CHOICE, "\"fp32\"", DTYPES, "", NO_EFFECT, "there is no sequence parallelism"),
    KEY("sparse_gradients", BOOL, "false", "", "", NO_EFFECT, "gradients are dense"),
    KEY("disable_allgather", BOOL, "false", "", "", NO_EFFECT, "always the fused form"),
    KEY("data_types", OBJECT, NULL, "", "", WORKS, ""),
    KEY("data_types.grad_accum_dtype", CHOICE, "null", DTYPES, "", WORKS, "of the gradient accumulator; null = the model's"),
    KEY("data_types.param_dtype", CHOICE, "null", DTYPES, "", WORKS, "must be what fp16 and bf16 say"),
    KEY("data_types.buffer_dtype", CHOICE, "null", DTYPES, "", NO_EFFECT, "the models have no buffers"),
    KEY("zero_allow_untested_optimizer", BOOL, "false", "", "", NO_EFFECT, "every optimizer here is tested with every stage"),
    KEY("zero_force_ds_cpu_optimizer", BOOL, "true", "", "", NO_EFFECT, "there is one optimizer for every place"),

    KEY("optimizer", OBJECT, NULL, "", "", WORKS, "required for training"),
    KEY("optimizer.type", CHOICE, NULL,
        "Adam|AdamW|Adagrad|Lion|SGD|Lamb^|Muon^|OneBitAdam^|ZeroOneAdam^|OneBitLamb^|MuAdam^|MuAdamW^|MuSGD^|FusedAdam^|DeepSpeedCPUAdam^", "", WORKS,
        "Adam decays as AdamW unless adam_w_mode is false"),
    KEY("optimizer.legacy_fusion", BOOL, "false", "", "", NO_EFFECT, ""),
    KEY("optimizer.params", OBJECT, NULL, "", "", WORKS, ""),
    OF("optimizer.params.lr", NUMBER, "0.001", "[0,)", "", WORKS, "", "Adam|AdamW|Lion|SGD", "5e-5"),
    OF("optimizer.params.lr", NUMBER, "0.01", "[0,)", "", WORKS, "", "Adagrad", "5e-5"),
    OF("optimizer.params.betas", PAIR, "[0.9, 0.999]", "[0,1)", "", WORKS, "", BETAS, "[0.9, 0.999]"),
    OF("optimizer.params.eps", NUMBER, "1e-8", "[0,)", "", WORKS, "", ADAMS, "1e-8"),
    OF("optimizer.params.eps", NUMBER, "1e-10", "[0,)", "", WORKS, "", "Adagrad", "1e-8"),
    OF("optimizer.params.weight_decay", NUMBER, "0.0", "[0,)", "", WORKS, "decoupled for AdamW, Adam and Lion", NULL, "0.0"),
    OF("optimizer.params.bias_correction", BOOL, "true", "", "", WORKS, "", ADAMS, NULL),
    OF("optimizer.params.adam_w_mode", BOOL, "true", "", "", WORKS, "false: decay is added to the gradient", "Adam", NULL),
    OF("optimizer.params.adam_w_mode", BOOL, "true", "", "", NO_EFFECT, "AdamW always decays apart from the gradient", "AdamW", NULL),
    OF("optimizer.params.amsgrad", BOOL, "false", "", "", REFUSED, "DeepSpeed has no amsgrad either", ADAMS, NULL),
    OF("optimizer.params.torch_adam", BOOL, "false", "", "", NO_EFFECT, "there is one Adam", ADAMS, NULL),
    OF("optimizer.params.fp32_optimizer_states", BOOL, "true", "", "", REFUSED, "moments are float32", ADAMS, NULL),
    OF("optimizer.params.set_grad_none", BOOL, "true", "", "", NO_EFFECT, "", ADAMS, NULL),
    OF("optimizer.params.momentum", NUMBER, "0.0", "[0,)", "", WORKS, "", "SGD", NULL),
    OF("optimizer.params.dampening", NUMBER, "0.0", "", "", WORKS, "", "SGD", NULL),
    OF("optimizer.params.nesterov", BOOL, "false", "", "", WORKS, "needs momentum above 0 and dampening 0", "SGD", NULL),
    OF("optimizer.params.maximize", BOOL, "false", "", "", REFUSED, "the loss is minimised", NULL, NULL),
    OF("optimizer.params.foreach", BOOL, "null", "", "", NO_EFFECT, "", NULL, NULL),
    OF("optimizer.params.fused", BOOL, "null", "", "", NO_EFFECT, "", NULL, NULL),
    OF("optimizer.params.capturable", BOOL, "false", "", "", NO_EFFECT, "", NULL, NULL),
    OF("optimizer.params.differentiable", BOOL, "false", "", "", NO_EFFECT, "", NULL, NULL),
    OF("optimizer.params.lr_decay", NUMBER, "0.0", "[0,)", "", REFUSED, "use a scheduler", "Adagrad", NULL),
    OF("optimizer.params.initial_accumulator_value", NUMBER, "0.0", "[0,)", "", REFUSED, "the sum starts at 0", "Adagrad", NULL),

    KEY("scheduler", OBJECT, NULL, "", "", WORKS, "none: the optimizer's lr throughout"),
    KEY("scheduler.type", CHOICE, NULL, "WarmupLR|WarmupDecayLR|WarmupCosineLR|OneCycle|LRRangeTest", "", WORKS, ""),
    KEY("scheduler.params", OBJECT, NULL, "", "", WORKS, ""),
    OF("scheduler.params.warmup_min_lr", NUMBER, "0.0", "[0,)", "", WORKS, "", "WarmupLR|WarmupDecayLR", "0.0"),
    OF("scheduler.params.warmup_max_lr", NUMBER, "null", "[0,)", "", WORKS, "null = the optimizer's lr", "WarmupLR", "null"),
    OF("scheduler.params.warmup_max_lr", NUMBER, "0.001", "[0,)", "", WORKS, "", "WarmupDecayLR", "null"),
    OF("scheduler.params.warmup_num_steps", INTEGER, "1000", "[0,)", "steps", WORKS, "0 and 1 count as 2", WARMUPS, "0"),
    OF("scheduler.params.warmup_type", CHOICE, "\"log\"", "log|linear", "", WORKS, "", WARMUPS, NULL),
    OF("scheduler.params.total_num_steps", INTEGER, NULL, "[1,)", "steps", WORKS, "required; auto = the run's", "WarmupDecayLR|WarmupCosineLR", "null"),
    OF("scheduler.params.warmup_min_ratio", NUMBER, "0.0", "[0,)", "of lr", WORKS, "", "WarmupCosineLR", NULL),
    OF("scheduler.params.cos_min_ratio", NUMBER, "0.0001", "[0,)", "of lr", WORKS, "", "WarmupCosineLR", NULL),
    OF("scheduler.params.cycle_min_lr", NUMBER, NULL, "[0,)", "", WORKS, "required", "OneCycle", NULL),
    OF("scheduler.params.cycle_max_lr", NUMBER, NULL, "[0,)", "", WORKS, "required", "OneCycle", NULL),
    OF("scheduler.params.decay_lr_rate", NUMBER, "0.0", "", "", WORKS, "", "OneCycle", NULL),
    OF("scheduler.params.cycle_first_step_size", NUMBER, "2000", "(0,)", "steps", WORKS, "", "OneCycle", NULL),
    OF("scheduler.params.cycle_second_step_size", NUMBER, "null", "(0,)", "steps", WORKS, "null = as the first", "OneCycle", NULL),
    OF("scheduler.params.cycle_first_stair_count", INTEGER, "0", "[0,)", "", WORKS, "", "OneCycle", NULL),
    OF("scheduler.params.cycle_second_stair_count", INTEGER, "null", "[0,)", "", WORKS, "null = as the first", "OneCycle", NULL),
    OF("scheduler.params.decay_step_size", NUMBER, "0", "[0,)", "steps", WORKS, "0 = no decay", "OneCycle", NULL),
    OF("scheduler.params.cycle_momentum", BOOL, "true", "", "", WORKS, "beta2 is 0.99 then, as in DeepSpeed", "OneCycle", NULL),
    OF("scheduler.params.cycle_min_mom", NUMBER, "0.8", "[0,1)", "", WORKS, "", "OneCycle", NULL),
    OF("scheduler.params.cycle_max_mom", NUMBER, "0.9", "[0,1)", "", WORKS, "", "OneCycle", NULL),
    OF("scheduler.params.decay_mom_rate", NUMBER, "0.0", "", "", WORKS, "", "OneCycle", NULL),
    OF("scheduler.params.lr_range_test_min_lr", NUMBER, "0.001", "[0,)", "", WORKS, "", "LRRangeTest", NULL),
    OF("scheduler.params.lr_range_test_step_size", INTEGER, "2000", "[1,)", "steps", WORKS, "", "LRRangeTest", NULL),
    OF("scheduler.params.lr_range_test_step_rate", NUMBER, "1.0", "", "", WORKS, "", "LRRangeTest", NULL),
    OF("scheduler.params.lr_range_test_staircase", BOOL, "false", "", "", WORKS, "", "LRRangeTest", NULL),
    OF("scheduler.params.last_batch_iteration", INTEGER, "-1", "[-1,-1]", "", WORKS, "a checkpoint keeps it", NULL, NULL),

    KEY("fp16", OBJECT, NULL, "", "", WORKS, ""),
    OF("fp16.enabled", BOOL, "false", "", "", WORKS, "not together with bf16", NULL, "false"),
    KEY("fp16.auto_cast", BOOL, "false", "", "", NO_EFFECT, "inputs are token ids"),
    KEY("fp16.loss_scale", NUMBER, "0", "[0,)", "", WORKS, "0 = dynamic"),
    KEY("fp16.initial_scale_power", INTEGER, "16", "[0,126]", "power of 2", WORKS, ""),
    KEY("fp16.loss_scale_window", INTEGER, "1000", "[1,)", "steps", WORKS, ""),
    KEY("fp16.hysteresis", INTEGER, "2", "[1,)", "overflows", WORKS, ""),
    KEY("fp16.consecutive_hysteresis", BOOL, "false", "", "", WORKS, ""),
    KEY("fp16.min_loss_scale", INTEGER, "1", "[1,)", "", WORKS, ""),
    KEY("fp16.fp16_master_weights_and_grads", BOOL, "false", "", "", REFUSED, "master weights are float32"),
    KEY("bf16", OBJECT, NULL, "", "", WORKS, "bfloat16 is taken too"),
    OF("bf16.enabled", BOOL, "false", "", "", WORKS, "not together with fp16", NULL, "false"),
    KEY("bf16.immediate_grad_update", BOOL, "false", "", "", NO_EFFECT, "always"),
    KEY("bf16.check_grad_overflow", BOOL, "true", "", "", NO_EFFECT, "every step is checked, in every type"),
    KEY("bf16.bf16_master_weights_and_grads", BOOL, "false", "", "", REFUSED, "master weights are float32"),
    KEY("bf16.bf16_optimizer_states", BOOL, "false", "", "", REFUSED, "moments are float32"),
    KEY("amp", OPEN, NULL, "", "", REFUSED, "Apex's mixed precision; use bf16 or fp16"),
    KEY("torch_autocast", OPEN, NULL, "", "", REFUSED, "PyTorch's mixed precision; use bf16 or fp16"),
    {0}};
