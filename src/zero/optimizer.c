/*
 * The update of the owned part of a block, and the way of new weights to whoever reads them.
 */
#include "zero/zero.h"

#include <string.h>

const void *zinf_zero_weights(const struct zinf_zero *zero,
                              const struct zinf_plan_operation *operation)
{
    if (operation->window >= 0)
        return zero->windows[operation->window];
    return zero->blocks[operation->block].weights;
}

void *zinf_zero_gradient(const struct zinf_zero *zero, const struct zinf_plan_operation *operation)
{
    if (operation->gradient >= 0)
        return zero->gradients[operation->gradient];
    return zero->blocks[operation->block].accumulator;
}

void zinf_zero_accumulate(struct zinf_zero *zero, const struct zinf_plan_operation *operation)
{
    const struct zinf_zero_options *o = &zero->options;
    o->ops->accumulate(zero->blocks[operation->block].accumulator, o->accumulation_dtype,
                       zero->gradients[operation->gradient], o->dtype,
                       o->model->blocks[operation->block].element_count, operation->first);
}

/* First element of the owned part within an array that holds the whole block, or 0 when the array
 * holds the owned part only. */
static int64_t owned_offset(const struct zinf_zero *zero, int block, bool sharded)
{
    return sharded ? 0 : zinf_zero_owned(zero, block).begin;
}

/* The 16-bit copy of the owned part, NULL in fp32. */
static char *low_weights(const struct zinf_zero *zero, int block)
{
    const struct zinf_zero_options *o = &zero->options;
    if (o->dtype == ZINF_FP32)
        return NULL;
    return (char *)zero->blocks[block].weights +
           (size_t)owned_offset(zero, block, o->sharding.parameters) * zinf_dtype_bytes(o->dtype);
}

void zinf_zero_update(struct zinf_zero *zero, int block, const struct zinf_update *update)
{
    const struct zinf_zero_options *o = &zero->options;
    struct zinf_block_state *state = &zero->blocks[block];
    size_t gradient_bytes = zinf_dtype_bytes(o->accumulation_dtype);
    const char *gradient =
        (const char *)state->accumulator +
        (size_t)owned_offset(zero, block, o->sharding.gradients) * gradient_bytes;
    char *low = low_weights(zero, block);
    for (int i = 0; i < state->run_count; i++) {
        const struct zinf_update_run *run = &state->runs[i];
        struct zinf_update options = *update;
        float *moment[2];
        for (int m = 0; m < 2; m++)
            moment[m] = state->moment[m] ? state->moment[m] + run->begin : NULL;
        if (!run->decay)
            options.weight_decay = 0;
        o->ops->update(&options, run->count, state->master + run->begin, moment,
                       gradient + (size_t)run->begin * gradient_bytes, o->accumulation_dtype,
                       low ? low + (size_t)run->begin * zinf_dtype_bytes(o->dtype) : NULL,
                       o->dtype);
    }
}

void zinf_zero_publish(struct zinf_zero *zero)
{
    const struct zinf_zero_options *o = &zero->options;
    for (int i = 0; i < o->model->block_count; i++) {
        struct zinf_range owned = zinf_zero_owned(zero, i);
        struct zinf_comm_request request = {0};
        char *low = low_weights(zero, i);
        if (low)
            o->ops->cast(low, o->dtype, zero->blocks[i].master, ZINF_FP32, owned.end - owned.begin);
        if (!o->sharding.optimizer || o->sharding.parameters)
            continue;
        o->comm->ops->all_gather(o->comm, zero->blocks[i].weights,
                                 (size_t)(owned.end - owned.begin) * zinf_dtype_bytes(o->dtype),
                                 &request);
        while (!o->comm->ops->test(o->comm, &request))
            ;
    }
}
