/*
 * The configuration: from the file to the struct. See config.h; the way there is told in
 * config_internal.h.
 */
#include "train/config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/words.h"
#include "train/config_internal.h"

void zinf_config_report_release(struct zinf_config_report *report)
{
    zinf_error_list_release(&report->errors);
    zinf_error_list_release(&report->warnings);
    zinf_error_list_release(&report->no_effect);
    zinf_error_list_release(&report->not_yet);
    zinf_error_list_release(&report->filled);
    zinf_error_list_release(&report->notes);
}

static void list_free(struct zinf_config_list *list)
{
    for (int i = 0; i < list->count; i++)
        free(list->items[i]);
    free(list->items);
}

void zinf_config_free(struct zinf_config *config)
{
    if (!config)
        return;
    free(config->file);
    free(config->device);
    free(config->model.path);
    zinf_json_free(config->model.config);
    free(config->model.config_source);
    list_free(&config->offload.optimizer_paths);
    list_free(&config->offload.parameter_paths);
    list_free(&config->data.train);
    list_free(&config->data.eval);
    free(config->data.format);
    free(config->data.tokenizer);
    free(config->data.packing);
    list_free(&config->train.no_decay);
    free(config->checkpoint.score_attribute);
    free(config->checkpoint.resume);
    free(config->run_dir);
    zinf_json_free(config->effective);
    free(config);
}

/* Members of the completed tree: null counts as absent, types have been checked. */
static struct zinf_json *at(const struct zinf_loader *loader, const char *path)
{
    struct zinf_json *value = zinf_json_path(loader->tree, path);
    return value && value->type != ZINF_JSON_NULL ? value : NULL;
}

static int64_t integer_at(const struct zinf_loader *loader, const char *path)
{
    const struct zinf_json *value = at(loader, path);
    return value ? value->integer : 0;
}

static double number_at(const struct zinf_loader *loader, const char *path)
{
    const struct zinf_json *value = at(loader, path);
    return value ? value->number : 0;
}

static bool bool_at(const struct zinf_loader *loader, const char *path)
{
    const struct zinf_json *value = at(loader, path);
    return value && value->boolean;
}

static const char *string_at(const struct zinf_loader *loader, const char *path)
{
    const struct zinf_json *value = at(loader, path);
    return value && value->type == ZINF_JSON_STRING ? value->string : "";
}

static char *copy_at(const struct zinf_loader *loader, const char *path)
{
    const char *text = string_at(loader, path);
    return *text ? zinf_strdup(text) : NULL;
}

static struct zinf_config_list list_at(const struct zinf_loader *loader, const char *path)
{
    const struct zinf_json *value = at(loader, path);
    struct zinf_config_list list = {0};
    bool many = value && value->type == ZINF_JSON_ARRAY;
    list.count = many ? (int)value->count : value ? 1 : 0;
    list.items = list.count ? zinf_alloc((size_t)list.count * sizeof *list.items) : NULL;
    for (int i = 0; i < list.count; i++)
        list.items[i] = zinf_strdup(many ? value->members[i]->string : value->string);
    return list;
}

static int64_t size_at(const struct zinf_loader *loader, const char *path)
{
    const struct zinf_json *value = at(loader, path);
    int64_t bytes = -1;
    if (value && value->type == ZINF_JSON_INTEGER)
        return value->integer;
    if (value && strcmp(value->string, "auto") != 0)
        zinf_size_parse(value->string, &bytes);
    return bytes;
}

static enum zinf_dtype dtype_at(const struct zinf_loader *loader, const char *path,
                                enum zinf_dtype otherwise)
{
    zinf_dtype_parse(string_at(loader, path), &otherwise);
    return otherwise;
}

