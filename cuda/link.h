/*
 * NCCL as the link between GPUs (device/device.h): link_nccl.c, or link_none.c where configure found no nccl.h.
 */
#ifndef ZINF_CUDA_LINK_H
#define ZINF_CUDA_LINK_H

#include "device/device.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const struct zinf_device_link zinf_cuda_link;

#ifdef __cplusplus
}
#endif
#endif
