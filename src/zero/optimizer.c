/*
 * The update of the owned part of a block, and the way of new weights to whoever reads them.
 */
#include "zero/zero.h"

#include <stdlib.h>
#include <string.h>

#include "zero/staged.h"

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
    const struct zinf_accumulate add = {o->dtype, o->accumulation_dtype,
                                        o->model->blocks[operation->block].element_count,
                                        operation->first};
    o->ops->accumulate(&add, zero->gradients[operation->gradient],
                       zero->blocks[operation->block].accumulator);
}

/* Operations where the states are. */
static const struct zinf_ops *update_ops(const struct zinf_zero *zero, int block)
{
    bool on_host = zinf_staged(zero) && zinf_zero_optimizer_tier(zero, block) != ZINF_TIER_DEVICE;
    return on_host ? zinf_cpu_ops() : zero->options.ops;
}

static float *advance(float *values, int64_t elements)
{
    return values ? values + elements : NULL;
}

/* Where a part of a record is: resident, in the ring's buffer, or NULL: in the block's own memory.
 */
static void *part_of(const struct zinf_zero *zero, int record, int part, char *buffer)
{
    if (!zinf_zero_streams(&zero->options, part))
        return NULL;
    return zero->records[record].resident[part]
               ? zero->records[record].memory[part]
               : buffer + zero->update_ring.options.part_offset[part];
}

/* A run of the owned part of a block of which nothing is on NVMe, or for which part_of() is asked
 * next. */
static struct zinf_stretch stretch_in_memory(const struct zinf_zero *zero, int block, int64_t begin,
                                             int64_t count)
{
    const struct zinf_zero_options *o = &zero->options;
    const struct zinf_block_state *state = &zero->blocks[block];
    struct zinf_stretch s = {
        .begin = begin, .count = count, .master = advance(state->master, begin)};
    for (int m = 0; m < 2; m++)
        s.moment[m] = advance(state->moment[m], begin);
    if (state->low)
        s.low = (char *)state->low + (size_t)begin * zinf_dtype_bytes(o->dtype);
    return s;
}

/* buffer: of the update ring, if anything of the record passes through it. */
static struct zinf_stretch stretch_of_record(const struct zinf_zero *zero, int number, char *buffer)
{
    const struct zinf_record *record = &zero->records[number];
    struct zinf_stretch s = stretch_in_memory(zero, record->block, record->begin, record->count);
    void *master = part_of(zero, number, ZINF_PART_MASTER, buffer);
    void *low = part_of(zero, number, ZINF_PART_LOW, buffer);
    s.master = master ? master : s.master;
    s.low = low ? low : s.low;
    for (int m = 0; m < 2; m++) {
        void *moment = part_of(zero, number, ZINF_PART_MOMENT1 + m, buffer);
        s.moment[m] = moment ? moment : s.moment[m];
    }
    return s;
}

static void update_run(struct zinf_zero *zero, int block, const struct zinf_stretch *s,
                       const struct zinf_update_run *run, const struct zinf_update *update)
{
    const struct zinf_zero_options *o = &zero->options;
    struct zinf_range part =
        zinf_range_intersect((struct zinf_range){s->begin, s->begin + s->count},
                             (struct zinf_range){run->begin, run->begin + run->count});
    int64_t at = part.begin - s->begin;
    if (part.begin == part.end)
        return;
    struct zinf_update_op op = {
        .options = *update,
        .count = part.end - part.begin,
        .weights = s->master + at,
        .state = {advance(s->moment[0], at), advance(s->moment[1], at)},
        .gradient = (const char *)zero->blocks[block].gradient +
                    (size_t)part.begin * zinf_dtype_bytes(o->accumulation_dtype),
        .gradient_dtype = o->accumulation_dtype,
        .low_dtype = o->dtype,
        .low = s->low ? (char *)s->low + (size_t)at * zinf_dtype_bytes(o->dtype) : NULL,
        .low_only = s->low_only};
    if (!run->decay)
        op.options.weight_decay = 0;
    if (zinf_staged_crosses(zero, block))
        zinf_staged_update(zero, &op);
    else
        update_ops(zero, block)->update(&op);
}

static void update_runs(struct zinf_zero *zero, int block, const struct zinf_stretch *s,
                        const struct zinf_update *update)
{
    const struct zinf_block_state *state = &zero->blocks[block];
    for (int i = 0; i < state->run_count; i++)
        update_run(zero, block, s, &state->runs[i], update);
}

