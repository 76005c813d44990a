/*
 * What `zinf inspect` finds out, as one JSON object a subject; the command prints it as such or as a table.
 *
 * Common members: kind ("checkpoint", "model", "safetensors", "run", "diff"), path, and for what holds tensors: tensors [{name, dtype,
 * shape, bytes, link?, file?}], tensor_count, parameters, bytes.
 */
#ifndef ZINF_CLI_INSPECT_H
#define ZINF_CLI_INSPECT_H

#include <stdbool.h>

#include "base/json.h"
#include "base/status.h"
#include "topology/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

struct zinf_inspect {
    struct zinf_comm *comm;
    bool verify; /* every checksum of a checkpoint */
};

/**
 * Look at a checkpoint, a model folder, a .safetensors file or a run folder; which one is found out. Local.
 * @param report  an object to fill
 * @return 0; ZINF_E_USAGE (nothing there, or nothing zinf knows), ZINF_E_DATA, ZINF_E_CHECKPOINT
 */
int zinf_inspect_path(const struct zinf_inspect *inspect, const char *path,
                      struct zinf_json *report, struct zinf_error *error);

/**
 * Compare two checkpoints, arrays bit by bit and the attributes of /run; /provenance is left out. Local.
 * report: datasets [{name, elements, different, max_abs, l2_relative | only_in}], attributes [{name, a, b}], equal.
 */
int zinf_inspect_diff(const struct zinf_inspect *inspect, const char *a, const char *b,
                      struct zinf_json *report, struct zinf_error *error);

/** A report for people. */
void zinf_inspect_print(const struct zinf_json *report);

#ifdef __cplusplus
}
#endif
#endif
