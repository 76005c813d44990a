/*
 * Reading the table of contents of a checkpoint, and everything in it that can be checked without
 * the arrays' bytes: HDF5's own checksums (every header is visited), the schema, the rows of
 * /checksums against their sum, /run and the texts.
 */
#include "io/checkpoint_table.h"

#include "base/crc32c.h"
#include "io/checkpoint_format.h"
#include "io/file.h"
#include "io/hdf5_file.h"

#include <stdlib.h>
#include <string.h>

/* ---- strings: one buffer, so that a table travels as a few arrays; pointers are offsets until it
 * stands still ---- */

struct strings {
    char *data;
    size_t bytes, room;
};

static char *keep_bytes(struct strings *strings, const char *data, size_t bytes)
{
    size_t at = strings->bytes;
    if (at + bytes + 1 > strings->room) {
        strings->room = 2 * (at + bytes + 1);
        strings->data = zinf_realloc(strings->data, strings->room);
    }
    memcpy(strings->data + at, data, bytes);
    strings->data[at + bytes] = '\0';
    strings->bytes = at + bytes + 1;
    return (char *)(at + 1); /* 0 stays NULL */
}

static char *keep(struct strings *strings, const char *text)
{
    return text ? keep_bytes(strings, text, strlen(text)) : NULL;
}

static void point(const char **place, char *base)
{
    if (*place)
        *place = base + (size_t)*place - 1;
}

static void point_all(struct zinf_checkpoint_table *table)
{
    for (int i = 0; i < table->entry_count; i++) {
        point(&table->entries[i].path, table->strings);
        point(&table->entries[i].link_target, table->strings);
    }
    for (int i = 0; i < table->attribute_count; i++)
        point(&table->attributes[i].name, table->strings);
    for (int i = 0; i < table->text_count; i++) {
        point(&table->texts[i].name, table->strings);
        point(&table->texts[i].value, table->strings);
    }
}

/* ---- reading ---- */

struct reader {
    int descriptor;
    const char *path;
    struct zinf_error *error;
    struct zinf_hdf5_table contents;
    struct zinf_checkpoint_table *table;
    struct strings strings;
};

static int damaged(struct reader *reader, const char *object, const char *why)
{
    return zinf_error_in(reader->error, ZINF_E_CHECKPOINT, reader->path, "metadata: %s %s", object,
                         why);
}

static int begins_with(const char *path, const char *prefix)
{
    return strncmp(path, prefix, strlen(prefix)) == 0;
}

static int find_object(const void *path, const void *object)
{
    return zinf_checkpoint_path_compare(path, ((const struct zinf_hdf5_object *)object)->path);
}

static const struct zinf_hdf5_object *find(const struct reader *reader, const char *path)
{
    return bsearch(path, reader->contents.objects, (size_t)reader->contents.object_count,
                   sizeof *reader->contents.objects, find_object);
}

/* The name a hard-linked dataset was first given, NULL if that is this one. */
static const char *link_target(const struct reader *reader, const struct zinf_hdf5_object *object)
{
    const struct zinf_hdf5_object *first = object, *all = reader->contents.objects;
    for (int i = 0; i < reader->contents.object_count; i++)
        if (all[i].address == object->address && all[i].link_age < first->link_age)
            first = &all[i];
    return first == object ? NULL : first->path;
}

/* Append the rows of `path`, which must cover `bytes`; -1 after an error. */
static int64_t read_rows(struct reader *reader, const char *path, int64_t bytes)
{
    struct zinf_checkpoint_table *table = reader->table;
    const struct zinf_hdf5_object *object = find(reader, path);
    int64_t count = zinf_slab_count(bytes), first = table->row_count;
    if (!object || object->type != ZINF_HDF5_UINT32 || object->dim_count != 1 ||
        object->shape[0] != count) {
        damaged(reader, path, "is missing or does not fit its dataset");
        return -1;
    }
    table->rows = zinf_realloc(table->rows, sizeof *table->rows * (size_t)(first + count));
    if (zinf_file_read(reader->descriptor, reader->path, table->rows + first,
                       sizeof *table->rows * (size_t)count, object->offset, reader->error))
        return -1;
    table->row_count += count;
    return first;
}

