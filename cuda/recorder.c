/*
 * Runs of operations as CUDA graphs. See struct zinf_device_recorder.
 *
 * The compute stream is captured while the calls are issued, in the calling thread's mode: the
 * mover's copies and events in other streams go on. What the calls may not do then (allocate, wait,
 * ask a library for an algorithm) they have done the first time, as the caller promises. A library
 * that does it all the same makes the capture invalid: its code is kept here instead of ending the
 * run, the capture is closed, the error is cleared, and nothing has happened on the device.
 *
 * A node takes device memory, which is measured: what is free before and behind, upload included.
 */
#include "cuda/recorder.h"

#include <cuda_runtime_api.h>

#include "cuda/cuda.h"

static _Thread_local struct {
    bool active;
    int code; /* of the first call that failed; 0: none has */
    const char *what;
} recording;

bool zinf_cuda_recording_failed(int code, const char *what)
{
    if (!recording.active)
        return false;
    if (!recording.code) {
        recording.code = code;
        recording.what = what;
    }
    return true;
}

static size_t free_bytes(void)
{
    size_t available = 0, total = 0;
    return cudaMemGetInfo(&available, &total) == cudaSuccess ? available : 0;
}

/* `issue` as a graph. What was captured is released in any case. */
static cudaError_t capture(void (*issue)(void *context), void *context, cudaGraph_t *graph)
{
    cudaStream_t stream = zinf_cuda_stream();
    recording.code = cudaSuccess;
    recording.what = "cudaStreamBeginCapture";
    cudaError_t code = cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    if (code != cudaSuccess)
        return code;
    recording.active = true;
    issue(context);
    recording.active = false;
    code = cudaStreamEndCapture(stream, graph);
    if (!recording.code)
        recording.what = "cudaStreamEndCapture";
    return recording.code ? (cudaError_t)recording.code : code;
}

static cudaError_t instantiate(cudaGraphExec_t *exec, cudaGraph_t graph)
{
    recording.what = "cudaGraphInstantiate";
    cudaError_t code = cudaGraphInstantiateWithFlags(exec, graph, 0);
    if (code != cudaSuccess)
        return code;
    recording.what = "cudaGraphUpload";
    code = cudaGraphUpload(*exec, zinf_cuda_stream());
    return code == cudaSuccess ? cudaStreamSynchronize(zinf_cuda_stream()) : code;
}

static void *record(struct zinf_device *device, void (*issue)(void *context), void *context,
                    size_t *bytes, struct zinf_error *error)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    size_t before = free_bytes();
    (void)device;
    if (zinf_cuda_synchronous()) {
        zinf_error_set(error, ZINF_E_RUNTIME, "with ZINF_CUDA_SYNC=1 every kernel is waited for");
        return NULL;
    }
    cudaError_t code = capture(issue, context, &graph);
    if (code == cudaSuccess)
        code = instantiate(&exec, graph);
    if (graph)
        cudaGraphDestroy(graph);
    if (code != cudaSuccess) {
        if (exec)
            cudaGraphExecDestroy(exec);
        cudaGetLastError(); /* else it would be blamed on a later call */
        zinf_error_set(error, ZINF_E_RUNTIME, "%s failed: %s (%s)", recording.what,
                       cudaGetErrorString(code), cudaGetErrorName(code));
        return NULL;
    }
    size_t behind = free_bytes();
    *bytes = before > behind ? before - behind : 0;
    return exec;
}

static void launch(struct zinf_device *device, void *made)
{
    (void)device;
    CUDA_CHECK(cudaGraphLaunch(made, zinf_cuda_stream()));
}

static void release(struct zinf_device *device, void *made)
{
    (void)device;
    CUDA_CHECK(cudaStreamSynchronize(zinf_cuda_stream()));
    CUDA_CHECK(cudaGraphExecDestroy(made));
}

const struct zinf_device_recorder zinf_cuda_recorder = {
    .record = record, .launch = launch, .release = release};
