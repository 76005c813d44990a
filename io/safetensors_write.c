/*
 * Writing a folder's weights in the safetensors format. See safetensors.h.
 *
 * Every rank computes the same plan (which tensor in which shard, where, and the headers), so that
 * no tensor travels: each rank reads its share of each tensor, converts it and writes it at its
 * place. Tensors lie in a shard in the order of their names, as the reference library puts tensors
 * of one dtype.
 */
#include "io/safetensors.h"

#include "base/json.h"
#include "io/agree.h"
#include "io/file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STAGE_COUNT = 1 << 18 }; /* elements converted at a time */

struct place {
    int index;             /* of the tensor */
    int64_t count, offset; /* elements; bytes from the start of the shard's data */
};

struct shard {
    char *name, *path, *temporary;
    char *header; /* length and JSON, padded */
    int64_t header_bytes, data_bytes;
    struct place *places; /* by name */
    int place_count;
};

struct writer {
    struct zinf_comm *comm;
    const char *folder;
    const struct zinf_export_tensor *tensors;
    int tensor_count;
    enum zinf_dtype dtype;
    struct shard *shards;
    int shard_count, renamed_count;
    struct zinf_error *error;
};

/* ---- plan ---- */

static int64_t element_count(const struct zinf_export_tensor *tensor)
{
    int64_t count = 1;
    for (int i = 0; i < tensor->dim_count; i++)
        ZINF_ASSERT(!__builtin_mul_overflow(count, tensor->shape[i], &count));
    return count;
}

/* Greedy, in the order given: a shard closes when the next tensor would pass the limit. */
static void cut_shards(struct writer *writer, int64_t shard_bytes)
{
    int64_t width = (int64_t)zinf_dtype_bytes(writer->dtype);
    writer->shards = zinf_alloc(sizeof *writer->shards * (size_t)(writer->tensor_count + 1));
    writer->shard_count = 1;
    for (int i = 0; i < writer->tensor_count; i++) {
        int64_t count = element_count(&writer->tensors[i]);
        struct shard *shard = &writer->shards[writer->shard_count - 1];
        if (shard->place_count && shard->data_bytes + width * count > shard_bytes)
            shard = &writer->shards[writer->shard_count++];
        shard->places =
            zinf_realloc(shard->places, sizeof *shard->places * (size_t)(shard->place_count + 1));
        shard->places[shard->place_count++] = (struct place){i, count, 0};
        shard->data_bytes += width * count;
    }
}

static int by_tensor_name(const void *a, const void *b, void *tensors)
{
    const struct zinf_export_tensor *all = tensors;
    return strcmp(all[((const struct place *)a)->index].name,
                  all[((const struct place *)b)->index].name);
}

static struct zinf_json *pair_of_integers(int64_t begin, int64_t end)
{
    struct zinf_json *pair = zinf_json_new(ZINF_JSON_ARRAY);
    zinf_json_append(pair, zinf_json_new_integer(begin));
    zinf_json_append(pair, zinf_json_new_integer(end));
    return pair;
}

static struct zinf_json *describe(const struct writer *writer, const struct place *place)
{
    static const char *const names[] = {
        [ZINF_FP32] = "F32", [ZINF_FP16] = "F16", [ZINF_BF16] = "BF16"};
    const struct zinf_export_tensor *tensor = &writer->tensors[place->index];
    struct zinf_json *value = zinf_json_new(ZINF_JSON_OBJECT),
                     *shape = zinf_json_new(ZINF_JSON_ARRAY);
    for (int i = 0; i < tensor->dim_count; i++)
        zinf_json_append(shape, zinf_json_new_integer(tensor->shape[i]));
    zinf_json_set(value, "dtype", zinf_json_new_string(names[writer->dtype]));
    zinf_json_set(value, "shape", shape);
    zinf_json_set(
        value, "data_offsets",
        pair_of_integers(place->offset,
                         place->offset + place->count * (int64_t)zinf_dtype_bytes(writer->dtype)));
    return value;
}

