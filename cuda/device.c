/*
 * A GPU as a device: streams with their events, memory, and the check of every call. See
 * device/device.h.
 *
 * One device a process: operations have no device argument (device/ops.h), so the open device
 * stands here and the stream is the calling thread's. The streams are non-blocking (the default
 * stream would order everything after everything), the events carry times: a record costs about a
 * microsecond and a step has some hundreds. Modules are loaded when the device is opened, not at a
 * kernel's first launch: that launch may wait for the whole device, and with a collective of NCCL
 * waiting for a peer it would wait for ever.
 */
#include "device/device.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <cuda_runtime_api.h>

#include "cuda/cuda.h"
#include "cuda/libraries.h"
#include "cuda/link.h"
#include "cuda/matmul.h"
#include "cuda/monitor.h"
#include "cuda/recorder.h"
#include "cuda/tensor_map.h"

/* OLDEST_MAJOR: of the compute capability that there is code for, see cuda/Makefile.inc. */
enum { STREAMS = ZINF_STREAM_COUNT, LARGEST_PIN = 1 << 30, OLDEST_MAJOR = 8 };

/* Memory that close() gives back. */
struct memory {
    struct memory *next;
    void *base;
    bool pinned; /* registered host memory, not ours */
};

struct stream {
    cudaStream_t handle;
    size_t scratch_bytes;
    void *scratch, *result; /* result: 8 bytes */
    uint64_t *landed;       /* pinned: where result comes to the host */
};

struct state {
    struct stream streams[STREAMS];
    cudaEvent_t *events;
    int event_count, index;
    struct memory *memory;
};

extern const struct zinf_device_backend zinf_cuda_device;

static struct state *opened; /* the process's device */
static _Thread_local enum zinf_stream current = ZINF_STREAM_COMPUTE;

/* --- Errors --- */

static const char *advice(int code)
{
    switch (code) {
    case cudaErrorInsufficientDriver:
        return "; the driver is older than this zinf's CUDA: install a newer one";
    case cudaErrorNoKernelImageForDevice:
        return "; the card is older than compute capability 8.0, the oldest that zinf has code for";
    case cudaErrorMemoryAllocation:
        return "; other processes may use the device: see nvidia-smi";
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
        return "; ZINF_CUDA_SYNC=1 names the kernel that did it";
    default:
        return "";
    }
}

void zinf_cuda_check(int code, const char *what, const char *file, int line)
{
    if (code == cudaSuccess || zinf_cuda_recording_failed(code, what))
        return;
    zinf_error_log("CUDA: %s failed at %s:%d: %s (%s)%s", what, file, line,
                   cudaGetErrorString((cudaError_t)code), cudaGetErrorName((cudaError_t)code),
                   advice(code));
    zinf_abort(ZINF_E_RUNTIME);
}

/* --- What operations use --- */

static struct stream *own_stream(void)
{
    ZINF_ASSERT(opened != NULL);
    return &opened->streams[current];
}

void *zinf_cuda_stream(void)
{
    return own_stream()->handle;
}

void *zinf_cuda_scratch(size_t bytes)
{
    struct stream *own = own_stream();
    if (bytes > own->scratch_bytes) {
        zinf_error_log("CUDA: an operation needs %zu bytes of working memory, the stream has %zu: "
                       "zinf_device_scratch_bytes() was asked for a smaller shape",
                       bytes, own->scratch_bytes);
        zinf_abort(ZINF_E_RUNTIME);
    }
    return own->scratch;
}

void *zinf_cuda_result(void)
{
    return own_stream()->result;
}

uint64_t zinf_cuda_result_read(void)
{
    struct stream *own = own_stream();
    CUDA_CHECK(cudaMemcpyAsync(own->landed, own->result, sizeof *own->landed,
                               cudaMemcpyDeviceToHost, own->handle));
    CUDA_CHECK(cudaStreamSynchronize(own->handle));
    return *own->landed;
}

