/*
 * The part of activations.c for a device with memory of its own: inputs of layers between windows there and an object for the host below.
 *
 * Edges, all on the device: a copy down waits for the layer that made the input (USED), and the window is filled again behind that copy
 * (OUT); a copy up waits for the backward pass of the layer whose window it takes (USED), and the layer that needs it waits for the copy
 * (IN). The host sleeps only where the drive is below: until an input is down, before it is written, and until it is up again, before its
 * room is read into; so it is at most ZINF_INPUT_WINDOWS layers ahead of the device. Called by activations.c alone; `below` is there.
 */
#ifndef ZINF_ZERO_ACTIVATIONS_STAGED_H
#define ZINF_ZERO_ACTIVATIONS_STAGED_H

#include <stddef.h>

#include "memory/pool.h"

#ifdef __cplusplus
extern "C" {
#endif

struct zinf_activations;

/* One that is read, one that is made, one that leaves or arrives; three events each. */
enum { ZINF_INPUT_WINDOWS = 3, ZINF_INPUT_EVENTS = 3 * ZINF_INPUT_WINDOWS };

/** Make `below` and take its memory. @return its bytes on NVMe */
size_t zinf_activations_layout_below(struct zinf_activations *activations, struct zinf_pool *host);
void zinf_activations_begin_below(struct zinf_activations *activations);
/** make(): the window of `layer` may be filled again. */
void zinf_activations_free_window(struct zinf_activations *activations, int layer);
/** made(): the input of `layer` goes down. */
void zinf_activations_send(struct zinf_activations *activations, int layer);
/** input(): what comes from below is there. */
void zinf_activations_receive(struct zinf_activations *activations, int layer);
/** drop(): the input that stood in the window of `layer` before comes up again. */
void zinf_activations_fetch(struct zinf_activations *activations, int layer);

#ifdef __cplusplus
}
#endif
#endif
