/*
 * How fast a checkpoint is written, checked and read, beside the same bytes to and from the same
 * drive without one: the commit protocol, checksums and copies of io/checkpoint.h are what is
 * between the two. Everything is measured in turn, each time with a new file, because a drive's
 * rate changes from minute to minute.
 */
#include "cli/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "io/aio.h"
#include "io/checkpoint.h"
#include "io/file.h"
#include "topology/comm.h"

enum { ARRAY_BYTES = 64 << 20, REQUEST_BYTES = 4 << 20, IN_FLIGHT = 4, MOST_ARRAYS = 4096 };
enum figure {
    CHECKPOINT_WRITE,
    DRIVE_WRITE,
    CHECKPOINT_VERIFY,
    CHECKPOINT_LOAD,
    DRIVE_READ,
    FIGURES
};

static const char *const names[FIGURES] = {"write_bytes_per_s", "drive_write_bytes_per_s",
                                           "verify_bytes_per_s", "load_bytes_per_s",
                                           "drive_read_bytes_per_s"};

struct sample {
    const struct zinf_bench *bench;
    char *path; /* of the checkpoint */
    int64_t bytes;
    float *values; /* (ARRAY_BYTES), of every array; on a page */
    struct zinf_array *arrays;
    struct zinf_slice slice; /* a whole array, the same for all */
    int array_count;
    bool direct;
    double best[FIGURES]; /* bytes per second of the best round */
};

static void note(struct sample *sample, enum figure figure, double begin_s)
{
    double rate = (double)sample->bytes / (zinf_clock_s() - begin_s);
    if (rate > sample->best[figure])
        sample->best[figure] = rate;
}

