/*
 * The map of ranks of a running job: what the ranks tell each other, what the kernel is told, and
 * the table that is printed. See rankmap.h.
 */
#include "topology/rankmap.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a rank says of itself. */
struct report {
    char host[72]; /* the kernel allows 64 */
    uint64_t cpus[ZINF_CPUS_WORDS];
    bool restricted;
    int cores; /* it may use at once */
    int quota_cores, hint;
};

static void read_report(struct report *report, const struct zinf_machine *machine,
                        const struct zinf_topology *topology)
{
    memset(report, 0, sizeof *report);
    snprintf(report->host, sizeof report->host, "%.71s", machine->host);
    memcpy(report->cpus, machine->cpus, sizeof report->cpus);
    report->restricted = zinf_cpus_count(machine->cpus) < zinf_cpus_count(machine->offered);
    report->cores = machine->cores;
    if (machine->cpu_quota > 0)
        report->quota_cores = machine->cpu_quota < 1.5 ? 1 : (int)(machine->cpu_quota + 0.5);
    int cores = zinf_topology_cores(topology, machine->cpus); /* hardware threads are none */
    if (cores > 0 && cores < report->cores)
        report->cores = cores;
    report->hint = sched_getcpu();
}

/* The contract's default: cores / ranks that use the same. */
static int threads_of(const struct report *all, int size, int rank)
{
    int sharers = 0;
    for (int i = 0; i < size; i++)
        sharers +=
            !strcmp(all[i].host, all[rank].host) && zinf_cpus_overlap(all[i].cpus, all[rank].cpus);
    int threads = all[rank].cores / (sharers > 1 ? sharers : 1);
    return threads > 1 ? threads : 1;
}

/* Fill this rank's row and place it among the ranks of its host. */
static int place_self(struct zinf_rankmap_row *row, const struct zinf_topology *topology,
                      const struct report *all, const struct zinf_comm *comm,
                      struct zinf_rankmap_request *request, struct zinf_error *error)
{
    size_t size = (size_t)comm->size;
    struct zinf_rankmap_rank *ranks = zinf_alloc(size * sizeof *ranks);
    struct zinf_binding *places = zinf_alloc(size * sizeof *places);
    int asked = row->threads;
    request->hint = -1;
    for (int i = 0; i < comm->size; i++) {
        if (strcmp(all[i].host, all[comm->rank].host) != 0)
            continue;
        struct zinf_rankmap_rank *rank = &ranks[row->local_size];
        if (row->local_size == 0)
            request->hint = all[i].hint;
        if (i == comm->rank)
            row->local_rank = row->local_size;
        memcpy(rank->cpus, all[i].cpus, sizeof rank->cpus);
        rank->restricted = all[i].restricted;
        rank->threads = asked > 0 ? asked : threads_of(all, comm->size, i);
        row->local_size++;
    }
    request->ranks = ranks;
    request->rank_count = row->local_size;
    row->threads = ranks[row->local_rank].threads;
    int status = zinf_rankmap_place(topology, request, places, error);
    if (!status)
        row->place = places[row->local_rank];
    free(ranks);
    free(places);
    return status;
}

static int apply_to_thread(int thread, const uint64_t *cpus)
{
    cpu_set_t *set = CPU_ALLOC(ZINF_CPUS);
    size_t bytes = CPU_ALLOC_SIZE(ZINF_CPUS);
    CPU_ZERO_S(bytes, set);
    for (int cpu = 0; cpu < ZINF_CPUS; cpu++)
        if (zinf_cpus_has(cpus, cpu))
            CPU_SET_S(cpu, bytes, set);
    int status = sched_setaffinity(thread, bytes, set) ? errno : 0;
    CPU_FREE(set);
    return status;
}

int zinf_rankmap_apply(const struct zinf_binding *place)
{
    if (place->kind != ZINF_BINDING_BOUND)
        return 0;
    /* Ourselves first: what is made from here on inherits it. Then threads that libraries have. */
    int status = apply_to_thread(0, place->cpus);
    DIR *threads = status ? NULL : opendir("/proc/self/task");
    for (struct dirent *entry; threads && (entry = readdir(threads));)
        if (entry->d_name[0] != '.' && atoi(entry->d_name) > 0)
            apply_to_thread(atoi(entry->d_name), place->cpus); /* gone meanwhile: nothing to bind */
    if (threads)
        closedir(threads);
    return status;
}

