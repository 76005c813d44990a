/*
 * From blocks and shards to named tensors and back. A block's shard is cut along its pieces; every
 * piece is a run of one tensor, so a tensor's slices on a rank are contiguous runs, and nothing is
 * ever collected on one rank.
 */
#include "train/snapshot.h"

#include <stdlib.h>
#include <string.h>

enum { RUN_ATTRIBUTES = 14 };

int zinf_optimizer_state_names(enum zinf_optimizer optimizer, double momentum, const char *names[2])
{
    static const char *const first[] = {[ZINF_ADAM] = "exp_avg",
                                        [ZINF_ADAGRAD] = "sum",
                                        [ZINF_LION] = "exp_avg",
                                        [ZINF_SGD] = "momentum_buffer"};
    names[0] = first[optimizer];
    names[1] = optimizer == ZINF_ADAM ? "exp_avg_sq" : NULL;
    if (optimizer == ZINF_ADAM)
        return 2;
    return optimizer == ZINF_SGD && momentum == 0 ? 0 : 1;
}

/* Where a slice of a saved array comes from when it is on NVMe. */
struct origin {
    int record;
    int64_t offset; /* elements from the record's begin */
};

/* The arrays of a snapshot with all they point to: paths, slices, and origins of the slices that
 * are on NVMe (else NULL). */
struct arrays {
    struct zinf_array *items;
    struct origin **origins;
    int count, param_count;
    struct zinf_zero *zero;
    int record, part; /* what the last fetch left in the buffer; -1 = nothing */
    const float *values;
};

static void arrays_release(struct arrays *arrays)
{
    for (int i = 0; i < arrays->count; i++) {
        free((char *)arrays->items[i].path);
        free((struct zinf_slice *)arrays->items[i].slices);
        free(arrays->origins[i]);
    }
    free(arrays->items);
    free(arrays->origins);
}

/* All arrays of weights and optimizer state, without slices: kind 0 = master, then the moments. */
static struct arrays make_arrays(const struct zinf_snapshot *snapshot)
{
    const struct zinf_model *model = snapshot->zero->options.model;
    struct arrays arrays = {.count = (1 + snapshot->moment_count) * model->param_count,
                            .param_count = model->param_count,
                            .zero = snapshot->zero,
                            .record = -1};
    arrays.items = zinf_alloc((size_t)arrays.count * sizeof *arrays.items);
    arrays.origins = zinf_alloc((size_t)arrays.count * sizeof *arrays.origins);
    for (int i = 0; i < arrays.count; i++) {
        const struct zinf_param *param = &model->params[i % model->param_count];
        int kind = i / model->param_count;
        arrays.items[i].path =
            kind == 0
                ? zinf_format("/model/%s", param->name)
                : zinf_format("/optimizer/%s/%s", snapshot->moment_names[kind - 1], param->name);
        arrays.items[i].dim_count = param->dim_count;
        memcpy(arrays.items[i].shape, param->shape, sizeof param->shape);
    }
    return arrays;
}

static void add_slice(struct arrays *arrays, int array, struct zinf_slice slice,
                      struct origin origin)
{
    struct zinf_array *item = &arrays->items[array];
    size_t count = (size_t)item->slice_count + 1;
    struct zinf_slice *slices =
        zinf_realloc((struct zinf_slice *)item->slices, count * sizeof *slices);
    arrays->origins[array] = zinf_realloc(arrays->origins[array], count * sizeof **arrays->origins);
    slices[count - 1] = slice;
    arrays->origins[array][count - 1] = origin;
    item->slices = slices;
    item->slice_count++;
}

