/*
 * The inputs of the layers between the forward pass that makes them and the backward pass that computes the rest again from them: on the
 * device, in host memory, or on NVMe.
 *
 * An input is all that a recomputed layer keeps: m * S * C values a layer, which a long sequence makes the largest part of a step.
 *   device  one buffer a layer.
 *   host    one buffer a layer in the host pool; on a CPU rank the layers compute in place.
 *   nvme    W windows in the host pool, in which the layers compute in place, and an extent for each layer whose input leaves them. The input
 *           of layer l stands in window l mod W. It is written as soon as it is made, while layer l computes; the window is filled again
 *           by layer l + W, which waits for that write. The backward pass goes the other way: layer l gives its window back, and the read
 *           of input l - W begins, W - 1 layers before it is needed. The last W inputs never leave their windows: the backward pass
 *           begins with them. So a micro-batch writes and reads L - W inputs.
 *   none kept (an evaluation): two windows in turn, nothing is moved.
 * The input of the final norm is used at once and stays on the device.
 *
 * Layers cannot compute in place in host memory when the device has its own. Then they do so in D windows there, as above with the drive, and what
 * leaves a window goes to an object of this kind for the host (`below`), which keeps it in host memory or passes it on to NVMe: L - D
 * inputs, down behind the layer that made them, up D - 1 layers before they are needed (activations_staged.c).
 *
 * Rejected: the ring of records (ring.h). It passes one sequence of items from front to back, here a stack turns round in the middle.
 * The traffic is that of ZeRO-Infinity (arXiv:2104.07857, section 5.1.2, "offloading activation checkpoints"), one input a layer.
 *
 * Used by one thread, with an I/O engine of its own. Errors of a transfer end the run with path, offset, length, layer and micro-batch.
 */
#ifndef ZINF_ZERO_ACTIVATIONS_H
#define ZINF_ZERO_ACTIVATIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/swap.h"
#include "memory/pool.h"
#include "zero/zero.h"

#ifdef __cplusplus
extern "C" {
#endif

struct zinf_activations_options {
    int layers;
    size_t input_bytes;         /* of one layer's input in training; 0 = no training: nothing is kept */
    size_t window_bytes;        /* of the largest input, >= input_bytes: an evaluation's may be larger */
    enum zinf_tier tier;
    int buffers;                /* nvme: windows, at least two; 1 = two and nothing overlaps */
    const char *folder;         /* nvme; borrowed */
    bool checksums;
    const char *engine;         /* NULL = the best that works */
    struct zinf_aio_options io; /* its pool is filled here */
    struct zinf_device *device; /* with memory that the host does not address; NULL: there is none; borrowed */
};

/** Bytes by tier, as the plan prints them. */
struct zinf_activations_bytes {
    size_t device, host, nvme;
};

struct zinf_activations_window {
    char *memory; /* window_bytes */
    int layer;    /* whose input stands there or is on its way there */
    bool busy;    /* `transfer` has not been waited for */
    bool arriving; /* a copy from below has not been waited for */
    struct zinf_swap_transfer transfer;
};

struct zinf_activations {
    struct zinf_activations_options options;
    struct zinf_activations_bytes bytes;
    int window_count;  /* buffers for the inputs of layers 0 .. layers - 1; layers: each has its own */
    int written_count; /* the first so many layers' inputs leave their windows */
    struct zinf_activations_window *windows; /* (window_count + 1); the last is the final norm's input */
    struct zinf_swap *swap; /* NULL: nothing is on NVMe */
    struct zinf_aio aio;
    int micro;               /* micro-batch under way, -1 = an evaluation */
    double waited_s;         /* for the drive, since open */
    int64_t read_bytes, write_bytes; /* begun since open, padding included */
    struct zinf_activations *below;  /* what has left the device, owned; NULL: nothing does */
    int passed;    /* inputs of the first so many layers were given to below in this micro-batch */
    int returning; /* below has not got the room of this layer's input back, -1: none */
};

/** Take memory from the pools; on counting pools only the sizes are worked out. First on a zeroed object, then again with open pools. */
void zinf_activations_layout(struct zinf_activations *activations,
                             const struct zinf_activations_options *options, struct zinf_pool *device,
                             struct zinf_pool *host);
/** Make the swap file, if one is used. Local. @return as zinf_swap_open() */
int zinf_activations_open(struct zinf_activations *activations, struct zinf_error *error);
/** The pools must still be there. */
void zinf_activations_close(struct zinf_activations *activations);

/** A forward pass begins: of micro-batch `micro` in training (a backward pass follows), or of an evaluation with -1. */
void zinf_activations_begin(struct zinf_activations *activations, int micro);
/** Where the input of `layer` is to be made, 0 <= layer <= layers (the final norm's); empty: window_bytes. Forward pass. */
void *zinf_activations_make(struct zinf_activations *activations, int layer);
/** It is complete and will not change: it begins to leave. */
void zinf_activations_made(struct zinf_activations *activations, int layer);
/** The input of `layer`: in the forward pass after made(), in the backward pass from the last layer to the first; waits until it is there. */
const void *zinf_activations_input(struct zinf_activations *activations, int layer);
/** The backward pass needs the input of `layer` no more: an earlier one begins to come back. */
void zinf_activations_drop(struct zinf_activations *activations, int layer);

/** The one that moves bytes from and to the drive: counts, waits and the file are its. */
static inline const struct zinf_activations *
zinf_activations_store(const struct zinf_activations *activations)
{
    return activations->below ? activations->below : activations;
}
/** Bytes read from and written to NVMe in a step of `micro_count` micro-batches, padding included: as many each way. Local. */
int64_t zinf_activations_traffic(const struct zinf_activations *activations, int micro_count);

#ifdef __cplusplus
}
#endif
#endif
