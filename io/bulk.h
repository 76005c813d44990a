/*
 * Much data into a file that several processes fill side by side: whole 4 KiB blocks go by direct I/O from a few buffers, several writes at a
 * time, while the caller makes the next bytes; what is left at the edges of runs goes through the page cache afterwards.
 *
 * Why: through the page cache a checkpoint reaches a third of the drive's rate (0.5-0.7 of 1.5-2.4 GB/s on ext4), and pushes out
 * what others keep there. Direct I/O alone would read, modify and write the blocks in which the runs of two processes meet. Those blocks
 * belong to the page cache: the kernel of one node orders writes within a page by its lock, network file systems keep track of dirty bytes
 * (NFS) or lock extents (Lustre). Rejected: handing edge bytes to a neighbour by MPI, a second exchange for 8 KiB a run.
 *
 * Cost: four buffers of 4 MiB, one copy of every byte, up to 8 KiB of memory a run that does not begin and end on a block.
 */
#ifndef ZINF_IO_BULK_H
#define ZINF_IO_BULK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct zinf_bulk;

/**
 * Begin. Local, as everything here. Where the file system has no direct I/O the same writes go through the page cache; said once.
 * @param descriptor, path  of the file, open for writing; borrowed until close
 * @return 0; ZINF_E_NO_SPACE or ZINF_E_RUNTIME
 */
int zinf_bulk_open(struct zinf_bulk **bulk, int descriptor, const char *path,
                   struct zinf_error *error);
bool zinf_bulk_direct(const struct zinf_bulk *bulk);
/**
 * Write bytes at an offset inside the file's reserved length; they are copied. Runs in any order, each byte once; those that follow each other
 * become one. @return 0, or the first failure so far, which zinf_bulk_flush() tells
 */
int zinf_bulk_write(struct zinf_bulk *bulk, const void *data, size_t bytes, int64_t offset);
/** Wait until all whole blocks are written. */
int zinf_bulk_flush(struct zinf_bulk *bulk, struct zinf_error *error);
/** Write the edges, once no process writes whole blocks any more: direct I/O must not find their pages in the making. Not synced. */
int zinf_bulk_write_edges(struct zinf_bulk *bulk, struct zinf_error *error);
/** Waits for what is in flight. NULL is fine. */
void zinf_bulk_close(struct zinf_bulk *bulk);

#ifdef __cplusplus
}
#endif
#endif
