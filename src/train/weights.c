/*
 * First weights of the owned parts, random or from a folder. See weights.h.
 */
#include "train/weights.h"

#include <dirent.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/threads.h"
#include "io/safetensors.h"

/* Called for each run of one parameter's elements that this rank owns. */
typedef int (*run_fn)(void *context, int param, int64_t param_offset, int64_t count, float *values);

struct runs {
    const struct zinf_model *model;
    enum zinf_dtype dtype;
    run_fn visit;
    void *context;
};

/* Elements that one thread makes at a time: a 7B model is 150 s of random numbers for one thread.
 */
enum { TASK = 1 << 16 };

struct rounding {
    enum zinf_dtype dtype;
    float *values;
    int64_t count;
};

static void round_task(void *context, int64_t task)
{
    const struct rounding *r = context;
    uint16_t low[1024];
    int64_t end = (task + 1) * TASK < r->count ? (task + 1) * TASK : r->count;
    for (int64_t at = task * TASK; at < end; at += 1024) {
        int64_t n = end - at < 1024 ? end - at : 1024;
        zinf_dtype_convert(low, r->dtype, r->values + at, ZINF_FP32, n);
        zinf_dtype_convert(r->values + at, ZINF_FP32, low, r->dtype, n);
    }
}

/* In 16 bits the masters start from the rounded values, as those of a model that was cast do
 * (contract, "What a batch is"). */
static void round_to(enum zinf_dtype dtype, float *values, int64_t count)
{
    struct rounding rounding = {dtype, values, count};
    if (dtype != ZINF_FP32)
        zinf_cpu_for((count + TASK - 1) / TASK, round_task, &rounding);
}

/* Blocks are flat, files and random numbers are by parameter: the pieces of a block say which
 * elements of which parameters a part of it holds. */
static int runs_of_part(void *context, int block, struct zinf_range part, float *master,
                        float *const moment[2])
{
    const struct runs *runs = context;
    const struct zinf_block *b = &runs->model->blocks[block];
    int status = ZINF_OK;
    (void)moment;
    for (int i = 0; i < b->piece_count && !status; i++) {
        const struct zinf_piece *piece = &b->pieces[i];
        struct zinf_range run = zinf_range_intersect(
            part, (struct zinf_range){piece->block_offset, piece->block_offset + piece->count});
        float *values = master + (run.begin - part.begin);
        if (run.begin == run.end)
            continue;
        status = runs->visit(runs->context, piece->param,
                             piece->param_offset + run.begin - piece->block_offset,
                             run.end - run.begin, values);
        round_to(runs->dtype, values, run.end - run.begin);
    }
    return status;
}

static int for_each_run(struct zinf_zero *zero, run_fn visit, void *context)
{
    struct runs runs = {zero->options.model, zero->options.dtype, visit, context};
    return zinf_zero_visit(zero, true, runs_of_part, &runs);
}

struct random_source {
    const struct zinf_model *model;
    uint64_t seed;
};

/* One run of random_run(). */
struct random_values {
    const struct random_source *source;
    int param;
    int64_t offset, count;
    float *values;
};

static void random_task(void *context, int64_t task)
{
    const struct random_values *v = context;
    int64_t begin = task * TASK, n = v->count - begin < TASK ? v->count - begin : TASK;
    zinf_model_init_values(v->source->model, v->param, v->source->seed, v->offset + begin, n,
                           v->values + begin);
}

/* What an element becomes depends on its number alone, not on who makes it. */
static int random_run(void *context, int param, int64_t offset, int64_t count, float *values)
{
    struct random_values all = {context, param, offset, count, values};
    zinf_cpu_for((count + TASK - 1) / TASK, random_task, &all);
    return ZINF_OK;
}

void zinf_weights_init(struct zinf_zero *zero, uint64_t seed)
{
    struct random_source source = {zero->options.model, seed};
    for_each_run(zero, random_run, &source);
}

struct folder_source {
    const struct zinf_model *model;
    const struct zinf_safetensors *file;
    const struct zinf_safetensors_entry **entries; /* (param_count) */
    struct zinf_error *error;
};

static int folder_run(void *context, int param, int64_t offset, int64_t count, float *values)
{
    const struct folder_source *source = context;
    return zinf_safetensors_read(source->file, source->entries[param], offset, count, values,
                                 source->error);
}

