/*
 * HDF5's way to the disk. See hdf5_driver.h.
 */
#include "io/hdf5_driver.h"

#include "io/file.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK_BYTES = 4096, LARGE_BYTES = 1 << 20 };

struct driver_file {
    H5FD_t base; /* must be first */
    struct zinf_hdf5_disk *disk;
};

static struct zinf_hdf5_disk *disk_of(const H5FD_t *file)
{
    return ((const struct driver_file *)file)->disk;
}

static H5FD_t *driver_open(const char *name, unsigned flags, hid_t access, haddr_t largest)
{
    (void)name, (void)largest;
    struct zinf_hdf5_disk *const *disk = H5Pget_driver_info(access);
    if (!disk)
        return NULL;
    if (flags & H5F_ACC_TRUNC)
        (*disk)->eof = 0;
    (*disk)->eoa = 0;
    struct driver_file *file = zinf_alloc(sizeof *file);
    file->disk = *disk;
    return &file->base;
}

static herr_t driver_close(H5FD_t *file)
{
    free(file);
    return 0;
}

static herr_t driver_query(const H5FD_t *file, unsigned long *flags)
{
    (void)file;
    *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA;
    return 0;
}

static haddr_t round_up(haddr_t value, haddr_t multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

/* Raw data begins aligned and leaves no part of its last block to others; headers lie where they
 * come. */
static haddr_t driver_alloc(H5FD_t *file, H5FD_mem_t type, hid_t transfer, hsize_t size)
{
    (void)transfer;
    struct zinf_hdf5_disk *disk = disk_of(file);
    haddr_t begin = disk->eoa;
    if (type == H5FD_MEM_DRAW)
        begin = round_up(begin, size >= LARGE_BYTES ? LARGE_BYTES : BLOCK_BYTES);
    disk->eoa = begin + size;
    if (type == H5FD_MEM_DRAW)
        disk->eoa = round_up(disk->eoa, BLOCK_BYTES);
    return begin;
}

static haddr_t driver_get_eoa(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return disk_of(file)->eoa;
}

static herr_t driver_set_eoa(H5FD_t *file, H5FD_mem_t type, haddr_t end)
{
    (void)type;
    disk_of(file)->eoa = end;
    return 0;
}

static haddr_t driver_get_eof(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return disk_of(file)->eof;
}

static void keep_error(struct zinf_hdf5_disk *disk, const struct zinf_error *error)
{
    if (!disk->failed)
        disk->error = *error;
    disk->failed = 1;
}

/* HDF5 reads speculatively past the end; those bytes are zero, as its own drivers make them. */
static herr_t driver_read(H5FD_t *file, H5FD_mem_t type, hid_t transfer, haddr_t offset,
                          size_t bytes, void *data)
{
    (void)type, (void)transfer;
    struct zinf_hdf5_disk *disk = disk_of(file);
    struct zinf_error error = {0};
    size_t there = offset >= disk->eof          ? 0
                   : bytes > disk->eof - offset ? (size_t)(disk->eof - offset)
                                                : bytes;
    memset((char *)data + there, 0, bytes - there);
    if (!zinf_file_read(disk->descriptor, disk->path, data, there, (int64_t)offset, &error))
        return 0;
    keep_error(disk, &error);
    return -1;
}

static herr_t driver_write(H5FD_t *file, H5FD_mem_t type, hid_t transfer, haddr_t offset,
                           size_t bytes, const void *data)
{
    (void)type, (void)transfer;
    struct zinf_hdf5_disk *disk = disk_of(file);
    struct zinf_error error = {0};
    if (offset + bytes > disk->eof)
        disk->eof = offset + bytes;
    if (!disk->failed &&
        zinf_file_write(disk->descriptor, disk->path, data, bytes, (int64_t)offset, &error))
        keep_error(disk, &error);
    return 0;
}

/* The length on disk is set by zinf_file_reserve(); HDF5 only needs to hear that it is right. */
static herr_t driver_truncate(H5FD_t *file, hid_t transfer, hbool_t closing)
{
    (void)transfer, (void)closing;
    disk_of(file)->eof = disk_of(file)->eoa;
    return 0;
}

static const H5FD_class_t driver = {
    .name = "zinf",
    .maxaddr = INT64_MAX,
    .fc_degree = H5F_CLOSE_STRONG,
    .fapl_size = sizeof(struct zinf_hdf5_disk *),
    .open = driver_open,
    .close = driver_close,
    .query = driver_query,
    .alloc = driver_alloc,
    .get_eoa = driver_get_eoa,
    .set_eoa = driver_set_eoa,
    .get_eof = driver_get_eof,
    .read = driver_read,
    .write = driver_write,
    .truncate = driver_truncate,
    .fl_map = H5FD_FLMAP_DICHOTOMY,
};

/* File access through the driver; the library stays silent and loads no plugins. The caller closes
 * it. */
hid_t zinf_hdf5_access(struct zinf_hdf5_disk *disk)
{
    static hid_t id = -1;
    if (id < 0) {
        H5open();
        H5PLset_loading_state(0);
        H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
        id = H5FDregister(&driver);
    }
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_driver(access, id, &disk);
    H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
    H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
    return access;
}
