/*
 * A report on a terminal: curves in braille dots (2 x 4 a character) or plain characters, and the
 * table.
 */
#include "train/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LABEL_COLUMNS = 9, LOSS_LINES = 14, OTHER_LINES = 6, MIN_COLUMNS = 40, MAX_COLUMNS = 160 };

static const char *const colours[] = {"\033[34m", "\033[33m", "\033[32m",
                                      "\033[35m", "\033[31m", "\033[36m"};
enum { COLOURS = sizeof colours / sizeof *colours };

/* A character cell: its dots, or a mark that stands over them. */
struct cell {
    unsigned char dots;
    char letter; /* 'o': a mark of an evaluation; 'a'..: the run in plain characters */
    signed char run;
};

struct canvas {
    const struct zinf_report_terminal *terminal;
    bool is_dotted; /* braille: one run, or colours tell runs apart */
    int columns, lines;
    struct cell *cells;
};

static int dots_wide(const struct canvas *canvas)
{
    return canvas->columns * (canvas->is_dotted ? 2 : 1);
}

static int dots_high(const struct canvas *canvas)
{
    return canvas->lines * (canvas->is_dotted ? 4 : 1);
}

/* x from the left, y from the top, in dots. */
static void set_dot(struct canvas *canvas, int x, int y, int run)
{
    static const unsigned char bits[4][2] = {
        {0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
    if (x < 0 || y < 0 || x >= dots_wide(canvas) || y >= dots_high(canvas))
        return;
    const int column = canvas->is_dotted ? x / 2 : x, line = canvas->is_dotted ? y / 4 : y;
    struct cell *cell = &canvas->cells[line * canvas->columns + column];
    cell->dots |= canvas->is_dotted ? bits[y % 4][x % 2] : 1;
    cell->run = (signed char)run;
    if (!canvas->is_dotted && cell->letter != 'o')
        cell->letter = (char)(canvas->terminal->has_colour ? '*' : 'a' + run % 26);
}

/* Bresenham's line. */
static void draw_line(struct canvas *canvas, const int from[2], const int to[2], int run)
{
    const int dx = abs(to[0] - from[0]), dy = -abs(to[1] - from[1]);
    const int sx = from[0] < to[0] ? 1 : -1, sy = from[1] < to[1] ? 1 : -1;
    int x = from[0], y = from[1], error = dx + dy;
    for (;;) {
        set_dot(canvas, x, y, run);
        if (x == to[0] && y == to[1])
            return;
        const int twice = 2 * error;
        if (twice >= dy) {
            error += dy;
            x += sx;
        }
        if (twice <= dx) {
            error += dx;
            y += sy;
        }
    }
}

struct axes {
    struct zinf_axis x, y;
};

static void place(const struct canvas *canvas, const struct axes *axes, double x, double y,
                  int dot[2])
{
    dot[0] = (int)lround(zinf_axis_place(&axes->x, x) * (dots_wide(canvas) - 1));
    dot[1] = (int)lround((1 - zinf_axis_place(&axes->y, y)) * (dots_high(canvas) - 1));
}

static void draw_curve(struct canvas *canvas, const struct axes *axes,
                       const struct zinf_curve *curve, int run)
{
    int last[2], next[2];
    for (int64_t i = 0; i < curve->count; i++, memcpy(last, next, sizeof last)) {
        place(canvas, axes, curve->x[i], curve->y[i], next);
        draw_line(canvas, i ? last : next, next, run);
    }
}

static void draw_marks(struct canvas *canvas, const struct axes *axes,
                       const struct zinf_curve *curve, int run)
{
    int dot[2];
    for (int64_t i = 0; i < curve->count; i++) {
        place(canvas, axes, curve->x[i], curve->y[i], dot);
        set_dot(canvas, dot[0], dot[1], run);
        const int column = canvas->is_dotted ? dot[0] / 2 : dot[0];
        const int line = canvas->is_dotted ? dot[1] / 4 : dot[1];
        canvas->cells[line * canvas->columns + column].letter = 'o';
    }
}

static void print_cell(const struct canvas *canvas, const struct cell *cell, FILE *out)
{
    char text[8] = " ";
    if (cell->letter == 'o' && canvas->terminal->is_utf8)
        strcpy(text, "\u25cf");
    else if (cell->letter)
        text[0] = cell->letter;
    else if (cell->dots) /* U+2800 + dots in UTF-8 */
        snprintf(text, sizeof text, "\xe2%c%c", 0xa0 | cell->dots >> 6, 0x80 | (cell->dots & 0x3f));
    if (cell->dots && canvas->terminal->has_colour)
        fprintf(out, "%s%s\033[0m", colours[cell->run % COLOURS], text);
    else
        fputs(text, out);
}

/* The tick that belongs to a line of characters, or none. */
static const char *label_of(const struct canvas *canvas, const struct axes *axes, int line,
                            char text[ZINF_AXIS_LABEL_BYTES])
{
    for (int i = 0; i < axes->y.tick_count; i++) {
        const double place = 1 - zinf_axis_place(&axes->y, axes->y.ticks[i]);
        if ((int)lround(place * (canvas->lines - 1)) == line)
            return zinf_axis_label(&axes->y, axes->y.ticks[i], text);
    }
    return "";
}

static void print_lines(const struct canvas *canvas, const struct axes *axes, FILE *out)
{
    const bool utf8 = canvas->terminal->is_utf8;
    char text[ZINF_AXIS_LABEL_BYTES];
    for (int line = 0; line < canvas->lines; line++) {
        const char *label = label_of(canvas, axes, line, text);
        int used = canvas->columns;
        const struct cell *cells = canvas->cells + (size_t)line * (size_t)canvas->columns;
        while (used > 0 && !cells[used - 1].dots)
            used--;
        fprintf(out, "%*s %s", LABEL_COLUMNS, label,
                *label ? (utf8 ? "\u2524" : "+") : (utf8 ? "\u2502" : "|"));
        for (int column = 0; column < used; column++)
            print_cell(canvas, &cells[column], out);
        fputc('\n', out);
    }
}

static void print_steps(const struct canvas *canvas, const struct axes *axes, FILE *out)
{
    const bool utf8 = canvas->terminal->is_utf8;
    char *labels = zinf_alloc((size_t)canvas->columns + ZINF_AXIS_LABEL_BYTES),
         text[ZINF_AXIS_LABEL_BYTES];
    char *marks = zinf_alloc((size_t)canvas->columns + 1);
    memset(labels, ' ', (size_t)canvas->columns);
    int free_from = 0;
    for (int i = 0; i < axes->x.tick_count; i++) {
        const int column =
            (int)lround(zinf_axis_place(&axes->x, axes->x.ticks[i]) * (canvas->columns - 1));
        const int length = (int)strlen(zinf_axis_label(&axes->x, axes->x.ticks[i], text));
        int begin = column - length / 2;
        begin = begin < 0 ? 0 : begin + length > canvas->columns ? canvas->columns - length : begin;
        if (begin < free_from)
            continue;
        marks[column] = 1;
        memcpy(labels + begin, text, (size_t)length);
        free_from = begin + length + 2;
    }
    fprintf(out, "%*s %s", LABEL_COLUMNS, "", utf8 ? "\u2514" : "+");
    for (int i = 0; i < canvas->columns; i++)
        fputs(marks[i] ? (utf8 ? "\u252c" : "+") : (utf8 ? "\u2500" : "-"), out);
    fprintf(out, "\n%*s  %s\n", LABEL_COLUMNS, "step", labels);
    free(labels);
    free(marks);
}

/* Draws one run; returns the window of its mean. */
static int64_t draw_run(struct canvas *canvas, const struct axes *axes,
                        const struct zinf_report_panel *panel, const struct zinf_report_run *run,
                        int number)
{
    struct zinf_curve curve = zinf_report_curve(run, panel->metric);
    const int64_t window = panel->is_smoothed ? zinf_report_window(run) : 1;
    struct zinf_curve smooth = zinf_curve_smooth(&curve, window);
    struct zinf_curve thin = zinf_curve_thin(&smooth, dots_wide(canvas));
    draw_curve(canvas, axes, &thin, number);
    zinf_curve_release(&curve);
    zinf_curve_release(&smooth);
    zinf_curve_release(&thin);
    if (panel->metric == ZINF_METRIC_LOSS) {
        struct zinf_curve marks = zinf_report_curve(run, ZINF_METRIC_EVAL_LOSS);
        draw_marks(canvas, axes, &marks, number);
        zinf_curve_release(&marks);
    }
    return window;
}

static bool has_evaluations(const struct zinf_report *report)
{
    for (int i = 0; i < report->run_count; i++)
        for (int64_t row = 0; row < report->runs[i].row_count; row++)
            if (isfinite(report->runs[i].rows[row][ZINF_METRIC_EVAL_LOSS]))
                return true;
    return false;
}

static void print_title(const struct zinf_report *report, const struct zinf_report_panel *panel,
                        const struct axes *axes, int64_t window,
                        const struct zinf_report_terminal *terminal, FILE *out)
{
    fprintf(out, "\n%*s  %s", LABEL_COLUMNS, "", panel->title);
    if (window > 1)
        fprintf(out, ", mean over %lld steps", (long long)window);
    if (axes->y.is_log)
        fputs(", log scale", out);
    if (panel->metric == ZINF_METRIC_LOSS && has_evaluations(report))
        fprintf(out, "   %s evaluation", terminal->is_utf8 ? "\u25cf" : "o");
    fputc('\n', out);
}

static void print_panel(const struct zinf_report *report, const struct zinf_report_panel *panel,
                        const struct zinf_report_terminal *terminal, FILE *out)
{
    const bool is_first = panel == zinf_report_panels;
    int columns = terminal->columns - LABEL_COLUMNS - 2;
    columns = columns < MIN_COLUMNS ? MIN_COLUMNS : columns > MAX_COLUMNS ? MAX_COLUMNS : columns;
    struct canvas canvas = {.terminal = terminal,
                            .is_dotted = terminal->is_utf8 &&
                                         (terminal->has_colour || report->run_count == 1),
                            .columns = columns,
                            .lines = is_first ? LOSS_LINES : OTHER_LINES};
    struct axes axes;
    if (!zinf_report_axes(report, panel, is_first ? 5 : 3, &axes.x, &axes.y))
        return;
    canvas.cells = zinf_alloc((size_t)canvas.columns * (size_t)canvas.lines * sizeof *canvas.cells);
    int64_t window = 1;
    for (int i = 0; i < report->run_count; i++) {
        const int64_t own = draw_run(&canvas, &axes, panel, &report->runs[i], i);
        window = own > window ? own : window;
    }
    print_title(report, panel, &axes, window, terminal, out);
    print_lines(&canvas, &axes, out);
    print_steps(&canvas, &axes, out);
    free(canvas.cells);
}

static void print_legend(const struct zinf_report *report,
                         const struct zinf_report_terminal *terminal, FILE *out)
{
    for (int i = 0; i < report->run_count && report->run_count > 1; i++) {
        if (terminal->has_colour)
            fprintf(out, "  %s%s\033[0m %s\n", colours[i % COLOURS],
                    terminal->is_utf8 ? "\u2501\u2501" : "**", report->runs[i].name);
        else
            fprintf(out, "  %c  %s\n", 'a' + i % 26, report->runs[i].name);
    }
}

/* Columns of a text, where a byte that continues a character takes none. */
static int width_of(const char *text)
{
    int width = 0;
    for (; *text; text++)
        width += (*text & 0xc0) != 0x80;
    return width;
}

static void print_table(const struct zinf_report *report, FILE *out)
{
    char text[ZINF_REPORT_CELL_BYTES];
    int widths[ZINF_REPORT_COLUMNS];
    for (int column = 0; column < ZINF_REPORT_COLUMNS; column++) {
        widths[column] = (int)strlen(zinf_report_columns[column]);
        for (int i = 0; i < report->run_count; i++) {
            zinf_report_cell(&report->runs[i], column, text);
            widths[column] = width_of(text) > widths[column] ? width_of(text) : widths[column];
        }
    }
    fputc('\n', out);
    for (int i = -1; i < report->run_count; i++) {
        for (int column = 0; column < ZINF_REPORT_COLUMNS; column++) {
            if (i < 0)
                snprintf(text, sizeof text, "%s", zinf_report_columns[column]);
            else
                zinf_report_cell(&report->runs[i], column, text);
            const int pad = widths[column] - width_of(text);
            fprintf(out, "%s%*s%s%*s", column ? "  " : "", column > 1 ? pad : 0, "", text,
                    column < 2 ? pad : 0, "");
        }
        fputc('\n', out);
    }
}

void zinf_report_print(const struct zinf_report *report,
                       const struct zinf_report_terminal *terminal, FILE *out)
{
    print_legend(report, terminal, out);
    for (int i = 0; i < ZINF_REPORT_PANELS; i++)
        print_panel(report, &zinf_report_panels[i], terminal, out);
    print_table(report, out);
}
