/*
 * Opening, verifying and loading a checkpoint. See checkpoint.h.
 *
 * Rank 0 alone reads the table of contents through HDF5 and tells the others; the arrays' bytes are
 * read by pread, each rank what it needs.
 */
#include "io/checkpoint.h"

#include "base/crc32c.h"
#include "io/agree.h"
#include "io/checkpoint_format.h"
#include "io/checkpoint_table.h"
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* How many slabs of 4 MiB are on their way while one is checked. */
enum { SLABS_AHEAD = 4 };

struct zinf_checkpoint_file {
    struct zinf_comm *comm;
    char *path; /* links resolved, so that all ranks open one file while `latest` moves on */
    int descriptor;
    struct zinf_checkpoint_table table;
};

static int resolve(struct zinf_checkpoint_file *file, const char *path, struct zinf_error *error)
{
    file->path = realpath(path, NULL);
    if (!file->path)
        return zinf_error_in(error, ZINF_E_USAGE, path, "no checkpoint there: %s", strerror(errno));
    struct stat kind;
    if (!stat(file->path, &kind) && S_ISDIR(kind.st_mode))
        return zinf_error_in(error, ZINF_E_USAGE, path,
                             "is a folder; a checkpoint is a file, in a run folder "
                             "checkpoints/latest or checkpoints/step-*.h5");
    int status = zinf_file_open(&file->descriptor, file->path, O_RDONLY, error);
    if (status)
        return error->status = ZINF_E_USAGE;
    return zinf_checkpoint_table_read(&file->table, file->descriptor, file->path, error);
}

static void share_path(struct zinf_checkpoint_file *file)
{
    char *path = zinf_comm_broadcast_text(file->comm, file->path);
    free(file->path);
    file->path = path;
}

int zinf_checkpoint_open(struct zinf_checkpoint_file **file, struct zinf_comm *comm,
                         const char *path, struct zinf_error *error)
{
    struct zinf_checkpoint_file *opened = zinf_alloc(sizeof *opened);
    opened->comm = comm;
    opened->descriptor = -1;
    int status = zinf_agree_error(comm, comm->rank == 0 ? resolve(opened, path, error) : 0, error);
    if (!status) {
        share_path(opened);
        zinf_checkpoint_table_broadcast(&opened->table, comm);
        if (comm->rank != 0)
            status = zinf_file_open(&opened->descriptor, opened->path, O_RDONLY, error);
        status = zinf_agree_error(comm, status, error);
    }
    if (status)
        zinf_checkpoint_close(opened);
    else
        *file = opened;
    return status;
}

void zinf_checkpoint_close(struct zinf_checkpoint_file *file)
{
    if (!file)
        return;
    if (file->descriptor >= 0)
        close(file->descriptor);
    zinf_checkpoint_table_release(&file->table);
    free(file->path);
    free(file);
}

/* ---- verify ---- */

/* The slabs of some arrays in order, shared out over the ranks. */
struct walk {
    const struct zinf_checkpoint_file *file;
    const char *prefix;
    int entry; /* -1 before the first */
    int64_t slab, turn;
};

static bool is_walked(const struct walk *walk, const struct zinf_checkpoint_entry *entry)
{
    /* Texts were checked at opening; a link's bytes are its target's. */
    return entry->file_offset >= 0 && !entry->link_target &&
           !strncmp(entry->path, walk->prefix, strlen(walk->prefix));
}

/* To this rank's next slab; false behind the last. */
static bool step(struct walk *walk)
{
    const struct zinf_checkpoint_table *table = &walk->file->table;
    do {
        const struct zinf_checkpoint_entry *entry =
            walk->entry >= 0 ? &table->entries[walk->entry] : NULL;
        walk->slab++;
        while (!entry || !is_walked(walk, entry) ||
               walk->slab >= zinf_slab_count((int64_t)entry->bytes)) {
            if (++walk->entry >= table->entry_count)
                return false;
            entry = &table->entries[walk->entry];
            walk->slab = 0;
        }
    } while (walk->turn++ % walk->file->comm->size != walk->file->comm->rank);
    return true;
}

