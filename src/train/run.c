/*
 * Opening a run: model, data, plan, memory, weights, in this order, so that whatever does not fit
 * or does not exist is found before a rank has done anything it would have to undo.
 */
#include "train/run.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/trace.h"
#include "base/version.h"
#include "topology/machine.h"
#include "train/weights.h"

int zinf_run_agree_on(struct zinf_comm *comm, int status, const struct zinf_error *error)
{
    int *all = zinf_alloc((size_t)comm->size * sizeof *all);
    char text[2200];
    int first = 0, worst = 0;
    zinf_comm_gather_small(comm, &status, sizeof status, all);
    for (int i = 0; i < comm->size; i++) {
        if (worst == 0 && all[i])
            first = i;
        if (all[i] < worst)
            worst = all[i];
    }
    free(all);
    if (worst && comm->rank == first && error->text[0]) {
        zinf_error_print(error, text, sizeof text);
        zinf_error_log("%s", text);
    }
    return worst;
}

int64_t zinf_run_steps_per_epoch(const struct zinf_run *run)
{
    return zinf_batches_sample_count(run->train) / run->config->batch.global;
}

double zinf_run_epochs(const struct zinf_run *run)
{
    int64_t samples = zinf_run_steps_per_epoch(run) * run->config->batch.global;
    return (double)run->state.epoch + (double)run->state.cursor / (double)samples;
}

static int open_model(struct zinf_run *run)
{
    const struct zinf_config *config = run->config;
    struct zinf_error error = {0};
    const char *source = config->model.config_source;
    int status = zinf_model_new(&run->model, config->model.config, source, &error);
    if (!status && config->data.sequence_length > run->model->positions)
        status = zinf_error_set(
            &error, ZINF_E_USAGE,
            "zinf.data.sequence_length is %lld, but the model has %lld positions (%s); set "
            "it to at most %lld",
            (long long)config->data.sequence_length, (long long)run->model->positions, source,
            (long long)run->model->positions);
    return zinf_run_agree_on(run->comm, status, &error);
}

static int open_batches(struct zinf_run *run, struct zinf_batches **batches,
                        const struct zinf_config_list *patterns, const char *name,
                        struct zinf_error *error)
{
    const struct zinf_config *config = run->config;
    const struct zinf_batches_options options = {.patterns = (const char *const *)patterns->items,
                                                 .pattern_count = patterns->count,
                                                 .sequence_length = config->data.sequence_length,
                                                 .vocab = run->model->vocab,
                                                 .shuffle =
                                                     batches == &run->train && config->data.shuffle,
                                                 .seed = (uint64_t)config->train.seed,
                                                 .name = name};
    return zinf_batches_open(batches, &options, error);
}

static int open_data(struct zinf_run *run, bool training)
{
    const struct zinf_config *config = run->config;
    struct zinf_error error = {0};
    int status = ZINF_OK;
    if (training)
        status = open_batches(run, &run->train, &config->data.train, "zinf.data.train", &error);
    if (!status && training && zinf_run_steps_per_epoch(run) == 0)
        status = zinf_error_set(&error, ZINF_E_DATA,
                                "zinf.data.train holds %lld samples of %lld tokens, fewer than "
                                "one batch of %lld; give more text, a smaller batch or a shorter "
                                "zinf.data.sequence_length",
                                (long long)zinf_batches_sample_count(run->train),
                                (long long)config->data.sequence_length,
                                (long long)config->batch.global);
    if (!status && config->data.eval.count)
        status = open_batches(run, &run->eval, &config->data.eval, "zinf.data.eval", &error);
    else if (!status && !training)
        status = zinf_error_set(&error, ZINF_E_USAGE,
                                "zinf eval needs zinf.data.eval: --set zinf.data.eval=FILE");
    return zinf_run_agree_on(run->comm, status, &error);
}

static int open_schedules(struct zinf_run *run)
{
    const struct zinf_config *config = run->config;
    struct zinf_schedule_options options = config->schedule;
    struct zinf_error error = {0};
    double epochs = config->train.epochs * (double)zinf_run_steps_per_epoch(run);
    run->total_steps = config->train.steps > 0 ? config->train.steps : (int64_t)ceil(epochs - 1e-9);
    if (config->schedule_total_auto) {
        options.total_num_steps = run->total_steps;
        zinf_json_set(zinf_json_path(config->effective, "scheduler.params"), "total_num_steps",
                      zinf_json_new_integer(run->total_steps));
    }
    zinf_loss_scale_init(&run->loss_scale, &config->precision.loss_scale);
    return zinf_run_agree_on(run->comm, zinf_schedule_init(&run->schedule, &options, &error),
                             &error);
}

/* Is `pattern` the name, or whole parts of it between dots, e.g. "bias" or "ln_1.weight"? */
static bool is_part_of(const char *pattern, const char *name)
{
    size_t length = strlen(pattern);
    for (const char *at = name; length && (at = strstr(at, pattern)); at++)
        if ((at == name || at[-1] == '.') && (!at[length] || at[length] == '.'))
            return true;
    return false;
}

