/*
 * A device that no user has: memory of its own, and work that is done as late, or in as unexpected
 * an order, as its streams and events allow. What src/zero and src/train forget on a GPU (an edge,
 * a copy, a wait) is a wrong number or a crash here, on any machine. A program that is linked with
 * this file has it in its list of devices, before the CPU.
 *
 * Memory. Each allocation is mapped twice: what the caller gets is a range that nobody may read or
 * write (a touch by the host is SIGSEGV, at the place of the mistake), the bytes are elsewhere.
 * Operations are kept as their structs and pointers; a pointer must lie in device memory, and is
 * turned to the bytes when the operation is carried out, by the CPU's operations: so results are
 * the CPU's, bit for bit.
 *
 * Order. A call appends to its stream's queue and returns. Queues move when a thread of the host
 * waits, only as far as it must, or a few steps at random after any call; whenever several streams
 * could go on, chance decides, one of them being starved for a while. The laziest order finds a
 * host that reads before its wait or overwrites what a copy has yet to read; the hasty one a host
 * that issues before its bytes are there; both find an edge that is missing between streams.
 * ZINF_LATE_SEED sets the chance, and with it which of the two prevails.
 *
 * A library of the device's maker, where there is one, puts work into a stream that ends when
 * others' do (tests/fake_stream.h). ZINF_LATE_LINK=own gives each process a device of its own to be
 * linked with the others (tests/late_link.c), shared the same one to all; without it there is no
 * link. ZINF_LATE_PRODUCTS=1: matrix products are made by the CUDA backend's library
 * (tests/late_cuda.c), with its bits.
 *
 * Rejected: a thread for each stream that sleeps at random. It needs luck and time for what a
 * drawn order shows at once, and no failure of it can be repeated.
 */
#include "device/device.h"

#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

#include "late_cuda.h"
#include "late_queues.h"

static struct zinf_device_backend backend;

const struct zinf_device_link *zinf_late_link(void);

/* ---- operations ---- */

/* Keep an operation: its struct, in which `pointers` (offsets, -1 behind the last) lie, and what it
 * is given beside it. */
static void keep(struct work *work, const void *op, size_t bytes, const int *pointers)
{
    ZINF_ASSERT(bytes <= sizeof work->op);
    work->kind = OPERATION;
    memcpy(work->op.bytes, op, bytes);
    for (int i = 0; pointers[i] >= 0; i++) {
        void **at = (void **)(work->op.bytes + pointers[i]);
        *at = real(*at);
    }
    for (int i = 0; i < POINTERS; i++)
        work->pointers[i] = real(work->pointers[i]);
}

/* What is recorded instead of done: a thread's. */
struct tape {
    struct work *works; /* (count) */
    int count;
    bool failed; /* a library's work is not among them */
};
static _Thread_local struct tape *tape;

static void issue(struct work *work)
{
    if (tape) {
        ZINF_ASSERT(!work->result); /* nobody has computed it */
        tape->works = zinf_realloc(tape->works, (size_t)(tape->count + 1) * sizeof *tape->works);
        tape->works[tape->count++] = *work;
        return;
    }
    pthread_mutex_lock(&late.mutex);
    append(current, work);
    if (work->result)
        finish(current);
    pthread_mutex_unlock(&late.mutex);
}

/* Offsets of the pointers in a struct, each with its comma. */
#define AT(type, member) (int)offsetof(struct type, member),

/* What an operation is given beside its struct: none to five pointers, a to e. */
#define GIVEN0
#define GIVEN1 , w->pointers[0]
#define GIVEN2 GIVEN1, w->pointers[1]
#define GIVEN3 GIVEN2, w->pointers[2]
#define GIVEN5 GIVEN3, w->pointers[3], w->pointers[4]
#define TAKEN0
#define TAKEN1 , .pointers = {(void *)a}
#define TAKEN2 , .pointers = {(void *)a, (void *)b}
#define TAKEN3 , .pointers = {(void *)a, (void *)b, (void *)c}
#define TAKEN5 , .pointers = {(void *)a, (void *)b, (void *)c, d, e}

