/*
 * Blocks on a device with memory of its own: edges between streams, and what the mover does for an
 * operation of the communication lane. See staged.h.
 *
 * The mover sleeps where bytes pass through a thread of the host: until a shard or a gradient has
 * come down for the wire, and until staging memory may be filled again. Two gather buffers: the
 * copy of one block to its window goes on under the gather of the next. One pair for gradients: its
 * copy down is waited for in any case, for the wire or the sum comes next.
 *
 * Where ranks exchange directly nothing goes over the wire from here, and a gradient that the host
 * updates comes down while the mover goes on: the device's buffer of such a sum is the next one's
 * behind the copy, an edge between COPY_OUT and COMMUNICATION.
 */
#include "zero/staged.h"

#include <string.h>

bool zinf_staged(const struct zinf_zero *zero)
{
    const struct zinf_device *device = zero->options.device;
    return device && !device->properties.host_addressable;
}

static bool sums_on_device(const struct zinf_zero *zero, int block)
{
    return zinf_zero_optimizer_tier(zero, block) == ZINF_TIER_DEVICE;
}

bool zinf_staged_mirrors(const struct zinf_zero *zero, int block)
{
    return zinf_staged(zero) && zero->options.training && !sums_on_device(zero, block) &&
           zinf_zero_parameter_tier(zero, block) == ZINF_TIER_DEVICE;
}

int zinf_staged_event_count(const struct zinf_plan *plan)
{
    return ZINF_STAGED_EVENTS + (int)(plan->count[ZINF_LANE_COMPUTE] + plan->count[ZINF_LANE_COMM]);
}

static bool direct(const struct zinf_zero *zero)
{
    return zero->options.direct && zero->ranks > 1;
}

bool zinf_staged_runs_ahead(const struct zinf_zero *zero)
{
    return zinf_staged(zero) && direct(zero);
}

/* Does a gradient come down from `sum`? */
static bool is_brought(const struct zinf_zero *zero, const struct zinf_plan_operation *operation)
{
    return operation->kind == ZINF_PLAN_REDUCE && direct(zero) &&
           !sums_on_device(zero, operation->block);
}

static int brought_event(int64_t index)
{
    return ZINF_EVENT_BROUGHT + (int)(index % ZINF_LANES_UNDER_WAY);
}

static void layout_sums(struct zinf_zero *zero, struct zinf_pool *device, struct zinf_pool *host)
{
    size_t bytes = (size_t)zero->options.model->block_count * sizeof(double);
    if (!zero->options.training || !(direct(zero) || sums_on_device(zero, 0)))
        return;
    zero->staging.sums = zinf_pool_take(device, bytes);
    zero->staging.landed = zinf_pool_take(host, bytes);
    zero->bytes.communication += bytes;
    zero->bytes.staging += bytes;
}

void zinf_staged_layout(struct zinf_zero *zero, const struct zinf_plan *plan,
                        struct zinf_pool *device, struct zinf_pool *host)
{
    const struct zinf_zero_options *o = &zero->options;
    struct zinf_staging *staging = &zero->staging;
    size_t widest = zinf_dtype_bytes(o->dtype);
    size_t wire = (size_t)plan->window_elements * zinf_dtype_bytes(o->wire_dtype);
    if (o->training && zinf_dtype_bytes(o->accumulation_dtype) > widest)
        widest = zinf_dtype_bytes(o->accumulation_dtype);
    staging->gather_bytes = (size_t)plan->window_elements * widest;
    if (direct(zero)) /* this rank's shard, where it comes from NVMe */
        staging->gather_bytes /= (size_t)zero->ranks;
    for (int i = 0; i < 2; i++)
        staging->gather[i] = zinf_pool_take(host, staging->gather_bytes);
    zero->bytes.staging = 2 * staging->gather_bytes;
    layout_sums(zero, device, host);
    zinf_staged_layout_update(zero, plan, device);
    if (o->training && direct(zero)) {
        zero->receive = zinf_pool_take(device, wire);
        zero->bytes.communication += wire;
    }
    int last = o->model->block_count - 1; /* what is on the device begins with the first */
    if (!o->training || ((zero->ranks == 1 || direct(zero)) && sums_on_device(zero, last)))
        return;
    if (direct(zero)) {
        size_t bytes =
            (size_t)(plan->window_elements / zero->ranks) * zinf_dtype_bytes(o->accumulation_dtype);
        staging->sum = zinf_pool_take(device, bytes);
        zero->bytes.communication += bytes;
        return;
    }
    staging->send = zinf_pool_take(host, wire);
    zero->bytes.staging += wire;
    if (zero->ranks == 1)
        return;
    staging->receive = zinf_pool_take(host, wire);
    zero->bytes.staging += wire;
    if (sums_on_device(zero, 0)) {
        zero->receive = zinf_pool_take(device, wire);
        zero->bytes.communication += wire;
    }
}

