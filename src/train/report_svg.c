/*
 * A report as a drawing (SVG) and as a page (HTML).
 *
 * The drawing has no background and mid-grey text, so that it reads on white and on black alike;
 * where the viewer tells that it is dark, the text gets lighter. Every step is a thin line, the
 * moving mean a thick one of the same colour over it, evaluations are dots.
 */
#include "train/report.h"

#include <math.h>
#include <string.h>

enum { WIDTH = 960, MARGIN = 24, LEGEND_LINE = 22, LOSS_HEIGHT = 300, OTHER_HEIGHT = 120 };

/* Middle luminance, apart in hue and in lightness for readers who see no red or green. */
static const char *const colours[] = {"#2f7fe0", "#e0702b", "#2a9d5c", "#a05fd6",
                                      "#d64570", "#139aa8", "#b08900", "#8a6a55"};
enum { COLOURS = sizeof colours / sizeof *colours };

struct box {
    double x, y, width, height;
};

struct panel {
    const struct zinf_report_panel *what;
    struct box box;
    struct zinf_axis x, y;
    FILE *out;
};

/* Text between tags or in an attribute. */
static void put_text(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '<')
            fputs("&lt;", out);
        else if (*text == '>')
            fputs("&gt;", out);
        else if (*text == '&')
            fputs("&amp;", out);
        else if (*text == '"')
            fputs("&quot;", out);
        else if ((unsigned char)*text >= ' ')
            fputc(*text, out);
    }
}

static double x_of(const struct panel *panel, double x)
{
    return panel->box.x + panel->box.width * zinf_axis_place(&panel->x, x);
}

static double y_of(const struct panel *panel, double y)
{
    return panel->box.y + panel->box.height * (1 - zinf_axis_place(&panel->y, y));
}

static void put_grid(const struct panel *panel)
{
    char label[ZINF_AXIS_LABEL_BYTES];
    const struct box *box = &panel->box;
    FILE *out = panel->out;
    for (int i = 0; i < panel->y.tick_count; i++) {
        const double y = y_of(panel, panel->y.ticks[i]);
        fprintf(out, "<path class=\"grid\" d=\"M%.1f %.1fh%.1f\"/>\n", box->x, y, box->width);
        fprintf(out, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
                box->x - 7, y + 4, zinf_axis_label(&panel->y, panel->y.ticks[i], label));
    }
    for (int i = 0; i < panel->x.tick_count; i++) {
        const double x = x_of(panel, panel->x.ticks[i]);
        fprintf(out, "<path class=\"axis\" d=\"M%.1f %.1fv4\"/>\n", x, box->y + box->height);
        fprintf(out,
                "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n", x,
                box->y + box->height + 18, zinf_axis_label(&panel->x, panel->x.ticks[i], label));
    }
    fprintf(out, "<path class=\"axis\" d=\"M%.1f %.1fh%.1f\"/>\n", box->x, box->y + box->height,
            box->width);
    fprintf(out, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">step</text>\n",
            box->x + box->width, box->y + box->height + 34);
}

static void put_curve(const struct panel *panel, const struct zinf_curve *curve, const char *class,
                      int run)
{
    struct zinf_curve thin = zinf_curve_thin(curve, (int64_t)panel->box.width);
    fprintf(panel->out, "<path class=\"%s\" stroke=\"%s\" d=\"", class, colours[run % COLOURS]);
    for (int64_t i = 0; i < thin.count; i++)
        fprintf(panel->out, "%c%.1f %.1f", i ? 'L' : 'M', x_of(panel, thin.x[i]),
                y_of(panel, thin.y[i]));
    fputs("\"/>\n", panel->out);
    zinf_curve_release(&thin);
}

static void put_marks(const struct panel *panel, const struct zinf_curve *curve, int run)
{
    for (int64_t i = 0; i < curve->count; i++)
        fprintf(panel->out,
                "<circle class=\"mark\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.6\" "
                "stroke=\"%s\"><title>step %.0f: "
                "%.4f</title></circle>\n",
                x_of(panel, curve->x[i]), y_of(panel, curve->y[i]), colours[run % COLOURS],
                curve->x[i], curve->y[i]);
}