static void update_stretch(struct zinf_zero *zero, int block, const struct zinf_stretch *s,
                           const struct zinf_update *update)
{
    struct zinf_block_state *state = &zero->blocks[block];
    update_runs(zero, block, s, update);
    state->behind = state->mirror && state->mirror != state->weights;
}

void zinf_zero_update(struct zinf_zero *zero, int block, const struct zinf_update *update)
{
    struct zinf_range owned = zinf_zero_owned(zero, block);
    struct zinf_stretch s = stretch_in_memory(zero, block, 0, owned.end - owned.begin);
    update_stretch(zero, block, &s, update);
}

/* Of a record's weights those that stand in memory, with the dead gradient that may keep their old
 * values: an element of it is as wide as a weight at least. */
struct kept {
    char *weights, *gradient;            /* of the record's first element */
    size_t weight_bytes, gradient_bytes; /* of an element */
};

static struct kept kept_of(const struct zinf_zero *zero, int number, const struct zinf_stretch *s)
{
    const struct zinf_zero_options *o = &zero->options;
    const struct zinf_record *record = &zero->records[number];
    int part = o->dtype == ZINF_FP32 ? ZINF_PART_MASTER : ZINF_PART_LOW;
    struct kept kept = {.weight_bytes = zinf_dtype_bytes(o->dtype),
                        .gradient_bytes = zinf_dtype_bytes(o->accumulation_dtype)};
    if (zero->update_items[number].extent[part] < 0)
        kept.weights = part == ZINF_PART_MASTER ? (char *)s->master : s->low;
    kept.gradient =
        (char *)zero->blocks[record->block].gradient + (size_t)record->begin * kept.gradient_bytes;
    ZINF_ASSERT(!kept.weights || kept.gradient_bytes >= kept.weight_bytes);
    return kept;
}

