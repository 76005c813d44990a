/*
 * Building the plan of a step. See plan.h for how it works and why the order is safe.
 */
#include "zero/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/partition.h"
#include "base/trace.h"

enum { GRADIENT_WINDOWS = 2, MAX_WINDOWS = 8 };

/* A communication before the lane is ordered: ready = compute operations that must be finished
 * before it may start. */
struct pending {
    struct zinf_plan_operation operation;
    int64_t ready;
    int64_t user; /* compute operation that waits for it, -1 = none */
    int64_t order;
};

struct builder {
    struct zinf_plan *plan;
    struct pending *pending;
    int64_t pending_count;
    int64_t capacity[ZINF_LANE_COUNT], pending_capacity;
    bool *touched; /* (blocks) has a gradient of this step been added already? */
    int gradient_next;
    int64_t *gradient_busy; /* (gradient windows) number of the REDUCE in `pending` that empties it,
                               -1 = none */
};

struct zinf_sharding zinf_sharding_of_stage(int stage)
{
    ZINF_ASSERT(stage >= 0 && stage <= 3);
    return (struct zinf_sharding){stage >= 1, stage >= 2, stage >= 3};
}

int64_t zinf_plan_padded_count(const struct zinf_plan *plan, int block)
{
    return plan->options.ranks *
           zinf_partition_shard_count(plan->options.model->blocks[block].element_count,
                                      plan->options.ranks);
}

static bool needs_weights(enum zinf_plan_kind kind)
{
    return kind == ZINF_PLAN_EMBEDDING_FORWARD || kind == ZINF_PLAN_LAYER_FORWARD ||
           kind == ZINF_PLAN_NORM_FORWARD || kind == ZINF_PLAN_HEAD_FORWARD ||
           kind == ZINF_PLAN_HEAD_BACKWARD || kind == ZINF_PLAN_NORM_BACKWARD ||
           kind == ZINF_PLAN_LAYER_BACKWARD;
}

/* Append an operation to the compute lane; returns its number. */
static int64_t compute(struct builder *b, enum zinf_plan_kind kind, int block, int micro)
{
    struct zinf_plan *plan = b->plan;
    int64_t index = plan->count[ZINF_LANE_COMPUTE]++;
    if (index == b->capacity[ZINF_LANE_COMPUTE]) {
        b->capacity[ZINF_LANE_COMPUTE] = 2 * index + 64;
        plan->operations[ZINF_LANE_COMPUTE] =
            zinf_realloc(plan->operations[ZINF_LANE_COMPUTE],
                         (size_t)b->capacity[ZINF_LANE_COMPUTE] * sizeof *plan->operations[0]);
    }
    plan->operations[ZINF_LANE_COMPUTE][index] = (struct zinf_plan_operation){
        .kind = kind, .block = block, .micro = micro, .window = -1, .gradient = -1};
    return index;
}

static int64_t communicate(struct builder *b, enum zinf_plan_kind kind, int block, int64_t ready)
{
    int64_t index = b->pending_count++;
    if (index == b->pending_capacity) {
        b->pending_capacity = 2 * index + 64;
        b->pending = zinf_realloc(b->pending, (size_t)b->pending_capacity * sizeof *b->pending);
    }
    b->pending[index] = (struct pending){
        .operation = {.kind = kind, .block = block, .micro = -1, .window = -1, .gradient = -1},
        .ready = ready,
        .user = -1,
        .order = index};
    return index;
}

/* The only reduction of a block that is accumulated locally. */
static void reduce_accumulator(struct builder *b, int block, int64_t ready)
{
    int64_t reduce = communicate(b, ZINF_PLAN_REDUCE, block, ready);
    b->pending[reduce].operation.last = true;
}

/* The compute operation `user` may not start before communication `pending` is finished. */
static void wait_for(struct builder *b, int64_t pending, int64_t user)
{
    if (pending >= 0 && (b->pending[pending].user < 0 || user < b->pending[pending].user))
        b->pending[pending].user = user;
}

