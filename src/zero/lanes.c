/*
 * The mover thread, the counters by which the lanes wait for each other, and the monitor. See
 * lanes.h.
 *
 * One mutex and one condition variable guard everything: a step has some hundred operations of
 * milliseconds each, so what a lock costs does not show, and what happens is easy to see. While a
 * request is in flight the mover naps between tests: measured on two busy cores that moves four
 * times what sched_yield does (facts/performance.md 4.6), and a spinning mover would halve the
 * compute lane.
 */
#include "zero/lanes.h"

#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/trace.h"
#include "base/status.h"

static const double shortest_nap_s = 50e-6;
static const double describe_grace =
    0.1; /* of the watchdog: left to the mover, which knows more, by a waiting compute lane */

struct zinf_lanes {
    struct zinf_comm *comm;
    double watchdog_s, nap_s;
    void (*describe)(void *context, enum zinf_lane lane, int64_t index, char *out,
                     size_t out_bytes);
    void *describe_context;

    pthread_t mover;
    pthread_mutex_t mutex; /* guards all below */
    pthread_cond_t changed;
    int64_t done[ZINF_LANE_COUNT];
    int64_t comm_operation_count;
    double last_progress_s;
    bool compute_waits;                          /* now, for the mover */
    enum zinf_lanes_delay delay;                 /* what the mover waits for now */
    double charged_s, delay_s[ZINF_DELAY_COUNT]; /* both at once: counted up to; seconds */
    zinf_comm_operation_fn operation;
    void *context;
    bool stop;
};

static void describe_lane(struct zinf_lanes *lanes, enum zinf_lane lane, char *out,
                          size_t out_bytes)
{
    int64_t index = lanes->done[lane];
    if (lane == ZINF_LANE_COMM && index >= lanes->comm_operation_count)
        snprintf(out, out_bytes, "nothing left to do");
    else if (lanes->describe)
        lanes->describe(lanes->describe_context, lane, index, out, out_bytes);
    else
        snprintf(out, out_bytes, "operation %lld", (long long)index);
}

/* One message, and the end. The mutex is held. */
static void fire(struct zinf_lanes *lanes, struct zinf_comm_request *request)
{
    char host[64] = "?", compute[256] = "", comm[256] = "", update[256] = "", peers[256] = "";
    gethostname(host, sizeof host - 1);
    describe_lane(lanes, ZINF_LANE_COMPUTE, compute, sizeof compute);
    describe_lane(lanes, ZINF_LANE_COMM, comm, sizeof comm);
    if (lanes->describe)
        lanes->describe(lanes->describe_context, ZINF_LANE_UPDATE, -1, update, sizeof update);
    if (request && lanes->comm->ops->describe)
        lanes->comm->ops->describe(lanes->comm, request, peers, sizeof peers);
    zinf_error_log("rank %d on %s: no progress for %.0f s (zinf.watchdog_s): communication lane, "
                   "operation %lld of %lld: %s%s%s; compute lane, operation %lld: %s%s%s",
                   lanes->comm->rank, host, zinf_clock_s() - lanes->last_progress_s,
                   (long long)lanes->done[ZINF_LANE_COMM], (long long)lanes->comm_operation_count,
                   comm, peers[0] ? ", waits for transfers " : "", peers,
                   (long long)lanes->done[ZINF_LANE_COMPUTE], compute,
                   update[0] ? "; update lane: " : "", update);
    zinf_abort(ZINF_E_RUNTIME);
}

/* End the run if no lane has moved for longer than the watchdog allows. The mutex is held. */
static void watch(struct zinf_lanes *lanes, struct zinf_comm_request *request, double grace_s)
{
    double silence_s = zinf_clock_s() - lanes->last_progress_s;
    if (lanes->watchdog_s > 0 && silence_s > lanes->watchdog_s + grace_s)
        fire(lanes, request);
}

/* Sleep until something changed, at most a second (or a tenth of the watchdog), so that the
 * watchdog is looked at. The mutex is held. */
