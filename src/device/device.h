/*
 * Where a rank computes: its memory, its streams, copies between device and host, and what the device is. The table that every
 * backend of computation fills besides ops.h. One device a rank, open from before the first step to after the last.
 *
 * How a step uses it. Work goes to streams; each stream runs in order, streams run side by side, and edges between them are events that were
 * planned before step 1. So a fetch under the compute of the block before it is
 *
 *     copy(device, ZINF_STREAM_COPY_IN, window, pinned, bytes);     the mover thread, when NVMe or the gather has filled `pinned`
 *     record(device, FETCHED(i), ZINF_STREAM_COPY_IN);
 *     wait(device, ZINF_STREAM_COMPUTE, FETCHED(i));                the computing thread, before it calls the block's operations
 *     ... operations of block i ...
 *     record(device, COMPUTED(i), ZINF_STREAM_COMPUTE);
 *     wait(device, ZINF_STREAM_COPY_IN, COMPUTED(i));               before the copy that fills the same window for block i + 2
 *     wait(device, ZINF_STREAM_HOST, event);                        only where the plan lets a thread of the host wait
 *
 * wait() has to be called after the record() it waits for: one thread issues in plan order, or two threads agree by the plan's own hand-over.
 * Operations (device->backend->operations) go to the stream that the calling thread chose by use(), which every thread that issues anything calls
 * first. On the CPU everything happens at once, in the calling thread: record and wait do nothing and the same plan runs.
 *
 * Memory. allocate() is called a few times before step 1, with the plan's sums; there is no free, close() gives everything back. Whoever
 * holds host memory (pools, io_uring's buffers) pins it once and closes the device before it unmaps. Nothing in a step allocates.
 * Where host_addressable is false, code outside operations must not touch device memory: what the host makes or reads (token ids, the start
 * of the loss, weights of a checkpoint) goes through copies. src/zero/staged.c does that for blocks, src/train/step.c for a micro-batch;
 * tests/late_device.c is a device that ends whoever forgets.
 */
#ifndef ZINF_DEVICE_DEVICE_H
#define ZINF_DEVICE_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "device/ops.h"
#include "device/products.h"

