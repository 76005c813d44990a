/*
 * The fault seam: every I/O and communication call of zinf asks here first, so that tests can make the n-th one fail.
 *
 * ZINF_FAULT="op=write,n=37,err=EIO[,rank=1]": the 37th call of `write` on the rank (all ranks without `rank`) fails with EIO.
 * `op=transfer` is read and write together, as one drive does both.
 * `short=BYTES` instead of err cuts a transfer to so many bytes; `delay_us=N` without n delays every call; `kill=1` ends the process
 * by SIGKILL at that call. Operations: open, read, write, fsync, rename, fallocate, unlink, gather, exchange, agree; update (of a record in
 * host memory: cannot fail, only be late).
 * Costs one load and a branch when the variable is not set.
 */
#ifndef ZINF_BASE_FAULT_H
#define ZINF_BASE_FAULT_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Read ZINF_FAULT for this rank. Local. Unset: the seam stays closed. A string that cannot be read ends the run (exit 2). */
void zinf_fault_init(int rank);

/**
 * Called before an operation; thread-safe.
 * @param bytes  in/out, may be NULL: the length of the transfer; made smaller for a short one
 * @return 0, or the errno the operation must fail with (the caller then does not carry it out)
 */
int zinf_fault(const char *operation, size_t *bytes);
/** The same for operations that end later: the delay is not slept but given, and the caller lets the operation end no earlier. */
int zinf_fault_timed(const char *operation, size_t *bytes, double *delay_s);

#ifdef __cplusplus
}
#endif
#endif