/* ---- edges ---- */

static void record(struct zinf_zero *zero, int event, enum zinf_stream stream)
{
    zero->options.device->backend->record(zero->options.device, event, stream);
}

static void wait(struct zinf_zero *zero, enum zinf_stream stream, int event)
{
    zero->options.device->backend->wait(zero->options.device, stream, event);
}

static void copy(struct zinf_zero *zero, enum zinf_stream stream, void *to, const void *from,
                 size_t bytes)
{
    zero->options.device->backend->copy(zero->options.device, stream, to, from, bytes);
}

static bool is_reached(void *zero, int event)
{
    struct zinf_device *device = ((struct zinf_zero *)zero)->options.device;
    return device->backend->reached(device, event);
}

/* The mover sleeps until then. What stands in front may be a collective that a peer never joins. */
static void wait_here(struct zinf_zero *zero, int event)
{
    if (direct(zero))
        zinf_lanes_until(zero->lanes, is_reached, zero, event);
    else
        wait(zero, ZINF_STREAM_HOST, event);
}

static int compute_event(int64_t index)
{
    return ZINF_STAGED_EVENTS + (int)index;
}

static int comm_event(const struct zinf_zero *zero, int64_t index)
{
    return ZINF_STAGED_EVENTS + (int)(zero->plan->count[ZINF_LANE_COMPUTE] + index);
}

static bool has_event(enum zinf_plan_kind kind)
{
    return kind == ZINF_PLAN_GATHER_WINDOW || kind == ZINF_PLAN_GATHER_WEIGHTS ||
           kind == ZINF_PLAN_GATHER_GRADIENT || kind == ZINF_PLAN_REDUCE;
}

void zinf_staged_begin(struct zinf_zero *zero)
{
    zero->staging.passed = zero->staging.computed = 0;
    zero->staging.brought = -1;
    if (zinf_staged(zero))
        zero->options.device->backend->use(zero->options.device, ZINF_STREAM_COMPUTE);
}

void zinf_staged_pass(struct zinf_zero *zero, int64_t index)
{
    const struct zinf_plan *plan = zero->plan;
    int64_t until = plan->operations[ZINF_LANE_COMPUTE][index].wait_other;
    if (!zinf_staged(zero))
        return;
    for (; zero->staging.passed < until; zero->staging.passed++)
        if (has_event(plan->operations[ZINF_LANE_COMM][zero->staging.passed].kind))
            wait(zero, ZINF_STREAM_COMPUTE, comm_event(zero, zero->staging.passed));
}

void zinf_staged_done(struct zinf_zero *zero)
{
    int64_t index = zero->staging.computed++;
    if (zinf_staged(zero) && zero->plan->operations[ZINF_LANE_COMPUTE][index].waited)
        record(zero, compute_event(index), ZINF_STREAM_COMPUTE);
}

static void record_all(struct zinf_zero *zero)
{
    for (int stream = 0; stream < ZINF_STREAM_COUNT; stream++)
        record(zero, ZINF_EVENT_STREAM + stream, (enum zinf_stream)stream);
}

void zinf_staged_end(struct zinf_zero *zero)
{
    if (!zinf_staged(zero))
        return;
    record_all(zero);
    for (int stream = 0; stream < ZINF_STREAM_COUNT; stream++)
        for (int other = 0; other < ZINF_STREAM_COUNT; other++)
            if (other != stream)
                wait(zero, (enum zinf_stream)stream, ZINF_EVENT_STREAM + other);
}

void zinf_staged_drain(struct zinf_zero *zero)
{
    if (!zinf_staged(zero))
        return;
    zero->options.device->backend->use(zero->options.device, ZINF_STREAM_COMPUTE);
    record_all(zero);
    for (int stream = 0; stream < ZINF_STREAM_COUNT; stream++)
        wait(zero, ZINF_STREAM_HOST, ZINF_EVENT_STREAM + stream);
}

