/*
 * Agreement of all ranks on one status and one message. See agree.h.
 */
#include "io/agree.h"

#include <stdlib.h>

int zinf_agree_error(struct zinf_comm *comm, int status, struct zinf_error *error)
{
    int worst = zinf_comm_agree(comm, status);
    if (!worst)
        return 0;
    int *all = zinf_alloc(sizeof *all * (size_t)comm->size), root = 0;
    zinf_comm_gather_small(comm, &status, sizeof status, all);
    while (all[root] != worst)
        root++;
    free(all);
    zinf_comm_broadcast(comm, root, error, sizeof *error);
    error->status = worst;
    return worst;
}
