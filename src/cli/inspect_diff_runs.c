/*
 * The difference of two run folders: of what was computed, line by line of metrics.jsonl, and of
 * what was asked for and where. Only the first decides whether they are equal, as with checkpoints:
 * two runs with the same numbers on other ranks, tiers or days are the same training. See
 * inspect.h.
 */
#include "cli/inspect.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/json_diff.h"
#include "io/checkpoint.h"
#include "train/checkpoint_folder.h"
#include "train/report.h"

/* What equal runs have equal; times, rates, bytes and memory are not here. */
static const enum zinf_metric compared[] = {
    ZINF_METRIC_LOSS,          ZINF_METRIC_GRAD_NORM,       ZINF_METRIC_LR,
    ZINF_METRIC_LOSS_SCALE,    ZINF_METRIC_SKIPPED,         ZINF_METRIC_EPOCH,
    ZINF_METRIC_SAMPLES,       ZINF_METRIC_TOKENS,          ZINF_METRIC_EVAL_LOSS,
    ZINF_METRIC_EVAL_ACCURACY, ZINF_METRIC_EVAL_PERPLEXITY, ZINF_METRIC_EVAL_F1};
enum { COMPARED = sizeof compared / sizeof *compared };

/* Of one metric, over the lines that both runs have. */
struct column {
    int64_t lines, different;
    double step, a, b;            /* where it differs first */
    double largest, largest_step; /* relative */
};

struct lines {
    int64_t both, only_a, only_b;
    double only_a_step, only_b_step; /* the first of each */
    struct column columns[COMPARED];
};

static bool is_same(double a, double b)
{
    return a == b || (isnan(a) && isnan(b));
}

/* Relative to the larger; a number against none counts as infinitely far. */
static double distance(double a, double b)
{
    return isnan(a) || isnan(b) ? INFINITY : fabs(a - b) / fmax(fabs(a), fabs(b));
}

static void compare_line(struct lines *lines, const double *a, const double *b)
{
    lines->both++;
    for (int i = 0; i < COMPARED; i++) {
        struct column *column = &lines->columns[i];
        const double one = a[compared[i]], two = b[compared[i]];
        column->lines += !isnan(one) || !isnan(two);
        if (is_same(one, two))
            continue;
        if (column->different++ == 0) {
            column->step = a[ZINF_METRIC_STEP];
            column->a = one;
            column->b = two;
        }
        if (distance(one, two) > column->largest) {
            column->largest = distance(one, two);
            column->largest_step = a[ZINF_METRIC_STEP];
        }
    }
}

/* The order of lines: by step, an evaluation behind the step that it belongs to. */
static double place_of(const double *row)
{
    return 2 * row[ZINF_METRIC_STEP] + !isnan(row[ZINF_METRIC_EVAL_LOSS]);
}

static void compare_lines(struct lines *lines, const struct zinf_report_run *a,
                          const struct zinf_report_run *b)
{
    int64_t i = 0, j = 0;
    while (i < a->row_count || j < b->row_count) {
        const double one = i < a->row_count ? place_of(a->rows[i]) : INFINITY;
        const double two = j < b->row_count ? place_of(b->rows[j]) : INFINITY;
        if (one == two) {
            compare_line(lines, a->rows[i++], b->rows[j++]);
        } else if (one < two) {
            if (lines->only_a++ == 0)
                lines->only_a_step = a->rows[i][ZINF_METRIC_STEP];
            i++;
        } else {
            if (lines->only_b++ == 0)
                lines->only_b_step = b->rows[j][ZINF_METRIC_STEP];
            j++;
        }
    }
}

