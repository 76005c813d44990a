/*
 * The folder that an export makes. See export_folder.h.
 */
#include "cli/export_folder.h"

#include "base/json.h"
#include "io/file.h"
#include "model/model.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { COPY_BYTES = 1 << 20 };

/* Entries of a folder besides . and ..; -1 when it cannot be read. */
static int entry_count(const char *folder)
{
    DIR *directory = opendir(folder);
    int count = -2;
    if (!directory)
        return -1;
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

int zinf_export_folder_begin(const char *out, char **temporary, struct zinf_error *error)
{
    struct stat status;
    if (!stat(out, &status) && (!S_ISDIR(status.st_mode) || entry_count(out) != 0))
        return zinf_error_in(error, ZINF_E_USAGE, out,
                             "exists already and is no empty folder: nothing is overwritten, give "
                             "another OUT_DIR");
    char *name = zinf_file_temporary_name(out);
    if (mkdir(name, 0777)) {
        int number = errno;
        zinf_error_in(error, ZINF_E_USAGE, out, "cannot be made: %s", strerror(number));
        free(name);
        return ZINF_E_USAGE;
    }
    *temporary = name;
    return 0;
}

/* ---- files ---- */

/* Weights of any framework, and their indexes; config.json is written anew. */
static int is_left_out(const char *name)
{
    static const char *const endings[] = {".safetensors", ".bin",     ".pt",         ".pth",
                                          ".ckpt",        ".h5",      ".ot",         ".onnx",
                                          ".gguf",        ".msgpack", ".index.json", NULL};
    size_t length = strlen(name);
    for (int i = 0; endings[i]; i++) {
        size_t tail = strlen(endings[i]);
        if (length >= tail && !strcmp(name + length - tail, endings[i]))
            return 1;
    }
    return *name == '.' || !strcmp(name, "config.json");
}

static int copy_bytes(int from, const char *from_path, int to, const char *to_path,
                      struct zinf_error *error)
{
    int64_t size, at = 0;
    char *buffer = zinf_alloc(COPY_BYTES);
    int status = zinf_file_size(from, from_path, &size, error);
    while (!status && at < size) {
        size_t now = (size_t)(size - at < COPY_BYTES ? size - at : COPY_BYTES);
        status = zinf_file_read(from, from_path, buffer, now, at, error);
        if (!status)
            status = zinf_file_write(to, to_path, buffer, now, at, error);
        at += (int64_t)now;
    }
    free(buffer);
    return status ? status : zinf_file_sync(to, to_path, error);
}

static int copy_file(const char *from_path, const char *to_path, struct zinf_error *error)
{
    int from = -1, to = -1;
    int status = zinf_file_open(&from, from_path, O_RDONLY, error);
    if (!status)
        status = zinf_file_open(&to, to_path, O_WRONLY | O_CREAT | O_EXCL, error);
    if (!status)
        status = copy_bytes(from, from_path, to, to_path, error);
    if (from >= 0)
        close(from);
    if (to >= 0)
        close(to);
    return status;
}

int zinf_export_folder_copy(const char *temporary, const char *source, struct zinf_error *error)
{
    DIR *directory = opendir(source);
    int status = 0;
    if (!directory) {
        zinf_warn("%s: the model folder of the run cannot be read (%s): its tokenizer and other "
                  "files are not in the export",
                  source, strerror(errno));
        return 0;
    }
    for (struct dirent *entry; !status && (entry = readdir(directory));) {
        struct stat kind;
        char *from = zinf_format("%s/%s", source, entry->d_name);
        char *to = zinf_format("%s/%s", temporary, entry->d_name);
        if (!is_left_out(entry->d_name) && !stat(from, &kind) && S_ISREG(kind.st_mode))
            status = copy_file(from, to, error);
        free(from);
        free(to);
    }
    closedir(directory);
    return status;
}

/* ---- config.json ---- */

static void update_config(struct zinf_json *config, enum zinf_dtype dtype)
{
    static const char *const names[] = {
        [ZINF_FP32] = "float32", [ZINF_FP16] = "float16", [ZINF_BF16] = "bfloat16"};
    const char *key = zinf_json_get(config, "torch_dtype") ? "torch_dtype" : "dtype";
    const struct zinf_json *classes = zinf_json_get(config, "architectures");
    const char *name = zinf_model_architecture(zinf_json_string(config, "model_type", ""));
    zinf_json_set(config, key, zinf_json_new_string(names[dtype]));
    if (strcmp(key, "dtype") && zinf_json_get(config, "dtype"))
        zinf_json_set(config, "dtype", zinf_json_new_string(names[dtype]));
    if (name && (!classes || classes->type != ZINF_JSON_ARRAY || !classes->count)) {
        struct zinf_json *list = zinf_json_new(ZINF_JSON_ARRAY);
        zinf_json_append(list, zinf_json_new_string(name));
        zinf_json_set(config, "architectures", list);
    }
}

int zinf_export_folder_config(const char *temporary, const char *model_config,
                              enum zinf_dtype dtype, struct zinf_error *error)
{
    struct zinf_json *config = NULL;
    struct zinf_error_list errors = {0};
    struct zinf_json_options options = {"/provenance/model_config", true, ZINF_E_CHECKPOINT, false};
    if (zinf_json_parse(&config, model_config, strlen(model_config), &options, &errors)) {
        *error = errors.items[0];
        zinf_error_list_release(&errors);
        return ZINF_E_CHECKPOINT;
    }
    update_config(config, dtype);
    char *path = zinf_format("%s/config.json", temporary);
    char *body = zinf_json_print(config, 2), *text = zinf_format("%s\n", body);
    int status = zinf_file_write_text(path, text, error);
    free(text);
    free(body);
    free(path);
    zinf_json_free(config);
    return status;
}

/* ---- names ---- */

int zinf_export_folder_finish(const char *temporary, const char *out, struct zinf_error *error)
{
    int status = zinf_file_rename(temporary, out, error); /* over an empty folder, too */
    return status ? status : zinf_file_sync_folder(out, error);
}

void zinf_export_folder_remove(const char *temporary)
{
    DIR *directory = opendir(temporary);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        char *path = zinf_format("%s/%s", temporary, entry->d_name);
        zinf_file_remove(path);
        free(path);
    }
    if (directory)
        closedir(directory);
    if (rmdir(temporary) && errno != ENOENT)
        zinf_warn("%s: cannot be removed: %s", temporary, strerror(errno));
}
