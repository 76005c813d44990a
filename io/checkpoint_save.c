/*
 * Writing a checkpoint. See checkpoint.h for the interface, the contract for the format.
 *
 * Commit protocol: rank 0 makes the layout under a temporary name and reserves all space ->
 * agreement, offsets to all -> every rank writes its values (whole blocks past the page cache, see
 * bulk.h) and takes CRC32C from the memory they come from before each write -> agreement -> the
 * edges of its runs, then fsync -> agreement -> rank 0 adds checksums, closes the headers, fsync ->
 * agreement -> rename, fsync of the folder. Whatever fails before the rename, on whatever rank, all
 * ranks learn of it at the next agreement, and rank 0 removes the temporary file and says why,
 * once. MPI is never called inside HDF5 or while a write is in flight, so that a full disk cannot
 * leave ranks in different collectives.
 */
#include "io/checkpoint.h"

#include "base/crc32c.h"
#include "io/agree.h"
#include "io/bulk.h"
#include "io/checkpoint_format.h"
#include "io/file.h"
#include "io/hdf5_file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The checksum of one rank's contiguous bytes within one slab. */
struct part {
    int64_t offset; /* bytes from the start of the array */
    int64_t bytes;
    int32_t array;
    uint32_t crc;
};

/* A dataset that rank 0 fills by itself: rows of checksums or a text. */
struct small {
    char *path;
    enum zinf_hdf5_type type;
    int64_t count, offset;
    void *data; /* owned unless a text */
};

struct saver {
    struct zinf_comm *comm;
    const char *path;
    const struct zinf_checkpoint *checkpoint;
    char *temporary;
    int descriptor;
    struct zinf_bulk *bulk;
    int64_t *offsets; /* of each array in the file */
    struct part *parts;
    int64_t part_count;
    /* rank 0 only */
    struct zinf_hdf5_writer *writer;
    struct small *smalls; /* checksums of array i; of /run; then text j, its checksum */
    int small_count;
    struct zinf_error error;
};

struct zinf_checkpoint_sink {
    struct saver *saver;
};

static int64_t array_bytes(const struct zinf_array *array)
{
    int64_t bytes = sizeof(float);
    ZINF_ASSERT(array->dim_count >= 1 && array->dim_count <= 4);
    for (int i = 0; i < array->dim_count; i++)
        ZINF_ASSERT(array->shape[i] > 0 && !__builtin_mul_overflow(bytes, array->shape[i], &bytes));
    return bytes;
}

/* ---- layout, rank 0 ---- */

static void add_small(struct saver *saver, char *path, enum zinf_hdf5_type type, int64_t count,
                      const char *text)
{
    struct small *small = &saver->smalls[saver->small_count++];
    small->path = path;
    small->type = type;
    small->count = count;
    small->data = text ? (void *)text : zinf_alloc(sizeof(uint32_t) * (size_t)count);
    small->offset = zinf_hdf5_add_dataset(saver->writer, path, type, 1, &count);
}

/* HDF5 has no empty strings: an empty text is one NUL. */
static int64_t text_bytes(const struct zinf_text *text)
{
    return *text->value ? (int64_t)strlen(text->value) : 1;
}

static void add_smalls(struct saver *saver)
{
    const struct zinf_checkpoint *checkpoint = saver->checkpoint;
    saver->smalls = zinf_alloc(sizeof *saver->smalls *
                               (size_t)(checkpoint->array_count + 1 + 2 * checkpoint->text_count));
    for (int i = 0; i < checkpoint->array_count; i++)
        add_small(saver, zinf_format("/checksums%s", checkpoint->arrays[i].path), ZINF_HDF5_UINT32,
                  zinf_slab_count(array_bytes(&checkpoint->arrays[i])), NULL);
    add_small(saver, zinf_strdup("/checksums/run"), ZINF_HDF5_UINT32, 1, NULL);
    for (int i = 0; i < checkpoint->text_count; i++) {
        const struct zinf_text *text = &checkpoint->texts[i];
        add_small(saver, zinf_format("/provenance/%s", text->name), ZINF_HDF5_TEXT,
                  text_bytes(text), text->value);
        add_small(saver, zinf_format("/provenance/checksums/%s", text->name), ZINF_HDF5_UINT32,
                  zinf_slab_count(text_bytes(text)), NULL);
    }
}

/* The checksums get the same links as the data, so that every name finds its rows. */
static void add_links(struct saver *saver)
{
    for (int i = 0; i < saver->checkpoint->link_count; i++) {
        const struct zinf_hard_link *link = &saver->checkpoint->links[i];
        char *path = zinf_format("/checksums%s", link->path);
        char *target = zinf_format("/checksums%s", link->target);
        zinf_hdf5_add_link(saver->writer, link->path, link->target);
        zinf_hdf5_add_link(saver->writer, path, target);
        free(path);
        free(target);
    }
}

