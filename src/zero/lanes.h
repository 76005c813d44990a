/*
 * Lanes: the threads of a rank that carry out a plan, and how one waits for the other.
 *
 * A plan gives each lane a list of operations in order; operation i of a lane may ask that other lanes have finished so many of theirs. Since
 * each lane is in order, "everything before operation n of lane l" is one number, and waiting is a counter comparison.
 *
 * The compute lane is the caller's thread; the communication lane is the mover thread, which makes every data-path call of the communicator
 * and sleeps when there is nothing to do (design section 4). Where operations of the communicator stand in a stream of the device
 * (zinf_comm_ops.in_stream) "finished" means that all of an operation stands in streams: the mover begins the next one, at most
 * ZINF_LANES_UNDER_WAY ahead of the device, and whoever needs what an operation brings waits for its event on the device. Whenever the mover
 * waits, and at the end of a plan, it asks for the oldest operation under way, so that an error or a peer that does not come is told under its
 * name. The update lane (updates.h) is a thread of its own that takes blocks as they are ready, not in a fixed order: it and those who wait
 * for it meet in the same monitor.
 */
#ifndef ZINF_ZERO_LANES_H
#define ZINF_ZERO_LANES_H

#include <stdbool.h>
#include <stdint.h>

#include "topology/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

enum zinf_lane { ZINF_LANE_COMPUTE, ZINF_LANE_COMM, ZINF_LANE_UPDATE, ZINF_LANE_COUNT };

enum { ZINF_LANES_UNDER_WAY = 16 }; /* operations of the communication lane that stand in streams and have not ended, at most */

struct zinf_lanes;

/** What the mover calls for operation `index` of the communication lane; it returns when the operation is complete, or stands in streams. */
typedef void (*zinf_comm_operation_fn)(void *context, int64_t index);
/** Has operation `index`, which stands in streams, ended? If so, do what follows from it on the host. By the mover, in order, until true. */
typedef bool (*zinf_comm_ended_fn)(void *context, int64_t index);

/**
 * Start the mover thread. Local.
 * @param watchdog_s  end the run (exit 1, one message naming rank and operation) when a lane waits longer; 0 = never
 * @param describe    text of operation `index` of `lane` for that message; "" = nothing to say (index of the update lane: -1)
 */
int zinf_lanes_new(struct zinf_lanes **lanes, struct zinf_comm *comm, double watchdog_s,
                   void (*describe)(void *context, enum zinf_lane lane, int64_t index, char *out,
                                    size_t out_bytes),
                   void *context);
void zinf_lanes_free(struct zinf_lanes *lanes);

/** Begin a plan: counters to zero; the mover carries out operations 0 .. count-1 of the communication lane. */
void zinf_lanes_begin(struct zinf_lanes *lanes, int64_t comm_operation_count,
                      zinf_comm_operation_fn operation, void *context);
/** The calling lane has finished its next operation. */
void zinf_lanes_done(struct zinf_lanes *lanes, enum zinf_lane lane);
/** Block until `lane` has finished `count` operations. Returns the seconds waited. */
double zinf_lanes_wait(struct zinf_lanes *lanes, enum zinf_lane lane, int64_t count);
/** Wait until the whole plan has ended, what stands in streams too; after it the communicator's control path may be used. */
double zinf_lanes_end(struct zinf_lanes *lanes);

/** The monitor: what other threads of the rank share stands under its lock. */
void zinf_lanes_lock(struct zinf_lanes *lanes);
void zinf_lanes_unlock(struct zinf_lanes *lanes);
/** With the lock: wake all who sleep; a sign of life for the watchdog. */
void zinf_lanes_changed(struct zinf_lanes *lanes);
/** With the lock, which is given back meanwhile: sleep until something may have changed. watched: the watchdog looks on. */
void zinf_lanes_sleep(struct zinf_lanes *lanes, bool watched);

/** What the mover may wait for itself: the drive (a fetch, or an update that passes there), or an update in memory. */
enum zinf_lanes_delay { ZINF_DELAY_NONE, ZINF_DELAY_DRIVE, ZINF_DELAY_UPDATE, ZINF_DELAY_COUNT };
/** The mover begins to wait for this; NONE: it ends to wait. */
void zinf_lanes_delayed_by(struct zinf_lanes *lanes, enum zinf_lanes_delay delay);
/** Of the waits of the compute lane since begin: seconds in which the mover waited for this. */
double zinf_lanes_delay_s(struct zinf_lanes *lanes, enum zinf_lanes_delay delay);

/* For use inside an operation, by the mover. */

/**
 * Move a request on until it is complete, napping between tests. Where it stands in a stream, return at once: the mover tests it later. One of
 * these an operation at most.
 */
void zinf_lanes_complete(struct zinf_lanes *lanes, struct zinf_comm_request *request);
/** More of the operation than its request goes on in streams: `ended`, called with the plan's context once the request is complete, tells when it is over. */
void zinf_lanes_follow(struct zinf_lanes *lanes, zinf_comm_ended_fn ended);
/** Wait until all operations before this one have ended. */
void zinf_lanes_settle(struct zinf_lanes *lanes);
/** Wait until `is` says so, napping between questions: for what hangs when an operation under way does. */
void zinf_lanes_until(struct zinf_lanes *lanes, bool (*is)(void *context, int what), void *context,
                      int what);

#ifdef __cplusplus
}
#endif
#endif
