/*
 * The folder of a run. See run_folder.h.
 */
#include "train/run_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fault.h"
#include "io/file.h"
#include "train/checkpoint_folder.h"
#include "train/metrics.h"

struct zinf_run_folder {
    char *path;
    int lock;
    FILE *log;
    int metrics;           /* -1: not open */
    int64_t metrics_bytes; /* where the next line goes */
    int made;              /* folders that were not there: the last so many parts of `path` */
    bool used;             /* a file of the run has been written */
};

static char *path_in(const struct zinf_run_folder *folder, const char *name)
{
    return zinf_format("%s/%s", folder->path, name);
}

/* What the user chose cannot be used: that is a matter of configuration, a failing disk is not. */
static int folder_error(struct zinf_error *error, const char *path, const char *what, int reason)
{
    const bool is_io = reason == EIO || reason == ENOSPC || reason == EDQUOT || reason == ENOMEM;
    const int full = reason == ENOSPC || reason == EDQUOT;
    return zinf_error_set(error,
                          full    ? ZINF_E_NO_SPACE
                          : is_io ? ZINF_E_RUNTIME
                                  : ZINF_E_USAGE,
                          "run folder \"%s\" %s: %s; choose another with zinf.run.dir or --run-dir",
                          path, what, strerror(reason));
}

/* Returns errno; *made counts the folders that were not there. */
static int make_one_folder(const char *path, int *made)
{
    struct stat st;
    if (!mkdir(path, 0777)) { /* less the umask */
        ++*made;
        return 0;
    }
    if (errno == EEXIST && !stat(path, &st) && !S_ISDIR(st.st_mode))
        errno = ENOTDIR;
    else if (errno == EEXIST)
        return 0;
    return errno;
}

/* The folder with all that lead to it. Returns errno. */
static int make_folders(const char *path, int *made)
{
    char *copy = zinf_strdup(path);
    int reason = 0;
    for (char *slash = strchr(copy + 1, '/'); slash && !reason; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        reason = make_one_folder(copy, made);
        *slash = '/';
    }
    if (!reason)
        reason = make_one_folder(copy, made);
    free(copy);
    return reason;
}

