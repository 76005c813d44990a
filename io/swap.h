/*
 * The NVMe tier of one rank: a private nameless file of fixed extents that come and go asynchronously.
 *
 * The file has no name (O_TMPFILE, mode 0600; else created, opened and unlinked), is reserved and written once at the start, and is gone with
 * the process. Each extent carries a CRC32C and a generation number in memory: flipped, lost, torn, misdirected and stale data is found
 * when it is read; it is read once more, then the run ends (zinf_abort) with path, offset, length and the extent's name, rather
 * than use a wrong number. All I/O errors end the run in the same way.
 */
#ifndef ZINF_IO_SWAP_H
#define ZINF_IO_SWAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "io/aio.h"

#ifdef __cplusplus
extern "C" {
#endif

struct zinf_swap;

struct zinf_swap_options {
    const char *folder;          /* nvme_path; must exist and be writable */
    const size_t *extent_bytes;  /* (extent_count); each is padded to the alignment in the file */
    int extent_count;
    bool checksums;              /* the environment's ZINF_SWAP_CHECKSUMS=0 takes them away, with a warning */
    void (*name)(void *context, int extent, char *out, size_t out_bytes); /* for messages: "layer 3, record 1" */
    void *context;
};

/** Bytes that one extent takes in the file: rounded up to 4096. */
size_t zinf_swap_padded(size_t bytes);

/**
 * Create, reserve and write the file once. Local. O_DIRECT where the file system has it, else buffered (said once, see zinf_swap_direct).
 * @return 0; ZINF_E_USAGE: folder missing, not writable; ZINF_E_DOES_NOT_FIT: not enough space (what is needed, what is free)
 */
int zinf_swap_open(struct zinf_swap **swap, const struct zinf_swap_options *options,
                   struct zinf_error *error);
void zinf_swap_close(struct zinf_swap *swap);
bool zinf_swap_direct(const struct zinf_swap *swap);
/** Of the file, for those who measure it; borrowed. */
int zinf_swap_descriptor(const struct zinf_swap *swap);

/** A transfer of a whole extent (or its first `bytes`) in flight. */
struct zinf_swap_transfer {
    struct zinf_aio_request request;
    int extent;
    uint64_t generation; /* expected of a read */
};

/** An engine's view of the file: call once for each zinf_aio that will move its extents, before its first transfer. */
int zinf_swap_attach(struct zinf_swap *swap, struct zinf_aio *aio);

/** Begin to write: the checksum is taken from the buffer now; the buffer must not change until zinf_swap_wait(). Padding included. */
void zinf_swap_write(struct zinf_swap *swap, struct zinf_aio *aio, struct zinf_swap_transfer *transfer,
                     int extent, void *buffer);
/** Begin to read into a buffer of the padded size. */
void zinf_swap_read(struct zinf_swap *swap, struct zinf_aio *aio, struct zinf_swap_transfer *transfer,
                    int extent, void *buffer);
/** Would zinf_swap_wait() return without waiting for the drive? Any thread. */
bool zinf_swap_finished(const struct zinf_swap_transfer *transfer);
/** Wait and check. Does not fail: what is wrong ends the run. */
void zinf_swap_wait(struct zinf_swap *swap, struct zinf_aio *aio, struct zinf_swap_transfer *transfer);

#ifdef __cplusplus
}
#endif
#endif
