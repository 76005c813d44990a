/*
 * HDF5 files as tables of contents: which datasets, where their bytes lie, and a few attributes. The bytes themselves are moved by file.h.
 * Only hdf5_file.c knows HDF5. Everything here is local; rank 0 uses it and tells the others.
 *
 * A file written here has superblock version 3 and version 2 object headers (so that all its metadata carries HDF5's checksums), no times,
 * contiguous datasets that begin at multiples of 4 KiB (1 MiB from 1 MiB on) and own whole 4 KiB blocks. Written twice with the same
 * contents, it is the same bytes.
 */
#ifndef ZINF_IO_HDF5_FILE_H
#define ZINF_IO_HDF5_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum zinf_hdf5_type {
    ZINF_HDF5_GROUP,
    ZINF_HDF5_FLOAT32,
    ZINF_HDF5_UINT32,
    ZINF_HDF5_TEXT /* one fixed-length UTF-8 string; shape[0] is its length in bytes */
};

enum { ZINF_HDF5_MOST_DIMS = 4 };

/** Of the library at run time, "1.10.8". Local. */
void zinf_hdf5_version(char *out, size_t out_bytes);

/* Writing. The first failure is kept and makes everything after it do nothing; zinf_hdf5_layout() and zinf_hdf5_finish() tell it. */

struct zinf_hdf5_writer;

/**
 * Begin the contents of an empty file, open for reading and writing as `descriptor` (borrowed, like `path`, until finish).
 * @param object_count  about how many objects will come: their headers are then kept together
 */
struct zinf_hdf5_writer *zinf_hdf5_begin(int descriptor, const char *path, int64_t object_count);
void zinf_hdf5_add_group(struct zinf_hdf5_writer *writer, const char *path);
/** Groups on the way are made. @return where the dataset's bytes will lie, -1 after a failure. A text has one dimension, its bytes. */
int64_t zinf_hdf5_add_dataset(struct zinf_hdf5_writer *writer, const char *path,
                              enum zinf_hdf5_type type, int dim_count, const int64_t *shape);
void zinf_hdf5_add_link(struct zinf_hdf5_writer *writer, const char *path, const char *target);
void zinf_hdf5_set_integer(struct zinf_hdf5_writer *writer, const char *object, const char *name,
                           int64_t value);
void zinf_hdf5_set_real(struct zinf_hdf5_writer *writer, const char *object, const char *name,
                        double value);
/** The length of the finished file. From here on only attributes that exist may be set again. */
int zinf_hdf5_layout(struct zinf_hdf5_writer *writer, int64_t *file_bytes,
                     struct zinf_error *error);
/** Write what is left and free the writer (NULL: nothing). The file is not synced. */
int zinf_hdf5_finish(struct zinf_hdf5_writer *writer, struct zinf_error *error);

/* Reading. */

struct zinf_hdf5_object {
    char *path;
    enum zinf_hdf5_type type;
    int dim_count;
    int64_t shape[ZINF_HDF5_MOST_DIMS];
    int64_t offset, bytes; /* 0 for groups */
    int64_t address;       /* equal for two names of one object */
    int64_t link_age;      /* the order in which names were given to objects of a group */
};

struct zinf_hdf5_attribute {
    char *object, *name;
    bool is_real;
    int64_t integer;
    double real; /* set for both kinds */
};

struct zinf_hdf5_table {
    struct zinf_hdf5_object *objects; /* depth first, by name; groups before their members, the root left out */
    int object_count;
    struct zinf_hdf5_attribute *attributes;
    int attribute_count;
};

/**
 * Read the table of contents. Whatever zinf does not write is refused: links that are not hard, groups in circles, external or virtual or
 * chunked storage, filters, other types, bytes outside the file. No plugin is loaded and no other file is opened.
 * @return 0; ZINF_E_CHECKPOINT naming the object, or saying metadata
 */
int zinf_hdf5_read_table(struct zinf_hdf5_table *table, int descriptor, const char *path,
                         struct zinf_error *error);
/** The integer attribute of an object, before anything else is looked at. @return 0 or -1 */
int zinf_hdf5_peek(int descriptor, const char *path, const char *object, const char *name,
                   int64_t *value);
void zinf_hdf5_table_release(struct zinf_hdf5_table *table);

#ifdef __cplusplus
}
#endif
#endif