#define OPERATION(name, type, count, parameters, ...)                                              \
    static void run_##name(struct work *w)                                                         \
    {                                                                                              \
        zinf_cpu_ops()->name((const struct type *)w->op.bytes GIVEN##count);                       \
    }                                                                                              \
    static void name parameters                                                                    \
    {                                                                                              \
        static const int at[] = {__VA_ARGS__ - 1};                                                 \
        struct work work = {.run = run_##name TAKEN##count};                                       \
        keep(&work, op, sizeof *op, at);                                                           \
        issue(&work);                                                                              \
    }

OPERATION(matmul, zinf_matmul, 0, (const struct zinf_matmul *op),
          AT(zinf_matmul, a) AT(zinf_matmul, b) AT(zinf_matmul, c) AT(zinf_matmul, bias)
              AT(zinf_matmul, activated) AT(zinf_matmul, slope_of))
OPERATION(bias_backward, zinf_column_sum, 2,
          (const struct zinf_column_sum *op, const void *a, void *b), )
#define NORM                                                                                       \
    AT(zinf_norm, x)                                                                               \
    AT(zinf_norm, weight) AT(zinf_norm, bias) AT(zinf_norm, mean) AT(zinf_norm, rstd)
OPERATION(norm_forward, zinf_norm, 1, (const struct zinf_norm *op, void *a), NORM)
OPERATION(norm_backward, zinf_norm, 5,
          (const struct zinf_norm *op, const void *a, const void *b, void *c, void *d, void *e),
          NORM)
#define ATTENTION                                                                                  \
    AT(zinf_attention, qkv)                                                                        \
    AT(zinf_attention, log_sum_exp)                                                                \
    AT(zinf_attention, output) AT(zinf_attention, boundaries) AT(zinf_attention, dropout.counters)
OPERATION(attention_forward, zinf_attention, 1, (const struct zinf_attention *op, void *a),
          ATTENTION)
OPERATION(attention_backward, zinf_attention, 2,
          (const struct zinf_attention *op, const void *a, void *b), ATTENTION)
OPERATION(rope, zinf_rope, 1, (const struct zinf_rope *op, void *a),
          AT(zinf_rope, cosine) AT(zinf_rope, sine))
#define ACTIVATE AT(zinf_activate, x)
OPERATION(activation_forward, zinf_activate, 1, (const struct zinf_activate *op, void *a), ACTIVATE)
OPERATION(activation_backward, zinf_activate, 2,
          (const struct zinf_activate *op, const void *a, void *b), ACTIVATE)
OPERATION(gated_forward, zinf_activate, 1, (const struct zinf_activate *op, void *a), ACTIVATE)
OPERATION(gated_backward, zinf_activate, 2,
          (const struct zinf_activate *op, const void *a, void *b), ACTIVATE)
OPERATION(dropout_add, zinf_dropout_add, 3,
          (const struct zinf_dropout_add *op, const void *a, const void *b, void *c),
          AT(zinf_dropout_add, dropout.counters))
#define EMBEDDING AT(zinf_embedding, ids)
OPERATION(embedding_forward, zinf_embedding, 2,
          (const struct zinf_embedding *op, const void *a, void *b), EMBEDDING)
OPERATION(embedding_backward, zinf_embedding, 2,
          (const struct zinf_embedding *op, const void *a, void *b), EMBEDDING)
OPERATION(position_forward, zinf_embedding, 2,
          (const struct zinf_embedding *op, const void *a, void *b), EMBEDDING)
OPERATION(position_backward, zinf_embedding, 2,
          (const struct zinf_embedding *op, const void *a, void *b), EMBEDDING)
#define LOSS                                                                                       \
    AT(zinf_loss_tile, targets)                                                                    \
    AT(zinf_loss_tile, maximum) AT(zinf_loss_tile, sum) AT(zinf_loss_tile, target_logit)
OPERATION(loss_tile_forward, zinf_loss_tile, 1, (const struct zinf_loss_tile *op, const void *a),
          LOSS)
OPERATION(loss_tile_backward, zinf_loss_tile, 1, (const struct zinf_loss_tile *op, void *a), LOSS)
OPERATION(cast, zinf_cast, 2, (const struct zinf_cast *op, const void *a, void *b), )
OPERATION(accumulate, zinf_accumulate, 2,
          (const struct zinf_accumulate *op, const void *a, void *b), )
OPERATION(reduce, zinf_reduce, 2, (const struct zinf_reduce *op, const void *a, void *b), )
OPERATION(scale, zinf_scale, 1, (const struct zinf_scale *op, void *a), )
OPERATION(update, zinf_update_op, 0, (const struct zinf_update_op *op),
          AT(zinf_update_op, weights) AT(zinf_update_op, state[0]) AT(zinf_update_op, state[1])
              AT(zinf_update_op, gradient) AT(zinf_update_op, low))

/* By the library of the device's maker, if there is one. */
static void product(const struct zinf_matmul *op)
{
    if (tape && backend.products)
        tape->failed = true;
    else if (!zinf_late_product(op))
        matmul(op);
}

static const int nowhere[] = {-1};

static void run_square_sum(struct work *w)
{
    *(double *)w->result =
        zinf_cpu_ops()->square_sum((const struct zinf_scan *)w->op.bytes, w->pointers[0]);
}

static double square_sum(const struct zinf_scan *op, const void *x)
{
    double sum = 0;
    struct work work = {.run = run_square_sum, .result = &sum, .pointers = {(void *)x}};
    keep(&work, op, sizeof *op, nowhere);
    issue(&work);
    return sum;
}

static void run_square_sum_to(struct work *w)
{
    *(double *)w->pointers[1] =
        zinf_cpu_ops()->square_sum((const struct zinf_scan *)w->op.bytes, w->pointers[0]);
}

static void square_sum_to(struct zinf_device *device, const struct zinf_scan *op, const void *x,
                          double *sum)
{
    struct work work = {.run = run_square_sum_to, .pointers = {(void *)x, sum}};
    (void)device;
    keep(&work, op, sizeof *op, nowhere);
    issue(&work);
}

static void run_first_nonfinite(struct work *w)
{
    *(int64_t *)w->result =
        zinf_cpu_ops()->first_nonfinite((const struct zinf_scan *)w->op.bytes, w->pointers[0]);
}

static int64_t first_nonfinite(const struct zinf_scan *op, const void *x)
{
    int64_t index = -1;
    struct work work = {.run = run_first_nonfinite, .result = &index, .pointers = {(void *)x}};
    keep(&work, op, sizeof *op, nowhere);
    issue(&work);
    return index;
}

#define OWN(operation) .operation = operation,

static const struct zinf_ops *operations(void)
{
    static struct zinf_ops all = {.name = "late", ZINF_OPERATIONS(OWN)};
    all.matmul = product;
    return &all;
}

/* ---- the table ---- */

static int list(struct zinf_device_properties *out, int room, char *why, size_t why_bytes)
{
    (void)why;
    (void)why_bytes;
    const char *linked = getenv("ZINF_LATE_LINK");
    if (room > 0) {
        *out = (struct zinf_device_properties){.name = "a device for tests",
                                               .memory_bytes = (int64_t)4 << 30,
                                               .free_bytes = (int64_t)4 << 30};
        if (linked)
            snprintf(out->bus_id, sizeof out->bus_id, "%08x:00:00.0",
                     strcmp(linked, "own") ? 0 : (unsigned)getpid());
    }
    return 1;
}

/* What a context would take: ZINF_LATE_OUTSIDE bytes; without it nothing can be told. For one rank:
 * processes do not know of each other's. */
static int64_t outside_bytes(void)
{
    const char *bytes = getenv("ZINF_LATE_OUTSIDE");
    return bytes ? strtoll(bytes, NULL, 10) : -1;
}

static int64_t unopened_bytes(int index)
{
    struct zinf_device_properties properties;
    (void)index;
    list(&properties, 1, NULL, 0);
    return outside_bytes() < 0 ? -1 : properties.free_bytes;
}

static void measure(struct zinf_device *device)
{
    struct zinf_device_properties properties;
    list(&properties, 1, NULL, 0);
    if (outside_bytes() < 0)
        return;
    device->properties.free_bytes = properties.free_bytes - outside_bytes() - late.scratch_bytes;
    for (int i = 0; i < late.memory_count; i++)
        device->properties.free_bytes -= (int64_t)late.memory[i].size;
}

static int device_open(struct zinf_device *device, const struct zinf_device_options *options,
                       struct zinf_error *error)
{
    const char *seed = getenv("ZINF_LATE_SEED");
    if (options->index != 0)
        return zinf_error_set(error, ZINF_E_USAGE, "device late %d: there is one, number 0",
                              options->index);
    late.chance = seed ? strtoull(seed, NULL, 10) : 1;
    late.haste = (int[]){0, 3, 8, 16}[late.chance % 4];
    late.event_count = options->event_count;
    late.scratch_bytes = (int64_t)zinf_device_streams_scratch(options->scratch_bytes);
    late.events = zinf_alloc((size_t)(options->event_count + 1) * sizeof *late.events);
    for (int s = 0; s < ZINF_STREAM_COUNT; s++)
        late.last[s] = &late.first[s];
    *device = (struct zinf_device){.backend = &backend, .state = &late};
    list(&device->properties, 1, NULL, 0);
    if (backend.products)
        zinf_late_library(options);
    return ZINF_OK;
}

static void device_close(struct zinf_device *device)
{
    if (!device->state)
        return;
    while (move())
        ;
    zinf_late_library(NULL);
    for (int s = 0; s < ZINF_STREAM_COUNT; s++)
        ZINF_ASSERT(!late.first[s]);
    for (int i = 0; i < late.memory_count; i++) {
        munmap(late.memory[i].from, late.memory[i].size);
        munmap(late.memory[i].bytes, late.memory[i].size);
    }
    late.memory_count = late.pinned_count = 0;
    free(late.events);
    late.events = NULL;
    *device = (struct zinf_device){0};
}

static void *allocate(struct zinf_device *device, size_t bytes)
{
    size_t size = (bytes + 4095) / 4096 * 4096 + 4096;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    struct range *range = &late.memory[late.memory_count];
    const char *refused = getenv("ZINF_LATE_REFUSES"); /* what is larger */
    (void)device;
    if (refused && bytes > strtoull(refused, NULL, 10))
        return NULL;
    ZINF_ASSERT(late.memory_count < LARGEST_ALLOCATIONS);
    range->size = size;
    range->from = mmap(NULL, size, PROT_NONE, flags, -1, 0);
    range->bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (range->from == MAP_FAILED || range->bytes == MAP_FAILED)
        return NULL;
    late.memory_count++;
    return range->from;
}

static int pin(struct zinf_device *device, void *memory, size_t bytes)
{
    (void)device;
    ZINF_ASSERT(late.pinned_count < LARGEST_PINS);
    late.pinned[late.pinned_count++] = (struct range){memory, memory, bytes};
    return ZINF_OK;
}

static void use(struct zinf_device *device, enum zinf_stream stream)
{
    (void)device;
    current = stream;
}

/* The call waits for host memory that is not pinned, as the contract of copy() says. */
static void copy(struct zinf_device *device, enum zinf_stream stream, void *to, const void *from,
                 size_t bytes)
{
    const struct work work = {.kind = COPY, .to = to, .from = from, .bytes = bytes};
    bool waits = false;
    ZINF_ASSERT(!tape);
    (void)device;
    pthread_mutex_lock(&late.mutex);
    for (int i = 0; i < 2; i++) {
        const void *side = i ? from : to;
        waits = waits || (!find(late.memory, late.memory_count, side, bytes) &&
                          !find(late.pinned, late.pinned_count, side, bytes));
    }
    append(stream, &work);
    if (waits)
        finish(stream);
    pthread_mutex_unlock(&late.mutex);
}

static void record(struct zinf_device *device, int event, enum zinf_stream stream)
{
    (void)device;
    ZINF_ASSERT(!tape);
    pthread_mutex_lock(&late.mutex);
    ZINF_ASSERT(event >= 0 && event < late.event_count);
    const struct work work = {
        .kind = RECORD, .event = event, .generation = ++late.events[event].recorded};
    append(stream, &work);
    pthread_mutex_unlock(&late.mutex);
}

static void wait_for(struct zinf_device *device, enum zinf_stream stream, int event)
{
    (void)device;
    ZINF_ASSERT(!tape);
    pthread_mutex_lock(&late.mutex);
    ZINF_ASSERT(event >= 0 && event < late.event_count);
    if (late.events[event].recorded == 0) {
        zinf_error_log("late device: event %d is waited for and was never recorded", event);
        zinf_abort(ZINF_E_RUNTIME);
    }
    const struct work work = {
        .kind = WAIT, .event = event, .generation = late.events[event].recorded};
    if (stream == ZINF_STREAM_HOST)
        wait_for_host(event);
    else
        append(stream, &work);
    pthread_mutex_unlock(&late.mutex);
}

/* Who asks again and again, while nobody puts anything into a stream, lets the streams go on: who
 * asks now and then, as the mover does, must not take their lateness from them. */
static bool reached(struct zinf_device *device, int event)
{
    (void)device;
    pthread_mutex_lock(&late.mutex);
    const struct event *e = &late.events[event];
    ZINF_ASSERT(event >= 0 && event < late.event_count && e->recorded > 0);
    uint64_t pieces = late.asked++ >= (16 - late.haste) / 2 ? 1 + draw(64) : 0;
    for (; pieces > 0 && e->reached < e->recorded && move(); pieces--)
        ;
    bool is = e->reached == e->recorded;
    pthread_mutex_unlock(&late.mutex);
    return is;
}

static void append_library(struct fake_stream *stream, bool (*poll)(void *context), void *context)
{
    const struct work work = {.kind = LIBRARY, .poll = poll, .context = context};
    pthread_mutex_lock(&late.mutex);
    append((enum zinf_stream)stream->number, &work);
    pthread_mutex_unlock(&late.mutex);
}

static void *native_stream(struct zinf_device *device, enum zinf_stream stream)
{
    (void)device;
    late.streams[stream] = (struct fake_stream){append_library, real_or_host, (int)stream};
    return &late.streams[stream];
}

void *zinf_late_stream(void)
{
    return native_stream(NULL, current);
}

void zinf_late_finish(void)
{
    pthread_mutex_lock(&late.mutex);
    finish(current);
    pthread_mutex_unlock(&late.mutex);
}

void zinf_late_copy(void *to, const void *from, size_t bytes)
{
    copy(NULL, current, to, from, bytes);
}

void *zinf_late_allocate(size_t bytes)
{
    return allocate(NULL, bytes);
}

static double elapsed(struct zinf_device *device, int first, int second)
{
    (void)device;
    pthread_mutex_lock(&late.mutex);
    const struct event *a = &late.events[first], *b = &late.events[second];
    bool pending = a->reached < a->recorded || b->reached < b->recorded;
    const double s = pending ? -1 : b->reached_s - a->reached_s;
    pthread_mutex_unlock(&late.mutex);
    return s;
}

/* ---- recordings ---- */

static void release(struct zinf_device *device, void *recording)
{
    struct tape *own = recording;
    (void)device;
    free(own->works);
    free(own);
}

/* A recording keeps the operations with their arguments: a stale one is a wrong number. It holds
 * operations only, and none that the device has not met: ZINF_LATE_RECORDER=refuse fails. */
static void *record_operations(struct zinf_device *device, void (*call)(void *context),
                               void *context, size_t *bytes, struct zinf_error *error)
{
    const char *wish = getenv("ZINF_LATE_RECORDER");
    (void)device;
    ZINF_ASSERT(!tape && current == ZINF_STREAM_COMPUTE);
    if (wish && !strcmp(wish, "refuse")) {
        zinf_error_set(error, ZINF_E_RUNTIME,
                       "this device was told to refuse (ZINF_LATE_RECORDER)");
        return NULL;
    }
    struct tape *own = zinf_alloc(sizeof *own);
    tape = own;
    call(context);
    tape = NULL;
    if (own->failed) {
        release(device, own);
        zinf_error_set(error, ZINF_E_RUNTIME, "the library of matrix products cannot be recorded");
        return NULL;
    }
    *bytes = (size_t)own->count * 1000;
    return own;
}

static void launch(struct zinf_device *device, void *recording)
{
    const struct tape *own = recording;
    (void)device;
    ZINF_ASSERT(!tape && current == ZINF_STREAM_COMPUTE);
    pthread_mutex_lock(&late.mutex);
    for (int i = 0; i < own->count; i++)
        append(ZINF_STREAM_COMPUTE, &own->works[i]);
    pthread_mutex_unlock(&late.mutex);
}

static const struct zinf_device_recorder recorder = {
    .record = record_operations, .launch = launch, .release = release};

static struct zinf_device_backend backend = {
    .name = "late",
    .operations = operations,
    .list = list,
    .open = device_open,
    .close = device_close,
    .allocate = allocate,
    .pin = pin,
    .use = use,
    .square_sum = square_sum_to,
    .copy = copy,
    .record = record,
    .wait = wait_for,
    .reached = reached,
    .elapsed = elapsed,
    .measure = measure,
    .unopened_bytes = unopened_bytes,
    .native_stream = native_stream,
    .recorder = &recorder,
};

/* A program that is linked with tests/late_link.c has another. */
__attribute__((weak)) const struct zinf_device_link *zinf_late_link(void)
{
    return NULL;
}

/* And one that is linked with tests/late_cuda.c another library. */
__attribute__((weak)) const struct zinf_device_products *zinf_late_products(void)
{
    return NULL;
}

__attribute__((weak)) void zinf_late_library(const struct zinf_device_options *options)
{
    (void)options;
}

__attribute__((weak)) bool zinf_late_product(const struct zinf_matmul *op)
{
    (void)op;
    return false;
}

const struct zinf_device_backend *const *zinf_device_backends(void)
{
    static const struct zinf_device_backend *const all[] = {&backend, &zinf_cpu_device, NULL};
    backend.link = getenv("ZINF_LATE_LINK") ? zinf_late_link() : NULL;
    backend.products = getenv("ZINF_LATE_PRODUCTS") ? zinf_late_products() : NULL;
    return all;
}
