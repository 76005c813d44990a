/*
 * Inputs of layers on their way down the tiers and back. See activations.h.
 */
#include "zero/activations.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "zero/activations_staged.h"

enum { FEWEST_WINDOWS = 2, PAGE = 4096 };

/* Do inputs leave the device by copies? */
static bool is_staged(const struct zinf_activations *a)
{
    return a->options.device && a->options.tier != ZINF_TIER_DEVICE && a->options.input_bytes > 0;
}

/* Do inputs go from here to the drive? */
static bool on_nvme(const struct zinf_activations *a)
{
    return a->options.tier == ZINF_TIER_NVME && a->options.input_bytes > 0 && !is_staged(a);
}

static bool is_serial(const struct zinf_activations *a)
{
    return a->options.buffers < 2;
}

/* A layer reads one input and makes the next, so two windows are the least. */
static int choose_window_count(const struct zinf_activations *a)
{
    int layers = a->options.layers, count = layers;
    if (!a->options.input_bytes)
        count = FEWEST_WINDOWS;
    else if (is_staged(a))
        count = ZINF_INPUT_WINDOWS;
    else if (on_nvme(a))
        count = a->options.buffers > FEWEST_WINDOWS ? a->options.buffers : FEWEST_WINDOWS;
    return count < layers ? count : layers;
}

/* Direct I/O wants every window on a page; pools align small ones to 64 bytes only. */
static void lay_out_windows(struct zinf_activations *a, struct zinf_pool *pool)
{
    size_t window = zinf_swap_padded(a->options.window_bytes);
    char *memory = zinf_pool_take(pool, (size_t)a->window_count * window + PAGE);
    char *first = memory ? (char *)(((uintptr_t)memory + PAGE - 1) & ~(uintptr_t)(PAGE - 1)) : NULL;
    for (int i = 0; i < a->window_count; i++)
        a->windows[i].memory = first ? first + (size_t)i * window : NULL;
}

void zinf_activations_layout(struct zinf_activations *a,
                             const struct zinf_activations_options *options,
                             struct zinf_pool *device, struct zinf_pool *host)
{
    size_t device_before = device->used_bytes, host_before = host->used_bytes;
    ZINF_ASSERT(options->layers >= 0 && options->window_bytes >= options->input_bytes);
    a->options = *options;
    struct zinf_pool *pool =
        options->tier == ZINF_TIER_DEVICE || !options->input_bytes || is_staged(a) ? device : host;
    a->window_count = choose_window_count(a);
    a->written_count = on_nvme(a) ? options->layers - a->window_count : 0;
    free(a->windows);
    a->windows = zinf_alloc((size_t)(a->window_count + 1) * sizeof *a->windows);
    if (on_nvme(a))
        lay_out_windows(a, pool);
    else
        for (int i = 0; i < a->window_count; i++)
            a->windows[i].memory = zinf_pool_take(pool, options->window_bytes);
    a->windows[a->window_count].memory = zinf_pool_take(device, options->window_bytes);
    size_t nvme = (size_t)a->written_count * zinf_swap_padded(options->input_bytes);
    if (is_staged(a) && options->layers > a->window_count)
        nvme = zinf_activations_layout_below(a, host);
    a->bytes = (struct zinf_activations_bytes){.device = device->used_bytes - device_before,
                                               .host = host->used_bytes - host_before,
                                               .nvme = nvme};
}

/* What an extent holds, for messages. */
static void name_extent(void *context, int extent, char *out, size_t out_bytes)
{
    const struct zinf_activations *a = context;
    snprintf(out, out_bytes, "input of layer %d, micro-batch %d", extent, a->micro);
}

static int open_swap(struct zinf_activations *a, struct zinf_error *error)
{
    size_t *bytes = zinf_alloc((size_t)a->written_count * sizeof *bytes);
    for (int i = 0; i < a->written_count; i++)
        bytes[i] = a->options.input_bytes;
    const struct zinf_swap_options options = {.folder = a->options.folder,
                                              .extent_bytes = bytes,
                                              .extent_count = a->written_count,
                                              .checksums = a->options.checksums,
                                              .name = name_extent,
                                              .context = a};
    int status = zinf_swap_open(&a->swap, &options, error);
    free(bytes);
    return status;
}

