/*
 * The measurements behind `zinf bench`: each fills a JSON object, which cmd_bench.c prints as it is or as a table. Local, but for
 * zinf_bench_collectives().
 */
#ifndef ZINF_CLI_BENCH_H
#define ZINF_CLI_BENCH_H

#include "base/json.h"
#include "base/status.h"
#include "device/ops.h"
#include "topology/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

struct zinf_bench {
    const char *path;      /* io, checkpoint: the folder whose drive is measured */
    int64_t file_bytes;    /* io, checkpoint */
    const char *engine;    /* io: NULL = all */
    int64_t block_bytes;   /* io, collectives: 0 = several */
    int64_t queue_depth;   /* io: 0 = several */
    double seconds;        /* io, collectives: of one point in one round */
    int rounds;            /* everything that is compared is measured in turn, so often; best counts */
    int threads;           /* compute */
    const char *device;    /* device: as in zinf.device */
    struct zinf_comm *comm; /* the job's; borrowed */
};

/**
 * "points": one object for each engine, pattern (read, write, mixed), block size and queue depth with bytes per second and CPU seconds
 * per GB; "best": the fastest of each pattern.
 * @return 0; ZINF_E_USAGE, ZINF_E_DOES_NOT_FIT or ZINF_E_RUNTIME with a text
 */
int zinf_bench_io(const struct zinf_bench *bench, struct zinf_json *result,
                  struct zinf_error *error);
/**
 * A checkpoint written, checked and read, and the same bytes written and read without one: bytes per second, and their ratios. Leaves
 * nothing in the folder.
 * @return as zinf_bench_io()
 */
int zinf_bench_checkpoint(const struct zinf_bench *bench, struct zinf_json *result,
                          struct zinf_error *error);
/** Read, triad and memcpy rates of the memory. */
void zinf_bench_memory(const struct zinf_bench *bench, struct zinf_json *result);
/** AdamW beside a read-modify-write stream of the same bytes. */
void zinf_bench_adam(const struct zinf_bench *bench, struct zinf_json *result);
/** The products of a GPT-2 layer beside multiply-adds in registers. */
void zinf_bench_gemm(const struct zinf_bench *bench, struct zinf_json *result);
/**
 * all_gather and exchange through the mover thread, by messages and by memory that ranks share, beside memcpy on the same buffers on all ranks
 * at once. "points": operation, way, block_bytes, bytes_per_s that a rank receives (the slowest rank's clock), memcpy_bytes_per_s, of_memcpy,
 * cpu_s_per_gb of the mover, and beside a computing main thread busy_bytes_per_s and compute_kept, the part of its speed that it keeps (the
 * slowest rank, mean of the rounds). Collective over bench->comm.
 * @return ZINF_E_USAGE: one rank alone; ZINF_E_DOES_NOT_FIT; ZINF_E_RUNTIME: wrong bytes have arrived
 */
int zinf_bench_collectives(const struct zinf_bench *bench, struct zinf_json *result,
                           struct zinf_error *error);
/**
 * The device's operations beside a product of large squares and a copy inside it, and copies to and from the host. "points": name, dtype, shape,
 * seconds of a call, flop_per_s with of_product or bytes_per_s with of_copy (of the bytes that must move); of the copies in pieces of_plain.
 * Sizes are the CPU's, smaller, where no card is meant. @return 0; ZINF_E_USAGE: no such device; ZINF_E_DOES_NOT_FIT
 */
int zinf_bench_device(const struct zinf_bench *bench, struct zinf_json *result,
                      struct zinf_error *error);

/** The update that is timed: AdamW as people set it, in its tenth step. */
extern const struct zinf_update zinf_bench_adamw;

#ifdef __cplusplus
}
#endif
#endif
