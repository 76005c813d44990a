/*
 * Blocks cut into records for the update lane, and the NVMe tier of ZeRO's states: records cut into
 * extents, and the two rings in which they pass: the update lane's, and the mover's for fetches of
 * weights. What residency.c keeps in host memory has no extent and does not pass. Source:
 * ZeRO-Infinity, arXiv:2104.07857, section 5.2 (infinity offload engine).
 */
#include "zero/zero.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool zinf_zero_streams(const struct zinf_zero_options *o, int part)
{
    bool optimizer = o->offload.optimizer == ZINF_TIER_NVME;
    bool parameters = o->offload.parameters == ZINF_TIER_NVME;
    switch (part) {
    case ZINF_PART_MASTER:
        return o->dtype == ZINF_FP32 ? parameters : optimizer;
    case ZINF_PART_LOW:
        return o->dtype != ZINF_FP32 && parameters;
    default:
        return optimizer && o->training && part - ZINF_PART_MOMENT1 < o->moment_count;
    }
}

static size_t element_bytes(const struct zinf_zero *zero, int part)
{
    return part == ZINF_PART_LOW ? zinf_dtype_bytes(zero->options.dtype) : sizeof(float);
}

bool zinf_zero_uses_nvme(const struct zinf_zero_options *o)
{
    bool any = false;
    for (int part = 0; part < ZINF_RING_PARTS; part++)
        any = any || zinf_zero_streams(o, part);
    return any;
}

/* The part that a fetch reads: what the layers compute with. */
static int weights_part(const struct zinf_zero *zero)
{
    return zero->options.dtype == ZINF_FP32 ? ZINF_PART_MASTER : ZINF_PART_LOW;
}

static void cut_blocks(struct zinf_zero *zero)
{
    int64_t size = zero->options.offload.record_elements;
    ZINF_ASSERT(size > 0);
    zero->cut_elements = size;
    zero->record_count = 0;
    for (int b = 0; b < zero->options.model->block_count; b++) {
        struct zinf_range owned = zinf_zero_owned(zero, b);
        int64_t count = owned.end - owned.begin;
        if (b < zero->options.offload.device_blocks) /* the compute lane's */
            count = 0;
        int records = (int)((count + size - 1) / size);
        zero->records = zinf_realloc(zero->records, (size_t)(zero->record_count + records) *
                                                        sizeof *zero->records);
        zero->blocks[b].first_record = zero->record_count;
        zero->blocks[b].record_count = records;
        for (int64_t begin = 0; begin < count; begin += size)
            zero->records[zero->record_count++] = (struct zinf_record){
                .block = b, .begin = begin, .count = count - begin < size ? count - begin : size};
    }
    size_t count = (size_t)zero->record_count;
    zero->update_items = zinf_realloc(zero->update_items, count * sizeof *zero->update_items);
    zero->fetch_items = zinf_realloc(zero->fetch_items, count * sizeof *zero->fetch_items);
    zero->update_sequence =
        zinf_realloc(zero->update_sequence, count * sizeof *zero->update_sequence);
}

/* Which of the two files a part is in: the optimizer's (0) or the parameters' (1). */
static int file_of(const struct zinf_zero *zero, int part)
{
    const struct zinf_offload *offload = &zero->options.offload;
    bool parameter = part == weights_part(zero) && offload->parameters == ZINF_TIER_NVME;
    const char *folders[2] = {offload->optimizer_path, offload->parameter_path};
    bool both = offload->optimizer == ZINF_TIER_NVME && parameter;
    /* A plan that is only looked at may have no folders. */
    bool same = both && (!folders[0] || !folders[1] || strcmp(folders[0], folders[1]) == 0);
    return parameter && !same;
}

size_t zinf_zero_part_bytes(const struct zinf_zero *zero, int record, int part)
{
    return zinf_swap_padded((size_t)zero->records[record].count * element_bytes(zero, part));
}

/* Does this part of a record travel between memory and the drive? */
static bool travels(const struct zinf_zero *zero, int record, int part)
{
    return zinf_zero_streams(&zero->options, part) && !zero->records[record].resident[part];
}

