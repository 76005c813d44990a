/*
 * From blocks and shards to named tensors and back. A block's shard is cut along its pieces; every
 * piece is a run of one tensor, so a tensor's slices on a rank are contiguous runs, and nothing is
 * ever collected on one rank.
 */
#include "train/snapshot.h"

#include <stdlib.h>
#include <string.h>

#include "io/agree.h"

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

/* All arrays of weights and optimizer state, without slices: kind 0 = master, then the moments. */
struct arrays {
    const struct zinf_snapshot *snapshot;
    struct zinf_array *items; /* (kinds, param_count) */
    int count, param_count;
};

static void arrays_release(struct arrays *arrays)
{
    for (int i = 0; i < arrays->count; i++)
        free((char *)arrays->items[i].path);
    free(arrays->items);
}

static struct arrays make_arrays(const struct zinf_snapshot *snapshot)
{
    const struct zinf_model *model = snapshot->zero->options.model;
    struct arrays arrays = {.snapshot = snapshot,
                            .count = (1 + snapshot->moment_count) * model->param_count,
                            .param_count = model->param_count};
    arrays.items = zinf_alloc((size_t)arrays.count * sizeof *arrays.items);
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

/* A run of one array's elements. `values` are those of the part that is visited; NULL without. */
struct run {
    int array;
    int64_t offset, count;
    float *values;
};

/* Called for each run of a part; what is not 0 ends the walk. */
typedef int (*run_fn)(void *context, const struct run *run);

/* The runs of one kind in `part` of a block. */
static int runs_of_kind(const struct arrays *arrays, int block, struct zinf_range part,
                        struct run run, run_fn call, void *context)
{
    const struct zinf_block *b = &arrays->snapshot->zero->options.model->blocks[block];
    int first_array = run.array, status = 0;
    float *values = run.values;
    for (int i = 0; i < b->piece_count && !status; i++) {
        const struct zinf_piece *piece = &b->pieces[i];
        struct zinf_range common = zinf_range_intersect(
            part, (struct zinf_range){piece->block_offset, piece->block_offset + piece->count});
        run.array = first_array + piece->param;
        run.offset = piece->param_offset + common.begin - piece->block_offset;
        run.count = common.end - common.begin;
        run.values = values ? values + (common.begin - part.begin) : NULL;
        if (run.count > 0)
            status = call(context, &run);
    }
    return status;
}

/* ---- save ---- */

struct pouring {
    const struct arrays *arrays;
    struct zinf_checkpoint_sink *sink;
};

static int put_run(void *context, const struct run *run)
{
    const struct pouring *pouring = context;
    return zinf_checkpoint_put(pouring->sink, run->array, run->offset, run->count, run->values);
}

/* Of what is visited, this rank writes its shard: what lies beyond is another's, or padding. */
static int pour_part(void *context, int block, struct zinf_range part, float *master,
                     float *const moment[2])
{
    struct pouring *pouring = context;
    const struct arrays *arrays = pouring->arrays;
    const struct zinf_snapshot *snapshot = arrays->snapshot;
    struct zinf_range shard = zinf_range_intersect(part, zinf_zero_shard(snapshot->zero, block));
    int status = 0;
    for (int kind = 0; kind <= snapshot->moment_count && !status && shard.begin < shard.end;
         kind++) {
        float *values = kind == 0 ? master : moment[kind - 1];
        struct run first = {.array = kind * arrays->param_count,
                            .values = values + (shard.begin - part.begin)};
        status = runs_of_kind(arrays, block, shard, first, put_run, pouring);
    }
    return status;
}

/* State on NVMe streams through the ring: read ahead while what came before goes to the file. */
static int pour(void *context, struct zinf_checkpoint_sink *sink)
{
    struct pouring pouring = {context, sink};
    return zinf_zero_visit(pouring.arrays->snapshot->zero, false, pour_part, &pouring);
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
    struct zinf_hard_link tied = {"/model/lm_head.weight", target};
    const struct zinf_checkpoint checkpoint = {.arrays = arrays.items,
                                               .array_count = arrays.count,
                                               .links = &tied,
                                               .link_count = model->tied ? 1 : 0,
                                               .attributes = attributes,
                                               .attribute_count = attributes_of(state, attributes),
                                               .texts = (struct zinf_text *)snapshot->texts,
                                               .text_count = snapshot->text_count,
                                               .pour = pour,
                                               .pour_context = &arrays};
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

/* ---- load ---- */

struct loader {
    const struct arrays *arrays;
    const struct zinf_checkpoint_file *file;
    struct zinf_error *error;
};

/* How much of a run is asked for before its turn. */
enum { MOST_AHEAD_ELEMENTS = 4 << 20 };

static int read_run(void *context, const struct run *run)
{
    const struct loader *loader = context;
    return zinf_checkpoint_read(loader->file, loader->arrays->items[run->array].path, run->offset,
                                run->count, run->values, loader->error);
}

static int ask_for_run(void *context, const struct run *run)
{
    const struct loader *loader = context;
    int64_t count = run->count < MOST_AHEAD_ELEMENTS ? run->count : MOST_AHEAD_ELEMENTS;
    zinf_checkpoint_will_read(loader->file, loader->arrays->items[run->array].path, run->offset,
                              count);
    return 0;
}

/* Where the visit that is at `part` goes next, as a guess that costs nothing when it is wrong: as
 * long a part of the same block, or the next block's first. */
static void ask_for_next(struct loader *loader, int block, struct zinf_range part)
{
    const struct zinf_snapshot *snapshot = loader->arrays->snapshot;
    int64_t count = part.end - part.begin;
    struct zinf_range next = zinf_range_intersect((struct zinf_range){part.end, part.end + count},
                                                  zinf_zero_owned(snapshot->zero, block));
    if (next.begin >= next.end) {
        if (++block == snapshot->zero->options.model->block_count)
            return;
        next = zinf_zero_owned(snapshot->zero, block);
        if (next.end - next.begin > count)
            next.end = next.begin + count;
    }
    for (int kind = 0; kind <= snapshot->moment_count; kind++)
        runs_of_kind(loader->arrays, block, next,
                     (struct run){.array = kind * loader->arrays->param_count}, ask_for_run,
                     loader);
}

static int load_part(void *context, int block, struct zinf_range part, float *master,
                     float *const moment[2])
{
    struct loader *loader = context;
    int status = 0;
    ask_for_next(loader, block, part);
    for (int kind = 0; kind <= loader->arrays->snapshot->moment_count && !status; kind++) {
        struct run first = {.array = kind * loader->arrays->param_count,
                            .values = kind == 0 ? master : moment[kind - 1]};
        status = runs_of_kind(loader->arrays, block, part, first, read_run, loader);
    }
    return status;
}

int zinf_snapshot_load(const struct zinf_snapshot *snapshot, struct zinf_checkpoint_file *file,
                       struct zinf_error *error)
{
    struct arrays arrays = make_arrays(snapshot);
    struct loader loader = {&arrays, file, error};
    int status = check_arrays(snapshot, file, &arrays, error);
    if (!status)
        status = zinf_agree_error(snapshot->zero->options.comm,
                                  zinf_zero_visit(snapshot->zero, true, load_part, &loader), error);
    arrays_release(&arrays);
    return status;
}