static void say_who_holds(int lock, char *text, size_t bytes)
{
    const ssize_t got = pread(lock, text, bytes - 1, 0);
    text[got > 0 ? got : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    if (!*text)
        snprintf(text, bytes, "another job");
}

static int in_use(struct zinf_error *error, const char *path, const char *holder)
{
    return zinf_error_set(error, ZINF_E_USAGE,
                          "run folder \"%s\" is in use by %s; wait for it to end, or choose "
                          "another folder with zinf.run.dir or --run-dir",
                          path, holder);
}

static void sign_lock(int lock)
{
    char host[256] = "", text[320];
    gethostname(host, sizeof host - 1);
    const int length = snprintf(text, sizeof text, "process %ld on %s\n", (long)getpid(), host);
    if (ftruncate(lock, 0) || pwrite(lock, text, (size_t)length, 0) != length)
        zinf_warn("the lock of the run folder could not be signed: %s", strerror(errno));
}

/* The lock file is never removed: who waits for it would hold a lock on a file without a name. */
static int take_lock(struct zinf_run_folder *folder, struct zinf_error *error)
{
    char *path = path_in(folder, ".lock"), holder[320];
    int status = 0;
    const int fault = zinf_fault("open", NULL);
    errno = fault;
    folder->lock = fault ? -1 : open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (folder->lock < 0) {
        status = folder_error(error, folder->path, "cannot be locked", errno);
    } else if (!flock(folder->lock, LOCK_EX | LOCK_NB)) {
        sign_lock(folder->lock);
    } else if (errno == EWOULDBLOCK) {
        say_who_holds(folder->lock, holder, sizeof holder);
        status = in_use(error, folder->path, holder);
    } else {
        zinf_warn(
            "%s: this file system has no locks (%s); make sure that no other job uses the run "
            "folder",
            path, strerror(errno));
    }
    free(path);
    return status;
}

static int prepare(struct zinf_run_folder *folder, struct zinf_error *error)
{
    int unimportant = 0, reason = make_folders(folder->path, &folder->made);
    if (reason)
        return folder_error(error, folder->path, "cannot be made", reason);
    const int status = take_lock(folder, error);
    if (status) {
        folder->made = 0; /* another job's by now */
        return status;
    }
    char *checkpoints = path_in(folder, "checkpoints");
    reason = make_one_folder(checkpoints, &unimportant);
    free(checkpoints);
    if (!reason && access(folder->path, W_OK | X_OK))
        reason = errno;
    if (reason)
        return folder_error(error, folder->path, "cannot be written", reason);
    zinf_checkpoint_folder_clean(folder->path);
    zinf_run_folder_take_stop(folder);
    return 0;
}

int zinf_run_folder_open(struct zinf_run_folder **folder, const char *path,
                         struct zinf_error *error)
{
    struct zinf_run_folder *new = zinf_alloc(sizeof *new);
    new->path = zinf_strdup(path);
    new->lock = new->metrics = -1;
    const int status = prepare(new, error);
    if (status)
        zinf_run_folder_close(new);
    else
        *folder = new;
    return status;
}

char *zinf_run_folder_nearest(const char *path)
{
    char *nearest = zinf_strdup(path);
    struct stat st;
    while (*nearest && stat(nearest, &st) && errno == ENOENT) {
        char *slash = strrchr(nearest, '/');
        if (!slash || slash == nearest)
            strcpy(nearest, slash ? "/" : ".");
        else
            *slash = '\0';
    }
    return nearest;
}

/* Somebody holds the lock of a folder that is there. */
static int check_lock(const char *path, struct zinf_error *error)
{
    char *lock = zinf_format("%s/.lock", path), holder[320];
    int status = 0, descriptor = open(lock, O_RDONLY | O_CLOEXEC);
    if (descriptor >= 0 && flock(descriptor, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK) {
        say_who_holds(descriptor, holder, sizeof holder);
        status = in_use(error, path, holder);
    }
    if (descriptor >= 0)
        close(descriptor);
    free(lock);
    return status;
}

int zinf_run_folder_check(const char *path, struct zinf_error *error)
{
    char *nearest = zinf_run_folder_nearest(path);
    struct stat st;
    int reason = stat(nearest, &st) ? errno : 0;
    if (!reason && !S_ISDIR(st.st_mode))
        reason = ENOTDIR;
    if (!reason && access(nearest, W_OK | X_OK))
        reason = errno;
    bool there = strcmp(nearest, path) == 0;
    free(nearest);
    if (reason)
        return folder_error(error, path, there ? "cannot be written" : "cannot be made", reason);
    return there ? check_lock(path, error) : 0;
}

/*
 * A run that could not begin leaves nothing behind: the folders it has made and what opening put
 * there. What anybody else has put there in the meantime stays (rmdir fails). Still locked, so that
 * no other job has begun in it.
 */
static void remove_unused(const struct zinf_run_folder *folder)
{
    static const char *const names[] = {"zinf.log", "checkpoints", ".lock"};
    char *folders = zinf_strdup(folder->path), *slash = folders;
    for (size_t length = strlen(folders); length > 1 && folders[length - 1] == '/'; length--)
        folders[length - 1] = '\0';
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = path_in(folder, names[i]);
        if (unlink(path) && errno == EISDIR)
            rmdir(path);
        free(path);
    }
    for (int i = 0; i < folder->made && slash && !rmdir(folders); i++)
        if ((slash = strrchr(folders, '/')))
            *slash = '\0';
    free(folders);
}

void zinf_run_folder_close(struct zinf_run_folder *folder)
{
    struct zinf_error error;
    if (!folder)
        return;
    if (folder->made && !folder->used)
        remove_unused(folder);
    if (zinf_file_close(folder->metrics, "metrics.jsonl", &error))
        zinf_warn("metrics.jsonl: %s", error.text);
    if (folder->log)
        fclose(folder->log);
    if (folder->lock >= 0)
        close(folder->lock);
    free(folder->path);
    free(folder);
}

static int write_new(const char *path, const char *text, struct zinf_error *error)
{
    int descriptor = -1;
    int status = zinf_file_open(&descriptor, path, O_WRONLY | O_CREAT | O_TRUNC, error);
    if (!status)
        status = zinf_file_write(descriptor, path, text, strlen(text), 0, error);
    if (!status)
        status = zinf_file_sync(descriptor, path, error);
    if (descriptor >= 0 && zinf_file_close(descriptor, path, status ? NULL : error) && !status)
        status = ZINF_E_RUNTIME;
    return status;
}

int zinf_run_folder_replace(struct zinf_run_folder *folder, const char *name, const char *text,
                            struct zinf_error *error)
{
    char *path = path_in(folder, name), *temporary = zinf_file_temporary_name(path);
    const int status =
        zinf_file_put_in_place(write_new(temporary, text, error), temporary, path, error);
    folder->used |= !status;
    free(temporary);
    free(path);
    return status;
}

static void write_header(FILE *log, const char *header)
{
    char host[256] = "", date[64];
    const time_t now = time(NULL);
    struct tm parts;
    gethostname(host, sizeof host - 1);
    strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S %z", localtime_r(&now, &parts));
    fprintf(log, "%s==== %s, process %ld on %s: %s ====\n", ftell(log) > 0 ? "\n" : "", date,
            (long)getpid(), host, header);
    fflush(log);
}

int zinf_run_folder_open_log(struct zinf_run_folder *folder, const char *header, FILE **log,
                             struct zinf_error *error)
{
    int descriptor = -1;
    char *path = path_in(folder, "zinf.log");
    const int status = zinf_file_open(&descriptor, path, O_WRONLY | O_CREAT | O_APPEND, error);
    free(path);
    if (status)
        return status;
    folder->log = fdopen(descriptor, "a");
    ZINF_ASSERT(folder->log);
    fseek(folder->log, 0, SEEK_END);
    write_header(folder->log, header);
    *log = folder->log;
    return 0;
}

/* Lines on their way into a new metrics.jsonl, a few thousand at a time. */
struct copy {
    const char *path;
    int descriptor;
    char *text;
    size_t used, room;
    int64_t written;
};

static int flush_copy(struct copy *copy, struct zinf_error *error)
{
    const int status =
        zinf_file_write(copy->descriptor, copy->path, copy->text, copy->used, copy->written, error);
    copy->written += (int64_t)copy->used;
    copy->used = 0;
    return status;
}

static int add_to_copy(struct copy *copy, const char *line, size_t bytes, struct zinf_error *error)
{
    int status = 0;
    if (copy->used + bytes > copy->room)
        status = flush_copy(copy, error);
    if (bytes > copy->room)
        copy->text = zinf_realloc(copy->text, copy->room = bytes);
    memcpy(copy->text + copy->used, line, bytes);
    copy->used += bytes;
    return status;
}

static bool belongs(const char *line, size_t bytes, int64_t last_step)
{
    double values[ZINF_METRIC_COUNT];
    return bytes > 0 && line[bytes - 1] == '\n' && zinf_metrics_parse(line, values) &&
           values[ZINF_METRIC_STEP] <= (double)last_step;
}

static int copy_lines(struct copy *copy, FILE *old, int64_t last_step, int64_t *cut,
                      struct zinf_error *error)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t bytes;
    int status = 0;
    while (!status && (bytes = getline(&line, &room, old)) > 0) {
        if (belongs(line, (size_t)bytes, last_step))
            status = add_to_copy(copy, line, (size_t)bytes, error);
        else
            ++*cut;
    }
    if (!status && ferror(old))
        status = zinf_error_in(error, ZINF_E_RUNTIME, copy->path,
                               "the old metrics.jsonl cannot be read: %s", strerror(errno));
    free(line);
    return status ? status : flush_copy(copy, error);
}

