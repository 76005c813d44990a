/*
 * Which way the ranks of a run exchange what stands in device memory: by their devices' own communicator (device.h, zinf_device_link), or
 * through memory of the host by the host's communicator, which every rank has.
 */
#ifndef ZINF_DEVICE_LINK_H
#define ZINF_DEVICE_LINK_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "device/device.h"
#include "topology/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

/** What a rank knows of its device. */
struct zinf_link_rank {
    char backend[16];  /* "cuda" */
    char bus_id[32];   /* "" = the host's memory */
    char library[64];  /* "NCCL 2.28.9"; "" = it cannot be used */
    uint64_t node;     /* zinf_comm.node */
    int devices;       /* that the rank can see */
    bool has_link;     /* its backend has one */
    char why[768];     /* library "": why, and what to change */
};

struct zinf_link_choice {
    bool direct;     /* open the link of the device's backend; false: through memory of the host */
    char text[512];  /* the choice and its reason, one line for banner and `zinf env` */
    int sharing;     /* zinf_link_choose(): ranks on this rank's device, itself too; 0 = it has no bus id */
    char note[512];  /* what makes it slower than it could be, and what to change; "" = nothing */
};

/**
 * The choice for ranks that are all known. Local, pure, so that it can be tried on machines that nobody here has.
 * @param wanted  "auto", NULL and "": direct where each rank has a device to itself; "host": never; "nccl", or whatever the link's name is:
 *                direct or an error, also for
 *                one rank, so that one GPU shows that the library works
 * @return 0, or ZINF_E_USAGE with a sentence that says what to change: the library is missing or too old on a rank, versions differ,
 *         or `wanted` cannot be had
 */
int zinf_link_decide(const struct zinf_link_rank *ranks, int size, const char *wanted,
                     struct zinf_link_choice *choice, struct zinf_error *error);

/**
 * The same for this job; `wanted` is ZINF_LINK in rank 0's environment. Collective over comm; the result is the same on all ranks.
 * @param properties  of this rank's device, open or only listed
 */
int zinf_link_choose(struct zinf_comm *comm, const struct zinf_device_backend *backend,
                     const struct zinf_device_properties *properties,
                     struct zinf_link_choice *choice, struct zinf_error *error);

/** Local. What a plan for ranks with a device each counts with: direct, unless ZINF_LINK is host here. */
bool zinf_link_planned(void);

/** Channels that the link may use, each a block on a processor: what is not bounded takes memory and processors that are not counted. */
enum { ZINF_LINK_CHANNELS = 16 };

/**
 * What NCCL takes of a device at most, as a plan counts. Each channel has a connection to the next rank of its ring and one to each rank of the
 * node it exchanges with, and a connection has a buffer for each of the three protocols: 4 MiB (NCCL_BUFFSIZE), 8 x 512 x 8 lines of 16
 * bytes, 120 x 640 x 8 words of 8; memory comes in pieces of 2 MiB. To other nodes: the same to both sides of the ring.
 * Source: NCCL 2.28, src/transport/p2p.cc (p2pRecvSetup), src/init.cc (computeBuffSizes), its environment variables. Local.
 */
size_t zinf_link_planned_bytes(int ranks, int ranks_per_node);

#ifdef __cplusplus
}
#endif
#endif
