/*
 * The choice between the devices' communicator and the host's. See link.h.
 *
 * Bus ids are compared before the library is touched: what NCCL says to two ranks on one device
 * ("invalid usage") helps nobody, and some versions hang. A bus id is a place of a node, so two
 * ranks share a device when both are the same.
 */
#include "device/link.h"

#include <stdlib.h>
#include <string.h>

static int first_of(const struct zinf_link_rank *ranks, int size,
                    bool (*is)(const struct zinf_link_rank *rank,
                               const struct zinf_link_rank *first))
{
    for (int i = 0; i < size; i++)
        if (is(&ranks[i], ranks))
            return i;
    return -1;
}

static bool on_host(const struct zinf_link_rank *rank, const struct zinf_link_rank *first)
{
    (void)first;
    return !*rank->bus_id || !rank->has_link;
}

static bool other_backend(const struct zinf_link_rank *rank, const struct zinf_link_rank *first)
{
    return strcmp(rank->backend, first->backend) != 0;
}

static bool without_library(const struct zinf_link_rank *rank, const struct zinf_link_rank *first)
{
    (void)first;
    return !*rank->library;
}

static bool other_library(const struct zinf_link_rank *rank, const struct zinf_link_rank *first)
{
    return strcmp(rank->library, first->library) != 0;
}

struct place {
    const struct zinf_link_rank *rank;
    int number;
};

static int compare(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->rank->node != y->rank->node)
        return x->rank->node < y->rank->node ? -1 : 1;
    int order = strcmp(x->rank->bus_id, y->rank->bus_id);
    return order ? order : x->number - y->number;
}

/* The first two ranks on one device, by number; false: each has one to itself. */
static bool find_shared(const struct zinf_link_rank *ranks, int size, int *first, int *second)
{
    struct place *places = zinf_alloc((size_t)size * sizeof *places);
    *first = size;
    for (int i = 0; i < size; i++)
        places[i] = (struct place){&ranks[i], i};
    qsort(places, (size_t)size, sizeof *places, compare);
    for (int i = 0; i + 1 < size; i++) {
        const struct place *one = &places[i], *next = &places[i + 1];
        if (one->rank->node == next->rank->node && !strcmp(one->rank->bus_id, next->rank->bus_id) &&
            one->number < *first) {
            *first = one->number;
            *second = next->number;
        }
    }
    free(places);
    return *first < size;
}

/* Neighbours that see one device each, and not the same: Slurm has hidden the others. */
static bool hides_peers(const struct zinf_link_rank *ranks, int size)
{
    for (int i = 0; i < size; i++)
        for (int j = i + 1; j < size && ranks[i].devices == 1; j++)
            if (ranks[j].node == ranks[i].node)
                return ranks[j].devices == 1;
    return false;
}

/* Through the host, `reason`; an error where something else was asked for. */
static int through_host(const char *wanted, bool asked, const char *reason,
                        struct zinf_link_choice *choice, struct zinf_error *error)
{
    if (asked)
        return zinf_error_set(error, ZINF_E_USAGE,
                              "ZINF_LINK=%s, but %s; without ZINF_LINK ranks exchange through host "
                              "memory then",
                              wanted, reason);
    snprintf(choice->text, sizeof choice->text, "through host memory by MPI: %s", reason);
    return ZINF_OK;
}

static int check_library(const struct zinf_link_rank *ranks, int size, struct zinf_error *error)
{
    static const char *const instead =
        "ZINF_LINK=host exchanges through host memory instead, which is slower";
    int odd = first_of(ranks, size, without_library);
    if (odd >= 0)
        return zinf_error_set(error, ZINF_E_USAGE,
                              "rank %d cannot exchange with other GPUs: %s; %s", odd,
                              ranks[odd].why, instead);
    odd = first_of(ranks, size, other_library);
    if (odd >= 0)
        return zinf_error_set(error, ZINF_E_USAGE,
                              "rank 0 has %s, rank %d has %s: all ranks need the same, set "
                              "ZINF_CUDA_LIBRARIES to its folder on every node; %s",
                              ranks[0].library, odd, ranks[odd].library, instead);
    return ZINF_OK;
}