#ifdef __cplusplus
extern "C" {
#endif

enum zinf_stream {
    ZINF_STREAM_COMPUTE,
    ZINF_STREAM_COPY_IN,  /* host to device */
    ZINF_STREAM_COPY_OUT, /* device to host */
    ZINF_STREAM_COMMUNICATION,
    ZINF_STREAM_COUNT,
    ZINF_STREAM_HOST = -1 /* the calling thread itself: wait() only */
};

struct zinf_device_properties {
    char name[128];      /* e.g. "NVIDIA H200" */
    char bus_id[32];     /* PCI, as hwloc and the driver print it, e.g. "00000000:3b:00.0"; "" for the CPU */
    char version[128];   /* of driver and runtime, e.g. "driver 13.0, runtime 13.0" */
    int64_t memory_bytes, free_bytes; /* 0 = the host's, see topology/machine.h */
    double peak_flops;   /* dense 16-bit, from the table of devices; 0 = unknown: measure a product */
    int major, minor;    /* compute capability; 0 for the CPU */
    int processors;      /* SMs; 0 for the CPU */
    bool host_addressable; /* code of the host may read and write device memory */
};

struct zinf_device_options {
    int index;            /* of the devices that list() counts */
    int event_count;      /* events 0 .. event_count - 1 */
    size_t scratch_bytes; /* of the computing stream, zinf_device_scratch_bytes(); others have less: zinf_device_stream_scratch() */
    bool tf32;            /* products of fp32 may round their factors to TF32, where that is faster; no other operation does */
};

struct zinf_device {
    const struct zinf_device_backend *backend;
    struct zinf_device_properties properties;
    void *state; /* the backend's */
};

struct zinf_comm;

/** What a link is opened with. */
struct zinf_device_link_options {
    struct zinf_comm *host; /* borrowed until close: the control path, and how the link's ranks find each other */
    int first_event, event_count; /* events of the device that are the link's alone; so many operations are in flight at most, at least 1 */
};

/**
 * A communicator (topology/comm.h) from device memory to device memory, e.g. NCCL's. Its data path takes device memory only, goes through
 * ZINF_STREAM_COMMUNICATION, and is called by threads that have called use(): what a buffer waits for is an event that this stream waits for
 * before the call, and an event recorded in it behind the call is reached when the bytes are there; test() is for whoever waits on the host.
 */
struct zinf_device_link {
    const char *name;
    /** Local, without a device. @param out  library and version, e.g. "NCCL 2.28.9"; else why not and what to change. @return 0 or ZINF_E_USAGE */
    int (*available)(char *out, size_t out_bytes);
    /**
     * Collective over options->host; all ranks have their own device open and found the same version available. What one rank sees fail
     * from here on ends the job with one message (rank, host, operation); so does a start that takes longer than host->watchdog_s.
     * What is sent counts in both bytes_sent. The calling thread is left in ZINF_STREAM_COMMUNICATION. Close the communicator before the
     * device. @return 0 or ZINF_E_DOES_NOT_FIT, on all ranks
     */
    int (*open)(struct zinf_device *device, const struct zinf_device_link_options *options,
                struct zinf_comm *comm, struct zinf_error *error);
};

/**
 * The algorithms of the library that makes a device's matrix products, see products.h. All of it before the first step, by the thread that
 * computes, in ZINF_STREAM_COMPUTE; memory is taken and given back. A backend without it has one way to make a product.
 */
struct zinf_device_products {
    /** What a choice is good for: library, version, device; "" without a library. Local. */
    void (*source)(struct zinf_device *device, char *out, size_t out_bytes);
    /** Choose: time the candidates of each product that has no algorithm yet. What there is no memory for keeps none. Local. */
    void (*measure)(struct zinf_device *device, struct zinf_product_choice *items, int count);
    /** From now on these products are made so (without an algorithm: by the library's first), and nothing is left to do in a step. Local. */
    void (*take)(struct zinf_device *device, const struct zinf_products *products);
};

/**
 * Runs of operations that are put into ZINF_STREAM_COMPUTE in one call, with the arguments they were recorded with. Called by a thread whose
 * operations go there.
 */
struct zinf_device_recorder {
    /**
     * Record what `issue` would put into the stream, operations only; none of it is done. Every operation must have been called before in the
     * same shape. May allocate and wait: not inside a step.
     * @param bytes  out: device memory this has taken
     * @return the recording, the caller's until release(); NULL with `error`: what cannot be recorded and why. Nothing has changed then
     */
    void *(*record)(struct zinf_device *device, void (*issue)(void *context), void *context,
                    size_t *bytes, struct zinf_error *error);
    void (*launch)(struct zinf_device *device, void *recording);
    /** No launch of it is under way. */
    void (*release)(struct zinf_device *device, void *recording);
};

struct zinf_device_backend {
    const char *name; /* "cpu" or "cuda", as in zinf.device */
    const struct zinf_ops *(*operations)(void);
    /** Libraries that are looked for at run time: "name: where, version" or why not, a line each. Optional. */
    void (*libraries)(char *out, size_t out_bytes);

    /**
     * The devices that this process may use.
     * @param out  properties of the first `room` of them
     * @param why  if there are none: the reason, one sentence without a full stop
     * @return how many there are
     */
    int (*list)(struct zinf_device_properties *out, int room, char *why, size_t why_bytes);

    /** Local. @return 0 or a status with `error` filled: no such device, driver too old, memory */
    int (*open)(struct zinf_device *device, const struct zinf_device_options *options,
                struct zinf_error *error);
    void (*close)(struct zinf_device *device);

    /** Memory on the device, aligned to 4096 bytes, zero. @return NULL when it does not fit; the caller says what would */
    void *(*allocate)(struct zinf_device *device, size_t bytes);
    /** Make host memory the device's DMA can reach; in pieces of at most 1 GiB. @return 0 or ZINF_E_DOES_NOT_FIT (logged) */
    int (*pin)(struct zinf_device *device, void *memory, size_t bytes);

    /** Operations of the calling thread go to `stream` from now on. */
    void (*use)(struct zinf_device *device, enum zinf_stream stream);
    /**
     * As operations()->square_sum, in the calling thread's stream and without waiting: the same bits in `sum`, which is device memory. Optional
     * where the host addresses that.
     */
    void (*square_sum)(struct zinf_device *device, const struct zinf_scan *op, const void *x,
                       double *sum);
    /** Copy `bytes` in `stream`; either side may be device or host memory. Host memory must be pinned, else the call waits. */
    void (*copy)(struct zinf_device *device, enum zinf_stream stream, void *to, const void *from,
                 size_t bytes);
    /** `event` is reached when all that stands in `stream` now is done. */
    void (*record)(struct zinf_device *device, int event, enum zinf_stream stream);
    /** What is put in `stream` from now on starts after `event`; ZINF_STREAM_HOST: this thread sleeps until then. */
    void (*wait)(struct zinf_device *device, enum zinf_stream stream, int event);
    /** Is `event`, recorded before, reached? Never waits. */
    bool (*reached)(struct zinf_device *device, int event);
    /** Seconds between two events that were reached, else -1. */
    double (*elapsed)(struct zinf_device *device, int first, int second);
    /** Optional. Read properties.free_bytes again: what others (a link) have taken since open() is missing from it. */
    void (*measure)(struct zinf_device *device);
    /** Optional. Free bytes of a device that this process has not opened, without opening it; -1 = it cannot be told. */
    int64_t (*unopened_bytes)(int index);
    /** The stream as the libraries of the device's maker know it (cudaStream_t). Optional, as the link is. */
    void *(*native_stream)(struct zinf_device *device, enum zinf_stream stream);
    const struct zinf_device_link *link; /* NULL: ranks exchange through host memory. link.h chooses */
    const struct zinf_device_products *products; /* NULL: there is nothing to choose */
    const struct zinf_device_recorder *recorder; /* NULL: nothing is gained by it */
};

/** The backends that are compiled in, the preferred first, NULL behind the last. "cpu" is always there. */
const struct zinf_device_backend *const *zinf_device_backends(void);

/**
 * The backend that `wanted` ("auto", "cpu", "cuda") means on this machine. auto: the first with a device. Local.
 * @return 0, or ZINF_E_USAGE with a sentence: not compiled in, or no device and why
 */
int zinf_device_choose(const char *wanted, const struct zinf_device_backend **out,
                       struct zinf_error *error);

/** What bounds the working memory of operations. */
struct zinf_device_shape {
    int64_t tokens, hidden, heads; /* of a micro-batch on this rank; hidden: the widest row that is normalised */
    int64_t tile_rows;             /* of the largest embedding tile */
    int64_t samples, head_size;    /* of attention whose backward pass is on tensor cores; samples 0: there is none */
    bool drops;                    /* it has dropout */
};

/** Scratch that every backend's operations need at most for that shape; a stream whose scratch is smaller ends the run and says so. */
size_t zinf_device_scratch_bytes(const struct zinf_device_shape *shape);

/** What a stream has where the computing one has scratch_bytes: what products and scans need. */
size_t zinf_device_stream_scratch(enum zinf_stream stream, size_t scratch_bytes);

/** All streams together. */
size_t zinf_device_streams_scratch(size_t scratch_bytes);

extern const struct zinf_device_backend zinf_cpu_device;

#ifdef __cplusplus
}
#endif
#endif