static int rows_hold(const uint32_t *rows, const char *data, int64_t bytes)
{
    for (int64_t at = 0; at < bytes; at += ZINF_SLAB_BYTES, rows++) {
        int64_t part = bytes - at < ZINF_SLAB_BYTES ? bytes - at : ZINF_SLAB_BYTES;
        if (zinf_crc32c(0, data + at, (size_t)part) != *rows)
            return 0;
    }
    return 1;
}

static struct zinf_checkpoint_entry *append_entry(struct reader *reader,
                                                  const struct zinf_hdf5_object *object)
{
    struct zinf_checkpoint_table *table = reader->table;
    int i = table->entry_count++;
    struct zinf_checkpoint_entry *entry = &table->entries[i];
    *entry = (struct zinf_checkpoint_entry){.path = keep(&reader->strings, object->path),
                                            .dim_count = object->dim_count,
                                            .bytes = (size_t)object->bytes,
                                            .file_offset = object->offset};
    memcpy(entry->shape, object->shape, sizeof entry->shape);
    table->first_rows[i] = -1;
    return entry;
}

/* An earlier entry for the same bytes under another name, -1 if there is none. */
static int same_bytes(const struct zinf_checkpoint_table *table, int index)
{
    for (int i = 0; i < index; i++)
        if (table->first_rows[i] >= 0 &&
            table->entries[i].file_offset == table->entries[index].file_offset)
            return i;
    return -1;
}

static int read_array(struct reader *reader, const struct zinf_hdf5_object *object)
{
    struct zinf_checkpoint_table *table = reader->table;
    int i = table->entry_count;
    struct zinf_checkpoint_entry *entry = append_entry(reader, object);
    entry->link_target = keep(&reader->strings, link_target(reader, object));
    int other = same_bytes(table, i), status = 0;
    char *path = zinf_format("/checksums%s", object->path);
    if (other < 0)
        table->first_rows[i] = read_rows(reader, path, object->bytes);
    else if (find(reader, path))
        table->first_rows[i] = table->first_rows[other];
    else
        damaged(reader, path, "is missing");
    free(path);
    if (table->first_rows[i] < 0)
        status = -1;
    return status;
}

static int read_text(struct reader *reader, const struct zinf_hdf5_object *object)
{
    struct zinf_checkpoint_table *table = reader->table;
    const char *name = object->path + strlen("/provenance/");
    append_entry(reader, object)->file_offset = -1;
    char *path = zinf_format("/provenance/checksums/%s", name);
    char *data = zinf_alloc((size_t)object->bytes + 1);
    int64_t row = read_rows(reader, path, object->bytes);
    int status = row < 0 ? -1
                         : zinf_file_read(reader->descriptor, reader->path, data,
                                          (size_t)object->bytes, object->offset, reader->error);
    if (!status && !rows_hold(table->rows + row, data, object->bytes))
        status = zinf_error_in(reader->error, ZINF_E_CHECKPOINT, reader->path,
                               "%s does not match its checksum", object->path);
    if (!status)
        table->texts[table->text_count++] = (struct zinf_text){
            keep(&reader->strings, name), keep_bytes(&reader->strings, data, strlen(data))};
    if (row >= 0)
        table->row_count = row; /* rows of texts are not needed any more */
    free(path);
    free(data);
    return status;
}

/* Checksums are found from what they cover; here it is only seen that they cover something. */
static int check_rows(struct reader *reader, const struct zinf_hdf5_object *object)
{
    char *covered =
        begins_with(object->path, "/checksums/") ? zinf_strdup(object->path + strlen("/checksums"))
        : begins_with(object->path, "/provenance/checksums/")
            ? zinf_format("/provenance%s", object->path + strlen("/provenance/checksums"))
            : zinf_strdup("");
    int status = 0;
    if (strcmp(covered, "/run") && !find(reader, covered))
        status = damaged(reader, object->path, "covers no dataset");
    free(covered);
    return status;
}

