/*
 * The mover thread, the counters by which the lanes wait for each other, and the monitor. See
 * lanes.h.
 *
 * One mutex and one condition variable guard everything: a step has some hundred operations of
 * milliseconds each, so what a lock costs does not show, and what happens is easy to see. While a
 * request is in flight the mover naps between tests: measured on two busy cores that moves four
 * times what sched_yield does (facts/performance.md 4.6), and a spinning mover would halve the
 * compute lane.
 *
 * Operations that stand in a stream of the device are a queue: [ended, done) of the communication
 * lane. The mover asks for its head wherever it waits, seldom while nobody waits for the answer
 * (an error is told a millisecond later), as often as for a request where it waits for that itself.
 */
#include "zero/lanes.h"

#include <math.h>
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
static const double seldom = 10; /* naps between questions that nobody waits for */
static const double describe_grace =
    0.1; /* of the watchdog: left to the mover, which knows more, by a waiting compute lane */

/* An operation that stands in streams: what of it has not ended. The mover's. */
struct under_way {
    struct zinf_comm_request request;
    zinf_comm_ended_fn ended; /* NULL: the request is all */
};

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
    int64_t ended; /* operations of the communication lane; those up to done are under way */
    int64_t comm_operation_count;
    struct under_way under_way[ZINF_LANES_UNDER_WAY]; /* operation i at i modulo that */
    double last_progress_s;
    bool compute_waits;                          /* now, for the mover */
    enum zinf_lanes_delay delay;                 /* what the mover waits for now */
    double charged_s, delay_s[ZINF_DELAY_COUNT]; /* both at once: counted up to; seconds */
    zinf_comm_operation_fn operation;
    void *context;
    bool stop;
};

static struct under_way *slot(struct zinf_lanes *lanes, int64_t index)
{
    return &lanes->under_way[index % ZINF_LANES_UNDER_WAY];
}

/* Of the communication lane the oldest under way. */
static int64_t current(const struct zinf_lanes *lanes, enum zinf_lane lane)
{
    return lane == ZINF_LANE_COMM ? lanes->ended : lanes->done[lane];
}