static bool matches(const char *pattern, const char *name)
{
    bool wild = strpbrk(pattern, "*?[\\");
    return wild ? fnmatch(pattern, name, 0) == 0 : is_part_of(pattern, name);
}

static void find_no_decay(struct zinf_run *run)
{
    const struct zinf_config_list *patterns = &run->config->train.no_decay;
    const struct zinf_model *model = run->model;
    run->no_decay = zinf_alloc((size_t)model->param_count * sizeof *run->no_decay);
    for (int i = 0; i < patterns->count; i++) {
        bool any = false;
        for (int p = 0; p < model->param_count; p++)
            if (matches(patterns->items[i], model->params[p].name))
                any = run->no_decay[p] = true;
        if (!any)
            zinf_warn("zinf.train.no_decay: \"%s\" matches no parameter; a word is one or more "
                      "whole parts of a name between its dots, a pattern with * ? [ ] the whole "
                      "name, e.g. %s",
                      patterns->items[i], model->params[model->param_count - 1].name);
    }
}

/* Of the first blocks, whose gradients come last and whose weights are needed first, as many as
 * leave `ratio` of all parameters to the host. Source: Twin-Flow of ZeRO-Offload++; DeepSpeed
 * counts sub-groups. */
static int blocks_on_device(const struct zinf_run *run)
{
    const struct zinf_config_offload *offload = &run->config->offload;
    double all = 0, used = 0;
    int count = 0;
    if (offload->optimizer != ZINF_CONFIG_DEVICE_CPU || offload->ratio >= 1)
        return 0;
    for (int i = 0; i < run->model->block_count; i++)
        all += (double)run->model->blocks[i].element_count;
    for (; count < run->model->block_count; count++) {
        used += (double)run->model->blocks[count].element_count;
        if (used > (1 - offload->ratio) * all)
            break;
    }
    return count;
}

/* Are new weights made before the norm is known? Where nobody has asked, only where that takes no
 * memory. */
static bool makes_weights_ahead(const struct zinf_run *run)
{
    const struct zinf_config_offload *offload = &run->config->offload;
    bool wanted =
        offload->super == ZINF_SUPER_OFFLOAD_ON ||
        (offload->super == ZINF_SUPER_OFFLOAD_AUTO && run->config->precision.dtype != ZINF_FP32);
    return wanted && run->own_memory && offload->optimizer == ZINF_CONFIG_DEVICE_CPU &&
           offload->parameters != ZINF_CONFIG_DEVICE_NVME &&
           run->device_blocks < run->model->block_count;
}

void zinf_run_build_plans(struct zinf_run *run, bool training)
{
    const struct zinf_config *config = run->config;
    run->device_blocks = training ? blocks_on_device(run) : 0;
    run->ahead = training && makes_weights_ahead(run);
    struct zinf_plan_options options = {.model = run->model,
                                        .ranks = run->comm->size,
                                        .sharding = zinf_sharding_of_stage(config->zero.stage),
                                        .micro_count = (int)config->batch.accumulation,
                                        .training = true,
                                        .dtype = config->precision.dtype,
                                        .accumulation_dtype = config->precision.accumulation,
                                        .wire_dtype = config->precision.communication,
                                        .prefetch_elements = config->zero.prefetch_bucket_size,
                                        .max_live_elements = config->zero.max_live_parameters,
                                        .max_reuse_elements = config->zero.max_reuse_distance};
    /* Beside a device the host's cores are free for the update; those of a CPU rank compute. */
    bool all = run->device_blocks == run->model->block_count;
    options.update_lane =
        !all && (config->offload.optimizer == ZINF_CONFIG_DEVICE_NVME ||
                 config->offload.parameters == ZINF_CONFIG_DEVICE_NVME ||
                 (run->own_memory && (config->offload.optimizer == ZINF_CONFIG_DEVICE_CPU ||
                                      config->offload.parameters == ZINF_CONFIG_DEVICE_CPU)));
    options.device_blocks = options.update_lane ? run->device_blocks : 0;
    options.early_updates = run->ahead || (options.update_lane && config->gradient_clipping == 0 &&
                                           config->precision.dtype != ZINF_FP16);
    if (training)
        zinf_plan_build(&run->plan, &options);
    options.micro_count = 1;
    options.training = false;
    zinf_plan_build(&run->evaluation_plan, &options);
}

/* Bind this rank before it makes threads: they inherit it. */
static int set_threads(struct zinf_run *run)
{
    const struct zinf_config *config = run->config;
    int status = zinf_rankmap_open(&run->rankmap, run->comm, config->bind, config->limits.threads);
    if (status)
        return status;
    run->threads = run->rankmap.rows[run->comm->rank].threads;
    zinf_cpu_set_threads(run->threads);
    return ZINF_OK;
}

