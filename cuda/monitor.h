/*
 * What the driver's monitor (NVML) says of a device that this process has not opened.
 */
#ifndef ZINF_CUDA_MONITOR_H
#define ZINF_CUDA_MONITOR_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Local. @param total_bytes  of the device, as CUDA says: a part of a card (MIG) is not the card. @return free bytes, -1 = it cannot be told */
int64_t zinf_cuda_monitor_free(const char *bus_id, int64_t total_bytes);

#ifdef __cplusplus
}
#endif
#endif
