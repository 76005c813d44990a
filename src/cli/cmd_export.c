/*
 * zinf export: the weights of a checkpoint as a Hugging Face folder. All ranks write, each its
 * share of every tensor.
 */
#include "cli/command.h"
#include "cli/export_folder.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/json.h"
#include "base/words.h"
#include "io/agree.h"
#include "io/checkpoint.h"
#include "io/safetensors.h"
#include "train/terminal.h"

static const int64_t usual_shard_bytes = INT64_C(5000000000); /* transformers' default */

struct export
{
    struct zinf_comm *comm;
    struct zinf_checkpoint_file *file;
    const char **paths; /* of the tensors in the checkpoint */
    struct zinf_export_tensor *tensors;
    int64_t element_count;
    struct zinf_safetensors_content content;
    char *out;       /* without a slash at the end */
    char *temporary; /* rank 0: the folder being made, once it exists */
};

/* ---- what to write ---- */

static int read_tensor(void *context, int index, int64_t offset, int64_t count, float *out,
                       struct zinf_error *error)
{
    const struct export *export = context;
    return zinf_checkpoint_read(export->file, export->paths[index], offset, count, out, error);
}

/* The order in which they were laid out is the model's own. */
static int by_offset(const void *a, const void *b)
{
    const struct zinf_checkpoint_entry *one = *(const struct zinf_checkpoint_entry *const *)a;
    const struct zinf_checkpoint_entry *two = *(const struct zinf_checkpoint_entry *const *)b;
    return (one->file_offset > two->file_offset) - (one->file_offset < two->file_offset);
}

static void add_tensor(struct export *export, const struct zinf_checkpoint_entry *entry)
{
    struct zinf_export_tensor *tensor = &export->tensors[export->content.tensor_count];
    int64_t count = 1;
    for (int i = 0; i < entry->dim_count; i++)
        count *= entry->shape[i];
    *tensor = (struct zinf_export_tensor){.name = entry->path + strlen("/model/"),
                                          .dim_count = entry->dim_count,
                                          .read = read_tensor,
                                          .context = export};
    memcpy(tensor->shape, entry->shape, sizeof tensor->shape);
    export->paths[export->content.tensor_count++] = entry->path;
    export->element_count += count;
}

/* All of /model; a tied head is a link and stays out, transformers ties it again. */
static int collect_tensors(struct export *export, struct zinf_error *error)
{
    const struct zinf_checkpoint_entry *entries;
    int count = zinf_checkpoint_entries(export->file, &entries), chosen = 0;
    const struct zinf_checkpoint_entry **order = zinf_alloc(sizeof *order * (size_t)count);
    for (int i = 0; i < count; i++)
        if (!entries[i].link_target && !strncmp(entries[i].path, "/model/", strlen("/model/")))
            order[chosen++] = &entries[i];
    qsort(order, (size_t)chosen, sizeof *order, by_offset);
    export->tensors = zinf_alloc(sizeof *export->tensors * (size_t)count);
    export->content.tensors = export->tensors;
    export->paths = zinf_alloc(sizeof *export->paths * (size_t)count);
    for (int i = 0; i < chosen; i++)
        add_tensor(export, order[i]);
    free(order);
    return chosen ? 0
                  : zinf_error_set(error, ZINF_E_USAGE, "the checkpoint has no /model to export");
}

/* A run folder stands for its latest checkpoint. */
static char *checkpoint_path(const char *path)
{
    struct stat status;
    if (!stat(path, &status) && S_ISDIR(status.st_mode))
        return zinf_format("%s/checkpoints/latest", path);
    return zinf_strdup(path);
}

static int read_options(struct export *export, const struct zinf_options *options,
                        struct zinf_error *error)
{
    const char *dtype = zinf_options_value(options, "--dtype", "fp32");
    const char *size = zinf_options_value(options, "--shard-size", NULL);
    if (zinf_dtype_parse(dtype, &export->content.dtype))
        return zinf_error_set(error, ZINF_E_USAGE, "--dtype %s: one of fp32, bf16, fp16", dtype);
    export->content.shard_bytes = usual_shard_bytes;
    if (size &&
        (zinf_size_parse(size, &export->content.shard_bytes) || export->content.shard_bytes <= 0))
        return zinf_error_set(error, ZINF_E_USAGE, "--shard-size %s: a size such as 5GB", size);
    export->out = zinf_strdup(options->arguments[1]);
    for (size_t length = strlen(export->out); length > 1 && export->out[length - 1] == '/';)
        export->out[--length] = '\0';
    return 0;
}