/* The slices of one kind that lie in `part` of a block; values (may be NULL): of part.begin. */
static void add_part(struct arrays *arrays, int kind, int block, struct zinf_range part,
                     float *values, struct origin origin)
{
    const struct zinf_block *b = &arrays->zero->options.model->blocks[block];
    for (int i = 0; i < b->piece_count; i++) {
        const struct zinf_piece *piece = &b->pieces[i];
        struct zinf_range run = zinf_range_intersect(
            part, (struct zinf_range){piece->block_offset, piece->block_offset + piece->count});
        struct zinf_slice slice = {piece->param_offset + run.begin - piece->block_offset,
                                   run.end - run.begin,
                                   values ? values + (run.begin - part.begin) : NULL};
        struct origin from = {origin.record, origin.offset + run.begin - part.begin};
        if (run.begin < run.end)
            add_slice(arrays, kind * arrays->param_count + piece->param, slice, from);
    }
}

/* This rank's share of one copy of everything: its shard of each block, in stretches of records
 * where they are on NVMe. */
static void add_shard(struct arrays *arrays, int kind, int block)
{
    const struct zinf_zero *zero = arrays->zero;
    const struct zinf_block_state *state = &zero->blocks[block];
    struct zinf_range shard = zinf_zero_shard(zero, block), owned = zinf_zero_owned(zero, block);
    float *values = kind == 0 ? state->master : state->moment[kind - 1];
    if (!zinf_zero_streams(&zero->options, kind)) {
        add_part(arrays, kind, block, shard, values + (shard.begin - owned.begin),
                 (struct origin){-1, 0});
        return;
    }
    for (int r = 0; r < state->record_count; r++) {
        int number = state->first_record + r;
        int64_t begin = owned.begin + zero->records[number].begin;
        struct zinf_range part = zinf_range_intersect(
            shard, (struct zinf_range){begin, begin + zero->records[number].count});
        add_part(arrays, kind, block, part, NULL, (struct origin){number, part.begin - begin});
    }
}

/* A slice that is on NVMe: the record stays in the buffer while slices of it follow each other. */
static const float *fetch_slice(void *context, int array, int slice)
{
    struct arrays *arrays = context;
    const struct origin *origin = &arrays->origins[array][slice];
    int part = array / arrays->param_count;
    if (origin->record != arrays->record || part != arrays->part)
        arrays->values = zinf_zero_read_part(arrays->zero, origin->record, part);
    arrays->record = origin->record;
    arrays->part = part;
    return arrays->values + origin->offset;
}

static int attributes_of(const struct zinf_run_state *s, struct zinf_attribute *out)
{
    const struct zinf_attribute all[RUN_ATTRIBUTES] = {
        {"step", false, s->step, 0},
        {"samples", false, s->samples, 0},
        {"tokens", false, s->tokens, 0},
        {"epoch", false, s->epoch, 0},
        {"cursor", false, s->cursor, 0},
        {"seed", false, s->seed, 0},
        {"optimizer_steps", false, s->optimizer_steps, 0},
        {"skipped", false, s->skipped, 0},
        {"scheduler_iteration", false, s->scheduler_iteration, 0},
        {"lr", true, 0, s->lr},
        {"loss_scale", true, 0, s->loss_scale},
        {"loss_scale_hysteresis", false, s->loss_scale_hysteresis, 0},
        {"loss_scale_iteration", false, s->loss_scale_iteration, 0},
        {"loss_scale_last_overflow", false, s->loss_scale_last_overflow, 0}};
    memcpy(out, all, sizeof all);
    return RUN_ATTRIBUTES;
}

int zinf_snapshot_save(const struct zinf_snapshot *snapshot, const struct zinf_run_state *state,
                       const char *path)
{
    const struct zinf_model *model = snapshot->zero->options.model;
    struct zinf_attribute attributes[RUN_ATTRIBUTES];
    struct arrays arrays = make_arrays(snapshot);
    char *target = zinf_format("/model/%s", model->params[model->blocks[0].pieces[0].param].name);
    for (int kind = 0; kind <= snapshot->moment_count; kind++)
        for (int block = 0; block < model->block_count; block++)
            add_shard(&arrays, kind, block);
    struct zinf_hard_link tied = {"/model/lm_head.weight", target};
    const struct zinf_checkpoint checkpoint = {.arrays = arrays.items,
                                               .array_count = arrays.count,
                                               .links = &tied,
                                               .link_count = model->tied ? 1 : 0,
                                               .attributes = attributes,
                                               .attribute_count = attributes_of(state, attributes),
                                               .texts = (struct zinf_text *)snapshot->texts,
                                               .text_count = snapshot->text_count,
                                               .fetch = fetch_slice,
                                               .fetch_context = &arrays};
    int status = zinf_checkpoint_save(snapshot->zero->options.comm, path, &checkpoint);
    free(target);
    arrays_release(&arrays);
    return status;
}

