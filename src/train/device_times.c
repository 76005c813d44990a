/*
 * Seconds between events of the compute stream, added up by activity. See device_times.h.
 */
#include "train/device_times.h"

#include <math.h>
#include <stdlib.h>

#include "base/status.h"

int zinf_device_times_events(const struct zinf_plan *plan)
{
    return 4 * (int)plan->count[ZINF_LANE_COMPUTE];
}

void zinf_device_times_open(struct zinf_device_times *times, struct zinf_device *device,
                            const struct zinf_plan *plan, int first_event)
{
    int64_t count = plan->count[ZINF_LANE_COMPUTE];
    *times = (struct zinf_device_times){
        .device = device, .first_event = first_event, .count = count, .untaken = count};
    if (device)
        times->kind = zinf_alloc((size_t)count * sizeof *times->kind);
}

void zinf_device_times_close(struct zinf_device_times *times)
{
    free(times->kind);
    times->kind = NULL;
}

static int begin_of(const struct zinf_device_times *times, int set, int64_t index)
{
    return times->first_event + 2 * (int)(set * times->count + index);
}

static int end_of(const struct zinf_device_times *times, int set, int64_t index)
{
    return begin_of(times, set, index) + 1;
}

static void record(struct zinf_device_times *times, int event)
{
    times->device->backend->record(times->device, event, ZINF_STREAM_COMPUTE);
}

void zinf_device_times_start(struct zinf_device_times *times, int64_t index,
                             enum zinf_activity kind)
{
    if (!times->device)
        return;
    if (index == 0)
        times->set = 1 - times->set;
    times->kind[index] = kind;
    record(times, begin_of(times, times->set, index));
}

void zinf_device_times_stop(struct zinf_device_times *times, int64_t index)
{
    if (times->device)
        record(times, end_of(times, times->set, index));
}

/* A statistic never ends a run: what cannot be told is not counted. */
static double seconds(const struct zinf_device_times *times, int first, int second)
{
    return fmax(0, times->device->backend->elapsed(times->device, first, second));
}

static void add(struct zinf_device_times *times, enum zinf_activity activity, double s)
{
    times->totals.rows[activity].seconds += s;
    times->totals.rows[activity].calls++;
}

/* Operations [first, last) of the step that used `set`. Returns the seconds of the gaps before
 * them; the one before a step's first is the time between two steps, and not counted. */
static double take(struct zinf_device_times *times, int set, int64_t first, int64_t last)
{
    double waited_s = 0;
    for (int64_t i = first; i < last; i++) {
        enum zinf_activity kind = times->kind[i];
        enum zinf_activity wait =
            kind == ZINF_ACTIVITY_NORM ? ZINF_ACTIVITY_WAIT_REDUCE : ZINF_ACTIVITY_WAIT_GATHER;
        add(times, kind, seconds(times, begin_of(times, set, i), end_of(times, set, i)));
        if (i == 0)
            continue;
        double gap_s = seconds(times, end_of(times, set, i - 1), begin_of(times, set, i));
        add(times, wait, gap_s);
        waited_s += gap_s;
    }
    return waited_s;
}

double zinf_device_times_decided(struct zinf_device_times *times, int64_t decide)
{
    if (!times->device)
        return 0;
    take(times, 1 - times->set, times->untaken, times->count);
    times->untaken = decide;
    times->step_s =
        seconds(times, begin_of(times, times->set, 0), end_of(times, times->set, decide - 1));
    return take(times, times->set, 0, decide);
}

void zinf_device_times_end(struct zinf_device_times *times)
{
    if (times->device)
        take(times, times->set, times->untaken, times->count);
    times->untaken = times->count;
}
