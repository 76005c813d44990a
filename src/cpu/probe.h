/*
 * What this machine's cores and memory give at best: loops with the traffic or the arithmetic of a kernel and nothing else, beside which
 * the kernel is measured in the same run. On all threads of zinf_cpu_set_threads(). The caller takes the time.
 */
#ifndef ZINF_CPU_PROBE_H
#define ZINF_CPU_PROBE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Multiply-adds in registers. @return FLOP done, 0 where there is no probe for the machine */
double zinf_probe_fma(void);

/* Over `count` floats, a multiple of 16384. */

/** Adam's traffic without its arithmetic: w, m, v read and written, g read: 28 bytes an element. */
void zinf_probe_update(float *w, float *m, float *v, const float *g, int64_t count);
/** @return the sum, so that the reads happen: 4 bytes an element */
float zinf_probe_read(const float *a, int64_t count);
/** a = b + 3 c: 12 bytes an element, as McCalpin's STREAM counts */
void zinf_probe_triad(float *a, const float *b, const float *c, int64_t count);
/** memcpy: 8 bytes an element, 4 read and 4 written */
void zinf_probe_copy(float *a, const float *b, int64_t count);

#ifdef __cplusplus
}
#endif
#endif