static void describe_lane(struct zinf_lanes *lanes, enum zinf_lane lane, char *out,
                          size_t out_bytes)
{
    int64_t index = current(lanes, lane);
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
    if (!request && lanes->ended < lanes->done[ZINF_LANE_COMM])
        request = &slot(lanes, lanes->ended)->request;
    if (request && request->state && lanes->comm->ops->describe)
        lanes->comm->ops->describe(lanes->comm, request, peers, sizeof peers);
    zinf_error_log("rank %d on %s: no progress for %.0f s (zinf.watchdog_s): communication lane, "
                   "operation %lld of %lld: %s%s%s; compute lane, operation %lld: %s%s%s",
                   lanes->comm->rank, host, zinf_clock_s() - lanes->last_progress_s,
                   (long long)lanes->ended, (long long)lanes->comm_operation_count, comm,
                   peers[0] ? ", waits for transfers " : "", peers,
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

static bool has_ended(struct zinf_lanes *lanes, void *context, int64_t index)
{
    struct under_way *own = slot(lanes, index);
    if (own->request.state && !lanes->comm->ops->test(lanes->comm, &own->request))
        return false;
    return !own->ended || own->ended(context, index);
}

/* What of the operations under way has ended? The mover's; the mutex is held, and given back
 * meanwhile. */
static bool look(struct zinf_lanes *lanes)
{
    bool any = false, is = true;
    while (is && lanes->ended < lanes->done[ZINF_LANE_COMM]) {
        void *context = lanes->context;
        pthread_mutex_unlock(&lanes->mutex);
        is = has_ended(lanes, context, lanes->ended);
        pthread_mutex_lock(&lanes->mutex);
        if (!is)
            break;
        *slot(lanes, lanes->ended++) = (struct under_way){0};
        lanes->last_progress_s = zinf_clock_s();
        pthread_cond_broadcast(&lanes->changed);
        any = true;
    }
    return any;
}

/* Sleep until something changed, at most so long, and a second (or a tenth of the watchdog), so
 * that the watchdog is looked at. The mutex is held. */
static void sleep_watched(struct zinf_lanes *lanes, double grace_s, double longest_s)
{
    struct timespec until;
    double slice_s = lanes->watchdog_s > 0 && lanes->watchdog_s < 10 ? lanes->watchdog_s / 10 : 1;
    if (lanes->ended < lanes->done[ZINF_LANE_COMM] && pthread_equal(pthread_self(), lanes->mover)) {
        if (look(lanes))
            return;
        slice_s = fmin(slice_s, seldom * lanes->nap_s);
    }
    double at_s = zinf_clock_s() + fmin(slice_s, longest_s);
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
        int64_t index = lanes->done[ZINF_LANE_COMM], ended = lanes->ended;
        if (index == lanes->comm_operation_count && index == ended) {
            pthread_cond_wait(&lanes->changed, &lanes->mutex);
            continue;
        }
        if (index == lanes->comm_operation_count || index - ended == ZINF_LANES_UNDER_WAY) {
            sleep_watched(lanes, 0, lanes->nap_s);
            continue;
        }
        zinf_comm_operation_fn operation = lanes->operation;
        void *context = lanes->context;
        pthread_mutex_unlock(&lanes->mutex);
        operation(context, index);
        pthread_mutex_lock(&lanes->mutex);
        advance(lanes, ZINF_LANE_COMM);
        look(lanes);
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
    ZINF_ASSERT(lanes->ended == lanes->comm_operation_count); /* the last plan ended */
    memset(lanes->done, 0, sizeof lanes->done);
    lanes->ended = 0;
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
        sleep_watched(lanes, describe_grace * lanes->watchdog_s, INFINITY);
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

/* Until `counter` is `count`; for_mover: what the mover has done or seen end. The mutex is held. */
static double wait_for(struct zinf_lanes *lanes, const int64_t *counter, int64_t count,
                       bool for_mover)
{
    double begin_s = zinf_clock_s();
    double grace_s = for_mover ? describe_grace * lanes->watchdog_s : 0;
    if (*counter >= count)
        return 0;
    charge(lanes);
    lanes->compute_waits = lanes->compute_waits || for_mover;
    while (*counter < count)
        sleep_watched(lanes, grace_s, INFINITY);
    charge(lanes);
    lanes->compute_waits = lanes->compute_waits && !for_mover;
    return zinf_clock_s() - begin_s;
}

double zinf_lanes_wait(struct zinf_lanes *lanes, enum zinf_lane lane, int64_t count)
{
    pthread_mutex_lock(&lanes->mutex);
    double waited_s = wait_for(lanes, &lanes->done[lane], count, lane == ZINF_LANE_COMM);
    pthread_mutex_unlock(&lanes->mutex);
    return waited_s;
}

double zinf_lanes_end(struct zinf_lanes *lanes)
{
    pthread_mutex_lock(&lanes->mutex);
    double waited_s = wait_for(lanes, &lanes->ended, lanes->comm_operation_count, true);
    pthread_mutex_unlock(&lanes->mutex);
    return waited_s;
}

void zinf_lanes_follow(struct zinf_lanes *lanes, zinf_comm_ended_fn ended)
{
    slot(lanes, lanes->done[ZINF_LANE_COMM])->ended = ended;
}

void zinf_lanes_settle(struct zinf_lanes *lanes)
{
    pthread_mutex_lock(&lanes->mutex);
    while (lanes->ended < lanes->done[ZINF_LANE_COMM])
        sleep_watched(lanes, 0, lanes->nap_s);
    pthread_mutex_unlock(&lanes->mutex);
}

void zinf_lanes_until(struct zinf_lanes *lanes, bool (*is)(void *context, int what), void *context,
                      int what)
{
    while (!is(context, what)) {
        pthread_mutex_lock(&lanes->mutex);
        sleep_watched(lanes, 0, lanes->nap_s);
        pthread_mutex_unlock(&lanes->mutex);
    }
}

void zinf_lanes_complete(struct zinf_lanes *lanes, struct zinf_comm_request *request)
{
    struct zinf_comm *comm = lanes->comm;
    double looked_s = zinf_clock_s();
    if (comm->ops->in_stream) {
        struct under_way *own = slot(lanes, lanes->done[ZINF_LANE_COMM]);
        ZINF_ASSERT(!own->request.state);
        own->request = *request;
        request->state = NULL;
        return;
    }
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
