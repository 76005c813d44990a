/*
 * The difference of two checkpoints, and which kind of difference is asked for. See inspect.h.
 */
#include "cli/inspect.h"

#include "io/checkpoint.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { STAGE_COUNT = 1 << 20 };

struct difference {
    int64_t different;
    double max_abs, squares, reference_squares;
};

static void compare_run(struct difference *sum, const float *a, const float *b, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        double gap = fabs((double)a[i] - (double)b[i]);
        sum->different += memcmp(&a[i], &b[i], sizeof *a) != 0;
        if (gap > sum->max_abs || isnan(gap))
            sum->max_abs = gap;
        sum->squares += gap * gap;
        sum->reference_squares += (double)a[i] * (double)a[i];
    }
}

/* Both hold `entry`. */
static int compare_array(const struct zinf_checkpoint_file *a, const struct zinf_checkpoint_file *b,
                         const struct zinf_checkpoint_entry *entry, struct difference *sum,
                         struct zinf_error *error)
{
    float *stage = zinf_alloc(sizeof *stage * 2 * STAGE_COUNT);
    int64_t count = (int64_t)(entry->bytes / sizeof(float));
    int status = 0;
    for (int64_t at = 0; at < count && !status; at += STAGE_COUNT) {
        int64_t now = count - at < STAGE_COUNT ? count - at : STAGE_COUNT;
        status = zinf_checkpoint_read(a, entry->path, at, now, stage, error);
        if (!status)
            status = zinf_checkpoint_read(b, entry->path, at, now, stage + STAGE_COUNT, error);
        if (!status && memcmp(stage, stage + STAGE_COUNT, sizeof *stage * (size_t)now))
            compare_run(sum, stage, stage + STAGE_COUNT, now);
        else if (!status)
            compare_run(sum, stage, stage, now);
    }
    free(stage);
    return status;
}

static int find(const struct zinf_checkpoint_file *file, const char *path)
{
    const struct zinf_checkpoint_entry *entries;
    int count = zinf_checkpoint_entries(file, &entries);
    for (int i = 0; i < count; i++)
        if (!strcmp(entries[i].path, path))
            return i;
    return -1;
}

static void only_in(struct zinf_json *rows, const char *path, const char *where)
{
    struct zinf_json *row = zinf_json_new(ZINF_JSON_OBJECT);
    zinf_json_set(row, "name", zinf_json_new_string(path));
    zinf_json_set(row, "only_in", zinf_json_new_string(where));
    zinf_json_append(rows, row);
}

static void add_row(struct zinf_json *rows, const struct zinf_checkpoint_entry *entry,
                    const struct difference *sum)
{
    struct zinf_json *row = zinf_json_new(ZINF_JSON_OBJECT);
    double relative = sum->squares > 0 ? sqrt(sum->squares / sum->reference_squares) : 0;
    zinf_json_set(row, "name", zinf_json_new_string(entry->path));
    zinf_json_set(row, "elements", zinf_json_new_integer((int64_t)(entry->bytes / sizeof(float))));
    zinf_json_set(row, "different", zinf_json_new_integer(sum->different));
    zinf_json_set(row, "max_abs", zinf_json_new_number(sum->max_abs));
    zinf_json_set(row, "l2_relative", zinf_json_new_number(isnan(sum->squares) ? NAN : relative));
    zinf_json_append(rows, row);
}

/* Arrays of a, compared with b's; then what only b has. */
static int compare_arrays(const struct zinf_checkpoint_file *a,
                          const struct zinf_checkpoint_file *b, struct zinf_json *rows,
                          struct zinf_error *error, bool *equal)
{
    const struct zinf_checkpoint_entry *entries;
    int count = zinf_checkpoint_entries(a, &entries), status = 0;
    for (int i = 0; i < count && !status; i++) {
        struct difference sum = {0};
        if (entries[i].file_offset < 0 || entries[i].link_target)
            continue;
        if (!zinf_checkpoint_has(b, entries[i].path, entries[i].dim_count, entries[i].shape)) {
            only_in(rows, entries[i].path,
                    find(b, entries[i].path) < 0 ? "a" : "a with this shape");
            *equal = false;
            continue;
        }
        status = compare_array(a, b, &entries[i], &sum, error);
        add_row(rows, &entries[i], &sum);
        *equal = *equal && sum.different == 0;
    }
    count = zinf_checkpoint_entries(b, &entries);
    for (int i = 0; i < count && !status; i++)
        if (entries[i].file_offset >= 0 && find(a, entries[i].path) < 0) {
            only_in(rows, entries[i].path, "b");
            *equal = false;
        }
    return status;
}

