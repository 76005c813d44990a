/*
 * Between the files of `zinf bench device`: what is measured with, and how a call is timed.
 * bench_device.c opens it and measures the limits, attention and copies to the host;
 * bench_device_bytes.c what only moves bytes inside the device.
 */
#ifndef ZINF_CLI_BENCH_DEVICE_H
#define ZINF_CLI_BENCH_DEVICE_H

#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "cli/bench.h"
#include "device/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How large things are, on a card and on a CPU. */
struct zinf_rig_sizes {
    int64_t square; /* of the largest product */
    int64_t tokens; /* of attention, norms, loss and gated units */
    int64_t sequence[2];
    int64_t width; /* heads x head size of attention */
    int64_t hidden, inner, vocabulary;
    int64_t parameters; /* of an update, casts, a scan */
    size_t host_bytes;  /* each way */
};

struct zinf_rig {
    const struct zinf_bench *bench;
    const struct zinf_rig_sizes *sizes;
    struct zinf_device device;
    const struct zinf_ops *ops;
    char *arena, *host;       /* on the device; (2, host_bytes), pinned */
    size_t arena_bytes, used; /* each measurement begins with used = 0 */
    float *pattern;           /* uniform in (0, 1) */
    struct zinf_json *points;
    double copy_per_s, product_per_s; /* the limits: bytes read and written, FLOP */
};

/* A call that is measured, and what it works on. */
struct zinf_rig_work {
    void (*call)(const struct zinf_rig *rig, const struct zinf_rig_work *work);
    const void *op;
    const void *in[2];
    void *out[3];
    size_t bytes;
};

struct zinf_rig_point {
    const char *name, *dtype;
    char shape[96];
    double seconds, flop, bytes; /* of one call; flop or bytes is 0 */
};

/** Device memory out of the arena, not filled. */
void *zinf_rig_take(struct zinf_rig *rig, size_t bytes);
/** The same, `count` random values of lowest .. lowest + span. */
void *zinf_rig_filled(struct zinf_rig *rig, enum zinf_dtype dtype, int64_t count, float lowest,
                      float span);
/** Between -1 and 1. */
void *zinf_rig_random(struct zinf_rig *rig, enum zinf_dtype dtype, int64_t count);
/** Seconds of one call, the best round's. */
double zinf_rig_measure(struct zinf_rig *rig, const struct zinf_rig_work *work);
/** Measure, and add to rig->points with what part of its limit it reaches. @return seconds */
double zinf_rig_point(struct zinf_rig *rig, const struct zinf_rig_work *work,
                      struct zinf_rig_point *point);
/** The last half alone, of point->seconds. */
void zinf_rig_add(struct zinf_rig *rig, const struct zinf_rig_point *point);

/** Updates, norms, loss, activations, casts and scans. */
void zinf_rig_bytes(struct zinf_rig *rig);

#ifdef __cplusplus
}
#endif
#endif