static struct zinf_plan_operation *at(struct builder *b, int64_t index)
{
    return &b->plan->operations[ZINF_LANE_COMPUTE][index];
}

/* A backward operation of `block`: where its gradient goes and what happens to it there. last_use:
 * no other gradient of this block follows in the same micro-batch (a tied table has two). */
static void backward(struct builder *b, enum zinf_plan_kind kind, int block, int micro,
                     bool last_use)
{
    const struct zinf_plan_options *o = &b->plan->options;
    bool last = last_use && micro == o->micro_count - 1;
    bool first = !b->touched[block];
    b->touched[block] = true;
    int64_t index = compute(b, kind, block, micro);
    at(b, index)->first = first;
    if (!o->sharding.gradients && first && o->accumulation_dtype == o->dtype) {
        if (last)
            reduce_accumulator(b, block, index + 1);
        return;
    }
    int window = b->gradient_next;
    b->gradient_next = (window + 1) % GRADIENT_WINDOWS;
    at(b, index)->gradient = window;
    wait_for(b, b->gradient_busy[window], index);
    b->gradient_busy[window] = -1;
    if (!o->sharding.gradients) {
        int64_t add = compute(b, ZINF_PLAN_ACCUMULATE, block, micro);
        at(b, add)->gradient = window;
        at(b, add)->first = first;
        if (last)
            reduce_accumulator(b, block, add + 1);
        return;
    }
    int64_t reduce = communicate(b, ZINF_PLAN_REDUCE, block, index + 1);
    struct zinf_plan_operation *operation = &b->pending[reduce].operation;
    operation->gradient = window;
    operation->micro = micro;
    operation->first = first;
    operation->last = last;
    b->gradient_busy[window] = reduce;
}

static void forward_pass(struct builder *b, int micro)
{
    const struct zinf_model *model = b->plan->options.model;
    int tables = model->embedding_block_count + model->position_block_count;
    for (int i = 0; i < tables; i++)
        at(b, compute(b, ZINF_PLAN_EMBEDDING_FORWARD, i, micro))->last = i == tables - 1;
    for (int i = 0; i < model->layers; i++)
        compute(b, ZINF_PLAN_LAYER_FORWARD, model->first_layer_block + i, micro);
    compute(b, ZINF_PLAN_NORM_FORWARD, model->final_norm_block, micro);
    for (int i = 0; i < model->head_block_count; i++)
        at(b, compute(b, ZINF_PLAN_HEAD_FORWARD, model->first_head_block + i, micro))->first =
            i == 0;
    compute(b, ZINF_PLAN_LOSS, -1, micro);
}

static void backward_pass(struct builder *b, int micro)
{
    const struct zinf_model *model = b->plan->options.model;
    int tables = model->embedding_block_count + model->position_block_count;
    /* From the last tile on: its weights are still in a window from the forward pass. */
    for (int i = model->head_block_count - 1; i >= 0; i--)
        backward(b, ZINF_PLAN_HEAD_BACKWARD, model->first_head_block + i, micro, !model->tied);
    backward(b, ZINF_PLAN_NORM_BACKWARD, model->final_norm_block, micro, true);
    for (int i = (int)model->layers - 1; i >= 0; i--)
        backward(b, ZINF_PLAN_LAYER_BACKWARD, model->first_layer_block + i, micro, true);
    for (int i = tables - 1; i >= 0; i--)
        backward(b, ZINF_PLAN_EMBEDDING_BACKWARD, i, micro, true);
}