static bool synchronous;

static void read_synchronous(void)
{
    const char *value = getenv("ZINF_CUDA_SYNC");
    synchronous = value && !strcmp(value, "1");
}

bool zinf_cuda_synchronous(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, read_synchronous);
    return synchronous;
}

/* --- The devices of this machine --- */

/* Dense 16-bit rates in FLOP/s from NVIDIA's data sheets (which print twice as much "with
 * sparsity"). */
static const struct peak {
    const char *name; /* a part of the device's name; the first that fits counts */
    double flops;
} peaks[] = {
    {"GB200", 2.45e15},      {"B200", 2.25e15},       {"GH200", 989.5e12}, {"H200", 989.5e12},
    {"H100 PCIe", 756.5e12}, {"H100 NVL", 835.5e12},  {"H800", 989.5e12},  {"H100", 989.5e12},
    {"H20", 148e12},         {"A100", 312e12},        {"A800", 312e12},    {"L40S", 362e12},
    {"A40", 149.7e12},       {"RTX A6000", 154.8e12}, {"A30", 165e12},
};

static double peak_of(const char *name)
{
    for (size_t i = 0; i < sizeof peaks / sizeof *peaks; i++)
        if (strstr(name, peaks[i].name))
            return peaks[i].flops;
    return 0;
}

/** "no NVIDIA driver" and the like; clears the error, which would be blamed on a later call. */
static void explain(cudaError_t code, char *why, size_t why_bytes)
{
    int driver = 0;
    cudaGetLastError();
    cudaDriverGetVersion(&driver);
    if (code == cudaErrorInsufficientDriver && driver == 0)
        snprintf(why, why_bytes, "no NVIDIA driver is loaded");
    else if (code == cudaErrorInsufficientDriver)
        snprintf(why, why_bytes,
                 "the NVIDIA driver (for CUDA %d.%d) is older than this zinf's CUDA %d.%d: install "
                 "a newer driver, or build zinf with a toolkit of CUDA %d.%d or older "
                 "(configure --with-cuda=DIR)",
                 driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000,
                 CUDART_VERSION % 1000 / 10, driver / 1000, driver % 1000 / 10);
    else if (code == cudaErrorNoDevice)
        snprintf(why, why_bytes,
                 "the NVIDIA driver sees no GPU: CUDA_VISIBLE_DEVICES may hide them, or a job step "
                 "that has asked for none (in Slurm: srun --gpus-per-node=N --gpu-bind=none)");
    else
        snprintf(why, why_bytes, "%s (%s)", cudaGetErrorString(code), cudaGetErrorName(code));
}

static void describe(struct zinf_device_properties *out, int index)
{
    struct cudaDeviceProp about;
    int driver = 0, runtime = 0;
    *out = (struct zinf_device_properties){0};
    cudaError_t code = cudaGetDeviceProperties(&about, index);
    if (code != cudaSuccess) {
        explain(code, out->name, sizeof out->name);
        return;
    }
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    snprintf(out->name, sizeof out->name, "%.127s", about.name);
    snprintf(out->bus_id, sizeof out->bus_id, "%08x:%02x:%02x.0", (unsigned)about.pciDomainID,
             (unsigned)about.pciBusID, (unsigned)about.pciDeviceID);
    snprintf(out->version, sizeof out->version, "driver %d.%d, runtime %d.%d", driver / 1000,
             driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    out->memory_bytes = (int64_t)about.totalGlobalMem;
    out->peak_flops = peak_of(about.name);
    out->major = about.major;
    out->minor = about.minor;
    out->processors = about.multiProcessorCount;
}

static bool too_old(int index)
{
    int major = 0;
    return cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index) ==
               cudaSuccess &&
           major < OLDEST_MAJOR;
}