bool zinf_zero_passes(const struct zinf_zero *zero, int record)
{
    bool any = false;
    for (int part = 0; part < ZINF_RING_PARTS; part++)
        any = any || travels(zero, record, part);
    return any;
}

/* Number the extents of each file in the order in which an update meets them, so that it reads the
 * file from front to back. */
static void make_items(struct zinf_zero *zero)
{
    int extent[2] = {0, 0};
    zero->update_length = 0;
    for (int r = 0; r < zero->record_count; r++) {
        if (zinf_zero_passes(zero, r))
            zero->update_sequence[zero->update_length++] = r;
        for (int part = 0; part < ZINF_RING_PARTS; part++) {
            bool streams = travels(zero, r, part);
            int file = file_of(zero, part);
            bool fetched = streams && part == weights_part(zero);
            struct zinf_ring_item *update = &zero->update_items[r], *fetch = &zero->fetch_items[r];
            update->extent[part] = streams ? extent[file] : -1;
            update->read[part] = part != ZINF_PART_LOW;
            update->write[part] = true;
            fetch->extent[part] = fetched ? extent[file] : -1;
            fetch->read[part] = true;
            fetch->write[part] = false;
            extent[file] += streams;
        }
    }
}

/* May a record be updated before its step is decided? Then everything it replaces has another
 * place: on the drive the spare extents, in memory the bytes of the gradient, which hold weights of
 * its width and nothing else. */
static bool may_be_early(const struct zinf_zero *zero, int record)
{
    const struct zinf_zero_options *o = &zero->options;
    bool wide = zinf_dtype_bytes(o->accumulation_dtype) >= zinf_dtype_bytes(o->dtype);
    bool may = o->offload.optimizer == ZINF_TIER_NVME && zinf_zero_passes(zero, record);
    for (int part = 0; part < ZINF_RING_PARTS; part++) {
        bool exists = part == ZINF_PART_LOW      ? o->dtype != ZINF_FP32
                      : part == ZINF_PART_MASTER ? true
                                                 : part - ZINF_PART_MOMENT1 < o->moment_count;
        if (exists && !travels(zero, record, part))
            may = may && part == weights_part(zero) && wide;
    }
    return may;
}

static size_t extent_bytes(const struct zinf_zero *zero, int record)
{
    size_t bytes = 0;
    for (int part = 0; part < ZINF_RING_PARTS; part++)
        if (travels(zero, record, part))
            bytes += zinf_zero_part_bytes(zero, record, part);
    return bytes;
}

/* A second set of extents behind the first, for as many records as there is room for, in the order
 * in which early updates come. */
static void make_spares(struct zinf_zero *zero, const struct zinf_plan *plan)
{
    size_t used = 0;
    int extent[2] = {0, 0};
    for (int r = 0; r < zero->record_count; r++) {
        used += extent_bytes(zero, r);
        zero->records[r].has_spare = false;
        for (int part = 0; part < ZINF_RING_PARTS; part++)
            extent[file_of(zero, part)] += travels(zero, r, part);
    }
    for (int64_t i = 0; plan->options.early_updates && i < plan->count[ZINF_LANE_UPDATE]; i++) {
        const struct zinf_block_state *block =
            &zero->blocks[plan->operations[ZINF_LANE_UPDATE][i].block];
        for (int r = block->first_record; r < block->first_record + block->record_count; r++) {
            struct zinf_record *record = &zero->records[r];
            if (!may_be_early(zero, r) ||
                used + extent_bytes(zero, r) > zero->options.offload.nvme_bytes)
                continue;
            used += extent_bytes(zero, r);
            record->has_spare = true;
            for (int part = 0; part < ZINF_RING_PARTS; part++)
                record->spare[part] = travels(zero, r, part) ? extent[file_of(zero, part)]++ : -1;
        }
    }
}

void zinf_zero_take_spare(struct zinf_zero *zero, int number)
{
    struct zinf_ring_item *update = &zero->update_items[number];
    struct zinf_record *record = &zero->records[number];
    for (int part = 0; part < ZINF_RING_PARTS; part++) {
        int current = update->extent[part];
        update->extent[part] = record->spare[part];
        record->spare[part] = current;
        if (zero->fetch_items[number].extent[part] >= 0)
            zero->fetch_items[number].extent[part] = update->extent[part];
    }
}

