/*
 * Token ids and losses between the host and a device with memory of its own. See batch_copy.h.
 *
 * All of it goes through the compute stream: a few bytes a token, which no other stream has to be
 * asked for.
 */
#include "train/batch_copy.h"

#include <math.h>
#include <string.h>

#include "zero/staged.h"

void zinf_batch_copy_layout(struct zinf_batch_copy *copy, const struct zinf_zero *zero,
                            int64_t rows, int micro_count, struct zinf_pool *device,
                            struct zinf_pool *host)
{
    const size_t row = sizeof(float);
    const size_t all = (size_t)rows * (size_t)micro_count;
    if (!zinf_staged(zero))
        return;
    *copy = (struct zinf_batch_copy){.device = zero->options.device, .rows = rows};
    copy->ids = zinf_pool_take(device, 2 * all * sizeof(int32_t));
    copy->host_ids = zinf_pool_take(host, 2 * all * sizeof(int32_t));
    copy->counters = zinf_pool_take(device, 2 * sizeof *copy->counters);
    copy->host_counters = zinf_pool_take(host, 2 * (size_t)micro_count * sizeof *copy->counters);
    copy->start = zinf_pool_take(host, 3 * (size_t)rows * row);
    copy->losses = zinf_pool_take(host, 3 * all * row);
    for (int64_t t = 0; copy->start && t < rows; t++) {
        copy->start[t] = -INFINITY;
        copy->start[rows + t] = copy->start[2 * rows + t] = 0;
    }
}

static void to_compute(const struct zinf_batch_copy *copy, void *to, const void *from, size_t bytes)
{
    copy->device->backend->copy(copy->device, ZINF_STREAM_COMPUTE, to, from, bytes);
}

void zinf_batch_copy_ids(struct zinf_batch_copy *copy, const int32_t **inputs,
                         const int32_t **targets, int64_t count)
{
    size_t bytes = (size_t)count * sizeof(int32_t);
    if (!copy->device)
        return;
    memcpy(copy->host_ids, *inputs, bytes);
    memcpy(copy->host_ids + count, *targets, bytes);
    to_compute(copy, copy->ids, copy->host_ids, 2 * bytes);
    *inputs = copy->ids;
    *targets = copy->ids + count;
}

void zinf_batch_copy_counters(struct zinf_batch_copy *copy, struct zinf_pass *pass, int micro)
{
    uint32_t *from = copy->host_counters + 2 * micro;
    if (!copy->device)
        return;
    from[0] = pass->step;
    from[1] = pass->first_sample;
    to_compute(copy, copy->counters, from, 2 * sizeof *from);
    pass->counters = copy->counters;
}

void zinf_batch_copy_begin_loss(struct zinf_batch_copy *copy, const struct zinf_pass *pass,
                                const struct zinf_loss *loss)
{
    size_t bytes = (size_t)(pass->batch * pass->sequence) * sizeof(float);
    to_compute(copy, loss->maximum, copy->start, bytes);
    to_compute(copy, loss->sum, copy->start + copy->rows, bytes);
    to_compute(copy, loss->target_logit, copy->start + 2 * copy->rows, bytes);
}

struct zinf_loss zinf_batch_copy_loss(const struct zinf_batch_copy *copy, int micro)
{
    float *losses = copy->losses + 3 * copy->rows * micro;
    return (struct zinf_loss){losses, losses + copy->rows, losses + 2 * copy->rows, NULL};
}

void zinf_batch_copy_take_loss(struct zinf_batch_copy *copy, const struct zinf_pass *pass,
                               const struct zinf_loss *loss, int micro)
{
    const struct zinf_loss to = zinf_batch_copy_loss(copy, micro);
    size_t bytes = (size_t)(pass->batch * pass->sequence) * sizeof(float);
    to_compute(copy, to.maximum, loss->maximum, bytes);
    to_compute(copy, to.sum, loss->sum, bytes);
    to_compute(copy, to.target_logit, loss->target_logit, bytes);
    copy->device->backend->record(copy->device, ZINF_EVENT_LOSS, ZINF_STREAM_COMPUTE);
}

void zinf_batch_copy_wait(struct zinf_batch_copy *copy)
{
    copy->device->backend->wait(copy->device, ZINF_STREAM_HOST, ZINF_EVENT_LOSS);
}