/* "Tesla T4 has compute capability 7.5, ..." */
static void say_too_old(int index, char *out, size_t out_bytes)
{
    struct zinf_device_properties p;
    describe(&p, index);
    snprintf(out, out_bytes,
             "%s has compute capability %d.%d, and this zinf has code for %d.0 and newer", p.name,
             p.major, p.minor, OLDEST_MAJOR);
}

/* Where all are too old there is none; one among others keeps its number. */
static int list(struct zinf_device_properties *out, int room, char *why, size_t why_bytes)
{
    int count = 0, old = 0;
    cudaError_t code = cudaGetDeviceCount(&count);
    if (code == cudaSuccess && count == 0)
        code = cudaErrorNoDevice;
    if (code != cudaSuccess) {
        explain(code, why, why_bytes);
        return 0;
    }
    while (old < count && too_old(old))
        old++;
    if (old == count) {
        say_too_old(0, why, why_bytes);
        return 0;
    }
    for (int i = 0; i < count && i < room; i++)
        describe(&out[i], i);
    return count;
}

/* No context is made here. */
static int64_t unopened_bytes(int index)
{
    struct zinf_device_properties about;
    describe(&about, index);
    return zinf_cuda_monitor_free(about.bus_id, about.memory_bytes);
}

/* --- Life --- */

static int refuse(struct zinf_error *error, cudaError_t code, int index, const char *what)
{
    cudaGetLastError();
    return zinf_error_set(error,
                          code == cudaErrorMemoryAllocation ? ZINF_E_DOES_NOT_FIT : ZINF_E_RUNTIME,
                          "device cuda %d: %s: %s (%s)%s", index, what, cudaGetErrorString(code),
                          cudaGetErrorName(code), advice((int)code));
}

static cudaError_t open_stream(struct stream *own, size_t scratch_bytes)
{
    cudaError_t code = cudaStreamCreateWithFlags(&own->handle, cudaStreamNonBlocking);
    if (code == cudaSuccess)
        code = cudaMalloc(&own->result, sizeof *own->landed);
    if (code == cudaSuccess)
        code = cudaHostAlloc((void **)&own->landed, sizeof *own->landed, cudaHostAllocDefault);
    own->scratch_bytes = scratch_bytes;
    if (code == cudaSuccess && scratch_bytes)
        code = cudaMalloc(&own->scratch, scratch_bytes);
    return code;
}

static cudaError_t open_state(struct state *state, const struct zinf_device_options *options)
{
    cudaError_t code = cudaSetDevice(options->index);
    for (int i = 0; code == cudaSuccess && i < STREAMS; i++)
        code = open_stream(&state->streams[i],
                           zinf_device_stream_scratch((enum zinf_stream)i, options->scratch_bytes));
    for (; code == cudaSuccess && state->event_count < options->event_count; state->event_count++)
        code = cudaEventCreateWithFlags(&state->events[state->event_count], cudaEventBlockingSync);
    return code;
}

static void device_close(struct zinf_device *device)
{
    struct state *state = device->state;
    if (!state)
        return;
    cudaDeviceSynchronize(); /* errors: the run is over, and was told by whoever saw them first */
    zinf_cuda_matmul_close();
    for (int i = 0; i < state->event_count; i++)
        cudaEventDestroy(state->events[i]);
    for (int i = 0; i < STREAMS; i++) {
        cudaFree(state->streams[i].scratch);
        cudaFree(state->streams[i].result);
        cudaFreeHost(state->streams[i].landed);
        if (state->streams[i].handle)
            cudaStreamDestroy(state->streams[i].handle);
    }
    for (struct memory *m = state->memory, *next; m; m = next) {
        next = m->next;
        if (m->pinned)
            cudaHostUnregister(m->base);
        else
            cudaFree(m->base);
        free(m);
    }
    cudaGetLastError();
    free(state->events);
    free(state);
    opened = NULL;
    *device = (struct zinf_device){0};
}

