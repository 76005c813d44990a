/*
 * `zinf env`: the devices that this process may compute on, and why others cannot. See env.h.
 */
#include "cli/env.h"

#include <stdlib.h>
#include <string.h>

#include "device/link.h"

enum { LARGEST_COUNT = 64 };

static struct zinf_json *describe(const struct zinf_device_backend *backend, int number,
                                  const struct zinf_device_properties *p)
{
    struct zinf_json *row = zinf_json_new(ZINF_JSON_OBJECT);
    zinf_env_set(row, "device", "%s %d", backend->name, number);
    zinf_env_set(row, "name", "%s", p->name);
    if (*p->bus_id)
        zinf_env_set(row, "bus_id", "%s", p->bus_id);
    if (*p->version)
        zinf_env_set(row, "version", "%s", p->version);
    if (p->memory_bytes)
        zinf_json_set(row, "memory_bytes", zinf_json_new_integer(p->memory_bytes));
    if (p->processors)
        zinf_json_set(row, "processors", zinf_json_new_integer(p->processors));
    if (p->major)
        zinf_env_set(row, "compute_capability", "%d.%d", p->major, p->minor);
    if (p->peak_flops > 0)
        zinf_json_set(row, "peak_tflops", zinf_json_new_number(p->peak_flops / 1e12));
    return row;
}

void zinf_env_devices(struct zinf_json *devices)
{
    for (int b = 0; zinf_device_backends()[b]; b++) {
        const struct zinf_device_backend *backend = zinf_device_backends()[b];
        static struct zinf_device_properties properties[LARGEST_COUNT];
        char why[512];
        int count = backend->list(properties, LARGEST_COUNT, why, sizeof why);
        for (int i = 0; i < count && i < LARGEST_COUNT; i++)
            zinf_json_append(devices, describe(backend, i, &properties[i]));
        if (count > 0)
            continue;
        struct zinf_json *row = zinf_json_new(ZINF_JSON_OBJECT);
        zinf_env_set(row, "device", "%s", backend->name);
        zinf_env_set(row, "state", "no device: %s", why);
        zinf_json_append(devices, row);
    }
}

void zinf_env_device_libraries(struct zinf_json *libraries)
{
    for (int b = 0; zinf_device_backends()[b]; b++) {
        char text[4096] = "";
        if (zinf_device_backends()[b]->libraries)
            zinf_device_backends()[b]->libraries(text, sizeof text);
        char *rest = NULL;
        for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
            char *colon = strstr(line, ": ");
            if (!colon)
                continue;
            *colon = '\0';
            zinf_env_set(libraries, line, "%s", colon + 2);
        }
    }
}

/* As a run does: ranks that see the same devices share them out. */
void zinf_env_exchange(struct zinf_json *libraries, struct zinf_rankmap *map,
                       struct zinf_comm *comm)
{
    const struct zinf_device_backend *backend = NULL;
    static struct zinf_device_properties properties[LARGEST_COUNT];
    const char *bus_ids[LARGEST_COUNT];
    struct zinf_link_choice choice;
    struct zinf_error error = {0};
    char why[512];
    int sharing;
    if (zinf_device_choose("auto", &backend, &error))
        backend = &zinf_cpu_device; /* every rank goes on: what follows is collective */
    int count = backend->list(properties, LARGEST_COUNT, why, sizeof why);
    count = count < LARGEST_COUNT ? count : LARGEST_COUNT;
    for (int i = 0; i < count; i++)
        bus_ids[i] = properties[i].bus_id;
    const struct zinf_rankmap_choice devices = {
        .backend = backend->name, .count = count, .bus_ids = bus_ids};
    int index = zinf_rankmap_share_devices(map, comm, &devices, &sharing);
    if (zinf_link_choose(comm, backend, &properties[index], &choice, &error))
        zinf_env_set(libraries, "exchange", "refused: %s", error.text);
    else
        zinf_env_set(libraries, "exchange", "%s%s%s", choice.text, *choice.note ? "; note: " : "",
                     choice.note);
}
