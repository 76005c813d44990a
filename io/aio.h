/*
 * Asynchronous file I/O: one method table, two engines with the same semantics (io_uring; a pool of threads with preadv/pwritev where io_uring
 * is forbidden). An engine is used by one thread at a time; make one for each thread that moves bytes.
 *
 * Every result is looked at: short transfers are continued (rounded to the direct-I/O alignment), EAGAIN, EINTR and EBUSY retried with
 * back-off for a second, end of file before the end of a read is an error (ENODATA). What is left is the request's `error`; nothing is
 * ever silent. Transfers go on without the caller: an engine has threads of its own.
 */
#ifndef ZINF_IO_AIO_H
#define ZINF_IO_AIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A transfer. Storage is the caller's and must not move until it is finished. */
struct zinf_aio_request {
    bool write;
    int file;         /* number given by add_file */
    void *buffer;     /* aligned to the file's alignment, inside the registered pool when there is one */
    size_t bytes;     /* multiple of the alignment */
    uint64_t offset;
    double begun_s;   /* clock.h; only where there is a trace */
    int error;        /* when finished: 0 or an errno */
    bool finished;
    size_t done_bytes; /* moved so far */
    uint64_t error_offset; /* where in the file `error` happened */
    size_t cut_bytes;      /* this and the rest: the engine's */
    int pieces;
    struct zinf_aio_request *next;
};

struct zinf_aio_options {
    int queue_depth;      /* requests of block_bytes in flight at most (aio.queue_depth) */
    size_t block_bytes;   /* larger transfers are cut (aio.block_size); rounded up to 4096, at most 1 GiB */
    int threads;          /* of the thread engine (aio.intra_op_parallelism) */
    void *pool;           /* memory to register; NULL = none */
    size_t pool_bytes;    /* registered in pieces of at most 1 GiB */
};

struct zinf_aio;

struct zinf_aio_engine {
    const char *name; /* "io_uring", "threads" */
    /** @return 0, or an errno that says why this engine cannot work here (EPERM, ENOSYS, ENOMEM ...) */
    int (*open)(struct zinf_aio *aio, const struct zinf_aio_options *options);
    void (*close)(struct zinf_aio *aio);
    /** Make a file known. @return its number, or -errno */
    int (*add_file)(struct zinf_aio *aio, int descriptor);
    /** Begin. Does not block: what exceeds the queue depth waits in the engine. */
    void (*submit)(struct zinf_aio *aio, struct zinf_aio_request *request);
    /** Return when this request is finished; others may finish meanwhile. */
    void (*wait)(struct zinf_aio *aio, struct zinf_aio_request *request);
};

struct zinf_aio {
    const struct zinf_aio_engine *engine;
    void *state;
    bool registered; /* buffers are registered with the kernel */
    int64_t read_bytes, write_bytes; /* finished transfers */
};

/** All engines compiled in, the best first; NULL behind the last. */
const struct zinf_aio_engine *const *zinf_aio_engines(void);

/**
 * Open the best engine that works here; `name` asks for one by name (NULL: the environment's ZINF_IO_ENGINE, else any). Says in one warning what was refused and why.
 * @return 0 or ZINF_E_USAGE / ZINF_E_RUNTIME
 */
int zinf_aio_open(struct zinf_aio *aio, const char *name, const struct zinf_aio_options *options);
void zinf_aio_close(struct zinf_aio *aio);

#ifdef __cplusplus
}
#endif
#endif
