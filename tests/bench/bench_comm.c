/*
 * How fast ranks exchange bytes, and what it costs the compute lane.
 *
 *     mpiexec -n 2 tests/bench/bench_comm [MiB of a block, 28]
 *
 * For all_gather and exchange, with messages and with memory that ranks share, first beside a
 * sleeping and then beside a computing main thread: GB/s that a rank receives, the same per second
 * of the mover's CPU time, and how much of its speed the computing thread keeps. The rate of memcpy
 * on the same buffers, all ranks at once, stands above: no copy is faster. Medians of several
 * rounds.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/status.h"
#include "topology/comm.h"
#include "topology/comm_mpi.h"
#include "zero/lanes.h"

enum { ROUNDS = 15 };

struct bench {
    struct zinf_comm comm;
    struct zinf_lanes *lanes;
    char *block, *other; /* (size) shards or parts each */
    size_t shard_bytes;
    int exchange;
    double cpu_s; /* of the mover, in operations */
};

static double thread_cpu_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void operation(void *context, int64_t index)
{
    struct bench *bench = context;
    struct zinf_comm_request request = {0};
    double begin_s = thread_cpu_s();
    (void)index;
    if (bench->exchange)
        bench->comm.ops->exchange(&bench->comm, bench->block, bench->other, bench->shard_bytes,
                                  &request);
    else
        bench->comm.ops->all_gather(&bench->comm, bench->block, bench->shard_bytes, &request);
    zinf_lanes_complete(bench->lanes, &request);
    bench->cpu_s += thread_cpu_s() - begin_s;
}

/* About 50 us of arithmetic in registers. */
static double compute(double x)
{
    for (int i = 0; i < 12000; i++)
        x = x * 0.999999 + 1e-9;
    return x;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values)
{
    qsort(values, ROUNDS, sizeof *values, by_value);
    return values[ROUNDS / 2];
}

/* Pieces of arithmetic a second when nothing moves. */
static double quiet_speed(struct bench *bench)
{
    double values[ROUNDS], x = 1;
    for (int round = 0; round < ROUNDS; round++) {
        zinf_comm_barrier(&bench->comm);
        double begin_s = zinf_clock_s(), end_s;
        int count = 0;
        do {
            x = compute(x);
            count++;
        } while ((end_s = zinf_clock_s()) < begin_s + 0.02);
        values[round] = count / (end_s - begin_s) + 0 * x;
    }
    return median(values);
}

static double memcpy_rate(struct bench *bench)
{
    double values[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        zinf_comm_barrier(&bench->comm);
        double begin_s = zinf_clock_s();
        memcpy(bench->other, bench->block, bench->shard_bytes * (size_t)bench->comm.size);
        values[round] = (double)(bench->shard_bytes * (size_t)bench->comm.size) /
                        (zinf_clock_s() - begin_s) / 1e9;
    }
    return median(values);
}

static void measure(struct bench *bench, const char *way, int busy, double quiet)
{
    double rates[ROUNDS], kept[ROUNDS], x = 1;
    size_t received = bench->shard_bytes * (size_t)(bench->comm.size - 1);
    bench->cpu_s = 0;
    for (int round = 0; round < ROUNDS; round++) {
        zinf_comm_barrier(&bench->comm);
        double begin_s = zinf_clock_s();
        int count = 0;
        int64_t sent = bench->comm.bytes_sent;
        zinf_lanes_begin(bench->lanes, 3, operation, bench);
        if (busy) { /* look at the counter as a step does: between its own operations */
            while (zinf_clock_s() < begin_s + 0.02) {
                x = compute(x);
                count++;
            }
            kept[round] = count / (zinf_clock_s() - begin_s) / quiet + 0 * x;
        }
        zinf_lanes_end(bench->lanes);
        double seconds = zinf_clock_s() - begin_s;
        rates[round] = 3 * (double)received / seconds / 1e9;
        ZINF_ASSERT(bench->comm.bytes_sent - sent == 3 * (int64_t)received);
    }
    double rate = median(rates), speed = busy ? median(kept) : 1;
    if (bench->comm.rank == 0)
        printf("%-10s %-8s %-5s %6.2f GB/s a rank, %6.2f GB per s of CPU, compute keeps %3.0f %% "
               "in its "
               "first 20 ms\n",
               bench->exchange ? "exchange" : "all_gather", way, busy ? "busy" : "idle", rate,
               3.0 * ROUNDS * (double)received / bench->cpu_s / 1e9, 100 * speed);
}

static void measure_all(struct bench *bench, const char *way)
{
    double quiet = quiet_speed(bench), copy = memcpy_rate(bench);
    if (bench->comm.rank == 0)
        printf("%d ranks, blocks of %.0f MB, %s: memcpy %.2f GB/s a rank\n", bench->comm.size,
               (double)bench->shard_bytes * bench->comm.size / 1e6, way, copy);
    for (bench->exchange = 0; bench->exchange < 2; bench->exchange++)
        for (int busy = 0; busy < 2; busy++)
            measure(bench, way, busy, quiet);
}

int main(int argc, char **argv)
{
    struct bench bench = {0};
    if (zinf_comm_mpi_open(&bench.comm, &argc, &argv) ||
        zinf_lanes_new(&bench.lanes, &bench.comm, 60, NULL, NULL))
        return 1;
    size_t bytes = (size_t)((argc > 1 ? atof(argv[1]) : 28) * (1 << 20)),
           ranks = (size_t)bench.comm.size;
    bench.shard_bytes = bytes / ranks / 64 * 64;
    bench.block = malloc(bytes);
    bench.other = malloc(bytes);
    memset(bench.block, 1, bytes);
    memset(bench.other, 1, bytes);
    measure_all(&bench, "messages");
    free(bench.block);
    free(bench.other);
    bench.block = bench.comm.ops->map_shared(&bench.comm, 2 * bytes);
    if (bench.block) {
        memset(bench.block, 1, 2 * bytes);
        bench.other = bench.block + bytes;
        measure_all(&bench, "shared");
        bench.comm.ops->unmap_shared(&bench.comm, bench.block);
    }
    zinf_lanes_free(bench.lanes);
    bench.comm.ops->close(&bench.comm);
    return 0;
}
