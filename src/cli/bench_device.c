/*
 * How fast the device of zinf.device is at what a training step asks of it: products, attention,
 * what only moves bytes, and copies to and from the host. Each beside the limit that it cannot
 * pass, measured in the same run: a product of large squares, a copy inside the device, one long
 * copy in each direction.
 *
 * Times are the device's own (events around several calls in one stream), where it has them; the
 * CPU's operations are done when they return. The best round counts. Data are random: products of
 * zeros are faster than any that matter.
 */
#include "cli/bench_device.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/rng.h"

enum {
    BEGIN,
    END,
    OTHER_END,
    EVENTS,
    PATTERN = 1 << 20, /* random values; repeated behind that */
    PAGE = 4096,
};

static const struct zinf_rig_sizes card_sizes = {
    8192, 16384, {2048, 8192}, 2048, 4096, 11008, 50304, (int64_t)128 << 20, (size_t)1 << 30};
static const struct zinf_rig_sizes cpu_sizes = {
    512, 512, {128, 256}, 256, 256, 688, 2048, (int64_t)1 << 20, (size_t)16 << 20};

/* --- Memory --- */

void *zinf_rig_take(struct zinf_rig *rig, size_t bytes)
{
    void *memory = rig->arena + rig->used;
    rig->used += (bytes + PAGE - 1) / PAGE * PAGE;
    ZINF_ASSERT(rig->used <= rig->arena_bytes);
    return memory;
}

/* `count` values of lowest .. lowest + span. */
void *zinf_rig_filled(struct zinf_rig *rig, enum zinf_dtype dtype, int64_t count, float lowest,
                      float span)
{
    const size_t element = zinf_dtype_bytes(dtype);
    char *memory = zinf_rig_take(rig, (size_t)count * element);
    float *wide = zinf_alloc(PATTERN * sizeof *wide);
    char *rounded = rig->host;
    for (int i = 0; i < PATTERN; i++)
        wide[i] = lowest + span * rig->pattern[i];
    zinf_dtype_convert(rounded, dtype, wide, ZINF_FP32, PATTERN);
    for (int64_t done = 0; done < count; done += PATTERN) {
        int64_t part = count - done < PATTERN ? count - done : PATTERN;
        rig->device.backend->copy(&rig->device, ZINF_STREAM_COMPUTE,
                                  memory + (size_t)done * element, rounded, (size_t)part * element);
    }
    rig->device.backend->record(&rig->device, END, ZINF_STREAM_COMPUTE);
    rig->device.backend->wait(&rig->device, ZINF_STREAM_HOST, END);
    free(wide);
    return memory;
}

void *zinf_rig_random(struct zinf_rig *rig, enum zinf_dtype dtype, int64_t count)
{
    return zinf_rig_filled(rig, dtype, count, -1.0f, 2.0f);
}

/* --- Time --- */

static double time_of(struct zinf_rig *rig, const struct zinf_rig_work *work, int calls)
{
    const struct zinf_device_backend *backend = rig->device.backend;
    double begin_s = zinf_clock_s();
    backend->record(&rig->device, BEGIN, ZINF_STREAM_COMPUTE);
    for (int i = 0; i < calls; i++)
        work->call(rig, work);
    backend->record(&rig->device, END, ZINF_STREAM_COMPUTE);
    backend->wait(&rig->device, ZINF_STREAM_HOST, END);
    double host_s = zinf_clock_s() - begin_s;
    double device_s = backend->elapsed(&rig->device, BEGIN, END);
    return (device_s > 0 ? device_s : host_s) / calls;
}

/* Seconds of one call: the first call warms up, the second says how many
 * fill bench->seconds. */
double zinf_rig_measure(struct zinf_rig *rig, const struct zinf_rig_work *work)
{
    double best = INFINITY;
    time_of(rig, work, 1);
    double once = time_of(rig, work, 1);
    int calls = once > 0 ? (int)fmin(1000, fmax(1, rig->bench->seconds / once)) : 1;
    for (int round = 0; round < rig->bench->rounds; round++)
        best = fmin(best, time_of(rig, work, calls));
    return best;
}

void zinf_rig_add(struct zinf_rig *rig, const struct zinf_rig_point *point)
{
    const bool products = point->flop > 0;
    const double rate = (products ? point->flop : point->bytes) / point->seconds;
    const double limit = products ? rig->product_per_s : rig->copy_per_s;
    struct zinf_json *object = zinf_json_new(ZINF_JSON_OBJECT);
    zinf_json_set(object, "name", zinf_json_new_string(point->name));
    zinf_json_set(object, "dtype", zinf_json_new_string(point->dtype));
    zinf_json_set(object, "shape", zinf_json_new_string(point->shape));
    zinf_json_set(object, "seconds", zinf_json_new_number(point->seconds));
    zinf_json_set(object, products ? "flop_per_s" : "bytes_per_s", zinf_json_new_number(rate));
    if (limit > 0)
        zinf_json_set(object, products ? "of_product" : "of_copy",
                      zinf_json_new_number(rate / limit));
    zinf_json_append(rig->points, object);
}

