/*
 * Reading safetensors. See safetensors.h.
 *
 * The header is foreign input: its length is held against the file before anything is allocated,
 * JSON is parsed strictly by base/json, every product is checked for overflow, and the tensors must
 * tile the data exactly. Names are compared, never used as paths; only the file names of an index
 * are, and those may not leave the folder.
 */
#include "io/safetensors.h"

#include "base/json.h"
#include "io/file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    LARGEST_HEADER = 100000000, /* the reference library's limit */
    MOST_TENSORS = 1000000,
    LONGEST_NAME = 256,
    STAGE_BYTES = 1 << 20
};

static const struct {
    const char *name;
    int bits;
} dtypes[] = {{"F32", 32},        {"F16", 16},       {"BF16", 16},   {"F64", 64},    {"I64", 64},
              {"U64", 64},        {"C64", 64},       {"I32", 32},    {"U32", 32},    {"I16", 16},
              {"U16", 16},        {"I8", 8},         {"U8", 8},      {"BOOL", 8},    {"F8_E5M2", 8},
              {"F8_E4M3", 8},     {"F8_E8M0", 8},    {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4},
              {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}};

static int dtype_bits(const char *name)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (!strcmp(dtypes[i].name, name))
            return dtypes[i].bits;
    return 0;
}

/* ---- one tensor of a header ---- */

struct reader {
    struct zinf_safetensors *weights;
    const char *path; /* of the file being read */
    int64_t data_begin, data_bytes;
    struct zinf_error *error;
};

static int bad_tensor(const struct reader *reader, const char *name, const char *why)
{
    return zinf_error_in(reader->error, ZINF_E_DATA, reader->path, "tensor %.256s %s", name, why);
}

static int read_shape(const struct reader *reader, struct zinf_safetensors_entry *entry,
                      const struct zinf_json *shape, int64_t *count)
{
    if (!shape || shape->type != ZINF_JSON_ARRAY || shape->count > 8)
        return bad_tensor(reader, entry->name, "has no shape, or one of more than 8 dimensions");
    entry->dim_count = (int)shape->count;
    *count = 1;
    for (size_t i = 0; i < shape->count; i++) {
        const struct zinf_json *size = shape->members[i];
        if (size->type != ZINF_JSON_INTEGER || size->integer < 0 ||
            __builtin_mul_overflow(*count, size->integer, count))
            return bad_tensor(reader, entry->name, "has an impossible shape");
        entry->shape[i] = size->integer;
    }
    return 0;
}

static int read_entry(const struct reader *reader, struct zinf_safetensors_entry *entry,
                      const struct zinf_json *value)
{
    const char *dtype = zinf_json_string(value, "dtype", "");
    const struct zinf_json *range = zinf_json_get(value, "data_offsets");
    int64_t count = 0, bits = dtype_bits(dtype);
    if (!bits)
        return bad_tensor(reader, entry->name,
                          "has a dtype that the safetensors format does not know");
    strcpy(entry->dtype, dtype);
    int status = read_shape(reader, entry, zinf_json_get(value, "shape"), &count);
    if (status)
        return status;
    if (!range || range->type != ZINF_JSON_ARRAY || range->count != 2 ||
        range->members[0]->type != ZINF_JSON_INTEGER ||
        range->members[1]->type != ZINF_JSON_INTEGER)
        return bad_tensor(reader, entry->name, "has no data_offsets [begin, end]");
    int64_t begin = range->members[0]->integer, end = range->members[1]->integer;
    if (begin < 0 || end < begin || end > reader->data_bytes)
        return bad_tensor(reader, entry->name, "has data_offsets outside the file");
    if (__builtin_mul_overflow(count, bits, &count) || count % 8 || count / 8 != end - begin)
        return bad_tensor(reader, entry->name,
                          "has data_offsets that do not fit its shape and dtype");
    entry->offset = reader->data_begin + begin;
    entry->bytes = end - begin;
    return 0;
}

static int by_offset(const void *a, const void *b)
{
    const struct zinf_safetensors_entry *one = a, *two = b;
    if (one->offset != two->offset)
        return one->offset < two->offset ? -1 : 1;
    return (one->bytes > two->bytes) - (one->bytes < two->bytes);
}