static void measure(struct zinf_device *device)
{
    size_t available = 0, total = 0;
    if (cudaMemGetInfo(&available, &total) == cudaSuccess)
        device->properties.free_bytes = (int64_t)available;
}

static int device_open(struct zinf_device *device, const struct zinf_device_options *options,
                       struct zinf_error *error)
{
    char why[512];
    const char *attention = getenv("ZINF_ATTENTION");
    ZINF_ASSERT(opened == NULL);
    if (attention && strcmp(attention, "auto") != 0 && strcmp(attention, "mma") != 0)
        return zinf_error_set(error, ZINF_E_USAGE, "ZINF_ATTENTION is \"%s\", not auto or mma",
                              attention);
    setenv("CUDA_MODULE_LOADING", "EAGER", 0);
    int count = list(NULL, 0, why, sizeof why);
    if (count == 0)
        return zinf_error_set(error, ZINF_E_USAGE, "device cuda: %s", why);
    if (options->index < 0 || options->index >= count)
        return zinf_error_set(error, ZINF_E_USAGE, "device cuda %d: there are %d, counted from 0",
                              options->index, count);
    if (too_old(options->index)) {
        say_too_old(options->index, why, sizeof why);
        return zinf_error_set(error, ZINF_E_USAGE,
                              "device cuda %d: %s; hide it by CUDA_VISIBLE_DEVICES", options->index,
                              why);
    }
    struct state *state = zinf_alloc(sizeof *state);
    state->index = options->index;
    state->events = zinf_alloc(sizeof *state->events * (size_t)(options->event_count + 1));
    *device = (struct zinf_device){.backend = &zinf_cuda_device, .state = state};
    describe(&device->properties, options->index);
    cudaError_t code = open_state(state, options);
    if (code != cudaSuccess) {
        int status = refuse(error, code, options->index, "cannot be opened");
        device_close(device);
        return status;
    }
    measure(device);
    opened = state;
    zinf_cuda_ops.name = zinf_cuda_hopper() ? "cuda 9.0a" : "cuda";
    zinf_cuda_matmul_open(options->scratch_bytes, options->tf32);
    return ZINF_OK;
}

/* --- Memory --- */

static void remember(struct state *state, void *base, bool pinned)
{
    struct memory *m = zinf_alloc(sizeof *m);
    *m = (struct memory){state->memory, base, pinned};
    state->memory = m;
}

static void *allocate(struct zinf_device *device, size_t bytes)
{
    void *base = NULL; /* cudaMalloc aligns to 512 bytes, and to pages of 2 MiB from 1 MiB on */
    size_t rounded = (bytes + 4095) / 4096 * 4096 + 4096;
    if (cudaMalloc(&base, rounded) != cudaSuccess) {
        cudaGetLastError();
        return NULL;
    }
    remember(device->state, base, false);
    CUDA_CHECK(cudaMemset(base, 0, rounded));
    CUDA_CHECK(cudaDeviceSynchronize());
    return (char *)base + (4096 - (uintptr_t)base % 4096) % 4096;
}

static int pin(struct zinf_device *device, void *memory, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        size_t piece = bytes - done < LARGEST_PIN ? bytes - done : LARGEST_PIN;
        void *base = (char *)memory + done;
        cudaError_t code =
            cudaHostRegister(base, piece, cudaHostRegisterPortable | cudaHostRegisterMapped);
        if (code != cudaSuccess) {
            cudaGetLastError();
            zinf_error_log("CUDA: %zu bytes of host memory cannot be pinned: %s (%s); what is "
                           "locked already and RLIMIT_MEMLOCK count: see zinf env",
                           piece, cudaGetErrorString(code), cudaGetErrorName(code));
            return ZINF_E_DOES_NOT_FIT;
        }
        remember(device->state, base, true);
        done += piece;
    }
    return ZINF_OK;
}

/* --- Streams --- */