/* ---- the folder ---- */

/* Everything but weights. */
static int add_files(const struct export *export, struct zinf_error *error)
{
    const char *model = zinf_checkpoint_text(export->file, "model_config");
    const char *text = zinf_checkpoint_text(export->file, "config");
    if (!model)
        return zinf_error_set(error, ZINF_E_CHECKPOINT,
                              "the checkpoint has no /provenance/model_config");
    struct zinf_json *config = NULL;
    struct zinf_error_list errors = {0};
    struct zinf_json_options options = {"/provenance/config", true, ZINF_E_CHECKPOINT, false};
    if (text)
        zinf_json_parse(&config, text, strlen(text), &options, &errors);
    zinf_error_list_release(&errors);
    const struct zinf_json *source = zinf_json_path(config, "zinf.model.path");
    int status = source && source->type == ZINF_JSON_STRING
                     ? zinf_export_folder_copy(export->temporary, source->string, error)
                     : 0;
    zinf_json_free(config);
    return status
               ? status
               : zinf_export_folder_config(export->temporary, model, export->content.dtype, error);
}

static int finish(const struct export *export, struct zinf_error *error)
{
    int status = add_files(export, error);
    return status ? status : zinf_export_folder_finish(export->temporary, export->out, error);
}

static int write_folder(struct export *export, struct zinf_error *error)
{
    int root = export->comm->rank == 0;
    int status = root ? zinf_export_folder_begin(export->out, &export->temporary, error) : 0;
    status = zinf_agree_error(export->comm, status, error);
    if (status)
        return status;
    char *folder = zinf_comm_broadcast_text(export->comm, export->temporary);
    status = zinf_safetensors_write(export->comm, folder, &export->content, error);
    free(folder);
    if (status)
        return status;
    return zinf_agree_error(export->comm, root ? finish(export, error) : 0, error);
}

/* ---- the command ---- */

static int export_checkpoint(struct export *export, const struct zinf_options *options,
                             struct zinf_error *error)
{
    int status = read_options(export, options, error);
    if (status)
        return status;
    char *path = checkpoint_path(options->arguments[0]);
    status = zinf_checkpoint_open(&export->file, export->comm, path, error);
    free(path);
    if (!status)
        status = zinf_checkpoint_verify_part(export->file, "/model/", error);
    if (!status)
        status = collect_tensors(export, error);
    return status ? status : write_folder(export, error);
}

static int run(const struct zinf_context *context)
{
    struct export export = {.comm = context->comm};
    struct zinf_error error = {0};
    char text[sizeof error], number[ZINF_SHORT_BYTES];
    int status = export_checkpoint(&export, context->options, &error);
    if (status && export.temporary)
        zinf_export_folder_remove(export.temporary);
    if (status && context->comm->rank == 0) {
        zinf_error_print(&error, text, sizeof text);
        zinf_error_log("%s", text);
    }
    if (!status)
        zinf_info("%s: %d tensors, %s parameters in %s", export.out, export.content.tensor_count,
                  zinf_short_number((double)export.element_count, number),
                  zinf_dtype_name(export.content.dtype));
    zinf_checkpoint_close(export.file);
    free(export.tensors);
    free(export.paths);
    free(export.out);
    free(export.temporary);
    return status;
}

static const struct zinf_option export_options[] = {
    {"--dtype", "fp32|bf16|fp16", "type of the weights; fp32, the default, loses nothing"},
    {"--shard-size", "SIZE", "largest weight file, 5GB"},
    {0}};

const struct zinf_command zinf_command_export = {
    .name = "export",
    .arguments = "CHECKPOINT OUT_DIR [--dtype fp32|bf16|fp16] [--shard-size 5GB]",
    .summary = "a checkpoint as a Hugging Face folder",
    .help = "CHECKPOINT is a .h5 file, a link checkpoints/best or latest, or a run folder (its "
            "latest).\n"
            "OUT_DIR must not exist or be empty; it appears when it is whole. The files of the "
            "run's model\n"
            "folder (tokenizer, generation_config.json, ...) are copied; in config.json only the "
            "dtype\n"
            "changes. A tied lm_head is left out, as transformers does. Under mpiexec all ranks "
            "write.\n",
    .options = export_options,
    .min_arguments = 2,
    .max_arguments = 2,
    .parallel = true,
    .run = run,
};