/* The end of a step: agree on the norm, update, make the new weights known. */
static void update_phase(struct builder *b)
{
    const struct zinf_plan_options *o = &b->plan->options;
    int64_t end = b->plan->count[ZINF_LANE_COMPUTE];
    int64_t agree = communicate(b, ZINF_PLAN_AGREE, -1, end);
    wait_for(b, agree, compute(b, ZINF_PLAN_DECIDE, -1, -1));
    if (o->update_lane)
        compute(b, ZINF_PLAN_UPDATE, -1, -1);
    for (int i = 0; i < (o->update_lane ? o->device_blocks : o->model->block_count); i++) {
        int64_t gathered = -1;
        if (!o->sharding.optimizer)
            gathered = communicate(b, ZINF_PLAN_GATHER_GRADIENT, i, end + 1);
        int64_t update = compute(b, ZINF_PLAN_UPDATE, i, -1);
        wait_for(b, gathered, update);
        if (o->sharding.optimizer && !o->sharding.parameters && !o->update_lane)
            communicate(b, ZINF_PLAN_GATHER_WEIGHTS, i, update + 1);
    }
    communicate(b, ZINF_PLAN_REPORT, -1, b->plan->count[ZINF_LANE_COMPUTE]);
}

/* Resident weights that the last step's updates have left sharded: each block's is whole before its
 * first use. */
static void gather_updated(struct builder *b)
{
    bool *seen = zinf_alloc((size_t)b->plan->options.model->block_count * sizeof *seen);
    for (int64_t i = 0; i < b->plan->count[ZINF_LANE_COMPUTE]; i++) {
        int block = at(b, i)->block;
        if (!needs_weights(at(b, i)->kind) || seen[block])
            continue;
        seen[block] = true;
        wait_for(b, communicate(b, ZINF_PLAN_GATHER_WEIGHTS, block, 0), i);
    }
    free(seen);
}

/* The update lane: behind the last reduction of each block, or all behind the agreement, the first
 * needed first. */
static void list_updates(struct zinf_plan *plan)
{
    const struct zinf_plan_options *o = &plan->options;
    const struct zinf_plan_operation *comm = plan->operations[ZINF_LANE_COMM];
    struct zinf_plan_operation update = {
        .kind = ZINF_PLAN_UPDATE, .micro = -1, .window = -1, .gradient = -1};
    int64_t count = 0;
    plan->operations[ZINF_LANE_UPDATE] =
        zinf_alloc((size_t)o->model->block_count * sizeof *plan->operations[0]);
    for (int64_t i = 0; i < plan->count[ZINF_LANE_COMM]; i++) {
        bool all = !o->early_updates && comm[i].kind == ZINF_PLAN_AGREE;
        bool one = o->early_updates && comm[i].kind == ZINF_PLAN_REDUCE && comm[i].last;
        update.wait_other = i + 1;
        for (int block = o->device_blocks; block < o->model->block_count; block++)
            if (all || (one && block == comm[i].block)) {
                update.block = block;
                plan->operations[ZINF_LANE_UPDATE][count++] = update;
            }
    }
    ZINF_ASSERT(count == o->model->block_count - o->device_blocks);
    plan->count[ZINF_LANE_UPDATE] = count;
}

/* What the choice of windows needs to know of the compute lane, worked out once. */
struct uses {
    int64_t *next; /* (operations) the next use of the same block's weights; count = never */
    int64_t
        *elements; /* (operations + 1) sum of the weights that operations before this one read */
};

static void find_uses(const struct zinf_plan *plan, struct uses *uses)
{
    const struct zinf_model *model = plan->options.model;
    int64_t count = plan->count[ZINF_LANE_COMPUTE];
    int64_t *upcoming = zinf_alloc((size_t)model->block_count * sizeof *upcoming);
    uses->next = zinf_alloc((size_t)count * sizeof *uses->next);
    uses->elements = zinf_alloc((size_t)(count + 1) * sizeof *uses->elements);
    for (int i = 0; i < model->block_count; i++)
        upcoming[i] = count;
    for (int64_t i = count - 1; i >= 0; i--) {
        const struct zinf_plan_operation *operation = &plan->operations[ZINF_LANE_COMPUTE][i];
        if (!needs_weights(operation->kind))
            continue;
        uses->next[i] = upcoming[operation->block];
        upcoming[operation->block] = i;
    }
    for (int64_t i = 0; i < count; i++) {
        const struct zinf_plan_operation *operation = &plan->operations[ZINF_LANE_COMPUTE][i];
        int64_t own = 0;
        if (needs_weights(operation->kind))
            own = model->blocks[operation->block].element_count;
        uses->elements[i + 1] = uses->elements[i] + own;
    }
    free(upcoming);
}