static void sleep_watched(struct zinf_lanes *lanes, double grace_s)
{
    struct timespec until;
    double slice_s = lanes->watchdog_s > 0 && lanes->watchdog_s < 10 ? lanes->watchdog_s / 10 : 1;
    double at_s = zinf_clock_s() + slice_s;
    until.tv_sec = (time_t)at_s;
    until.tv_nsec = (long)((at_s - (double)until.tv_sec) * 1e9);
    pthread_cond_timedwait(&lanes->changed, &lanes->mutex, &until);
    watch(lanes, NULL, grace_s);
}

/* Charge the time since the last call. Before either state changes, with the mutex held. */
static void charge(struct zinf_lanes *lanes)
{
    double now_s = zinf_clock_s();
    if (lanes->compute_waits)
        lanes->delay_s[lanes->delay] += now_s - lanes->charged_s;
    lanes->charged_s = now_s;
}

static void advance(struct zinf_lanes *lanes, enum zinf_lane lane)
{
    lanes->done[lane]++;
    lanes->last_progress_s = zinf_clock_s();
    pthread_cond_broadcast(&lanes->changed);
}

static void *mover(void *argument)
{
    struct zinf_lanes *lanes = argument;
    omp_set_num_threads(
        1); /* its kernels run on this thread alone; the compute lane has the cores */
    zinf_clock_precise_naps();
    zinf_trace_thread("mover");
    pthread_mutex_lock(&lanes->mutex);
    while (!lanes->stop) {
        int64_t index = lanes->done[ZINF_LANE_COMM];
        if (index == lanes->comm_operation_count) {
            pthread_cond_wait(&lanes->changed, &lanes->mutex);
            continue;
        }
        zinf_comm_operation_fn operation = lanes->operation;
        void *context = lanes->context;
        pthread_mutex_unlock(&lanes->mutex);
        operation(context, index);
        pthread_mutex_lock(&lanes->mutex);
        advance(lanes, ZINF_LANE_COMM);
    }
    pthread_mutex_unlock(&lanes->mutex);
    return NULL;
}

/* Where many ranks share a core, their movers' tests alone would fill it: the nap grows with the
 * crowd. */
static double nap_for(const struct zinf_comm *comm)
{
    cpu_set_t allowed;
    int cores = sched_getaffinity(0, sizeof allowed, &allowed) ? 1 : CPU_COUNT(&allowed);
    return comm->local_size > cores ? shortest_nap_s * comm->local_size / cores : shortest_nap_s;
}

/* The mover handles no signals: they are the main thread's. */
static int start_mover(struct zinf_lanes *lanes)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = pthread_create(&lanes->mover, NULL, mover, lanes);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return error;
}

