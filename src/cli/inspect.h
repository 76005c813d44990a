/*
 * What `zinf inspect` finds out, as one JSON object a subject; the command prints it as such or as a table.
 *
 * Common members: kind ("checkpoint", "model", "safetensors", "run", "diff", "run diff"), path, and for what holds tensors: tensors [{name, dtype,
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
 * Compare two checkpoints or two run folders. Local.
 *
 * Checkpoints: arrays bit by bit and the attributes of /run; /provenance is left out. report: datasets [{name, elements, different,
 * max_abs, l2_relative | only_in}], attributes [{name, a, b}], equal.
 * Run folders: see zinf_inspect_diff_runs().
 * @return 0; ZINF_E_USAGE: not two of a kind, or nothing there
 */
int zinf_inspect_diff(const struct zinf_inspect *inspect, const char *a, const char *b,
                      struct zinf_json *report, struct zinf_error *error);

/**
 * Compare two run folders: every number of the mathematics in metrics.jsonl, which alone says whether they are equal, and, for the eye, the
 * configurations, results.json and the provenance of the latest checkpoints. Local.
 * report: lines {in_both, only_in_a {lines, first_step?}, only_in_b}, metrics [{name, lines, different, first_step?, a?, b?, relative?,
 * largest_relative?, largest_step?}] (a number against null is infinitely far: null), first_different_step?, configuration, results,
 * provenance [{name, a, b}], equal.
 * @return 0; ZINF_E_DATA: a folder without a line of metrics
 */
int zinf_inspect_diff_runs(const struct zinf_inspect *inspect, const char *a, const char *b,
                           struct zinf_json *report, struct zinf_error *error);

/** A report for people. */
void zinf_inspect_print(const struct zinf_json *report);

#ifdef __cplusplus
}
#endif
#endif
