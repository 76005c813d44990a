/*
 * Agreement of all ranks on one status and one message.
 */
#ifndef ZINF_IO_AGREE_H
#define ZINF_IO_AGREE_H

#include "base/status.h"
#include "topology/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Collective over comm. The smallest status of all ranks, and in `error` on every rank the message of the first rank that has it, so that
 * one rank can print one message. `error` is read on failing ranks and written only when the result is not 0.
 */
int zinf_agree_error(struct zinf_comm *comm, int status, struct zinf_error *error);

#ifdef __cplusplus
}
#endif
#endif