/* A lone point is a dot, because a path of one point draws nothing. */
static void put_run(const struct panel *panel, const struct zinf_report_run *run, int number)
{
    struct zinf_curve curve = zinf_report_curve(run, panel->what->metric);
    const int64_t window = panel->what->is_smoothed ? zinf_report_window(run) : 1;
    if (curve.count == 1)
        put_marks(panel, &curve, number);
    if (window > 1) {
        struct zinf_curve smooth = zinf_curve_smooth(&curve, window);
        put_curve(panel, &curve, "raw", number);
        put_curve(panel, &smooth, "mean", number);
        zinf_curve_release(&smooth);
    } else if (curve.count > 1) {
        put_curve(panel, &curve, "mean", number);
    }
    zinf_curve_release(&curve);
}

/* Evaluations stand above every line. Returns whether there are any. */
static bool put_evaluations(const struct zinf_report *report, const struct panel *panel)
{
    bool any = false;
    for (int i = 0; i < report->run_count && panel->what->metric == ZINF_METRIC_LOSS; i++) {
        struct zinf_curve marks = zinf_report_curve(&report->runs[i], ZINF_METRIC_EVAL_LOSS);
        if (marks.count > 1)
            put_curve(panel, &marks, "between", i);
        put_marks(panel, &marks, i);
        any |= marks.count > 0;
        zinf_curve_release(&marks);
    }
    return any;
}

/* The loss panel tells for all panels what thin and thick lines are. */
static void put_note(const struct zinf_report *report, const struct panel *panel)
{
    int64_t window = 1;
    for (int i = 0; i < report->run_count; i++)
        window = zinf_report_window(&report->runs[i]) > window
                     ? zinf_report_window(&report->runs[i])
                     : window;
    fputs("<tspan class=\"note\" dx=\"10\">", panel->out);
    if (panel->y.is_log)
        fputs("log scale", panel->out);
    if (window > 1 && panel->what == zinf_report_panels)
        fprintf(panel->out, "thin: every step, thick: mean over %lld steps", (long long)window);
    fputs("</tspan></text>\n", panel->out);
}

static void put_evaluation_key(const struct panel *panel)
{
    const double right = panel->box.x + panel->box.width, y = panel->box.y - 14;
    fprintf(panel->out,
            "<circle class=\"mark key\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.6\"/>"
            "<text class=\"note\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">evaluation</text>\n",
            right - 72, y - 4.5, right, y);
}

static void put_panel(const struct zinf_report *report, struct panel *panel)
{
    const bool is_wide = panel->what == zinf_report_panels;
    fprintf(panel->out, "<text class=\"title\" x=\"%.1f\" y=\"%.1f\">%s", panel->box.x,
            panel->box.y - 14, panel->what->title);
    if (!zinf_report_axes(report, panel->what, is_wide ? 6 : 3, &panel->x, &panel->y)) {
        fputs("<tspan class=\"note\" dx=\"10\">no value yet</tspan></text>\n", panel->out);
        return;
    }
    put_note(report, panel);
    put_grid(panel);
    for (int i = 0; i < report->run_count; i++)
        put_run(panel, &report->runs[i], i);
    if (put_evaluations(report, panel))
        put_evaluation_key(panel);
}

enum { LAST_LOSS = 3, BEST_EVAL = 6 };

/* One run a line: its colour, its name, its last loss. Returns where the drawing goes on. */
static double put_legend(const struct zinf_report *report, FILE *out)
{
    char loss[ZINF_REPORT_CELL_BYTES], eval[ZINF_REPORT_CELL_BYTES];
    double y = MARGIN + 6;
    for (int i = 0; i < report->run_count; i++, y += LEGEND_LINE) {
        const struct zinf_report_run *run = &report->runs[i];
        zinf_report_cell(run, LAST_LOSS, loss);
        zinf_report_cell(run, BEST_EVAL, eval);
        fprintf(out, "<path class=\"mean\" stroke=\"%s\" d=\"M%d %.1fh22\"/>\n",
                colours[i % COLOURS], MARGIN, y - 4);
        fprintf(out, "<text class=\"run\" x=\"%d\" y=\"%.1f\">", MARGIN + 32, y);
        put_text(out, run->name);
        fputs("<tspan class=\"note\" dx=\"12\">", out);
        put_text(out, run->status);
        fprintf(out, ", last loss %s", loss);
        if (strcmp(eval, "-") != 0)
            fprintf(out, ", best evaluation %s", eval);
        fputs("</tspan></text>\n", out);
    }
    return y;
}

