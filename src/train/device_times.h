/*
 * Where the time of a device with memory of its own goes: the operations of a step and the gaps between them, by events in its compute
 * stream. The host only issues there: its clock says when an operation was asked for, not how long it took. Where the host addresses device
 * memory its clock is right, and nothing is recorded.
 *
 * Each operation of the compute lane lies between two events. A gap before it is time in which the device had nothing to compute: what the
 * operation needs was still on its way. Both are read when the host knows the step's norm, which no backward operation can outlast; what
 * stands behind that is read in the next step, so there are two sets of events. Cost: recording two of them an operation.
 */
#ifndef ZINF_TRAIN_DEVICE_TIMES_H
#define ZINF_TRAIN_DEVICE_TIMES_H

#include <stdint.h>

#include "device/device.h"
#include "train/activity.h"
#include "zero/plan.h"

#ifdef __cplusplus
extern "C" {
#endif

struct zinf_device_times {
    struct zinf_device *device; /* NULL: nothing is recorded; borrowed */
    int first_event;
    int64_t count;            /* operations of the plan's compute lane */
    enum zinf_activity *kind; /* (count), equal in all steps */
    int set;                  /* of events: 0 and 1 in turn */
    int64_t untaken;          /* of the last step read: the first operation that was not, count: none */
    double step_s;            /* from the first operation of the last step read to its DECIDE */
    struct zinf_activity_totals totals; /* of the steps read so far; wall_s is not set */
};

/** Events that a plan's operations take. */
int zinf_device_times_events(const struct zinf_plan *plan);
/** Events first_event and on are its own. device: NULL, or one whose memory the host does not address. */
void zinf_device_times_open(struct zinf_device_times *times, struct zinf_device *device,
                            const struct zinf_plan *plan, int first_event);
void zinf_device_times_close(struct zinf_device_times *times);

/** Operation `index` of the compute lane begins, what it waits for stands in the stream (0: with it a step); it has been issued. */
void zinf_device_times_start(struct zinf_device_times *times, int64_t index,
                             enum zinf_activity kind);
void zinf_device_times_stop(struct zinf_device_times *times, int64_t index);
/**
 * All operations before `decide` are done on the device: count them, and those of the step before from its DECIDE on.
 * @return seconds in which the device waited in this step, so far
 */
double zinf_device_times_decided(struct zinf_device_times *times, int64_t decide);
/** The device has nothing left to do: count what the last step left. */
void zinf_device_times_end(struct zinf_device_times *times);

#ifdef __cplusplus
}
#endif
#endif
