/*
 * The communication lane: what the mover thread does for each operation of the plan.
 *
 * A gather is one all-gather of equal shards into a window. A reduction exchanges parts
 * (all-to-all) and adds them in fp32 in the order of ranks with our own code: MPI has no bf16, and
 * a library's order of summation may change with placement, which would change results.
 */
#include "zero/zero.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/trace.h"
#include "zero/staged.h"

static void finish(struct zinf_zero *zero, struct zinf_comm_request *request)
{
    zinf_lanes_complete(zero->lanes, request);
}

struct zinf_comm *zinf_zero_data_path(const struct zinf_zero *zero)
{
    return zero->options.direct ? zero->options.link : zero->options.comm;
}

void zinf_zero_all_gather(struct zinf_zero *zero, void *buffer, size_t shard_bytes)
{
    struct zinf_comm_request request = {0};
    struct zinf_comm *comm = zinf_zero_data_path(zero);
    comm->ops->all_gather(comm, buffer, shard_bytes, &request);
    finish(zero, &request);
}

void zinf_zero_wait_for_update(struct zinf_zero *zero, int block)
{
    if (!zero->updates)
        return;
    zinf_lanes_delayed_by(zero->lanes,
                          zero->update_length > 0 ? ZINF_DELAY_DRIVE : ZINF_DELAY_UPDATE);
    zinf_updates_wait(zero->updates, block);
    zinf_lanes_delayed_by(zero->lanes, ZINF_DELAY_NONE);
}

/* The last step's gradient is still read where the weights were made ahead of the update. */
static void wait_for_rest(struct zinf_zero *zero, int block)
{
    zinf_lanes_delayed_by(zero->lanes, ZINF_DELAY_UPDATE);
    zinf_updates_wait_for_rest(zero->updates, block);
    zinf_lanes_delayed_by(zero->lanes, ZINF_DELAY_NONE);
}

static void gather_window(struct zinf_zero *zero, const struct zinf_plan_operation *operation)
{
    size_t bytes = (size_t)zinf_zero_shard_count(zero, operation->block) *
                   zinf_dtype_bytes(zero->options.dtype);
    char *window = zero->windows[operation->window];
    zinf_zero_wait_for_update(zero, operation->block);
    if (zero->blocks[operation->block].weights) {
        memcpy(window + (size_t)zero->rank * bytes, zero->blocks[operation->block].weights, bytes);
    } else {
        zinf_lanes_delayed_by(zero->lanes, ZINF_DELAY_DRIVE);
        zinf_zero_fetch_shard(zero, operation->block, window + (size_t)zero->rank * bytes);
        zinf_lanes_delayed_by(zero->lanes, ZINF_DELAY_NONE);
    }
    zinf_zero_all_gather(zero, window, bytes);
}

/* The gradient as it stands before the exchange, in the wire's type; in fp16 divided by the world
 * now, so that no sum overflows. */
void *zinf_zero_prepare(struct zinf_zero *zero, const struct zinf_plan_operation *operation)
{
    const struct zinf_zero_options *o = &zero->options;
    int64_t padded = zinf_plan_padded_count(zero->plan, operation->block);
    int64_t count = o->model->blocks[operation->block].element_count;
    void *source = zero->blocks[operation->block].accumulator;
    enum zinf_dtype dtype = o->accumulation_dtype;
    if (operation->gradient >= 0) {
        size_t element = zinf_dtype_bytes(o->dtype);
        source = zero->gradients[operation->gradient];
        dtype = o->dtype;
        if (padded > count)
            zinf_ops_zero(o->ops, o->dtype, (char *)source + (size_t)count * element,
                          padded - count);
    }
    if (dtype != o->wire_dtype) {
        const struct zinf_cast cast = {dtype, o->wire_dtype, padded};
        o->ops->cast(&cast, source, zero->send);
        source = zero->send;
    }
    const struct zinf_scale mean = {o->wire_dtype, padded, 1.0f / (float)zero->ranks};
    if (o->wire_dtype == ZINF_FP16 && zero->ranks > 1)
        o->ops->scale(&mean, source);
    return source;
}

struct zinf_reduce zinf_zero_sum_of(const struct zinf_zero *zero,
                                    const struct zinf_plan_operation *operation)
{
    const struct zinf_zero_options *o = &zero->options;
    return (struct zinf_reduce){.from_dtype = o->wire_dtype,
                                .to_dtype = o->accumulation_dtype,
                                .ranks = zero->ranks,
                                .count = zinf_zero_shard_count(zero, operation->block),
                                .scale =
                                    o->wire_dtype == ZINF_FP16 ? 1.0f : 1.0f / (float)zero->ranks,
                                .first = !o->sharding.gradients || operation->first};
}

