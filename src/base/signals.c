/*
 * Signal handlers that set flags. See signals.h.
 */
#include "base/signals.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/status.h"

/* Lock-free, so that a handler may write them whichever thread it runs on. */
static _Atomic int stop_count, checkpoint_count;
static _Atomic int64_t stop_first_ns, stop_last_ns;

static void on_stop(int number)
{
    struct timespec now;
    int64_t none = 0;
    int saved = errno;
    (void)number;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    atomic_compare_exchange_strong(&stop_first_ns, &none, ns);
    atomic_store(&stop_last_ns, ns);
    atomic_fetch_add(&stop_count, 1);
    errno = saved;
}

static void on_checkpoint(int number)
{
    (void)number;
    atomic_fetch_add(&checkpoint_count, 1);
}

static int catch_signal(int number, void (*handler)(int))
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    sigfillset(&action.sa_mask);
    if (sigaction(number, &action, NULL) == 0)
        return 0;
    zinf_error_log("signal %d cannot be caught: %s", number, strerror(errno));
    return ZINF_E_RUNTIME;
}

/* The thread on which handlers run: it only waits. */
static void *take_signals(void *unused)
{
    sigset_t *set = unused;
    pthread_sigmask(SIG_UNBLOCK, set, NULL);
    for (;;)
        pause();
    return NULL;
}

/* No handler may run on a thread that computes: kernels that a library makes at run time
 * (oneDNN 2.6's fp32 products) do not keep the stack pointer where a signal's frame may be put, and
 * the heap was overwritten when one came. So every thread made from here on blocks the signals, but
 * one. */
static int give_signals_a_thread(void)
{
    static sigset_t set;
    static bool running;
    pthread_t thread;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (running)
        return 0;
    int number = pthread_create(&thread, NULL, take_signals, &set);
    if (number) {
        zinf_error_log("no thread for signals can be made: %s", strerror(number));
        return ZINF_E_RUNTIME;
    }
    running = true;
    return pthread_detach(thread) ? ZINF_E_RUNTIME : 0;
}

int zinf_signals_install(void)
{
    int status = 0;
    atomic_store(&stop_count, 0);
    atomic_store(&checkpoint_count, 0);
    atomic_store(&stop_first_ns, 0);
    atomic_store(&stop_last_ns, 0);
    if ((status = catch_signal(SIGTERM, on_stop)) || (status = catch_signal(SIGINT, on_stop)))
        return status;
    if ((status = catch_signal(SIGUSR1, on_checkpoint)))
        return status;
    return give_signals_a_thread();
}

struct zinf_signals zinf_signals_state(void)
{
    return (struct zinf_signals){
        .stop_count = atomic_load(&stop_count),
        .stop_first_s = 1e-9 * (double)atomic_load(&stop_first_ns),
        .stop_last_s = 1e-9 * (double)atomic_load(&stop_last_ns),
        .checkpoint_count = atomic_load(&checkpoint_count),
    };
}

int zinf_signals_stop_level(const struct zinf_signals *signals)
{
    if (!signals->stop_count)
        return 0;
    return signals->stop_last_s - signals->stop_first_s >= ZINF_SECOND_SIGNAL_S ? 2 : 1;
}
