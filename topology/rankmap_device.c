/*
 * Which rank computes on which device: one near its cores. See rankmap.h.
 *
 * A rank's place among its neighbours is its place among the ranks that share the node's memory, as
 * the communicator knows them. Rejected: a launcher's variable (SLURM_LOCALID and the like), which
 * other launchers lack and a job step inside another inherits.
 */
#include "topology/rankmap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAME_NUMA, SAME_PACKAGE, ANY, LEVELS };

static bool near_enough(const struct zinf_rankmap_near *a, const struct zinf_rankmap_near *b,
                        int level)
{
    if (level == SAME_NUMA)
        return a->numa >= 0 && a->numa == b->numa;
    return level == ANY || (a->package >= 0 && a->package == b->package);
}

/* Rounds in which every device takes one rank at most: near ones first. */
void zinf_rankmap_devices(const struct zinf_rankmap_near *devices, int device_count,
                          const struct zinf_rankmap_near *ranks, int rank_count, int *device_of)
{
    bool *given = zinf_alloc((size_t)device_count * sizeof *given);
    for (int rank = 0; rank < rank_count; rank++)
        device_of[rank] = -1;
    for (int left = rank_count; left > 0;) {
        memset(given, 0, (size_t)device_count * sizeof *given);
        for (int level = 0; level < LEVELS; level++)
            for (int device = 0; device < device_count; device++) {
                int rank = given[device] ? rank_count : 0;
                while (rank < rank_count && (device_of[rank] >= 0 ||
                                             !near_enough(&devices[device], &ranks[rank], level)))
                    rank++;
                if (rank == rank_count)
                    continue;
                device_of[rank] = device;
                given[device] = true;
                left--;
            }
    }
    free(given);
}

/* What a rank says of itself. */
struct seen {
    uint64_t node;    /* zinf_comm.node */
    uint64_t devices; /* a hash of the devices it can see */
    struct zinf_rankmap_near near;
};

/* FNV-1a */
static uint64_t hash_of(const struct zinf_rankmap_choice *choice)
{
    uint64_t hash = 14695981039346656037u ^ (uint64_t)choice->count;
    for (int i = 0; i < choice->count; i++)
        for (const char *c = choice->bus_ids[i];; c++) {
            hash = (hash ^ (unsigned char)*c) * 1099511628211u;
            if (!*c)
                break;
        }
    return hash;
}

static struct zinf_rankmap_near near_of(const struct zinf_topology *topology, const uint64_t *cpus)
{
    return (struct zinf_rankmap_near){zinf_topology_numa_of(topology, cpus),
                                      zinf_topology_package_of(topology, cpus)};
}

/* This rank's and the devices' places. With one device there is nothing to choose, and the bus is
 * not read. */
static void find_places(const struct zinf_rankmap_choice *choice, const uint64_t *cpus,
                        struct zinf_rankmap_near *mine, struct zinf_rankmap_near *devices)
{
    *mine = (struct zinf_rankmap_near){-1, -1};
    for (int i = 0; i < choice->count; i++)
        devices[i] = *mine;
    if (choice->count < 2)
        return;
    struct zinf_machine *machine = zinf_alloc(sizeof *machine);
    struct zinf_topology *topology = zinf_alloc(sizeof *topology);
    uint64_t(*near)[ZINF_CPUS_WORDS] = zinf_alloc((size_t)choice->count * sizeof *near);
    zinf_machine_read(machine, "");
    zinf_topology_read(topology, machine, choice->source);
    zinf_topology_near_bus(choice->source, "", choice->bus_ids, choice->count, near);
    *mine = near_of(topology, cpus);
    for (int i = 0; i < choice->count; i++)
        devices[i] = near_of(topology, near[i]);
    free(machine);
    free(topology);
    free(near);
}

/* "cuda 2, 3b:00.0": without the domain where that is 0. */
static void name_device(struct zinf_rankmap_row *row, const struct zinf_rankmap_choice *choice,
                        int device)
{
    const char *bus_id = choice->bus_ids[device];
    row->device[0] = '\0';
    if (*bus_id)
        snprintf(row->device, sizeof row->device, "%.15s %d, %.31s", choice->backend, device,
                 bus_id + (strncmp(bus_id, "00000000:", 9) ? 0 : 9));
}

int zinf_rankmap_share_devices(struct zinf_rankmap *map, struct zinf_comm *comm,
                               const struct zinf_rankmap_choice *choice, int *sharing)
{
    size_t size = (size_t)comm->size, room = (size_t)choice->count + 1;
    struct seen mine = {.node = comm->node, .devices = hash_of(choice)};
    struct seen *all = zinf_alloc(size * sizeof *all);
    struct zinf_rankmap_near *devices = zinf_alloc(room * sizeof *devices);
    struct zinf_rankmap_near *ranks = zinf_alloc(size * sizeof *ranks);
    int *device_of = zinf_alloc(size * sizeof *device_of), count = 0, self = 0, device = -1;
    struct zinf_rankmap_row row = map->rows[comm->rank];
    find_places(choice, row.place.cpus, &mine.near, devices);
    zinf_comm_gather_small(comm, &mine, sizeof mine, all);
    for (int i = 0; i < comm->size; i++) {
        if (all[i].node != mine.node || all[i].devices != mine.devices)
            continue;
        if (i == comm->rank)
            self = count;
        ranks[count++] = all[i].near;
    }
    *sharing = 1;
    if (choice->count > 0) {
        zinf_rankmap_devices(devices, choice->count, ranks, count, device_of);
        device = device_of[self];
        name_device(&row, choice, device);
        *sharing = 0;
        for (int i = 0; i < count; i++)
            *sharing += device_of[i] == device;
    }
    zinf_comm_gather_small(comm, &row, sizeof row, map->rows);
    free(all);
    free(devices);
    free(ranks);
    free(device_of);
    return device;
}