struct window {
    int block;        /* content, -1 = empty */
    int64_t last_use; /* compute operation */
};

/* The window to give up: empty, else the content needed farthest in the future, else the longest
 * unused. */
static int victim(const struct zinf_plan *plan, const struct uses *uses,
                  const struct window *windows)
{
    int best = 0;
    int64_t best_next = -1;
    for (int w = 0; w < plan->window_count; w++) {
        if (windows[w].block < 0)
            return w;
        int64_t next = uses->next[windows[w].last_use];
        if (next > best_next ||
            (next == best_next && windows[w].last_use < windows[best].last_use)) {
            best = w;
            best_next = next;
        }
    }
    return best;
}

/* First moment (compute operations finished) at which the prefetch bucket lets the fetch for a use
 * at `index` start. */
static int64_t prefetch_begin(const struct zinf_plan *plan, const struct uses *uses, int64_t index)
{
    int64_t begin = index;
    while (begin > 0 &&
           uses->elements[index] - uses->elements[begin - 1] <= plan->options.prefetch_elements)
        begin--;
    return begin;
}

static void assign_windows(struct builder *b)
{
    struct zinf_plan *plan = b->plan;
    struct window windows[MAX_WINDOWS];
    struct uses uses;
    find_uses(plan, &uses);
    for (int w = 0; w < MAX_WINDOWS; w++)
        windows[w] = (struct window){-1, -1};
    for (int64_t i = 0; i < plan->count[ZINF_LANE_COMPUTE]; i++) {
        struct zinf_plan_operation *operation = at(b, i);
        if (!needs_weights(operation->kind))
            continue;
        int w = 0;
        while (w < plan->window_count && windows[w].block != operation->block)
            w++;
        bool kept =
            w < plan->window_count && uses.elements[i] - uses.elements[windows[w].last_use + 1] <=
                                          plan->options.max_reuse_elements;
        if (!kept) {
            if (w == plan->window_count)
                w = victim(plan, &uses, windows);
            int64_t begin = prefetch_begin(plan, &uses, i);
            int64_t ready = windows[w].last_use + 1 > begin ? windows[w].last_use + 1 : begin;
            int64_t gather = communicate(b, ZINF_PLAN_GATHER_WINDOW, operation->block, ready);
            b->pending[gather].operation.window = w;
            b->pending[gather].operation.micro = operation->micro;
            wait_for(b, gather, i);
        }
        operation->window = w;
        windows[w] = (struct window){operation->block, i};
    }
    free(uses.next);
    free(uses.elements);
}

/* By readiness; a gather that compute will wait for goes before a reduction, then in order of need.
 */
static int by_readiness(const void *left, const void *right)
{
    const struct pending *a = left, *b = right;
    if (a->ready != b->ready)
        return a->ready < b->ready ? -1 : 1;
    bool gather_a = a->operation.kind == ZINF_PLAN_GATHER_WINDOW;
    bool gather_b = b->operation.kind == ZINF_PLAN_GATHER_WINDOW;
    if (gather_a != gather_b)
        return gather_a ? -1 : 1;
    if (gather_a && a->user != b->user)
        return a->user < b->user ? -1 : 1;
    return a->order < b->order ? -1 : a->order > b->order;
}

static void order_communication(struct builder *b)
{
    struct zinf_plan *plan = b->plan;
    qsort(b->pending, (size_t)b->pending_count, sizeof *b->pending, by_readiness);
    plan->operations[ZINF_LANE_COMM] =
        zinf_alloc((size_t)b->pending_count * sizeof *plan->operations[0]);
    plan->count[ZINF_LANE_COMM] = b->pending_count;
    for (int64_t i = 0; i < b->pending_count; i++) {
        plan->operations[ZINF_LANE_COMM][i] = b->pending[i].operation;
        plan->operations[ZINF_LANE_COMM][i].wait_other = b->pending[i].ready;
        if (b->pending[i].ready > 0)
            at(b, b->pending[i].ready - 1)->waited = true;
        int64_t user = b->pending[i].user;
        if (user >= 0 && at(b, user)->wait_other < i + 1)
            at(b, user)->wait_other = i + 1;
    }
}

