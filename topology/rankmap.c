/*
 * Which rank gets which cores and which drive. See rankmap.h; the part that talks to other ranks
 * and to the kernel is rankmap_open.c.
 *
 * Ranks that came with the same CPUs and want as many threads form a group. A group is spread
 * evenly over the NUMA nodes it may use (each brings its own memory bandwidth), neighbouring ranks
 * on the same one, and takes consecutive cores there. Whole cores: a rank gets the hardware threads
 * too, on which its mover thread runs.
 */
#include "topology/rankmap.h"

#include <stdlib.h>
#include <string.h>

static const char *const bind_names[] = {
    [ZINF_BIND_AUTO] = "auto",
    [ZINF_BIND_NONE] = "none",
    [ZINF_BIND_CORE] = "core",
    [ZINF_BIND_NUMA] = "numa",
};

enum zinf_bind zinf_bind_parse(const char *word)
{
    for (int i = ZINF_BIND_NONE; i <= ZINF_BIND_NUMA; i++)
        if (word && !strcmp(word, bind_names[i]))
            return (enum zinf_bind)i;
    return ZINF_BIND_AUTO;
}

const char *zinf_bind_name(enum zinf_bind bind)
{
    return bind_names[bind];
}

/* The work on one request. */
struct placing {
    const struct zinf_topology *topology;
    const struct zinf_rankmap_request *request;
    struct zinf_binding *places;
    bool *placed; /* (rank_count) */
    bool *taken;  /* (core_count): of another rank */
    int hint_core;
};

/* Ranks that are placed together, and what is free for them. */
struct group {
    const struct zinf_rankmap_rank *like; /* its first member */
    int *members, member_count;
    int *cores[ZINF_TOPOLOGY_NUMA]; /* free, in order; NULL = none */
    int core_count[ZINF_TOPOLOGY_NUMA];
    int ranks[ZINF_TOPOLOGY_NUMA]; /* members that go there */
};

static void find_members(const struct placing *p, struct group *group, int first)
{
    const struct zinf_rankmap_rank *ranks = p->request->ranks;
    group->like = &ranks[first];
    group->members = zinf_alloc((size_t)p->request->rank_count * sizeof *group->members);
    for (int i = first; i < p->request->rank_count; i++)
        if (!p->placed[i] && ranks[i].threads == ranks[first].threads &&
            zinf_cpus_equal(ranks[i].cpus, ranks[first].cpus))
            group->members[group->member_count++] = i;
}

/* Free cores of the group's CPUs, by NUMA node. */
static void find_cores(const struct placing *p, struct group *group)
{
    const struct zinf_topology *t = p->topology;
    int *numa_of = zinf_alloc(((size_t)t->core_count + 1) * sizeof *numa_of);
    for (int core = 0; core < t->core_count; core++)
        numa_of[core] = -1;
    for (int cpu = 0; cpu < ZINF_CPUS; cpu++)
        if (t->cpu[cpu].core >= 0 && zinf_cpus_has(group->like->cpus, cpu))
            numa_of[t->cpu[cpu].core] = t->cpu[cpu].numa;
    for (int core = 0; core < t->core_count; core++) {
        int numa = numa_of[core];
        if (numa < 0 || p->taken[core])
            continue;
        if (!group->cores[numa])
            group->cores[numa] = zinf_alloc((size_t)t->core_count * sizeof(int));
        group->cores[numa][group->core_count[numa]++] = core;
    }
    free(numa_of);
}

static void group_release(struct group *group)
{
    for (int numa = 0; numa < ZINF_TOPOLOGY_NUMA; numa++)
        free(group->cores[numa]);
    free(group->members);
}

/* How many members go to each NUMA node: one after the other to the node with the fewest, as far as
 * whole ranks fit; among equals the one that holds the hint. @return how many fit */