/* What `operation` may use of the compute lane's results is there before `stream` goes on. */
static void wait_for_compute(struct zinf_zero *zero, const struct zinf_plan_operation *operation,
                             enum zinf_stream stream)
{
    if (operation->wait_other > 0)
        wait(zero, stream, compute_event(operation->wait_other - 1));
}

/* Down to the host, now. */
static void copy_out(struct zinf_zero *zero, void *to, const void *from, size_t bytes)
{
    copy(zero, ZINF_STREAM_COPY_OUT, to, from, bytes);
    record(zero, ZINF_EVENT_OUT, ZINF_STREAM_COPY_OUT);
    wait(zero, ZINF_STREAM_HOST, ZINF_EVENT_OUT);
}

/* A gather buffer that no copy reads any more. */
static char *gather_buffer(struct zinf_zero *zero)
{
    struct zinf_staging *staging = &zero->staging;
    int number = staging->next;
    if (staging->gather_busy[number])
        wait_here(zero, ZINF_EVENT_GATHERED + number);
    staging->gather_busy[number] = false;
    return staging->gather[number];
}

/* The buffer that gather_buffer() gave goes to the device. */
static void copy_in(struct zinf_zero *zero, void *to, size_t bytes)
{
    struct zinf_staging *staging = &zero->staging;
    copy(zero, ZINF_STREAM_COPY_IN, to, staging->gather[staging->next], bytes);
    record(zero, ZINF_EVENT_GATHERED + staging->next, ZINF_STREAM_COPY_IN);
    staging->gather_busy[staging->next] = true;
    staging->next = 1 - staging->next;
}

/* ---- operations ---- */

/* This rank's shard of the weights, to `own` in host memory. */
static void shard_to_host(struct zinf_zero *zero, int block, char *own, size_t bytes)
{
    const struct zinf_block_state *state = &zero->blocks[block];
    const struct zinf_zero_options *o = &zero->options;
    if (state->mirror)
        memcpy(own, state->mirror, bytes);
    else if (!state->weights)
        zinf_zero_fetch_shard(zero, block, own);
    else if (zinf_zero_parameter_tier(zero, block) == ZINF_TIER_HOST)
        memcpy(own, state->weights, bytes);
    else
        copy_out(zero, own,
                 (char *)state->weights + (o->sharding.parameters ? 0 : (size_t)zero->rank * bytes),
                 bytes);
}

/* This rank's shard of the weights, to `own` in device memory, for what stands in COMMUNICATION
 * behind it. From the device in that stream; from the host in COPY_IN. */
static void shard_to_device(struct zinf_zero *zero, int block, char *own, size_t bytes)
{
    const struct zinf_block_state *state = &zero->blocks[block];
    const struct zinf_zero_options *o = &zero->options;
    const char *from = state->mirror ? state->mirror : state->weights;
    if (from && !state->mirror && zinf_zero_parameter_tier(zero, block) == ZINF_TIER_DEVICE) {
        from += o->sharding.parameters ? 0 : (size_t)zero->rank * bytes;
        if (from != own)
            copy(zero, ZINF_STREAM_COMMUNICATION, own, from, bytes);
        return;
    }
    if (from) {
        copy(zero, ZINF_STREAM_COPY_IN, own, from, bytes);
    } else {
        char *buffer = gather_buffer(zero);
        zinf_lanes_delayed_by(zero->lanes, ZINF_DELAY_DRIVE);
        zinf_zero_fetch_shard(zero, block, buffer);
        zinf_lanes_delayed_by(zero->lanes, ZINF_DELAY_NONE);
        copy_in(zero, own, bytes);
    }
    record(zero, ZINF_EVENT_OWN, ZINF_STREAM_COPY_IN);
    wait(zero, ZINF_STREAM_COMMUNICATION, ZINF_EVENT_OWN);
}

/* All shards to `whole` in device memory, this rank's own from where it is. */
static void gather_directly(struct zinf_zero *zero, int block, char *whole)
{
    size_t bytes =
        (size_t)zinf_zero_shard_count(zero, block) * zinf_dtype_bytes(zero->options.dtype);
    shard_to_device(zero, block, whole + (size_t)zero->rank * bytes, bytes);
    zinf_zero_all_gather(zero, whole, bytes);
}

