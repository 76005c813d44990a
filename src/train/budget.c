/*
 * What a rank may use. See budget.h.
 */
#include "train/budget.h"

#include <stdio.h>

#include "base/status.h"

static const double share = 0.9; /* contract section 2, memory.host auto */
static const double device_share = 0.95;

struct zinf_budget zinf_budget_unlimited(void)
{
    return (struct zinf_budget){.device = SIZE_MAX,
                                .host = SIZE_MAX,
                                .both = SIZE_MAX,
                                .nvme = SIZE_MAX,
                                .device_source = "zinf.memory.device",
                                .host_source = "zinf.memory.host",
                                .nvme_source = "zinf.memory.nvme"};
}

static void lower(size_t *limit, const char **source, int64_t given, const char *key)
{
    if (given < 0 || (size_t)given >= *limit)
        return;
    *limit = (size_t)given;
    *source = key;
}

void zinf_budget_lower(struct zinf_budget *budget, const struct zinf_config_memory *memory)
{
    lower(&budget->device, &budget->device_source, memory->device_bytes, "zinf.memory.device");
    lower(&budget->host, &budget->host_source, memory->host_bytes, "zinf.memory.host");
    lower(&budget->nvme, &budget->nvme_source, memory->nvme_bytes, "zinf.memory.nvme");
}

/* The RAM a rank can have at all, and what sets it. A limit that is used up already leaves 0. */
static double ram_of(const struct zinf_machine *machine, int local_ranks, char *source,
                     size_t source_bytes)
{
    double ram = (double)machine->memory_available / local_ranks;
    double data = (double)machine->limit_data - (double)machine->data_in_use;
    double mapped = (double)machine->limit_address_space - (double)machine->mapped;
    snprintf(source, source_bytes, "available memory / %d rank%s on this node", local_ranks,
             local_ranks == 1 ? "" : "s");
    if (machine->limit_data && data < ram) {
        ram = data;
        snprintf(source, source_bytes, "(RLIMIT_DATA - data in use)");
    }
    if (machine->limit_address_space && mapped < ram) {
        ram = mapped;
        snprintf(source, source_bytes, "(RLIMIT_AS - mapped)");
    }
    return ram > 0 ? ram : 0;
}

struct zinf_budget zinf_budget_of_run(const struct zinf_machine *machine, int local_ranks,
                                      const struct zinf_config_memory *memory)
{
    struct zinf_budget budget = zinf_budget_unlimited();
    char source[64];
    double ram = ram_of(machine, local_ranks, source, sizeof source), given = 0;
    given += memory->device_bytes > 0 ? (double)memory->device_bytes : 0;
    given += memory->host_bytes > 0 ? (double)memory->host_bytes : 0;
    if (given > share * ram) {
        budget.both = (size_t)(given < ram ? given : ram);
        snprintf(budget.both_source, sizeof budget.both_source, "%s", source);
    } else {
        budget.both = (size_t)(share * ram);
        snprintf(budget.both_source, sizeof budget.both_source, "%g x %s", share, source);
    }
    zinf_budget_lower(&budget, memory);
    return budget;
}

struct zinf_budget zinf_budget_of_device(const struct zinf_machine *machine, int local_ranks,
                                         const struct zinf_config_memory *memory,
                                         int64_t free_bytes, int ranks)
{
    const struct zinf_config_memory host = {
        .device_bytes = -1, .host_bytes = memory->host_bytes, .nvme_bytes = memory->nvme_bytes};
    struct zinf_budget budget = zinf_budget_of_run(machine, local_ranks, &host);
    budget.own_memory = true;
    if (budget.both < budget.host) {
        budget.host = budget.both;
        budget.host_source = "memory of this node that a rank may use";
    }
    budget.both = SIZE_MAX;
    if (free_bytes > 0) {
        budget.device = (size_t)(device_share * (double)free_bytes / ranks);
        budget.device_source = "0.95 x what is free on the device / ranks on it";
    }
    lower(&budget.device, &budget.device_source, memory->device_bytes, "zinf.memory.device");
    return budget;
}

void zinf_budget_plan_device(struct zinf_budget *budget, size_t card_bytes, size_t context,
                             size_t link)
{
    size_t others = context + link;
    budget->own_memory = true;
    budget->context = context;
    budget->link = link;
    budget->device =
        card_bytes > others ? (size_t)(device_share * (double)(card_bytes - others)) : 0;
    budget->device_source = "0.95 x (--gpu-memory - what CUDA and NCCL take)";
}

bool zinf_budget_holds(const struct zinf_budget *budget, size_t device_bytes, size_t host_bytes)
{
    return device_bytes <= budget->device && host_bytes <= budget->host &&
           device_bytes + host_bytes <= budget->both;
}

size_t zinf_budget_host_left(const struct zinf_budget *budget, size_t device_bytes,
                             size_t host_bytes)
{
    if (!zinf_budget_holds(budget, device_bytes, host_bytes))
        return 0;
    size_t host = budget->host - host_bytes, both = budget->both - device_bytes - host_bytes;
    return host < both ? host : both;
}

static char *exceeded(size_t bytes, const char *where, size_t limit, const char *source)
{
    const double mib = 1024.0 * 1024.0;
    return zinf_format("%.1f MiB %s, %.1f MiB are allowed (%s)", (double)bytes / mib, where,
                       (double)limit / mib, source);
}

char *zinf_budget_exceeded(const struct zinf_budget *budget, size_t device_bytes, size_t host_bytes,
                           size_t nvme_bytes)
{
    if (device_bytes > budget->device)
        return exceeded(device_bytes, "on the device", budget->device, budget->device_source);
    if (host_bytes > budget->host)
        return exceeded(host_bytes, "in host memory", budget->host, budget->host_source);
    if (device_bytes + host_bytes > budget->both)
        return exceeded(device_bytes + host_bytes, "of memory", budget->both, budget->both_source);
    if (nvme_bytes > budget->nvme)
        return exceeded(nvme_bytes, "on NVMe", budget->nvme, budget->nvme_source);
    return NULL;
}