/* Where parts stand in a buffer, and how long a buffer is: as the largest record that passes, which
 * small shards make smaller. */
static size_t lay_out_buffer(const struct zinf_zero *zero, bool fetch, size_t offsets[])
{
    size_t used = 0;
    for (int part = 0; part < ZINF_RING_PARTS; part++) {
        size_t largest = 0;
        for (int r = 0; r < zero->record_count; r++)
            if (travels(zero, r, part) && zinf_zero_part_bytes(zero, r, part) > largest)
                largest = zinf_zero_part_bytes(zero, r, part);
        offsets[part] = used;
        if (!fetch || part == weights_part(zero))
            used += largest;
    }
    return used;
}

static void lay_out_ring(struct zinf_zero *zero, bool fetch, struct zinf_pool *host)
{
    const struct zinf_offload *offload = &zero->options.offload;
    struct zinf_ring_options *ring = fetch ? &zero->fetch_ring.options : &zero->update_ring.options;
    int buffers = fetch ? offload->parameter_buffers : offload->optimizer_buffers;
    ring->buffer_count = buffers < ZINF_RING_BUFFERS ? buffers : ZINF_RING_BUFFERS;
    ring->lookahead = fetch ? buffers - 1 : buffers - 2;
    if (ring->lookahead < 0)
        ring->lookahead = 0;
    ring->buffer_bytes = lay_out_buffer(zero, fetch, ring->part_offset);
    if (ring->buffer_bytes == 0) /* all of it is resident */
        return;
    size_t bytes = (size_t)ring->buffer_count * ring->buffer_bytes;
    /* Direct I/O wants every buffer on a page; pools align small ones to 64 bytes only. */
    char *memory = zinf_pool_take(host, bytes + 4096);
    ring->memory = memory ? (char *)(((uintptr_t)memory + 4095) & ~(uintptr_t)4095) : NULL;
    zero->bytes.rings += bytes + 4096;
}

void zinf_zero_layout_records(struct zinf_zero *zero, const struct zinf_plan *plan,
                              struct zinf_pool *host)
{
    int64_t kept = 0;
    bool on_nvme = zinf_zero_uses_nvme(&zero->options);
    if (!on_nvme && !plan->options.update_lane)
        return;
    if (zero->cut_elements != zero->options.offload.record_elements)
        cut_blocks(zero);
    zero->swap_bytes[0] = zero->swap_bytes[1] = 0;
    zinf_zero_choose_resident(zero);
    make_items(zero);
    if (!on_nvme)
        return;
    zinf_zero_lay_out_resident(zero, host);
    make_spares(zero, plan);
    for (int r = 0; r < zero->record_count; r++) {
        const struct zinf_record *record = &zero->records[r];
        for (int part = 0; part < ZINF_RING_PARTS; part++)
            if (travels(zero, r, part))
                zero->swap_bytes[file_of(zero, part)] +=
                    zinf_zero_part_bytes(zero, r, part) * (1 + record->has_spare);
        zero->bytes.spares += extent_bytes(zero, r) * record->has_spare;
        if (record->has_spare && record->count > kept)
            kept = record->count < ZINF_UNDO_ELEMENTS ? record->count : ZINF_UNDO_ELEMENTS;
    }
    zero->bytes.nvme = zero->swap_bytes[0] + zero->swap_bytes[1];
    size_t bytes = (size_t)kept * zinf_dtype_bytes(zero->options.dtype);
    zero->old_weights = zinf_pool_take(host, bytes);
    zero->bytes.rings += bytes;
    lay_out_ring(zero, false, host);
    if (zero->options.offload.parameters == ZINF_TIER_NVME)
        lay_out_ring(zero, true, host);
}

