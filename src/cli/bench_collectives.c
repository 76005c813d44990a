/*
 * How fast ranks exchange bytes, and what it costs the compute lane: all_gather and exchange as a
 * step makes them, by the mover thread, with messages and with memory that the ranks of a node
 * share, first beside a sleeping and then beside a computing main thread.
 *
 * The limit is memcpy on buffers of the same size, on all ranks at once: whatever way bytes take
 * between two ranks of a node, they are copied once. Between nodes the network is slower than that.
 */
#include "cli/bench.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "zero/lanes.h"

enum { SIZES = 5, OPERATIONS = 2, WAYS = 2, MOST_POINTS = SIZES * OPERATIONS * WAYS, CUT = 64 };

static const char *const operations[OPERATIONS] = {"all_gather", "exchange"};
static const char *const ways[WAYS] = {"messages", "shared"};

struct point {
    int operation, way, size;
    int64_t repeats;                                         /* the same on all ranks */
    double bytes_per_s, busy_bytes_per_s, limit_bytes_per_s; /* the best rounds'; a rank receives */
    double cpu_s, bytes;   /* of the mover, and what it received for that */
    double kept, kept_sum; /* of the computing thread's speed: the last round's, all rounds' */
};

struct job {
    const struct zinf_bench *bench;
    struct zinf_comm *comm;
    struct zinf_lanes *lanes;
    size_t sizes[SIZES]; /* of a block, whole shards */
    int size_count;
    char *memory[WAYS]; /* (2, most_bytes): blocks, and what exchange receives; NULL = cannot be had
                         */
    size_t most_bytes;
    struct point points[MOST_POINTS];
    int point_count;
    const struct point *now; /* what the mover carries out */
    atomic_llong done;
    double mover_cpu_s;
};

static size_t shard_bytes(const struct job *job, const struct point *point)
{
    return job->sizes[point->size] / (size_t)job->comm->size;
}

static double thread_cpu_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* On the mover's thread. */
static void operate(void *context, int64_t index)
{
    struct job *job = context;
    const struct point *point = job->now;
    struct zinf_comm_request request = {0};
    char *block = job->memory[point->way];
    const double begin_s = thread_cpu_s();
    (void)index;
    if (point->operation == 0)
        job->comm->ops->all_gather(job->comm, block, shard_bytes(job, point), &request);
    else
        job->comm->ops->exchange(job->comm, block, block + job->most_bytes, shard_bytes(job, point),
                                 &request);
    zinf_lanes_complete(job->lanes, &request);
    job->mover_cpu_s += thread_cpu_s() - begin_s;
    atomic_fetch_add(&job->done, 1);
}

/* About 50 us of arithmetic in registers. */
static double compute(double x)
{
    for (int i = 0; i < 12000; i++)
        x = x * 0.999999 + 1e-9;
    return x;
}

/* The largest of all ranks' values. Collective. */
static double largest(struct job *job, double value)
{
    double *all = zinf_alloc((size_t)job->comm->size * sizeof *all);
    zinf_comm_gather_small(job->comm, &value, sizeof value, all);
    for (int rank = 0; rank < job->comm->size; rank++)
        value = all[rank] > value ? all[rank] : value;
    free(all);
    return value;
}

/* Pieces of arithmetic a second when nothing moves. */
static double quiet_speed(struct job *job)
{
    double x = 1, end_s, begin_s;
    int64_t count = 0;
    zinf_comm_barrier(job->comm);
    begin_s = zinf_clock_s();
    do {
        x = compute(x);
        count++;
    } while ((end_s = zinf_clock_s()) < begin_s + job->bench->seconds);
    return (double)count / (end_s - begin_s) + 0 * x;
}

/* Carry the point out `repeats` times; quiet > 0: beside a computing thread whose speed that is
 * otherwise. @return seconds of the slowest rank */
