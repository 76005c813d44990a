/*
 * The states of a block that is updated on a device with memory of its own: visits of them, and
 * updates of parameters that stand in host memory or on NVMe. See staged.h.
 *
 * Such an update is the update lane's, record by record like those of the host, under the next
 * forward pass: the kernel and its copies go one behind the other through COPY_OUT, which nothing
 * else of a forward pass waits in (COPY_IN and COMMUNICATION wait for windows to be free). The
 * thread sleeps until the record has come down, so that what waits for a block (gathers, new
 * gradients, the drive) waits for the lane and needs no event. Nor does the lane: it begins behind
 * DECIDE, for which the host has waited for all sums.
 *
 * In fp32 the parameter is its own master and is stored once, on the host: it goes up and down. In
 * 16 bits the master stays on the device, and only rounded weights come down.
 */
#include <string.h>

#include "zero/staged.h"

static void copy(struct zinf_zero *zero, enum zinf_stream stream, void *to, const void *from,
                 size_t bytes)
{
    zero->options.device->backend->copy(zero->options.device, stream, to, from, bytes);
}

bool zinf_staged_crosses(const struct zinf_zero *zero, int block)
{
    return zinf_staged(zero) && zero->options.training &&
           zinf_zero_optimizer_tier(zero, block) == ZINF_TIER_DEVICE &&
           zinf_zero_parameter_tier(zero, block) != ZINF_TIER_DEVICE;
}

void zinf_staged_layout_update(struct zinf_zero *zero, const struct zinf_plan *plan,
                               struct zinf_pool *device)
{
    const struct zinf_zero_options *o = &zero->options;
    struct zinf_staging *staging = &zero->staging;
    int64_t longest = plan->window_elements / zero->ranks;
    if (!zinf_staged_crosses(zero, o->model->block_count - 1))
        return;
    if (longest > o->offload.record_elements)
        longest = o->offload.record_elements;
    size_t bytes = (size_t)longest * zinf_dtype_bytes(o->dtype);
    staging->update_elements = longest;
    staging->update = zinf_pool_take(device, bytes);
    zero->bytes.communication += bytes;
}

void zinf_staged_update(struct zinf_zero *zero, const struct zinf_update_op *op)
{
    struct zinf_device *device = zero->options.device;
    struct zinf_update_op here = *op;
    void *outside = op->low ? op->low : op->weights, *inside = zero->staging.update;
    size_t bytes = (size_t)op->count * zinf_dtype_bytes(zero->options.dtype);
    ZINF_ASSERT(op->count <= zero->staging.update_elements);
    device->backend->use(device, ZINF_STREAM_COPY_OUT);
    if (op->low) {
        here.low = inside;
    } else {
        here.weights = inside;
        copy(zero, ZINF_STREAM_COPY_OUT, inside, outside, bytes);
    }
    zero->options.ops->update(&here);
    copy(zero, ZINF_STREAM_COPY_OUT, outside, inside, bytes);
    device->backend->record(device, ZINF_EVENT_UPDATED, ZINF_STREAM_COPY_OUT);
    device->backend->wait(device, ZINF_STREAM_HOST, ZINF_EVENT_UPDATED);
}

/* ---- visits ---- */

/* A part of a stretch. What is on the device has a copy in staging memory, what is on the host is
 * used there. */
struct part {
    struct zinf_stretch there, here;
    bool master, low; /* are these two on the device? */
};

static void read_part(struct zinf_zero *zero, const struct part *part)
{
    size_t bytes = (size_t)part->there.count * sizeof(float);
    if (part->master)
        copy(zero, ZINF_STREAM_COPY_OUT, part->here.master, part->there.master, bytes);
    for (int i = 0; i < 2; i++)
        if (part->there.moment[i])
            copy(zero, ZINF_STREAM_COPY_OUT, part->here.moment[i], part->there.moment[i], bytes);
    zinf_staged_drain(zero);
}

static void write_part(struct zinf_zero *zero, const struct part *part)
{
    const struct zinf_zero_options *o = &zero->options;
    const struct zinf_cast cast = {ZINF_FP32, o->dtype, part->there.count};
    size_t bytes = (size_t)part->there.count * sizeof(float);
    if (part->master)
        copy(zero, ZINF_STREAM_COPY_IN, part->there.master, part->here.master, bytes);
    for (int i = 0; i < 2; i++)
        if (part->there.moment[i])
            copy(zero, ZINF_STREAM_COPY_IN, part->there.moment[i], part->here.moment[i], bytes);
    if (part->there.low)
        zinf_cpu_ops()->cast(&cast, part->here.master, part->here.low);
    if (part->low)
        copy(zero, ZINF_STREAM_COPY_IN, part->there.low, part->here.low,
             (size_t)part->there.count * zinf_dtype_bytes(o->dtype));
    zinf_staged_drain(zero);
}

/* Elements [at, at + count) of `all`; staging memory holds `longest` of each array. */
static struct part part_of(const struct zinf_zero *zero, int block, const struct zinf_stretch *all,
                           struct zinf_range range, int64_t longest)
{
    const size_t element = zinf_dtype_bytes(zero->options.dtype);
    const bool outside = zinf_zero_parameter_tier(zero, block) != ZINF_TIER_DEVICE;
    float *memory = (float *)zero->staging.gather[0];
    const int64_t at = range.begin, count = range.end - range.begin;
    struct part part = {
        .there = {.begin = all->begin + at, .count = count, .master = all->master + at}};
    for (int i = 0; i < 2; i++)
        part.there.moment[i] = all->moment[i] ? all->moment[i] + at : NULL;
    if (all->low)
        part.there.low = (char *)all->low + (size_t)at * element;
    part.master = !outside || all->low;
    part.low = !outside && all->low;
    part.here = part.there;
    if (part.master)
        part.here.master = memory;
    for (int i = 0; i < 2; i++)
        if (all->moment[i])
            part.here.moment[i] = memory + (1 + i) * longest;
    if (part.low)
        part.here.low = memory + 3 * longest;
    return part;
}

/* Parts as long as a gather buffer, which no copy reads between steps, holds of master, moments and
 * low; whole cache lines. */
int zinf_staged_visit(struct zinf_zero *zero, int block, const struct zinf_stretch *stretch,
                      const struct zinf_staged_visitor *visitor)
{
    const struct zinf_staging *staging = &zero->staging;
    const int64_t longest = (int64_t)(staging->gather_bytes / (4 * sizeof(float))) / 16 * 16;
    const int64_t begin = zinf_zero_owned(zero, block).begin + stretch->begin;
    int status = ZINF_OK;
    ZINF_ASSERT(longest > 0);
    for (int64_t at = 0; at < stretch->count && !status; at += longest) {
        int64_t end = stretch->count - at < longest ? stretch->count : at + longest;
        struct part part = part_of(zero, block, stretch, (struct zinf_range){at, end}, longest);
        if (visitor->write)
            memset(staging->gather[0], 0, staging->gather_bytes);
        else
            read_part(zero, &part);
        status =
            visitor->visit(visitor->context, block, (struct zinf_range){begin + at, begin + end},
                           part.here.master, part.here.moment);
        if (visitor->write)
            write_part(zero, &part);
    }
    return status;
}