static void make_header(const struct writer *writer, struct shard *shard)
{
    struct zinf_json *header = zinf_json_new(ZINF_JSON_OBJECT),
                     *metadata = zinf_json_new(ZINF_JSON_OBJECT);
    int64_t at = 0;
    zinf_json_set(metadata, "format", zinf_json_new_string("pt")); /* transformers asks for it */
    zinf_json_set(header, "__metadata__", metadata);
    qsort_r(shard->places, (size_t)shard->place_count, sizeof *shard->places, by_tensor_name,
            (void *)writer->tensors);
    for (int i = 0; i < shard->place_count; i++) {
        shard->places[i].offset = at;
        at += shard->places[i].count * (int64_t)zinf_dtype_bytes(writer->dtype);
        zinf_json_set(header, writer->tensors[shard->places[i].index].name,
                      describe(writer, &shard->places[i]));
    }
    char *text = zinf_json_print(header, -1);
    size_t length = strlen(text);
    while (length && text[length - 1] == '\n')
        length--;
    uint64_t padded = (length + 7) / 8 * 8;
    shard->header_bytes = 8 + (int64_t)padded;
    shard->header = zinf_alloc((size_t)shard->header_bytes);
    memcpy(shard->header, &padded, 8);
    memset(shard->header + 8, ' ', padded);
    memcpy(shard->header + 8, text, length);
    free(text);
    zinf_json_free(header);
}

/* The temporary name must be rank 0's. */
static void name_shard(const struct writer *writer, struct shard *shard, int number)
{
    char suffix[64] = "";
    shard->name = writer->shard_count == 1
                      ? zinf_strdup("model.safetensors")
                      : zinf_format("model-%05d-of-%05d.safetensors", number, writer->shard_count);
    shard->path = zinf_format("%s/%s", writer->folder, shard->name);
    char *temporary = zinf_file_temporary_name("");
    snprintf(suffix, sizeof suffix, "%s", temporary);
    free(temporary);
    zinf_comm_broadcast(writer->comm, 0, suffix, sizeof suffix);
    shard->temporary = zinf_format("%s%s", shard->path, suffix);
}

/* ---- data ---- */

static int create_shards(struct writer *writer)
{
    int status = 0;
    for (int i = 0; i < writer->shard_count && !status; i++) {
        const struct shard *shard = &writer->shards[i];
        int descriptor = -1;
        status = zinf_file_open(&descriptor, shard->temporary, O_WRONLY | O_CREAT | O_TRUNC,
                                writer->error);
        if (!status)
            status = zinf_file_reserve(descriptor, shard->temporary,
                                       shard->header_bytes + shard->data_bytes, writer->error);
        if (!status)
            status = zinf_file_write(descriptor, shard->temporary, shard->header,
                                     (size_t)shard->header_bytes, 0, writer->error);
        if (descriptor >= 0)
            close(descriptor);
    }
    return status;
}

/* This rank's share of one tensor. */
static int write_share(struct writer *writer, const struct shard *shard, const struct place *place,
                       int descriptor, float *stage)
{
    const struct zinf_export_tensor *tensor = &writer->tensors[place->index];
    int64_t width = (int64_t)zinf_dtype_bytes(writer->dtype), size = writer->comm->size;
    int64_t share = (place->count + size - 1) / size, at = share * writer->comm->rank;
    int64_t end = at + share < place->count ? at + share : place->count;
    void *converted = stage + STAGE_COUNT;
    int status = 0;
    for (; at < end && !status; at += STAGE_COUNT) {
        int64_t now = end - at < STAGE_COUNT ? end - at : STAGE_COUNT;
        status = tensor->read(tensor->context, place->index, at, now, stage, writer->error);
        if (status)
            break;
        zinf_dtype_convert(converted, writer->dtype, stage, ZINF_FP32, now);
        status = zinf_file_write(descriptor, shard->temporary, converted, (size_t)(width * now),
                                 shard->header_bytes + place->offset + width * at, writer->error);
    }
    return status;
}

