/*
 * Runs of operations as CUDA graphs (device/device.h), and what a failing call means while one is recorded.
 */
#ifndef ZINF_CUDA_RECORDER_H
#define ZINF_CUDA_RECORDER_H

#include <stdbool.h>

#include "device/device.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const struct zinf_device_recorder zinf_cuda_recorder;

/** A call of the runtime or a library has failed. @return true: the calling thread records; the recording will fail, the run goes on */
bool zinf_cuda_recording_failed(int code, const char *what);

#ifdef __cplusplus
}
#endif
#endif
