/*
 * A node as plain data: what this process may use of it. Read from the files in which the kernel says so, so that recorded machines can
 * be read the same way.
 */
#ifndef ZINF_TOPOLOGY_MACHINE_H
#define ZINF_TOPOLOGY_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include "topology/comm.h"
#include "topology/cpus.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { ZINF_MACHINE_CPUS = ZINF_CPUS };

/* Bytes and cores; 0 = there is no such limit. */
struct zinf_machine {
    char host[256];
    char cpu_name[128];  /* e.g. "AMD EPYC 9754"; "unknown CPU" */
    char cpu_flags[512]; /* instruction sets that matter to kernels, e.g. " sse4_2 avx2 fma avx512f ", blanks on both sides */
    uint64_t cpus[ZINF_CPUS_WORDS];    /* the CPUs this process may run on */
    uint64_t offered[ZINF_CPUS_WORDS]; /* those of the node that are online and that the control groups leave: more than cpus where a
                                          launcher or taskset has bound this process */
    int cpu_count;
    double cpu_quota; /* cores' worth of time the control groups grant */
    int cores;        /* what it may use at once: cpu_count, cut by the quota; at least 1 */
    int64_t memory_total, memory_free; /* of the node; free = what can be had without swapping */
    int64_t memory_limit;              /* of the tightest control group */
    int64_t memory_available; /* min(memory_free, what the control groups leave); page cache that can be dropped counts as free */
    int64_t limit_data, limit_address_space; /* RLIMIT_DATA, RLIMIT_AS of this process; 0 = none */
    int64_t data_in_use, mapped;             /* what counts against them already */
};

/**
 * Read what the kernel says. Local.
 * @param root  "" for this machine; a folder that holds proc/ and sys/ for a recorded one
 * What cannot be read is left at its "unknown": 0, "unknown CPU", one core. Does not fail.
 */
void zinf_machine_read(struct zinf_machine *machine, const char *root);

/** Does the CPU have `flag` (a word of /proc/cpuinfo)? */
bool zinf_machine_has(const struct zinf_machine *machine, const char *flag);

/** How many ranks of this node may run on one of this rank's CPUs, itself included. Collective over comm. 1 where ranks are bound apart. */
int zinf_machine_sharers(const struct zinf_machine *machine, struct zinf_comm *comm);

/** Threads a rank should use: max(1, cores / sharers), with sharers = ranks that use the same CPUs (local_size where nobody is bound). */
int zinf_machine_threads_default(const struct zinf_machine *machine, int sharers);

#ifdef __cplusplus
}
#endif
#endif