static double carry_out(struct job *job, struct point *point, double quiet)
{
    double x = 1;
    int64_t count = 0;
    job->now = point;
    atomic_store(&job->done, 0);
    zinf_comm_barrier(job->comm);
    const double begin_s = zinf_clock_s();
    zinf_lanes_begin(job->lanes, point->repeats, operate, job);
    while (quiet > 0 && atomic_load(&job->done) < point->repeats) {
        x = compute(x);
        count++;
    }
    zinf_lanes_end(job->lanes);
    const double seconds = zinf_clock_s() - begin_s;
    if (quiet > 0) /* the smallest of all ranks */
        point->kept = -largest(job, -((double)count / seconds / quiet + 0 * x));
    return largest(job, seconds);
}

static double memcpy_rate(struct job *job, const struct point *point)
{
    const size_t bytes = job->sizes[point->size];
    char *memory = job->memory[point->way];
    zinf_comm_barrier(job->comm);
    const double begin_s = zinf_clock_s();
    for (int64_t i = 0; i < point->repeats; i++)
        memcpy(memory + job->most_bytes, memory, bytes);
    return (double)point->repeats * (double)bytes / largest(job, zinf_clock_s() - begin_s);
}

static void keep_best(double *best, double value)
{
    *best = value > *best ? value : *best;
}

static void measure(struct job *job, struct point *point, double quiet)
{
    const double received =
        (double)point->repeats * (double)shard_bytes(job, point) * (double)(job->comm->size - 1);
    keep_best(&point->limit_bytes_per_s, memcpy_rate(job, point));
    job->mover_cpu_s = 0;
    keep_best(&point->bytes_per_s, received / carry_out(job, point, 0));
    point->cpu_s += job->mover_cpu_s;
    point->bytes += received;
    keep_best(&point->busy_bytes_per_s, received / carry_out(job, point, quiet));
    point->kept_sum += point->kept;
}

/* Once, before anything is timed: every byte must be where it belongs. Collective. */
static int try_out(struct job *job, struct point *point, struct zinf_error *error)
{
    const size_t bytes = shard_bytes(job, point);
    char *block = job->memory[point->way];
    const char *got = point->operation == 0 ? block : block + job->most_bytes;
    size_t wrong = 0;
    memset(block, job->comm->rank + 1, job->sizes[point->size]);
    memset(block + job->most_bytes, 0, job->sizes[point->size]);
    point->repeats = 1;
    double seconds = carry_out(job, point, 0);
    for (int rank = 0; rank < job->comm->size; rank++)
        for (size_t i = 0; i < bytes; i++)
            wrong += got[(size_t)rank * bytes + i] != (char)(rank + 1);
    int status = wrong ? ZINF_E_RUNTIME : 0;
    if (zinf_comm_agree(job->comm, status))
        return zinf_error_set(
            error, ZINF_E_RUNTIME, "%s of %zu bytes by %s: wrong bytes have arrived",
            operations[point->operation], job->sizes[point->size], ways[point->way]);
    seconds = carry_out(job, point, 0); /* without what only the first one costs */
    point->repeats = (int64_t)(job->bench->seconds / seconds) + 1;
    zinf_comm_broadcast(job->comm, 0, &point->repeats, sizeof point->repeats);
    return 0;
}

static void list_points(struct job *job)
{
    static const size_t blocks[SIZES] = {256 << 10, 1 << 20, 4 << 20, 16 << 20, 32 << 20};
    const struct zinf_bench *bench = job->bench;
    const size_t unit = CUT * (size_t)job->comm->size;
    job->size_count = bench->block_bytes ? 1 : SIZES;
    for (int i = 0; i < job->size_count; i++) {
        size_t bytes = bench->block_bytes ? (size_t)bench->block_bytes : blocks[i];
        job->sizes[i] = bytes < unit ? unit : bytes / unit * unit;
        job->most_bytes = job->sizes[i] > job->most_bytes ? job->sizes[i] : job->most_bytes;
    }
    for (int operation = 0; operation < OPERATIONS; operation++)
        for (int way = 0; way < WAYS; way++)
            for (int size = 0; size < job->size_count; size++)
                job->points[job->point_count++] =
                    (struct point){.operation = operation, .way = way, .size = size};
}