static int make_sample(struct sample *sample, struct zinf_error *error)
{
    const struct zinf_bench *bench = sample->bench;
    int64_t count = ARRAY_BYTES / (int64_t)sizeof(float);
    sample->array_count = (int)(bench->file_bytes / ARRAY_BYTES);
    if (bench->file_bytes < ARRAY_BYTES || bench->file_bytes / ARRAY_BYTES > MOST_ARRAYS)
        return zinf_error_set(error, ZINF_E_USAGE, "--size: right is 64MiB to 256GiB");
    sample->bytes = (int64_t)sample->array_count * ARRAY_BYTES;
    void *values =
        mmap(NULL, ARRAY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (values == MAP_FAILED)
        return zinf_error_set(error, ZINF_E_DOES_NOT_FIT, "no memory for %d bytes", ARRAY_BYTES);
    sample->values = values;
    uint32_t state = 1; /* what a drive cannot make small */
    for (int64_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        sample->values[i] = (float)(state >> 8);
    }
    sample->slice = (struct zinf_slice){0, count, sample->values};
    sample->arrays = zinf_alloc((size_t)sample->array_count * sizeof *sample->arrays);
    for (int i = 0; i < sample->array_count; i++)
        sample->arrays[i] = (struct zinf_array){.path = zinf_format("/model/%d", i),
                                                .dim_count = 1,
                                                .shape = {count},
                                                .slices = &sample->slice,
                                                .slice_count = 1};
    sample->path = zinf_format("%s/.zinf-bench-%ld.h5", bench->path, (long)getpid());
    return 0;
}

static void release_sample(struct sample *sample)
{
    for (int i = 0; i < sample->array_count && sample->arrays; i++)
        free((char *)sample->arrays[i].path);
    free(sample->arrays);
    if (sample->values)
        munmap(sample->values, ARRAY_BYTES);
    if (sample->path)
        zinf_file_remove(sample->path);
    free(sample->path);
}

static int save(struct sample *sample, struct zinf_error *error)
{
    struct zinf_comm alone = {.size = 1, .local_size = 1};
    const struct zinf_checkpoint checkpoint = {.arrays = sample->arrays,
                                               .array_count = sample->array_count};
    double begin_s = zinf_clock_s();
    int status = zinf_checkpoint_save(&alone, sample->path, &checkpoint);
    if (status)
        return zinf_error_set(error, status, "%s: the checkpoint could not be written",
                              sample->bench->path);
    note(sample, CHECKPOINT_WRITE, begin_s);
    return 0;
}

/* What the page cache holds of the file goes, so that the drive is measured. */
static void forget(const char *path)
{
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return;
    posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
    close(descriptor);
}

static int read_back(struct sample *sample, enum figure figure, struct zinf_error *error)
{
    struct zinf_comm alone = {.size = 1, .local_size = 1};
    struct zinf_checkpoint_file *file = NULL;
    forget(sample->path);
    double begin_s = zinf_clock_s();
    int status = zinf_checkpoint_open(&file, &alone, sample->path, error);
    if (!status)
        status = figure == CHECKPOINT_VERIFY
                     ? zinf_checkpoint_verify(file, error)
                     : zinf_checkpoint_load(file, sample->arrays, sample->array_count, error);
    if (!status)
        note(sample, figure, begin_s);
    zinf_checkpoint_close(file);
    return status;
}

/* ---- the drive ---- */

/* All bytes in requests, a few of them under way. Returns an errno. */
static int move(const struct sample *sample, struct zinf_aio *aio, int file, bool write)
{
    struct zinf_aio_request requests[IN_FLIGHT] = {0};
    int64_t count = sample->bytes / REQUEST_BYTES, ended = 0;
    int number = 0;
    for (int64_t i = 0; ended < count; i++) {
        struct zinf_aio_request *request = &requests[i % IN_FLIGHT];
        if (i >= IN_FLIGHT) {
            aio->engine->wait(aio, request);
            ended++;
            number = number ? number : request->error;
        }
        if (i >= count)
            continue;
        *request = (struct zinf_aio_request){.write = write,
                                             .file = file,
                                             .buffer = (char *)sample->values +
                                                       (i * REQUEST_BYTES) % ARRAY_BYTES,
                                             .bytes = REQUEST_BYTES,
                                             .offset = (uint64_t)(i * REQUEST_BYTES)};
        aio->engine->submit(aio, request);
    }
    return number;
}

static int measure_open_drive(struct sample *sample, int descriptor, struct zinf_error *error)
{
    struct zinf_aio aio;
    const struct zinf_aio_options options = {
        .queue_depth = 16, .block_bytes = 1 << 20, .threads = IN_FLIGHT};
    const char *path = sample->bench->path;
    int status = zinf_aio_open(&aio, NULL, &options);
    if (status)
        return zinf_error_set(error, status, "%s: no I/O engine", path);
    int file = aio.engine->add_file(&aio, descriptor);
    double begin_s = zinf_clock_s();
    status = zinf_file_reserve(descriptor, path, sample->bytes, error);
    int number = status ? 0 : move(sample, &aio, file, true);
    if (!status && !number)
        status = zinf_file_sync(descriptor, path, error);
    if (!status && !number) {
        note(sample, DRIVE_WRITE, begin_s);
        begin_s = zinf_clock_s();
        number = move(sample, &aio, file, false);
    }
    if (!status && !number)
        note(sample, DRIVE_READ, begin_s);
    zinf_aio_close(&aio);
    return number ? zinf_file_failed(error, path, number, "cannot be measured") : status;
}

/* The same bytes, written into a new file and brought to disk, then read. */
static int measure_drive(struct sample *sample, struct zinf_error *error)
{
    const char *path = sample->bench->path;
    int descriptor = open(path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (descriptor < 0)
        return zinf_error_set(error, ZINF_E_USAGE, "%s: no file can be made there: %s", path,
                              strerror(errno));
    sample->direct = zinf_file_make_direct(descriptor);
    int status = measure_open_drive(sample, descriptor, error);
    close(descriptor);
    return status;
}

static int measure_once(struct sample *sample, struct zinf_error *error)
{
    int status = measure_drive(sample, error);
    if (!status)
        status = save(sample, error);
    if (!status)
        status = read_back(sample, CHECKPOINT_VERIFY, error);
    if (!status)
        status = read_back(sample, CHECKPOINT_LOAD, error);
    return status;
}

int zinf_bench_checkpoint(const struct zinf_bench *bench, struct zinf_json *result,
                          struct zinf_error *error)
{
    struct sample sample = {.bench = bench};
    int status = make_sample(&sample, error);
    for (int round = 0; round < bench->rounds && !status; round++)
        status = measure_once(&sample, error);
    if (!status) {
        zinf_json_set(result, "path", zinf_json_new_string(bench->path));
        zinf_json_set(result, "bytes", zinf_json_new_integer(sample.bytes));
        zinf_json_set(result, "direct", zinf_json_new_bool(sample.direct));
        for (int i = 0; i < FIGURES; i++)
            zinf_json_set(result, names[i], zinf_json_new_number(sample.best[i]));
        zinf_json_set(
            result, "write_of_drive",
            zinf_json_new_number(sample.best[CHECKPOINT_WRITE] / sample.best[DRIVE_WRITE]));
        zinf_json_set(
            result, "verify_of_drive",
            zinf_json_new_number(sample.best[CHECKPOINT_VERIFY] / sample.best[DRIVE_READ]));
        zinf_json_set(result, "load_of_drive",
                      zinf_json_new_number(sample.best[CHECKPOINT_LOAD] / sample.best[DRIVE_READ]));
    }
    release_sample(&sample);
    return status;
}
