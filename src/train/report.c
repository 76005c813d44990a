/*
 * Runs read from their folders, the table of a report and its CSV. See report.h.
 */
#include "train/report.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/json.h"
#include "train/terminal.h"

const struct zinf_report_panel zinf_report_panels[ZINF_REPORT_PANELS] = {
    {"loss", ZINF_METRIC_LOSS, true},
    {"learning rate", ZINF_METRIC_LR, false},
    {"gradient norm", ZINF_METRIC_GRAD_NORM, true},
    {"tokens per second", ZINF_METRIC_TOKENS_PER_S, true}};

static bool is_folder(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISDIR(st.st_mode);
}

static int read_rows(struct zinf_report_run *run, const char *path, struct zinf_error *error)
{
    char *line = NULL;
    size_t room = 0;
    double values[ZINF_METRIC_COUNT];
    FILE *file = fopen(path, "re");
    if (!file)
        return zinf_error_set(
            error, ZINF_E_DATA,
            "cannot read \"%s\": %s; `zinf report` takes run folders (zinf.run.dir)", path,
            strerror(errno));
    while (getline(&line, &room, file) > 0) {
        if (!zinf_metrics_parse(line, values) || isnan(values[ZINF_METRIC_STEP])) {
            run->bad_lines++;
            continue;
        }
        if ((run->row_count & (run->row_count - 1)) == 0) /* room doubles at powers of two */
            run->rows = zinf_realloc(run->rows, (run->row_count ? 2 * (size_t)run->row_count : 1) *
                                                    sizeof *run->rows);
        memcpy(run->rows[run->row_count++], values, sizeof values);
    }
    free(line);
    fclose(file);
    if (run->row_count > 0)
        return 0;
    return zinf_error_set(error, ZINF_E_DATA,
                          "\"%s\" has no line of metrics: the run has not made a "
                          "step yet",
                          path);
}

static void read_results(struct zinf_report_run *run, const char *folder)
{
    char *path = zinf_format("%s/results.json", folder);
    struct zinf_json *results = NULL;
    struct zinf_error_list errors = {0};
    const struct zinf_json_options options = {.file = path, .strict = true, .status = ZINF_E_DATA};
    struct stat st;
    run->wall_s = NAN;
    if (!stat(path, &st) && zinf_json_read(&results, path, &options, &errors))
        zinf_warn("\"%s\" cannot be read and is left out", path);
    const bool ended = zinf_json_bool(results, "ended", true);
    run->status =
        zinf_strdup(ended ? zinf_json_string(results, "status", "unfinished") : "unfinished");
    run->wall_s = zinf_json_number(results, "wall_s", NAN);
    zinf_json_free(results);
    zinf_error_list_release(&errors);
    free(path);
}

static char *name_of(const char *path)
{
    const char *end = path + strlen(path);
    while (end > path + 1 && end[-1] == '/')
        end--;
    const char *begin = end;
    while (begin > path && begin[-1] != '/')
        begin--;
    return zinf_format("%.*s", (int)(end - begin), begin);
}

static int read_run(struct zinf_report_run *run, const char *path, struct zinf_error *error)
{
    const bool folder = is_folder(path);
    char *metrics = folder ? zinf_format("%s/metrics.jsonl", path) : zinf_strdup(path);
    char *slash = strrchr(metrics, '/');
    const int status = read_rows(run, metrics, error);
    if (slash)
        *slash = '\0';
    read_results(run, slash ? metrics : ".");
    run->name = name_of(folder || !slash ? path : metrics);
    if (run->bad_lines)
        zinf_warn("\"%s\": %lld lines cannot be read and are left out", path,
                  (long long)run->bad_lines);
    free(metrics);
    return status;
}

/* Two runs of the same name go by what was typed. */
static void tell_apart(struct zinf_report *report, const char *const *paths)
{
    bool *is_shared = zinf_alloc((size_t)report->run_count * sizeof *is_shared);
    for (int i = 0; i < report->run_count; i++)
        for (int j = 0; j < report->run_count; j++)
            is_shared[i] |= i != j && !strcmp(report->runs[i].name, report->runs[j].name);
    for (int i = 0; i < report->run_count; i++) {
        if (!is_shared[i])
            continue;
        free(report->runs[i].name);
        report->runs[i].name = zinf_strdup(paths[i]);
    }
    free(is_shared);
}