/* Let the system bring the slab where `walk` stands. */
static void will_read_slab(const struct walk *walk)
{
    const struct zinf_checkpoint_entry *entry = &walk->file->table.entries[walk->entry];
    posix_fadvise(walk->file->descriptor, entry->file_offset + walk->slab * ZINF_SLAB_BYTES,
                  ZINF_SLAB_BYTES, POSIX_FADV_WILLNEED);
}

static int verify_slab(struct zinf_checkpoint_file *file, int index, int64_t slab, char *buffer,
                       struct zinf_error *error)
{
    const struct zinf_checkpoint_entry *entry = &file->table.entries[index];
    int64_t at = slab * ZINF_SLAB_BYTES, bytes = (int64_t)entry->bytes - at;
    if (bytes > ZINF_SLAB_BYTES)
        bytes = ZINF_SLAB_BYTES;
    if (zinf_file_read(file->descriptor, file->path, buffer, (size_t)bytes, entry->file_offset + at,
                       error)) {
        char text[sizeof error->text];
        memcpy(text, error->text, sizeof text);
        return zinf_error_in(error, ZINF_E_CHECKPOINT, file->path, "%s: %.1200s", entry->path,
                             text);
    }
    if (zinf_crc32c(0, buffer, (size_t)bytes) ==
        file->table.rows[file->table.first_rows[index] + slab])
        return 0;
    return zinf_error_in(error, ZINF_E_CHECKPOINT, file->path,
                         "%s is damaged: bytes %lld to %lld do not match their checksum",
                         entry->path, (long long)at, (long long)(at + bytes - 1));
}

int zinf_checkpoint_verify(struct zinf_checkpoint_file *file, struct zinf_error *error)
{
    return zinf_checkpoint_verify_part(file, "/", error);
}

int zinf_checkpoint_verify_part(struct zinf_checkpoint_file *file, const char *prefix,
                                struct zinf_error *error)
{
    char *buffer = zinf_alloc(ZINF_SLAB_BYTES);
    struct walk here = {.file = file, .prefix = prefix, .entry = -1}, ahead = here;
    bool more = step(&ahead);
    int status = 0;
    for (int i = 1; i < SLABS_AHEAD && more; i++) {
        will_read_slab(&ahead);
        more = step(&ahead);
    }
    while (!status && step(&here)) {
        if (more) {
            will_read_slab(&ahead);
            more = step(&ahead);
        }
        status = verify_slab(file, here.entry, here.slab, buffer, error);
    }
    free(buffer);
    return zinf_agree_error(file->comm, status, error);
}

/* ---- look up ---- */

static int find_entry(const void *path, const void *entry)
{
    return zinf_checkpoint_path_compare(path, ((const struct zinf_checkpoint_entry *)entry)->path);
}

static const struct zinf_checkpoint_entry *find(const struct zinf_checkpoint_file *file,
                                                const char *path)
{
    return bsearch(path, file->table.entries, (size_t)file->table.entry_count,
                   sizeof *file->table.entries, find_entry);
}

static bool same_shape(const struct zinf_checkpoint_entry *entry, int dim_count,
                       const int64_t *shape)
{
    return entry->file_offset >= 0 && entry->dim_count == dim_count &&
           !memcmp(entry->shape, shape, sizeof *shape * (size_t)dim_count);
}

bool zinf_checkpoint_has(const struct zinf_checkpoint_file *file, const char *path, int dim_count,
                         const int64_t *shape)
{
    const struct zinf_checkpoint_entry *entry = find(file, path);
    return entry && same_shape(entry, dim_count, shape);
}

int zinf_checkpoint_attribute(const struct zinf_checkpoint_file *file, const char *name,
                              int64_t *integer, double *real)
{
    for (int i = 0; i < file->table.attribute_count; i++) {
        const struct zinf_attribute *one = &file->table.attributes[i];
        if (strcmp(one->name, name))
            continue;
        if (integer)
            *integer = one->is_real ? (int64_t)one->real : one->integer;
        if (real)
            *real = one->is_real ? one->real : (double)one->integer;
        return 0;
    }
    return -1;
}

