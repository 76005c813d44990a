/*
 * The list of devices that are compiled in. In a file of its own, so that a program may be linked
 * with another list: tests/late_device.c is a device that no user has.
 */
#include "config.h"
#include "device/device.h"

#if HAVE_CUDA
extern const struct zinf_device_backend zinf_cuda_device;
#endif

static const struct zinf_device_backend *const backends[] = {
#if HAVE_CUDA
    &zinf_cuda_device,
#endif
    &zinf_cpu_device, NULL};

const struct zinf_device_backend *const *zinf_device_backends(void)
{
    return backends;
}
