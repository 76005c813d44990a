/*
 * <run.dir>/checkpoints: the names of checkpoints, the links `latest` and `best`, and which files may go.
 *
 * All functions are local and need only the path of the run folder, so that commands without the lock can read it. A name
 * step-00000500.h5 exists only when the file is whole (see io/checkpoint.h), so what is listed was once committed.
 */
#ifndef ZINF_TRAIN_CHECKPOINT_FOLDER_H
#define ZINF_TRAIN_CHECKPOINT_FOLDER_H

#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** "<run_dir>/checkpoints/step-00000500.h5", owned by the caller. */
char *zinf_checkpoint_folder_path(const char *run_dir, int64_t step);

/**
 * The steps that have a checkpoint, newest first.
 * @param steps  out; owned by the caller
 * @return how many; 0 when there is no such folder
 */
int zinf_checkpoint_folder_list(const char *run_dir, int64_t **steps);

/** The step a link ("latest", "best") points to; -1: no link, or one to something that is not there. */
int64_t zinf_checkpoint_folder_linked(const char *run_dir, const char *link);

/** Point a link to the checkpoint of `step`, atomically: a reader sees the old one or the new one. */
int zinf_checkpoint_folder_link(const char *run_dir, const char *link, int64_t step,
                         struct zinf_error *error);

/** The step whose checkpoint of this folder `path` names, through whatever links; -1: another file, or none. */
int64_t zinf_checkpoint_folder_step_of(const char *run_dir, const char *path);

/**
 * The steps `latest` stands for, newest first: those later than it belong to a branch the run has left. Without `latest` all.
 * @param steps  out; owned by the caller
 * @param left   out: how many are later
 */
int zinf_checkpoint_folder_branch(const char *run_dir, int64_t **steps, int *left);

/** Remove checkpoints later than `step`, each said in the log, and `best` if it pointed to one. A file that cannot be removed is a warning. */
void zinf_checkpoint_folder_drop_later(const char *run_dir, int64_t step);

/**
 * Remove all but `num_to_keep` checkpoints, oldest first; what `latest` and `best` point to, the newest and that of step `source` (-1: none)
 * are never removed and count. 0 keeps all. A file that cannot be removed is a warning.
 * @return how many are left
 */
int zinf_checkpoint_folder_prune(const char *run_dir, int num_to_keep, int64_t source);

/** Remove temporary files of dead jobs in run folder and checkpoints/. Only under the lock of the folder. */
void zinf_checkpoint_folder_clean(const char *run_dir);

#ifdef __cplusplus
}
#endif
#endif
