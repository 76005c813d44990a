/*
 * The trace. See trace.h.
 *
 * Lines go through one stdio buffer under one lock: an event is a block's work or a transfer, some
 * hundred a second. Rejected: keeping them in memory until the end, which a killed run never sees.
 */
#include "base/trace.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"

static FILE *file;
static bool tool; /* a profiler listens */
static int process;
static long long transfers;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static const char *const rows[ZINF_TRACE_LANES] = {"compute", "communication", "update", "I/O"};

void zinf_trace_open(int rank)
{
    const char *path = getenv("ZINF_TRACE");
    tool = zinf_trace_tool.open && zinf_trace_tool.open();
    zinf_trace_thread("compute");
    if (!path || !*path || file)
        return;
    char *name = zinf_format("%s.%d.json", path, rank);
    file = fopen(name, "we");
    if (!file)
        zinf_warn("%s cannot be written (%s): no trace of this rank (ZINF_TRACE)", name,
                  strerror(errno));
    free(name);
    if (!file)
        return;
    process = rank;
    fprintf(file,
            "[\n{\"ph\": \"M\", \"pid\": %d, \"name\": \"process_name\", \"args\": {\"name\": "
            "\"rank %d\"}}",
            rank, rank);
    for (int i = 0; i < ZINF_TRACE_LANES; i++)
        fprintf(file,
                ",\n{\"ph\": \"M\", \"pid\": %d, \"tid\": %d, \"name\": \"thread_name\", \"args\": "
                "{\"name\": \"%s\"}}",
                rank, i, rows[i]);
}

void zinf_trace_close(void)
{
    if (!file)
        return;
    fputs("\n]\n", file);
    if (fclose(file))
        zinf_warn("the trace of rank %d is not whole: %s", process, strerror(errno));
    file = NULL;
}

bool zinf_trace_on(void)
{
    return __builtin_expect(file != NULL || tool, 0);
}

void zinf_trace_push(const char *name)
{
    if (tool)
        zinf_trace_tool.push(name);
}

void zinf_trace_pop(void)
{
    if (tool)
        zinf_trace_tool.pop();
}

void zinf_trace_thread(const char *name)
{
    if (tool)
        zinf_trace_tool.name_thread(name);
}

double zinf_trace_begin(const char *name)
{
    zinf_trace_push(name);
    return zinf_clock_s();
}

void zinf_trace_end(enum zinf_trace_lane lane, const char *name, double begin_s)
{
    zinf_trace_event(lane, name, begin_s, zinf_clock_s());
    zinf_trace_pop();
}

void zinf_trace_event(enum zinf_trace_lane lane, const char *name, double begin_s, double end_s)
{
    if (!file)
        return;
    pthread_mutex_lock(&lock);
    if (lane != ZINF_TRACE_IO)
        fprintf(file,
                ",\n{\"ph\": \"X\", \"pid\": %d, \"tid\": %d, \"ts\": %.1f, \"dur\": %.1f, "
                "\"name\": \"%s\"}",
                process, lane, 1e6 * begin_s, 1e6 * (end_s - begin_s), name);
    else /* "async": the viewer finds rows for those that overlap */
        for (int end = 0; end < 2; end++)
            fprintf(file,
                    ",\n{\"ph\": \"%c\", \"cat\": \"I/O\", \"id\": %lld, \"pid\": %d, \"tid\": %d, "
                    "\"ts\": %.1f, \"name\": \"%s\"}",
                    "be"[end], transfers, process, lane, 1e6 * (end ? end_s : begin_s), name);
    transfers += lane == ZINF_TRACE_IO;
    pthread_mutex_unlock(&lock);
}
