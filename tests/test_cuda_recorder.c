/*
 * The CUDA recorder over a runtime of this file: what happens to a run when a call fails while it
 * is recorded, at each place where one can. The recorder's own calls are renamed to the fakes.
 */
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <string.h>

#include "cuda/cuda.h"
#include "cuda/recorder.h"

/* The fake runtime: which call fails, and what is left open or pending behind it. */
static const char *failing;
static int captures, graphs, execs, pending, issued;

static cudaError_t result(const char *call, cudaError_t code)
{
    if (!failing || strcmp(call, failing) != 0)
        return cudaSuccess;
    pending = code;
    return code;
}

static cudaError_t begin(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    cudaError_t code = result("begin", cudaErrorIllegalState);
    captures += code == cudaSuccess && mode == cudaStreamCaptureModeThreadLocal && stream;
    return code;
}

static cudaError_t end(cudaStream_t stream, cudaGraph_t *graph)
{
    cudaError_t code = result("issue", cudaErrorStreamCaptureInvalidated);
    captures -= stream != NULL;
    if (code != cudaSuccess)
        return code;
    graphs++;
    *graph = (cudaGraph_t)&graphs;
    return result("end", cudaErrorStreamCaptureUnjoined);
}

static cudaError_t instantiate_fake(cudaGraphExec_t *exec, cudaGraph_t graph,
                                    unsigned long long flags)
{
    cudaError_t code = result("instantiate", cudaErrorMemoryAllocation);
    if (code != cudaSuccess || !graph || flags)
        return code;
    execs++;
    *exec = (cudaGraphExec_t)&execs;
    return code;
}

static cudaError_t upload(cudaGraphExec_t exec, cudaStream_t stream)
{
    return exec && stream ? result("upload", cudaErrorMemoryAllocation) : cudaErrorInvalidValue;
}

static cudaError_t destroy_graph(cudaGraph_t graph)
{
    graphs -= graph != NULL;
    return cudaSuccess;
}

static cudaError_t destroy_exec(cudaGraphExec_t exec)
{
    execs -= exec != NULL;
    return cudaSuccess;
}

/* 100 bytes a graph that is ready. */
static cudaError_t memory(size_t *available, size_t *total)
{
    *total = 1000;
    *available = *total - 100 * (size_t)execs;
    return cudaSuccess;
}

static cudaError_t synchronize(cudaStream_t stream)
{
    return stream ? cudaSuccess : cudaErrorInvalidValue;
}

static cudaError_t last_error(void)
{
    cudaError_t code = (cudaError_t)pending;
    pending = cudaSuccess;
    return code;
}

static cudaError_t launch_fake(cudaGraphExec_t exec, cudaStream_t stream)
{
    issued += exec && stream;
    return cudaSuccess;
}

static void *fake_stream(void)
{
    return &captures;
}

static bool never(void)
{
    return false;
}

static void fake_check(int code, const char *what, const char *file, int line)
{
    if (code != cudaSuccess && !zinf_cuda_recording_failed(code, what))
        printf("%s:%d: %s: the run would have ended\n", file, line, what);
}

#define cudaStreamBeginCapture        begin
#define cudaStreamEndCapture          end
#define cudaGraphInstantiateWithFlags instantiate_fake
#define cudaGraphUpload               upload
#define cudaGraphDestroy              destroy_graph
#define cudaGraphExecDestroy          destroy_exec
#define cudaMemGetInfo                memory
#define cudaStreamSynchronize         synchronize
#define cudaGetLastError              last_error
#define cudaGraphLaunch               launch_fake
#define zinf_cuda_stream              fake_stream
#define zinf_cuda_synchronous         never
#define zinf_cuda_check               fake_check
#include "../cuda/recorder.c" /* NOLINT */

/* Two kernels, of which a library makes the first fail, as after a call that waits. */
static void two_kernels(void *context)
{
    (void)context;
    CUDA_CHECK(result("issue", cudaErrorStreamCaptureUnsupported));
    CUDA_CHECK(failing && !strcmp(failing, "issue") ? cudaErrorStreamCaptureInvalidated
                                                    : cudaSuccess);
}

static int failures;

static void expect(bool holds, const char *what)
{
    if (holds)
        return;
    printf("FAIL: with %s failing: %s\n", failing ? failing : "nothing", what);
    failures++;
}

/* words: what the error has to name. */
static void fails(const char *call, const char *words)
{
    struct zinf_error error = {0};
    size_t bytes = 0;
    failing = call;
    expect(!zinf_cuda_recorder.record(NULL, two_kernels, NULL, &bytes, &error), "no recording");
    expect(strstr(error.text, words) != NULL, error.text);
    expect(!captures && !graphs && !execs, "nothing is left open");
    expect(!pending, "no error is left for a later call");
    failing = NULL;
    expect(!zinf_cuda_recording_failed(cudaErrorInvalidValue, "later"), "errors count again");
}

int main(void)
{
    struct zinf_error error = {0};
    size_t bytes = 0;
    fails("begin", "cudaStreamBeginCapture failed");
    fails("issue", "result(\"issue\", cudaErrorStreamCaptureUnsupported) failed"); /* the first */
    fails("end", "cudaStreamEndCapture failed");
    fails("instantiate", "cudaGraphInstantiate failed");
    fails("upload", "cudaGraphUpload failed");
    void *made = zinf_cuda_recorder.record(NULL, two_kernels, NULL, &bytes, &error);
    expect(made && bytes == 100 && execs == 1 && !graphs, "a recording of 100 bytes");
    zinf_cuda_recorder.launch(NULL, made);
    expect(issued == 1, "one launch");
    zinf_cuda_recorder.release(NULL, made);
    expect(!execs, "given back");
    return failures > 0;
}
