/*
 * HDF5 files as tables of contents. See hdf5_file.h; how HDF5 reaches the disk: hdf5_driver.h.
 */
#include "io/hdf5_file.h"

#include "io/file.h"
#include "io/hdf5_driver.h"

#include <stdlib.h>
#include <string.h>

enum { HEADER_BYTES = 768, DEEPEST_GROUP = 8 };

void zinf_hdf5_version(char *out, size_t out_bytes)
{
    unsigned major = 0, minor = 0, release = 0;
    H5get_libversion(&major, &minor, &release);
    snprintf(out, out_bytes, "%u.%u.%u", major, minor, release);
}

/* ---- what went wrong ---- */

static herr_t innermost_reason(unsigned n, const H5E_error2_t *entry, void *text)
{
    if (n == 0 && entry->desc)
        snprintf(text, 160, " (%s)", entry->desc);
    return 0;
}

/* The driver's error explains better than HDF5's, which only saw its result. */
static int tell(struct zinf_error *error, int status, const struct zinf_hdf5_disk *disk,
                const char *what)
{
    if (disk->failed) {
        *error = disk->error;
        return error->status;
    }
    char reason[160] = "";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, innermost_reason, reason);
    return zinf_error_in(error, status, disk->path, "%s%s", what, reason);
}

/* ---- writing ---- */

struct zinf_hdf5_writer {
    struct zinf_hdf5_disk disk;
    hid_t file, group_plist, dataset_plist;
    int failed;
    struct zinf_error error;
};

static void writer_failed(struct zinf_hdf5_writer *writer, const char *what, const char *path)
{
    char text[600];
    if (writer->failed)
        return;
    snprintf(text, sizeof text, "HDF5 cannot make %s %s", what, path);
    writer->failed = tell(&writer->error, ZINF_E_RUNTIME, &writer->disk, text);
}

/* No times (equal contents give equal bytes), the order of names kept, all attributes in the
 * header. */
static void set_group_properties(hid_t plist)
{
    H5Pset_obj_track_times(plist, 0);
    H5Pset_link_creation_order(plist, H5P_CRT_ORDER_TRACKED);
    H5Pset_attr_phase_change(plist, 1024, 0);
}

struct zinf_hdf5_writer *zinf_hdf5_begin(int descriptor, const char *path, int64_t object_count)
{
    struct zinf_hdf5_writer *writer = zinf_alloc(sizeof *writer);
    writer->disk.descriptor = descriptor;
    writer->disk.path = path;
    hid_t access = zinf_hdf5_access(&writer->disk), create = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_meta_block_size(access, (hsize_t)(object_count + 8) * HEADER_BYTES);
    set_group_properties(create);
    writer->group_plist = H5Pcreate(H5P_GROUP_CREATE);
    set_group_properties(writer->group_plist);
    writer->dataset_plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_obj_track_times(writer->dataset_plist, 0);
    H5Pset_layout(writer->dataset_plist, H5D_CONTIGUOUS);
    H5Pset_alloc_time(writer->dataset_plist, H5D_ALLOC_TIME_EARLY);
    H5Pset_fill_time(writer->dataset_plist, H5D_FILL_TIME_NEVER);
    writer->file = H5Fcreate(path, H5F_ACC_TRUNC, create, access);
    if (writer->file < 0)
        writer_failed(writer, "file", path);
    H5Pclose(create);
    H5Pclose(access);
    return writer;
}

/* Make the groups on the way to `path`. */
static void add_parents(struct zinf_hdf5_writer *writer, const char *path)
{
    char *copy = zinf_strdup(path);
    for (char *slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        zinf_hdf5_add_group(writer, copy);
        *slash = '/';
    }
    free(copy);
}

void zinf_hdf5_add_group(struct zinf_hdf5_writer *writer, const char *path)
{
    if (writer->failed)
        return;
    add_parents(writer, path);
    if (writer->failed || H5Lexists(writer->file, path, H5P_DEFAULT) > 0)
        return;
    hid_t group = H5Gcreate2(writer->file, path, H5P_DEFAULT, writer->group_plist, H5P_DEFAULT);
    if (group < 0)
        writer_failed(writer, "group", path);
    else
        H5Gclose(group);
}

