/*
 * Monotonic seconds and naps. See clock.h.
 */
#include "base/clock.h"

#include <sys/prctl.h>
#include <time.h>

double zinf_clock_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void zinf_clock_nap(double seconds)
{
    struct timespec length = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&length, NULL);
}

void zinf_clock_precise_naps(void)
{
    prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL,
          0UL); /* ns; a kernel that refuses only naps longer */
}
