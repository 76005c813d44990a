/*
 * Which rank runs where: cores, NUMA node, drive. Contract section 2, `bind`.
 *
 * The decision is a function of plain data (a node, its ranks, what was asked), so that it can be tried on machines nobody here has.
 * Every rank of a node computes it for all of them and takes its own part.
 */
#ifndef ZINF_TOPOLOGY_RANKMAP_H
#define ZINF_TOPOLOGY_RANKMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "topology/comm.h"
#include "topology/topology.h"

#ifdef __cplusplus
extern "C" {
#endif

enum zinf_bind {
    ZINF_BIND_AUTO, /* a rank whose CPUs were already restricted stays as it is; the others as CORE where that fits, else as NONE */
    ZINF_BIND_NONE,
    ZINF_BIND_CORE, /* `threads` whole cores of one NUMA node for each rank, within the CPUs it came with; where that does not fit, an error */
    ZINF_BIND_NUMA  /* all its CPUs of one NUMA node, with enough cores for the threads of all ranks there; else an error */
};

/** "auto", "none", "core", "numa" (anything else counts as auto: the configuration has checked it). */
enum zinf_bind zinf_bind_parse(const char *word);
const char *zinf_bind_name(enum zinf_bind bind);

/** A rank of the node. */
struct zinf_rankmap_rank {
    uint64_t cpus[ZINF_CPUS_WORDS]; /* what it came with */
    bool restricted;                /* they are fewer than the node and its control groups offer: somebody has bound it */
    int threads;
};

struct zinf_rankmap_request {
    enum zinf_bind bind;
    int cores; /* what the ranks of the node may use at once: the control group's quota, rounded; 0 = no limit */
    int hint;  /* a CPU that is idle (the one on which the kernel started a rank): cores are taken from there on when some are to spare.
                  -1: from the first on. So two jobs on one node do not meet on its first cores. */
    const struct zinf_rankmap_rank *ranks;
    int rank_count;
};

enum zinf_binding_kind {
    ZINF_BINDING_FREE, /* runs on all the CPUs it came with, nobody has bound it */
    ZINF_BINDING_LEFT, /* bound before it came */
    ZINF_BINDING_BOUND /* bound by us */
};

struct zinf_binding {
    enum zinf_binding_kind kind;
    uint64_t cpus[ZINF_CPUS_WORDS]; /* where it may run */
    int numa;                       /* their NUMA node; -1: several, or none is known */
    char why[192];                  /* FREE although auto: the reason; else "" */
};

/**
 * Place the ranks of a node. Local, pure.
 * @param places  out, (rank_count); unchanged on failure
 * @return 0, or ZINF_E_USAGE: CORE or NUMA cannot be had, *error says why
 */
int zinf_rankmap_place(const struct zinf_topology *topology,
                       const struct zinf_rankmap_request *request, struct zinf_binding *places,
                       struct zinf_error *error);

/**
 * Share out paths to the ranks of a node: the numbers of ranks a path differ by one at most, earlier paths get more, and within that a rank
 * gets a path near its NUMA node. Local, pure.
 * @param path_numa  (path_count), rank_numa (rank_count): NUMA nodes, -1 = unknown
 * @param path_of    out, (rank_count): a path's number each
 */
void zinf_rankmap_paths(const int *path_numa, int path_count, const int *rank_numa, int rank_count,
                        int *path_of);

/** Where a rank's cores or a device are. -1: unknown, or several. */
struct zinf_rankmap_near {
    int numa, package;
};

/**
 * Share out devices to the ranks of a node: no device has two ranks more than another, and as long as that leaves a choice a rank gets one of
 * its NUMA node, else of its package, else the first that is left. Local, pure.
 * @param devices    (device_count), at least one; ranks (rank_count)
 * @param device_of  out, (rank_count): a device's number each
 */
void zinf_rankmap_devices(const struct zinf_rankmap_near *devices, int device_count,
                          const struct zinf_rankmap_near *ranks, int rank_count, int *device_of);

/** Restrict this process, all threads it has and those it will make, to place->cpus (BOUND; else nothing happens). @return 0 or an errno */
int zinf_rankmap_apply(const struct zinf_binding *place);

/** A line of the table: where a rank is. Plain data, sent between ranks. */
struct zinf_rankmap_row {
    char host[72]; /* the kernel allows 64 */
    int threads;
    int local_rank, local_size; /* among the ranks of this host */
    struct zinf_binding place;
    char path[256]; /* its nvme_path; "" = none */
    char device[64]; /* "cuda 2, 3b:00.0"; "" = the CPU, or not chosen */
};

/** All ranks of the job. Zeroed = empty. */
struct zinf_rankmap {
    enum zinf_bind bind;
    int size;
    struct zinf_rankmap_row *rows; /* (size), the same on all ranks; owned */
    char reader[32];               /* who read the topology, zinf_topology.reader */
};

/**
 * Decide for all ranks, bind this one, and tell everybody. Collective over comm. Before threads are made that compute.
 * @param threads  a rank; 0 = cores that it may use / ranks that share them, at least 1
 * @return 0; ZINF_E_USAGE on all ranks, logged once: CORE or NUMA cannot be had
 */
int zinf_rankmap_open(struct zinf_rankmap *map, struct zinf_comm *comm, enum zinf_bind bind,
                      int threads);
void zinf_rankmap_release(struct zinf_rankmap *map);

/**
 * Give each rank one of several paths (folders for swap files) and note it in the rows, beside what a call before noted. Collective over comm.
 * @return the number of this rank's path
 */
int zinf_rankmap_share_paths(struct zinf_rankmap *map, struct zinf_comm *comm,
                             const char *const *paths, int path_count);

/** What a rank can choose a device from. */
struct zinf_rankmap_choice {
    const char *backend;        /* "cuda" */
    const char *const *bus_ids; /* (count) as "00000000:3b:00.0"; "" = on no bus */
    int count;                  /* 0: this rank has none, and takes part only */
    const struct zinf_topology_source *source; /* NULL: this machine */
};

/**
 * Give each rank a device near its cores and note it in the rows, where it is on a bus. Ranks of a node that can see the same devices share
 * them out; one that sees others (a launcher has given each its own) chooses among those. After zinf_rankmap_open(). Collective over comm.
 * @param sharing  out: ranks of this node that have this rank's device, itself too
 * @return the number of this rank's device; -1 where count is 0
 */
int zinf_rankmap_share_devices(struct zinf_rankmap *map, struct zinf_comm *comm,
                               const struct zinf_rankmap_choice *choice, int *sharing);

/** One line: what was bound, or why nothing was. Owned by the caller. */
char *zinf_rankmap_summary(const struct zinf_rankmap *map);
/**
 * The table, a line each rank; from 17 ranks on a line for each run of nodes that look alike. Ends without a newline. Owned by the caller.
 */
char *zinf_rankmap_table(const struct zinf_rankmap *map);

#ifdef __cplusplus
}
#endif
#endif
