/*
 * What a rank may use of each memory: `zinf.memory.device`, `.host`, `.nvme`. Contract section 2.
 *
 * On a CPU rank "device" and "host" are two pools of one RAM. What the file gives limits its pool; both together may take what the
 * machine and the limits of this process leave, of which a run that was not told otherwise takes nine tenths: what is outside the pools (the
 * program, MPI, HDF5, the text) has the rest.
 */
#ifndef ZINF_TRAIN_BUDGET_H
#define ZINF_TRAIN_BUDGET_H

#include <stdbool.h>
#include <stddef.h>

#include "topology/machine.h"
#include "train/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Bytes; SIZE_MAX = not limited. */
struct zinf_budget {
    size_t device, host; /* of each pool */
    size_t both;         /* of one RAM that holds both pools; SIZE_MAX: they are two memories */
    size_t nvme;         /* on this rank's nvme_path */
    bool own_memory;     /* the device has memory of its own */
    bool through_host;   /* and ranks exchange through the host's all the same */
    size_t context, link; /* what else a rank has on its card, see card.h: `device` is without them */
    const char *device_source, *host_source, *nvme_source; /* who says so; static */
    char both_source[96];
};

/** Nothing is limited. */
struct zinf_budget zinf_budget_unlimited(void);

/**
 * Of a CPU rank of a run: 0.9 x min(available / local_ranks, RLIMIT_DATA - data in use, RLIMIT_AS - mapped), and what the file
 * says. A file that gives more than nine tenths gets it as far as it exists. Local.
 */
struct zinf_budget zinf_budget_of_run(const struct zinf_machine *machine, int local_ranks,
                                      const struct zinf_config_memory *memory);

/**
 * Of a rank whose device has memory of its own, `free_bytes` of it for `ranks` ranks: the RAM's share is the host pool's alone. Nineteen
 * twentieths of the device's, the rest is the driver's. Local.
 */
struct zinf_budget zinf_budget_of_device(const struct zinf_machine *machine, int local_ranks,
                                         const struct zinf_config_memory *memory,
                                         int64_t free_bytes, int ranks);

/** Of a plan for a card of `card_bytes` for each rank: the same share of what `context` and `link` leave of it. Local. */
void zinf_budget_plan_device(struct zinf_budget *budget, size_t card_bytes, size_t context,
                             size_t link);

/** Lower `budget` to what the file allows. Local. */
void zinf_budget_lower(struct zinf_budget *budget, const struct zinf_config_memory *memory);

/** How many bytes the host pool may still grow by. */
size_t zinf_budget_host_left(const struct zinf_budget *budget, size_t device_bytes,
                             size_t host_bytes);

/** Do both pools fit? */
bool zinf_budget_holds(const struct zinf_budget *budget, size_t device_bytes, size_t host_bytes);

/**
 * What is exceeded, with both figures and who set the limit: "12 MiB in host memory, 10 MiB are allowed (zinf.memory.host)".
 * @return owned by the caller; NULL: it fits
 */
char *zinf_budget_exceeded(const struct zinf_budget *budget, size_t device_bytes, size_t host_bytes,
                           size_t nvme_bytes);

#ifdef __cplusplus
}
#endif
#endif
