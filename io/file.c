/*
 * Checked POSIX file calls. See file.h.
 */
#include "io/file.h"

#include "base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

/* The kernel moves at most 0x7ffff000 bytes a call; 1 GiB keeps requests page-aligned. */
static const size_t largest_call_bytes = (size_t)1 << 30;
enum { LARGEST_TEXT_BYTES = 256 << 20, MOST_RETRIES = 1000, DIRECT_UNIT = 4096 };
enum { TMPFS_MAGIC_NUMBER = 0x01021994 }; /* of statfs(2) */

int zinf_file_failed(struct zinf_error *error, const char *path, int number, const char *what)
{
    int full = number == ENOSPC || number == EDQUOT || number == EFBIG;
    return zinf_error_in(error, full ? ZINF_E_NO_SPACE : ZINF_E_RUNTIME, path, "%s: %s", what,
                         strerror(number));
}

/* Again after a signal or a busy file? A file that stays busy for a second is an error. */
static int worth_repeating(int number, int *retries)
{
    if (number == EINTR)
        return 1;
    if (number != EAGAIN || ++*retries > MOST_RETRIES)
        return 0;
    usleep(1000);
    return 1;
}

int zinf_file_open(int *descriptor, const char *path, int flags, struct zinf_error *error)
{
    int number, retries = 0;
    do {
        number = zinf_fault("open", NULL);
        if (!number) {
            int opened = open(path, flags | O_CLOEXEC, 0666);
            if (opened >= 0) {
                *descriptor = opened;
                return 0;
            }
            number = errno;
        }
    } while (worth_repeating(number, &retries));
    return zinf_file_failed(error, path, number,
                            flags & O_CREAT ? "cannot be created" : "cannot be opened");
}

bool zinf_file_make_direct(int descriptor)
{
    struct statfs file_system;
    if (!fstatfs(descriptor, &file_system) && file_system.f_type == TMPFS_MAGIC_NUMBER)
        return false; /* newer tmpfs takes the flag and copies all the same */
#ifdef STATX_DIOALIGN
    struct statx status;
    if (!statx(descriptor, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) &&
        status.stx_mask & STATX_DIOALIGN &&
        (!status.stx_dio_offset_align || status.stx_dio_offset_align > DIRECT_UNIT ||
         status.stx_dio_mem_align > DIRECT_UNIT))
        return false;
#endif
    int flags = fcntl(descriptor, F_GETFL);
    return flags >= 0 && !fcntl(descriptor, F_SETFL, flags | O_DIRECT);
}

int zinf_file_close(int descriptor, const char *path, struct zinf_error *error)
{
    if (descriptor >= 0 && close(descriptor) && errno != EINTR)
        return zinf_file_failed(error, path, errno, "cannot be closed");
    return 0;
}

/* One pread or pwrite through the seam: bytes moved, or -errno. */
static ssize_t transfer(int descriptor, void *data, size_t bytes, int64_t offset, int writes)
{
    if (bytes > largest_call_bytes)
        bytes = largest_call_bytes;
    int number = zinf_fault(writes ? "write" : "read", &bytes);
    if (number)
        return -number;
    ssize_t moved =
        writes ? pwrite(descriptor, data, bytes, offset) : pread(descriptor, data, bytes, offset);
    return moved < 0 ? -errno : moved;
}

int zinf_file_transfer(int descriptor, char *data, size_t bytes, int64_t offset, int writes)
{
    int retries = 0;
    while (bytes) {
        ssize_t moved = transfer(descriptor, data, bytes, offset, writes);
        if (moved == 0)
            return writes ? EIO : -1;
        if (moved < 0 && !worth_repeating((int)-moved, &retries))
            return (int)-moved;
        if (moved > 0) {
            data += moved;
            offset += moved;
            bytes -= (size_t)moved;
            retries = 0;
        }
    }
    return 0;
}

int zinf_file_read(int descriptor, const char *path, void *data, size_t bytes, int64_t offset,
                   struct zinf_error *error)
{
    char what[96];
    int number = zinf_file_transfer(descriptor, data, bytes, offset, 0);
    if (!number)
        return 0;
    snprintf(what, sizeof what, "cannot read %zu bytes at offset %lld", bytes, (long long)offset);
    if (number > 0)
        return zinf_file_failed(error, path, number, what);
    return zinf_error_in(error, ZINF_E_RUNTIME, path, "%s: the file ends before", what);
}

int zinf_file_write(int descriptor, const char *path, const void *data, size_t bytes,
                    int64_t offset, struct zinf_error *error)
{
    char what[96];
    int number = zinf_file_transfer(descriptor, (char *)data, bytes, offset, 1);
    if (!number)
        return 0;
    snprintf(what, sizeof what, "cannot write %zu bytes at offset %lld", bytes, (long long)offset);
    return zinf_file_failed(error, path, number, what);
}

/* For file systems without fallocate: look at the free space, then set the length. Returns 0 or an
 * errno. */
static int reserve_by_looking(int descriptor, int64_t bytes)
{
    struct stat status;
    struct statvfs space;
    if (fstat(descriptor, &status) || fstatvfs(descriptor, &space))
        return errno;
    double needed = (double)bytes - 512.0 * (double)status.st_blocks;
    if (needed > (double)space.f_bavail * (double)space.f_frsize)
        return ENOSPC;
    return ftruncate(descriptor, bytes) ? errno : 0;
}