static void add_attributes(struct saver *saver)
{
    zinf_hdf5_add_group(saver->writer, "/run");
    zinf_hdf5_set_integer(saver->writer, "/run", "format_version", ZINF_CHECKPOINT_VERSION);
    for (int i = 0; i < saver->checkpoint->attribute_count; i++) {
        const struct zinf_attribute *one = &saver->checkpoint->attributes[i];
        if (one->is_real)
            zinf_hdf5_set_real(saver->writer, "/run", one->name, one->real);
        else
            zinf_hdf5_set_integer(saver->writer, "/run", one->name, one->integer);
    }
    zinf_hdf5_set_integer(saver->writer, "/checksums", "table", 0);
}

static int make_layout(struct saver *saver)
{
    const struct zinf_checkpoint *checkpoint = saver->checkpoint;
    int64_t file_bytes;
    saver->temporary = zinf_file_temporary_name(saver->path);
    zinf_file_remove(saver->temporary); /* of a dead job with the same number */
    int status = zinf_file_open(&saver->descriptor, saver->temporary,
                                O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, &saver->error);
    if (status)
        return status;
    saver->writer = zinf_hdf5_begin(saver->descriptor, saver->temporary,
                                    2 * (checkpoint->array_count + checkpoint->text_count));
    for (int i = 0; i < checkpoint->array_count; i++) {
        const struct zinf_array *array = &checkpoint->arrays[i];
        array_bytes(array);
        saver->offsets[i] = zinf_hdf5_add_dataset(saver->writer, array->path, ZINF_HDF5_FLOAT32,
                                                  array->dim_count, array->shape);
    }
    add_smalls(saver);
    add_links(saver);
    add_attributes(saver);
    status = zinf_hdf5_layout(saver->writer, &file_bytes, &saver->error);
    return status
               ? status
               : zinf_file_reserve(saver->descriptor, saver->temporary, file_bytes, &saver->error);
}

static void share_layout(struct saver *saver)
{
    char *temporary = zinf_comm_broadcast_text(saver->comm, saver->temporary);
    if (saver->comm->rank == 0)
        free(temporary); /* the root's writer names its files by the string it has */
    else
        saver->temporary = temporary;
    if (saver->checkpoint->array_count)
        zinf_comm_broadcast(saver->comm, 0, saver->offsets,
                            sizeof *saver->offsets * (size_t)saver->checkpoint->array_count);
}

/* ---- data, every rank ---- */

/* Parts that touch within a slab become one, so that rank 0 gets few. */
static void note_part(struct saver *saver, struct part part)
{
    struct part *last = saver->part_count ? &saver->parts[saver->part_count - 1] : NULL;
    if (last && last->array == part.array && last->offset + last->bytes == part.offset &&
        part.offset % ZINF_SLAB_BYTES) {
        last->crc = zinf_crc32c_combine(last->crc, part.crc, (uint64_t)part.bytes);
        last->bytes += part.bytes;
        return;
    }
    if ((saver->part_count & (saver->part_count - 1)) == 0)
        saver->parts =
            zinf_realloc(saver->parts, sizeof *saver->parts * (size_t)(2 * saver->part_count + 1));
    saver->parts[saver->part_count++] = part;
}

/* Checksum first, then write, so that what is stored is checked against what was computed. A slab's
 * piece is still in the cache then. */
int zinf_checkpoint_put(struct zinf_checkpoint_sink *sink, int array, int64_t offset, int64_t count,
                        const float *data)
{
    struct saver *saver = sink->saver;
    const char *from = (const char *)data;
    int64_t at = offset * (int64_t)sizeof(float);
    int64_t end = at + count * (int64_t)sizeof(float);
    int status = 0;
    ZINF_ASSERT(array >= 0 && array < saver->checkpoint->array_count);
    ZINF_ASSERT(offset >= 0 && count >= 0 && end <= array_bytes(&saver->checkpoint->arrays[array]));
    while (at < end && !status) {
        int64_t bytes = ZINF_SLAB_BYTES - at % ZINF_SLAB_BYTES;
        if (bytes > end - at)
            bytes = end - at;
        note_part(saver, (struct part){at, bytes, array, zinf_crc32c(0, from, (size_t)bytes)});
        status = zinf_bulk_write(saver->bulk, from, (size_t)bytes, saver->offsets[array] + at);
        from += bytes;
        at += bytes;
    }
    return status;
}

static int pour_slices(void *context, struct zinf_checkpoint_sink *sink)
{
    const struct zinf_checkpoint *checkpoint = context;
    int status = 0;
    for (int i = 0; i < checkpoint->array_count; i++)
        for (int s = 0; s < checkpoint->arrays[i].slice_count && !status; s++) {
            const struct zinf_slice *slice = &checkpoint->arrays[i].slices[s];
            status = zinf_checkpoint_put(sink, i, slice->offset, slice->count, slice->data);
        }
    return status;
}

