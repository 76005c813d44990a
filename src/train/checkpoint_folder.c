/*
 * Names and links in checkpoints/. See checkpoint_folder.h.
 */
#include "train/checkpoint_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file.h"

enum { NAME_BYTES = 64 };

static void name_of(int64_t step, char name[NAME_BYTES])
{
    snprintf(name, NAME_BYTES, "step-%08lld.h5", (long long)step);
}

/* The step in a name, or -1: only names that we would give. */
static int64_t step_of(const char *name)
{
    char own[NAME_BYTES];
    long long step;
    if (sscanf(name, "step-%lld", &step) != 1 || step < 0)
        return -1;
    name_of(step, own);
    return strcmp(name, own) ? -1 : step;
}

char *zinf_checkpoint_folder_path(const char *run_dir, int64_t step)
{
    char name[NAME_BYTES];
    name_of(step, name);
    return zinf_format("%s/checkpoints/%s", run_dir, name);
}

static bool exists(const char *run_dir, int64_t step)
{
    struct stat st;
    char *path = zinf_checkpoint_folder_path(run_dir, step);
    const bool found = !stat(path, &st) && S_ISREG(st.st_mode);
    free(path);
    return found;
}

static int newest_first(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

int zinf_checkpoint_folder_list(const char *run_dir, int64_t **steps)
{
    char *path = zinf_format("%s/checkpoints", run_dir);
    DIR *folder = opendir(path);
    int count = 0;
    int64_t *list = zinf_alloc(sizeof *list);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        const int64_t step = step_of(entry->d_name);
        if (step < 0 || !exists(run_dir, step))
            continue;
        list = zinf_realloc(list, ((size_t)count + 1) * sizeof *list);
        list[count++] = step;
    }
    if (folder)
        closedir(folder);
    free(path);
    qsort(list, (size_t)count, sizeof *list, newest_first);
    *steps = list;
    return count;
}

int64_t zinf_checkpoint_folder_linked(const char *run_dir, const char *link)
{
    char target[NAME_BYTES], *path = zinf_format("%s/checkpoints/%s", run_dir, link);
    const ssize_t length = readlink(path, target, sizeof target - 1);
    free(path);
    if (length < 0)
        return -1;
    target[length] = '\0';
    const int64_t step = step_of(target);
    return step >= 0 && exists(run_dir, step) ? step : -1;
}

int zinf_checkpoint_folder_link(const char *run_dir, const char *link, int64_t step,
                                struct zinf_error *error)
{
    char target[NAME_BYTES], *path = zinf_format("%s/checkpoints/%s", run_dir, link);
    char *temporary = zinf_file_temporary_name(path);
    int status = 0;
    name_of(step, target);
    zinf_file_remove(temporary);
    if (symlink(target, temporary))
        status = zinf_error_in(error, errno == ENOSPC ? ZINF_E_NO_SPACE : ZINF_E_RUNTIME, temporary,
                               "cannot make the link: %s", strerror(errno));
    status = zinf_file_put_in_place(status, temporary, path, error);
    free(temporary);
    free(path);
    return status;
}

int64_t zinf_checkpoint_folder_step_of(const char *run_dir, const char *path)
{
    struct stat wanted, own;
    int64_t *steps, found = -1;
    if (stat(path, &wanted))
        return -1;
    const int count = zinf_checkpoint_folder_list(run_dir, &steps);
    for (int i = 0; i < count && found < 0; i++) {
        char *mine = zinf_checkpoint_folder_path(run_dir, steps[i]);
        if (!stat(mine, &own) && own.st_dev == wanted.st_dev && own.st_ino == wanted.st_ino)
            found = steps[i];
        free(mine);
    }
    free(steps);
    return found;
}

int zinf_checkpoint_folder_branch(const char *run_dir, int64_t **steps, int *left)
{
    const int64_t latest = zinf_checkpoint_folder_linked(run_dir, "latest");
    const int count = zinf_checkpoint_folder_list(run_dir, steps);
    *left = 0;
    while (latest >= 0 && *left < count && (*steps)[*left] > latest)
        ++*left;
    memmove(*steps, *steps + *left, (size_t)(count - *left) * sizeof **steps);
    return count - *left;
}

void zinf_checkpoint_folder_drop_later(const char *run_dir, int64_t step)
{
    int64_t *steps;
    const int count = zinf_checkpoint_folder_list(run_dir, &steps);
    char *best = zinf_format("%s/checkpoints/best", run_dir), target[NAME_BYTES];
    for (int i = 0; i < count && steps[i] > step; i++) {
        char *path = zinf_checkpoint_folder_path(run_dir, steps[i]);
        zinf_file_remove(path);
        if (!exists(run_dir, steps[i]))
            zinf_info("checkpoint %s removed: the run went back behind it", path);
        free(path);
    }
    if (readlink(best, target, sizeof target) >= 0 &&
        zinf_checkpoint_folder_linked(run_dir, "best") < 0)
        zinf_file_remove(best);
    free(best);
    free(steps);
}

int zinf_checkpoint_folder_prune(const char *run_dir, int num_to_keep, int64_t source)
{
    int64_t *steps;
    const int count = zinf_checkpoint_folder_list(run_dir, &steps);
    const int64_t latest = zinf_checkpoint_folder_linked(run_dir, "latest");
    const int64_t best = zinf_checkpoint_folder_linked(run_dir, "best");
    int left = count;
    for (int i = count - 1; i > 0 && num_to_keep > 0 && left > num_to_keep; i--) {
        if (steps[i] == latest || steps[i] == best || steps[i] == source)
            continue;
        char *path = zinf_checkpoint_folder_path(run_dir, steps[i]);
        zinf_file_remove(path);
        free(path);
        left -= !exists(run_dir, steps[i]);
    }
    free(steps);
    return left;
}

static void clean(const char *path, const char *const *patterns, int pattern_count)
{
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        for (int i = 0; i < pattern_count; i++) {
            if (fnmatch(patterns[i], entry->d_name, 0))
                continue;
            char *dead = zinf_format("%s/%s", path, entry->d_name);
            zinf_info("%s: left by a job that died, removed", dead);
            zinf_file_remove(dead);
            free(dead);
        }
    }
    if (folder)
        closedir(folder);
}

void zinf_checkpoint_folder_clean(const char *run_dir)
{
    static const char *const of_run[] = {"config.json.tmp.*", "results.json.tmp.*",
                                         "metrics.jsonl.tmp.*"};
    static const char *const of_checkpoints[] = {"step-*.h5.tmp.*", "latest.tmp.*", "best.tmp.*"};
    char *checkpoints = zinf_format("%s/checkpoints", run_dir);
    clean(run_dir, of_run, 3);
    clean(checkpoints, of_checkpoints, 3);
    free(checkpoints);
}