static int reserve(int descriptor, int64_t bytes)
{
    struct rlimit limit;
    if (!getrlimit(RLIMIT_FSIZE, &limit) && limit.rlim_cur != RLIM_INFINITY &&
        (uint64_t)bytes > limit.rlim_cur)
        return EFBIG; /* going on would bring SIGXFSZ */
    int number, retries = 0;
    do {
        number = zinf_fault("fallocate", NULL);
        if (!number && fallocate(descriptor, 0, 0, bytes))
            number = errno;
    } while (number && worth_repeating(number, &retries));
    return number == EOPNOTSUPP || number == ENOSYS ? reserve_by_looking(descriptor, bytes)
                                                    : number;
}

int zinf_file_reserve(int descriptor, const char *path, int64_t bytes, struct zinf_error *error)
{
    char what[96];
    int number = reserve(descriptor, bytes);
    if (!number)
        return 0;
    snprintf(what, sizeof what, "cannot reserve %lld bytes", (long long)bytes);
    return zinf_file_failed(error, path, number, what);
}

int zinf_file_sync(int descriptor, const char *path, struct zinf_error *error)
{
    int number = zinf_fault("fsync", NULL), retries = 0;
    while (number && worth_repeating(number, &retries))
        number = zinf_fault("fsync", NULL);
    while (!number && fsync(descriptor))
        if (!worth_repeating(errno, &retries))
            number = errno;
    return number ? zinf_file_failed(error, path, number, "cannot be brought to disk (fsync)") : 0;
}

int zinf_file_sync_folder(const char *path, struct zinf_error *error)
{
    const char *slash = strrchr(path, '/');
    char *folder =
        slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : zinf_strdup(".");
    int descriptor = -1;
    int status = zinf_file_open(&descriptor, folder, O_RDONLY | O_DIRECTORY, error);
    if (!status)
        status = zinf_file_sync(descriptor, folder, error);
    if (descriptor >= 0)
        close(descriptor);
    free(folder);
    return status;
}

int zinf_file_rename(const char *from, const char *to, struct zinf_error *error)
{
    int number, retries = 0;
    do {
        number = zinf_fault("rename", NULL);
        if (!number && rename(from, to))
            number = errno;
    } while (number && worth_repeating(number, &retries));
    if (!number)
        return 0;
    char *what = zinf_format("cannot get its name %s (rename)", to);
    int status = zinf_file_failed(error, from, number, what);
    free(what);
    return status;
}

void zinf_file_remove(const char *path)
{
    int number, retries = 0;
    do {
        number = zinf_fault("unlink", NULL);
        if (!number && unlink(path))
            number = errno;
    } while (number && worth_repeating(number, &retries));
    if (number && number != ENOENT)
        zinf_warn("%s: cannot be removed: %s", path, strerror(number));
}

int zinf_file_size(int descriptor, const char *path, int64_t *bytes, struct zinf_error *error)
{
    struct stat status;
    if (fstat(descriptor, &status))
        return zinf_file_failed(error, path, errno, "cannot be looked at");
    if (!S_ISREG(status.st_mode))
        return zinf_error_in(error, ZINF_E_RUNTIME, path, "is not a regular file");
    *bytes = status.st_size;
    return 0;
}

int zinf_file_read_text(const char *path, char **text, size_t *bytes, struct zinf_error *error)
{
    int descriptor = -1;
    int64_t size = 0;
    char *buffer = NULL;
    int status = zinf_file_open(&descriptor, path, O_RDONLY, error);
    if (!status)
        status = zinf_file_size(descriptor, path, &size, error);
    if (!status && size > LARGEST_TEXT_BYTES)
        status = zinf_error_in(error, ZINF_E_RUNTIME, path, "has %lld bytes, more than the %d read",
                               (long long)size, LARGEST_TEXT_BYTES);
    if (!status) {
        buffer = zinf_alloc((size_t)size + 1);
        status = zinf_file_read(descriptor, path, buffer, (size_t)size, 0, error);
    }
    if (descriptor >= 0)
        close(descriptor);
    if (status) {
        free(buffer);
        return status;
    }
    *text = buffer;
    *bytes = (size_t)size;
    return 0;
}

int zinf_file_put_in_place(int status, const char *temporary, const char *path,
                           struct zinf_error *error)
{
    if (!status)
        status = zinf_file_rename(temporary, path, error);
    if (!status)
        return zinf_file_sync_folder(path, error);
    zinf_file_remove(temporary);
    return status;
}

int zinf_file_write_text(const char *path, const char *text, struct zinf_error *error)
{
    char *temporary = zinf_file_temporary_name(path);
    int descriptor = -1;
    int status = zinf_file_open(&descriptor, temporary, O_WRONLY | O_CREAT | O_TRUNC, error);
    if (!status)
        status = zinf_file_write(descriptor, temporary, text, strlen(text), 0, error);
    if (!status)
        status = zinf_file_sync(descriptor, temporary, error);
    if (descriptor >= 0)
        close(descriptor);
    status = zinf_file_put_in_place(status, temporary, path, error);
    free(temporary);
    return status;
}

char *zinf_file_temporary_name(const char *path)
{
    const char *job = getenv("SLURM_JOB_ID");
    if (job && *job && strspn(job, "0123456789_") == strlen(job))
        return zinf_format("%s.tmp.%s", path, job);
    return zinf_format("%s.tmp.%ld", path, (long)getpid());
}
