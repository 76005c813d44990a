/*
 * Files behind paths and globs. See sources.h.
 */
#include "text/sources.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "io/file.h"

static int open_checked(const char *path)
{
    const int fault = zinf_fault("open", NULL);
    if (fault) {
        errno = fault;
        return -1;
    }
    return open(path, O_RDONLY | O_CLOEXEC |
                          O_NONBLOCK); /* a FIFO must not hang us before it is refused */
}

static int refuse_kind(const struct stat *st, const char *path, const char *name,
                       struct zinf_error *error)
{
    if (S_ISDIR(st->st_mode))
        return zinf_error_set(error, ZINF_E_DATA,
                              "%s: \"%s\" is a folder; name its files, for example \"%s/*.txt\"",
                              name, path, path);
    if (!S_ISREG(st->st_mode))
        return zinf_error_set(
            error, ZINF_E_DATA,
            "%s: \"%s\" is no plain file; samples are read at any place, so pipes and "
            "devices do not work",
            name, path);
    return 0;
}

static int stat_file(struct zinf_source *source, const char *path, const char *name,
                     struct zinf_error *error)
{
    struct stat st;
    const int descriptor = open_checked(path);
    if (descriptor < 0 || fstat(descriptor, &st)) {
        const int reason = errno;
        if (descriptor >= 0)
            close(descriptor);
        return zinf_error_set(error, ZINF_E_DATA, "%s: cannot open \"%s\": %s", name, path,
                              strerror(reason));
    }
    close(descriptor);
    const int status = refuse_kind(&st, path, name, error);
    if (status)
        return status;
    *source = (struct zinf_source){.path = zinf_strdup(path),
                                   .bytes = st.st_size,
                                   .modified = st.st_mtim,
                                   .device = st.st_dev,
                                   .inode = st.st_ino};
    return 0;
}