static hid_t type_to_write(enum zinf_hdf5_type type, int64_t text_bytes)
{
    if (type != ZINF_HDF5_TEXT)
        return H5Tcopy(type == ZINF_HDF5_FLOAT32 ? H5T_IEEE_F32LE : H5T_STD_U32LE);
    hid_t text = H5Tcopy(H5T_C_S1);
    H5Tset_size(text, (size_t)text_bytes);
    H5Tset_strpad(text, H5T_STR_NULLPAD);
    H5Tset_cset(text, H5T_CSET_UTF8);
    return text;
}

int64_t zinf_hdf5_add_dataset(struct zinf_hdf5_writer *writer, const char *path,
                              enum zinf_hdf5_type type, int dim_count, const int64_t *shape)
{
    if (writer->failed)
        return -1;
    add_parents(writer, path);
    if (writer->failed)
        return -1;
    hsize_t dims[ZINF_HDF5_MOST_DIMS] = {0};
    for (int i = 0; i < dim_count; i++)
        dims[i] = (hsize_t)shape[i];
    hid_t kind = type_to_write(type, shape[0]);
    hid_t space =
        type == ZINF_HDF5_TEXT ? H5Screate(H5S_SCALAR) : H5Screate_simple(dim_count, dims, NULL);
    hid_t dataset = H5Dcreate2(writer->file, path, kind, space, H5P_DEFAULT, writer->dataset_plist,
                               H5P_DEFAULT);
    haddr_t offset = dataset < 0 ? HADDR_UNDEF : H5Dget_offset(dataset);
    if (offset == HADDR_UNDEF)
        writer_failed(writer, "dataset", path);
    if (dataset >= 0)
        H5Dclose(dataset);
    H5Sclose(space);
    H5Tclose(kind);
    return writer->failed ? -1 : (int64_t)offset;
}

void zinf_hdf5_add_link(struct zinf_hdf5_writer *writer, const char *path, const char *target)
{
    if (!writer->failed)
        add_parents(writer, path);
    if (!writer->failed &&
        H5Lcreate_hard(writer->file, target, writer->file, path, H5P_DEFAULT, H5P_DEFAULT) < 0)
        writer_failed(writer, "link", path);
}

