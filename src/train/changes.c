/*
 * What differs between a checkpoint and the run that would go on from it: the model and the seed
 * must be the same, everything else is listed and used. Bits depend on more than the configuration:
 * build, kernels and threads stand in /provenance too, and another of them is noted.
 */
#include "train/run.h"

#include <stdlib.h>
#include <string.h>

#include "base/json_diff.h"
#include "base/version.h"
#include "cpu/matmul.h"

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

void zinf_run_circumstances(const struct zinf_run *run, struct zinf_circumstances *now)
{
    const struct zinf_device *device = &run->processor;
    const bool cpu = device->properties.host_addressable;
    snprintf(now->world_size, sizeof now->world_size, "%d", run->comm->size);
    snprintf(now->build, sizeof now->build, "%s, %s, %s", zinf_version(), zinf_build_compiler(),
             zinf_build_flags());
    for (size_t length = strlen(now->build); length && now->build[length - 1] == ' '; length--)
        now->build[length - 1] = '\0';
    snprintf(now->kernels, sizeof now->kernels, "%s, %s", device->backend->operations()->name,
             cpu ? zinf_cpu_matmul_name() : device->properties.name);
    snprintf(now->threads, sizeof now->threads, "%d", run->threads);
}

static void list_circumstances(const struct zinf_run *run, const struct zinf_checkpoint_file *file)
{
    struct zinf_circumstances now;
    zinf_run_circumstances(run, &now);
    const struct {
        const char *dataset, *name, *now;
    } rows[] = {{"world_size", "ranks", now.world_size},
                {"build", "build", now.build},
                {"kernels", "kernels", now.kernels},
                {"threads", "threads of a rank", now.threads}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *before = zinf_checkpoint_text(file, rows[i].dataset);
        if (before && strcmp(before, rows[i].now) != 0)
            zinf_info("changed since the checkpoint: %s: %s -> %s (the numbers go on within "
                      "rounding, not bit for bit)",
                      rows[i].name, before, rows[i].now);
    }
}

void zinf_run_list_changes(const struct zinf_run *run, const struct zinf_checkpoint_file *file)
{
    struct zinf_json *before = parse_text(zinf_checkpoint_text(file, "config"));
    if (run->comm->rank == 0)
        list_circumstances(run, file);
    if (before && run->comm->rank == 0)
        zinf_json_diff(before, run->config->effective, say_change, NULL);
    zinf_json_free(before);
}
