/*
 * A libcuda without a device: what CUDA's runtime, which is linked into the program, asks of a
 * driver before it knows of any. FAKE_CUDA_VERSION is the CUDA that the driver is for, e.g. 12040;
 * FAKE_CUDA_INIT what its start answers, 100: there is no device.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { NOT_FOUND = 500 };

int cuInit(unsigned flags);
int cuDriverGetVersion(int *version);
int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags,
                        int *status);
int cuGetProcAddress(const char *name, void **function, int version, uint64_t flags);

static int value_of(const char *name)
{
    const char *text = getenv(name);
    return text ? atoi(text) : 0;
}

int cuInit(unsigned flags)
{
    (void)flags;
    return value_of("FAKE_CUDA_INIT");
}

int cuDriverGetVersion(int *version)
{
    *version = value_of("FAKE_CUDA_VERSION");
    return 0;
}

int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status)
{
    static const struct {
        const char *name;
        void *function;
    } all[] = {{"cuInit", (void *)cuInit},
               {"cuDriverGetVersion", (void *)cuDriverGetVersion},
               {"cuGetProcAddress", (void *)cuGetProcAddress_v2}};
    (void)version;
    (void)flags;
    *function = NULL;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(name, all[i].name))
            *function = all[i].function;
    if (status)
        *status = *function ? 0 : 1;
    return *function ? 0 : NOT_FOUND;
}

int cuGetProcAddress(const char *name, void **function, int version, uint64_t flags)
{
    return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