int zinf_report_open(struct zinf_report *report, const char *const *paths, int path_count,
                     struct zinf_error *error)
{
    struct zinf_report new = {.runs = zinf_alloc((size_t)path_count * sizeof *new.runs)};
    int status = 0;
    while (new.run_count < path_count && !status) {
        status = read_run(&new.runs[new.run_count], paths[new.run_count], error);
        new.run_count++;
    }
    if (status) {
        zinf_report_close(&new);
        return status;
    }
    tell_apart(&new, paths);
    *report = new;
    return 0;
}

void zinf_report_close(struct zinf_report *report)
{
    for (int i = 0; i < report->run_count; i++) {
        free(report->runs[i].name);
        free(report->runs[i].rows);
        free(report->runs[i].status);
    }
    free(report->runs);
    memset(report, 0, sizeof *report);
}

struct zinf_curve zinf_report_curve(const struct zinf_report_run *run, enum zinf_metric metric)
{
    struct zinf_curve curve = {0};
    for (int64_t i = 0; i < run->row_count; i++)
        if (isfinite(run->rows[i][metric]))
            zinf_curve_add(&curve, run->rows[i][ZINF_METRIC_STEP], run->rows[i][metric]);
    return curve;
}

int64_t zinf_report_window(const struct zinf_report_run *run)
{
    return zinf_curve_window(run->row_count);
}

/* What a panel has to show; min > max: nothing. */
struct extent {
    double x_min, x_max, y_min, y_max;
};

static void widen(struct extent *extent, const struct zinf_report_run *run, enum zinf_metric metric)
{
    for (int64_t i = 0; i < run->row_count; i++) {
        const double x = run->rows[i][ZINF_METRIC_STEP], y = run->rows[i][metric];
        if (!isfinite(y))
            continue;
        extent->x_min = fmin(extent->x_min, x);
        extent->x_max = fmax(extent->x_max, x);
        extent->y_min = fmin(extent->y_min, y);
        extent->y_max = fmax(extent->y_max, y);
    }
}

bool zinf_report_axes(const struct zinf_report *report, const struct zinf_report_panel *panel,
                      int wanted_ticks, struct zinf_axis *x, struct zinf_axis *y)
{
    struct extent extent = {INFINITY, -INFINITY, INFINITY, -INFINITY};
    for (int i = 0; i < report->run_count; i++) {
        widen(&extent, &report->runs[i], panel->metric);
        if (panel->metric == ZINF_METRIC_LOSS)
            widen(&extent, &report->runs[i], ZINF_METRIC_EVAL_LOSS);
    }
    if (extent.x_min > extent.x_max)
        return false;
    /* Gradient norms have spikes that would press everything else to the floor; a rate is read as
     * height above nothing. */
    const bool is_log = panel->metric == ZINF_METRIC_GRAD_NORM && extent.y_min > 0 &&
                        extent.y_max > 50 * extent.y_min;
    if (panel->metric == ZINF_METRIC_TOKENS_PER_S || panel->metric == ZINF_METRIC_LR)
        extent.y_min = fmin(0, extent.y_min);
    *x = zinf_axis_exact(extent.x_min, extent.x_max, wanted_ticks + 2);
    *y = zinf_axis_around(extent.y_min, extent.y_max, wanted_ticks, is_log);
    return true;
}

enum { RUN, STATUS, STEPS, LOSS, LOWEST, EVAL, BEST_EVAL, RATE, WALL };