/* Everything but the edges. */
static int write_values(struct saver *saver)
{
    const struct zinf_checkpoint *checkpoint = saver->checkpoint;
    struct zinf_checkpoint_sink sink = {saver};
    int status = 0;
    if (saver->comm->rank != 0)
        status = zinf_file_open(&saver->descriptor, saver->temporary, O_WRONLY | O_NOFOLLOW,
                                &saver->error);
    if (!status)
        status = zinf_bulk_open(&saver->bulk, saver->descriptor, saver->temporary, &saver->error);
    if (status)
        return status;
    if (checkpoint->pour)
        checkpoint->pour(checkpoint->pour_context, &sink);
    else
        pour_slices((void *)checkpoint, &sink);
    return zinf_bulk_flush(saver->bulk, &saver->error);
}

static int write_edges(struct saver *saver)
{
    int status = zinf_bulk_write_edges(saver->bulk, &saver->error);
    if (!status && saver->comm->rank != 0)
        status = zinf_file_sync(saver->descriptor, saver->temporary, &saver->error);
    zinf_bulk_close(saver->bulk);
    saver->bulk = NULL;
    return status;
}

/* ---- checksums, rank 0 ---- */

static int by_place(const void *a, const void *b)
{
    const struct part *one = a, *two = b;
    if (one->array != two->array)
        return one->array < two->array ? -1 : 1;
    return (one->offset > two->offset) - (one->offset < two->offset);
}

/* Parts of all ranks to one CRC a slab. Every byte must have come exactly once. */
static int combine_parts(struct saver *saver, struct part *parts, size_t count)
{
    size_t next = 0;
    qsort(parts, count, sizeof *parts, by_place);
    for (int i = 0; i < saver->checkpoint->array_count; i++) {
        int64_t bytes = array_bytes(&saver->checkpoint->arrays[i]), at = 0;
        uint32_t *rows = saver->smalls[i].data;
        for (; next < count && parts[next].array == i && parts[next].offset == at; next++) {
            uint32_t *row = &rows[at / ZINF_SLAB_BYTES];
            *row = at % ZINF_SLAB_BYTES
                       ? zinf_crc32c_combine(*row, parts[next].crc, (uint64_t)parts[next].bytes)
                       : parts[next].crc;
            at += parts[next].bytes;
        }
        if (at != bytes)
            return zinf_error_in(&saver->error, ZINF_E_RUNTIME, saver->path,
                                 "the ranks' slices of %s do not cover it once: %lld of %lld bytes",
                                 saver->checkpoint->arrays[i].path, (long long)at,
                                 (long long)bytes);
    }
    return 0;
}

static int gather_parts(struct saver *saver)
{
    void *all = NULL;
    size_t *offsets = zinf_alloc(sizeof *offsets * ((size_t)saver->comm->size + 1));
    zinf_comm_gather_bytes(saver->comm, saver->parts,
                           sizeof *saver->parts * (size_t)saver->part_count, &all, offsets);
    int status = 0;
    if (saver->comm->rank == 0)
        status = combine_parts(saver, all, offsets[saver->comm->size] / sizeof(struct part));
    free(all);
    free(offsets);
    return status;
}

static uint32_t run_checksum(const struct zinf_checkpoint *checkpoint)
{
    int count = checkpoint->attribute_count + 1;
    struct zinf_attribute *all = zinf_alloc(sizeof *all * (size_t)count);
    all[0] = (struct zinf_attribute){.name = "format_version", .integer = ZINF_CHECKPOINT_VERSION};
    if (count > 1)
        memcpy(all + 1, checkpoint->attributes, sizeof *all * (size_t)(count - 1));
    uint32_t crc = zinf_checkpoint_run_crc(all, count);
    free(all);
    return crc;
}

static int array_index(const struct zinf_checkpoint *checkpoint, const char *path)
{
    int i = 0;
    while (i < checkpoint->array_count && strcmp(checkpoint->arrays[i].path, path))
        i++;
    ZINF_ASSERT(i < checkpoint->array_count); /* links are to arrays */
    return i;
}

static uint32_t table_checksum(const struct saver *saver)
{
    const struct zinf_checkpoint *checkpoint = saver->checkpoint;
    int count = checkpoint->array_count + 1, total = count + checkpoint->link_count;
    struct zinf_checksum_rows *list = zinf_alloc(sizeof *list * (size_t)total);
    char **names = zinf_alloc(sizeof *names * (size_t)(total - count + 1));
    for (int i = 0; i < count; i++)
        list[i] = (struct zinf_checksum_rows){saver->smalls[i].path, saver->smalls[i].data,
                                              saver->smalls[i].count};
    for (int i = 0; i < checkpoint->link_count; i++) {
        list[count + i] = list[array_index(checkpoint, checkpoint->links[i].target)];
        list[count + i].path = names[i] = zinf_format("/checksums%s", checkpoint->links[i].path);
    }
    uint32_t crc = zinf_checkpoint_table_crc(list, total);
    for (int i = 0; i < checkpoint->link_count; i++)
        free(names[i]);
    free(names);
    free(list);
    return crc;
}

