/*
 * Time for measuring and waiting: monotonic, in seconds, never set back by an administrator.
 */
#ifndef ZINF_BASE_CLOCK_H
#define ZINF_BASE_CLOCK_H

#ifdef __cplusplus
extern "C" {
#endif

/** Seconds since an arbitrary moment that is the same for all threads and processes of a machine. */
double zinf_clock_s(void);

/** Sleep for about `seconds`; a signal may end it early. Give the core to somebody else, whatever the length. */
void zinf_clock_nap(double seconds);

/**
 * Let naps of the calling thread end when they are due: the kernel's default lets every sleep last 50 us longer, which doubles the
 * naps between two tests of a request.
 */
void zinf_clock_precise_naps(void);

#ifdef __cplusplus
}
#endif
#endif