static int spread(const struct placing *p, struct group *group)
{
    int fitted = 0;
    for (; fitted < group->member_count; fitted++) {
        int best = -1;
        for (int numa = 0; numa < ZINF_TOPOLOGY_NUMA; numa++) {
            bool full = (group->ranks[numa] + 1) * group->like->threads > group->core_count[numa];
            if (!full && (best < 0 || group->ranks[numa] < group->ranks[best]))
                best = numa;
            else if (!full && group->ranks[numa] == group->ranks[best] && p->hint_core >= 0)
                for (int i = 0; i < group->core_count[numa]; i++)
                    if (group->cores[numa][i] == p->hint_core)
                        best = numa;
        }
        if (best < 0)
            break;
        group->ranks[best]++;
    }
    return fitted;
}

/* Add this rank's CPUs of a core, or of a whole NUMA node (core < 0). */
static void give(const struct placing *p, int rank, int core, int numa)
{
    const uint64_t *mine = p->request->ranks[rank].cpus;
    for (int cpu = 0; cpu < ZINF_CPUS; cpu++) {
        const struct zinf_topology_cpu *about = &p->topology->cpu[cpu];
        bool wanted = core >= 0 ? about->core == core : about->core >= 0 && about->numa == numa;
        if (wanted && zinf_cpus_has(mine, cpu))
            zinf_cpus_add(p->places[rank].cpus, cpu);
    }
}

/* Where in a NUMA node's list to begin: at the rank-sized run that holds the idle CPU, as far as
 * there is room behind it. */
static int first_core(const struct placing *p, const struct group *group, int numa)
{
    int threads = group->like->threads, needed = group->ranks[numa] * threads;
    for (int i = 0; i < group->core_count[numa]; i++)
        if (group->cores[numa][i] == p->hint_core) {
            int begin = i - i % threads, last = group->core_count[numa] - needed;
            return begin < last ? begin : last;
        }
    return 0;
}

static void place_members(const struct placing *p, const struct group *group)
{
    int next = 0;
    for (int numa = 0; numa < ZINF_TOPOLOGY_NUMA; numa++) {
        int core = group->ranks[numa] ? first_core(p, group, numa) : 0;
        for (int i = 0; i < group->ranks[numa]; i++, next++) {
            int rank = group->members[next];
            struct zinf_binding *place = &p->places[rank];
            *place = (struct zinf_binding){.kind = ZINF_BINDING_BOUND, .numa = numa};
            if (p->request->bind == ZINF_BIND_NUMA)
                give(p, rank, -1, numa);
            for (int thread = 0; thread < group->like->threads; thread++, core++) {
                if (p->request->bind != ZINF_BIND_NUMA)
                    give(p, rank, group->cores[numa][core], numa);
                p->taken[group->cores[numa][core]] = true;
            }
        }
    }
}

static void leave(const struct placing *p, int rank, enum zinf_binding_kind kind)
{
    struct zinf_binding *place = &p->places[rank];
    *place = (struct zinf_binding){.kind = kind};
    memcpy(place->cpus, p->request->ranks[rank].cpus, sizeof place->cpus);
    place->numa = zinf_topology_numa_of(p->topology, place->cpus);
    p->placed[rank] = true;
}

/* Place a group, or say why not. */
static bool place_group(const struct placing *p, struct group *group, char why[192])
{
    int threads = group->like->threads, needed = group->member_count * threads, free_cores = 0;
    find_cores(p, group);
    for (int numa = 0; numa < ZINF_TOPOLOGY_NUMA; numa++)
        free_cores += group->core_count[numa];
    if (needed > free_cores) {
        snprintf(why, 192, "%d ranks x %d threads on this node need %d cores, %d are free",
                 group->member_count, threads, needed, free_cores);
        return false;
    }
    int fitted = spread(p, group);
    if (fitted < group->member_count) {
        snprintf(why, 192,
                 "a rank's %d threads should have cores of one NUMA node: that fits %d of the %d "
                 "ranks of this node",
                 threads, fitted, group->member_count);
        return false;
    }
    place_members(p, group);
    return true;
}

static bool over_quota(const struct zinf_rankmap_request *request, char why[192])
{
    int threads = 0;
    for (int i = 0; i < request->rank_count; i++)
        threads += request->ranks[i].threads;
    if (request->cores == 0 || threads <= request->cores)
        return false;
    snprintf(why, 192, "%d threads on this node, but the control group's quota is %d cores",
             threads, request->cores);
    return true;
}