static int add_file(struct zinf_sources *sources, const char *path, const char *name,
                    struct zinf_error *error)
{
    struct zinf_source source;
    const int status = stat_file(&source, path, name, error);
    if (status)
        return status;
    if ((sources->count & (sources->count - 1)) == 0) /* room doubles at powers of two */
        sources->items =
            zinf_realloc(sources->items, (sources->count ? 2 * (size_t)sources->count : 1) *
                                             sizeof *sources->items);
    sources->items[sources->count++] = source;
    return 0;
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int add_glob(struct zinf_sources *sources, const char *pattern, const char *name,
                    struct zinf_error *error)
{
    glob_t matches;
    const int result = glob(pattern, GLOB_NOSORT | GLOB_ERR, NULL, &matches);
    if (result == GLOB_NOMATCH)
        return zinf_error_set(error, ZINF_E_DATA, "%s: no file matches \"%s\"", name, pattern);
    if (result)
        return zinf_error_set(error, ZINF_E_DATA, "%s: cannot search for \"%s\": %s", name, pattern,
                              result == GLOB_NOSPACE ? "out of memory" : strerror(errno));
    qsort(matches.gl_pathv, matches.gl_pathc, sizeof *matches.gl_pathv, compare_paths);
    int status = 0;
    for (size_t i = 0; i < matches.gl_pathc && !status; i++)
        status = add_file(sources, matches.gl_pathv[i], name, error);
    globfree(&matches);
    return status;
}

static int add_pattern(struct zinf_sources *sources, const char *pattern, const char *name,
                       struct zinf_error *error)
{
    struct stat st;
    const bool is_glob = strpbrk(pattern, "*?[") != NULL;
    if (is_glob && lstat(pattern, &st))
        return add_glob(sources, pattern, name, error);
    return add_file(sources, pattern, name, error);
}

static int compare_files(const void *a, const void *b)
{
    const struct zinf_source *const *x = a, *const *y = b;
    if ((*x)->device != (*y)->device)
        return (*x)->device < (*y)->device ? -1 : 1;
    if ((*x)->inode != (*y)->inode)
        return (*x)->inode < (*y)->inode ? -1 : 1;
    return *x < *y ? -1 : 1; /* by place, so that the message has a fixed order */
}

static int refuse_duplicates(const struct zinf_sources *sources, const char *name,
                             struct zinf_error *error)
{
    int status = 0;
    const struct zinf_source **sorted = zinf_alloc((size_t)sources->count * sizeof *sorted);
    for (int i = 0; i < sources->count; i++)
        sorted[i] = &sources->items[i];
    qsort(sorted, (size_t)sources->count, sizeof *sorted, compare_files);
    for (int i = 1; i < sources->count && !status; i++) {
        const struct zinf_source *a = sorted[i - 1], *b = sorted[i];
        if (a->device == b->device && a->inode == b->inode)
            status = zinf_error_set(
                error, ZINF_E_DATA,
                "%s names the same file twice: \"%s\" and \"%s\"; use zinf.train.epochs to "
                "read data more than once",
                name, a->path, b->path);
    }
    free(sorted);
    return status;
}

int zinf_sources_open(struct zinf_sources *sources, const char *const *patterns, int pattern_count,
                      const char *name, struct zinf_error *error)
{
    struct zinf_sources new = {0};
    int status = 0;
    for (int i = 0; i < ZINF_SOURCES_OPEN; i++)
        new.open[i].file = -1;
    if (pattern_count == 0)
        status = zinf_error_set(error, ZINF_E_DATA, "%s names no file", name);
    for (int i = 0; i < pattern_count && !status; i++)
        status = add_pattern(&new, patterns[i], name, error);
    if (!status)
        status = refuse_duplicates(&new, name, error);
    if (status)
        zinf_sources_close(&new);
    else
        *sources = new;
    return status;
}

void zinf_sources_close(struct zinf_sources *sources)
{
    for (int i = 0; i < ZINF_SOURCES_OPEN && sources->items; i++)
        if (sources->open[i].file >= 0)
            close(sources->open[i].descriptor);
    for (int i = 0; i < sources->count; i++)
        free(sources->items[i].path);
    free(sources->items);
    memset(sources, 0, sizeof *sources);
}

static int descriptor_of(struct zinf_sources *sources, int index)
{
    const int slot = index % ZINF_SOURCES_OPEN;
    if (sources->open[slot].file == index)
        return sources->open[slot].descriptor;
    const int descriptor = open_checked(sources->items[index].path);
    if (descriptor < 0)
        return -1;
    if (sources->open[slot].file >= 0)
        close(sources->open[slot].descriptor);
    sources->open[slot].file = index;
    sources->open[slot].descriptor = descriptor;
    return descriptor;
}

static bool is_unchanged(int descriptor, const struct zinf_source *source)
{
    struct stat st;
    return !fstat(descriptor, &st) && st.st_size == source->bytes &&
           st.st_mtim.tv_sec == source->modified.tv_sec &&
           st.st_mtim.tv_nsec == source->modified.tv_nsec;
}

int zinf_sources_read(struct zinf_sources *sources, int index, int64_t offset, void *buffer,
                      size_t bytes, struct zinf_error *error)
{
    const struct zinf_source *source = &sources->items[index];
    ZINF_ASSERT(offset >= 0 && offset + (int64_t)bytes <= source->bytes);
    const int descriptor = descriptor_of(sources, index);
    const int reason =
        descriptor < 0 ? errno : zinf_file_transfer(descriptor, buffer, bytes, offset, 0);
    if (reason > 0)
        return zinf_error_set(error, ZINF_E_DATA, "cannot read \"%s\" at offset %lld: %s",
                              source->path, (long long)offset, strerror(reason));
    if (reason < 0 || !is_unchanged(descriptor, source))
        return zinf_error_set(
            error, ZINF_E_DATA,
            "\"%s\" was changed while the run reads it (found at offset %lld): it had "
            "%lld bytes at the start; start the run again",
            source->path, (long long)offset, (long long)source->bytes);
    return 0;
}
