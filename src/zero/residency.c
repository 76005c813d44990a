/*
 * Which parts of records stay in host memory for the whole run although their tier is NVMe:
 * `zinf.memory.cache` for the optimizer's records, `offload_param.max_in_cpu` for the parameters.
 *
 * A fixed set, chosen before step 1. A step meets every record once, in an order that is known; of
 * a cyclic sequence of n records of which c fit into memory, c can be spared per step and no
 * replacement spares more: each of the other n - c must be read, and so written, in every cycle. A
 * fixed set spares exactly c. LRU with one direction spares none (what comes next was thrown out
 * last); LRU with directions that alternate from step to step spares the same c, but must write
 * behind and read ahead at the turn. So what is resident is never read from the drive nor written
 * to it, has no extent there, and what is in host memory is used first by construction.
 *
 * Of equal bytes those are kept that the next step's forward pass uses first (records in the order
 * of blocks: embedding, layer 0, ...): there is the least computation yet behind which their
 * transfers could be hidden, and the parameters of early blocks are fetched twice in a micro-batch
 * where the last ones are still in a window from the forward pass.
 *
 * In 16 bits the two budgets meet different parts: the optimizer's (master, moments) and the 16-bit
 * weights. In fp32 with both on NVMe the master is the first part of the optimizer's record and is
 * what layers fetch: max_in_cpu keeps masters, and the cache, which comes after it, what is left of
 * the records, masters first.
 */
#include "zero/zero.h"

#include <stdlib.h>
#include <string.h>

static bool is_parameter(const struct zinf_zero *zero, int part)
{
    int weights = zero->options.dtype == ZINF_FP32 ? ZINF_PART_MASTER : ZINF_PART_LOW;
    return part == weights && zero->options.offload.parameters == ZINF_TIER_NVME;
}

static bool is_optimizer(const struct zinf_zero *zero, int part)
{
    return part != ZINF_PART_LOW && zero->options.offload.optimizer == ZINF_TIER_NVME;
}

void zinf_zero_choose_resident(struct zinf_zero *zero)
{
    size_t cache = zero->options.offload.cache_bytes;
    int64_t elements = zero->options.offload.resident_parameters;
    zero->bytes.cache = 0;
    for (int r = 0; r < zero->record_count; r++)
        for (int part = 0; part < ZINF_RING_PARTS; part++) {
            struct zinf_record *record = &zero->records[r];
            size_t bytes = zinf_zero_part_bytes(zero, r, part);
            record->resident[part] = false;
            record->memory[part] = NULL;
            if (!zinf_zero_streams(&zero->options, part))
                continue;
            if (is_parameter(zero, part) && record->count <= elements) {
                record->resident[part] = true;
                elements -= record->count;
            } else if (is_optimizer(zero, part) && bytes <= cache) {
                record->resident[part] = true;
                cache -= bytes;
            }
            if (record->resident[part])
                zero->bytes.cache += bytes;
        }
}

void zinf_zero_lay_out_resident(struct zinf_zero *zero, struct zinf_pool *host)
{
    if (zero->bytes.cache == 0)
        return;
    char *memory = zinf_pool_take(host, zero->bytes.cache);
    for (int r = 0; memory && r < zero->record_count; r++)
        for (int part = 0; part < ZINF_RING_PARTS; part++)
            if (zero->records[r].resident[part]) {
                zero->records[r].memory[part] = memory;
                memory += zinf_zero_part_bytes(zero, r, part);
            }
}

static bool same_parts(const struct zinf_record *a, const struct zinf_record *b)
{
    return memcmp(a->resident, b->resident, sizeof a->resident) == 0;
}

static bool any_resident(const struct zinf_record *record)
{
    bool any = false;
    for (int part = 0; part < ZINF_RING_PARTS; part++)
        any = any || record->resident[part];
    return any;
}

int zinf_zero_resident_runs(const struct zinf_zero *zero, struct zinf_resident_run **runs)
{
    int count = 0;
    *runs = NULL;
    for (int begin = 0, end; begin < zero->record_count; begin = end) {
        const struct zinf_record *first = &zero->records[begin];
        for (end = begin + 1; end < zero->record_count; end++)
            if (!same_parts(first, &zero->records[end]))
                break;
        if (!any_resident(first))
            continue;
        *runs = zinf_realloc(*runs, (size_t)(count + 1) * sizeof **runs);
        struct zinf_resident_run *run = &(*runs)[count++];
        *run = (struct zinf_resident_run){.first = begin, .last = end - 1};
        memcpy(run->resident, first->resident, sizeof run->resident);
        for (int r = begin; r < end; r++)
            for (int part = 0; part < ZINF_RING_PARTS; part++)
                run->bytes += run->resident[part] ? zinf_zero_part_bytes(zero, r, part) : 0;
        zinf_plan_block_name(zero->options.model, first->block, run->from, sizeof run->from);
        zinf_plan_block_name(zero->options.model, zero->records[end - 1].block, run->to,
                             sizeof run->to);
    }
    return count;
}

double zinf_zero_cached_fraction(const struct zinf_zero *zero)
{
    double cached = 0, all = 0;
    for (int r = 0; r < zero->record_count; r++)
        for (int part = 0; part < ZINF_RING_PARTS; part++)
            if (zinf_zero_streams(&zero->options, part) && is_optimizer(zero, part)) {
                double bytes = (double)zinf_zero_part_bytes(zero, r, part);
                all += bytes;
                cached += zero->records[r].resident[part] ? bytes : 0;
            }
    return all > 0 ? cached / all : 0;
}
