/*
 * The measurements behind `zinf bench`: each fills a JSON object, which cmd_bench.c prints as it is or as a table. All local.
 */
#ifndef ZINF_CLI_BENCH_H
#define ZINF_CLI_BENCH_H

#include "base/json.h"
#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct zinf_bench {
    const char *path;      /* io, checkpoint: the folder whose drive is measured */
    int64_t file_bytes;    /* io, checkpoint */
    const char *engine;    /* io: NULL = all */
    int64_t block_bytes;   /* io: 0 = several */
    int64_t queue_depth;   /* io: 0 = several */
    double seconds;        /* io: of one point in one round */
    int rounds;            /* everything that is compared is measured in turn, so often; best counts */
    int threads;           /* compute */
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

#ifdef __cplusplus
}
#endif
#endif