static int64_t operation_bytes(const struct zinf_plan *plan,
                               const struct zinf_plan_operation *operation)
{
    int64_t ranks = plan->options.ranks, shard = 0;
    if (operation->block >= 0)
        shard = zinf_plan_padded_count(plan, operation->block) / ranks;
    switch (operation->kind) {
    case ZINF_PLAN_GATHER_WINDOW:
    case ZINF_PLAN_GATHER_WEIGHTS:
        return (ranks - 1) * shard * (int64_t)zinf_dtype_bytes(plan->options.dtype);
    case ZINF_PLAN_GATHER_GRADIENT:
        return (ranks - 1) * shard * (int64_t)zinf_dtype_bytes(plan->options.accumulation_dtype);
    case ZINF_PLAN_REDUCE:
        return (ranks - 1) * shard * (int64_t)zinf_dtype_bytes(plan->options.wire_dtype);
    case ZINF_PLAN_AGREE:
        return (ranks - 1) * ZINF_AGREE_COUNT * (int64_t)sizeof(double);
    case ZINF_PLAN_REPORT:
        return (ranks - 1) * ZINF_REPORT_COUNT * (int64_t)sizeof(double);
    default:
        return 0;
    }
}

static uint64_t mix(uint64_t hash, int64_t value)
{
    return (hash ^ (uint64_t)value) * 0x100000001b3u; /* FNV-1a over words */
}

static void sum_up(struct zinf_plan *plan)
{
    uint64_t hash = 0xcbf29ce484222325u;
    plan->comm_bytes = 0;
    for (int lane = 0; lane < ZINF_LANE_COUNT; lane++)
        for (int64_t i = 0; i < plan->count[lane]; i++) {
            const struct zinf_plan_operation *o = &plan->operations[lane][i];
            const int64_t words[] = {o->kind,     o->block, o->micro, o->window,
                                     o->gradient, o->first, o->last,  o->wait_other};
            for (size_t w = 0; w < sizeof words / sizeof *words; w++)
                hash = mix(hash, words[w]);
            plan->comm_bytes += operation_bytes(plan, o);
        }
    plan->checksum = mix(mix(hash, plan->comm_bytes), plan->window_elements);
}

/* Windows: one in use, and as many as the prefetch bucket can fill, within the limit on live
 * parameters. */
static int count_windows(const struct zinf_plan *plan)
{
    const struct zinf_plan_options *o = &plan->options;
    if (!o->sharding.parameters)
        return 0;
    int64_t ahead = (o->prefetch_elements + plan->window_elements - 1) / plan->window_elements;
    int64_t wanted = 1 + ahead, allowed = o->max_live_elements / plan->window_elements;
    if (wanted > allowed)
        wanted = allowed;
    if (wanted > MAX_WINDOWS)
        wanted = MAX_WINDOWS;
    return wanted < 1 ? 1 : (int)wanted;
}

void zinf_plan_build(struct zinf_plan *plan, const struct zinf_plan_options *options)
{
    int64_t busy[GRADIENT_WINDOWS];
    struct builder b = {.plan = plan, .gradient_busy = busy};
    memset(plan, 0, sizeof *plan);
    plan->options = *options;
    plan->options.update_lane = options->update_lane && options->training;
    ZINF_ASSERT(!plan->options.update_lane || options->sharding.optimizer);
    for (int i = 0; i < GRADIENT_WINDOWS; i++)
        busy[i] = -1;
    for (int i = 0; i < options->model->block_count; i++)
        if (zinf_plan_padded_count(plan, i) > plan->window_elements)
            plan->window_elements = zinf_plan_padded_count(plan, i);
    plan->window_count = count_windows(plan);
    plan->gradient_window_count = options->training ? GRADIENT_WINDOWS : 0;
    b.touched = zinf_alloc((size_t)options->model->block_count * sizeof *b.touched);
    for (int micro = 0; micro < options->micro_count; micro++) {
        forward_pass(&b, micro);
        if (micro == 0 && plan->options.update_lane && options->sharding.optimizer &&
            !options->sharding.parameters)
            gather_updated(&b);
        if (options->training)
            backward_pass(&b, micro);
    }
    if (options->training)
        update_phase(&b);
    else
        communicate(&b, ZINF_PLAN_AGREE, -1, plan->count[ZINF_LANE_COMPUTE]);
    if (options->sharding.parameters)
        assign_windows(&b);
    order_communication(&b);
    if (plan->options.update_lane)
        list_updates(plan);
    sum_up(plan);
    free(b.pending);
    free(b.touched);
}