static int write_shares(struct writer *writer)
{
    float *stage = zinf_alloc(sizeof *stage * 2 * STAGE_COUNT);
    int status = 0;
    for (int i = 0; i < writer->shard_count && !status; i++) {
        const struct shard *shard = &writer->shards[i];
        int descriptor = -1;
        status = zinf_file_open(&descriptor, shard->temporary, O_WRONLY, writer->error);
        for (int k = 0; k < shard->place_count && !status; k++)
            status = write_share(writer, shard, &shard->places[k], descriptor, stage);
        if (!status)
            status = zinf_file_sync(descriptor, shard->temporary, writer->error);
        if (!status)
            status = zinf_file_close(descriptor, shard->temporary, writer->error);
        else if (descriptor >= 0)
            close(descriptor);
    }
    free(stage);
    return status;
}

/* ---- names ---- */

static char *index_text(const struct writer *writer)
{
    struct zinf_json *index = zinf_json_new(ZINF_JSON_OBJECT),
                     *metadata = zinf_json_new(ZINF_JSON_OBJECT);
    struct zinf_json *map = zinf_json_new(ZINF_JSON_OBJECT);
    int64_t total = 0;
    for (int i = 0; i < writer->shard_count; i++) {
        const struct shard *shard = &writer->shards[i];
        total += shard->data_bytes;
        for (int k = 0; k < shard->place_count; k++)
            zinf_json_set(map, writer->tensors[shard->places[k].index].name,
                          zinf_json_new_string(shard->name));
    }
    zinf_json_set(metadata, "total_size", zinf_json_new_integer(total));
    zinf_json_set(index, "metadata", metadata);
    zinf_json_set(index, "weight_map", map);
    char *text = zinf_json_print(index, 2);
    zinf_json_free(index);
    return text;
}

static int write_index(const struct writer *writer)
{
    char *path = zinf_format("%s/model.safetensors.index.json", writer->folder);
    char *text = index_text(writer);
    int status = zinf_file_write_text(path, text, writer->error);
    free(text);
    free(path);
    return status;
}

static int give_names(struct writer *writer)
{
    int status = 0;
    while (!status && writer->renamed_count < writer->shard_count) {
        const struct shard *shard = &writer->shards[writer->renamed_count];
        status = zinf_file_rename(shard->temporary, shard->path, writer->error);
        if (!status)
            writer->renamed_count++;
    }
    if (!status && writer->shard_count > 1)
        status = write_index(writer); /* the last to appear: it names the others */
    return status ? status : zinf_file_sync_folder(writer->shards[0].path, writer->error);
}

static void remove_all(const struct writer *writer)
{
    for (int i = 0; i < writer->shard_count; i++)
        zinf_file_remove(i < writer->renamed_count ? writer->shards[i].path
                                                   : writer->shards[i].temporary);
    char *path = zinf_format("%s/model.safetensors.index.json", writer->folder);
    if (writer->shard_count > 1 && writer->renamed_count == writer->shard_count)
        zinf_file_remove(path);
    free(path);
}

/* ---- the whole ---- */

static int write_all(struct writer *writer)
{
    int root = writer->comm->rank == 0;
    int status = zinf_agree_error(writer->comm, root ? create_shards(writer) : 0, writer->error);
    if (!status)
        status = zinf_agree_error(writer->comm, write_shares(writer), writer->error);
    if (!status)
        status = zinf_agree_error(writer->comm, root ? give_names(writer) : 0, writer->error);
    if (status && root)
        remove_all(writer);
    return status;
}

int zinf_safetensors_write(struct zinf_comm *comm, const char *folder,
                           const struct zinf_safetensors_content *content, struct zinf_error *error)
{
    struct writer writer = {.comm = comm,
                            .folder = folder,
                            .tensors = content->tensors,
                            .tensor_count = content->tensor_count,
                            .dtype = content->dtype,
                            .error = error};
    cut_shards(&writer, content->shard_bytes);
    for (int i = 0; i < writer.shard_count; i++) {
        make_header(&writer, &writer.shards[i]);
        name_shard(&writer, &writer.shards[i], i + 1);
    }
    int status = write_all(&writer);
    for (int i = 0; i < writer.shard_count; i++) {
        free(writer.shards[i].name);
        free(writer.shards[i].path);
        free(writer.shards[i].temporary);
        free(writer.shards[i].header);
        free(writer.shards[i].places);
    }
    free(writer.shards);
    return status;
}
