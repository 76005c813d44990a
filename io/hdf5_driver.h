/*
 * HDF5's way to the disk: a driver of our own over file.h instead of its sec2 driver, because
 *  - every read and write then passes the fault seam and keeps its errno, so that a full disk is told from a broken one;
 *  - the driver places raw data itself: HDF5 knows one alignment for a whole file, we need two, and none for headers;
 *  - HDF5 cannot close a file whose write failed (it tries again at exit and may never end). The driver takes every write as done once
 *    one has failed and keeps the error, so that the library always closes cleanly.
 *
 * For hdf5_file.c only: together they are the home of HDF5.
 */
#ifndef ZINF_IO_HDF5_DRIVER_H
#define ZINF_IO_HDF5_DRIVER_H

#include <hdf5.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A file as the driver sees it; the caller's, alive until HDF5 has closed the file. */
struct zinf_hdf5_disk {
    int descriptor;   /* open, borrowed */
    const char *path; /* for messages; borrowed */
    haddr_t eoa, eof; /* end of what HDF5 has allocated; end of the file (set by the caller before reading) */
    int failed;       /* a transfer failed, and why */
    struct zinf_error error;
};

/** File access properties that lead to `disk`; closed by the caller. The library is made silent and loads no plugins. Local. */
hid_t zinf_hdf5_access(struct zinf_hdf5_disk *disk);

#ifdef __cplusplus
}
#endif
#endif