static struct zinf_json *point_json(const struct job *job, const struct point *point)
{
    struct zinf_json *object = zinf_json_new(ZINF_JSON_OBJECT);
    zinf_json_set(object, "operation", zinf_json_new_string(operations[point->operation]));
    zinf_json_set(object, "way", zinf_json_new_string(ways[point->way]));
    zinf_json_set(object, "block_bytes", zinf_json_new_integer((int64_t)job->sizes[point->size]));
    zinf_json_set(object, "bytes_per_s", zinf_json_new_number(point->bytes_per_s));
    zinf_json_set(object, "memcpy_bytes_per_s", zinf_json_new_number(point->limit_bytes_per_s));
    zinf_json_set(object, "of_memcpy",
                  zinf_json_new_number(point->bytes_per_s / point->limit_bytes_per_s));
    zinf_json_set(object, "cpu_s_per_gb",
                  zinf_json_new_number(point->cpu_s / (point->bytes / 1e9)));
    zinf_json_set(object, "busy_bytes_per_s", zinf_json_new_number(point->busy_bytes_per_s));
    zinf_json_set(object, "compute_kept",
                  zinf_json_new_number(point->kept_sum / job->bench->rounds));
    return object;
}

static void tell(const struct job *job, struct zinf_json *result)
{
    struct zinf_json *points = zinf_json_new(ZINF_JSON_ARRAY);
    zinf_json_set(result, "ranks", zinf_json_new_integer(job->comm->size));
    zinf_json_set(result, "ranks_per_node", zinf_json_new_integer(job->comm->local_size));
    zinf_json_set(result, "shared", zinf_json_new_bool(job->memory[1] != NULL));
    for (int i = 0; i < job->point_count; i++)
        if (job->memory[job->points[i].way])
            zinf_json_append(points, point_json(job, &job->points[i]));
    zinf_json_set(result, "points", points);
}

/* Collective; ranks fail together. */
static int open_job(struct job *job, struct zinf_error *error)
{
    struct zinf_comm *comm = job->comm;
    int status = 0;
    if (comm->size < 2)
        return zinf_error_set(error, ZINF_E_USAGE,
                              "one rank has nobody to exchange bytes with: mpiexec -n 4 zinf "
                              "bench collectives");
    list_points(job);
    job->memory[0] = malloc(2 * job->most_bytes);
    if (!job->memory[0])
        status = ZINF_E_DOES_NOT_FIT;
    if (zinf_comm_agree(comm, status))
        return zinf_error_set(error, ZINF_E_DOES_NOT_FIT,
                              "no memory for two blocks of %zu bytes a rank; --block-size",
                              job->most_bytes);
    if (comm->ops->map_shared)
        job->memory[1] = comm->ops->map_shared(comm, 2 * job->most_bytes);
    status = zinf_lanes_new(&job->lanes, comm, 0, NULL, NULL);
    if (zinf_comm_agree(comm, status))
        return zinf_error_set(error, ZINF_E_RUNTIME, "the mover thread cannot be started");
    return 0;
}

static void close_job(struct job *job)
{
    zinf_lanes_free(job->lanes);
    if (job->memory[1])
        job->comm->ops->unmap_shared(job->comm, job->memory[1]);
    free(job->memory[0]);
}

int zinf_bench_collectives(const struct zinf_bench *bench, struct zinf_json *result,
                           struct zinf_error *error)
{
    struct job *job = zinf_alloc(sizeof *job);
    job->bench = bench;
    job->comm = bench->comm;
    int status = open_job(job, error);
    for (int i = 0; i < job->point_count && !status; i++)
        if (job->memory[job->points[i].way])
            status = try_out(job, &job->points[i], error);
    for (int round = 0; round < bench->rounds && !status; round++) {
        const double quiet = quiet_speed(job);
        for (int i = 0; i < job->point_count; i++)
            if (job->memory[job->points[i].way])
                measure(job, &job->points[i], quiet);
    }
    if (!status)
        tell(job, result);
    close_job(job);
    free(job);
    return status;
}
