/*
 * `zinf env`: the node. See env.h.
 */
#include "cli/env.h"

#include <stdlib.h>

#include <sys/utsname.h>

#include "base/status.h"
#include "topology/topology.h"

static void set_cpus(struct zinf_json *object, const char *name, const uint64_t *cpus)
{
    char *text = zinf_cpus_print(cpus);
    zinf_env_set(object, name, "%s", text);
    free(text);
}

static void add_numa(struct zinf_json *nodes, const struct zinf_topology *topology, int numa)
{
    uint64_t cpus[ZINF_CPUS_WORDS] = {0};
    for (int cpu = 0; cpu < ZINF_CPUS; cpu++)
        if (topology->cpu[cpu].core >= 0 && topology->cpu[cpu].numa == numa)
            zinf_cpus_add(cpus, cpu);
    if (zinf_cpus_count(cpus) == 0 && topology->numa_bytes[numa] == 0)
        return;
    struct zinf_json *node = zinf_json_new(ZINF_JSON_OBJECT);
    zinf_json_set(node, "node", zinf_json_new_integer(numa));
    zinf_json_set(node, "cores", zinf_json_new_integer(zinf_topology_cores(topology, cpus)));
    set_cpus(node, "cpus", cpus);
    zinf_env_set_number(node, "memory_bytes", topology->numa_bytes[numa], 0);
    zinf_json_append(nodes, node);
}

static void add_topology(struct zinf_json *out, const struct zinf_machine *machine)
{
    struct zinf_topology *topology = zinf_alloc(sizeof *topology);
    struct zinf_json *nodes = zinf_json_new(ZINF_JSON_ARRAY);
    zinf_topology_read(topology, machine, NULL);
    zinf_json_set(out, "packages", zinf_json_new_integer(topology->package_count));
    zinf_json_set(out, "numa_nodes", zinf_json_new_integer(topology->numa_count));
    zinf_json_set(out, "cores", zinf_json_new_integer(topology->core_count));
    zinf_json_set(out, "cpus", zinf_json_new_integer(topology->cpu_count));
    zinf_env_set(out, "topology_from", "%s", topology->reader);
    for (int numa = 0; numa < ZINF_TOPOLOGY_NUMA; numa++)
        add_numa(nodes, topology, numa);
    zinf_json_set(out, "numa", nodes);
    free(topology);
}

void zinf_env_machine(struct zinf_json *out)
{
    struct zinf_machine *machine = zinf_alloc(sizeof *machine);
    struct utsname kernel;
    zinf_machine_read(machine, "");
    zinf_env_set(out, "host", "%s", machine->host);
    if (!uname(&kernel))
        zinf_env_set(out, "kernel", "%s %s %s", kernel.sysname, kernel.release, kernel.machine);
    zinf_env_set(out, "cpu", "%s", machine->cpu_name);
    zinf_env_set(out, "cpu_flags", "%s", machine->cpu_flags + 1);
    add_topology(out, machine);
    set_cpus(out, "cpus_online", machine->offered);
    set_cpus(out, "cpus_allowed", machine->cpus);
    zinf_json_set(out, "cpu_quota_cores",
                  machine->cpu_quota > 0 ? zinf_json_new_number(machine->cpu_quota)
                                         : zinf_json_new(ZINF_JSON_NULL));
    zinf_json_set(out, "cores_usable", zinf_json_new_integer(machine->cores));
    zinf_json_set(out, "memory_total_bytes", zinf_json_new_integer(machine->memory_total));
    zinf_json_set(out, "memory_available_bytes", zinf_json_new_integer(machine->memory_available));
    zinf_env_set_number(out, "cgroup_memory_limit_bytes", machine->memory_limit, 0);
    free(machine);
}