void zinf_zero_nvme_traffic(const struct zinf_zero *zero, const struct zinf_plan *plan,
                            int64_t *read_bytes, int64_t *write_bytes)
{
    *read_bytes = *write_bytes = 0;
    for (int r = 0; plan->options.training && r < zero->record_count; r++)
        for (int part = 0; part < ZINF_RING_PARTS; part++) {
            bool streams = zero->update_items[r].extent[part] >= 0;
            if (streams && zero->update_items[r].read[part])
                *read_bytes += (int64_t)zinf_zero_part_bytes(zero, r, part);
            if (streams)
                *write_bytes += (int64_t)zinf_zero_part_bytes(zero, r, part);
        }
    for (int64_t i = 0; i < plan->count[ZINF_LANE_COMM]; i++) {
        const struct zinf_plan_operation *operation = &plan->operations[ZINF_LANE_COMM][i];
        if (operation->kind != ZINF_PLAN_GATHER_WINDOW ||
            zero->options.offload.parameters != ZINF_TIER_NVME)
            continue;
        const struct zinf_block_state *block = &zero->blocks[operation->block];
        for (int r = block->first_record; r < block->first_record + block->record_count; r++)
            if (travels(zero, r, weights_part(zero)))
                *read_bytes += (int64_t)zinf_zero_part_bytes(zero, r, weights_part(zero));
    }
}

const char *zinf_zero_part_name(int part)
{
    static const char *const names[] = {"master weights", "first moment", "second moment",
                                        "16-bit weights"};
    return names[part];
}

/* What an extent of a file holds, for messages. */
static void name_extent(const struct zinf_zero *zero, int file, int extent, char *out,
                        size_t out_bytes)
{
    for (int r = 0; r < zero->record_count; r++)
        for (int part = 0; part < ZINF_RING_PARTS; part++)
            if ((zero->update_items[r].extent[part] == extent ||
                 (zero->records[r].has_spare && zero->records[r].spare[part] == extent)) &&
                file_of(zero, part) == file) {
                char block[96];
                zinf_plan_block_name(zero->options.model, zero->records[r].block, block,
                                     sizeof block);
                snprintf(out, out_bytes, "%s of %s, elements %lld-%lld of rank %d's shard",
                         zinf_zero_part_name(part), block, (long long)zero->records[r].begin,
                         (long long)(zero->records[r].begin + zero->records[r].count - 1),
                         zero->rank);
                return;
            }
}

static void name_optimizer_extent(void *context, int extent, char *out, size_t out_bytes)
{
    name_extent(context, 0, extent, out, out_bytes);
}

static void name_parameter_extent(void *context, int extent, char *out, size_t out_bytes)
{
    name_extent(context, 1, extent, out, out_bytes);
}

static int open_swap(struct zinf_zero *zero, int file, struct zinf_error *error)
{
    const struct zinf_offload *offload = &zero->options.offload;
    size_t *bytes = zinf_alloc((size_t)zero->record_count * 2 * ZINF_RING_PARTS * sizeof *bytes);
    struct zinf_swap_options options = {
        .folder = file == 0 ? offload->optimizer_path : offload->parameter_path,
        .extent_bytes = bytes,
        .checksums = offload->checksums,
        .name = file == 0 ? name_optimizer_extent : name_parameter_extent,
        .context = zero};
    int status = ZINF_OK;
    for (int r = 0; r < zero->record_count; r++)
        for (int part = 0; part < ZINF_RING_PARTS; part++) {
            const struct zinf_record *record = &zero->records[r];
            size_t count = (size_t)record->count * element_bytes(zero, part);
            if (zero->update_items[r].extent[part] < 0 || file_of(zero, part) != file)
                continue;
            bytes[zero->update_items[r].extent[part]] = count;
            options.extent_count += 1 + record->has_spare;
            if (record->has_spare)
                bytes[record->spare[part]] = count;
        }
    if (options.extent_count > 0)
        status = zinf_swap_open(&zero->swaps[file], &options, error);
    free(bytes);
    return status;
}

static int open_ring(struct zinf_zero *zero, struct zinf_ring *ring, struct zinf_aio *aio,
                     const struct zinf_pool *host)
{
    const struct zinf_offload *offload = &zero->options.offload;
    const struct zinf_aio_options options = {.queue_depth = offload->queue_depth,
                                             .block_bytes = offload->io_block_bytes,
                                             .threads = offload->io_threads,
                                             .pool = host->locked ? host->base : NULL,
                                             .pool_bytes = host->size_bytes};
    int status = zinf_aio_open(aio, offload->engine, &options);
    if (status)
        return status;
    ring->options.aio = aio;
    for (int part = 0; part < ZINF_RING_PARTS; part++)
        ring->options.swap[part] = zero->swaps[file_of(zero, part)];
    for (int file = 0; file < 2 && !status; file++)
        if (zero->swaps[file])
            status = zinf_swap_attach(zero->swaps[file], aio);
    return status;
}