static struct zinf_json *column_json(const struct column *column, enum zinf_metric metric)
{
    struct zinf_json *row = zinf_json_new(ZINF_JSON_OBJECT);
    zinf_json_set(row, "name", zinf_json_new_string(zinf_metric_name(metric)));
    zinf_json_set(row, "lines", zinf_json_new_integer(column->lines));
    zinf_json_set(row, "different", zinf_json_new_integer(column->different));
    if (!column->different)
        return row;
    zinf_json_set(row, "first_step", zinf_json_new_integer((int64_t)column->step));
    zinf_json_set(row, "a", zinf_json_new_number(column->a));
    zinf_json_set(row, "b", zinf_json_new_number(column->b));
    zinf_json_set(row, "relative", zinf_json_new_number(distance(column->a, column->b)));
    zinf_json_set(row, "largest_relative", zinf_json_new_number(column->largest));
    zinf_json_set(row, "largest_step", zinf_json_new_integer((int64_t)column->largest_step));
    return row;
}

/* {count, first_step} of the lines that one run alone has. */
static void set_only(struct zinf_json *steps, const char *key, int64_t count, double first_step)
{
    struct zinf_json *only = zinf_json_new(ZINF_JSON_OBJECT);
    zinf_json_set(only, "lines", zinf_json_new_integer(count));
    if (count)
        zinf_json_set(only, "first_step", zinf_json_new_integer((int64_t)first_step));
    zinf_json_set(steps, key, only);
}

/* @return are all lines there in both, and equal? */
static bool report_lines(const struct lines *lines, struct zinf_json *report)
{
    struct zinf_json *rows = zinf_json_new(ZINF_JSON_ARRAY);
    struct zinf_json *steps = zinf_json_new(ZINF_JSON_OBJECT);
    double first = INFINITY;
    bool equal = !lines->only_a && !lines->only_b;
    for (int i = 0; i < COMPARED; i++) {
        const struct column *column = &lines->columns[i];
        if (column->lines)
            zinf_json_append(rows, column_json(column, compared[i]));
        if (column->different)
            first = fmin(first, column->step);
        equal = equal && !column->different;
    }
    if (lines->only_a)
        first = fmin(first, lines->only_a_step);
    if (lines->only_b)
        first = fmin(first, lines->only_b_step);
    zinf_json_set(steps, "in_both", zinf_json_new_integer(lines->both));
    set_only(steps, "only_in_a", lines->only_a, lines->only_a_step);
    set_only(steps, "only_in_b", lines->only_b, lines->only_b_step);
    if (!equal)
        zinf_json_set(report, "first_different_step", zinf_json_new_integer((int64_t)first));
    zinf_json_set(report, "lines", steps);
    zinf_json_set(report, "metrics", rows);
    return equal;
}

/* A row of `context`, an array; takes nothing over. A side that has no such value is null. */
static void add_pair(void *context, const char *name, const struct zinf_json *a,
                     const struct zinf_json *b)
{
    struct zinf_json *row = zinf_json_new(ZINF_JSON_OBJECT);
    zinf_json_set(row, "name", zinf_json_new_string(name));
    zinf_json_set(row, "a", a ? zinf_json_copy(a) : zinf_json_new(ZINF_JSON_NULL));
    zinf_json_set(row, "b", b ? zinf_json_copy(b) : zinf_json_new(ZINF_JSON_NULL));
    zinf_json_append(context, row);
}

/* A file of the folder; NULL where there is none, with a warning where it cannot be read. */
static struct zinf_json *read_file(const char *folder, const char *name)
{
    char *path = zinf_format("%s/%s", folder, name);
    const struct zinf_json_options options = {path, true, ZINF_E_DATA, false};
    struct zinf_error_list errors = {0};
    struct zinf_json *value = NULL;
    if (access(path, F_OK) == 0 && zinf_json_read(&value, path, &options, &errors))
        zinf_warn("\"%s\" cannot be read and is left out: %s", path, errors.items[0].text);
    zinf_error_list_release(&errors);
    free(path);
    return value;
}

static struct zinf_json *compare_configuration(const char *a, const char *b)
{
    struct zinf_json *rows = zinf_json_new(ZINF_JSON_ARRAY);
    struct zinf_json *one = read_file(a, "config.json"), *two = read_file(b, "config.json");
    zinf_json_diff(one, two, add_pair, rows);
    zinf_json_free(one);
    zinf_json_free(two);
    return rows;
}

