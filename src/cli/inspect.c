/*
 * Reports on checkpoints, weights and runs. See inspect.h.
 */
#include "cli/inspect.h"

#include "io/checkpoint.h"
#include "io/safetensors.h"
#include "train/checkpoint_folder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void set_text(struct zinf_json *object, const char *key, const char *value)
{
    zinf_json_set(object, key, zinf_json_new_string(value));
}

static void set_integer(struct zinf_json *object, const char *key, int64_t value)
{
    zinf_json_set(object, key, zinf_json_new_integer(value));
}

/* ---- tensors ---- */

static int64_t elements(int dim_count, const int64_t *shape)
{
    int64_t count = 1;
    for (int i = 0; i < dim_count; i++)
        count *= shape[i];
    return count;
}

static struct zinf_json *new_tensor(const char *name, const char *dtype, int dim_count,
                                    const int64_t *shape)
{
    struct zinf_json *tensor = zinf_json_new(ZINF_JSON_OBJECT);
    struct zinf_json *sizes = zinf_json_new(ZINF_JSON_ARRAY);
    for (int i = 0; i < dim_count; i++)
        zinf_json_append(sizes, zinf_json_new_integer(shape[i]));
    set_text(tensor, "name", name);
    set_text(tensor, "dtype", dtype);
    zinf_json_set(tensor, "shape", sizes);
    return tensor;
}

static void set_totals(struct zinf_json *report, struct zinf_json *tensors, int64_t parameters,
                       int64_t bytes)
{
    set_integer(report, "tensor_count", (int64_t)tensors->count);
    set_integer(report, "parameters", parameters);
    set_integer(report, "bytes", bytes);
    zinf_json_set(report, "tensors", tensors);
}

/* ---- checkpoint ---- */

static struct zinf_json *run_attributes(const struct zinf_checkpoint_file *file)
{
    const struct zinf_attribute *attributes;
    struct zinf_json *run = zinf_json_new(ZINF_JSON_OBJECT);
    int count = zinf_checkpoint_attributes(file, &attributes);
    for (int i = 0; i < count; i++)
        zinf_json_set(run, attributes[i].name,
                      attributes[i].is_real ? zinf_json_new_number(attributes[i].real)
                                            : zinf_json_new_integer(attributes[i].integer));
    return run;
}

static void describe_entries(const struct zinf_checkpoint_file *file, struct zinf_json *report)
{
    const struct zinf_checkpoint_entry *entries;
    struct zinf_json *tensors = zinf_json_new(ZINF_JSON_ARRAY);
    struct zinf_json *texts = zinf_json_new(ZINF_JSON_OBJECT);
    int count = zinf_checkpoint_entries(file, &entries);
    int64_t parameters = 0, bytes = 0;
    for (int i = 0; i < count; i++) {
        const struct zinf_checkpoint_entry *entry = &entries[i];
        if (entry->file_offset < 0) {
            const char *name = strrchr(entry->path, '/') + 1;
            set_text(texts, name, zinf_checkpoint_text(file, name));
            continue;
        }
        struct zinf_json *tensor = new_tensor(entry->path, "F32", entry->dim_count, entry->shape);
        set_integer(tensor, "bytes", entry->link_target ? 0 : (int64_t)entry->bytes);
        if (entry->link_target)
            set_text(tensor, "link", entry->link_target);
        else
            bytes += (int64_t)entry->bytes;
        if (!entry->link_target && !strncmp(entry->path, "/model/", 7))
            parameters += elements(entry->dim_count, entry->shape);
        zinf_json_append(tensors, tensor);
    }
    zinf_json_set(report, "run", run_attributes(file));
    zinf_json_set(report, "provenance", texts);
    set_totals(report, tensors, parameters, bytes);
}

static int describe_checkpoint(const struct zinf_inspect *inspect, const char *path,
                               struct zinf_json *report, struct zinf_error *error)
{
    struct zinf_checkpoint_file *file;
    int status = zinf_checkpoint_open(&file, inspect->comm, path, error);
    if (status)
        return status;
    set_text(report, "kind", "checkpoint");
    describe_entries(file, report);
    if (inspect->verify) {
        status = zinf_checkpoint_verify(file, error);
        zinf_json_set(report, "verified", zinf_json_new_bool(!status));
    }
    zinf_checkpoint_close(file);
    return status;
}

/* ---- weights ---- */

static int is_weight(const char *dtype)
{
    return strchr("FB", *dtype) && strcmp(dtype, "BOOL");
}

static int describe_weights(const char *path, struct zinf_json *report, struct zinf_error *error)
{
    struct zinf_safetensors weights;
    int status = zinf_safetensors_open(&weights, path, error);
    if (status)
        return status;
    struct zinf_json *tensors = zinf_json_new(ZINF_JSON_ARRAY);
    int64_t parameters = 0, bytes = 0;
    for (int i = 0; i < weights.entry_count; i++) {
        const struct zinf_safetensors_entry *entry = &weights.entries[i];
        struct zinf_json *tensor =
            new_tensor(entry->name, entry->dtype, entry->dim_count, entry->shape);
        set_integer(tensor, "bytes", entry->bytes);
        if (weights.file_count > 1)
            set_text(tensor, "file", strrchr(weights.files[entry->file], '/') + 1);
        bytes += entry->bytes;
        if (is_weight(entry->dtype))
            parameters += elements(entry->dim_count, entry->shape);
        zinf_json_append(tensors, tensor);
    }
    set_text(report, "kind", "safetensors");
    set_integer(report, "file_count", weights.file_count);
    set_totals(report, tensors, parameters, bytes);
    zinf_safetensors_close(&weights);
    return 0;
}