static int read_object(struct reader *reader, const struct zinf_hdf5_object *object)
{
    int in_provenance = begins_with(object->path, "/provenance/");
    switch (object->type) {
    case ZINF_HDF5_GROUP:
        return 0;
    case ZINF_HDF5_UINT32:
        return check_rows(reader, object);
    case ZINF_HDF5_FLOAT32:
        if (in_provenance || begins_with(object->path, "/checksums/"))
            return damaged(reader, object->path, "is not where zinf writes arrays");
        return read_array(reader, object);
    case ZINF_HDF5_TEXT:
        if (!in_provenance || strchr(object->path + strlen("/provenance/"), '/'))
            return damaged(reader, object->path, "is not where zinf writes texts");
        return read_text(reader, object);
    }
    return damaged(reader, object->path, "is of an unknown kind");
}

static const struct zinf_hdf5_attribute *find_attribute(const struct reader *reader,
                                                        const char *object, const char *name)
{
    for (int i = 0; i < reader->contents.attribute_count; i++)
        if (!strcmp(reader->contents.attributes[i].object, object) &&
            !strcmp(reader->contents.attributes[i].name, name))
            return &reader->contents.attributes[i];
    return NULL;
}

/* Attributes stand on /run, and "table" on /checksums; nowhere else. */
static int read_attributes(struct reader *reader)
{
    struct zinf_checkpoint_table *table = reader->table;
    int count = reader->contents.attribute_count;
    struct zinf_attribute *all = zinf_alloc(sizeof *all * (size_t)count);
    table->attributes = zinf_alloc(sizeof *table->attributes * (size_t)count);
    int status = 0;
    for (int i = 0; i < count && !status; i++) {
        const struct zinf_hdf5_attribute *found = &reader->contents.attributes[i];
        struct zinf_attribute one = {found->name, found->is_real, found->integer, found->real};
        if (!strcmp(found->object, "/run"))
            all[table->attribute_count++] = one;
        else if (strcmp(found->object, "/checksums") || strcmp(found->name, "table"))
            status = damaged(reader, found->object, "has an attribute that zinf does not write");
    }
    int64_t row = status ? -1 : read_rows(reader, "/checksums/run", 1);
    if (row < 0)
        status = -1;
    else if (zinf_checkpoint_run_crc(all, table->attribute_count) != table->rows[row])
        status = damaged(reader, "/run", "does not match its checksum");
    for (int i = 0; i < table->attribute_count; i++) {
        table->attributes[i] = all[i];
        table->attributes[i].name = keep(&reader->strings, all[i].name);
    }
    free(all);
    return status;
}

/* All rows against the attribute "table". */
static int check_table(struct reader *reader)
{
    const struct zinf_checkpoint_table *table = reader->table;
    const struct zinf_hdf5_attribute *expected = find_attribute(reader, "/checksums", "table");
    if (!expected)
        return damaged(reader, "/checksums", "has no attribute table");
    struct zinf_checksum_rows *list = zinf_alloc(sizeof *list * ((size_t)table->entry_count + 1));
    int count = 0;
    for (int i = 0, entry = 0; i < reader->contents.object_count; i++) {
        const struct zinf_hdf5_object *object = &reader->contents.objects[i];
        if (object->type == ZINF_HDF5_FLOAT32)
            list[count++] =
                (struct zinf_checksum_rows){object->path, table->rows + table->first_rows[entry],
                                            zinf_slab_count(object->bytes)};
        entry += object->type == ZINF_HDF5_FLOAT32 || object->type == ZINF_HDF5_TEXT;
    }
    list[count++] = (struct zinf_checksum_rows){"/run", table->rows + table->row_count - 1, 1};
    uint32_t crc = zinf_checkpoint_table_crc(list, count);
    free(list);
    return crc == (uint64_t)expected->integer
               ? 0
               : damaged(reader, "/checksums", "does not match its own checksum");
}

