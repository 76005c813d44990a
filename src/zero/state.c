/*
 * What a rank keeps of each block, and where: the table at the top of zero.h, carried out.
 */
#include "zero/zero.h"

#include <stdlib.h>
#include <string.h>

#include "zero/staged.h"

struct zinf_range zinf_zero_shard(const struct zinf_zero *zero, int block)
{
    return zinf_partition_shard(zero->options.model->blocks[block].element_count, zero->ranks,
                                zero->rank);
}

int64_t zinf_zero_shard_count(const struct zinf_zero *zero, int block)
{
    return zinf_partition_shard_count(zero->options.model->blocks[block].element_count,
                                      zero->ranks);
}

struct zinf_range zinf_zero_owned(const struct zinf_zero *zero, int block)
{
    int64_t shard = zinf_zero_shard_count(zero, block);
    if (!zero->options.sharding.optimizer)
        return (struct zinf_range){0, zero->ranks * shard};
    return (struct zinf_range){zero->rank * shard, (zero->rank + 1) * shard};
}

/* Pieces of the owned part, joined where they follow each other and are treated alike; gaps join
 * what stands before them. */
static void find_runs(struct zinf_zero *zero, int block)
{
    const struct zinf_block *b = &zero->options.model->blocks[block];
    struct zinf_block_state *state = &zero->blocks[block];
    struct zinf_range owned = zinf_zero_owned(zero, block);
    state->runs = zinf_alloc((size_t)b->piece_count * sizeof *state->runs);
    for (int i = 0; i < b->piece_count; i++) {
        const struct zinf_piece *piece = &b->pieces[i];
        struct zinf_range part = zinf_range_intersect(
            owned, (struct zinf_range){piece->block_offset, piece->block_offset + piece->count});
        bool decay = !(zero->options.no_decay && zero->options.no_decay[piece->param]);
        struct zinf_update_run *before =
            state->run_count ? &state->runs[state->run_count - 1] : NULL;
        if (part.begin == part.end)
            continue;
        if (before && before->decay == decay)
            before->count = part.end - owned.begin - before->begin;
        else
            state->runs[state->run_count++] =
                (struct zinf_update_run){part.begin - owned.begin, part.end - part.begin, decay};
    }
}

/* Memory of a tier; what is on NVMe takes none here. */
static void *take(enum zinf_tier tier, struct zinf_pool *device, struct zinf_pool *host,
                  size_t bytes)
{
    if (tier == ZINF_TIER_NVME)
        return NULL;
    return zinf_pool_take(tier == ZINF_TIER_HOST ? host : device, bytes);
}

/* `elements` further on in an array that is there. */
static void *beyond(void *array, int64_t elements, enum zinf_dtype dtype)
{
    return array ? (char *)array + (size_t)elements * zinf_dtype_bytes(dtype) : NULL;
}

enum zinf_tier zinf_zero_optimizer_tier(const struct zinf_zero *zero, int block)
{
    const struct zinf_offload *offload = &zero->options.offload;
    return block < offload->device_blocks ? ZINF_TIER_DEVICE : offload->optimizer;
}

enum zinf_tier zinf_zero_parameter_tier(const struct zinf_zero *zero, int block)
{
    const struct zinf_offload *offload = &zero->options.offload;
    return block < offload->device_blocks ? ZINF_TIER_DEVICE : offload->parameters;
}

/* Master and moments of the owned part; what streams is counted where its records are cut. */
static void lay_out_optimizer(struct zinf_zero *zero, int block, struct zinf_pool *device,
                              struct zinf_pool *host)
{
    const struct zinf_zero_options *o = &zero->options;
    struct zinf_block_state *state = &zero->blocks[block];
    struct zinf_range owned = zinf_zero_owned(zero, block);
    size_t bytes = (size_t)(owned.end - owned.begin) * sizeof(float);
    enum zinf_tier tier = zinf_zero_optimizer_tier(zero, block);
    bool master = o->dtype != ZINF_FP32 || (o->offload.ahead && tier == ZINF_TIER_HOST);
    int arrays = (o->training ? o->moment_count : 0) + master;
    if (tier != ZINF_TIER_NVME)
        zero->bytes.optimizer += (size_t)arrays * bytes;
    for (int i = 0; o->training && i < o->moment_count; i++)
        state->moment[i] = take(tier, device, host, bytes);
    void *weights = state->mirror;
    if (!weights)
        weights = beyond(state->weights, o->sharding.parameters ? 0 : owned.begin, o->dtype);
    state->master = master ? take(tier, device, host, bytes) : weights;
    state->low = master ? weights : NULL;
}

/* On ranks that exchange through the host a shard is read there: where the host has updated it, it
 * stands nowhere else. */
