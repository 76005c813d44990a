/*
 * How fast a drive is through the engines of io/: a nameless file as the NVMe tier makes it,
 * requests of several MiB as the tier moves them, a few of them always under way.
 */
#include "cli/bench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "io/swap.h"
#include "memory/pool.h"

enum { IN_FLIGHT = 6, MOST_POINTS = 256, SMALLEST_REQUEST = 16 << 20, THREADS_AT_MOST = 16 };

static const char *const patterns[] = {"read", "write", "mixed"};
enum pattern { READ, WRITE, MIXED, PATTERNS };

struct point {
    const char *engine;
    enum pattern pattern;
    size_t block_bytes;
    int queue_depth;
    bool registered;
    double bytes_per_s, cpu_s_per_gb; /* the best round's */
};

struct drive {
    const struct zinf_bench *bench;
    struct zinf_swap *swap;
    struct zinf_pool pool; /* memory as a run has it */
    char *buffers;         /* (IN_FLIGHT, request_bytes) */
    size_t request_bytes;
    struct point points[MOST_POINTS];
    int point_count;
};

/* A process's time in user and system mode. */
static double cpu_s(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static int io_error(const struct zinf_bench *bench, const struct zinf_aio_request *request,
                    struct zinf_error *error)
{
    return zinf_error_set(error, ZINF_E_RUNTIME, "%s: %s at offset %llu failed: %s", bench->path,
                          request->write ? "write" : "read",
                          (unsigned long long)request->error_offset, strerror(request->error));
}

static void begin(const struct drive *drive, struct zinf_aio *aio, int file, enum pattern pattern,
                  struct zinf_aio_request *request, int64_t index)
{
    size_t places = (size_t)drive->bench->file_bytes / drive->request_bytes;
    *request = (struct zinf_aio_request){
        .write = pattern == WRITE || (pattern == MIXED && index % 2),
        .file = file,
        .buffer = drive->buffers + (size_t)(index % IN_FLIGHT) * drive->request_bytes,
        .bytes = drive->request_bytes,
        .offset = (size_t)index % places * drive->request_bytes};
    aio->engine->submit(aio, request);
}

/* Move bytes through an open engine until the time is over; returns them, or -1 after an error. */
static int64_t move(const struct drive *drive, struct zinf_aio *aio, int file, enum pattern pattern,
                    struct zinf_error *error)
{
    struct zinf_aio_request requests[IN_FLIGHT];
    const struct zinf_aio_request *failed = NULL;
    double end_s = zinf_clock_s() + drive->bench->seconds;
    int64_t bytes = 0, begun = 0, ended = 0;
    do {
        bool over = failed || (begun && zinf_clock_s() >= end_s);
        for (; !over && begun < ended + IN_FLIGHT; begun++)
            begin(drive, aio, file, pattern, &requests[begun % IN_FLIGHT], begun);
        struct zinf_aio_request *request = &requests[ended++ % IN_FLIGHT];
        aio->engine->wait(aio, request);
        bytes += (int64_t)request->done_bytes;
        if (request->error && !failed)
            failed = request;
    } while (ended < begun);
    return failed ? io_error(drive->bench, failed, error) : bytes;
}

static int measure(const struct drive *drive, struct point *point, struct zinf_error *error)
{
    struct zinf_aio aio;
    struct zinf_aio_options options = {
        .queue_depth = point->queue_depth,
        .block_bytes = point->block_bytes,
        .threads = point->queue_depth < THREADS_AT_MOST ? point->queue_depth : THREADS_AT_MOST,
        .pool = drive->buffers,
        .pool_bytes = IN_FLIGHT * drive->request_bytes};
    if (zinf_aio_open(&aio, point->engine, &options))
        return zinf_error_set(error, ZINF_E_RUNTIME, "the I/O engine %s cannot be measured here",
                              point->engine);
    int file = aio.engine->add_file(&aio, zinf_swap_descriptor(drive->swap));
    ZINF_ASSERT(file >= 0);
    double begin_s = zinf_clock_s(), begin_cpu_s = cpu_s();
    int64_t bytes = move(drive, &aio, file, point->pattern, error);
    double seconds = zinf_clock_s() - begin_s, used_s = cpu_s() - begin_cpu_s;
    point->registered = aio.registered;
    zinf_aio_close(&aio);
    if (bytes < 0)
        return ZINF_E_RUNTIME;
    if (bytes && (double)bytes / seconds > point->bytes_per_s) {
        point->bytes_per_s = (double)bytes / seconds;
        point->cpu_s_per_gb = used_s / ((double)bytes / 1e9);
    }
    return 0;
}

/* Can the engine be opened at all? What cannot is left out with one line. */
static bool works(const struct zinf_aio_engine *engine)
{
    struct zinf_aio aio = {.engine = engine};
    const struct zinf_aio_options options = {.queue_depth = 1, .block_bytes = 4096, .threads = 1};
    int number = engine->open(&aio, &options);
    if (!number)
        zinf_aio_close(&aio);
    else
        zinf_warn("I/O engine %s is left out: %s", engine->name, strerror(number));
    return !number;
}

static int list_points(struct drive *drive, struct zinf_error *error)
{
    static const size_t blocks[] = {256 << 10, 1 << 20, 4 << 20, 8 << 20};
    static const int depths[] = {4, 8, 32};
    const struct zinf_bench *bench = drive->bench;
    for (int e = 0; zinf_aio_engines()[e]; e++) {
        const char *name = zinf_aio_engines()[e]->name;
        if ((bench->engine && strcmp(bench->engine, name) != 0) || !works(zinf_aio_engines()[e]))
            continue;
        for (int b = 0; b < (bench->block_bytes ? 1 : 4); b++)
            for (int d = 0; d < (bench->queue_depth ? 1 : 3); d++)
                for (int p = 0; p < PATTERNS; p++)
                    drive->points[drive->point_count++] = (struct point){
                        .engine = name,
                        .pattern = (enum pattern)p,
                        .block_bytes = bench->block_bytes ? (size_t)bench->block_bytes : blocks[b],
                        .queue_depth = bench->queue_depth ? (int)bench->queue_depth : depths[d]};
    }
    if (!drive->point_count)
        return zinf_error_set(error, ZINF_E_USAGE, "--engine %s: there is no such I/O engine here",
                              bench->engine ? bench->engine : "");
    return 0;
}

static struct zinf_json *point_json(const struct point *point)
{
    struct zinf_json *object = zinf_json_new(ZINF_JSON_OBJECT);
    zinf_json_set(object, "engine", zinf_json_new_string(point->engine));
    zinf_json_set(object, "pattern", zinf_json_new_string(patterns[point->pattern]));
    zinf_json_set(object, "block_bytes", zinf_json_new_integer((int64_t)point->block_bytes));
    zinf_json_set(object, "queue_depth", zinf_json_new_integer(point->queue_depth));
    zinf_json_set(object, "registered", zinf_json_new_bool(point->registered));
    zinf_json_set(object, "bytes_per_s", zinf_json_new_number(point->bytes_per_s));
    zinf_json_set(object, "cpu_s_per_gb", zinf_json_new_number(point->cpu_s_per_gb));
    return object;
}

static void tell(const struct drive *drive, struct zinf_json *result)
{
    struct zinf_json *points = zinf_json_new(ZINF_JSON_ARRAY),
                     *best = zinf_json_new(ZINF_JSON_OBJECT);
    zinf_json_set(result, "path", zinf_json_new_string(drive->bench->path));
    zinf_json_set(result, "file_bytes", zinf_json_new_integer(drive->bench->file_bytes));
    zinf_json_set(result, "request_bytes", zinf_json_new_integer((int64_t)drive->request_bytes));
    zinf_json_set(result, "direct", zinf_json_new_bool(zinf_swap_direct(drive->swap)));
    for (int i = 0; i < drive->point_count; i++)
        zinf_json_append(points, point_json(&drive->points[i]));
    for (int p = 0; p < PATTERNS; p++) {
        const struct point *fastest = NULL;
        for (int i = 0; i < drive->point_count; i++)
            if ((int)drive->points[i].pattern == p &&
                (!fastest || drive->points[i].bytes_per_s > fastest->bytes_per_s))
                fastest = &drive->points[i];
        if (fastest)
            zinf_json_set(best, patterns[p], point_json(fastest));
    }
    zinf_json_set(result, "points", points);
    zinf_json_set(result, "best", best);
}

static int make_file(struct drive *drive, struct zinf_error *error)
{
    size_t file_bytes = (size_t)drive->bench->file_bytes,
           block_bytes = (size_t)drive->bench->block_bytes;
    const struct zinf_swap_options options = {
        .folder = drive->bench->path, .extent_bytes = &file_bytes, .extent_count = 1};
    drive->request_bytes =
        block_bytes > SMALLEST_REQUEST ? zinf_swap_padded(block_bytes) : SMALLEST_REQUEST;
    if (file_bytes < drive->request_bytes)
        return zinf_error_set(error, ZINF_E_USAGE, "--size: at least %zu bytes, one request",
                              drive->request_bytes);
    zinf_pool_take(&drive->pool, IN_FLIGHT * drive->request_bytes);
    if (zinf_pool_open(&drive->pool))
        return zinf_error_set(error, ZINF_E_DOES_NOT_FIT, "no memory for %d buffers of %zu bytes",
                              IN_FLIGHT, drive->request_bytes);
    drive->buffers = zinf_pool_take(&drive->pool, IN_FLIGHT * drive->request_bytes);
    return zinf_swap_open(&drive->swap, &options, error);
}

int zinf_bench_io(const struct zinf_bench *bench, struct zinf_json *result,
                  struct zinf_error *error)
{
    struct drive drive = {.bench = bench};
    int status = list_points(&drive, error);
    if (!status)
        status = make_file(&drive, error);
    for (int round = 0; round < bench->rounds && !status; round++)
        for (int i = 0; i < drive.point_count && !status; i++)
            status = measure(&drive, &drive.points[i], error);
    if (!status)
        tell(&drive, result);
    zinf_swap_close(drive.swap);
    zinf_pool_close(&drive.pool);
    return status;
}