/* What the host has updated goes to the device's own copy. */
static void refresh(struct zinf_zero *zero, int block, size_t bytes)
{
    struct zinf_block_state *state = &zero->blocks[block];
    if (state->behind)
        copy(zero, ZINF_STREAM_COPY_IN, state->weights, state->mirror, bytes);
    state->behind = false;
}

static void gather_window(struct zinf_zero *zero, const struct zinf_plan_operation *operation)
{
    const struct zinf_zero_options *o = &zero->options;
    const struct zinf_block_state *state = &zero->blocks[operation->block];
    size_t bytes =
        (size_t)zinf_zero_shard_count(zero, operation->block) * zinf_dtype_bytes(o->dtype);
    char *window = zero->windows[operation->window];
    zinf_zero_wait_for_update(zero, operation->block);
    wait_for_compute(zero, operation, ZINF_STREAM_COPY_IN);
    if (zero->ranks == 1 && state->weights) {
        refresh(zero, operation->block, bytes);
        copy(zero, ZINF_STREAM_COPY_IN, window, state->weights, bytes);
        return;
    }
    if (direct(zero)) {
        wait_for_compute(zero, operation, ZINF_STREAM_COMMUNICATION);
        gather_directly(zero, operation->block, window);
        return;
    }
    char *buffer = gather_buffer(zero);
    zinf_lanes_delayed_by(zero->lanes, state->weights ? ZINF_DELAY_NONE : ZINF_DELAY_DRIVE);
    shard_to_host(zero, operation->block, buffer + (size_t)zero->rank * bytes, bytes);
    zinf_lanes_delayed_by(zero->lanes, ZINF_DELAY_NONE);
    zinf_zero_all_gather(zero, buffer, bytes);
    copy_in(zero, window, (size_t)zero->ranks * bytes);
}

/* Updated shards -> the whole block on the device. */
static void gather_whole(struct zinf_zero *zero, int block)
{
    struct zinf_block_state *state = &zero->blocks[block];
    size_t bytes =
        (size_t)zinf_zero_shard_count(zero, block) * zinf_dtype_bytes(zero->options.dtype);
    if (zero->ranks == 1) {
        refresh(zero, block, bytes);
        return;
    }
    if (direct(zero)) {
        gather_directly(zero, block, state->weights);
    } else {
        char *buffer = gather_buffer(zero);
        shard_to_host(zero, block, buffer + (size_t)zero->rank * bytes, bytes);
        zinf_zero_all_gather(zero, buffer, bytes);
        copy_in(zero, state->weights, (size_t)zero->ranks * bytes);
    }
    state->behind = false;
}

/* Nobody reads the block: the step has no computation left, or not yet begun. */
static void gather_weights(struct zinf_zero *zero, const struct zinf_plan_operation *operation)
{
    zinf_zero_wait_for_update(zero, operation->block);
    wait_for_compute(zero, operation, ZINF_STREAM_COPY_OUT);
    wait_for_compute(zero, operation, ZINF_STREAM_COPY_IN);
    if (direct(zero))
        wait_for_compute(zero, operation, ZINF_STREAM_COMMUNICATION);
    gather_whole(zero, operation->block);
}

/* Its own part is complete on the host's word: AGREE has had its sum of squares. */
static void gather_gradient(struct zinf_zero *zero, const struct zinf_plan_operation *operation)
{
    char *accumulator = zero->blocks[operation->block].accumulator;
    size_t bytes = (size_t)zinf_zero_shard_count(zero, operation->block) *
                   zinf_dtype_bytes(zero->options.accumulation_dtype);
    size_t own = (size_t)zero->rank * bytes;
    if (zero->ranks == 1)
        return;
    if (direct(zero)) {
        zinf_zero_all_gather(zero, accumulator, bytes);
        return;
    }
    char *buffer = gather_buffer(zero);
    copy_out(zero, buffer + own, accumulator + own, bytes);
    zinf_zero_all_gather(zero, buffer, bytes);
    copy_in(zero, accumulator, (size_t)zero->ranks * bytes);
}

