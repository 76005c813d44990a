/*
 * Checked POSIX file calls: whole transfers, one message that names path, offset, length and the system's reason, and the fault seam in
 * front of every call. All functions are local.
 *
 * Status of a failure: ZINF_E_NO_SPACE for ENOSPC, EDQUOT and EFBIG, else ZINF_E_RUNTIME; a caller that reads a user's file puts its own
 * code in error->status.
 */
#ifndef ZINF_IO_FILE_H
#define ZINF_IO_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** @param flags  of open(2); O_CLOEXEC is added, new files get mode 0666 less the umask */
int zinf_file_open(int *descriptor, const char *path, int flags, struct zinf_error *error);
/**
 * Turn direct I/O on where the file system has it for memory and offsets at multiples of 4 KiB. tmpfs counts as not having it.
 * @return whether it is on now
 */
bool zinf_file_make_direct(int descriptor);
/** Tells of errors that the system kept for the end (NFS quota). A negative descriptor is fine. */
int zinf_file_close(int descriptor, const char *path, struct zinf_error *error);

/** Fill `error` with an errno in the words of this file: "PATH: WHAT: reason". @return ZINF_E_NO_SPACE or ZINF_E_RUNTIME */
int zinf_file_failed(struct zinf_error *error, const char *path, int number, const char *what);
/** Move all bytes, interrupted and short calls continued. @return 0, an errno, or -1: the file ends before. No message. Local. */
int zinf_file_transfer(int descriptor, char *data, size_t bytes, int64_t offset, int writes);

/** All `bytes` at `offset`; EINTR, EAGAIN and short transfers are continued. A file that ends before is an error. */
int zinf_file_read(int descriptor, const char *path, void *data, size_t bytes, int64_t offset,
                   struct zinf_error *error);
int zinf_file_write(int descriptor, const char *path, const void *data, size_t bytes,
                    int64_t offset, struct zinf_error *error);

/**
 * Make the file `bytes` long with its blocks reserved, so that a full disk shows here and not in the middle of the data. Where the file system
 * cannot reserve (NFS, some Lustre) the free space is looked at and the file only gets its length. The limit RLIMIT_FSIZE counts as full.
 */
int zinf_file_reserve(int descriptor, const char *path, int64_t bytes, struct zinf_error *error);

/** Never repeated after a failure: the pages are marked clean then (Rebello et al., ATC 2020). */
int zinf_file_sync(int descriptor, const char *path, struct zinf_error *error);
/** fsync of the folder that holds `path`: without it a rename is lost with the power. */
int zinf_file_sync_folder(const char *path, struct zinf_error *error);
int zinf_file_rename(const char *from, const char *to, struct zinf_error *error);
/**
 * The end of a commit: `temporary`, whole and on disk, gets its name, and the folder is brought to disk. After a failure, this one's or an
 * earlier `status`, the temporary file is gone and `path` is as it was.
 */
int zinf_file_put_in_place(int status, const char *temporary, const char *path,
                           struct zinf_error *error);
/** Remove a file; one that is not there is no error, other failures are warnings. */
void zinf_file_remove(const char *path);
int zinf_file_size(int descriptor, const char *path, int64_t *bytes, struct zinf_error *error);
/** A whole small file, NUL-terminated, owned by the caller. */
int zinf_file_read_text(const char *path, char **text, size_t *bytes, struct zinf_error *error);

/** Replace a small file: temporary name, fsync, rename, fsync of the folder. */
int zinf_file_write_text(const char *path, const char *text, struct zinf_error *error);

/** "PATH.tmp.ID" with ID = the Slurm job or this process; owned by the caller. */
char *zinf_file_temporary_name(const char *path);

#ifdef __cplusplus
}
#endif
#endif