double zinf_rig_point(struct zinf_rig *rig, const struct zinf_rig_work *work,
                      struct zinf_rig_point *point)
{
    point->seconds = zinf_rig_measure(rig, work);
    zinf_rig_add(rig, point);
    return point->seconds;
}

/* --- Limits --- */

static void call_copy(const struct zinf_rig *rig, const struct zinf_rig_work *work)
{
    struct zinf_device *device = (struct zinf_device *)&rig->device;
    device->backend->copy(device, ZINF_STREAM_COMPUTE, work->out[0], work->in[0], work->bytes);
}

static void measure_copy(struct zinf_rig *rig)
{
    const int64_t count = 2 * rig->sizes->parameters;
    struct zinf_rig_work work = {.call = call_copy, .bytes = 4 * (size_t)count};
    struct zinf_rig_point point = {
        .name = "copy", .dtype = "bytes", .bytes = 2.0 * (double)work.bytes};
    rig->used = 0;
    work.in[0] = zinf_rig_random(rig, ZINF_FP32, count);
    work.out[0] = zinf_rig_take(rig, work.bytes);
    snprintf(point.shape, sizeof point.shape, "%zu MiB, read and written", work.bytes >> 20);
    zinf_rig_point(rig, &work, &point);
    rig->copy_per_s = point.bytes / point.seconds;
}

static void call_product(const struct zinf_rig *rig, const struct zinf_rig_work *work)
{
    rig->ops->matmul(work->op);
}

/* By the fastest of the library's algorithms, as a run's. */
static void choose_product(struct zinf_rig *rig, const struct zinf_matmul *op)
{
    const struct zinf_device_products *how = rig->device.backend->products;
    struct zinf_products products = {0};
    struct zinf_product product;
    if (!how)
        return;
    zinf_product_of(op, &product);
    how->measure(&rig->device, zinf_products_add(&products, &product), 1);
    how->take(&rig->device, &products);
    zinf_products_release(&products);
}

static void measure_product(struct zinf_rig *rig, enum zinf_dtype dtype)
{
    const int64_t n = rig->sizes->square;
    struct zinf_matmul op = {.dtype = dtype, .c_dtype = dtype, .m = n, .n = n, .k = n};
    struct zinf_rig_work work = {.call = call_product, .op = &op};
    struct zinf_rig_point point = {.name = "product", .dtype = zinf_dtype_name(dtype)};
    rig->used = 0;
    op.lda = op.ldb = op.ldc = n;
    op.a = zinf_rig_random(rig, dtype, n * n);
    op.b = zinf_rig_random(rig, dtype, n * n);
    op.c = zinf_rig_take(rig, (size_t)(n * n) * zinf_dtype_bytes(dtype));
    choose_product(rig, &op);
    point.flop = 2.0 * pow((double)n, 3);
    snprintf(point.shape, sizeof point.shape, "%lld x %lld x %lld", (long long)n, (long long)n,
             (long long)n);
    zinf_rig_point(rig, &work, &point);
    if (dtype == ZINF_BF16)
        rig->product_per_s = point.flop / point.seconds;
}

/* --- Attention --- */

static void call_attention_forward(const struct zinf_rig *rig, const struct zinf_rig_work *work)
{
    rig->ops->attention_forward(work->op, work->out[0]);
}

static void call_attention_backward(const struct zinf_rig *rig, const struct zinf_rig_work *work)
{
    rig->ops->attention_backward(work->op, work->in[0], work->out[1]);
}

/* Causal: half of 4 S^2 D a head forward, 2.5 times that backward (which computes the scores once
 * more). Both together are what a step takes. */