/* Without holes and overlap from the first byte to the last; empty tensors too. */
static int check_tiling(const struct reader *reader, struct zinf_safetensors_entry *entries,
                        int count)
{
    int64_t at = reader->data_begin;
    qsort(entries, (size_t)count, sizeof *entries, by_offset);
    for (int i = 0; i < count; i++) {
        if (entries[i].offset != at)
            return bad_tensor(reader, entries[i].name,
                              entries[i].offset < at ? "overlaps the one before"
                                                     : "has a hole before it");
        at += entries[i].bytes;
    }
    if (at != reader->data_begin + reader->data_bytes)
        return zinf_error_in(reader->error, ZINF_E_DATA, reader->path,
                             "has %lld bytes behind its last tensor",
                             (long long)(reader->data_begin + reader->data_bytes - at));
    return 0;
}

static int read_metadata(const struct reader *reader, const struct zinf_json *metadata)
{
    int strings = metadata->type == ZINF_JSON_OBJECT;
    for (size_t i = 0; strings && i < metadata->count; i++)
        strings = metadata->members[i]->type == ZINF_JSON_STRING;
    return strings ? 0
                   : zinf_error_in(reader->error, ZINF_E_DATA, reader->path,
                                   "__metadata__ is no object of strings");
}

static int read_tensors(const struct reader *reader, const struct zinf_json *header)
{
    struct zinf_safetensors *weights = reader->weights;
    int first = weights->entry_count, status = 0;
    if (header->type != ZINF_JSON_OBJECT || header->count > MOST_TENSORS)
        return zinf_error_in(reader->error, ZINF_E_DATA, reader->path,
                             "has a header that is no object of at most %d tensors", MOST_TENSORS);
    weights->entries =
        zinf_realloc(weights->entries, sizeof *weights->entries * ((size_t)first + header->count));
    for (size_t i = 0; i < header->count && !status; i++) {
        if (!strcmp(header->keys[i], "__metadata__")) {
            status = read_metadata(reader, header->members[i]);
            continue;
        }
        if (strlen(header->keys[i]) > LONGEST_NAME)
            return bad_tensor(reader, header->keys[i], "... has a name of more than 256 bytes");
        struct zinf_safetensors_entry *entry = &weights->entries[weights->entry_count++];
        memset(entry, 0, sizeof *entry);
        entry->name = zinf_strdup(header->keys[i]);
        entry->file = weights->file_count - 1;
        status = read_entry(reader, entry, header->members[i]);
    }
    return status ? status
                  : check_tiling(reader, weights->entries + first, weights->entry_count - first);
}

/* ---- one file ---- */

/* The first problem of a JSON text is the one that is told. */
static int tell_first(struct zinf_error_list *errors, struct zinf_error *error)
{
    *error = errors->items[0];
    zinf_error_list_release(errors);
    return error->status;
}

static int read_header(struct reader *reader, int descriptor)
{
    int64_t size;
    uint64_t length = 0;
    int status = zinf_file_size(descriptor, reader->path, &size, reader->error);
    if (!status && size < 8)
        return zinf_error_in(reader->error, ZINF_E_DATA, reader->path,
                             "is too short for a safetensors file: %lld bytes", (long long)size);
    if (!status)
        status = zinf_file_read(descriptor, reader->path, &length, 8, 0, reader->error);
    if (status)
        return status;
    if (length > LARGEST_HEADER || length > (uint64_t)size - 8 || length < 2)
        return zinf_error_in(
            reader->error, ZINF_E_DATA, reader->path,
            "has a header of %llu bytes; at most %d and what the file holds (%lld) "
            "are possible: no safetensors file, or cut short",
            (unsigned long long)length, LARGEST_HEADER, (long long)size - 8);
    char *text = zinf_alloc(length + 1);
    struct zinf_json *header = NULL;
    struct zinf_error_list errors = {0};
    struct zinf_json_options options = {reader->path, true, ZINF_E_DATA, false};
    status = zinf_file_read(descriptor, reader->path, text, length, 8, reader->error);
    if (!status && text[0] != '{')
        status = zinf_error_in(reader->error, ZINF_E_DATA, reader->path,
                               "has a header that does not begin with '{'");
    if (!status && zinf_json_parse(&header, text, length, &options, &errors))
        status = tell_first(&errors, reader->error);
    reader->data_begin = 8 + (int64_t)length;
    reader->data_bytes = size - reader->data_begin;
    if (!status)
        status = read_tensors(reader, header);
    zinf_json_free(header);
    free(text);
    return status;
}