const char *const zinf_report_columns[ZINF_REPORT_COLUMNS] = {
    "run", "status", "steps", "last loss", "lowest", "last eval", "best eval", "tokens/s", "wall"};

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_median(const struct zinf_curve *curve, char text[ZINF_REPORT_CELL_BYTES])
{
    char number[ZINF_SHORT_BYTES];
    qsort(curve->y, (size_t)curve->count, sizeof *curve->y, compare_doubles);
    snprintf(text, ZINF_REPORT_CELL_BYTES, "%s",
             zinf_short_number(curve->y[curve->count / 2], number));
}

static void print_lowest(const struct zinf_curve *curve, char text[ZINF_REPORT_CELL_BYTES])
{
    int64_t lowest = 0;
    for (int64_t i = 1; i < curve->count; i++)
        lowest = curve->y[i] < curve->y[lowest] ? i : lowest;
    snprintf(text, ZINF_REPORT_CELL_BYTES, "%.4f @%.0f", curve->y[lowest], curve->x[lowest]);
}

static void print_value(const struct zinf_report_run *run, int column,
                        char text[ZINF_REPORT_CELL_BYTES])
{
    static const enum zinf_metric metrics[ZINF_REPORT_COLUMNS] = {
        [STEPS] = ZINF_METRIC_STEP,          [LOSS] = ZINF_METRIC_LOSS,
        [LOWEST] = ZINF_METRIC_LOSS,         [EVAL] = ZINF_METRIC_EVAL_LOSS,
        [BEST_EVAL] = ZINF_METRIC_EVAL_LOSS, [RATE] = ZINF_METRIC_TOKENS_PER_S};
    struct zinf_curve curve = zinf_report_curve(run, metrics[column]);
    if (curve.count == 0)
        snprintf(text, ZINF_REPORT_CELL_BYTES, "-");
    else if (column == STEPS)
        snprintf(text, ZINF_REPORT_CELL_BYTES, "%.0f", curve.y[curve.count - 1]);
    else if (column == LOSS || column == EVAL)
        snprintf(text, ZINF_REPORT_CELL_BYTES, "%.4f", curve.y[curve.count - 1]);
    else if (column == RATE)
        print_median(&curve, text);
    else
        print_lowest(&curve, text);
    zinf_curve_release(&curve);
}

void zinf_report_cell(const struct zinf_report_run *run, int column,
                      char text[ZINF_REPORT_CELL_BYTES])
{
    char time[ZINF_SHORT_BYTES];
    if (column == RUN)
        snprintf(text, ZINF_REPORT_CELL_BYTES, "%s", run->name);
    else if (column == STATUS)
        snprintf(text, ZINF_REPORT_CELL_BYTES, "%s", run->status);
    else if (column == WALL)
        snprintf(text, ZINF_REPORT_CELL_BYTES, "%s",
                 isnan(run->wall_s) ? "-" : zinf_short_time(run->wall_s, time));
    else
        print_value(run, column, text);
}

/* A name in CSV: in quotes, where RFC 4180 wants them. */
static void print_csv_text(const char *text, FILE *out)
{
    if (!strpbrk(text, ",\"\r\n")) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (; *text; text++)
        fputs(*text == '"' ? "\"\"" : (char[2]){*text, '\0'}, out);
    fputc('"', out);
}

void zinf_report_csv(const struct zinf_report *report, FILE *out)
{
    char number[ZINF_NUMBER_BYTES];
    fputs("run", out);
    for (int metric = 0; metric < ZINF_METRIC_COUNT; metric++)
        fprintf(out, ",%s", zinf_metric_name((enum zinf_metric)metric));
    fputs("\r\n", out);
    for (int i = 0; i < report->run_count; i++) {
        const struct zinf_report_run *run = &report->runs[i];
        for (int64_t row = 0; row < run->row_count; row++) {
            print_csv_text(run->name, out);
            for (int metric = 0; metric < ZINF_METRIC_COUNT; metric++) {
                const double value = run->rows[row][metric];
                if (value == floor(value) && fabs(value) < 0x1p53) /* not 1.96e+07 */
                    snprintf(number, sizeof number, "%.0f", value);
                else
                    zinf_number_print(value, number);
                fprintf(out, ",%s", isnan(value) ? "" : number);
            }
            fputs("\r\n", out);
        }
    }
}