int zinf_link_decide(const struct zinf_link_rank *ranks, int size, const char *wanted,
                     struct zinf_link_choice *choice, struct zinf_error *error)
{
    char reason[256];
    bool any = !wanted || !*wanted || !strcmp(wanted, "auto"),
         host = !any && !strcmp(wanted, "host");
    bool asked = !any && !host;
    int odd, first = 0, second = 0;
    *choice = (struct zinf_link_choice){0};
    if (asked && strcmp(wanted, "nccl") != 0)
        return zinf_error_set(error, ZINF_E_USAGE, "ZINF_LINK=%s is neither auto, host nor nccl",
                              wanted);
    if (host)
        return through_host(wanted, false, "ZINF_LINK=host asks for it", choice, error);
    if (size == 1 && !asked)
        return through_host(wanted, false, "one rank has nothing to exchange", choice, error);
    if ((odd = first_of(ranks, size, on_host)) >= 0) {
        snprintf(reason, sizeof reason, "rank %d computes on %s, which has no other way", odd,
                 ranks[odd].backend);
        return through_host(wanted, asked, reason, choice, error);
    }
    if ((odd = first_of(ranks, size, other_backend)) >= 0) {
        snprintf(reason, sizeof reason, "rank 0 computes on %s, rank %d on %s", ranks[0].backend,
                 odd, ranks[odd].backend);
        return through_host(wanted, asked, reason, choice, error);
    }
    if (find_shared(ranks, size, &first, &second)) {
        snprintf(reason, sizeof reason,
                 "ranks %d and %d share the GPU %s, and NCCL wants one for each rank", first,
                 second, ranks[first].bus_id);
        return through_host(wanted, asked, reason, choice, error);
    }
    int status = check_library(ranks, size, error);
    if (status)
        return status;
    choice->direct = true;
    snprintf(choice->text, sizeof choice->text, "%s between %d GPU%s, one for each rank",
             ranks[0].library, size, size == 1 ? "" : "s");
    if (hides_peers(ranks, size))
        snprintf(choice->note, sizeof choice->note,
                 "each rank sees one GPU only, so NCCL may not reach its neighbours directly (by "
                 "NVLink or PCIe): in Slurm, start with srun --gpu-bind=none (from 24.05 on also "
                 "--tres-bind=gres/gpu:none) and --gpus-per-node in place of --gpus-per-task; "
                 "without Slurm, let CUDA_VISIBLE_DEVICES be the same for all ranks of a node");
    return ZINF_OK;
}

int zinf_link_choose(struct zinf_comm *comm, const struct zinf_device_backend *backend,
                     const struct zinf_device_properties *properties,
                     struct zinf_link_choice *choice, struct zinf_error *error)
{
    struct zinf_link_rank mine = {.node = comm->node, .has_link = backend->link != NULL};
    char *wanted = zinf_comm_broadcast_text(comm, getenv("ZINF_LINK")), why[512];
    int64_t sent = comm->bytes_sent;
    snprintf(mine.backend, sizeof mine.backend, "%s", backend->name);
    snprintf(mine.bus_id, sizeof mine.bus_id, "%s", properties->bus_id);
    mine.devices = backend->list(NULL, 0, why, sizeof why);
    if (mine.has_link && (comm->size > 1 || *wanted) && strcmp(wanted, "host") != 0) {
        int status = backend->link->available(mine.why, sizeof mine.why);
        snprintf(mine.library, sizeof mine.library, "%.63s", status ? "" : mine.why);
    }
    struct zinf_link_rank *all = zinf_alloc((size_t)comm->size * sizeof *all);
    zinf_comm_gather_small(comm, &mine, sizeof mine, all);
    comm->bytes_sent = sent; /* which counts what a step does, not this */
    int status = zinf_link_decide(all, comm->size, wanted, choice, error);
    for (int i = 0; i < comm->size; i++)
        choice->sharing +=
            *mine.bus_id && all[i].node == mine.node && !strcmp(all[i].bus_id, mine.bus_id);
    free(all);
    free(wanted);
    return status;
}

size_t zinf_link_planned_bytes(int ranks, int ranks_per_node)
{
    const size_t piece = (size_t)2 << 20;
    size_t buffers = (4 << 20) + 8 * 512 * 8 * 16 + 120 * 640 * 8 * 8;
    size_t connections = (size_t)ranks_per_node + (ranks > ranks_per_node ? 2 : 0);
    if (ranks < 2)
        return 0;
    return ZINF_LINK_CHANNELS * connections * ((buffers + piece - 1) / piece * piece);
}

bool zinf_link_planned(void)
{
    const char *wanted = getenv("ZINF_LINK");
    return !wanted || strcmp(wanted, "host") != 0;
}