static void fill_optimizer(struct zinf_loader *loader)
{
    static const struct {
        const char *name;
        enum zinf_optimizer kind;
    } kinds[] = {{"Adam", ZINF_ADAM},
                 {"AdamW", ZINF_ADAM},
                 {"Adagrad", ZINF_ADAGRAD},
                 {"Lion", ZINF_LION},
                 {"SGD", ZINF_SGD}};
    struct zinf_config_optimizer *optimizer = &loader->config->optimizer;
    const struct zinf_json *betas = at(loader, "optimizer.params.betas");
    if (!loader->optimizer)
        return;
    optimizer->given = true;
    snprintf(optimizer->name, sizeof optimizer->name, "%s", loader->optimizer);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(kinds[i].name, loader->optimizer))
            optimizer->kind = kinds[i].kind;
    optimizer->learning_rate = number_at(loader, "optimizer.params.lr");
    optimizer->beta1 = betas ? betas->members[0]->number : 0;
    optimizer->beta2 = betas ? betas->members[1]->number : 0;
    optimizer->epsilon = number_at(loader, "optimizer.params.eps");
    optimizer->weight_decay = number_at(loader, "optimizer.params.weight_decay");
    optimizer->momentum = number_at(loader, "optimizer.params.momentum");
    optimizer->dampening = number_at(loader, "optimizer.params.dampening");
    optimizer->nesterov = bool_at(loader, "optimizer.params.nesterov");
    optimizer->bias_correction = bool_at(loader, "optimizer.params.bias_correction");
    bool adam = optimizer->kind == ZINF_ADAM;
    optimizer->decoupled_decay = adam && (!strcmp(optimizer->name, "AdamW") ||
                                          bool_at(loader, "optimizer.params.adam_w_mode"));
}

/* Numbers of the scheduler that stay as zinf_schedule_defaults() set them when the type has no such
 * key. */
static void schedule_number(const struct zinf_loader *loader, const char *name, double *out)
{
    char *path = zinf_format("scheduler.params.%s", name);
    const struct zinf_json *value = at(loader, path);
    if (value && value->type != ZINF_JSON_STRING)
        *out = value->number;
    free(path);
}

static void schedule_integer(const struct zinf_loader *loader, const char *name, int64_t *out)
{
    double number = NAN;
    schedule_number(loader, name, &number);
    if (isfinite(number))
        *out = (int64_t)number;
}

static void fill_cycle(const struct zinf_loader *loader, struct zinf_schedule_options *schedule)
{
    schedule_number(loader, "cycle_min_lr", &schedule->cycle_min_lr);
    schedule_number(loader, "cycle_max_lr", &schedule->cycle_max_lr);
    schedule_number(loader, "decay_lr_rate", &schedule->decay_lr_rate);
    schedule_number(loader, "cycle_first_step_size", &schedule->cycle_first_step_size);
    schedule_number(loader, "cycle_second_step_size", &schedule->cycle_second_step_size);
    schedule_integer(loader, "cycle_first_stair_count", &schedule->cycle_first_stair_count);
    schedule_integer(loader, "cycle_second_stair_count", &schedule->cycle_second_stair_count);
    schedule_number(loader, "decay_step_size", &schedule->decay_step_size);
    schedule->cycle_momentum = bool_at(loader, "scheduler.params.cycle_momentum");
    schedule_number(loader, "cycle_min_mom", &schedule->cycle_min_mom);
    schedule_number(loader, "cycle_max_mom", &schedule->cycle_max_mom);
    schedule_number(loader, "decay_mom_rate", &schedule->decay_mom_rate);
}

