/*
 * Threads and working memory of the CPU backend. The only file with OpenMP in it is threads.c:
 * kernels hand over a body and a number of tasks. What a task computes depends on its number only,
 * never on who runs it; so results are the same for any number of threads.
 */
#ifndef ZINF_CPU_THREADS_H
#define ZINF_CPU_THREADS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef void zinf_cpu_body_fn(void *context, int64_t task);

/** body(context, task) for 0 <= task < tasks; neighbouring tasks run on the same thread. Returns
 * when all are done. */
void zinf_cpu_for(int64_t tasks, zinf_cpu_body_fn *body, void *context);
/** The same for tasks of unequal length: whoever is free takes the next one. */
void zinf_cpu_for_uneven(int64_t tasks, zinf_cpu_body_fn *body, void *context);

/** What zinf_cpu_set_threads() set; before that what OpenMP offers. */
int zinf_cpu_threads(void);

/** Libraries that the calling thread calls use `count` threads; within a body that holds until its end. */
void zinf_cpu_library_threads(int count);

/* A task may run on the calling thread: what both hold at a time has uses of its own. */
enum zinf_cpu_scratch_use {
    ZINF_SCRATCH_CALL,    /* held by the thread that called an operation */
    ZINF_SCRATCH_TASK,    /* held by one task */
    ZINF_SCRATCH_LIBRARY, /* held during one library call */
    ZINF_SCRATCH_USES
};

/**
 * Memory of the calling thread, 64-byte aligned, contents undefined. Grows to the largest request
 * and is freed with the thread. Borrowed until the same thread asks for the same use again. Without
 * memory the run ends.
 */
void *zinf_cpu_scratch(enum zinf_cpu_scratch_use use, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