/* `at` counts from the begin of the stretch. */
static struct zinf_stretch cut_of(const struct zinf_zero *zero, const struct zinf_stretch *s,
                                  int64_t at, int64_t count)
{
    struct zinf_stretch cut = {
        .begin = s->begin + at, .count = count, .master = advance(s->master, at)};
    for (int m = 0; m < 2; m++)
        cut.moment[m] = advance(s->moment[m], at);
    if (s->low)
        cut.low = (char *)s->low + (size_t)at * zinf_dtype_bytes(zero->options.dtype);
    return cut;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

void zinf_zero_update_record(struct zinf_zero *zero, int number, char *buffer,
                             const struct zinf_update *update, bool keep)
{
    int block = zero->records[number].block;
    struct zinf_stretch s = stretch_of_record(zero, number, buffer);
    struct kept kept = {0};
    if (keep)
        kept = kept_of(zero, number, &s);
    if (!kept.weights) {
        update_stretch(zero, block, &s, update);
        return;
    }
    for (int64_t at = 0; at < s.count; at += ZINF_UNDO_ELEMENTS) {
        struct zinf_stretch cut = cut_of(zero, &s, at, smaller(ZINF_UNDO_ELEMENTS, s.count - at));
        size_t bytes = (size_t)cut.count * kept.weight_bytes;
        memcpy(zero->old_weights, kept.weights + (size_t)at * kept.weight_bytes, bytes);
        update_stretch(zero, block, &cut, update);
        memcpy(kept.gradient + (size_t)at * kept.gradient_bytes, zero->old_weights, bytes);
    }
}

void zinf_zero_update_ahead(struct zinf_zero *zero, int number, const struct zinf_update *update)
{
    struct zinf_stretch s = stretch_of_record(zero, number, NULL);
    ZINF_ASSERT(s.low && s.low != s.master);
    s.low_only = true;
    update_stretch(zero, zero->records[number].block, &s, update);
}

/* Who reads the weights meanwhile, and clears `behind`, is not disturbed. */
void zinf_zero_update_rest(struct zinf_zero *zero, int number, const struct zinf_update *update)
{
    struct zinf_stretch s = stretch_of_record(zero, number, NULL);
    s.low = NULL;
    update_runs(zero, zero->records[number].block, &s, update);
}

void zinf_zero_restore_output(struct zinf_zero *zero, int number)
{
    const struct zinf_stretch s = stretch_of_record(zero, number, NULL);
    const struct zinf_cast cast = {ZINF_FP32, zero->options.dtype, s.count};
    update_ops(zero, zero->records[number].block)->cast(&cast, s.master, s.low);
}

void zinf_zero_undo_record(struct zinf_zero *zero, int number)
{
    /* What would stand in the buffer is not looked at. */
    struct zinf_stretch s = stretch_of_record(zero, number, zero->update_ring.options.memory);
    struct kept kept = kept_of(zero, number, &s);
    for (int64_t at = 0; kept.weights && at < s.count; at += ZINF_UNDO_ELEMENTS)
        memcpy(kept.weights + (size_t)at * kept.weight_bytes,
               kept.gradient + (size_t)at * kept.gradient_bytes,
               (size_t)smaller(ZINF_UNDO_ELEMENTS, s.count - at) * kept.weight_bytes);
}

static int visit_stretch(struct zinf_zero *zero, int block, const struct zinf_stretch *s,
                         bool write, zinf_part_fn visit, void *context)
{
    const struct zinf_zero_options *o = &zero->options;
    int64_t begin = zinf_zero_owned(zero, block).begin + s->begin;
    if (zinf_staged(zero) && zinf_zero_optimizer_tier(zero, block) == ZINF_TIER_DEVICE)
        return zinf_staged_visit(zero, block, s,
                                 &(struct zinf_staged_visitor){write, visit, context});
    int status =
        visit(context, block, (struct zinf_range){begin, begin + s->count}, s->master, s->moment);
    const struct zinf_cast cast = {ZINF_FP32, o->dtype, s->count};
    if (write && s->low)
        update_ops(zero, block)->cast(&cast, s->master, s->low);
    return status;
}

/* Everything passes through the update ring in the order of visits. @return items of the ring,
 * owned by the caller */
static struct zinf_ring_item *begin_visits(struct zinf_zero *zero, bool write)
{
    struct zinf_ring_item *list = zinf_alloc((size_t)zero->record_count * sizeof *list);
    for (int r = 0; r < zero->record_count; r++) {
        list[r] = zero->update_items[r];
        for (int part = 0; part < ZINF_RING_PARTS; part++) {
            list[r].read[part] = list[r].read[part] && !write;
            list[r].write[part] = list[r].write[part] && write;
        }
    }
    if (zero->update_length > 0)
        zinf_ring_begin(&zero->update_ring, list, zero->update_sequence, zero->update_length);
    return list;
}

static int visit_record(struct zinf_zero *zero, int record, bool write, zinf_part_fn visit,
                        void *context)
{
    bool passes = zinf_zero_passes(zero, record);
    char *buffer = passes ? zinf_ring_next(&zero->update_ring) : NULL;
    if (write && passes)
        memset(buffer, 0, zero->update_ring.options.buffer_bytes);
    struct zinf_stretch s = stretch_of_record(zero, record, buffer);
    int status = visit_stretch(zero, zero->records[record].block, &s, write, visit, context);
    if (passes)
        zinf_ring_release(&zero->update_ring);
    return status;
}

static int visit_block(struct zinf_zero *zero, int block, bool write, zinf_part_fn visit,
                       void *context)
{
    const struct zinf_block_state *state = &zero->blocks[block];
    struct zinf_range owned = zinf_zero_owned(zero, block);
    int status = ZINF_OK;
    for (int r = 0; r < state->record_count && !status; r++)
        status = visit_record(zero, state->first_record + r, write, visit, context);
    if (state->record_count > 0)
        return status;
    struct zinf_stretch s = stretch_in_memory(zero, block, 0, owned.end - owned.begin);
    return visit_stretch(zero, block, &s, write, visit, context);
}

int zinf_zero_visit(struct zinf_zero *zero, bool write, zinf_part_fn visit, void *context)
{
    zinf_zero_drain(zero);
    zinf_staged_drain(zero);
    struct zinf_ring_item *list = begin_visits(zero, write);
    int status = ZINF_OK;
    for (int b = 0; b < zero->options.model->block_count && !status; b++)
        status = visit_block(zero, b, write, visit, context);
    if (zero->update_length > 0)
        zinf_ring_drain(&zero->update_ring);
    free(list);
    if (write)
        zinf_staged_mirrors_changed(zero);
    return status;
}

void zinf_zero_publish(struct zinf_zero *zero)
{
    const struct zinf_zero_options *o = &zero->options;
    if (!o->sharding.optimizer || o->sharding.parameters)
        return;
    if (zinf_staged(zero)) {
        zinf_staged_publish(zero);
        return;
    }
    for (int i = 0; i < o->model->block_count; i++) {
        struct zinf_range owned = zinf_zero_owned(zero, i);
        struct zinf_comm_request request = {0};
        o->comm->ops->all_gather(o->comm, zero->blocks[i].weights,
                                 (size_t)(owned.end - owned.begin) * zinf_dtype_bytes(o->dtype),
                                 &request);
        while (!o->comm->ops->test(o->comm, &request))
            ;
    }
}
