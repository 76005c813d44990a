/*
 * What MPI is really asked to send: wrappers of MPI's profiling interface, linked into a test program.
 */
#ifndef ZINF_TESTS_PMPI_COUNT_H
#define ZINF_TESTS_PMPI_COUNT_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Bytes that this process has given to MPI for other ranks: point to point, and its share of all-gathers. */
int64_t zinf_pmpi_bytes(void);

/** Calls of operations that move bytes in a way that is not counted (reductions, all-to-all, broadcasts, ...). */
int64_t zinf_pmpi_uncounted(void);

#ifdef __cplusplus
}
#endif
#endif
