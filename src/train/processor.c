/*
 * The device that a rank computes on: chosen from the table of backends, opened before memory is
 * counted, and asked how fast it is.
 *
 * Ranks of a node share its devices out, each one near its cores (topology/rankmap.h). Ranks with a
 * device each exchange between them (device/link.h); more ranks than devices share them, and
 * gradients and weights then pass through host memory as between any ranks.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "train/run.h"

enum { LINK_EVENTS = ZINF_LANES_UNDER_WAY };

/* Evaluation has no backward pass. */
static size_t scratch_of(const struct zinf_run *run, int64_t batch, bool backward)
{
    const struct zinf_model *model = run->model;
    struct zinf_device_shape shape = {
        .tokens = batch * run->config->data.sequence_length,
        .hidden = model->hidden,
        .heads = model->heads,
        .samples = backward && run->config->precision.dtype != ZINF_FP32 ? batch : 0,
        .head_size = model->head_size,
        .drops = model->attention_dropout > 0};
    for (int i = 0; i < model->block_count; i++)
        if (model->blocks[i].row_count > shape.tile_rows)
            shape.tile_rows = model->blocks[i].row_count;
    return zinf_device_scratch_bytes(&shape);
}

size_t zinf_run_device_scratch(const struct zinf_run *run)
{
    const struct zinf_config *config = run->config;
    size_t training = scratch_of(run, config->batch.micro, true);
    size_t evaluation =
        config->data.eval.count ? scratch_of(run, config->train.eval_micro_batch, false) : 0;
    return training > evaluation ? training : evaluation;
}

size_t zinf_run_graph_bytes(const struct zinf_run *run)
{
    return run->config->graphs == ZINF_GRAPHS_OFF ? 0 : zinf_graphs_bytes(&run->plan);
}

void zinf_run_find_processor(struct zinf_run *run)
{
    const struct zinf_device_backend *backend = NULL;
    struct zinf_device_properties first = {0};
    struct zinf_error ignored;
    char why[512];
    run->own_memory = !zinf_device_choose(run->config->device, &backend, &ignored) &&
                      backend->list(&first, 1, why, sizeof why) > 0 && !first.host_addressable;
}

int zinf_run_step_event(const struct zinf_run *run, bool training)
{
    int events = zinf_staged_event_count(&run->evaluation_plan);
    if (training && zinf_staged_event_count(&run->plan) > events)
        events = zinf_staged_event_count(&run->plan);
    return events;
}

static int link_event(const struct zinf_run *run, bool training)
{
    return zinf_run_step_event(run, training) +
           (training ? zinf_device_times_events(&run->plan) : 0);
}

/* How ranks exchange. Collective. A start that hangs is no slow disk: the watchdog's own time. */
static int open_link(struct zinf_run *run, bool training, struct zinf_error *error)
{
    struct zinf_device *device = &run->processor;
    const struct zinf_device_link_options options = {
        .host = run->comm, .first_event = link_event(run, training), .event_count = LINK_EVENTS};
    double watchdog_s = run->comm->watchdog_s;
    int status =
        zinf_link_choose(run->comm, device->backend, &device->properties, &run->exchange, error);
    if (run->exchange.sharing > 0) /* neighbours may see other devices than this rank */
        run->device_ranks = run->exchange.sharing;
    if (!device->properties.host_addressable)
        zinf_card_opened(&run->card, device, run->device_ranks, run->scratch_bytes);
    if (status || !run->exchange.direct)
        return status;
    run->comm->watchdog_s = run->config->watchdog_s;
    status = device->backend->link->open(device, &options, &run->link, error);
    run->comm->watchdog_s = watchdog_s;
    if (!status)
        zinf_card_linked(&run->card, device);
    return status;
}

