/*
 * The node as plain data. See topology.h. This file holds the list of readers that are compiled in.
 *
 * Drives are looked up in sysfs, not in hwloc: a partition, a volume or a controller tells its NUMA
 * node in a file of a folder above it, and hwloc would have to scan the PCI bus of the node on
 * every rank to know the same.
 */
#include "topology/topology.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dirent.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/status.h"
#include "config.h"

static const struct zinf_topology_reader *const readers[] = {
#if HAVE_HWLOC
    &zinf_topology_hwloc,
#endif
    NULL};

const struct zinf_topology_reader *const *zinf_topology_readers(void)
{
    return readers;
}

static void read_plain(struct zinf_topology *topology, const struct zinf_machine *machine)
{
    memset(topology, 0, sizeof *topology);
    snprintf(topology->reader, sizeof topology->reader, "kernel");
    for (int cpu = 0; cpu < ZINF_CPUS; cpu++) {
        bool known = zinf_cpus_has(machine->offered, cpu) || zinf_cpus_has(machine->cpus, cpu);
        topology->cpu[cpu].core = known ? (int16_t)topology->cpu_count++ : -1;
    }
    topology->core_count = topology->cpu_count;
    topology->package_count = topology->numa_count = 1;
    topology->numa_bytes[0] = machine->memory_total;
}

void zinf_topology_read(struct zinf_topology *topology, const struct zinf_machine *machine,
                        const struct zinf_topology_source *source)
{
    const struct zinf_topology_source here = {NULL, NULL};
    for (int i = 0; readers[i]; i++)
        if (readers[i]->read(topology, source ? source : &here) == 0)
            return;
    read_plain(topology, machine);
}

int zinf_topology_cores(const struct zinf_topology *topology, const uint64_t *cpus)
{
    bool *seen = zinf_alloc((size_t)topology->core_count + 1);
    int count = 0;
    for (int cpu = 0; cpu < ZINF_CPUS; cpu++) {
        int core = topology->cpu[cpu].core;
        if (core < 0 || !zinf_cpus_has(cpus, cpu))
            continue;
        count += !seen[core];
        seen[core] = true;
    }
    free(seen);
    return count;
}

int zinf_topology_numa_of(const struct zinf_topology *topology, const uint64_t *cpus)
{
    int numa = -1;
    for (int cpu = 0; cpu < ZINF_CPUS; cpu++) {
        if (!zinf_cpus_has(cpus, cpu))
            continue;
        if (topology->cpu[cpu].core < 0 || (numa >= 0 && numa != topology->cpu[cpu].numa))
            return -1;
        numa = topology->cpu[cpu].numa;
    }
    return numa;
}

int zinf_topology_package_of(const struct zinf_topology *topology, const uint64_t *cpus)
{
    int package = -1;
    for (int cpu = 0; cpu < ZINF_CPUS; cpu++) {
        if (!zinf_cpus_has(cpus, cpu))
            continue;
        if (topology->cpu[cpu].core < 0 || (package >= 0 && package != topology->cpu[cpu].package))
            return -1;
        package = topology->cpu[cpu].package;
    }
    return package;
}

/* The kernel's own word, /sys/bus/pci/devices/0000:3b:00.0/local_cpulist. */
static void near_bus_plain(const char *root, const char *bus_id, uint64_t *cpus)
{
    unsigned domain, bus, slot, function;
    char list[4096] = "";
    memset(cpus, 0, ZINF_CPUS_WORDS * sizeof *cpus);
    if (sscanf(bus_id, "%x:%x:%x.%x", &domain, &bus, &slot, &function) != 4)
        return;
    char *path = zinf_format("%s/sys/bus/pci/devices/%04x:%02x:%02x.%x/local_cpulist", root, domain,
                             bus, slot, function);
    FILE *file = fopen(path, "re");
    if (file && fgets(list, sizeof list, file))
        zinf_cpus_parse(list, cpus);
    if (file)
        fclose(file);
    free(path);
}

void zinf_topology_near_bus(const struct zinf_topology_source *source, const char *root,
                            const char *const *bus_ids, int count,
                            uint64_t (*cpus)[ZINF_CPUS_WORDS])
{
    const struct zinf_topology_source here = {NULL, NULL};
    bool known = false;
    for (int i = 0; readers[i] && !known; i++)
        known = readers[i]->near_bus(source ? source : &here, bus_ids, count, cpus) == 0;
    for (int i = 0; i < count; i++)
        if (!known || zinf_cpus_count(cpus[i]) == 0)
            near_bus_plain(root, bus_ids[i], cpus[i]);
}

/* The number in folder/numa_node; -1 when there is none or the kernel does not know. */
static int numa_file(const char *folder)
{
    char *path = zinf_format("%s/numa_node", folder);
    FILE *file = fopen(path, "re");
    int numa = -1;
    if (file) {
        if (fscanf(file, "%d", &numa) != 1)
            numa = -1;
        fclose(file);
    }
    free(path);
    return numa;
}

/* Replace a volume's folder by the first of its drives. False when it is a drive itself. */
static bool first_slave(char folder[PATH_MAX])
{
    char *slaves = zinf_format("%s/slaves", folder), first[256] = "";
    DIR *entries = opendir(slaves);
    for (struct dirent *entry; entries && (entry = readdir(entries));)
        if (entry->d_name[0] != '.' && (!*first || strcmp(entry->d_name, first) < 0))
            snprintf(first, sizeof first, "%s", entry->d_name);
    if (entries)
        closedir(entries);
    char *slave = zinf_format("%s/%s", slaves, first);
    bool found = *first && realpath(slave, folder);
    free(slave);
    free(slaves);
    return found;
}

int zinf_topology_near_device(unsigned major, unsigned minor, const char *root)
{
    char *link = zinf_format("%s/sys/dev/block/%u:%u", root, major, minor), folder[PATH_MAX];
    bool known = realpath(link, folder);
    free(link);
    if (!known)
        return -1;
    for (int depth = 0; depth < 8 && first_slave(folder); depth++)
        ;
    for (char *slash; (slash = strrchr(folder, '/')) && slash > folder + strlen(root); *slash = 0) {
        int numa = numa_file(folder);
        if (numa >= 0)
            return numa < ZINF_TOPOLOGY_NUMA ? numa : -1;
    }
    return -1;
}

int zinf_topology_near(const char *path, const char *root)
{
    struct stat about;
    if (stat(path, &about))
        return -1;
    return zinf_topology_near_device(major(about.st_dev), minor(about.st_dev), root);
}
