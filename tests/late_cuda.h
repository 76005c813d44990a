/*
 * Between tests/late_device.c and tests/late_cuda.c: the device's library for matrix products, where a program is linked with one.
 */
#ifndef ZINF_TESTS_LATE_CUDA_H
#define ZINF_TESTS_LATE_CUDA_H

#include <stdbool.h>
#include <stddef.h>

#include "device/device.h"

/* late_cuda.c: its table, its life with the device's, a product with what follows it in the calling thread's stream (false: it has not made it). */
const struct zinf_device_products *zinf_late_products(void);
void zinf_late_library(const struct zinf_device_options *options); /* NULL: close */
bool zinf_late_product(const struct zinf_matmul *op);

/* late_device.c, of the calling thread's stream: the stream, a copy in it, the wait for it; memory of the device. */
void *zinf_late_stream(void);
void zinf_late_copy(void *to, const void *from, size_t bytes);
void zinf_late_finish(void);
void *zinf_late_allocate(size_t bytes);

#endif