static void reduce(struct zinf_zero *zero, const struct zinf_plan_operation *operation)
{
    const struct zinf_zero_options *o = &zero->options;
    struct zinf_block_state *state = &zero->blocks[operation->block];
    const struct zinf_reduce sum = zinf_zero_sum_of(zero, operation);
    const struct zinf_scan all = {o->accumulation_dtype, sum.count};
    void *parts = zinf_zero_prepare(zero, operation);
    char *to = state->accumulator;
    if (zero->ranks > 1) {
        struct zinf_comm_request request = {0};
        o->comm->ops->exchange(o->comm, parts, zero->receive,
                               (size_t)sum.count * zinf_dtype_bytes(o->wire_dtype), &request);
        finish(zero, &request);
        parts = zero->receive;
    }
    if (!o->sharding.gradients)
        to += (size_t)(zero->rank * sum.count) * zinf_dtype_bytes(o->accumulation_dtype);
    if (parts != to)
        o->ops->reduce(&sum, parts, to);
    if (operation->last)
        state->square_sum = o->ops->square_sum(&all, to);
}

static void agree(struct zinf_zero *zero)
{
    double sum = 0;
    if (zinf_staged(zero) && zero->plan->options.training)
        zinf_staged_settle(zero);
    for (int i = 0; i < zero->options.model->block_count; i++)
        sum += zero->blocks[i].square_sum;
    zero->agree[0] = sum;
    zinf_comm_gather_small(zero->options.comm, zero->agree, sizeof zero->agree, zero->agree_all);
}

/* Where the host addresses device memory: windows and accumulators are what travels. */
static void carry_out_in_place(struct zinf_zero *zero, const struct zinf_plan_operation *operation)
{
    struct zinf_block_state *state = &zero->blocks[operation->block];
    size_t shard = (size_t)zinf_zero_shard_count(zero, operation->block);
    if (operation->kind == ZINF_PLAN_REDUCE) {
        reduce(zero, operation);
    } else if (operation->kind == ZINF_PLAN_GATHER_WINDOW) {
        gather_window(zero, operation);
    } else if (operation->kind == ZINF_PLAN_GATHER_WEIGHTS) {
        zinf_zero_wait_for_update(zero, operation->block);
        zinf_zero_all_gather(zero, state->weights, shard * zinf_dtype_bytes(zero->options.dtype));
    } else {
        zinf_zero_all_gather(zero, state->accumulator,
                             shard * zinf_dtype_bytes(zero->options.accumulation_dtype));
    }
}

/* Behind an operation that is complete: the host has what it needs of a gradient. */
static void hand_on(struct zinf_zero *zero, const struct zinf_plan_operation *operation)
{
    if (operation->kind == ZINF_PLAN_REDUCE && operation->last && zero->updates)
        zinf_updates_reduced(zero->updates, operation->block);
}

/* Of an operation that stands in streams. In the trace it lasts from when it is the oldest there.
 */
static bool ended(void *context, int64_t index)
{
    struct zinf_zero *zero = context;
    struct zinf_staging *staging = &zero->staging;
    const struct zinf_plan_operation *operation = &zero->plan->operations[ZINF_LANE_COMM][index];
    if (!zinf_staged_ended(zero, operation, index))
        return false;
    hand_on(zero, operation);
    double begin_s = fmax(staging->begun_s[index % ZINF_LANES_UNDER_WAY], staging->over_s);
    staging->over_s = zinf_clock_s();
    zinf_plan_trace_event(zero->plan, ZINF_LANE_COMM, index, begin_s, staging->over_s);
    return true;
}