static struct zinf_json *value_of(const struct zinf_checkpoint_file *file, const char *name)
{
    const struct zinf_attribute *attributes;
    int count = zinf_checkpoint_attributes(file, &attributes);
    for (int i = 0; i < count; i++)
        if (!strcmp(attributes[i].name, name))
            return attributes[i].is_real ? zinf_json_new_number(attributes[i].real)
                                         : zinf_json_new_integer(attributes[i].integer);
    return zinf_json_new(ZINF_JSON_NULL);
}

/* Attributes of `of` whose values differ; those that only b has come with of = b and known = a. */
static void compare_attributes(const struct zinf_checkpoint_file *a,
                               const struct zinf_checkpoint_file *b, bool only_missing,
                               struct zinf_json *rows)
{
    const struct zinf_attribute *attributes;
    int count = zinf_checkpoint_attributes(only_missing ? b : a, &attributes);
    for (int i = 0; i < count; i++) {
        const char *name = attributes[i].name;
        struct zinf_json *one = value_of(a, name), *two = value_of(b, name);
        bool same = one->type == two->type && !memcmp(&one->number, &two->number, sizeof(double)) &&
                    one->integer == two->integer;
        if (only_missing ? one->type != ZINF_JSON_NULL : same) {
            zinf_json_free(one);
            zinf_json_free(two);
            continue;
        }
        struct zinf_json *row = zinf_json_new(ZINF_JSON_OBJECT);
        zinf_json_set(row, "name", zinf_json_new_string(name));
        zinf_json_set(row, "a", one);
        zinf_json_set(row, "b", two);
        zinf_json_append(rows, row);
    }
}

static int compare(const struct zinf_checkpoint_file *a, const struct zinf_checkpoint_file *b,
                   struct zinf_json *report, struct zinf_error *error)
{
    struct zinf_json *datasets = zinf_json_new(ZINF_JSON_ARRAY);
    struct zinf_json *attributes = zinf_json_new(ZINF_JSON_ARRAY);
    bool equal = true;
    int status = compare_arrays(a, b, datasets, error, &equal);
    compare_attributes(a, b, false, attributes);
    compare_attributes(a, b, true, attributes);
    zinf_json_set(report, "equal", zinf_json_new_bool(equal && attributes->count == 0));
    zinf_json_set(report, "attributes", attributes);
    zinf_json_set(report, "datasets", datasets);
    return status;
}

static int diff_checkpoints(const struct zinf_inspect *inspect, const char *a, const char *b,
                            struct zinf_json *report, struct zinf_error *error)
{
    struct zinf_checkpoint_file *first = NULL, *second = NULL;
    int status = zinf_checkpoint_open(&first, inspect->comm, a, error);
    if (!status)
        status = zinf_checkpoint_open(&second, inspect->comm, b, error);
    if (!status)
        status = compare(first, second, report, error);
    zinf_checkpoint_close(first);
    zinf_checkpoint_close(second);
    return status;
}

/* @return 1 a run folder, 0 a file, else ZINF_E_USAGE */
static int is_run(const char *path, struct zinf_error *error)
{
    struct stat status;
    if (stat(path, &status) || (S_ISDIR(status.st_mode) && access(path, R_OK | X_OK)))
        return zinf_error_in(error, ZINF_E_USAGE, path, "%s", strerror(errno));
    if (!S_ISDIR(status.st_mode))
        return 0;
    char *metrics = zinf_format("%s/metrics.jsonl", path);
    const bool is_there = access(metrics, F_OK) == 0;
    free(metrics);
    if (is_there)
        return 1;
    return zinf_error_in(error, ZINF_E_USAGE, path,
                         "is no run folder (there is no metrics.jsonl in it); --diff compares two "
                         "checkpoints (.h5) or two run folders");
}

int zinf_inspect_diff(const struct zinf_inspect *inspect, const char *a, const char *b,
                      struct zinf_json *report, struct zinf_error *error)
{
    const int first = is_run(a, error);
    const int second = first < 0 ? first : is_run(b, error);
    if (second < 0)
        return second;
    if (first != second)
        return zinf_error_set(error, ZINF_E_USAGE,
                              "%s is a run folder, %s is a file; --diff compares two checkpoints "
                              "(.h5) or two run folders",
                              first ? a : b, first ? b : a);
    zinf_json_set(report, "kind", zinf_json_new_string(first ? "run diff" : "diff"));
    zinf_json_set(report, "a", zinf_json_new_string(a));
    zinf_json_set(report, "b", zinf_json_new_string(b));
    return first ? zinf_inspect_diff_runs(inspect, a, b, report, error)
                 : diff_checkpoints(inspect, a, b, report, error);
}
