/*
 * A libnvidia-ml that knows one card, "00000000:3b:00.0", of 1000 MiB with 700 free. For
 * tests/test_cuda_libraries.cc.
 */
#include <string.h>

struct memory {
    unsigned long long total, free, used;
};

int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, void **device);
int nvmlDeviceGetMemoryInfo(void *device, struct memory *memory);

static int open_count;

int nvmlInit_v2(void)
{
    open_count++;
    return 0;
}

int nvmlShutdown(void)
{
    return --open_count ? 1 : 0;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, void **device)
{
    *device = &open_count;
    return strcmp(bus_id, "00000000:3b:00.0") ? 6 : 0; /* NVML_ERROR_NOT_FOUND */
}

int nvmlDeviceGetMemoryInfo(void *device, struct memory *memory)
{
    *memory = (struct memory){1000ull << 20, 700ull << 20, 300ull << 20};
    return device == &open_count && open_count == 1 ? 0 : 1;
}
