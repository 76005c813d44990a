/*
 * Inputs of layers between windows on a device and the host. See activations_staged.h.
 */
#include "zero/activations_staged.h"

#include "zero/activations.h"
#include "zero/staged.h"

enum input_event { USED, OUT, IN };

static int window_of(const struct zinf_activations *a, int layer)
{
    return layer % a->window_count;
}

static int event_of(const struct zinf_activations *a, enum input_event event, int layer)
{
    return ZINF_EVENT_INPUT + (int)event * ZINF_INPUT_WINDOWS + window_of(a, layer);
}

static void record(const struct zinf_activations *a, int event, enum zinf_stream stream)
{
    a->options.device->backend->record(a->options.device, event, stream);
}

static void wait(const struct zinf_activations *a, enum zinf_stream stream, int event)
{
    a->options.device->backend->wait(a->options.device, stream, event);
}

static void copy(const struct zinf_activations *a, enum zinf_stream stream, void *to,
                 const void *from)
{
    a->options.device->backend->copy(a->options.device, stream, to, from, a->options.input_bytes);
}

/* Inputs that leave: those of the first so many layers. */
static int leaving(const struct zinf_activations *a)
{
    return a->options.layers - a->window_count;
}

static bool travels(const struct zinf_activations *a, int layer)
{
    return a->micro >= 0 && layer >= 0 && layer < leaving(a);
}

/* Below there is a drive: it must not write what has not come down. */
static bool has_drive(const struct zinf_activations *a)
{
    return a->below->written_count > 0;
}

/* The last that leaves is what the final norm's input is to a device: used first, never moved. */
size_t zinf_activations_layout_below(struct zinf_activations *a, struct zinf_pool *host)
{
    struct zinf_activations_options options = a->options;
    options.device = NULL;
    options.layers = leaving(a) - 1;
    options.window_bytes = options.input_bytes;
    if (!a->below)
        a->below = zinf_alloc(sizeof *a->below);
    zinf_activations_layout(a->below, &options, host, host);
    return a->below->bytes.nvme;
}

void zinf_activations_begin_below(struct zinf_activations *a)
{
    a->passed = 0;
    a->returning = -1;
    zinf_activations_begin(a->below, a->micro);
}

void zinf_activations_free_window(struct zinf_activations *a, int layer)
{
    if (layer < a->options.layers && travels(a, layer - a->window_count))
        wait(a, ZINF_STREAM_COMPUTE, event_of(a, OUT, layer));
}

/* Inputs of the layers before `end` are down, on the host's word. */
static void pass_on(struct zinf_activations *a, int end)
{
    for (; a->passed < end; a->passed++) {
        if (has_drive(a))
            wait(a, ZINF_STREAM_HOST, event_of(a, OUT, a->passed));
        zinf_activations_made(a->below, a->passed);
    }
}

void zinf_activations_send(struct zinf_activations *a, int layer)
{
    const int room = a->below->window_count, windows = a->window_count;
    if (!travels(a, layer))
        return;
    record(a, event_of(a, USED, layer), ZINF_STREAM_COMPUTE);
    /* What stood in the same window, here and below, is written before another takes its place. */
    pass_on(a, layer + 1 - (room > 0 && room < windows ? room : windows));
    void *to = zinf_activations_make(a->below, layer);
    wait(a, ZINF_STREAM_COPY_OUT, event_of(a, USED, layer));
    copy(a, ZINF_STREAM_COPY_OUT, to, a->windows[window_of(a, layer)].memory);
    record(a, event_of(a, OUT, layer), ZINF_STREAM_COPY_OUT);
    if (!has_drive(a))
        pass_on(a, layer + 1);
}

void zinf_activations_receive(struct zinf_activations *a, int layer)
{
    if (layer == a->options.layers || !a->windows[window_of(a, layer)].arriving)
        return;
    wait(a, ZINF_STREAM_COMPUTE, event_of(a, IN, layer));
    a->windows[window_of(a, layer)].arriving = false;
}

/* Below gets the room back of what has come up. */
static void give_back(struct zinf_activations *a, int next)
{
    if (a->returning >= 0) {
        if (has_drive(a))
            wait(a, ZINF_STREAM_HOST, event_of(a, IN, a->returning));
        zinf_activations_drop(a->below, a->returning);
    }
    a->returning = next;
}

void zinf_activations_fetch(struct zinf_activations *a, int layer)
{
    int earlier = layer - a->window_count, window = window_of(a, layer);
    if (layer == a->options.layers || !travels(a, earlier))
        return;
    record(a, event_of(a, USED, layer), ZINF_STREAM_COMPUTE);
    pass_on(a, leaving(a));
    give_back(a, earlier);
    wait(a, ZINF_STREAM_COPY_IN, event_of(a, USED, layer));
    copy(a, ZINF_STREAM_COPY_IN, a->windows[window].memory,
         zinf_activations_input(a->below, earlier));
    record(a, event_of(a, IN, layer), ZINF_STREAM_COPY_IN);
    a->windows[window].layer = earlier;
    a->windows[window].arriving = true;
}
