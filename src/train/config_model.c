/*
 * The model's own configuration: config.json of the folder with the inline fields over it, and what
 * depends on it.
 */
#include "train/config_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/model.h"

/* A path that is given is meant: what is not there would else be replaced by the inline fields and
 * random weights without a word. Looking at the file alone, it is a note. */
static bool folder_exists(struct zinf_loader *loader, const struct zinf_json *path)
{
    struct stat info;
    struct zinf_error_list *errors = &loader->report->errors;
    int missing = stat(path->string, &info) ? errno : S_ISDIR(info.st_mode) ? 0 : ENOTDIR;
    if (missing && loader->options->purpose == ZINF_CONFIG_CHECK) {
        struct zinf_error note;
        zinf_error_set(&note, 0, "a run still needs the folder %s (zinf.model.path): %s",
                       path->string, strerror(missing));
        zinf_error_list_add(&loader->report->notes, &note);
    } else if (missing) {
        zinf_loader_say(loader, errors, zinf_place_of(path), "zinf.model.path",
                        "%s: %s; right is a Hugging Face folder with config.json and "
                        "*.safetensors, or zinf.model.config alone to start from random weights",
                        path->string, strerror(missing));
        errors->items[errors->count - 1].status = ZINF_E_DATA;
    }
    return !missing;
}

static struct zinf_json *read_folder(struct zinf_loader *loader, const char *folder)
{
    struct zinf_json *value = NULL;
    struct zinf_json_options options = {.strict = true, .status = ZINF_E_DATA};
    struct zinf_error_list *errors = &loader->report->errors;
    char *file = zinf_format("%s/config.json", folder);
    bool inline_config = zinf_json_path(loader->tree, "zinf.model.config.model_type") != NULL;
    bool check = loader->options->purpose == ZINF_CONFIG_CHECK;
    if (access(file, F_OK) && (check || inline_config)) {
        struct zinf_error note;
        zinf_error_set(&note, 0, "a run still needs %s, which does not exist", file);
        if (!inline_config)
            zinf_error_list_add(&loader->report->notes, &note);
        free(file);
        return NULL;
    }
    if (!zinf_json_read(&value, file, &options, errors) && value->type != ZINF_JSON_OBJECT) {
        struct zinf_error error;
        zinf_error_at(&error, ZINF_E_DATA,
                      (struct zinf_text_place){file, value->line, value->column},
                      "a model's config.json is an object: { ... }");
        zinf_error_list_add(errors, &error);
        zinf_json_free(value);
        value = NULL;
    }
    if (value)
        loader->config->model.config_source = file;
    else
        free(file);
    return value;
}

static const char fields_path[] = "zinf.model.config";

/* "zinf.model.config.rope_scaling.factor"; owned by the caller. */
static char *field_path(const char *parent, const char *key)
{
    return zinf_format("%s.%s%s%s", fields_path, parent, *parent ? "." : "", key);
}

static void check_field(struct zinf_loader *loader, const char *family, const char *parent,
                        const struct zinf_json *object, size_t i)
{
    const char *nearest;
    struct zinf_place place = {object->key_lines[i], object->key_columns[i]};
    enum zinf_model_field field = zinf_model_field(family, parent, object->keys[i], &nearest);
    char *path = field_path(parent, object->keys[i]);
    if (field == ZINF_MODEL_FIELD_UNKNOWN)
        zinf_loader_say(loader, &loader->report->errors, place, path,
                        "unknown key of %s models; the nearest known one is %s", family, nearest);
    if (field == ZINF_MODEL_FIELD_IGNORED)
        zinf_loader_say(loader, &loader->report->no_effect, place, path, "%s", "");
    free(path);
}

/* The model's family, NULL when it is unknown or not there. */
static const char *family_of(const struct zinf_json *config)
{
    const char *name = zinf_json_string(config, "model_type", NULL);
    return name && zinf_model_architecture(name) ? name : NULL;
}