/* The gradient in the wire's type, from the device through the exchange: parts on the host. That it
 * has come down says too that `receive`, copied to the device before it in the same stream, is
 * free.
 */
static char *bring_parts(struct zinf_zero *zero, const struct zinf_plan_operation *operation,
                         const void *parts)
{
    const struct zinf_zero_options *o = &zero->options;
    struct zinf_staging *staging = &zero->staging;
    struct zinf_comm_request request = {0};
    size_t bytes =
        (size_t)zinf_zero_shard_count(zero, operation->block) * zinf_dtype_bytes(o->wire_dtype);
    record(zero, ZINF_EVENT_PREPARED, ZINF_STREAM_COMMUNICATION);
    wait(zero, ZINF_STREAM_COPY_OUT, ZINF_EVENT_PREPARED);
    copy_out(zero, staging->send, parts, (size_t)zero->ranks * bytes);
    if (zero->ranks == 1)
        return staging->send;
    o->comm->ops->exchange(o->comm, staging->send, staging->receive, bytes, &request);
    zinf_lanes_complete(zero->lanes, &request);
    return staging->receive;
}

/* The same parts from all ranks, on the device. */
static const void *exchange_directly(struct zinf_zero *zero,
                                     const struct zinf_plan_operation *operation, const void *parts)
{
    struct zinf_comm *link = zero->options.link;
    struct zinf_comm_request request = {0};
    size_t bytes = (size_t)zinf_zero_shard_count(zero, operation->block) *
                   zinf_dtype_bytes(zero->options.wire_dtype);
    link->ops->exchange(link, parts, zero->receive, bytes, &request);
    zinf_lanes_complete(zero->lanes, &request);
    return zero->receive;
}

/* The sum of squares of a reduced gradient, for AGREE. */
static void square_sum(struct zinf_zero *zero, int block, const struct zinf_scan *all,
                       const void *gradient)
{
    struct zinf_device *device = zero->options.device;
    device->backend->square_sum(device, all, gradient, &zero->staging.sums[block]);
}

/* The parts that ranks have exchanged directly are summed on the device also where the host needs
 * the sum: a shard comes down, not one of each rank; with accumulation it goes up before, and it is
 * down for that once the last that went down is. */
static void reduce_and_bring(struct zinf_zero *zero, const struct zinf_plan_operation *operation,
                             const struct zinf_reduce *sum, const void *parts, int64_t index)
{
    struct zinf_staging *staging = &zero->staging;
    struct zinf_block_state *state = &zero->blocks[operation->block];
    const struct zinf_scan all = {sum->to_dtype, sum->count};
    size_t bytes = (size_t)sum->count * zinf_dtype_bytes(sum->to_dtype);
    if (staging->brought >= 0)
        wait(zero, ZINF_STREAM_COMMUNICATION, staging->brought);
    if (!sum->first)
        copy(zero, ZINF_STREAM_COMMUNICATION, staging->sum, state->gradient, bytes);
    zero->options.ops->reduce(sum, parts, staging->sum);
    if (operation->last)
        square_sum(zero, operation->block, &all, staging->sum);
    record(zero, ZINF_EVENT_PREPARED, ZINF_STREAM_COMMUNICATION);
    wait(zero, ZINF_STREAM_COPY_OUT, ZINF_EVENT_PREPARED);
    copy(zero, ZINF_STREAM_COPY_OUT, state->gradient, staging->sum, bytes);
    if (operation->last)
        copy(zero, ZINF_STREAM_COPY_OUT, &staging->landed[operation->block],
             &staging->sums[operation->block], sizeof *staging->sums);
    staging->brought = brought_event(index);
    record(zero, staging->brought, ZINF_STREAM_COPY_OUT);
}