/* Binding is a service under auto: where the kernel says no (a seccomp filter), the rank runs
 * unbound and the table says so. What was asked for by name is an error. */
static int apply(struct zinf_rankmap_row *row, const struct report *mine, enum zinf_bind bind,
                 struct zinf_error *error)
{
    int failure = zinf_rankmap_apply(&row->place);
    if (failure && bind != ZINF_BIND_AUTO)
        return zinf_error_set(error, ZINF_E_USAGE,
                              "zinf.bind \"%s\" cannot be: %s does not let a process choose its "
                              "CPUs (sched_setaffinity: %s)",
                              zinf_bind_name(bind), row->host, strerror(failure));
    if (failure) {
        row->place.kind = ZINF_BINDING_FREE;
        row->place.numa = -1;
        memcpy(row->place.cpus, mine->cpus, sizeof row->place.cpus);
        snprintf(row->place.why, sizeof row->place.why, "sched_setaffinity: %s", strerror(failure));
    }
    return ZINF_OK;
}

/* The lowest rank that has a message logs it; others are silent. */
static int agree(struct zinf_comm *comm, int status, const struct zinf_error *error)
{
    int first = comm->size, *all = zinf_alloc((size_t)comm->size * sizeof *all);
    zinf_comm_gather_small(comm, &status, sizeof status, all);
    for (int i = comm->size - 1; i >= 0; i--)
        if (all[i])
            first = i;
    free(all);
    if (comm->rank == first)
        zinf_error_log("%s", error->text);
    return zinf_comm_agree(comm, status);
}

int zinf_rankmap_open(struct zinf_rankmap *map, struct zinf_comm *comm, enum zinf_bind bind,
                      int threads)
{
    struct zinf_machine *machine = zinf_alloc(sizeof *machine);
    struct zinf_topology *topology = zinf_alloc(sizeof *topology);
    struct report mine, *all = zinf_alloc((size_t)comm->size * sizeof *all);
    struct zinf_rankmap_row row = {.threads = threads};
    struct zinf_rankmap_request request = {.bind = bind};
    struct zinf_error error = {0};
    zinf_machine_read(machine, "");
    zinf_topology_read(topology, machine, NULL);
    read_report(&mine, machine, topology);
    zinf_comm_gather_small(comm, &mine, sizeof mine, all);
    snprintf(row.host, sizeof row.host, "%s", mine.host);
    request.cores = mine.quota_cores;
    int status = place_self(&row, topology, all, comm, &request, &error);
    status = agree(comm, status, &error);
    if (!status)
        status = agree(comm, apply(&row, &mine, bind, &error), &error);
    if (!status) {
        *map = (struct zinf_rankmap){.bind = bind, .size = comm->size};
        snprintf(map->reader, sizeof map->reader, "%s", topology->reader);
        map->rows = zinf_alloc((size_t)comm->size * sizeof *map->rows);
        zinf_comm_gather_small(comm, &row, sizeof row, map->rows);
    }
    free(machine);
    free(topology);
    free(all);
    return status;
}

void zinf_rankmap_release(struct zinf_rankmap *map)
{
    free(map->rows);
    *map = (struct zinf_rankmap){0};
}

int zinf_rankmap_share_paths(struct zinf_rankmap *map, struct zinf_comm *comm,
                             const char *const *paths, int path_count)
{
    struct zinf_rankmap_row *mine = &map->rows[comm->rank];
    int *near = zinf_alloc((size_t)path_count * sizeof *near), count = 0;
    int *numa = zinf_alloc((size_t)map->size * sizeof *numa);
    int *path_of = zinf_alloc((size_t)map->size * sizeof *path_of);
    for (int path = 0; path < path_count; path++)
        near[path] = zinf_topology_near(paths[path], "");
    for (int i = 0; i < map->size; i++)
        if (!strcmp(map->rows[i].host, mine->host))
            numa[count++] = map->rows[i].place.numa;
    zinf_rankmap_paths(near, path_count, numa, count, path_of);
    int path = path_of[mine->local_rank];
    struct zinf_rankmap_row row = *mine;
    bool more = *row.path && strcmp(row.path, paths[path]) != 0;
    char *text = zinf_format("%s%s%s", more ? mine->path : "", more ? ", " : "", paths[path]);
    snprintf(row.path, sizeof row.path, "%s", text);
    free(text);
    zinf_comm_gather_small(comm, &row, sizeof row, map->rows);
    free(near);
    free(numa);
    free(path_of);
    return path;
}
