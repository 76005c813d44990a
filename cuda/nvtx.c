/*
 * Ranges for NVIDIA's profilers (NVTX 3): what base/trace.h tells as it begins and ends, in the
 * domain "zinf", and the names of the threads. In programs that were configured with --enable-nvtx.
 *
 * The library is a header: a profiler that starts the program says by NVTX_INJECTION64_PATH where
 * its half is. Without one the domain is not made, and nothing is told.
 */
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <nvtx3/nvToolsExt.h>

#include "base/trace.h"

static nvtxDomainHandle_t domain;

static bool open_tool(void)
{
    domain = nvtxDomainCreateA("zinf");
    return domain != NULL;
}

static void push(const char *name)
{
    nvtxEventAttributes_t range = {.version = NVTX_VERSION,
                                   .size = NVTX_EVENT_ATTRIB_STRUCT_SIZE,
                                   .messageType = NVTX_MESSAGE_TYPE_ASCII,
                                   .message = {.ascii = name}};
    nvtxDomainRangePushEx(domain, &range);
}

static void pop(void)
{
    nvtxDomainRangePop(domain);
}

static void name_thread(const char *name)
{
    nvtxNameOsThreadA((uint32_t)syscall(SYS_gettid), name);
}

const struct zinf_trace_tool zinf_trace_tool = {
    .open = open_tool, .push = push, .pop = pop, .name_thread = name_thread};
