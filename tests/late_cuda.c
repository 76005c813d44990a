/*
 * The product library of the CUDA backend (cuda/matmul.c, cuda/matmul_choose.c) on the device of
 * tests/late_device.c: what they use of cuda/device.c and of the CUDA runtime, in that device's
 * memory and streams. With tests/fake_cublaslt.c as the library it runs on any machine. Events tell
 * the library's own clock, so a measurement's end is known.
 *
 * Borrowed memory is one piece: ZINF_LATE_FREE bytes, 64 MiB unless it is set.
 */
#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/cuda.h"
#include "cuda/libraries.h"
#include "cuda/matmul.h"
#include "cuda/recorder.h"
#include "fake_stream.h"
#include "late_cuda.h"

enum { SCRATCH = 32 << 20, BORROWED = 64 << 20 };

static struct {
    bool open, lent;
    char *scratch, *borrowed;
} own;

static size_t free_bytes(void)
{
    const char *text = getenv("ZINF_LATE_FREE");
    return text ? (size_t)atol(text) : BORROWED;
}

/* ---- what late_device.c asks for ---- */

const struct zinf_device_products *zinf_late_products(void)
{
    return &zinf_cuda_products;
}

void zinf_late_library(const struct zinf_device_options *options)
{
    if (options) {
        own.scratch = zinf_late_allocate(SCRATCH);
        own.borrowed = zinf_late_allocate(free_bytes());
        zinf_cuda_matmul_open(SCRATCH, options->tf32);
    } else if (own.open) {
        zinf_cuda_matmul_close();
    }
    own.open = options != NULL;
}

bool zinf_late_product(const struct zinf_matmul *op)
{
    enum zinf_cuda_made made = own.open ? zinf_cuda_matmul_library(op) : ZINF_CUDA_NOTHING;
    if (made == ZINF_CUDA_PRODUCT)
        zinf_ops_follow(zinf_device_backends()[0]->operations(), op);
    return made != ZINF_CUDA_NOTHING;
}

/* ---- of cuda/device.c ---- */

void zinf_cuda_check(int code, const char *what, const char *file, int line)
{
    if (code == cudaSuccess)
        return;
    zinf_error_log("late CUDA: %s failed at %s:%d: %d", what, file, line, code);
    zinf_abort(ZINF_E_RUNTIME);
}

void zinf_cuda_matmul(const struct zinf_matmul *op)
{
    zinf_device_backends()[0]->operations()->matmul(op);
}

void *zinf_cuda_stream(void)
{
    return zinf_late_stream();
}

void *zinf_cuda_scratch(size_t bytes)
{
    ZINF_ASSERT(bytes <= SCRATCH);
    return own.scratch;
}

bool zinf_cuda_synchronous(void)
{
    return false;
}

/* The recorder of this device is its own. */
bool zinf_cuda_recording_failed(int code, const char *what)
{
    (void)code;
    (void)what;
    return false;
}

void zinf_cuda_add_bias(const struct zinf_matmul *op)
{
    (void)op;
    ZINF_ASSERT(!"no product of a pass has a bias of another type");
}

/* ---- of the runtime ---- */

struct CUevent_st {
    double at_s;
};

static bool take_time(void *context)
{
    struct CUevent_st *event = context;
    double (*clock_s)(void) = NULL;
    *(void **)&clock_s = zinf_cuda_library_symbol(&zinf_cuda_cublaslt, "fake_cublaslt_s");
    event->at_s = clock_s ? clock_s() : 0;
    return true;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    *event = zinf_alloc(sizeof **event);
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    free(event);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    struct fake_stream *to = (struct fake_stream *)stream;
    to->append(to, take_time, event);
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    (void)event;
    zinf_late_finish();
    return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t begin, cudaEvent_t end)
{
    *milliseconds = (float)(1e3 * (end->at_s - begin->at_s));
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    (void)stream;
    zinf_late_finish();
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
    *device = 0;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    (void)attribute;
    (void)device;
    *value = 1 << 20;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
    *available = own.lent ? 0 : free_bytes();
    *total = (size_t)4 << 30;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    if (own.lent || bytes > free_bytes())
        return cudaErrorMemoryAllocation;
    own.lent = true;
    *memory = own.borrowed;
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory)
{
    ZINF_ASSERT(memory == NULL || (own.lent && memory == own.borrowed));
    own.lent = own.lent && !memory;
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    (void)kind;
    (void)stream;
    zinf_late_copy(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void)
{
    return cudaSuccess;
}