static int check_shape(const struct zinf_param *param, const struct zinf_safetensors_entry *entry,
                       const char *folder, struct zinf_error *error)
{
    char found[128] = "";
    size_t length = 0;
    bool same = entry->dim_count == param->dim_count;
    for (int i = 0; i < entry->dim_count && length < sizeof found; i++) {
        same = same && entry->shape[i] == param->shape[i];
        length += (size_t)snprintf(found + length, sizeof found - length, "%s%lld", i ? ", " : "",
                                   (long long)entry->shape[i]);
    }
    if (same)
        return ZINF_OK;
    if (param->dim_count == 1)
        return zinf_error_set(error, ZINF_E_DATA,
                              "%s: tensor %s has shape (%s), config.json says (%lld)", folder,
                              entry->name, found, (long long)param->shape[0]);
    return zinf_error_set(
        error, ZINF_E_DATA, "%s: tensor %s has shape (%s), config.json says (%lld, %lld)", folder,
        entry->name, found, (long long)param->shape[0], (long long)param->shape[1]);
}

/* Which tensor of the file is which parameter; every parameter must be there, with its shape. */
static int match_tensors(struct folder_source *source, const char *folder)
{
    const struct zinf_model *model = source->model;
    int unknown = 0;
    for (int i = 0; i < source->file->entry_count; i++) {
        const struct zinf_safetensors_entry *entry = &source->file->entries[i];
        int param = zinf_model_find(model, entry->name);
        if (param < 0) {
            if (!zinf_model_ignores(model, entry->name) && unknown++ == 0)
                zinf_warn("%s: tensor %s belongs to no parameter of this %s model and is left out",
                          folder, entry->name, model->family);
            continue;
        }
        int status = check_shape(&model->params[param], entry, folder, source->error);
        if (status)
            return status;
        source->entries[param] = entry;
    }
    if (unknown > 1)
        zinf_warn("%s: %d tensors in all belong to no parameter", folder, unknown);
    for (int i = 0; i < model->param_count; i++)
        if (!source->entries[i])
            return zinf_error_set(source->error, ZINF_E_DATA,
                                  "%s: tensor %s is missing; the weights and config.json do not "
                                  "belong together",
                                  folder, model->params[i].name);
    return ZINF_OK;
}

int zinf_weights_load(struct zinf_zero *zero, const char *folder, struct zinf_error *error)
{
    struct zinf_safetensors file = {0};
    struct folder_source source = {zero->options.model, &file, NULL, error};
    source.entries = zinf_alloc((size_t)zero->options.model->param_count * sizeof *source.entries);
    int status = zinf_safetensors_open(&file, folder, error);
    if (!status)
        status = match_tensors(&source, folder);
    if (!status)
        status = for_each_run(zero, folder_run, &source);
    zinf_safetensors_close(&file);
    free(source.entries);
    return zinf_comm_agree(zero->options.comm, status);
}

static bool matches_any(const char *const *patterns, const char *name)
{
    for (; *patterns; patterns++)
        if (fnmatch(*patterns, name, 0) == 0)
            return true;
    return false;
}

/* The first file by name that holds weights in a format zinf does not read; what transformers'
 * Trainer keeps beside a model is none. NULL: none. */
static char *weights_of_other_format(const char *folder)
{
    static const char *const weights[] = {
        "*.bin",     "*.bin.index.json", "*.pt",   "*.pth",        "tf_model*.h5",
        "*.msgpack", "*.gguf",           "*.ckpt", "*.ckpt.index", NULL};
    static const char *const others[] = {"training_args.bin", "optimizer.*", "scheduler.*",
                                         "scaler.*",          "rng_state*",  NULL};
    char *first = NULL;
    DIR *entries = opendir(folder);
    for (struct dirent *entry; entries && (entry = readdir(entries));) {
        const char *name = entry->d_name;
        if (!matches_any(weights, name) || matches_any(others, name) ||
            (first && strcmp(name, first) > 0))
            continue;
        free(first);
        first = zinf_strdup(name);
    }
    if (entries)
        closedir(entries);
    return first;
}

int zinf_weights_find(const struct zinf_config_model *model, int *has_weights,
                      struct zinf_error *error)
{
    int status = ZINF_OK;
    *has_weights = model->path && zinf_safetensors_folder_has_weights(model->path);
    if (*has_weights || model->init == ZINF_CONFIG_INIT_RANDOM)
        return ZINF_OK;
    char *other = model->path ? weights_of_other_format(model->path) : NULL;
    if (other)
        status =
            zinf_error_set(error, ZINF_E_DATA,
                           "%s holds its weights as %s, which zinf does not read: it needs "
                           "model.safetensors, or shards with model.safetensors.index.json (in "
                           "transformers: save_pretrained(..., safe_serialization=True)); "
                           "--set zinf.model.init=random starts without them",
                           model->path, other);
    else if (model->init == ZINF_CONFIG_INIT_PRETRAINED)
        status =
            zinf_error_set(error, ZINF_E_DATA,
                           "zinf.model.init is \"pretrained\", but %s holds no model.safetensors",
                           model->path ? model->path : "no zinf.model.path is given, which");
    free(other);
    return status;
}