/* This rank's of the backend's devices. Collective; backend NULL: this rank has found none. */
static int choose_device(struct zinf_run *run, const struct zinf_device_backend *backend)
{
    struct zinf_rankmap_choice choice = {.backend = backend ? backend->name : ""};
    char why[512];
    if (backend)
        choice.count = backend->list(NULL, 0, why, sizeof why);
    size_t room = (size_t)choice.count + 1;
    struct zinf_device_properties *devices = zinf_alloc(room * sizeof *devices);
    const char **bus_ids = zinf_alloc(room * sizeof *bus_ids);
    if (backend)
        backend->list(devices, choice.count, why, sizeof why);
    for (int i = 0; i < choice.count; i++)
        bus_ids[i] = devices[i].bus_id;
    choice.bus_ids = bus_ids;
    int index = zinf_rankmap_share_devices(&run->rankmap, run->comm, &choice, &run->device_ranks);
    free(bus_ids);
    free(devices);
    return index;
}

static int open_processor(struct zinf_run *run, bool training, struct zinf_error *error)
{
    const struct zinf_config *config = run->config;
    const struct zinf_device_backend *backend = NULL;
    int events = link_event(run, training);
    int status = zinf_device_choose(config->device, &backend, error);
    int index = choose_device(run, status ? NULL : backend);
    if (!status)
        zinf_card_look(&run->card, backend, index);
    zinf_comm_barrier(run->comm);
    if (status)
        return status;
    const struct zinf_device_options options = {.index = index,
                                                .event_count = events + LINK_EVENTS,
                                                .scratch_bytes = zinf_run_device_scratch(run),
                                                .tf32 = config->precision.tf32};
    status = backend->open(&run->processor, &options, error);
    if (status || run->processor.properties.host_addressable)
        return status;
    run->scratch_bytes = zinf_device_streams_scratch(options.scratch_bytes);
    run->graph_bytes = training && backend->recorder ? zinf_run_graph_bytes(run) : 0;
    return ZINF_OK;
}

int zinf_run_open_processor(struct zinf_run *run, bool training)
{
    struct zinf_error error = {0};
    int status = open_processor(run, training, &error);
    status = zinf_run_agree_on(run->comm, status, &error);
    if (!status)
        status = zinf_run_agree_on(run->comm, open_link(run, training, &error), &error);
    return status;
}

/* Half a second at most: a square product, the best of three. */
static double probe(struct zinf_run *run, void *memory, int64_t n)
{
    enum zinf_dtype dtype = run->config->precision.dtype;
    size_t bytes = (size_t)(n * n) * zinf_dtype_bytes(dtype);
    const struct zinf_matmul product = {.dtype = dtype,
                                        .c_dtype = dtype,
                                        .m = n,
                                        .n = n,
                                        .k = n,
                                        .a = memory,
                                        .lda = n,
                                        .b = (char *)memory + bytes,
                                        .ldb = n,
                                        .c = (char *)memory + 2 * bytes,
                                        .ldc = n};
    double best = INFINITY;
    for (int i = 0; i < 4; i++) {
        double begin = zinf_clock_s();
        run->zero.options.ops->matmul(&product);
        zinf_staged_drain(&run->zero);
        if (i > 0)
            best = fmin(best, zinf_clock_s() - begin);
    }
    return best;
}

/* On a device with memory of its own: in what is laid out and still zero, and stays so. */
void zinf_run_probe_peak(struct zinf_run *run)
{
    int64_t n = 1024;
    size_t element = zinf_dtype_bytes(run->config->precision.dtype);
    double best, *all = zinf_alloc((size_t)run->comm->size * sizeof *all);
    if (run->processor.properties.peak_flops > 0) {
        best = 2.0 * (double)(n * n * n) / run->processor.properties.peak_flops;
    } else if (zinf_staged(&run->zero)) {
        while ((size_t)(3 * n * n) * element > run->device.size_bytes)
            n /= 2;
        best = probe(run, run->device.base, n);
    } else {
        void *memory = zinf_alloc((size_t)(3 * n * n) * element);
        best = probe(run, memory, n);
        free(memory);
    }
    double flops = 2.0 * (double)(n * n * n) / best;
    zinf_comm_gather_small(run->comm, &flops, sizeof flops, all);
    run->peak_flops_per_rank = 0;
    for (int i = 0; i < run->comm->size; i++)
        run->peak_flops_per_rank += all[i] / run->comm->size;
    free(all);
}
