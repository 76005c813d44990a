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

/* The arrays of a snapshot with all they point to: paths and slices. */
struct arrays {
    struct zinf_array *items;
    int count;
};

static void arrays_release(struct arrays *arrays)
{
    for (int i = 0; i < arrays->count; i++) {
        free((char *)arrays->items[i].path);
        free((struct zinf_slice *)arrays->items[i].slices);
    }
    free(arrays->items);
}

/* Values of block `block` from element `at` on: kind 0 = master, 1, 2 = moments. */
static float *values_at(const struct zinf_zero *zero, int block, int kind, int64_t at)
{
    const struct zinf_block_state *state = &zero->blocks[block];
    return (kind == 0 ? state->master : state->moment[kind - 1]) + at -
           zinf_zero_owned(zero, block).begin;
}

static void add_slices(const struct zinf_snapshot *snapshot, struct zinf_array *arrays, int kind,
                       bool whole)
{
    const struct zinf_zero *zero = snapshot->zero;
    const struct zinf_model *model = zero->options.model;
    for (int b = 0; b < model->block_count; b++) {
        struct zinf_range mine = whole ? zinf_zero_owned(zero, b) : zinf_zero_shard(zero, b);
        for (int i = 0; i < model->blocks[b].piece_count; i++) {
            const struct zinf_piece *piece = &model->blocks[b].pieces[i];
            struct zinf_range part = zinf_range_intersect(
                mine, (struct zinf_range){piece->block_offset, piece->block_offset + piece->count});
            struct zinf_array *array = &arrays[piece->param];
            if (part.begin == part.end)
                continue;
            struct zinf_slice *slices =
                zinf_realloc((struct zinf_slice *)array->slices,
                             (size_t)(array->slice_count + 1) * sizeof *slices);
            slices[array->slice_count++] =
                (struct zinf_slice){piece->param_offset + part.begin - piece->block_offset,
                                    part.end - part.begin, values_at(zero, b, kind, part.begin)};
            array->slices = slices;
        }
    }
}

/* whole: this rank's owned parts (load); else its share of one copy of everything (save). */
static struct arrays make_arrays(const struct zinf_snapshot *snapshot, bool whole)
{
    const struct zinf_model *model = snapshot->zero->options.model;
    struct arrays arrays = {.count = (1 + snapshot->moment_count) * model->param_count};
    arrays.items = zinf_alloc((size_t)arrays.count * sizeof *arrays.items);
    for (int kind = 0; kind <= snapshot->moment_count; kind++) {
        struct zinf_array *group = arrays.items + kind * model->param_count;
        for (int i = 0; i < model->param_count; i++) {
            const struct zinf_param *param = &model->params[i];
            group[i].path = kind == 0 ? zinf_format("/model/%s", param->name)
                                      : zinf_format("/optimizer/%s/%s",
                                                    snapshot->moment_names[kind - 1], param->name);
            group[i].dim_count = param->dim_count;
            memcpy(group[i].shape, param->shape, sizeof param->shape);
        }
        add_slices(snapshot, group, kind, whole);
    }
    return arrays;
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
    struct arrays arrays = make_arrays(snapshot, false);
    char *target = zinf_format("/model/%s", model->params[model->blocks[0].pieces[0].param].name);
    struct zinf_hard_link tied = {"/model/lm_head.weight", target};
    const struct zinf_checkpoint checkpoint = {.arrays = arrays.items,
                                               .array_count = arrays.count,
                                               .links = &tied,
                                               .link_count = model->tied ? 1 : 0,
                                               .attributes = attributes,
                                               .attribute_count = attributes_of(state, attributes),
                                               .texts = (struct zinf_text *)snapshot->texts,
                                               .text_count = snapshot->text_count};
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

int zinf_snapshot_load(const struct zinf_snapshot *snapshot, struct zinf_checkpoint_file *file,
                       struct zinf_error *error)
{
    struct arrays arrays = make_arrays(snapshot, true);
    int status = check_arrays(snapshot, file, &arrays, error);
    if (!status)
        status = zinf_checkpoint_load(file, arrays.items, arrays.count, error);
    arrays_release(&arrays);
    return status;
}
