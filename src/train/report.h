/*
 * `zinf report`: what runs did, from their metrics.jsonl and results.json: a table, curves on a terminal, SVG, HTML, CSV.
 *
 * Nothing is hidden by the drawing: axes are linear unless the label says log, begin and end at round numbers around all that is
 * shown, and where a mean is drawn the number of steps stands beside it.
 */
#ifndef ZINF_TRAIN_REPORT_H
#define ZINF_TRAIN_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/status.h"
#include "train/chart.h"
#include "train/metrics.h"

#ifdef __cplusplus
extern "C" {
#endif

struct zinf_report_run {
    char *name;                        /* of the folder; the path as given where names are equal */
    double (*rows)[ZINF_METRIC_COUNT]; /* one a line of metrics.jsonl; NAN where a value is absent */
    int64_t row_count, bad_lines;
    char *status;  /* of results.json; "unfinished" without one */
    double wall_s; /* NAN without one */
};

struct zinf_report {
    struct zinf_report_run *runs;
    int run_count;
};

/**
 * Local.
 * @param paths  run folders, or metrics.jsonl files
 * @return 0, or ZINF_E_DATA: no metrics there, or no line that can be read
 */
int zinf_report_open(struct zinf_report *report, const char *const *paths, int path_count,
                     struct zinf_error *error);
void zinf_report_close(struct zinf_report *report);

/** Finite values of a metric over the steps. Owned by the caller. */
struct zinf_curve zinf_report_curve(const struct zinf_report_run *run, enum zinf_metric metric);

/** Steps that every smoothed curve of a run is averaged over; 1 = none is smoothed. */
int64_t zinf_report_window(const struct zinf_report_run *run);

/* The four panels every report draws. */
struct zinf_report_panel {
    const char *title; /* with its unit */
    enum zinf_metric metric;
    bool is_smoothed;
};
enum { ZINF_REPORT_PANELS = 4 };
extern const struct zinf_report_panel zinf_report_panels[ZINF_REPORT_PANELS];

/** The axes of a panel over all runs. false: no run has a value. The loss panel spans eval_loss too. */
bool zinf_report_axes(const struct zinf_report *report, const struct zinf_report_panel *panel,
                      int wanted_ticks, struct zinf_axis *x, struct zinf_axis *y);

/* The table: columns are a name and a function of the run. */
enum { ZINF_REPORT_COLUMNS = 9, ZINF_REPORT_CELL_BYTES = 64 };
extern const char *const zinf_report_columns[ZINF_REPORT_COLUMNS];
void zinf_report_cell(const struct zinf_report_run *run, int column,
                      char text[ZINF_REPORT_CELL_BYTES]);

struct zinf_report_terminal {
    int columns;
    bool is_utf8, has_colour;
};
/** Curves and table. */
void zinf_report_print(const struct zinf_report *report,
                       const struct zinf_report_terminal *terminal, FILE *out);
/** A drawing for light and dark pages alike: no background, neutral text. */
void zinf_report_svg(const struct zinf_report *report, FILE *out);
/** One page that needs nothing else: the drawing and the table. */
void zinf_report_html(const struct zinf_report *report, FILE *out);
/** run,step,epoch,...: a line a line of metrics.jsonl; empty where a value is absent. */
void zinf_report_csv(const struct zinf_report *report, FILE *out);

#ifdef __cplusplus
}
#endif
#endif