static void set_attribute(struct zinf_hdf5_writer *writer, const char *object, const char *name,
                          hid_t type, const void *value)
{
    if (writer->failed)
        return;
    hid_t owner = H5Oopen(writer->file, object, H5P_DEFAULT), space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Aexists(owner, name) > 0
                          ? H5Aopen(owner, name, H5P_DEFAULT)
                          : H5Acreate2(owner, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (attribute < 0 || H5Awrite(attribute, type, value) < 0)
        writer_failed(writer, "attribute", name);
    if (attribute >= 0)
        H5Aclose(attribute);
    H5Sclose(space);
    if (owner >= 0)
        H5Oclose(owner);
}

void zinf_hdf5_set_integer(struct zinf_hdf5_writer *writer, const char *object, const char *name,
                           int64_t value)
{
    set_attribute(writer, object, name, H5T_STD_I64LE, &value);
}

void zinf_hdf5_set_real(struct zinf_hdf5_writer *writer, const char *object, const char *name,
                        double value)
{
    set_attribute(writer, object, name, H5T_IEEE_F64LE, &value);
}

int zinf_hdf5_layout(struct zinf_hdf5_writer *writer, int64_t *file_bytes, struct zinf_error *error)
{
    if (!writer->failed && (H5Fflush(writer->file, H5F_SCOPE_GLOBAL) < 0 || writer->disk.failed))
        writer_failed(writer, "the headers of", writer->disk.path);
    if (writer->failed) {
        *error = writer->error;
        return writer->failed;
    }
    *file_bytes = (int64_t)writer->disk.eoa;
    return 0;
}

int zinf_hdf5_finish(struct zinf_hdf5_writer *writer, struct zinf_error *error)
{
    if (!writer)
        return 0;
    if (writer->file >= 0 && (H5Fclose(writer->file) < 0 || writer->disk.failed))
        writer_failed(writer, "an end of", writer->disk.path);
    H5Pclose(writer->group_plist);
    H5Pclose(writer->dataset_plist);
    int status = writer->failed;
    if (status)
        *error = writer->error;
    free(writer);
    return status;
}

/* ---- reading ---- */

struct reader {
    struct zinf_hdf5_disk disk;
    struct zinf_hdf5_table *table;
    const char *group; /* path of the group being read, "" for the root */
    int depth;
    int status;
    struct zinf_error *error;
};

/* The first refusal is the one that is told. Returns -1, which ends an iteration. */
static int refuse(struct reader *reader, const char *path, const char *why)
{
    char text[700];
    snprintf(text, sizeof text, "metadata: %s %s", path, why);
    if (!reader->status)
        reader->status = tell(reader->error, ZINF_E_CHECKPOINT, &reader->disk, text);
    return -1;
}

static struct zinf_hdf5_object *append_object(struct reader *reader, char *path)
{
    struct zinf_hdf5_table *table = reader->table;
    if ((table->object_count & (table->object_count - 1)) == 0)
        table->objects = zinf_realloc(table->objects, sizeof *table->objects *
                                                          (size_t)(2 * table->object_count + 1));
    struct zinf_hdf5_object *object = &table->objects[table->object_count++];
    memset(object, 0, sizeof *object);
    object->path = path;
    return object;
}

/* A dataset's type: of the three we write, -1 for any other. Text gives its length too. */
static int type_read(hid_t dataset, int64_t *text_bytes)
{
    hid_t type = H5Dget_type(dataset);
    int found = -1;
    if (H5Tequal(type, H5T_IEEE_F32LE) > 0)
        found = ZINF_HDF5_FLOAT32;
    else if (H5Tequal(type, H5T_STD_U32LE) > 0)
        found = ZINF_HDF5_UINT32;
    else if (H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0) {
        found = ZINF_HDF5_TEXT;
        *text_bytes = (int64_t)H5Tget_size(type);
    }
    H5Tclose(type);
    return found;
}

/* Contiguous, in this file, unfiltered? */
static int storage_is_plain(hid_t dataset)
{
    hid_t plist = H5Dget_create_plist(dataset);
    int plain = H5Pget_layout(plist) == H5D_CONTIGUOUS && H5Pget_external_count(plist) == 0 &&
                H5Pget_nfilters(plist) == 0;
    H5Pclose(plist);
    return plain;
}

/* Shape and bytes of a dataset; 0 when they are sane. */
static int shape_read(hid_t dataset, struct zinf_hdf5_object *object, int64_t text_bytes)
{
    hsize_t dims[H5S_MAX_RANK];
    hid_t space = H5Dget_space(dataset);
    int scalar = H5Sget_simple_extent_type(space) == H5S_SCALAR;
    int count = H5Sget_simple_extent_ndims(space);
    int sane = object->type == ZINF_HDF5_TEXT ? scalar : count >= 1 && count <= ZINF_HDF5_MOST_DIMS;
    if (sane)
        H5Sget_simple_extent_dims(space, dims, NULL);
    H5Sclose(space);
    if (!sane)
        return -1;
    object->bytes = object->type == ZINF_HDF5_TEXT ? text_bytes : 4;
    object->dim_count = object->type == ZINF_HDF5_TEXT ? 1 : count;
    object->shape[0] = text_bytes;
    for (int i = 0; i < count && !scalar; i++) {
        object->shape[i] = (int64_t)dims[i];
        if (dims[i] == 0 || dims[i] > INT64_MAX ||
            __builtin_mul_overflow(object->bytes, (int64_t)dims[i], &object->bytes))
            return -1;
    }
    return 0;
}

static int read_dataset(struct reader *reader, hid_t dataset, struct zinf_hdf5_object *object)
{
    int64_t text_bytes = 0;
    int type = type_read(dataset, &text_bytes);
    if (type < 0)
        return refuse(reader, object->path, "has an element type that zinf does not write");
    object->type = (enum zinf_hdf5_type)type;
    if (!storage_is_plain(dataset))
        return refuse(reader, object->path, "is not stored contiguously in this file");
    if (shape_read(dataset, object, text_bytes))
        return refuse(reader, object->path, "has a shape that zinf does not write");
    haddr_t offset = H5Dget_offset(dataset);
    if (offset == HADDR_UNDEF || offset > reader->disk.eof ||
        (haddr_t)object->bytes > reader->disk.eof - offset)
        return refuse(reader, object->path, "has bytes outside the file");
    object->offset = (int64_t)offset;
    return 0;
}

static herr_t visit_attribute(hid_t object, const char *name, const H5A_info_t *info, void *context)
{
    (void)info;
    struct reader *reader = context;
    struct zinf_hdf5_table *table = reader->table;
    struct zinf_hdf5_attribute found = {0};
    hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    H5T_class_t kind = H5Tget_class(type);
    found.is_real = kind == H5T_FLOAT;
    int known = (kind == H5T_FLOAT || kind == H5T_INTEGER) &&
                H5Sget_simple_extent_type(space) == H5S_SCALAR && H5Tget_size(type) <= 8;
    if (known && found.is_real)
        known = H5Aread(attribute, H5T_NATIVE_DOUBLE, &found.real) >= 0;
    else if (known)
        known = H5Aread(attribute, H5T_NATIVE_INT64, &found.integer) >= 0;
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    if (!known)
        return refuse(reader, reader->group, "has an attribute that zinf does not write");
    if (!found.is_real)
        found.real = (double)found.integer;
    found.object = zinf_strdup(reader->group);
    found.name = zinf_strdup(name);
    table->attributes = zinf_realloc(table->attributes, sizeof *table->attributes *
                                                            (size_t)(table->attribute_count + 1));
    table->attributes[table->attribute_count++] = found;
    return 0;
}

static herr_t visit_link(hid_t group, const char *name, const H5L_info_t *link, void *context);

/* Attributes and members of an open object; only groups have members. */
static int read_inside(struct reader *reader, hid_t object, const char *path, int is_group)
{
    const char *outer = reader->group;
    reader->group = path;
    int status = 0;
    if (H5Aiterate2(object, H5_INDEX_NAME, H5_ITER_INC, NULL, visit_attribute, reader) < 0)
        status = refuse(reader, path, "has attributes that cannot be read");
    if (!status && is_group && reader->depth >= DEEPEST_GROUP)
        status = refuse(reader, path, "lies too deep");
    reader->depth++;
    if (!status && is_group &&
        H5Literate(object, H5_INDEX_NAME, H5_ITER_INC, NULL, visit_link, reader) < 0)
        status = refuse(reader, *path ? path : "/", "cannot be read");
    reader->depth--;
    reader->group = outer;
    return status;
}

static int read_object(struct reader *reader, hid_t id, char *path, int64_t link_age)
{
    H5O_info_t info;
    struct zinf_hdf5_object *object = append_object(reader, path);
    object->link_age = link_age;
    if (H5Oget_info2(id, &info, H5O_INFO_BASIC) < 0)
        return refuse(reader, path, "cannot be read");
    object->address = (int64_t)info.addr;
    if (info.type == H5O_TYPE_GROUP && info.rc > 1)
        return refuse(reader, path, "is a group with two names");
    if (info.type == H5O_TYPE_GROUP)
        return read_inside(reader, id, path, 1);
    if (info.type != H5O_TYPE_DATASET)
        return refuse(reader, path, "is neither group nor dataset");
    return read_dataset(reader, id, object) ? -1 : read_inside(reader, id, path, 0);
}

static herr_t visit_link(hid_t group, const char *name, const H5L_info_t *link, void *context)
{
    struct reader *reader = context;
    char *path = zinf_format("%s/%s", reader->group, name);
    hid_t id = -1;
    int status = 0;
    if (link->type != H5L_TYPE_HARD)
        status = refuse(reader, path, "is not a hard link");
    else if ((id = H5Oopen(group, name, H5P_DEFAULT)) < 0)
        status = refuse(reader, path, "cannot be opened");
    if (status) {
        free(path);
        return -1;
    }
    status = read_object(reader, id, path, link->corder_valid ? link->corder : 0);
    H5Oclose(id);
    return status;
}

/* Why HDF5 did not open it: most often the file is shorter than its superblock (version 2 and 3:
 * bytes 28-35) says. */
static void explain_unopened(struct reader *reader)
{
    static const unsigned char signature[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
    unsigned char head[36];
    uint64_t end;
    struct zinf_error ignored;
    if (reader->disk.failed || reader->disk.eof < sizeof head ||
        zinf_file_read(reader->disk.descriptor, reader->disk.path, head, sizeof head, 0,
                       &ignored) ||
        memcmp(head, signature, sizeof signature)) {
        refuse(reader, "the file", "is no HDF5 file");
        return;
    }
    memcpy(&end, head + 28, sizeof end);
    if (head[8] < 2 || end <= reader->disk.eof) {
        refuse(reader, "the file", "cannot be opened by HDF5");
        return;
    }
    reader->status = zinf_error_in(reader->error, ZINF_E_CHECKPOINT, reader->disk.path,
                                   "metadata: the file is cut short, it has %lld of %lld bytes",
                                   (long long)reader->disk.eof, (long long)end);
}

int zinf_hdf5_read_table(struct zinf_hdf5_table *table, int descriptor, const char *path,
                         struct zinf_error *error)
{
    struct zinf_hdf5_table result = {0};
    struct reader reader = {.disk = {.descriptor = descriptor, .path = path},
                            .table = &result,
                            .group = "",
                            .error = error};
    int64_t bytes;
    int status = zinf_file_size(descriptor, path, &bytes, error);
    if (status)
        return status;
    reader.disk.eof = (haddr_t)bytes;
    hid_t access = zinf_hdf5_access(&reader.disk);
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, access);
    if (file < 0) {
        explain_unopened(&reader);
    } else {
        hid_t root = H5Gopen2(file, "/", H5P_DEFAULT);
        if (root < 0 || read_inside(&reader, root, "", 1) < 0)
            refuse(&reader, "/", "cannot be read");
        H5Gclose(root);
        H5Fclose(file);
    }
    H5Pclose(access);
    if (reader.status)
        zinf_hdf5_table_release(&result);
    else
        *table = result;
    return reader.status;
}

int zinf_hdf5_peek(int descriptor, const char *path, const char *object, const char *name,
                   int64_t *value)
{
    struct zinf_hdf5_disk disk = {.descriptor = descriptor, .path = path};
    int64_t bytes;
    if (zinf_file_size(descriptor, path, &bytes, &disk.error))
        return -1;
    disk.eof = (haddr_t)bytes;
    hid_t access = zinf_hdf5_access(&disk), file = H5Fopen(path, H5F_ACC_RDONLY, access);
    H5Pclose(access);
    if (file < 0)
        return -1;
    H5L_info_t link;
    hid_t attribute = -1;
    int status = -1;
    if (H5Lget_info(file, object, &link, H5P_DEFAULT) >= 0 && link.type == H5L_TYPE_HARD)
        attribute = H5Aopen_by_name(file, object, name, H5P_DEFAULT, H5P_DEFAULT);
    if (attribute >= 0 && H5Aread(attribute, H5T_NATIVE_INT64, value) >= 0)
        status = 0;
    if (attribute >= 0)
        H5Aclose(attribute);
    H5Fclose(file);
    return status;
}

void zinf_hdf5_table_release(struct zinf_hdf5_table *table)
{
    for (int i = 0; i < table->object_count; i++)
        free(table->objects[i].path);
    for (int i = 0; i < table->attribute_count; i++) {
        free(table->attributes[i].object);
        free(table->attributes[i].name);
    }
    free(table->objects);
    free(table->attributes);
    memset(table, 0, sizeof *table);
}