/* Read a JSON file; the first problem is told. */
static int read_json(const char *path, struct zinf_json **value, struct zinf_error *error)
{
    struct zinf_error_list errors = {0};
    struct zinf_json_options options = {path, true, ZINF_E_DATA, false};
    int status = zinf_json_read(value, path, &options, &errors);
    if (status) {
        *error = errors.items[0];
        zinf_error_list_release(&errors);
    }
    return status;
}

static int describe_model(const char *path, struct zinf_json *report, struct zinf_error *error)
{
    char *config_path = zinf_format("%s/config.json", path);
    struct zinf_json *config = NULL;
    int status = access(config_path, F_OK) ? 0 : read_json(config_path, &config, error);
    free(config_path);
    if (!status && config)
        zinf_json_set(report, "config", config);
    if (!status && (zinf_safetensors_folder_has_weights(path) || !config))
        status = describe_weights(path, report, error);
    set_text(report, "kind", "model");
    return status;
}

/* ---- run folder ---- */

static struct zinf_json *checkpoint_row(const struct zinf_inspect *inspect, const char *path)
{
    struct zinf_json *row = zinf_json_new(ZINF_JSON_OBJECT);
    struct zinf_json *report = zinf_json_new(ZINF_JSON_OBJECT);
    struct zinf_error error;
    set_text(row, "name", strrchr(path, '/') + 1);
    if (describe_checkpoint(inspect, path, report, &error)) {
        set_text(row, "damaged", error.text);
    } else {
        set_integer(row, "step", zinf_json_integer(zinf_json_get(report, "run"), "step", -1));
        set_integer(row, "bytes", zinf_json_integer(report, "bytes", 0));
        if (inspect->verify)
            zinf_json_set(row, "verified", zinf_json_new_bool(true));
    }
    zinf_json_free(report);
    return row;
}

/* Every checkpoint of the folder, oldest first. @return ZINF_E_CHECKPOINT when one is damaged */
static int describe_checkpoints(const struct zinf_inspect *inspect, const char *folder,
                                struct zinf_json *rows, struct zinf_error *error)
{
    int64_t *steps = NULL, latest = zinf_checkpoint_folder_linked(folder, "latest");
    int64_t best = zinf_checkpoint_folder_linked(folder, "best");
    int status = 0;
    for (int i = zinf_checkpoint_folder_list(folder, &steps) - 1; i >= 0; i--) {
        char *path = zinf_checkpoint_folder_path(folder, steps[i]);
        struct zinf_json *row = checkpoint_row(inspect, path);
        if (steps[i] == latest)
            zinf_json_set(row, "latest", zinf_json_new_bool(true));
        if (steps[i] == best)
            zinf_json_set(row, "best", zinf_json_new_bool(true));
        if (!status && zinf_json_get(row, "damaged"))
            status = zinf_error_in(error, ZINF_E_CHECKPOINT, path, "%s",
                                   zinf_json_string(row, "damaged", ""));
        zinf_json_append(rows, row);
        free(path);
    }
    free(steps);
    return status;
}

static int describe_run(const struct zinf_inspect *inspect, const char *path,
                        struct zinf_json *report, struct zinf_error *error)
{
    char *results_path = zinf_format("%s/results.json", path);
    struct zinf_json *results = NULL, *rows = zinf_json_new(ZINF_JSON_ARRAY);
    int status = access(results_path, F_OK) ? 0 : read_json(results_path, &results, error);
    int damaged = describe_checkpoints(inspect, path, rows, error);
    set_text(report, "kind", "run");
    if (results)
        zinf_json_set(report, "results", results);
    zinf_json_set(report, "checkpoints", rows);
    free(results_path);
    return status ? status : damaged;
}

/* ---- what is it? ---- */

static int exists_in(const char *folder, const char *name)
{
    char *path = zinf_format("%s/%s", folder, name);
    int found = access(path, F_OK) == 0;
    free(path);
    return found;
}

static int is_hdf5(const char *path)
{
    unsigned char head[4] = {0};
    FILE *file = fopen(path, "rb");
    size_t got = file ? fread(head, 1, 4, file) : 0;
    if (file)
        fclose(file);
    return got == 4 && !memcmp(head, "\x89HDF", 4);
}

static int ends_with(const char *path, const char *ending)
{
    size_t length = strlen(path), tail = strlen(ending);
    return length >= tail && !strcmp(path + length - tail, ending);
}

int zinf_inspect_path(const struct zinf_inspect *inspect, const char *path,
                      struct zinf_json *report, struct zinf_error *error)
{
    struct stat status;
    if (stat(path, &status) || (S_ISDIR(status.st_mode) && access(path, R_OK | X_OK)))
        return zinf_error_in(error, ZINF_E_USAGE, path, "%s", strerror(errno));
    set_text(report, "kind", "");
    set_text(report, "path", path);
    if (S_ISDIR(status.st_mode) && exists_in(path, "checkpoints"))
        return describe_run(inspect, path, report, error);
    if (S_ISDIR(status.st_mode))
        return describe_model(path, report, error);
    if (is_hdf5(path) || ends_with(path, ".h5"))
        return describe_checkpoint(inspect, path, report, error);
    if (ends_with(path, ".safetensors"))
        return describe_weights(path, report, error);
    return zinf_error_in(error, ZINF_E_USAGE, path,
                         "is neither a checkpoint (.h5), a .safetensors file, a model folder nor a "
                         "run folder");
}