static int newer(struct zinf_error *error, const char *path, int64_t version)
{
    return zinf_error_in(
        error, ZINF_E_CHECKPOINT, path,
        "has format version %lld; this zinf reads versions up to %d: use a newer zinf",
        (long long)version, ZINF_CHECKPOINT_VERSION);
}

static int check_version(struct reader *reader)
{
    const struct zinf_hdf5_attribute *version = find_attribute(reader, "/run", "format_version");
    if (!version)
        return damaged(reader, "the file",
                       "is no checkpoint of zinf: it has no /run with a format_version");
    return version->integer >= 1 && version->integer <= ZINF_CHECKPOINT_VERSION
               ? 0
               : newer(reader->error, reader->path, version->integer);
}

static int read_table(struct reader *reader)
{
    int64_t version = 0;
    if (!zinf_hdf5_peek(reader->descriptor, reader->path, "/run", "format_version", &version) &&
        version > ZINF_CHECKPOINT_VERSION)
        return newer(reader->error, reader->path, version); /* it may hold what the gate refuses */
    int status =
        zinf_hdf5_read_table(&reader->contents, reader->descriptor, reader->path, reader->error);
    if (status)
        return status;
    struct zinf_checkpoint_table *table = reader->table;
    size_t count = (size_t)reader->contents.object_count;
    table->entries = zinf_alloc(sizeof *table->entries * count);
    table->first_rows = zinf_alloc(sizeof *table->first_rows * count);
    table->texts = zinf_alloc(sizeof *table->texts * count);
    status = check_version(reader);
    for (int i = 0; i < reader->contents.object_count && !status; i++)
        status = read_object(reader, &reader->contents.objects[i]);
    if (!status)
        status = read_attributes(reader);
    return status ? status : check_table(reader);
}

int zinf_checkpoint_table_read(struct zinf_checkpoint_table *table, int descriptor,
                               const char *path, struct zinf_error *error)
{
    struct reader reader = {.descriptor = descriptor, .path = path, .error = error, .table = table};
    memset(table, 0, sizeof *table);
    int status = read_table(&reader);
    zinf_hdf5_table_release(&reader.contents);
    table->strings = reader.strings.data;
    if (!status) {
        table->string_bytes = (int64_t)reader.strings.bytes;
        return 0;
    }
    zinf_checkpoint_table_release(table);
    return error->status = ZINF_E_CHECKPOINT; /* what cannot be read is as good as damaged */
}

/* ---- on all ranks ---- */

static void broadcast_array(struct zinf_comm *comm, void *array, int64_t count, size_t width)
{
    void **place = array;
    if (comm->rank != 0)
        *place = zinf_alloc(width * (size_t)count);
    if (count)
        zinf_comm_broadcast(comm, 0, *place, width * (size_t)count);
}

void zinf_checkpoint_table_broadcast(struct zinf_checkpoint_table *table, struct zinf_comm *comm)
{
    if (comm->rank != 0)
        memset(table, 0, sizeof *table);
    int64_t counts[] = {table->entry_count, table->row_count, table->attribute_count,
                        table->text_count, table->string_bytes};
    zinf_comm_broadcast(comm, 0, counts, sizeof counts);
    table->entry_count = (int)counts[0];
    table->row_count = counts[1];
    table->attribute_count = (int)counts[2];
    table->text_count = (int)counts[3];
    table->string_bytes = counts[4];
    broadcast_array(comm, &table->entries, counts[0], sizeof *table->entries);
    broadcast_array(comm, &table->first_rows, counts[0], sizeof *table->first_rows);
    broadcast_array(comm, &table->rows, counts[1], sizeof *table->rows);
    broadcast_array(comm, &table->attributes, counts[2], sizeof *table->attributes);
    broadcast_array(comm, &table->texts, counts[3], sizeof *table->texts);
    broadcast_array(comm, &table->strings, counts[4], 1);
    point_all(table);
}

void zinf_checkpoint_table_release(struct zinf_checkpoint_table *table)
{
    free(table->entries);
    free(table->first_rows);
    free(table->rows);
    free(table->attributes);
    free(table->texts);
    free(table->strings);
    memset(table, 0, sizeof *table);
}
