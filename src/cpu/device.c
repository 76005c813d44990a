/*
 * The CPU as a device: everything happens at once, in the calling thread. See device/device.h.
 */
#include "device/device.h"

#include <stdlib.h>
#include <string.h>

#include <sys/mman.h>

/* Mappings, so that close() can give them back. */
struct memory {
    struct memory *next;
    void *base;
    size_t bytes;
};

static int list(struct zinf_device_properties *out, int room, char *why, size_t why_bytes)
{
    (void)why;
    (void)why_bytes;
    if (room > 0) {
        *out = (struct zinf_device_properties){.host_addressable = true};
        snprintf(out->name, sizeof out->name, "%s", zinf_cpu_ops()->name);
    }
    return 1;
}

static int device_open(struct zinf_device *device, const struct zinf_device_options *options,
                       struct zinf_error *error)
{
    if (options->index != 0)
        return zinf_error_set(error, ZINF_E_USAGE, "device cpu %d: there is one, number 0",
                              options->index);
    *device = (struct zinf_device){.backend = &zinf_cpu_device};
    list(&device->properties, 1, NULL, 0);
    return ZINF_OK;
}

static void device_close(struct zinf_device *device)
{
    for (struct memory *m = device->state, *next; m; m = next) {
        next = m->next;
        munmap(m->base, m->bytes);
        free(m);
    }
    *device = (struct zinf_device){0};
}

static void *allocate(struct zinf_device *device, size_t bytes)
{
    void *base =
        mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return NULL;
    struct memory *m = zinf_alloc(sizeof *m);
    *m = (struct memory){device->state, base, bytes ? bytes : 1};
    device->state = m;
    return base;
}

static int pin(struct zinf_device *device, void *memory, size_t bytes)
{
    (void)device;
    (void)memory;
    (void)bytes;
    return ZINF_OK;
}

static void use(struct zinf_device *device, enum zinf_stream stream)
{
    (void)device;
    (void)stream;
}

static void copy(struct zinf_device *device, enum zinf_stream stream, void *to, const void *from,
                 size_t bytes)
{
    (void)device;
    (void)stream;
    memcpy(to, from, bytes);
}

static void record(struct zinf_device *device, int event, enum zinf_stream stream)
{
    (void)device;
    (void)event;
    (void)stream;
}

static void wait(struct zinf_device *device, enum zinf_stream stream, int event)
{
    (void)device;
    (void)stream;
    (void)event;
}

static bool reached(struct zinf_device *device, int event)
{
    (void)device;
    (void)event;
    return true;
}

static double elapsed(struct zinf_device *device, int first, int second)
{
    (void)device;
    (void)first;
    (void)second;
    return -1; /* nothing runs beside the caller, whose own clock tells */
}

const struct zinf_device_backend zinf_cpu_device = {
    .name = "cpu",
    .operations = zinf_cpu_ops,
    .list = list,
    .open = device_open,
    .close = device_close,
    .allocate = allocate,
    .pin = pin,
    .use = use,
    .copy = copy,
    .record = record,
    .wait = wait,
    .reached = reached,
    .elapsed = elapsed,
};
