/*
 * What a node is made of, as plain data: the package, NUMA node and core of every CPU. machine.h says what a process may use of it.
 *
 * Readers: hwloc (machine_hwloc.c) where it is compiled in; else the plain one, which knows one NUMA node and takes every CPU for a core.
 */
#ifndef ZINF_TOPOLOGY_TOPOLOGY_H
#define ZINF_TOPOLOGY_TOPOLOGY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "topology/machine.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { ZINF_TOPOLOGY_NUMA = 256 }; /* highest NUMA node number + 1 */

struct zinf_topology_cpu {
    int16_t package, numa; /* numa: the kernel's number */
    int16_t core;          /* 0 .. core_count - 1, neighbours are near each other; -1: there is no such CPU */
};

struct zinf_topology {
    char reader[32]; /* "hwloc", "kernel" */
    int package_count, numa_count, core_count, cpu_count; /* numa_count: those with CPUs */
    struct zinf_topology_cpu cpu[ZINF_CPUS];
    int64_t numa_bytes[ZINF_TOPOLOGY_NUMA]; /* memory; 0 = unknown */
};

/** Where to look; all NULL: this machine. At most one is set. */
struct zinf_topology_source {
    const char *xml;       /* a file that `lstopo FILE.xml` wrote */
    const char *synthetic; /* hwloc's words, "package:2 numa:1 core:8 pu:2" */
};

struct zinf_topology_reader {
    const char *name;
    /** Of the library, "interface 2.8.0". */
    void (*version)(char *out, size_t out_bytes);
    /** @return 0, or -1 when it cannot be read: *topology is then undefined */
    int (*read)(struct zinf_topology *topology, const struct zinf_topology_source *source);
    /** As zinf_topology_near_bus(). @return 0, or -1 when the bus cannot be read: *cpus are then undefined */
    int (*near_bus)(const struct zinf_topology_source *source, const char *const *bus_ids,
                    int count, uint64_t (*cpus)[ZINF_CPUS_WORDS]);
};

/** The readers compiled in, the best first; NULL behind the last. Without hwloc there is none. */
const struct zinf_topology_reader *const *zinf_topology_readers(void);
extern const struct zinf_topology_reader zinf_topology_hwloc; /* machine_hwloc.c */

/**
 * Describe the node by the best reader, else by what machine says. Local.
 * @param source  NULL: this machine
 */
void zinf_topology_read(struct zinf_topology *topology, const struct zinf_machine *machine,
                        const struct zinf_topology_source *source);

/** Cores that have at least one of these CPUs. */
int zinf_topology_cores(const struct zinf_topology *topology, const uint64_t *cpus);
/** The NUMA node all these CPUs belong to; -1: several, or none is known. */
int zinf_topology_numa_of(const struct zinf_topology *topology, const uint64_t *cpus);
/** The same for the package. */
int zinf_topology_package_of(const struct zinf_topology *topology, const uint64_t *cpus);

/**
 * The CPUs nearest to devices on the PCI bus: by the best reader that knows them, else by what the kernel says in sysfs. Local. Looks at the
 * whole bus, which takes a while on large nodes: once a run, and where there is a choice only.
 * @param source   NULL: this machine
 * @param root     of sysfs: "" for this machine
 * @param bus_ids  (count) as "00000000:3b:00.0"
 * @param cpus     out, (count); empty: unknown
 */
void zinf_topology_near_bus(const struct zinf_topology_source *source, const char *root,
                            const char *const *bus_ids, int count,
                            uint64_t (*cpus)[ZINF_CPUS_WORDS]);

/**
 * The NUMA node that the drive under a path is attached to. Local. Of a volume made of several drives (md, dm) the first counts.
 * @param root  "" for this machine, a folder with sys/ for a recorded one
 * @return -1: unknown, or the path is on no drive (tmpfs, NFS)
 */
int zinf_topology_near(const char *path, const char *root);
/** The same for a drive's number (major:minor). */
int zinf_topology_near_device(unsigned major, unsigned minor, const char *root);

#ifdef __cplusplus
}
#endif
#endif