static int write_copy(const char *temporary, FILE *old, int64_t last_step, int64_t *cut,
                      struct zinf_error *error)
{
    struct copy copy = {temporary, -1, NULL, 0, 1 << 20, 0};
    int status = zinf_file_open(&copy.descriptor, temporary, O_WRONLY | O_CREAT | O_TRUNC, error);
    if (status)
        return status;
    copy.text = zinf_alloc(copy.room);
    status = copy_lines(&copy, old, last_step, cut, error);
    if (!status)
        status = zinf_file_sync(copy.descriptor, temporary, error);
    zinf_file_close(copy.descriptor, temporary, NULL);
    free(copy.text);
    return status;
}

static int cut_metrics(const char *path, int64_t last_step, struct zinf_error *error)
{
    FILE *old = fopen(path, "re");
    if (!old)
        return 0;
    int64_t cut = 0;
    char *temporary = zinf_file_temporary_name(path);
    int status = write_copy(temporary, old, last_step, &cut, error);
    fclose(old);
    if (!status && cut == 0)
        zinf_file_remove(temporary);
    else
        status = zinf_file_put_in_place(status, temporary, path, error);
    if (!status && cut)
        zinf_info("metrics.jsonl: %lld line%s after step %lld cut away", (long long)cut,
                  cut == 1 ? "" : "s", (long long)last_step);
    free(temporary);
    return status;
}

int zinf_run_folder_open_metrics(struct zinf_run_folder *folder, int64_t last_step,
                                 struct zinf_error *error)
{
    char *path = path_in(folder, "metrics.jsonl");
    int descriptor = -1;
    int status = cut_metrics(path, last_step, error);
    if (!status)
        status = zinf_file_open(&descriptor, path, O_WRONLY | O_CREAT, error);
    if (!status)
        status = zinf_file_size(descriptor, path, &folder->metrics_bytes, error);
    if (!status)
        folder->metrics = descriptor;
    else
        zinf_file_close(descriptor, path, NULL);
    free(path);
    return status;
}

int zinf_run_folder_add_metrics(struct zinf_run_folder *folder, const char *line,
                                struct zinf_error *error)
{
    const size_t bytes = strlen(line);
    const int status = zinf_file_write(folder->metrics, "metrics.jsonl", line, bytes,
                                       folder->metrics_bytes, error);
    if (!status)
        folder->metrics_bytes += (int64_t)bytes;
    return status;
}

bool zinf_run_folder_take_stop(struct zinf_run_folder *folder)
{
    char *path = path_in(folder, "STOP");
    const bool found = !access(path, F_OK);
    if (found)
        zinf_file_remove(path);
    free(path);
    return found;
}