int zinf_activations_open(struct zinf_activations *a, struct zinf_error *error)
{
    struct zinf_aio_options io = a->options.io;
    if (a->below)
        return zinf_activations_open(a->below, error);
    if (a->written_count == 0)
        return ZINF_OK;
    int status = open_swap(a, error);
    if (status)
        return status;
    io.pool = a->windows[0].memory;
    io.pool_bytes = (size_t)a->window_count * zinf_swap_padded(a->options.window_bytes);
    status = zinf_aio_open(&a->aio, a->options.engine, &io);
    return status ? status : zinf_swap_attach(a->swap, &a->aio);
}

/* The transfer of a window, if one is under way, is over and right. */
static void finish(struct zinf_activations *a, int window)
{
    if (!a->windows[window].busy)
        return;
    double begin_s = zinf_clock_s();
    zinf_swap_wait(a->swap, &a->aio, &a->windows[window].transfer);
    a->windows[window].busy = false;
    a->waited_s += zinf_clock_s() - begin_s;
}

void zinf_activations_close(struct zinf_activations *a)
{
    if (a->aio.engine) {
        for (int i = 0; i < a->window_count; i++)
            finish(a, i);
        zinf_aio_close(&a->aio);
    }
    zinf_swap_close(a->swap);
    if (a->below)
        zinf_activations_close(a->below);
    free(a->below);
    free(a->windows);
    memset(a, 0, sizeof *a);
}

static int window_of(const struct zinf_activations *a, int layer)
{
    ZINF_ASSERT(layer >= 0 && layer <= a->options.layers);
    return layer == a->options.layers ? a->window_count : layer % a->window_count;
}

void zinf_activations_begin(struct zinf_activations *a, int micro)
{
    ZINF_ASSERT(micro < 0 || a->options.input_bytes > 0);
    a->micro = micro;
    if (a->below)
        zinf_activations_begin_below(a);
}

void *zinf_activations_make(struct zinf_activations *a, int layer)
{
    int window = window_of(a, layer);
    if (a->below)
        zinf_activations_free_window(a, layer);
    finish(a, window);
    return a->windows[window].memory;
}

/* Does the input of this layer leave its window in the pass under way? */
static bool travels(const struct zinf_activations *a, int layer)
{
    return a->micro >= 0 && layer < a->written_count;
}

void zinf_activations_made(struct zinf_activations *a, int layer)
{
    int window = window_of(a, layer);
    a->windows[window].layer = layer;
    if (a->below)
        zinf_activations_send(a, layer);
    if (!travels(a, layer))
        return;
    struct zinf_swap_transfer *transfer = &a->windows[window].transfer;
    zinf_swap_write(a->swap, &a->aio, transfer, layer, a->windows[window].memory);
    a->windows[window].busy = true;
    a->write_bytes += (int64_t)transfer->request.bytes;
    if (is_serial(a))
        finish(a, window);
}

/* The window is free: what stood there is used up, or on the drive since another was made there. */
static void begin_read(struct zinf_activations *a, int layer)
{
    int window = window_of(a, layer);
    struct zinf_swap_transfer *transfer = &a->windows[window].transfer;
    ZINF_ASSERT(travels(a, layer) && !a->windows[window].busy);
    zinf_swap_read(a->swap, &a->aio, transfer, layer, a->windows[window].memory);
    a->windows[window].layer = layer;
    a->windows[window].busy = true;
    a->read_bytes += (int64_t)transfer->request.bytes;
}

const void *zinf_activations_input(struct zinf_activations *a, int layer)
{
    struct zinf_activations_window *window = &a->windows[window_of(a, layer)];
    if (a->below)
        zinf_activations_receive(a, layer);
    if (window->layer != layer)
        begin_read(a, layer);
    if (window->busy && !window->transfer.request.write)
        finish(a, window_of(a, layer));
    return window->memory;
}

void zinf_activations_drop(struct zinf_activations *a, int layer)
{
    int earlier = layer - a->window_count;
    if (a->below)
        zinf_activations_fetch(a, layer);
    if (layer < a->options.layers && earlier >= 0 && travels(a, earlier) && !is_serial(a))
        begin_read(a, earlier);
}

int64_t zinf_activations_traffic(const struct zinf_activations *a, int micro_count)
{
    return (int64_t)a->bytes.nvme * micro_count;
}
