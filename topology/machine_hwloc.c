/*
 * The node by hwloc, the only file that knows it. See topology.h.
 *
 * Only packages, cores, NUMA nodes and CPUs are asked for: no caches, and no PCI bus unless devices
 * are looked for, which on large nodes take most of hwloc's time. hwloc leaves out what the control
 * groups forbid and does not look at the binding of this process, which is what is wanted here.
 */
#include <hwloc.h>
#include <stdio.h>
#include <string.h>

#include "topology/topology.h"

static void version(char *out, size_t out_bytes)
{
    unsigned api = hwloc_get_api_version();
    snprintf(out, out_bytes, "interface %u.%u.%u", api >> 16, api >> 8 & 255, api & 255);
}

static int load(hwloc_topology_t *out, const struct zinf_topology_source *source, bool bus)
{
    hwloc_topology_t machine;
    int status = hwloc_topology_init(&machine);
    if (status)
        return -1;
    hwloc_topology_set_all_types_filter(machine, HWLOC_TYPE_FILTER_KEEP_NONE);
    /* A NUMA node that is a part of a package hangs below a group. Without groups it would hang
     * below the package and count all its CPUs as its own. */
    hwloc_topology_set_type_filter(machine, HWLOC_OBJ_GROUP, HWLOC_TYPE_FILTER_KEEP_STRUCTURE);
    hwloc_topology_set_type_filter(machine, HWLOC_OBJ_PACKAGE, HWLOC_TYPE_FILTER_KEEP_ALL);
    hwloc_topology_set_type_filter(machine, HWLOC_OBJ_CORE, HWLOC_TYPE_FILTER_KEEP_ALL);
    if (bus)
        hwloc_topology_set_type_filter(machine, HWLOC_OBJ_PCI_DEVICE, HWLOC_TYPE_FILTER_KEEP_ALL);
    if (source->xml)
        status = hwloc_topology_set_xml(machine, source->xml);
    else if (source->synthetic)
        status = hwloc_topology_set_synthetic(machine, source->synthetic);
    if (!status)
        status = hwloc_topology_load(machine);
    if (status) {
        hwloc_topology_destroy(machine);
        return -1;
    }
    *out = machine;
    return 0;
}

/* The first NUMA node whose CPUs hold this one. A CPU may have several (HBM beside DRAM): the
 * kernel numbers the ordinary one first. */
static hwloc_obj_t numa_of(hwloc_topology_t machine, hwloc_obj_t pu)
{
    hwloc_obj_t numa = NULL, found = NULL;
    while ((numa = hwloc_get_next_obj_by_type(machine, HWLOC_OBJ_NUMANODE, numa)))
        if (hwloc_bitmap_isset(numa->cpuset, pu->os_index) &&
            (!found || numa->os_index < found->os_index))
            found = numa;
    return found;
}

/* Packages and cores by hwloc's logical numbers, in which neighbours are near each other. */
static int logical(hwloc_topology_t machine, hwloc_obj_type_t type, hwloc_obj_t pu, int otherwise)
{
    hwloc_obj_t above = hwloc_get_ancestor_obj_by_type(machine, type, pu);
    return above ? (int)above->logical_index : otherwise;
}

static void take_cpu(struct zinf_topology *topology, hwloc_topology_t machine, hwloc_obj_t pu)
{
    hwloc_obj_t numa = numa_of(machine, pu);
    if (pu->os_index >= ZINF_CPUS || (numa && numa->os_index >= ZINF_TOPOLOGY_NUMA))
        return;
    struct zinf_topology_cpu *cpu = &topology->cpu[pu->os_index];
    cpu->package = (int16_t)logical(machine, HWLOC_OBJ_PACKAGE, pu, 0);
    cpu->core = (int16_t)logical(machine, HWLOC_OBJ_CORE, pu, (int)pu->logical_index);
    cpu->numa = numa ? (int16_t)numa->os_index : 0;
    topology->cpu_count++;
    if (cpu->core >= topology->core_count)
        topology->core_count = cpu->core + 1;
    if (cpu->package >= topology->package_count)
        topology->package_count = cpu->package + 1;
    if (numa)
        topology->numa_bytes[numa->os_index] = (int64_t)numa->attr->numanode.local_memory;
}

static int read_topology(struct zinf_topology *topology, const struct zinf_topology_source *source)
{
    hwloc_topology_t machine;
    hwloc_obj_t pu = NULL;
    bool has_cpus[ZINF_TOPOLOGY_NUMA] = {false};
    if (load(&machine, source, false))
        return -1;
    memset(topology, 0, sizeof *topology);
    snprintf(topology->reader, sizeof topology->reader, "hwloc");
    for (int cpu = 0; cpu < ZINF_CPUS; cpu++)
        topology->cpu[cpu].core = -1;
    while ((pu = hwloc_get_next_obj_by_type(machine, HWLOC_OBJ_PU, pu)))
        take_cpu(topology, machine, pu);
    hwloc_topology_destroy(machine);
    for (int cpu = 0; cpu < ZINF_CPUS; cpu++)
        if (topology->cpu[cpu].core >= 0)
            has_cpus[topology->cpu[cpu].numa] = true;
    for (int numa = 0; numa < ZINF_TOPOLOGY_NUMA; numa++)
        topology->numa_count += has_cpus[numa];
    return topology->cpu_count > 0 ? 0 : -1;
}

/* A device hangs below the object whose CPUs are nearest; hwloc knows no better below the machine
 * itself, and then all of them come back. */
static int near_bus(const struct zinf_topology_source *source, const char *const *bus_ids,
                    int count, uint64_t (*cpus)[ZINF_CPUS_WORDS])
{
    hwloc_topology_t machine;
    if (load(&machine, source, true))
        return -1;
    memset(cpus, 0, (size_t)count * sizeof *cpus);
    for (int i = 0; i < count; i++) {
        hwloc_obj_t device = hwloc_get_pcidev_by_busidstring(machine, bus_ids[i]);
        hwloc_obj_t near = device ? hwloc_get_non_io_ancestor_obj(machine, device) : NULL;
        int cpu = -1;
        while (near && near->cpuset && (cpu = hwloc_bitmap_next(near->cpuset, cpu)) >= 0 &&
               cpu < ZINF_CPUS)
            zinf_cpus_add(cpus[i], cpu);
    }
    hwloc_topology_destroy(machine);
    return 0;
}

const struct zinf_topology_reader zinf_topology_hwloc = {
    .name = "hwloc", .version = version, .read = read_topology, .near_bus = near_bus};
