/*
 * The kernels of cuda/ on the CPU, as one more table of operations for the conformance tests. See cuda_emulation.h.
 */
#ifndef ZINF_TESTS_CUDA_EMULATED_H
#define ZINF_TESTS_CUDA_EMULATED_H

#include "device/ops.h"

/** From one thread at a time. */
const struct zinf_ops *cuda_emulated_ops(void);
/** Attention as on compute capability 9.0, the rest as above. */
const struct zinf_ops *cuda_emulated_hopper_ops(void);

#endif
