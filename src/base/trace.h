/*
 * A trace of what the threads of a rank do at a time, for chrome://tracing and ui.perfetto.dev (Trace Event Format).
 *
 * ZINF_TRACE=FILE in the environment: rank r writes FILE.r.json, one process "rank r" with a row for each lane; transfers of the NVMe tier
 * overlap each other and stand in rows of their own. The clock is that of the machine, so files of the ranks of a node can be laid side by side.
 * Costs one load and a branch an event when the variable is not set.
 *
 * A profiler that is compiled in (zinf_trace_tool: NVTX with --enable-nvtx) sees the same of each thread while it happens, without a file.
 */
#ifndef ZINF_BASE_TRACE_H
#define ZINF_BASE_TRACE_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

enum zinf_trace_lane {
    ZINF_TRACE_COMPUTE,
    ZINF_TRACE_COMMUNICATION,
    ZINF_TRACE_UPDATE,
    ZINF_TRACE_IO, /* events may overlap */
    ZINF_TRACE_LANES
};

/** A profiler: ranges of the calling thread nest. All NULL: none is compiled in. */
struct zinf_trace_tool {
    bool (*open)(void); /* does one listen? */
    void (*push)(const char *name);
    void (*pop)(void);
    void (*name_thread)(const char *name);
};

extern const struct zinf_trace_tool zinf_trace_tool;

/** Read ZINF_TRACE for this rank, and ask for a profiler. Local. A file that cannot be made is a warning, and there is no trace. */
void zinf_trace_open(int rank);
/** The file is whole only after this. Does nothing without a trace. */
void zinf_trace_close(void);

/** Is there a trace, or a profiler? Ask before making up names. */
bool zinf_trace_on(void);
/** The calling thread begins what zinf_trace_end() will tell. @return now (clock.h) */
double zinf_trace_begin(const char *name);
/** And ends it: the same name. */
void zinf_trace_end(enum zinf_trace_lane lane, const char *name, double begin_s);
/** Around several of these: for a profiler alone. */
void zinf_trace_push(const char *name);
void zinf_trace_pop(void);
/** The name of the calling thread: for a profiler alone. */
void zinf_trace_thread(const char *name);
/** Something of `lane` lasted from begin_s to end_s (clock.h). name: printed as it is, without quotes and backslashes in it. Any thread. */
void zinf_trace_event(enum zinf_trace_lane lane, const char *name, double begin_s, double end_s);

#ifdef __cplusplus
}
#endif
#endif