int zinf_lanes_new(struct zinf_lanes **out, struct zinf_comm *comm, double watchdog_s,
                   void (*describe)(void *context, enum zinf_lane lane, int64_t index, char *out,
                                    size_t out_bytes),
                   void *context)
{
    pthread_condattr_t attributes;
    struct zinf_lanes *lanes = zinf_alloc(sizeof *lanes);
    lanes->comm = comm;
    lanes->watchdog_s = watchdog_s;
    lanes->nap_s = nap_for(comm);
    lanes->describe = describe;
    lanes->describe_context = context;
    pthread_mutex_init(&lanes->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&lanes->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    int error = start_mover(lanes);
    if (error) {
        zinf_error_log("rank %d: the communication thread cannot be started: %s", comm->rank,
                       strerror(error));
        pthread_cond_destroy(&lanes->changed);
        pthread_mutex_destroy(&lanes->mutex);
        free(lanes);
        return ZINF_E_RUNTIME;
    }
    *out = lanes;
    return 0;
}

void zinf_lanes_free(struct zinf_lanes *lanes)
{
    if (!lanes)
        return;
    zinf_lanes_end(lanes);
    pthread_mutex_lock(&lanes->mutex);
    lanes->stop = true;
    pthread_cond_broadcast(&lanes->changed);
    pthread_mutex_unlock(&lanes->mutex);
    pthread_join(lanes->mover, NULL);
    pthread_cond_destroy(&lanes->changed);
    pthread_mutex_destroy(&lanes->mutex);
    free(lanes);
}

void zinf_lanes_begin(struct zinf_lanes *lanes, int64_t comm_operation_count,
                      zinf_comm_operation_fn operation, void *context)
{
    pthread_mutex_lock(&lanes->mutex);
    ZINF_ASSERT(lanes->done[ZINF_LANE_COMM] ==
                lanes->comm_operation_count); /* the last plan ended */
    memset(lanes->done, 0, sizeof lanes->done);
    lanes->comm_operation_count = comm_operation_count;
    lanes->operation = operation;
    lanes->context = context;
    lanes->last_progress_s = zinf_clock_s();
    memset(lanes->delay_s, 0, sizeof lanes->delay_s);
    pthread_cond_broadcast(&lanes->changed);
    pthread_mutex_unlock(&lanes->mutex);
}

void zinf_lanes_lock(struct zinf_lanes *lanes)
{
    pthread_mutex_lock(&lanes->mutex);
}

void zinf_lanes_unlock(struct zinf_lanes *lanes)
{
    pthread_mutex_unlock(&lanes->mutex);
}

void zinf_lanes_changed(struct zinf_lanes *lanes)
{
    lanes->last_progress_s = zinf_clock_s();
    pthread_cond_broadcast(&lanes->changed);
}

void zinf_lanes_sleep(struct zinf_lanes *lanes, bool watched)
{
    if (watched)
        sleep_watched(lanes, describe_grace * lanes->watchdog_s);
    else
        pthread_cond_wait(&lanes->changed, &lanes->mutex);
}

void zinf_lanes_delayed_by(struct zinf_lanes *lanes, enum zinf_lanes_delay delay)
{
    pthread_mutex_lock(&lanes->mutex);
    charge(lanes);
    lanes->delay = delay;
    pthread_mutex_unlock(&lanes->mutex);
}

double zinf_lanes_delay_s(struct zinf_lanes *lanes, enum zinf_lanes_delay delay)
{
    pthread_mutex_lock(&lanes->mutex);
    charge(lanes);
    double seconds = lanes->delay_s[delay];
    pthread_mutex_unlock(&lanes->mutex);
    return seconds;
}

void zinf_lanes_done(struct zinf_lanes *lanes, enum zinf_lane lane)
{
    ZINF_ASSERT(lane == ZINF_LANE_COMPUTE); /* the mover counts its own */
    pthread_mutex_lock(&lanes->mutex);
    advance(lanes, lane);
    pthread_mutex_unlock(&lanes->mutex);
}

double zinf_lanes_wait(struct zinf_lanes *lanes, enum zinf_lane lane, int64_t count)
{
    double waited_s = 0;
    pthread_mutex_lock(&lanes->mutex);
    if (lanes->done[lane] < count) {
        double begin_s = zinf_clock_s();
        double grace_s = lane == ZINF_LANE_COMM ? describe_grace * lanes->watchdog_s : 0;
        charge(lanes);
        lanes->compute_waits = lanes->compute_waits || lane == ZINF_LANE_COMM;
        while (lanes->done[lane] < count)
            sleep_watched(lanes, grace_s);
        charge(lanes);
        lanes->compute_waits = lanes->compute_waits && lane != ZINF_LANE_COMM;
        waited_s = zinf_clock_s() - begin_s;
    }
    pthread_mutex_unlock(&lanes->mutex);
    return waited_s;
}

double zinf_lanes_end(struct zinf_lanes *lanes)
{
    pthread_mutex_lock(&lanes->mutex);
    int64_t count = lanes->comm_operation_count;
    pthread_mutex_unlock(&lanes->mutex);
    return zinf_lanes_wait(lanes, ZINF_LANE_COMM, count);
}

void zinf_lanes_complete(struct zinf_lanes *lanes, struct zinf_comm_request *request)
{
    struct zinf_comm *comm = lanes->comm;
    double begin_s = zinf_clock_s(), looked_s = begin_s;
    while (!comm->ops->test(comm, request)) {
        zinf_clock_nap(lanes->nap_s);
        double now_s = zinf_clock_s();
        if (lanes->watchdog_s > 0 && now_s - looked_s > lanes->watchdog_s / 20) {
            looked_s = now_s;
            pthread_mutex_lock(&lanes->mutex);
            watch(lanes, request, 0);
            pthread_mutex_unlock(&lanes->mutex);
        }
    }
}