static void use(struct zinf_device *device, enum zinf_stream stream)
{
    const struct state *state = device->state;
    CUDA_CHECK(cudaSetDevice(state->index)); /* a new thread begins with device 0 */
    current = stream;
}

static void square_sum(struct zinf_device *device, const struct zinf_scan *op, const void *x,
                       double *sum)
{
    (void)device;
    zinf_cuda_square_sum_to(op, x, sum);
}

static void copy(struct zinf_device *device, enum zinf_stream stream, void *to, const void *from,
                 size_t bytes)
{
    const struct state *state = device->state;
    CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, state->streams[stream].handle));
}

static cudaEvent_t event_of(const struct state *state, int event)
{
    ZINF_ASSERT(event >= 0 && event < state->event_count);
    return state->events[event];
}

static void record(struct zinf_device *device, int event, enum zinf_stream stream)
{
    const struct state *state = device->state;
    CUDA_CHECK(cudaEventRecord(event_of(state, event), state->streams[stream].handle));
}

static void wait_for(struct zinf_device *device, enum zinf_stream stream, int event)
{
    const struct state *state = device->state;
    if (stream == ZINF_STREAM_HOST)
        CUDA_CHECK(cudaEventSynchronize(event_of(state, event)));
    else
        CUDA_CHECK(cudaStreamWaitEvent(state->streams[stream].handle, event_of(state, event), 0));
}

static bool reached(struct zinf_device *device, int event)
{
    cudaError_t code = cudaEventQuery(event_of(device->state, event));
    if (code == cudaErrorNotReady) {
        cudaGetLastError(); /* else the next check would find it */
        return false;
    }
    CUDA_CHECK(code);
    return true;
}

static void *native_stream(struct zinf_device *device, enum zinf_stream stream)
{
    const struct state *state = device->state;
    return state->streams[stream].handle;
}

static double elapsed(struct zinf_device *device, int first, int second)
{
    const struct state *state = device->state;
    float milliseconds = 0;
    cudaError_t code =
        cudaEventElapsedTime(&milliseconds, event_of(state, first), event_of(state, second));
    if (code == cudaErrorNotReady || code == cudaErrorInvalidResourceHandle) {
        cudaGetLastError();
        return -1;
    }
    CUDA_CHECK(code);
    return milliseconds / 1e3;
}

/* --- Libraries --- */

static void libraries(char *out, size_t out_bytes)
{
    struct zinf_cuda_library *const all[] = {&zinf_cuda_cublaslt, &zinf_cuda_nccl};
    size_t used = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all && used < out_bytes; i++) {
        const char *line = all[i]->why;
        int version = 0;
        if (!zinf_cuda_library_open(all[i])) {
            line = all[i]->path;
            version = all[i]->version(all[i]->handle);
        }
        used += (size_t)snprintf(out + used, out_bytes - used, "%s: %s%s", all[i]->name,
                                 version ? "" : "not found: ", line);
        if (version && used < out_bytes)
            used += (size_t)snprintf(out + used, out_bytes - used, ", version %d", version);
        if (used < out_bytes)
            used += (size_t)snprintf(out + used, out_bytes - used, "\n");
    }
}

static const struct zinf_ops *operations(void)
{
    return &zinf_cuda_ops;
}

const struct zinf_device_backend zinf_cuda_device = {
    .name = "cuda",
    .operations = operations,
    .libraries = libraries,
    .list = list,
    .open = device_open,
    .close = device_close,
    .allocate = allocate,
    .pin = pin,
    .use = use,
    .square_sum = square_sum,
    .copy = copy,
    .record = record,
    .wait = wait_for,
    .reached = reached,
    .elapsed = elapsed,
    .measure = measure,
    .unopened_bytes = unopened_bytes,
    .native_stream = native_stream,
    .link = &zinf_cuda_link,
    .products = &zinf_cuda_products,
    .recorder = &zinf_cuda_recorder,
};
