/*
 * No profiler is told of anything. See trace.h.
 */
#include "base/trace.h"

const struct zinf_trace_tool zinf_trace_tool = {0};