void zinf_plan_release(struct zinf_plan *plan)
{
    for (int lane = 0; lane < ZINF_LANE_COUNT; lane++)
        free(plan->operations[lane]);
    memset(plan, 0, sizeof *plan);
}

void zinf_plan_block_name(const struct zinf_model *model, int block, char *out, size_t out_bytes)
{
    static const char *const kind[] = {"embedding", "positions", "layer", "final norm", "head"};
    const struct zinf_block *b = &model->blocks[block];
    if (b->kind == ZINF_BLOCK_LAYER)
        snprintf(out, out_bytes, "layer %d", b->layer);
    else if (b->kind == ZINF_BLOCK_FINAL_NORM)
        snprintf(out, out_bytes, "%s", kind[b->kind]);
    else
        snprintf(out, out_bytes, "%s rows %lld-%lld", kind[b->kind], (long long)b->first_row,
                 (long long)(b->first_row + b->row_count - 1));
}

void zinf_plan_describe(const struct zinf_plan *plan, enum zinf_lane lane, int64_t index, char *out,
                        size_t out_bytes)
{
    static const char *const verb[] = {"look up",
                                       "forward",
                                       "forward",
                                       "forward",
                                       "loss",
                                       "backward",
                                       "backward",
                                       "backward",
                                       "backward",
                                       "accumulate",
                                       "decide",
                                       "update",
                                       "all-gather",
                                       "all-gather new",
                                       "all-gather gradient of",
                                       "reduce-scatter",
                                       "agree on the norm",
                                       "report"};
    char name[96] = "";
    if (index < 0 || index >= plan->count[lane]) {
        snprintf(out, out_bytes, "end of the plan");
        return;
    }
    const struct zinf_plan_operation *operation = &plan->operations[lane][index];
    if (operation->block >= 0)
        zinf_plan_block_name(plan->options.model, operation->block, name, sizeof name);
    else if (operation->kind == ZINF_PLAN_UPDATE)
        snprintf(name, sizeof name, "all blocks in their lane");
    snprintf(out, out_bytes, "%s%s%s", verb[operation->kind], *name ? " " : "", name);
}

double zinf_plan_trace_begin(const struct zinf_plan *plan, enum zinf_lane lane, int64_t index)
{
    char text[160];
    if (!zinf_trace_on())
        return 0;
    zinf_plan_describe(plan, lane, index, text, sizeof text);
    return zinf_trace_begin(text);
}

void zinf_plan_trace_event(const struct zinf_plan *plan, enum zinf_lane lane, int64_t index,
                           double begin_s, double end_s)
{
    static const enum zinf_trace_lane rows[] = {ZINF_TRACE_COMPUTE, ZINF_TRACE_COMMUNICATION,
                                                ZINF_TRACE_UPDATE};
    char text[160];
    if (!zinf_trace_on())
        return;
    zinf_plan_describe(plan, lane, index, text, sizeof text);
    zinf_trace_event(rows[lane], text, begin_s, end_s);
}

void zinf_plan_trace_end(const struct zinf_plan *plan, enum zinf_lane lane, int64_t index,
                         double begin_s)
{
    zinf_plan_trace_event(plan, lane, index, begin_s, zinf_clock_s());
    zinf_trace_pop();
}
