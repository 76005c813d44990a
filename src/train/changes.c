/*
 * What differs between a checkpoint and the run that would go on from it: the model and the seed
 * must be the same, everything else is listed and used.
 */
#include "train/run.h"

#include <stdlib.h>
#include <string.h>

#include "base/json_diff.h"

static struct zinf_json *parse_text(const char *text)
{
    const struct zinf_json_options options = {.file = "/provenance", .strict = true};
    struct zinf_error_list errors = {0};
    struct zinf_json *value = NULL;
    if (text && zinf_json_parse(&value, text, strlen(text), &options, &errors))
        value = NULL;
    zinf_error_list_release(&errors);
    return value;
}

/* Dropout makes another training, not another model to evaluate. */
static bool is_same_model(const struct zinf_model *a, const struct zinf_model *b, bool training)
{
    struct zinf_model one = *a, two = *b;
    if (!training) {
        one.embedding_dropout = one.attention_dropout = one.residual_dropout = 0;
        two.embedding_dropout = two.attention_dropout = two.residual_dropout = 0;
    }
    return zinf_model_fingerprint(&one) == zinf_model_fingerprint(&two);
}

int zinf_run_check_model(const struct zinf_run *run, const struct zinf_checkpoint_file *file,
                         const char *path, bool training, struct zinf_error *error)
{
    static const char *const where[2] = {"in the checkpoint", "now"};
    struct zinf_json *config = parse_text(zinf_checkpoint_text(file, "model_config"));
    struct zinf_model *model = NULL;
    struct zinf_error ignored;
    char text[1000];
    int status = ZINF_OK;
    if (config && !zinf_model_new(&model, config, path, &ignored) &&
        !is_same_model(model, run->model, training)) {
        zinf_model_differences(model, run->model, where, text, sizeof text);
        status = zinf_error_set(
            error, ZINF_E_USAGE,
            "%.300s: the checkpoint is of another model: %s; set that back in "
            "zinf.model, or give another %s",
            path, text, training ? "run folder with --run-dir" : "checkpoint with --checkpoint");
    }
    zinf_model_free(model);
    zinf_json_free(config);
    return status;
}

int zinf_run_check_seed(const struct zinf_run *run, int64_t seed, const char *path,
                        struct zinf_error *error)
{
    if (seed == run->config->train.seed)
        return ZINF_OK;
    return zinf_error_set(error, ZINF_E_USAGE,
                          "%s: the checkpoint was made with seed %lld, now "
                          "zinf.train.seed is %lld; set it back, or use another run folder",
                          path, (long long)seed, (long long)run->config->train.seed);
}

static char *value_text(const struct zinf_json *value)
{
    return value ? zinf_json_print(value, -1) : zinf_strdup("not set");
}

static void say_change(void *context, const char *path, const struct zinf_json *before,
                       const struct zinf_json *now)
{
    (void)context;
    char *a = value_text(before), *b = value_text(now);
    zinf_info("changed since the checkpoint: %s: %s -> %s", path, a, b);
    free(a);
    free(b);
}

void zinf_run_list_changes(const struct zinf_run *run, const struct zinf_checkpoint_file *file)
{
    struct zinf_json *before = parse_text(zinf_checkpoint_text(file, "config"));
    if (before && run->comm->rank == 0)
        zinf_json_diff(before, run->config->effective, say_change, NULL);
    zinf_json_free(before);
}