/* Takes `path` over. */
static int add_file(struct zinf_safetensors *weights, char *path, struct zinf_error *error)
{
    int index = weights->file_count, descriptor = -1;
    weights->files = zinf_realloc(weights->files, sizeof *weights->files * ((size_t)index + 1));
    weights->descriptors =
        zinf_realloc(weights->descriptors, sizeof *weights->descriptors * ((size_t)index + 1));
    int status = zinf_file_open(&descriptor, path, O_RDONLY, error);
    weights->files[index] = path;
    weights->descriptors[index] = descriptor;
    weights->file_count++;
    struct reader reader = {.weights = weights, .path = path, .error = error};
    return status ? status : read_header(&reader, descriptor);
}

/* ---- a folder ---- */

static int has_file(const char *folder, const char *name)
{
    struct stat status;
    char *path = zinf_format("%s/%s", folder, name);
    int found = stat(path, &status) == 0 && S_ISREG(status.st_mode);
    free(path);
    return found;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct zinf_safetensors_entry *)a)->name,
                  ((const struct zinf_safetensors_entry *)b)->name);
}

static int bad_index(const struct zinf_json *value, const char *path, struct zinf_error *error,
                     const char *what, const char *why)
{
    return zinf_error_at(
        error, ZINF_E_DATA,
        (struct zinf_text_place){path, value ? value->line : 0, value ? value->column : 0},
        "%.300s %s", what, why);
}

static int file_index(const struct zinf_safetensors *weights, const char *folder, const char *name)
{
    size_t length = strlen(folder);
    for (int i = 0; i < weights->file_count; i++)
        if (!strcmp(weights->files[i] + length + 1, name))
            return i;
    return -1;
}

/* Open every file that the map names. */
static int open_shards(struct zinf_safetensors *weights, const char *folder, const char *path,
                       const struct zinf_json *map, struct zinf_error *error)
{
    int status = 0;
    for (size_t i = 0; i < map->count && !status; i++) {
        const struct zinf_json *file = map->members[i];
        if (file->type != ZINF_JSON_STRING || !*file->string || strchr(file->string, '/') ||
            strstr(file->string, ".."))
            status = bad_index(file, path, error, map->keys[i],
                               "must name a file of this folder, without / and ..");
        else if (file_index(weights, folder, file->string) < 0)
            status = add_file(weights, zinf_format("%s/%s", folder, file->string), error);
    }
    return status;
}

/* No name twice; every name of the map in the file it says. */
static int check_shards(const struct zinf_safetensors *weights, const char *folder,
                        const char *path, const struct zinf_json *map, struct zinf_error *error)
{
    for (int i = 1; i < weights->entry_count; i++)
        if (!strcmp(weights->entries[i - 1].name, weights->entries[i].name))
            return bad_index(NULL, path, error, weights->entries[i].name, "stands in two files");
    for (size_t i = 0; i < map->count; i++) {
        const struct zinf_safetensors_entry *entry = zinf_safetensors_find(weights, map->keys[i]);
        if (!entry || entry->file != file_index(weights, folder, map->members[i]->string))
            return bad_index(map->members[i], path, error, map->keys[i],
                             "is not in the file that the index names");
    }
    return 0;
}

static void sort_by_name(struct zinf_safetensors *weights)
{
    if (weights->entry_count)
        qsort(weights->entries, (size_t)weights->entry_count, sizeof *weights->entries, by_name);
}

static int open_index(struct zinf_safetensors *weights, const char *folder,
                      struct zinf_error *error)
{
    char *path = zinf_format("%s/model.safetensors.index.json", folder);
    struct zinf_json *index = NULL;
    struct zinf_error_list errors = {0};
    struct zinf_json_options options = {path, true, ZINF_E_DATA, false};
    int status = 0;
    if (zinf_json_read(&index, path, &options, &errors))
        status = tell_first(&errors, error);
    const struct zinf_json *map = zinf_json_get(index, "weight_map");
    if (!status && (!map || map->type != ZINF_JSON_OBJECT))
        status = bad_index(index, path, error, "weight_map", "is missing or no object");
    if (!status)
        status = open_shards(weights, folder, path, map, error);
    sort_by_name(weights);
    if (!status)
        status = check_shards(weights, folder, path, map, error);
    zinf_json_free(index);
    free(path);
    return status;
}

