/*
 * OpenMP and per-thread memory. See threads.h.
 *
 * The number of threads is kept here and given to every region: OpenMP's own setting belongs to the
 * thread that made it, and operations are called from more than one (computing lane, host updates).
 */
#include "cpu/threads.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/status.h"
#include "device/ops.h"

#ifdef _OPENMP
#include <omp.h>
#endif

static int thread_count;
static _Thread_local bool alone;

void zinf_cpu_set_threads(int count)
{
    ZINF_ASSERT(count >= 1);
    __atomic_store_n(&thread_count, count, __ATOMIC_RELAXED);
#ifdef _OPENMP
    omp_set_num_threads(count);
#endif
}

void zinf_cpu_thread_alone(void)
{
    alone = true;
#ifdef _OPENMP
    omp_set_num_threads(1);
#endif
}

int zinf_cpu_threads(void)
{
    if (alone)
        return 1;
    int count = __atomic_load_n(&thread_count, __ATOMIC_RELAXED);
#ifdef _OPENMP
    return count ? count : omp_get_max_threads();
#else
    return count ? count : 1;
#endif
}

static int threads_for(int64_t tasks)
{
    int threads = zinf_cpu_threads();
    return tasks < threads ? (tasks < 1 ? 1 : (int)tasks) : threads;
}

void zinf_cpu_for(int64_t tasks, zinf_cpu_body_fn *body, void *context)
{
    int threads = threads_for(tasks);
    (void)threads; /* unused without OpenMP */
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t task = 0; task < tasks; task++)
        body(context, task);
}

void zinf_cpu_for_uneven(int64_t tasks, zinf_cpu_body_fn *body, void *context)
{
    int threads = threads_for(tasks);
    (void)threads;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t task = 0; task < tasks; task++)
        body(context, task);
}

void zinf_cpu_library_threads(int count)
{
#ifdef _OPENMP
    omp_set_num_threads(count);
#else
    (void)count;
#endif
}

struct scratch {
    void *memory[ZINF_SCRATCH_USES];
    size_t bytes[ZINF_SCRATCH_USES];
};

static _Thread_local struct scratch scratch;
static pthread_key_t scratch_key;
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;

static void scratch_release(void *own)
{
    struct scratch *old = own;
    for (int use = 0; use < ZINF_SCRATCH_USES; use++) {
        free(old->memory[use]);
        old->memory[use] = NULL;
        old->bytes[use] = 0;
    }
}

static void scratch_key_create(void)
{
    ZINF_ASSERT(pthread_key_create(&scratch_key, scratch_release) == 0);
}

void *zinf_cpu_scratch(enum zinf_cpu_scratch_use use, size_t bytes)
{
    if (bytes <= scratch.bytes[use])
        return scratch.memory[use];
    pthread_once(&scratch_once, scratch_key_create);
    pthread_setspecific(scratch_key, &scratch);
    size_t rounded = (bytes + 4095) & ~(size_t)4095;
    free(scratch.memory[use]);
    scratch.memory[use] = aligned_alloc(64, rounded);
    scratch.bytes[use] = rounded;
    if (!scratch.memory[use]) {
        zinf_error_log("out of memory: %zu bytes of working memory for an operation on the CPU",
                       rounded);
        zinf_abort(ZINF_E_RUNTIME);
    }
    return scratch.memory[use];
}
