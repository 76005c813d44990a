/*
 * A step's token ids on their way to a device with memory of its own, and its losses on their way back. Where the host addresses device memory
 * nothing is copied and nothing is taken from the pools.
 *
 * The ids of all micro-batches go at the beginning of the step, dropout's counters (the step and a sample's number) at that of each micro-batch, to a
 * place that stays the same: what operations are given does not change from step to step, and can be recorded. The losses of a token (maximum, sum, target logit) come back behind each
 * micro-batch's last tile; the host waits for them once, at the end of the step, when their sum is agreed on.
 */
#ifndef ZINF_TRAIN_BATCH_COPY_H
#define ZINF_TRAIN_BATCH_COPY_H

#include <stdint.h>

#include "memory/pool.h"
#include "model/transformer.h"
#include "zero/zero.h"

#ifdef __cplusplus
extern "C" {
#endif

struct zinf_batch_copy {
    struct zinf_device *device; /* NULL: nothing is copied; borrowed */
    int64_t rows;               /* of a micro-batch at most: (T) */
    int32_t *ids;               /* on the device: inputs (k, m, S), then targets */
    int32_t *host_ids;          /* the same, pinned */
    uint32_t *counters;         /* on the device: dropout's step and sample of the micro-batch that is computed */
    uint32_t *host_counters;    /* pinned: (micro-batches, 2) */
    float *start;               /* pinned: what a loss begins with, (3, rows) */
    float *losses;              /* pinned: (micro-batches, 3, rows) */
};

/**
 * Take memory from counting or open pools.
 * @param rows   of a micro-batch, or of an evaluation batch, whichever is more
 * @param micro_count  micro-batches of a step
 */
void zinf_batch_copy_layout(struct zinf_batch_copy *copy, const struct zinf_zero *zero,
                            int64_t rows, int micro_count, struct zinf_pool *device,
                            struct zinf_pool *host);
/** Send `count` input ids and targets; *inputs and *targets become where operations find them. */
void zinf_batch_copy_ids(struct zinf_batch_copy *copy, const int32_t **inputs,
                         const int32_t **targets, int64_t count);
/** Send the counters of training micro-batch `micro`, which begins; pass->counters becomes where operations find them. */
void zinf_batch_copy_counters(struct zinf_batch_copy *copy, struct zinf_pass *pass, int micro);
/** zinf_loss_begin() on the device. */
void zinf_batch_copy_begin_loss(struct zinf_batch_copy *copy, const struct zinf_pass *pass,
                                const struct zinf_loss *loss);
/** `loss` of micro-batch `micro` is complete: it begins to come back. */
void zinf_batch_copy_take_loss(struct zinf_batch_copy *copy, const struct zinf_pass *pass,
                               const struct zinf_loss *loss, int micro);
/** Wait for what take_loss() began. */
void zinf_batch_copy_wait(struct zinf_batch_copy *copy);
/** The loss of micro-batch `micro` in host memory, after the wait. */
struct zinf_loss zinf_batch_copy_loss(const struct zinf_batch_copy *copy, int micro);

#ifdef __cplusplus
}
#endif
#endif