void zinf_config_check_fields(struct zinf_loader *loader)
{
    const struct zinf_json *fields = zinf_json_path(loader->tree, fields_path);
    const struct zinf_json *path = zinf_json_path(loader->tree, "zinf.model.path");
    struct zinf_config_model *model = &loader->config->model;
    if (path && path->type == ZINF_JSON_STRING && folder_exists(loader, path))
        model->config = read_folder(loader, path->string);
    if (!fields || fields->type != ZINF_JSON_OBJECT)
        return;
    const char *family = family_of(zinf_json_get(fields, "model_type") ? fields : model->config);
    for (size_t i = 0; family && i < fields->count; i++) {
        const char *key = fields->keys[i];
        const struct zinf_json *value = fields->members[i];
        check_field(loader, family, "", fields, i);
        bool rope = !strcmp(key, "rope_scaling") || !strcmp(key, "rope_parameters");
        for (size_t j = 0; rope && value->type == ZINF_JSON_OBJECT && j < value->count; j++)
            check_field(loader, family, key, value, j);
    }
}

/* What is wrong in a merged config.json, with the place it came from: the folder's file, or ds.json
 * if the field (its part before the dot) stands there. */
static void say_problem(void *context, const char *key, const struct zinf_json *value,
                        const char *right)
{
    struct zinf_loader *loader = context;
    char *first = zinf_strdup(key), *is = value ? zinf_json_print(value, -1) : NULL;
    first[strcspn(first, ".")] = '\0';
    const struct zinf_json *fields = zinf_json_path(loader->tree, fields_path);
    const char *file = loader->config->model.config_source;
    bool here = zinf_json_get(fields, first) || !strcmp(file, fields_path);
    char *path = here ? field_path("", key) : zinf_strdup(key);
    const struct zinf_json *parent = zinf_json_get(loader->config->model.config, first);
    struct zinf_place place = value && value->line ? zinf_place_of(value)
                              : here               ? zinf_loader_place(loader, path)
                              : parent             ? zinf_place_of(parent)
                                                   : (struct zinf_place){0, 0};
    char text[512];
    snprintf(text, sizeof text, "%.200s%s; %s", is ? is : "missing", is ? " is wrong" : "", right);
    struct zinf_error error;
    if (here) {
        zinf_loader_say(loader, &loader->report->errors, place, path, "%s", text);
    } else {
        zinf_error_at(&error, ZINF_E_DATA, (struct zinf_text_place){file, place.line, place.column},
                      "%s: %s", key, text);
        zinf_error_list_add(&loader->report->errors, &error);
    }
    free(path);
    free(is);
    free(first);
}

static void check_sequence(struct zinf_loader *loader, int64_t positions)
{
    static const char path[] = "zinf.data.sequence_length";
    const struct zinf_json *given = zinf_json_path(loader->tree, path);
    if (!given || given->type == ZINF_JSON_NULL)
        zinf_tree_set(loader->tree, path,
                      zinf_json_new_integer(positions > 0 && positions < 1024 ? positions : 1024));
    else if (positions && given->integer > positions)
        zinf_loader_say(loader, &loader->report->errors, zinf_place_of(given), path,
                        "%" PRId64 " is more than the model's %" PRId64
                        " positions; right is at most %" PRId64,
                        given->integer, positions, positions);
}

/* The inline fields over the folder's; a field replaces its other spelling too. */
static void merge_fields(struct zinf_config_model *model, const struct zinf_json *fields)
{
    const char *family = family_of(zinf_json_get(fields, "model_type") ? fields : model->config);
    if (!model->config)
        model->config = zinf_json_new(ZINF_JSON_OBJECT);
    for (size_t i = 0; i < fields->count; i++) {
        const char *alias = family ? zinf_model_alias(family, fields->keys[i]) : NULL;
        if (alias && !zinf_json_get(fields, alias))
            zinf_json_remove(model->config, alias);
        zinf_json_set(model->config, fields->keys[i], zinf_json_copy(fields->members[i]));
    }
    if (!model->config_source)
        model->config_source = zinf_strdup(fields_path);
}

void zinf_config_read_model(struct zinf_loader *loader)
{
    const struct zinf_json *fields = zinf_json_path(loader->tree, fields_path);
    struct zinf_config_model *model = &loader->config->model;
    const struct zinf_json *path = zinf_json_path(loader->tree, "zinf.model.path");
    bool folder = path && path->type == ZINF_JSON_STRING;
    bool typed = fields && fields->type == ZINF_JSON_OBJECT;
    /* fields alone, over a folder that is not there yet: nothing can be said about the whole */
    bool half = !model->config && folder && typed && !zinf_json_get(fields, "model_type");
    if (typed)
        merge_fields(model, fields);
    bool whole = model->config && !half;
    check_sequence(loader, whole ? zinf_model_check(model->config, say_problem, loader) : 0);
}