int zinf_checkpoint_attributes(const struct zinf_checkpoint_file *file,
                               const struct zinf_attribute **attributes)
{
    *attributes = file->table.attributes;
    return file->table.attribute_count;
}

const char *zinf_checkpoint_text(const struct zinf_checkpoint_file *file, const char *name)
{
    for (int i = 0; i < file->table.text_count; i++)
        if (!strcmp(file->table.texts[i].name, name))
            return file->table.texts[i].value;
    return NULL;
}

int zinf_checkpoint_entries(const struct zinf_checkpoint_file *file,
                            const struct zinf_checkpoint_entry **entries)
{
    *entries = file->table.entries;
    return file->table.entry_count;
}

/* ---- load ---- */

void zinf_checkpoint_will_read(const struct zinf_checkpoint_file *file, const char *path,
                               int64_t offset, int64_t count)
{
    const struct zinf_checkpoint_entry *entry = find(file, path);
    if (entry && entry->file_offset >= 0)
        posix_fadvise(file->descriptor, entry->file_offset + (int64_t)sizeof(float) * offset,
                      (int64_t)sizeof(float) * count, POSIX_FADV_WILLNEED);
}

/* A run of bytes, slab after slab, with the next ones already on their way: the system's own
 * look-ahead is too short for a fast drive. */
static int read_ahead(const struct zinf_checkpoint_file *file, char *out, int64_t offset,
                      int64_t bytes, struct zinf_error *error)
{
    const int64_t ahead = (SLABS_AHEAD - 1) * (int64_t)ZINF_SLAB_BYTES;
    int status = 0;
    if (bytes > ZINF_SLAB_BYTES)
        posix_fadvise(file->descriptor, offset, bytes < ahead ? bytes : ahead, POSIX_FADV_WILLNEED);
    for (int64_t at = 0; at < bytes && !status; at += ZINF_SLAB_BYTES) {
        int64_t left = bytes - at, next = left - ahead;
        if (next > 0)
            posix_fadvise(file->descriptor, offset + at + ahead,
                          next < ZINF_SLAB_BYTES ? next : ZINF_SLAB_BYTES, POSIX_FADV_WILLNEED);
        status = zinf_file_read(file->descriptor, file->path, out + at,
                                (size_t)(left < ZINF_SLAB_BYTES ? left : ZINF_SLAB_BYTES),
                                offset + at, error);
    }
    return status;
}

int zinf_checkpoint_read(const struct zinf_checkpoint_file *file, const char *path, int64_t offset,
                         int64_t count, float *out, struct zinf_error *error)
{
    const struct zinf_checkpoint_entry *entry = find(file, path);
    if (!entry || entry->file_offset < 0)
        return zinf_error_in(error, ZINF_E_USAGE, file->path, "%s is not in it", path);
    int64_t total = (int64_t)(entry->bytes / sizeof(float));
    ZINF_ASSERT(offset >= 0 && count >= 0 && offset <= total && count <= total - offset);
    int status = read_ahead(file, (char *)out, entry->file_offset + (int64_t)sizeof(float) * offset,
                            (int64_t)sizeof(float) * count, error);
    return status ? (error->status = ZINF_E_CHECKPOINT) : 0;
}

static int load_array(struct zinf_checkpoint_file *file, const struct zinf_array *array,
                      struct zinf_error *error)
{
    if (!zinf_checkpoint_has(file, array->path, array->dim_count, array->shape))
        return zinf_error_in(error, ZINF_E_USAGE, file->path,
                             "%s is missing or has another shape: a checkpoint of another model",
                             array->path);
    int status = 0;
    for (int i = 0; i < array->slice_count && !status; i++)
        status = zinf_checkpoint_read(file, array->path, array->slices[i].offset,
                                      array->slices[i].count, array->slices[i].data, error);
    return status;
}

int zinf_checkpoint_load(struct zinf_checkpoint_file *file, const struct zinf_array *arrays,
                         int array_count, struct zinf_error *error)
{
    int status = 0;
    for (int i = 0; i < array_count && !status; i++)
        status = load_array(file, &arrays[i], error);
    return zinf_agree_error(file->comm, status, error);
}