static void fill_schedule(struct zinf_loader *loader)
{
    static const char *const names[] = {"",         "WarmupLR",   "WarmupDecayLR", "WarmupCosineLR",
                                        "OneCycle", "LRRangeTest"};
    struct zinf_schedule_options *schedule = &loader->config->schedule;
    const struct zinf_config_optimizer *optimizer = &loader->config->optimizer;
    int type = 0;
    for (int i = 1; i < 6; i++)
        if (loader->scheduler && !strcmp(names[i], loader->scheduler))
            type = i;
    zinf_schedule_defaults(schedule, (enum zinf_schedule_type)type);
    if (optimizer->given) {
        schedule->optimizer_lr = optimizer->learning_rate;
        schedule->optimizer_has_betas =
            optimizer->kind == ZINF_ADAM || optimizer->kind == ZINF_LION;
        schedule->optimizer_beta1 = optimizer->beta1;
        schedule->optimizer_beta2 = optimizer->beta2;
    }
    schedule_number(loader, "warmup_min_lr", &schedule->warmup_min_lr);
    schedule_number(loader, "warmup_max_lr", &schedule->warmup_max_lr);
    schedule_integer(loader, "warmup_num_steps", &schedule->warmup_num_steps);
    if (schedule->warmup_num_steps < 1)
        schedule->warmup_num_steps = 1; /* counts as DeepSpeed's minimum, 2 */
    schedule_integer(loader, "total_num_steps", &schedule->total_num_steps);
    loader->config->schedule_total_auto =
        !strcmp(string_at(loader, "scheduler.params.total_num_steps"), "auto");
    schedule->warmup_linear = !strcmp(string_at(loader, "scheduler.params.warmup_type"), "linear");
    schedule_number(loader, "warmup_min_ratio", &schedule->warmup_min_ratio);
    schedule_number(loader, "cos_min_ratio", &schedule->cos_min_ratio);
    if (type == ZINF_SCHEDULE_ONE_CYCLE)
        fill_cycle(loader, schedule);
    schedule_number(loader, "lr_range_test_min_lr", &schedule->lr_range_test_min_lr);
    schedule_number(loader, "lr_range_test_step_rate", &schedule->lr_range_test_step_rate);
    schedule_integer(loader, "lr_range_test_step_size", &schedule->lr_range_test_step_size);
    schedule->lr_range_test_staircase = bool_at(loader, "scheduler.params.lr_range_test_staircase");
}

static void fill_precision(struct zinf_loader *loader)
{
    struct zinf_config_precision *precision = &loader->config->precision;
    struct zinf_loss_scale_options *scale = &precision->loss_scale;
    precision->dtype = bool_at(loader, "fp16.enabled")   ? ZINF_FP16
                       : bool_at(loader, "bf16.enabled") ? ZINF_BF16
                                                         : ZINF_FP32;
    precision->tf32 = precision->dtype == ZINF_FP32 && bool_at(loader, "zinf.tf32");
    precision->accumulation = dtype_at(loader, "data_types.grad_accum_dtype", precision->dtype);
    precision->communication = dtype_at(loader, "communication_data_type", precision->dtype);
    scale->loss_scale = number_at(loader, "fp16.loss_scale");
    scale->initial_scale_power = (int)integer_at(loader, "fp16.initial_scale_power");
    scale->loss_scale_window = integer_at(loader, "fp16.loss_scale_window");
    scale->hysteresis = integer_at(loader, "fp16.hysteresis");
    scale->consecutive_hysteresis = bool_at(loader, "fp16.consecutive_hysteresis");
    scale->min_loss_scale = number_at(loader, "fp16.min_loss_scale");
}

static void fill_deepspeed(struct zinf_loader *loader)
{
    struct zinf_config *config = loader->config;
    config->batch.micro = integer_at(loader, "train_micro_batch_size_per_gpu");
    config->batch.accumulation = integer_at(loader, "gradient_accumulation_steps");
    config->batch.global = integer_at(loader, "train_batch_size");
    config->gradient_clipping = number_at(loader, "gradient_clipping");
    config->steps_per_print = integer_at(loader, "steps_per_print");
    config->zero.stage = (int)integer_at(loader, "zero_optimization.stage");
    config->zero.prefetch_bucket_size =
        integer_at(loader, "zero_optimization.stage3_prefetch_bucket_size");
    config->zero.max_live_parameters =
        integer_at(loader, "zero_optimization.stage3_max_live_parameters");
    config->zero.max_reuse_distance =
        integer_at(loader, "zero_optimization.stage3_max_reuse_distance");
}

static enum zinf_config_device device_at(const struct zinf_loader *loader, const char *path)
{
    const char *device = string_at(loader, path);
    return !device || !strcmp(device, "none") ? ZINF_CONFIG_DEVICE_NONE
           : !strcmp(device, "cpu")           ? ZINF_CONFIG_DEVICE_CPU
                                              : ZINF_CONFIG_DEVICE_NVME;
}

static enum zinf_config_super super_at(const struct zinf_loader *loader, const char *path)
{
    const struct zinf_json *value = zinf_json_path(loader->tree, path);
    if (!value || value->type != ZINF_JSON_BOOL)
        return ZINF_SUPER_OFFLOAD_AUTO;
    return bool_at(loader, path) ? ZINF_SUPER_OFFLOAD_ON : ZINF_SUPER_OFFLOAD_OFF;
}

