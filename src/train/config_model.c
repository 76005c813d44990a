/*
 * The model's own configuration: config.json of the folder with the inline fields over it, and what
 * depends on it.
 */
#include "train/config_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
        zinf_error_at(&error, ZINF_E_DATA, file, value->line, value->column,
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

static void check_sequence(struct zinf_loader *loader)
{
    static const char *const names[] = {"n_positions", "max_position_embeddings", "n_ctx"};
    static const char path[] = "zinf.data.sequence_length";
    const struct zinf_json *config = loader->config->model.config;
    const struct zinf_json *given = zinf_json_path(loader->tree, path);
    int64_t positions = 0;
    for (int i = 0; i < 3 && !positions; i++)
        positions = zinf_json_integer(config, names[i], 0);
    if (!given || given->type == ZINF_JSON_NULL)
        zinf_tree_set(loader->tree, path,
                      zinf_json_new_integer(positions > 0 && positions < 1024 ? positions : 1024));
    else if (positions && given->integer > positions)
        zinf_loader_say(loader, &loader->report->errors, zinf_place_of(given), path,
                        "%" PRId64 " is more than the model's %" PRId64
                        " positions; right is at most %" PRId64,
                        given->integer, positions, positions);
}

void zinf_config_read_model(struct zinf_loader *loader)
{
    const struct zinf_json *path = zinf_json_path(loader->tree, "zinf.model.path");
    const struct zinf_json *fields = zinf_json_path(loader->tree, "zinf.model.config");
    struct zinf_config_model *model = &loader->config->model;
    if (path && path->type == ZINF_JSON_STRING)
        model->config = read_folder(loader, path->string);
    if (fields && fields->type == ZINF_JSON_OBJECT) {
        if (!model->config)
            model->config = zinf_json_new(ZINF_JSON_OBJECT);
        for (size_t i = 0; i < fields->count; i++)
            zinf_json_set(model->config, fields->keys[i], zinf_json_copy(fields->members[i]));
        if (!model->config_source)
            model->config_source = zinf_strdup("zinf.model.config");
    }
    check_sequence(loader);
}