static int explain_folder(const char *folder, struct zinf_error *error)
{
    if (has_file(folder, "pytorch_model.bin") || has_file(folder, "pytorch_model.bin.index.json"))
        return zinf_error_in(
            error, ZINF_E_DATA, folder,
            "holds its weights as pytorch_model.bin, a pickle, which zinf does not "
            "read: save the model with transformers' save_pretrained() to get "
            "model.safetensors");
    return zinf_error_in(error, ZINF_E_DATA, folder,
                         "holds neither model.safetensors nor model.safetensors.index.json");
}

static int open_path(struct zinf_safetensors *weights, const char *path, struct zinf_error *error)
{
    struct stat status;
    if (stat(path, &status) == 0 && S_ISDIR(status.st_mode)) {
        if (has_file(path, "model.safetensors"))
            return add_file(weights, zinf_format("%s/model.safetensors", path), error);
        if (has_file(path, "model.safetensors.index.json"))
            return open_index(weights, path, error);
        return explain_folder(path, error);
    }
    return add_file(weights, zinf_strdup(path), error);
}

int zinf_safetensors_open(struct zinf_safetensors *weights, const char *path,
                          struct zinf_error *error)
{
    struct zinf_safetensors opened = {0};
    if (open_path(&opened, path, error)) {
        zinf_safetensors_close(&opened);
        return error->status = ZINF_E_DATA;
    }
    sort_by_name(&opened);
    *weights = opened;
    return 0;
}

void zinf_safetensors_close(struct zinf_safetensors *weights)
{
    for (int i = 0; i < weights->entry_count; i++)
        free(weights->entries[i].name);
    for (int i = 0; i < weights->file_count; i++) {
        free(weights->files[i]);
        if (weights->descriptors[i] >= 0)
            close(weights->descriptors[i]);
    }
    free(weights->entries);
    free(weights->files);
    free(weights->descriptors);
    memset(weights, 0, sizeof *weights);
}

int zinf_safetensors_folder_has_weights(const char *folder)
{
    return has_file(folder, "model.safetensors") ||
           has_file(folder, "model.safetensors.index.json");
}

const struct zinf_safetensors_entry *zinf_safetensors_find(const struct zinf_safetensors *weights,
                                                           const char *name)
{
    struct zinf_safetensors_entry key = {.name = (char *)name};
    return weights->entry_count
               ? bsearch(&key, weights->entries, (size_t)weights->entry_count, sizeof key, by_name)
               : NULL;
}

/* ---- elements ---- */

static void widen(float *out, const void *data, const char *dtype, int64_t count)
{
    if (!strcmp(dtype, "F64"))
        for (int64_t i = 0; i < count; i++)
            out[i] = (float)((const double *)data)[i];
    else
        zinf_dtype_convert(out, ZINF_FP32, data, !strcmp(dtype, "F16") ? ZINF_FP16 : ZINF_BF16,
                           count);
}

int zinf_safetensors_read(const struct zinf_safetensors *weights,
                          const struct zinf_safetensors_entry *entry, int64_t offset, int64_t count,
                          float *out, struct zinf_error *error)
{
    const char *path = weights->files[entry->file];
    int descriptor = weights->descriptors[entry->file], status = 0;
    int64_t width = dtype_bits(entry->dtype) / 8;
    ZINF_ASSERT(offset >= 0 && count >= 0 && offset + count <= entry->bytes / (width ? width : 1));
    if (!strcmp(entry->dtype, "F32")) {
        status = zinf_file_read(descriptor, path, out, sizeof(float) * (size_t)count,
                                entry->offset + width * offset, error);
        return status ? (error->status = ZINF_E_DATA) : 0;
    }
    if (strcmp(entry->dtype, "F16") && strcmp(entry->dtype, "BF16") && strcmp(entry->dtype, "F64"))
        return zinf_error_in(error, ZINF_E_DATA, path,
                             "tensor %s has dtype %s; weights are read from F32, F16, BF16 and F64",
                             entry->name, entry->dtype);
    void *stage = zinf_alloc(STAGE_BYTES);
    for (int64_t done = 0; done < count && !status;) {
        int64_t now = STAGE_BYTES / width < count - done ? STAGE_BYTES / width : count - done;
        status = zinf_file_read(descriptor, path, stage, (size_t)(width * now),
                                entry->offset + width * (offset + done), error);
        if (!status)
            widen(out + done, stage, entry->dtype, now);
        done += now;
    }
    free(stage);
    return status ? (error->status = ZINF_E_DATA) : 0;
}