static void lay_out_weights(struct zinf_zero *zero, int block, struct zinf_pool *device,
                            struct zinf_pool *host)
{
    const struct zinf_zero_options *o = &zero->options;
    struct zinf_block_state *state = &zero->blocks[block];
    int64_t shard = zinf_zero_shard_count(zero, block);
    size_t element = zinf_dtype_bytes(o->dtype);
    size_t weights = (size_t)(o->sharding.parameters ? shard : shard * zero->ranks) * element;
    if (zinf_staged_mirrors(zero, block)) {
        state->mirror = zinf_pool_take(host, (size_t)shard * element);
        zero->bytes.weights += (size_t)shard * element;
        if (o->sharding.parameters && zero->ranks > 1) {
            state->weights = state->mirror;
            return;
        }
    }
    enum zinf_tier tier = zinf_zero_parameter_tier(zero, block);
    state->weights = take(tier, device, host, weights);
    if (tier != ZINF_TIER_NVME)
        zero->bytes.weights += weights;
}

/* The accumulator stands where the moments are, but for what a device writes itself: then only the
 * sum of this rank's part comes to the host. */
static void lay_out_gradients(struct zinf_zero *zero, int block, struct zinf_pool *device,
                              struct zinf_pool *host)
{
    const struct zinf_zero_options *o = &zero->options;
    struct zinf_block_state *state = &zero->blocks[block];
    int64_t shard = zinf_zero_shard_count(zero, block);
    size_t element = zinf_dtype_bytes(o->accumulation_dtype);
    size_t bytes = (size_t)(o->sharding.gradients ? shard : shard * zero->ranks) * element;
    bool on_host = zinf_zero_optimizer_tier(zero, block) != ZINF_TIER_DEVICE;
    bool copied = on_host && zinf_staged(zero) && !o->sharding.gradients;
    state->accumulator =
        take(on_host && !copied ? ZINF_TIER_HOST : ZINF_TIER_DEVICE, device, host, bytes);
    zero->bytes.gradients += bytes;
    state->gradient =
        beyond(state->accumulator, o->sharding.gradients ? 0 : zinf_zero_owned(zero, block).begin,
               o->accumulation_dtype);
    if (copied) {
        state->gradient = zinf_pool_take(host, (size_t)shard * element);
        zero->bytes.gradients += (size_t)shard * element;
    }
}

static void lay_out_block(struct zinf_zero *zero, int block, struct zinf_pool *device,
                          struct zinf_pool *host)
{
    lay_out_weights(zero, block, device, host);
    if (zero->options.training)
        lay_out_gradients(zero, block, device, host);
    lay_out_optimizer(zero, block, device, host);
}

static void lay_out_windows(struct zinf_zero *zero, const struct zinf_plan *plan,
                            struct zinf_pool *pool)
{
    const struct zinf_zero_options *o = &zero->options;
    size_t window = (size_t)plan->window_elements * zinf_dtype_bytes(o->dtype);
    size_t wire = (size_t)plan->window_elements * zinf_dtype_bytes(o->wire_dtype);
    enum zinf_dtype source = o->sharding.gradients ? o->dtype : o->accumulation_dtype;
    for (int i = 0; i < plan->window_count; i++)
        zero->windows[i] = zinf_pool_take(pool, window);
    for (int i = 0; i < plan->gradient_window_count; i++)
        zero->gradients[i] = zinf_pool_take(pool, window);
    zero->bytes.windows = (size_t)(plan->window_count + plan->gradient_window_count) * window;
    if (!o->training)
        return;
    if (source != o->wire_dtype) {
        zero->send = zinf_pool_take(pool, wire);
        zero->bytes.communication += wire;
    }
    if (zero->ranks > 1 && !zinf_staged(zero)) {
        zero->receive = zinf_pool_take(pool, wire);
        zero->bytes.communication += wire;
    }
}

void zinf_zero_layout(struct zinf_zero *zero, const struct zinf_zero_options *options,
                      const struct zinf_plan *plan, struct zinf_pool *device,
                      struct zinf_pool *host)
{
    zero->options = *options;
    zero->rank = options->comm->rank;
    zero->ranks = options->comm->size;
    zero->bytes = (struct zinf_zero_bytes){0};
    if (!zero->blocks) {
        size_t ranks = (size_t)zero->ranks;
        zero->blocks = zinf_alloc((size_t)options->model->block_count * sizeof *zero->blocks);
        zero->agree_all = zinf_alloc(ranks * sizeof zero->agree);
        zero->report_all = zinf_alloc(ranks * sizeof zero->report);
        for (int i = 0; i < options->model->block_count; i++)
            find_runs(zero, i);
    }
    for (int i = 0; i < options->model->block_count; i++)
        lay_out_block(zero, i, device, host);
    lay_out_windows(zero, plan, device);
    if (zinf_staged(zero))
        zinf_staged_layout(zero, plan, device, host);
    zinf_zero_layout_records(zero, plan, host);
}

void zinf_zero_close(struct zinf_zero *zero)
{
    if (zero->lanes)
        zinf_lanes_end(zero->lanes);
    zinf_updates_free(zero->updates);
    zinf_lanes_free(zero->lanes);
    zinf_zero_close_records(zero);
    for (int i = 0; zero->blocks && i < zero->options.model->block_count; i++)
        free(zero->blocks[i].runs);
    free(zero->blocks);
    free(zero->agree_all);
    free(zero->report_all);
    memset(zero, 0, sizeof *zero);
}
