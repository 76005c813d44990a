/*
 * The check at the start that all ranks run the same thing: same build, configuration, data, model, libraries. Ranks that differ would
 * train something nobody asked for, or hang.
 */
#ifndef ZINF_TOPOLOGY_CONSISTENCY_H
#define ZINF_TOPOLOGY_CONSISTENCY_H

#include <stddef.h>

#include "topology/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

struct zinf_fact {
    const char *name;  /* "zinf.train.seed", "training data", ... */
    const char *value; /* as text; equal facts have equal bytes. NULL counts as "" */
};

/**
 * Collective over comm; names, their order and `count` are meant to be equal on all ranks, values are what is compared. Of a long value the
 * table has the part where it differs; a fact that a rank does not have differs too.
 * @return on all ranks 0, or ZINF_E_USAGE after rank 0 has logged a table of the facts that differ, with the ranks that have each value.
 *
 * Cost: one gather of 8 bytes when all is well.
 */
int zinf_consistency_check(struct zinf_comm *comm, const struct zinf_fact *facts, size_t count);

#ifdef __cplusplus
}
#endif
#endif
