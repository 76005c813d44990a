/*
 * The folder of a run: who may use it, its log, its metrics, its results, its STOP file. Used by rank 0 only; the caller makes the ranks
 * agree on what these functions return. What lies in checkpoints/ is in checkpoint_folder.h.
 *
 * One job at a time: flock on <run.dir>/.lock for as long as the folder is open. A file others read while we write it (config.json,
 * results.json) is replaced as a whole: temporary name, fsync, rename, fsync of the folder.
 */
#ifndef ZINF_TRAIN_RUN_FOLDER_H
#define ZINF_TRAIN_RUN_FOLDER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct zinf_run_folder;

/** The folder itself, or the nearest one above it that exists; owned by the caller. */
char *zinf_run_folder_nearest(const char *path);
/** Could it be opened? Nothing is made or changed. @return as zinf_run_folder_open() */
int zinf_run_folder_check(const char *path, struct zinf_error *error);

/**
 * Make the folder and its checkpoints/ if need be, lock it, remove what a dead job left (temporary files, STOP).
 * @return 0; ZINF_E_USAGE: in use by another job (named; nothing is touched then), no folder, not writable; else an I/O error
 */
int zinf_run_folder_open(struct zinf_run_folder **folder, const char *path,
                         struct zinf_error *error);
/** Closes log and metrics, gives the lock back. A folder that was made by open and in which nothing was replaced is removed again. */
void zinf_run_folder_close(struct zinf_run_folder *folder);

/** Replace `name` ("config.json", "results.json") by `text`, all or nothing. */
int zinf_run_folder_replace(struct zinf_run_folder *folder, const char *name, const char *text,
                            struct zinf_error *error);

/**
 * Open zinf.log behind what is there and write a line with date, host, process and `header`.
 * @param log  out; borrowed until close, for zinf_log_options.file
 */
int zinf_run_folder_open_log(struct zinf_run_folder *folder, const char *header, FILE **log,
                             struct zinf_error *error);

/**
 * Open metrics.jsonl with the lines up to `last_step` (0: a new run): later ones, and a line a crash cut short, are taken away, by a new
 * file and a rename when there are any.
 */
int zinf_run_folder_open_metrics(struct zinf_run_folder *folder, int64_t last_step,
                                 struct zinf_error *error);
/** Append one line with its newline. After a failure the next line takes its place. */
int zinf_run_folder_add_metrics(struct zinf_run_folder *folder, const char *line,
                                struct zinf_error *error);

/** Is there a STOP file? It is removed, so that it stops one run once. */
bool zinf_run_folder_take_stop(struct zinf_run_folder *folder);

#ifdef __cplusplus
}
#endif
#endif