static void measure_attention(struct zinf_rig *rig, int64_t head_size, int64_t sequence)
{
    const int64_t tokens = rig->sizes->tokens, width = rig->sizes->width;
    struct zinf_attention op = {.dtype = ZINF_BF16,
                                .batch = tokens / sequence,
                                .sequence = sequence,
                                .heads = width / head_size,
                                .kv_heads = width / head_size,
                                .head_size = head_size,
                                .scale = 1.0 / sqrt((double)head_size)};
    struct zinf_rig_work work = {.call = call_attention_forward, .op = &op};
    struct zinf_rig_point point = {.name = "attention forward", .dtype = "bf16"};
    double forward = 2.0 * (double)(op.batch * op.heads * head_size) * pow((double)sequence, 2);
    rig->used = 0;
    op.qkv = zinf_rig_random(rig, ZINF_BF16, 3 * tokens * width);
    op.log_sum_exp = zinf_rig_take(rig, 4 * (size_t)(tokens * op.heads));
    op.output = work.out[0] = zinf_rig_take(rig, 2 * (size_t)(tokens * width));
    work.in[0] = zinf_rig_random(rig, ZINF_BF16, tokens * width);
    work.out[1] = zinf_rig_take(rig, 6 * (size_t)(tokens * width));
    snprintf(point.shape, sizeof point.shape,
             "head size %lld, sequence %lld, %lld heads, batch %lld", (long long)head_size,
             (long long)sequence, (long long)op.heads, (long long)op.batch);
    point.flop = forward;
    double forward_s = zinf_rig_point(rig, &work, &point);
    work.call = call_attention_backward;
    point.name = "attention backward";
    point.flop = 2.5 * forward;
    zinf_rig_point(rig, &work, &point);
    point.name = "attention";
    point.flop = 3.5 * forward;
    point.seconds += forward_s;
    zinf_rig_add(rig, &point);
}

/* --- Copies to and from the host --- */

/* Seconds until both directions are done; 0 bytes: that one is left out. */
static double time_host(struct zinf_rig *rig, size_t in_bytes, size_t out_bytes, size_t piece)
{
    const struct zinf_device_backend *backend = rig->device.backend;
    struct zinf_device *device = &rig->device;
    const size_t bytes = rig->sizes->host_bytes;
    double begin_s = zinf_clock_s();
    for (size_t at = 0; at < bytes; at += piece) {
        size_t part = bytes - at < piece ? bytes - at : piece;
        if (at < in_bytes)
            backend->copy(device, ZINF_STREAM_COPY_IN, rig->arena + at, rig->host + at, part);
        if (at < out_bytes)
            backend->copy(device, ZINF_STREAM_COPY_OUT, rig->host + bytes + at,
                          rig->arena + bytes + at, part);
    }
    backend->record(device, END, ZINF_STREAM_COPY_IN);
    backend->record(device, OTHER_END, ZINF_STREAM_COPY_OUT);
    backend->wait(device, ZINF_STREAM_HOST, END);
    backend->wait(device, ZINF_STREAM_HOST, OTHER_END);
    return zinf_clock_s() - begin_s;
}

/* By the host's clock: a GiB takes 20 ms, and the two directions have no common stream. */
static void measure_host(struct zinf_rig *rig)
{
    static const struct {
        const char *name;
        bool in, out;
        size_t piece; /* 0: one copy each way */
    } ways[] = {{"host to device", true, false, 0},
                {"device to host", false, true, 0},
                {"both ways, plain", true, true, 0},
                {"both ways, pieces", true, true, (size_t)16 << 20}};
    enum { WAYS = sizeof ways / sizeof *ways };
    const size_t bytes = rig->sizes->host_bytes;
    double best[WAYS];
    for (int way = 0; way < WAYS; way++)
        best[way] = INFINITY;
    for (int round = -1; round < rig->bench->rounds; round++) /* in turn; the first warms up */
        for (int way = 0; way < WAYS; way++) {
            double seconds = time_host(rig, ways[way].in ? bytes : 0, ways[way].out ? bytes : 0,
                                       ways[way].piece ? ways[way].piece : bytes);
            if (round >= 0)
                best[way] = fmin(best[way], seconds);
        }
    for (int way = 0; way < WAYS; way++) {
        struct zinf_json *object = zinf_json_new(ZINF_JSON_OBJECT);
        double moved = (double)bytes * (ways[way].in + ways[way].out);
        zinf_json_set(object, "name", zinf_json_new_string(ways[way].name));
        zinf_json_set(object, "dtype", zinf_json_new_string("bytes"));
        char *shape = zinf_format("%zu MiB each way%s", bytes >> 20,
                                  ways[way].piece ? " in pieces of 16 MiB" : "");
        zinf_json_set(object, "shape", zinf_json_new_string(shape));
        free(shape);
        zinf_json_set(object, "seconds", zinf_json_new_number(best[way]));
        zinf_json_set(object, "bytes_per_s", zinf_json_new_number(moved / best[way]));
        if (ways[way].piece)
            zinf_json_set(object, "of_plain", zinf_json_new_number(best[WAYS - 2] / best[way]));
        zinf_json_append(rig->points, object);
    }
}

/* --- All of it --- */

