/*
 * What passes between a device with memory of its own and the threads of the host: copies, and the edges between the device's streams. Where
 * the host addresses device memory none of this is used: windows and accumulators are what travels then (exchange.c).
 *
 * The plan is the same, and so are its lanes. A lane's thread now issues: "finished" means that an operation and, where another lane waits for
 * it, its event stand in a stream. Whoever waits for an operation of another lane waits for its event, on the device; the host sleeps only
 * where bytes go through a thread of the host (the wire, sums on the host, the loss).
 *
 *     fetch            NVMe or host memory or the device's shard -> gather[] (host) -> all-gather there -> COPY_IN -> window
 *     gradient         window -> the wire's type (COMMUNICATION) -> COPY_OUT -> send -> exchange -> receive ->
 *                      optimizer on the device: COMMUNICATION -> device -> summed there; on the host: summed there
 *     update           where the moments stand. On the host it writes the new weights to a copy there (mirror), which the next gather takes
 *                      them from; the first gather of the next step brings the device's up to date. On the device, of parameters that stand
 *                      in host memory or on NVMe, it is made record by record in a buffer there and comes down (staged_states.c).
 *
 * Events: compute operation i of the plan is event ZINF_STAGED_EVENTS + i, communication operation j stands behind all of these. Between two
 * steps every stream waits for every other: no edge crosses a step.
 *
 * Where ranks exchange directly (zinf_zero_options.link), gathers are made in the window itself, behind the copy of the rank's own shard, and
 * gradients are exchanged and summed before they come down, if they do; COMMUNICATION takes the place of the host's all-gather and exchange. The mover
 * then waits for the device nowhere but where the host itself needs something: a buffer of the host that a copy still reads, before NVMe fills
 * it; the sums of squares at AGREE; the end of the plan. What follows on the host from a gradient that has come down is done when it has
 * (zinf_staged_ended()).
 *
 * On one rank nothing is staged that need not be: a shard on the device is copied to its window on the device.
 */
#ifndef ZINF_ZERO_STAGED_H
#define ZINF_ZERO_STAGED_H

#include <stdbool.h>
#include <stdint.h>

#include "memory/pool.h"
#include "zero/activations_staged.h"
#include "zero/plan.h"
#include "zero/zero.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Events that are not a plan's. */
enum zinf_staged_event {
    ZINF_EVENT_PREPARED,   /* a gradient is ready to leave */
    ZINF_EVENT_OUT,        /* and has left */
    ZINF_EVENT_GATHERED,   /* two of them: gather[] has been read */
    ZINF_EVENT_LOSS = ZINF_EVENT_GATHERED + 2, /* the step's: the losses stand in host memory */
    ZINF_EVENT_OWN,        /* a rank's own shard stands on the device */
    ZINF_EVENT_UPDATED,    /* what the device has updated for the host has come down; the update lane's */
    ZINF_EVENT_SUMS,       /* sums of squares have come down */
    ZINF_EVENT_BROUGHT,    /* a gradient that was summed on the device has come down to the host; operation i at i modulo so many */
    ZINF_EVENT_INPUT = ZINF_EVENT_BROUGHT + ZINF_LANES_UNDER_WAY, /* those of activations_staged.h */
    ZINF_EVENT_STREAM = ZINF_EVENT_INPUT + ZINF_INPUT_EVENTS, /* one a stream: the end of a step */
    ZINF_STAGED_EVENTS = ZINF_EVENT_STREAM + ZINF_STREAM_COUNT
};

/** Is device memory not the host's? */
bool zinf_staged(const struct zinf_zero *zero);
/** Does the host update weights of a block that stand on such a device? It then has a mirror. */
bool zinf_staged_mirrors(const struct zinf_zero *zero, int block);
/** Events that carrying out `plan` takes. */
int zinf_staged_event_count(const struct zinf_plan *plan);

/** Take staging memory from `host`, and what a reduction needs on the device. Part of zinf_zero_layout(). */
void zinf_staged_layout(struct zinf_zero *zero, const struct zinf_plan *plan,
                        struct zinf_pool *device, struct zinf_pool *host);

/* The compute lane, by its thread; nothing happens where memory is one. */
void zinf_staged_begin(struct zinf_zero *zero);
/** Before compute operation `index`: the stream waits for what the lane has waited for. */
void zinf_staged_pass(struct zinf_zero *zero, int64_t index);
/** Behind it. */
void zinf_staged_done(struct zinf_zero *zero);
/** Behind the last, when the mover has ended: all streams wait for all. */
void zinf_staged_end(struct zinf_zero *zero);

/** GATHER_* and REDUCE, by the mover. */
void zinf_staged_carry_out(struct zinf_zero *zero, const struct zinf_plan_operation *operation,
                           int64_t index);
/** Do operations of the communication lane go on in streams when they have been carried out? Else they are complete then. */
bool zinf_staged_runs_ahead(const struct zinf_zero *zero);
/** Where they do: has one ended? Then what it brings to the host is there. By the mover. */
bool zinf_staged_ended(struct zinf_zero *zero, const struct zinf_plan_operation *operation,
                       int64_t index);
/** AGREE of a training step, by the mover: everything before it has ended, and the sums of squares are the host's. */
void zinf_staged_settle(struct zinf_zero *zero);

/* Parameters in host memory or on NVMe whose other states are on the device. */

/** Does the device update what the host has of a block? */
bool zinf_staged_crosses(const struct zinf_zero *zero, int block);
/** Take what that needs on the device. Part of zinf_staged_layout(). */
void zinf_staged_layout_update(struct zinf_zero *zero, const struct zinf_plan *plan,
                               struct zinf_pool *device);
/**
 * op->low, or without one op->weights, is in host memory, all else on the device. Returns when it is done. By the update lane.
 * Cost: 16 bits: 2 bytes down an element; fp32: 4 up and 4 down.
 */
void zinf_staged_update(struct zinf_zero *zero, const struct zinf_update_op *op);

/* Between steps, by the compute lane's thread. */

/** What zinf_zero_visit() was called with. */
struct zinf_staged_visitor {
    bool write;
    zinf_part_fn visit;
    void *context;
};


/** The host sleeps until all streams are empty. */
void zinf_staged_drain(struct zinf_zero *zero);
/** zinf_zero_publish(). Collective. */
void zinf_staged_publish(struct zinf_zero *zero);
/** zinf_zero_visit() of a stretch whose states are on the device: part by part through the staging memory. */
int zinf_staged_visit(struct zinf_zero *zero, int block, const struct zinf_stretch *stretch,
                      const struct zinf_staged_visitor *visitor);
/** The mirrors have been written: what the device has is older. */
void zinf_staged_mirrors_changed(struct zinf_zero *zero);

#ifdef __cplusplus
}
#endif
#endif