static bool fetch_is_readable(void *context, int record, bool wait)
{
    const struct zinf_zero *zero = context;
    return zinf_updates_readable(zero->updates, record, wait);
}

int zinf_zero_open_records(struct zinf_zero *zero, const struct zinf_pool *host,
                           struct zinf_error *error)
{
    if (zero->update_length == 0)
        return ZINF_OK;
    int status = open_swap(zero, 0, error);
    if (!status)
        status = open_swap(zero, 1, error);
    if (!status)
        status = open_ring(zero, &zero->update_ring, &zero->update_aio, host);
    if (!status && zero->fetch_ring.options.buffer_bytes > 0)
        status = open_ring(zero, &zero->fetch_ring, &zero->fetch_aio, host);
    zero->fetch_ring.options.readable = fetch_is_readable;
    zero->fetch_ring.options.context = zero;
    return status;
}

void zinf_zero_close_records(struct zinf_zero *zero)
{
    if (zero->update_aio.engine) {
        zinf_ring_drain(&zero->update_ring);
        zinf_aio_close(&zero->update_aio);
    }
    if (zero->fetch_aio.engine) {
        zinf_ring_drain(&zero->fetch_ring);
        zinf_aio_close(&zero->fetch_aio);
    }
    zinf_swap_close(zero->swaps[0]);
    zinf_swap_close(zero->swaps[1]);
    free(zero->records);
    free(zero->update_items);
    free(zero->fetch_items);
    free(zero->update_sequence);
    free(zero->fetch_sequence);
}

void zinf_zero_begin_fetches(struct zinf_zero *zero, const struct zinf_plan *plan)
{
    int64_t count = 0;
    if (!zero->fetch_aio.engine)
        return;
    for (int64_t i = 0; i < plan->count[ZINF_LANE_COMM]; i++) {
        const struct zinf_plan_operation *operation = &plan->operations[ZINF_LANE_COMM][i];
        if (operation->kind == ZINF_PLAN_GATHER_WINDOW)
            count += zero->blocks[operation->block].record_count;
    }
    zero->fetch_sequence =
        zinf_realloc(zero->fetch_sequence, (size_t)count * sizeof *zero->fetch_sequence);
    zero->fetch_length = 0;
    for (int64_t i = 0; i < plan->count[ZINF_LANE_COMM]; i++) {
        const struct zinf_plan_operation *operation = &plan->operations[ZINF_LANE_COMM][i];
        const struct zinf_block_state *block = &zero->blocks[operation->block];
        if (operation->kind != ZINF_PLAN_GATHER_WINDOW)
            continue;
        for (int r = block->first_record; r < block->first_record + block->record_count; r++)
            if (travels(zero, r, weights_part(zero)))
                zero->fetch_sequence[zero->fetch_length++] = r;
    }
    zinf_ring_begin(&zero->fetch_ring, zero->fetch_items, zero->fetch_sequence, zero->fetch_length);
}

void zinf_zero_fetch_shard(struct zinf_zero *zero, int block, void *to)
{
    const struct zinf_block_state *state = &zero->blocks[block];
    size_t element = zinf_dtype_bytes(zero->options.dtype);
    int part = weights_part(zero);
    for (int r = state->first_record; r < state->first_record + state->record_count; r++) {
        const struct zinf_record *record = &zero->records[r];
        bool passes = travels(zero, r, part);
        const char *from = record->memory[part];
        if (passes)
            from = zinf_ring_next(&zero->fetch_ring) + zero->fetch_ring.options.part_offset[part];
        memcpy((char *)to + (size_t)record->begin * element, from, (size_t)record->count * element);
        if (passes)
            zinf_ring_release(&zero->fetch_ring);
    }
}