static size_t arena_of(const struct zinf_rig_sizes *s)
{
    const size_t update = 16 * (size_t)s->parameters, copy = 16 * (size_t)s->parameters;
    const size_t gated = 12 * (size_t)(s->tokens * s->inner);
    const size_t loss = (size_t)(s->tokens * s->vocabulary);
    const size_t gelu = 24 * (size_t)(s->tokens * s->hidden);
    const size_t attention = 16 * (size_t)(s->tokens * s->width);
    size_t most = 6 * (size_t)(s->square * s->square);
    const size_t all[] = {update, copy, gated, loss, gelu, attention, 2 * s->host_bytes};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        most = most > all[i] ? most : all[i];
    return most + ((size_t)64 << 20);
}

static int open_rig(struct zinf_rig *rig, struct zinf_error *error)
{
    const struct zinf_device_backend *backend = NULL;
    int status = zinf_device_choose(rig->bench->device, &backend, error);
    if (status)
        return status;
    const bool card = backend != &zinf_cpu_device;
    rig->sizes = card ? &card_sizes : &cpu_sizes;
    const struct zinf_device_shape shape = {.tokens = rig->sizes->tokens,
                                            .hidden = 4 * rig->sizes->hidden,
                                            .heads = rig->sizes->width / 64,
                                            .samples = rig->sizes->tokens / rig->sizes->sequence[0],
                                            .head_size = 128}; /* and of 64, whose sums take less */
    const struct zinf_device_options options = {.event_count = EVENTS,
                                                .scratch_bytes = zinf_device_scratch_bytes(&shape)};
    status = backend->open(&rig->device, &options, error);
    if (status)
        return status;
    rig->ops = backend->operations();
    rig->arena_bytes = arena_of(rig->sizes);
    rig->arena = backend->allocate(&rig->device, rig->arena_bytes);
    if (!rig->arena)
        return zinf_error_set(error, ZINF_E_DOES_NOT_FIT,
                              "zinf bench device needs %zu MiB on %s; %lld MiB are free",
                              rig->arena_bytes >> 20, rig->device.properties.name,
                              (long long)(rig->device.properties.free_bytes >> 20));
    rig->host = mmap(NULL, 2 * rig->sizes->host_bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (rig->host == MAP_FAILED) {
        rig->host = NULL;
        return zinf_error_set(error, ZINF_E_DOES_NOT_FIT, "no %zu MiB of host memory to copy from",
                              rig->sizes->host_bytes >> 19);
    }
    status = backend->pin(&rig->device, rig->host, 2 * rig->sizes->host_bytes);
    if (status)
        return zinf_error_set(error, status, "host memory cannot be pinned: see above");
    backend->use(&rig->device, ZINF_STREAM_COMPUTE);
    return ZINF_OK;
}

static void close_rig(struct zinf_rig *rig)
{
    const size_t bytes = rig->sizes ? 2 * rig->sizes->host_bytes : 0;
    if (rig->device.backend)
        rig->device.backend->close(&rig->device);
    if (rig->host)
        munmap(rig->host, bytes);
    free(rig->pattern);
}

static void measure_all(struct zinf_rig *rig)
{
    const struct zinf_rig_sizes *sizes = rig->sizes;
    measure_copy(rig);
    measure_product(rig, ZINF_BF16);
    measure_product(rig, ZINF_FP16);
    for (int64_t head_size = 64; head_size <= 128; head_size *= 2)
        for (int i = 0; i < 2; i++)
            measure_attention(rig, head_size, sizes->sequence[i]);
    zinf_rig_bytes(rig);
    measure_host(rig);
}

int zinf_bench_device(const struct zinf_bench *bench, struct zinf_json *result,
                      struct zinf_error *error)
{
    struct zinf_rig rig = {.bench = bench, .points = zinf_json_new(ZINF_JSON_ARRAY)};
    const struct zinf_rng_key key = zinf_rng_key(1, "bench");
    rig.pattern = zinf_alloc(PATTERN * sizeof *rig.pattern);
    for (uint32_t i = 0; i < PATTERN; i += 4) {
        const uint32_t counter[4] = {i, 0, 0, 0};
        uint32_t words[4];
        zinf_rng_philox(counter, key, words);
        for (int j = 0; j < 4; j++)
            rig.pattern[i + (uint32_t)j] = ((float)(words[j] >> 8) + 0.5f) * 0x1p-24f;
    }
    int status = open_rig(&rig, error);
    if (!status) {
        const struct zinf_device_properties *about = &rig.device.properties;
        zinf_json_set(result, "device", zinf_json_new_string(about->name));
        zinf_json_set(result, "kernels", zinf_json_new_string(rig.ops->name));
        zinf_json_set(result, "version", zinf_json_new_string(about->version));
        zinf_json_set(result, "peak_flop_per_s", zinf_json_new_number(about->peak_flops));
        measure_all(&rig);
    }
    zinf_json_set(result, "points", rig.points);
    close_rig(&rig);
    return status;
}