/* How they ended; what they ended with stands in the last lines. */
static struct zinf_json *compare_results(const char *a, const char *b)
{
    static const char *const names[] = {
        "status",    "exit_code", "step",          "samples", "tokens", "checkpoints_failed",
        "io_engine", "io_direct", "io_registered", "wall_s"};
    struct zinf_json *rows = zinf_json_new(ZINF_JSON_ARRAY);
    struct zinf_json *one = read_file(a, "results.json"), *two = read_file(b, "results.json");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct zinf_json *x = zinf_json_get(one, names[i]), *y = zinf_json_get(two, names[i]);
        if (!zinf_json_is_same(x, y))
            add_pair(rows, names[i], x, y);
    }
    zinf_json_free(one);
    zinf_json_free(two);
    return rows;
}

/* How matrix products were made: library and card, and a sum over the algorithms. */
static void add_products(struct zinf_json *object, const char *text)
{
    if (!text)
        return;
    char *line = zinf_format("%.*s, algorithms %08x", (int)strcspn(text, "\n"), text,
                             (unsigned)zinf_crc32c(0, text, strlen(text)));
    zinf_json_set(object, "products", zinf_json_new_string(line));
    free(line);
}

/* The latest checkpoint's /provenance, without the two configurations; empty without a whole
 * checkpoint. */
static struct zinf_json *provenance_of(const struct zinf_inspect *inspect, const char *folder)
{
    static const char *const names[] = {"version", "build", "kernels", "world_size",
                                        "threads", "hosts", "date",    "resumed_from"};
    struct zinf_json *object = zinf_json_new(ZINF_JSON_OBJECT);
    const int64_t step = zinf_checkpoint_folder_linked(folder, "latest");
    struct zinf_checkpoint_file *file = NULL;
    struct zinf_error error = {0};
    char *path = zinf_checkpoint_folder_path(folder, step);
    if (step >= 0 && zinf_checkpoint_open(&file, inspect->comm, path, &error))
        zinf_warn("%s: its provenance is left out: %s", path, error.text);
    if (file)
        zinf_json_set(object, "checkpoint", zinf_json_new_string(strrchr(path, '/') + 1));
    for (size_t i = 0; file && i < sizeof names / sizeof *names; i++)
        if (zinf_checkpoint_text(file, names[i]))
            zinf_json_set(object, names[i],
                          zinf_json_new_string(zinf_checkpoint_text(file, names[i])));
    if (file)
        add_products(object, zinf_checkpoint_text(file, "products"));
    zinf_checkpoint_close(file);
    free(path);
    return object;
}

static struct zinf_json *compare_provenance(const struct zinf_inspect *inspect, const char *a,
                                            const char *b)
{
    struct zinf_json *rows = zinf_json_new(ZINF_JSON_ARRAY);
    struct zinf_json *one = provenance_of(inspect, a), *two = provenance_of(inspect, b);
    zinf_json_diff(one, two, add_pair, rows);
    zinf_json_free(one);
    zinf_json_free(two);
    return rows;
}

int zinf_inspect_diff_runs(const struct zinf_inspect *inspect, const char *a, const char *b,
                           struct zinf_json *report, struct zinf_error *error)
{
    struct zinf_report runs = {0};
    struct lines lines = {0};
    int status = zinf_report_open(&runs, (const char *const[]){a, b}, 2, error);
    if (status)
        return status;
    compare_lines(&lines, &runs.runs[0], &runs.runs[1]);
    zinf_json_set(report, "configuration", compare_configuration(a, b));
    zinf_json_set(report, "provenance", compare_provenance(inspect, a, b));
    zinf_json_set(report, "results", compare_results(a, b));
    zinf_json_set(report, "equal", zinf_json_new_bool(report_lines(&lines, report)));
    zinf_report_close(&runs);
    return 0;
}
