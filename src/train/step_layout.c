/*
 * The memory of a step: activations, gradients on their way down, scratch; on counting pools the
 * plan's figure, on open ones what the run uses.
 */
#include "train/step.h"

#include <stdlib.h>
#include <string.h>

#include "device/calls.h"
#include "zero/staged.h"

static size_t hidden_bytes(const struct zinf_step_options *o, int64_t rows)
{
    return (size_t)(rows * o->zero->options.model->hidden) *
           zinf_dtype_bytes(o->zero->options.dtype);
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static void lay_out_inputs(struct zinf_step *step, struct zinf_pool *device, struct zinf_pool *host)
{
    const struct zinf_step_options *o = &step->options;
    struct zinf_activations_options inputs = o->activations;
    inputs.device = zinf_staged(o->zero) ? o->zero->options.device : NULL;
    inputs.layers = (int)o->zero->options.model->layers;
    inputs.input_bytes = hidden_bytes(o, o->batch * o->sequence);
    inputs.window_bytes = hidden_bytes(o, larger(o->batch, o->evaluation_batch) * o->sequence);
    zinf_activations_layout(&step->activations, &inputs, device, host);
}

static void make_angles(struct zinf_step *step)
{
    struct zinf_zero *zero = step->options.zero;
    const struct zinf_model *model = zero->options.model;
    struct zinf_device *device = step->copy.device;
    int64_t count = step->options.sequence * model->head_size / 2;
    size_t bytes = (size_t)count * sizeof(float);
    if (!device) {
        zinf_rope_table(model, step->options.sequence, step->cosine, step->sine);
        return;
    }
    float *table = zinf_alloc(2 * bytes);
    zinf_rope_table(model, step->options.sequence, table, table + count);
    device->backend->copy(device, ZINF_STREAM_COMPUTE, step->cosine, table, bytes);
    device->backend->copy(device, ZINF_STREAM_COMPUTE, step->sine, table + count, bytes);
    zinf_staged_drain(zero);
    free(table);
}

void zinf_step_layout(struct zinf_step *step, const struct zinf_step_options *options,
                      struct zinf_pool *device, struct zinf_pool *host)
{
    const struct zinf_model *model = options->zero->options.model;
    enum zinf_dtype dtype = options->zero->options.dtype;
    int64_t batch = larger(options->batch, options->evaluation_batch);
    int64_t rows = batch * options->sequence;
    size_t row = hidden_bytes(options, rows), before = device->used_bytes;
    size_t saved = zinf_layer_saved_bytes(model, dtype, batch, options->sequence);
    size_t angles = (size_t)(options->sequence * model->head_size / 2) * sizeof(float);
    void *shared = NULL;
    step->options = *options;
    if (!step->saved)
        step->saved = zinf_alloc((size_t)model->layers * sizeof *step->saved);
    lay_out_inputs(step, device, host);
    if (options->kept_layers < model->layers)
        shared = zinf_pool_take(device, saved);
    for (int64_t i = 0; i < model->layers; i++)
        step->saved[i] =
            i < model->layers - options->kept_layers ? shared : zinf_pool_take(device, saved);
    step->normalized = zinf_pool_take(device, row);
    step->statistics = zinf_pool_take(device, (size_t)rows * 2 * sizeof(float));
    step->loss.maximum = zinf_pool_take(device, (size_t)rows * sizeof(float));
    step->loss.sum = zinf_pool_take(device, (size_t)rows * sizeof(float));
    step->loss.target_logit = zinf_pool_take(device, (size_t)rows * sizeof(float));
    step->loss.logits =
        options->keep_logits
            ? zinf_pool_take(
                  device, zinf_head_logits_bytes(model, dtype, options->batch * options->sequence))
            : NULL;
    step->dy = zinf_pool_take(device, (size_t)(rows * model->hidden) * sizeof(float));
    step->dx = zinf_pool_take(device, row);
    step->cosine = model->rotary ? zinf_pool_take(device, angles) : NULL;
    step->sine = model->rotary ? zinf_pool_take(device, angles) : NULL;
    step->pass =
        (struct zinf_pass){.model = model,
                           .ops = options->zero->options.ops,
                           .dtype = dtype,
                           .sequence = options->sequence,
                           .cosine = step->cosine,
                           .sine = step->sine,
                           .dropout_key = options->dropout_key,
                           .scratch = zinf_pool_take(
                               device, zinf_scratch_bytes(model, dtype, batch, options->sequence))};
    zinf_batch_copy_layout(&step->copy, options->zero, rows, options->micro_count, device, host);
    step->activation_bytes = device->used_bytes - before;
    if (device->base && model->rotary)
        make_angles(step);
}

/* Passes of blocks may be recorded, where the device can. */
static void open_graphs(struct zinf_step *step)
{
    const struct zinf_step_options *o = &step->options;
    struct zinf_device *device = o->zero->options.device;
    const struct zinf_graphs_options options = {.device = device,
                                                .plan = o->plan,
                                                .use = o->graphs,
                                                .rank = o->zero->rank,
                                                .device_bytes = o->graph_bytes};
    if (!zinf_staged(o->zero) || !device->backend->recorder || o->batch == 0)
        return;
    step->graphs = zinf_graphs_new(&options);
    if (step->graphs)
        step->pass.ops = zinf_calls_operations(step->pass.ops);
}

int zinf_step_open(struct zinf_step *step, struct zinf_error *error)
{
    const struct zinf_zero *zero = step->options.zero;
    open_graphs(step);
    zinf_device_times_open(&step->times, zinf_staged(zero) ? zero->options.device : NULL,
                           step->options.plan, step->options.first_event);
    return zinf_activations_open(&step->activations, error);
}

void zinf_step_release(struct zinf_step *step)
{
    zinf_graphs_free(step->graphs);
    zinf_activations_close(&step->activations);
    zinf_device_times_close(&step->times);
    free(step->saved);
    memset(step, 0, sizeof *step);
}