int zinf_snapshot_read_state(const struct zinf_checkpoint_file *file, struct zinf_run_state *state,
                             struct zinf_error *error)
{
    struct zinf_attribute attributes[RUN_ATTRIBUTES];
    struct zinf_run_state s = {0};
    int64_t *const integers[RUN_ATTRIBUTES] = {&s.step,
                                               &s.samples,
                                               &s.tokens,
                                               &s.epoch,
                                               &s.cursor,
                                               &s.seed,
                                               &s.optimizer_steps,
                                               &s.skipped,
                                               &s.scheduler_iteration,
                                               NULL,
                                               NULL,
                                               &s.loss_scale_hysteresis,
                                               &s.loss_scale_iteration,
                                               &s.loss_scale_last_overflow};
    int count = attributes_of(&s, attributes);
    for (int i = 0; i < count; i++) {
        int64_t integer;
        double real;
        if (zinf_checkpoint_attribute(file, attributes[i].name, &integer, &real))
            return zinf_error_set(error, ZINF_E_CHECKPOINT,
                                  "metadata: attribute %s of /run is missing", attributes[i].name);
        if (integers[i])
            *integers[i] = integer;
        else
            *(strcmp(attributes[i].name, "lr") == 0 ? &s.lr : &s.loss_scale) = real;
    }
    *state = s;
    return ZINF_OK;
}

/* Is everything there, as this model and optimizer need it? */
static int check_arrays(const struct zinf_snapshot *snapshot,
                        const struct zinf_checkpoint_file *file, const struct arrays *arrays,
                        struct zinf_error *error)
{
    int model_arrays = snapshot->zero->options.model->param_count;
    for (int i = 0; i < arrays->count; i++) {
        const struct zinf_array *array = &arrays->items[i];
        if (zinf_checkpoint_has(file, array->path, array->dim_count, array->shape))
            continue;
        if (i < model_arrays)
            return zinf_error_set(error, ZINF_E_USAGE,
                                  "the checkpoint is of another model: %s is missing or has "
                                  "another shape; give the model it was made with, or another "
                                  "run folder",
                                  array->path);
        return zinf_error_set(error, ZINF_E_USAGE,
                              "the checkpoint holds no %s: it was made with another optimizer; "
                              "give that optimizer, or another run folder",
                              array->path);
    }
    return ZINF_OK;
}

struct loader {
    const struct zinf_snapshot *snapshot;
    struct zinf_checkpoint_file *file;
    struct zinf_error *error;
};

/* Collective: shards are equally long, so every rank visits equally many parts. */
static int load_part(void *context, int block, struct zinf_range part, float *master,
                     float *const moment[2])
{
    const struct loader *loader = context;
    struct arrays arrays = make_arrays(loader->snapshot);
    for (int kind = 0; kind <= loader->snapshot->moment_count; kind++)
        add_part(&arrays, kind, block, part, kind == 0 ? master : moment[kind - 1],
                 (struct origin){-1, 0});
    int status = zinf_checkpoint_load(loader->file, arrays.items, arrays.count, loader->error);
    arrays_release(&arrays);
    return status;
}

int zinf_snapshot_load(const struct zinf_snapshot *snapshot, struct zinf_checkpoint_file *file,
                       struct zinf_error *error)
{
    struct loader loader = {snapshot, file, error};
    struct arrays arrays = make_arrays(snapshot);
    int status = check_arrays(snapshot, file, &arrays, error);
    arrays_release(&arrays);
    return status ? status : zinf_zero_visit(snapshot->zero, true, load_part, &loader);
}