static const char style[] =
    "<style>\n"
    "text{font-family:system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;fill:#6b747d}\n"
    ".title{font-size:14px;font-weight:600}.run{font-size:14px;font-weight:600}\n"
    ".note{font-size:12px;font-weight:400}.tick{font-size:12px}\n"
    ".grid{stroke:#8b949e;stroke-opacity:.28;fill:none}.axis{stroke:#8b949e;fill:none}\n"
    ".raw{fill:none;stroke-width:1;stroke-opacity:.38;stroke-linejoin:round}\n"
    ".mean{fill:none;stroke-width:2.2;stroke-linejoin:round;stroke-linecap:round}\n"
    ".between{fill:none;stroke-width:1.4;stroke-dasharray:2 4}\n"
    ".mark{fill:#fff;stroke-width:2}.key{stroke:#8b949e}\n"
    "@media (prefers-color-scheme:dark){text{fill:#9da5ae}.mark{fill:#0d1117}}\n"
    "</style>\n";

static double height_of(const struct zinf_report *report)
{
    return MARGIN + 6 + LEGEND_LINE * report->run_count + 26 + LOSS_HEIGHT + 84 + OTHER_HEIGHT + 46;
}

void zinf_report_svg(const struct zinf_report *report, FILE *out)
{
    enum { LEFT = 64, GAP = 74, SMALL = (WIDTH - LEFT - MARGIN - 2 * GAP) / 3 };
    const double height = height_of(report);
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %.0f\" width=\"%d\" "
            "height=\"%.0f\" role=\"img\">\n<title>Training curves</title>\n%s",
            WIDTH, height, WIDTH, height, style);
    double y = put_legend(report, out) + 26;
    struct panel panel = {.what = zinf_report_panels,
                          .box = {LEFT, y, WIDTH - LEFT - MARGIN, LOSS_HEIGHT},
                          .out = out};
    put_panel(report, &panel);
    y += LOSS_HEIGHT + 84;
    for (int i = 1; i < ZINF_REPORT_PANELS; i++) {
        panel.what = &zinf_report_panels[i];
        panel.box = (struct box){LEFT + (i - 1) * (SMALL + GAP), y, SMALL, OTHER_HEIGHT};
        put_panel(report, &panel);
    }
    fputs("</svg>\n", out);
}

void zinf_report_html(const struct zinf_report *report, FILE *out)
{
    char text[ZINF_REPORT_CELL_BYTES];
    fputs("<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>zinf "
          "report</title>\n"
          "<meta name=\"viewport\" content=\"width=device-width\">\n<style>\n"
          ":root{color-scheme:light dark}\n"
          "body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2rem auto;padding:0 "
          "1rem}\n"
          "svg{max-width:100%;height:auto}\n"
          "table{border-collapse:collapse;margin-top:1rem;font-variant-numeric:tabular-nums}\n"
          "th,td{padding:.3rem .8rem;text-align:right;border-bottom:1px solid #8b949e55}\n"
          "th:nth-child(-n+2),td:nth-child(-n+2){text-align:left}\n</style>\n",
          out);
    zinf_report_svg(report, out);
    fputs("<table>\n<tr>", out);
    for (int column = 0; column < ZINF_REPORT_COLUMNS; column++)
        fprintf(out, "<th>%s</th>", zinf_report_columns[column]);
    fputs("</tr>\n", out);
    for (int i = 0; i < report->run_count; i++) {
        fputs("<tr>", out);
        for (int column = 0; column < ZINF_REPORT_COLUMNS; column++) {
            zinf_report_cell(&report->runs[i], column, text);
            fputs("<td>", out);
            put_text(out, text);
            fputs("</td>", out);
        }
        fputs("</tr>\n", out);
    }
    fputs("</table>\n</html>\n", out);
}