/* This rank's of a list that the ranks of a node share out. Collective. */
static const char *choose_folder(struct zinf_run *run, const struct zinf_config_list *list)
{
    return list->items[zinf_rankmap_share_paths(&run->rankmap, run->comm,
                                                (const char *const *)list->items, list->count)];
}

/* Each rank's folder for swap files. Collective. The inputs of blocks move while layers compute:
 * the optimizer's drive is idle then, the parameters' may be read. */
static void choose_folders(struct zinf_run *run)
{
    const struct zinf_config_offload *offload = &run->config->offload;
    if (offload->optimizer == ZINF_CONFIG_DEVICE_NVME)
        run->optimizer_path = choose_folder(run, &offload->optimizer_paths);
    if (offload->parameters == ZINF_CONFIG_DEVICE_NVME)
        run->parameter_path = choose_folder(run, &offload->parameter_paths);
    if (run->config->memory.activations != ZINF_ACTIVATIONS_NVME)
        return;
    bool optimizers = offload->optimizer_paths.count > 0;
    run->activation_path = optimizers ? run->optimizer_path : run->parameter_path;
    if (!run->activation_path)
        run->activation_path =
            choose_folder(run, optimizers ? &offload->optimizer_paths : &offload->parameter_paths);
}

static int open_common(struct zinf_run *run, bool training)
{
    const struct zinf_config *config = run->config;
    struct zinf_error error = {0};
    int64_t rows = config->batch.accumulation * config->batch.micro;
    /* Ranks wait for each other in checkpoints too, where a slow disk is no hang. */
    run->comm->watchdog_s = 10 * config->watchdog_s;
    int status = set_threads(run);
    if (status)
        return status;
    if (training)
        choose_folders(run);
    status = open_model(run);
    if (!status)
        status = open_data(run, training);
    if (!status && training)
        status = open_schedules(run);
    if (status)
        return status;
    find_no_decay(run);
    zinf_run_find_processor(run);
    zinf_run_build_plans(run, training);
    status = zinf_run_open_processor(run, training);
    if (!status)
        status = zinf_run_check_ranks(run);
    if (!status)
        status = zinf_run_take_memory(run, training);
    if (!status)
        status =
            zinf_run_agree_on(run->comm, zinf_zero_start(&run->zero, &run->host, &error), &error);
    if (!status)
        status = zinf_run_agree_on(run->comm, zinf_step_open(&run->step, &error), &error);
    if (status)
        return status;
    if (rows < config->train.eval_micro_batch)
        rows = config->train.eval_micro_batch;
    run->inputs = zinf_alloc((size_t)(rows * config->data.sequence_length) * sizeof(int32_t));
    run->targets = zinf_alloc((size_t)(rows * config->data.sequence_length) * sizeof(int32_t));
    return status;
}

int zinf_run_open_training(struct zinf_run *run, const struct zinf_config *config,
                           struct zinf_comm *comm)
{
    memset(run, 0, sizeof *run);
    run->config = config;
    run->comm = comm;
    run->state.seed = config->train.seed;
    zinf_trace_open(comm->rank);
    zinf_activities_init(&run->activities);
    zinf_activity_start(&run->activities, ZINF_ACTIVITY_START);
    int status = open_common(run, true);
    if (!status)
        zinf_run_probe_peak(run);
    if (!status)
        status = zinf_run_resume(run);
    if (!status)
        zinf_run_choose_products(run, true);
    zinf_activity_stop(&run->activities, ZINF_ACTIVITY_START);
    return status;
}

int zinf_run_open_evaluation(struct zinf_run *run, const struct zinf_config *config,
                             struct zinf_comm *comm, const char *checkpoint)
{
    memset(run, 0, sizeof *run);
    run->config = config;
    run->comm = comm;
    zinf_activities_init(&run->activities);
    zinf_activity_start(&run->activities, ZINF_ACTIVITY_START);
    int status = open_common(run, false);
    if (!status)
        status = zinf_run_load_weights(run, checkpoint);
    if (!status)
        zinf_run_choose_products(run, false);
    zinf_activity_stop(&run->activities, ZINF_ACTIVITY_START);
    return status;
}

void zinf_run_close(struct zinf_run *run)
{
    zinf_log_set_file(NULL);
    zinf_zero_close(&run->zero);
    zinf_trace_close();
    zinf_step_release(&run->step);
    if (run->link.ops)
        run->link.ops->close(&run->link);
    if (run->processor.backend) /* before the host memory that it has pinned goes */
        run->processor.backend->close(&run->processor);
    zinf_pool_close(&run->device);
    zinf_pool_close(&run->host);
    zinf_plan_release(&run->plan);
    zinf_plan_release(&run->evaluation_plan);
    zinf_batches_close(run->train);
    zinf_batches_close(run->eval);
    zinf_run_folder_close(run->folder);
    zinf_model_free(run->model);
    zinf_rankmap_release(&run->rankmap);
    zinf_products_release(&run->products);
    free(run->products_text);
    free(run->no_decay);
    free(run->inputs);
    free(run->targets);
    memset(run, 0, sizeof *run);
}