static void fill_offload(struct zinf_loader *loader)
{
    struct zinf_config_offload *offload = &loader->config->offload;
    loader->config->zero.sub_group_size = integer_at(loader, "zero_optimization.sub_group_size");
    offload->optimizer = device_at(loader, "zero_optimization.offload_optimizer.device");
    offload->parameters = device_at(loader, "zero_optimization.offload_param.device");
    offload->optimizer_paths = list_at(loader, "zero_optimization.offload_optimizer.nvme_path");
    offload->parameter_paths = list_at(loader, "zero_optimization.offload_param.nvme_path");
    offload->optimizer_buffers =
        (int)integer_at(loader, "zero_optimization.offload_optimizer.buffer_count");
    offload->parameter_buffers =
        (int)integer_at(loader, "zero_optimization.offload_param.buffer_count");
    offload->ratio = number_at(loader, "zero_optimization.offload_optimizer.ratio");
    offload->super = super_at(loader, "zero_optimization.offload_optimizer.super_offload");
    offload->max_in_cpu = integer_at(loader, "zero_optimization.offload_param.max_in_cpu");
    offload->queue_depth = (int)integer_at(loader, "aio.queue_depth");
    offload->io_threads = (int)integer_at(loader, "aio.intra_op_parallelism");
    offload->block_bytes = integer_at(loader, "aio.block_size");
}

static void fill_data(struct zinf_loader *loader)
{
    struct zinf_config_model *model = &loader->config->model;
    struct zinf_config_data *data = &loader->config->data;
    const char *init = string_at(loader, "zinf.model.init");
    model->path = copy_at(loader, "zinf.model.path");
    model->init = !strcmp(init, "random")       ? ZINF_CONFIG_INIT_RANDOM
                  : !strcmp(init, "pretrained") ? ZINF_CONFIG_INIT_PRETRAINED
                                                : ZINF_CONFIG_INIT_AUTO;
    model->num_labels = integer_at(loader, "zinf.model.num_labels");
    data->train = list_at(loader, "zinf.data.train");
    data->eval = list_at(loader, "zinf.data.eval");
    data->format = copy_at(loader, "zinf.data.format");
    data->tokenizer = copy_at(loader, "zinf.data.tokenizer");
    data->packing = copy_at(loader, "zinf.data.packing");
    data->sequence_length = integer_at(loader, "zinf.data.sequence_length");
    data->shuffle = bool_at(loader, "zinf.data.shuffle");
}

static void fill_train(struct zinf_loader *loader)
{
    struct zinf_config_train *train = &loader->config->train;
    train->steps = integer_at(loader, "zinf.train.steps");
    train->epochs = number_at(loader, "zinf.train.epochs");
    train->eval_every = integer_at(loader, "zinf.train.eval_every");
    train->eval_batches = integer_at(loader, "zinf.train.eval_batches");
    train->eval_micro_batch = integer_at(loader, "zinf.train.eval_micro_batch");
    if (train->eval_micro_batch == 0)
        train->eval_micro_batch = loader->config->batch.micro;
    train->seed = integer_at(loader, "zinf.train.seed");
    train->no_decay = list_at(loader, "zinf.train.no_decay");
    train->loss_mean_micro_batch =
        !strcmp(string_at(loader, "zinf.train.loss_mean"), "micro_batch");
    train->max_nonfinite = integer_at(loader, "zinf.train.max_nonfinite");
}