static int write_smalls(struct saver *saver)
{
    int status = 0, arrays = saver->checkpoint->array_count;
    *(uint32_t *)saver->smalls[arrays].data = run_checksum(saver->checkpoint);
    for (int i = arrays + 1; i < saver->small_count; i += 2) {
        const char *text = saver->smalls[i].data;
        uint32_t *rows = saver->smalls[i + 1].data;
        for (int64_t at = 0; at < saver->smalls[i].count; at += ZINF_SLAB_BYTES) {
            int64_t rest = saver->smalls[i].count - at;
            rows[at / ZINF_SLAB_BYTES] = zinf_crc32c(
                0, text + at, (size_t)(rest < ZINF_SLAB_BYTES ? rest : ZINF_SLAB_BYTES));
        }
    }
    for (int i = 0; i < saver->small_count && !status; i++) {
        const struct small *small = &saver->smalls[i];
        size_t width = small->type == ZINF_HDF5_TEXT ? 1 : sizeof(uint32_t);
        status = zinf_file_write(saver->descriptor, saver->temporary, small->data,
                                 width * (size_t)small->count, small->offset, &saver->error);
    }
    return status;
}

/* Everything but the name: checksums, headers, disk. */
static int complete(struct saver *saver)
{
    int status = write_smalls(saver);
    if (status)
        return status;
    zinf_hdf5_set_integer(saver->writer, "/checksums", "table", table_checksum(saver));
    status = zinf_hdf5_finish(saver->writer, &saver->error);
    saver->writer = NULL;
    return status ? status : zinf_file_sync(saver->descriptor, saver->temporary, &saver->error);
}

/* ---- the whole ---- */

static int close_descriptor(struct saver *saver)
{
    int descriptor = saver->descriptor;
    saver->descriptor = -1;
    return zinf_file_close(descriptor, saver->temporary, &saver->error);
}

static int save(struct saver *saver)
{
    struct zinf_comm *comm = saver->comm;
    int root = comm->rank == 0;
    int status = zinf_agree_error(comm, root ? make_layout(saver) : 0, &saver->error);
    if (status)
        return status;
    share_layout(saver);
    status = zinf_agree_error(comm, write_values(saver), &saver->error);
    if (status)
        return status;
    status = zinf_agree_error(comm, write_edges(saver), &saver->error);
    if (status)
        return status;
    status = gather_parts(saver);
    if (!status && root)
        status = complete(saver);
    if (!status)
        status = close_descriptor(saver);
    status = zinf_agree_error(comm, status, &saver->error);
    if (status)
        return status;
    if (root) {
        status = zinf_file_rename(saver->temporary, saver->path, &saver->error);
        if (!status)
            status = zinf_file_sync_folder(saver->path, &saver->error);
    }
    return zinf_agree_error(comm, status, &saver->error);
}

static void release(struct saver *saver, int failed)
{
    struct zinf_error ignored;
    zinf_hdf5_finish(saver->writer, &ignored);
    zinf_bulk_close(saver->bulk);
    if (saver->descriptor >= 0)
        close(saver->descriptor);
    if (failed && saver->comm->rank == 0 && saver->temporary)
        zinf_file_remove(saver->temporary);
    for (int i = 0; i < saver->small_count; i++) {
        free(saver->smalls[i].path);
        if (saver->smalls[i].type != ZINF_HDF5_TEXT)
            free(saver->smalls[i].data);
    }
    free(saver->smalls);
    free(saver->temporary);
    free(saver->offsets);
    free(saver->parts);
}

int zinf_checkpoint_save(struct zinf_comm *comm, const char *path,
                         const struct zinf_checkpoint *checkpoint)
{
    struct saver saver = {.comm = comm, .path = path, .checkpoint = checkpoint, .descriptor = -1};
    saver.offsets = zinf_alloc(sizeof *saver.offsets * (size_t)checkpoint->array_count);
    int status = save(&saver);
    release(&saver, status != 0);
    if (status && comm->rank == 0) {
        char text[sizeof saver.error];
        zinf_error_print(&saver.error, text, sizeof text);
        zinf_log(status == ZINF_E_NO_SPACE ? ZINF_LOG_WARNING : ZINF_LOG_ERROR,
                 "checkpoint %s was not written: %s", path, text);
    }
    return status;
}