static void take_cores_of(const struct placing *p, int rank)
{
    for (int cpu = 0; cpu < ZINF_CPUS; cpu++)
        if (p->topology->cpu[cpu].core >= 0 && zinf_cpus_has(p->request->ranks[rank].cpus, cpu))
            p->taken[p->topology->cpu[cpu].core] = true;
}

/* Ranks that stay as they are; what they hold is not given to others. */
static void place_fixed(const struct placing *p)
{
    const struct zinf_rankmap_request *request = p->request;
    for (int i = 0; i < request->rank_count; i++) {
        bool restricted = request->ranks[i].restricted;
        if (request->bind == ZINF_BIND_NONE)
            leave(p, i, restricted ? ZINF_BINDING_LEFT : ZINF_BINDING_FREE);
        else if (request->bind == ZINF_BIND_AUTO && restricted) {
            leave(p, i, ZINF_BINDING_LEFT);
            take_cores_of(p, i);
        }
    }
}

static int place_rest(const struct placing *p, struct zinf_error *error)
{
    const struct zinf_rankmap_request *request = p->request;
    char why[192];
    for (int first = 0; first < request->rank_count; first++) {
        struct group group = {0};
        if (p->placed[first])
            continue;
        find_members(p, &group, first);
        bool done = !over_quota(request, why) && place_group(p, &group, why);
        for (int i = 0; i < group.member_count; i++) {
            if (!done)
                leave(p, group.members[i], ZINF_BINDING_FREE);
            if (!done)
                memcpy(p->places[group.members[i]].why, why, sizeof why);
            p->placed[group.members[i]] = true;
        }
        group_release(&group);
        if (!done && request->bind != ZINF_BIND_AUTO)
            return zinf_error_set(error, ZINF_E_USAGE,
                                  "zinf.bind \"%s\" cannot be: %s; fewer --threads or ranks, or "
                                  "--set zinf.bind=none",
                                  zinf_bind_name(request->bind), why);
    }
    return ZINF_OK;
}

int zinf_rankmap_place(const struct zinf_topology *topology,
                       const struct zinf_rankmap_request *request, struct zinf_binding *places,
                       struct zinf_error *error)
{
    size_t count = (size_t)request->rank_count;
    struct placing p = {.topology = topology, .request = request, .hint_core = -1};
    p.places = zinf_alloc(count * sizeof *p.places);
    p.placed = zinf_alloc(count * sizeof *p.placed);
    p.taken = zinf_alloc((size_t)topology->core_count + 1);
    if (request->hint >= 0 && request->hint < ZINF_CPUS)
        p.hint_core = topology->cpu[request->hint].core;
    place_fixed(&p);
    int status = place_rest(&p, error);
    if (!status)
        memcpy(places, p.places, count * sizeof *places);
    free(p.places);
    free(p.placed);
    free(p.taken);
    return status;
}

/* The first rank without a path: near `numa`, or any where that is none. -1: there is none. */
static int waiting(const int *path_of, const int *rank_numa, int rank_count, int numa, bool any)
{
    for (int rank = 0; rank < rank_count; rank++)
        if (path_of[rank] < 0 && (any || (numa >= 0 && rank_numa[rank] == numa)))
            return rank;
    return -1;
}

void zinf_rankmap_paths(const int *path_numa, int path_count, const int *rank_numa, int rank_count,
                        int *path_of)
{
    bool *given = zinf_alloc((size_t)path_count * sizeof *given);
    for (int rank = 0; rank < rank_count; rank++)
        path_of[rank] = -1;
    /* Rounds in which every path takes one rank: first one that is near, then any. In the last one
     * there are fewer ranks than paths, and the earlier paths have them. */
    for (int left = rank_count; left > 0;) {
        int open = left < path_count ? left : path_count;
        memset(given, 0, (size_t)path_count * sizeof *given);
        for (int pass = 0; pass < 2; pass++)
            for (int path = 0; path < open; path++) {
                int rank = given[path] ? -1
                                       : waiting(path_of, rank_numa, rank_count, path_numa[path],
                                                 pass == 1);
                if (rank < 0)
                    continue;
                path_of[rank] = path;
                given[path] = true;
                left--;
            }
    }
    free(given);
}
