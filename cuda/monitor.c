/*
 * NVML, which comes with every driver and is no part of the toolkit: found when it is asked for,
 * and not missed where it is not there. Its four functions have had these types since 2012.
 */
#include "cuda/monitor.h"

#include <dlfcn.h>
#include <string.h>

struct memory {
    unsigned long long total, free, used;
};

struct api {
    int (*init)(void);
    int (*find)(const char *bus_id, void **device);
    int (*memory)(void *device, struct memory *memory);
    int (*shutdown)(void);
};

static int find_symbol(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);
    memcpy(function, &symbol, sizeof symbol);
    return symbol ? 0 : -1;
}

static int open_api(void *library, struct api *api)
{
    return find_symbol(library, "nvmlInit_v2", &api->init) ||
           find_symbol(library, "nvmlDeviceGetHandleByPciBusId_v2", &api->find) ||
           find_symbol(library, "nvmlDeviceGetMemoryInfo", &api->memory) ||
           find_symbol(library, "nvmlShutdown", &api->shutdown) || api->init();
}

int64_t zinf_cuda_monitor_free(const char *bus_id, int64_t total_bytes)
{
    void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL), *device = NULL;
    struct memory memory = {0};
    struct api api;
    int64_t bytes = -1;
    if (!library)
        return -1;
    if (!open_api(library, &api)) {
        /* NVML's total has what the driver keeps for itself, a few parts in a hundred. */
        if (!api.find(bus_id, &device) && !api.memory(device, &memory) &&
            (double)memory.total < 1.1 * (double)total_bytes)
            bytes = (int64_t)memory.free;
        api.shutdown();
    }
    dlclose(library);
    return bytes;
}