/* Sum the parts where the update will read the sum. */
static void reduce(struct zinf_zero *zero, const struct zinf_plan_operation *operation,
                   int64_t index)
{
    const struct zinf_zero_options *o = &zero->options;
    struct zinf_block_state *state = &zero->blocks[operation->block];
    const struct zinf_reduce sum = zinf_zero_sum_of(zero, operation);
    const struct zinf_scan all = {o->accumulation_dtype, sum.count};
    bool on_device = sums_on_device(zero, operation->block);
    const struct zinf_ops *ops = on_device ? o->ops : zinf_cpu_ops();
    char *to = on_device ? state->accumulator : state->gradient;
    wait_for_compute(zero, operation, ZINF_STREAM_COMMUNICATION);
    const void *parts = zinf_zero_prepare(zero, operation);
    if (direct(zero))
        parts = exchange_directly(zero, operation, parts);
    if (direct(zero) && !on_device) {
        reduce_and_bring(zero, operation, &sum, parts, index);
        return;
    }
    if ((zero->ranks > 1 && !direct(zero)) || !on_device)
        parts = bring_parts(zero, operation, parts);
    if (zero->ranks > 1 && !direct(zero) && on_device) {
        size_t bytes = (size_t)(sum.count * sum.ranks) * zinf_dtype_bytes(o->wire_dtype);
        copy(zero, ZINF_STREAM_COMMUNICATION, zero->receive, parts, bytes);
        parts = zero->receive;
    }
    if (on_device && !o->sharding.gradients)
        to += (size_t)(zero->rank * sum.count) * zinf_dtype_bytes(o->accumulation_dtype);
    if (parts != to)
        ops->reduce(&sum, parts, to);
    if (operation->last && on_device)
        square_sum(zero, operation->block, &all, to);
    else if (operation->last)
        state->square_sum = ops->square_sum(&all, to);
}

void zinf_staged_carry_out(struct zinf_zero *zero, const struct zinf_plan_operation *operation,
                           int64_t index)
{
    enum zinf_stream ends_in = direct(zero) ? ZINF_STREAM_COMMUNICATION : ZINF_STREAM_COPY_IN;
    zero->options.device->backend->use(zero->options.device, ZINF_STREAM_COMMUNICATION);
    if (operation->kind == ZINF_PLAN_GATHER_WINDOW) {
        gather_window(zero, operation);
    } else if (operation->kind == ZINF_PLAN_GATHER_WEIGHTS) {
        gather_weights(zero, operation);
    } else if (operation->kind == ZINF_PLAN_GATHER_GRADIENT) {
        gather_gradient(zero, operation);
    } else {
        reduce(zero, operation, index);
        ends_in = ZINF_STREAM_COMMUNICATION;
    }
    record(zero, comm_event(zero, index), ends_in);
}

bool zinf_staged_ended(struct zinf_zero *zero, const struct zinf_plan_operation *operation,
                       int64_t index)
{
    bool brought = is_brought(zero, operation);
    if (!is_reached(zero, brought ? brought_event(index) : comm_event(zero, index)))
        return false;
    if (brought && operation->last)
        zero->blocks[operation->block].square_sum = zero->staging.landed[operation->block];
    return true;
}

void zinf_staged_settle(struct zinf_zero *zero)
{
    struct zinf_staging *staging = &zero->staging;
    int count = zero->options.model->block_count;
    bool any = sums_on_device(zero, 0);
    if (any) {
        copy(zero, ZINF_STREAM_COMMUNICATION, staging->landed, staging->sums,
             (size_t)count * sizeof *staging->sums);
        record(zero, ZINF_EVENT_SUMS, ZINF_STREAM_COMMUNICATION);
        wait_here(zero, ZINF_EVENT_SUMS);
    }
    zinf_lanes_settle(zero->lanes);
    for (int i = 0; i < count; i++)
        if (sums_on_device(zero, i))
            zero->blocks[i].square_sum = staging->landed[i];
}

/* ---- between steps ---- */

void zinf_staged_mirrors_changed(struct zinf_zero *zero)
{
    for (int i = 0; i < zero->options.model->block_count; i++) {
        struct zinf_block_state *state = &zero->blocks[i];
        state->behind = state->mirror && state->weights != state->mirror;
    }
}

static void publish_block(void *zero, int64_t index)
{
    struct zinf_device *device = ((struct zinf_zero *)zero)->options.device;
    device->backend->use(device, ZINF_STREAM_COMMUNICATION);
    gather_whole(zero, (int)index);
}

void zinf_staged_publish(struct zinf_zero *zero)
{
    const struct zinf_plan *plan = zero->plan;
    zinf_staged_drain(zero);
    zero->plan = NULL;
    zinf_lanes_begin(zero->lanes, zero->options.model->block_count, publish_block, zero);
    zinf_lanes_end(zero->lanes);
    zero->plan = plan;
    zinf_staged_drain(zero);
}