static void carry_out(void *context, int64_t index)
{
    struct zinf_zero *zero = context;
    const struct zinf_plan_operation *operation = &zero->plan->operations[ZINF_LANE_COMM][index];
    bool staged = zinf_staged(zero);
    zinf_lanes_wait(zero->lanes, ZINF_LANE_COMPUTE, operation->wait_other);
    double begin_s = zinf_plan_trace_begin(zero->plan, ZINF_LANE_COMM, index);
    switch (operation->kind) {
    case ZINF_PLAN_GATHER_WINDOW:
    case ZINF_PLAN_GATHER_WEIGHTS:
    case ZINF_PLAN_GATHER_GRADIENT:
    case ZINF_PLAN_REDUCE:
        if (operation->kind == ZINF_PLAN_REDUCE && zero->updates)
            wait_for_rest(zero, operation->block);
        if (staged)
            zinf_staged_carry_out(zero, operation, index);
        else
            carry_out_in_place(zero, operation);
        if (zinf_staged_runs_ahead(zero)) {
            zero->staging.begun_s[index % ZINF_LANES_UNDER_WAY] = begin_s;
            zinf_lanes_follow(zero->lanes, ended);
            zinf_trace_pop();
            return;
        }
        hand_on(zero, operation);
        break;
    case ZINF_PLAN_AGREE:
        agree(zero);
        break;
    case ZINF_PLAN_REPORT:
        zinf_comm_gather_small(zero->options.comm, zero->report, sizeof zero->report,
                               zero->report_all);
        break;
    default:
        ZINF_ASSERT(!"an operation of the compute lane in the communication lane");
    }
    zinf_plan_trace_end(zero->plan, ZINF_LANE_COMM, index, begin_s);
}

static void describe(void *context, enum zinf_lane lane, int64_t index, char *out, size_t out_bytes)
{
    const struct zinf_zero *zero = context;
    if (!zero->plan) /* zinf_staged_publish(): its operations are the blocks */
        snprintf(out, out_bytes, lane == ZINF_LANE_COMM ? "all-gather of all new weights" : "");
    else if (lane != ZINF_LANE_UPDATE)
        zinf_plan_describe(zero->plan, lane, index, out, out_bytes);
    else if (zero->updates)
        zinf_updates_describe(zero->updates, out, out_bytes);
}

int zinf_zero_start(struct zinf_zero *zero, const struct zinf_pool *host, struct zinf_error *error)
{
    int status = zinf_zero_open_records(zero, host, error);
    if (!status)
        status = zinf_lanes_new(&zero->lanes, zinf_zero_data_path(zero), zero->options.watchdog_s,
                                describe, zero);
    if (!status && zero->record_count > 0)
        status = zinf_updates_new(&zero->updates, zero);
    return status;
}

void zinf_zero_begin(struct zinf_zero *zero, const struct zinf_plan *plan,
                     const struct zinf_update *update, double square_limit)
{
    zero->plan = plan;
    zero->updating = update && zero->updates;
    if (zero->stale && !plan->options.training) {
        zinf_zero_drain(zero);
        zinf_zero_publish(zero);
    }
    zero->stale = false; /* the plan of a training step gathers them itself */
    if (zero->updating)
        zinf_updates_begin(zero->updates, plan->options.early_updates ? update : NULL,
                           square_limit);
    for (int i = 0; i < zero->options.model->block_count; i++)
        zero->blocks[i].square_sum = 0;
    zinf_zero_begin_fetches(zero, plan);
    zinf_staged_begin(zero);
    zinf_lanes_begin(zero->lanes, plan->count[ZINF_LANE_COMM], carry_out, zero);
}

double zinf_zero_wait(struct zinf_zero *zero, int64_t index)
{
    double waited_s = zinf_lanes_wait(zero->lanes, ZINF_LANE_COMM,
                                      zero->plan->operations[ZINF_LANE_COMPUTE][index].wait_other);
    zinf_staged_pass(zero, index);
    return waited_s;
}

void zinf_zero_done(struct zinf_zero *zero)
{
    zinf_staged_done(zero);
    zinf_lanes_done(zero->lanes, ZINF_LANE_COMPUTE);
}

double zinf_zero_end(struct zinf_zero *zero)
{
    double waited_s = zinf_lanes_end(zero->lanes);
    zinf_staged_end(zero);
    return waited_s;
}

double zinf_zero_hand_over(struct zinf_zero *zero, const struct zinf_update *update)
{
    if (!zero->updating)
        return 0;
    zero->stale = update && zero->options.sharding.optimizer && !zero->options.sharding.parameters;
    return zinf_updates_decide(zero->updates, update);
}

double zinf_zero_drain(struct zinf_zero *zero)
{
    return zero->updates ? zinf_updates_drain(zero->updates) : 0;
}

void zinf_zero_update_bytes(const struct zinf_zero *zero, bool before, int64_t *read_bytes,
                            int64_t *write_bytes)
{
    *read_bytes = *write_bytes = 0;
    if (zero->updates)
        zinf_updates_bytes(zero->updates, before, read_bytes, write_bytes);
}