static void fill_run(struct zinf_loader *loader)
{
    struct zinf_config *config = loader->config;
    struct zinf_config_checkpoint *checkpoint = &config->checkpoint;
    const char *activations = string_at(loader, "zinf.memory.activations");
    const char *graphs = string_at(loader, "zinf.graphs");
    config->memory.device_bytes = size_at(loader, "zinf.memory.device");
    config->memory.host_bytes = size_at(loader, "zinf.memory.host");
    config->memory.nvme_bytes = size_at(loader, "zinf.memory.nvme");
    config->memory.cache_bytes = size_at(loader, "zinf.memory.cache");
    config->memory.activations = !strcmp(activations, "keep")        ? ZINF_ACTIVATIONS_KEEP
                                 : !strcmp(activations, "recompute") ? ZINF_ACTIVATIONS_RECOMPUTE
                                 : !strcmp(activations, "cpu")       ? ZINF_ACTIVATIONS_CPU
                                 : !strcmp(activations, "nvme")      ? ZINF_ACTIVATIONS_NVME
                                                                     : ZINF_ACTIVATIONS_AUTO;
    checkpoint->every_steps = integer_at(loader, "zinf.checkpoint.every_steps");
    checkpoint->every_minutes = number_at(loader, "zinf.checkpoint.every_minutes");
    checkpoint->every_epoch = bool_at(loader, "zinf.checkpoint.every_epoch");
    checkpoint->num_to_keep = integer_at(loader, "zinf.checkpoint.num_to_keep");
    checkpoint->score_attribute = copy_at(loader, "zinf.checkpoint.score_attribute");
    checkpoint->score_max = !strcmp(string_at(loader, "zinf.checkpoint.score_order"), "max");
    checkpoint->resume = copy_at(loader, "zinf.checkpoint.resume");
    config->run_dir = copy_at(loader, "zinf.run.dir");
    config->log_jsonl = bool_at(loader, "zinf.log.jsonl");
    config->device = copy_at(loader, "zinf.device");
    config->graphs = !strcmp(graphs, "on")    ? ZINF_GRAPHS_ON
                     : !strcmp(graphs, "off") ? ZINF_GRAPHS_OFF
                                              : ZINF_GRAPHS_AUTO;
    config->bind = zinf_bind_parse(string_at(loader, "zinf.bind"));
    config->watchdog_s = number_at(loader, "zinf.watchdog_s");
}

/* A run refuses by name what a check only lists. */
static void refuse_not_yet(struct zinf_loader *loader)
{
    struct zinf_error_list *list = &loader->report->not_yet;
    if (loader->options->purpose == ZINF_CONFIG_CHECK)
        return;
    for (size_t i = 0; i < list->count; i++) {
        const struct zinf_error *item = &list->items[i];
        struct zinf_error error;
        zinf_error_at(&error, ZINF_E_USAGE,
                      (struct zinf_text_place){item->file, item->line, item->column},
                      "%s: not yet in this version", item->text);
        zinf_error_list_add(&loader->report->errors, &error);
    }
    zinf_error_list_release(list);
}

static int by_place(const void *a, const void *b)
{
    const struct zinf_error *x = a, *y = b;
    if (x->line != y->line)
        return (x->line > y->line) - (x->line < y->line);
    return (x->column > y->column) - (x->column < y->column);
}

static int report_status(const struct zinf_error_list *errors)
{
    int status = 0;
    for (size_t i = 0; i < errors->count; i++)
        if (errors->items[i].status != ZINF_E_DATA || !status)
            status = errors->items[i].status;
    return status;
}

static void load(struct zinf_loader *loader)
{
    if (zinf_config_read_tree(loader))
        return;
    zinf_config_check_tree(loader);
    zinf_config_check_fields(loader);
    if (!loader->incomplete) {
        zinf_config_check_batch(loader);
        zinf_config_complete(loader);
        zinf_config_check_run(loader);
        zinf_config_read_model(loader);
    }
    refuse_not_yet(loader);
    struct zinf_error_list *errors = &loader->report->errors;
    if (errors->count) {
        qsort(errors->items, errors->count, sizeof *errors->items, by_place);
        return;
    }
    fill_optimizer(loader);
    fill_schedule(loader);
    fill_precision(loader);
    fill_deepspeed(loader);
    fill_offload(loader);
    fill_data(loader);
    fill_train(loader);
    fill_run(loader);
}

int zinf_config_load(struct zinf_config **config, const struct zinf_config_options *options,
                     struct zinf_config_report *report)
{
    struct zinf_loader loader = {.options = options, .report = report};
    loader.config = zinf_alloc(sizeof *loader.config);
    loader.refused = zinf_json_new(ZINF_JSON_OBJECT);
    loader.config->file = zinf_strdup(options->file);
    loader.config->ranks = options->ranks;
    loader.config->limits = options->limits;
    *config = NULL;
    load(&loader);
    zinf_json_free(loader.refused);
    loader.config->effective = loader.tree;
    int status = report_status(&report->errors);
    if (status)
        zinf_config_free(loader.config);
    else
        *config = loader.config;
    return status;
}
