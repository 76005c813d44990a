/*
 * Curves and axes. See chart.h.
 */
#include "train/chart.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"

void zinf_curve_add(struct zinf_curve *curve, double x, double y)
{
    if ((curve->count & (curve->count - 1)) == 0) { /* room doubles at powers of two */
        const size_t room = (curve->count ? 2 * (size_t)curve->count : 1) * sizeof(double);
        curve->x = zinf_realloc(curve->x, room);
        curve->y = zinf_realloc(curve->y, room);
    }
    curve->x[curve->count] = x;
    curve->y[curve->count++] = y;
}

void zinf_curve_release(struct zinf_curve *curve)
{
    free(curve->x);
    free(curve->y);
    memset(curve, 0, sizeof *curve);
}

int64_t zinf_curve_window(int64_t count)
{
    return count / 50 | 1;
}

/* Near the ends the window shrinks on both sides alike: a mean over more points of one side would
 * bend a rising curve down. */
struct zinf_curve zinf_curve_smooth(const struct zinf_curve *curve, int64_t window)
{
    struct zinf_curve smooth = {0};
    const int64_t half = window / 2;
    double sum = 0;
    int64_t begin = 0, end = 0;
    for (int64_t i = 0; i < curve->count; i++) {
        const int64_t reach = i < half                      ? i
                              : curve->count - 1 - i < half ? curve->count - 1 - i
                                                            : half;
        while (end <= i + reach)
            sum += curve->y[end++];
        while (begin < i - reach)
            sum -= curve->y[begin++];
        zinf_curve_add(&smooth, curve->x[i], sum / (double)(end - begin));
    }
    return smooth;
}

static void add_extremes(struct zinf_curve *thin, const struct zinf_curve *curve, int64_t begin,
                         int64_t end)
{
    int64_t low = begin, high = begin;
    for (int64_t i = begin; i < end; i++) {
        low = curve->y[i] < curve->y[low] ? i : low;
        high = curve->y[i] > curve->y[high] ? i : high;
    }
    const int64_t first = low < high ? low : high, second = low < high ? high : low;
    zinf_curve_add(thin, curve->x[first], curve->y[first]);
    if (second != first)
        zinf_curve_add(thin, curve->x[second], curve->y[second]);
}

struct zinf_curve zinf_curve_thin(const struct zinf_curve *curve, int64_t columns)
{
    struct zinf_curve thin = {0};
    if (curve->count == 0)
        return thin;
    const double first = curve->x[0], width = curve->x[curve->count - 1] - first;
    int64_t begin = 0;
    for (int64_t column = 0; column < columns && begin < curve->count; column++) {
        const double edge = first + width * (double)(column + 1) / (double)columns;
        int64_t end = begin;
        while (end < curve->count && (curve->x[end] <= edge || column == columns - 1))
            end++;
        if (end > begin)
            add_extremes(&thin, curve, begin, end);
        begin = end;
    }
    return thin;
}

/* 1, 2 or 5 times a power of ten, the first that is at least `value`. */
static double round_up(double value)
{
    const double power = pow(10, floor(log10(value)));
    const double digits[] = {1, 2, 5, 10};
    for (int i = 0; i < 3; i++)
        if (value <= digits[i] * power * (1 + 1e-9))
            return digits[i] * power;
    return 10 * power;
}

static void add_tick(struct zinf_axis *axis, double value)
{
    if (axis->tick_count < ZINF_AXIS_TICKS)
        axis->ticks[axis->tick_count++] = value;
}

static void add_linear_ticks(struct zinf_axis *axis)
{
    const double slack = 1e-9 * axis->step;
    for (double n = ceil((axis->min - slack) / axis->step); n * axis->step <= axis->max + slack;
         n++)
        add_tick(axis, n * axis->step);
}

/* 1, 2 or 5 times a power of ten, the last that is at most `value`. */
static double round_down(double value)
{
    const double power = pow(10, floor(log10(value) + 1e-9));
    return value >= 5 * power * (1 - 1e-9)   ? 5 * power
           : value >= 2 * power * (1 - 1e-9) ? 2 * power
                                             : power;
}

/* 1, 2 and 5 of every decade while they are few, else every decade, every second ... */
static void add_log_ticks(struct zinf_axis *axis, int wanted)
{
    const double low = axis->min * (1 - 1e-9), high = axis->max * (1 + 1e-9);
    const int first = (int)floor(log10(low)), last = (int)ceil(log10(high));
    const bool all = 3 * (last - first) <= 2 * wanted;
    const int stride = (last - first + wanted - 1) / wanted;
    for (int decade = first; decade <= last; decade++)
        for (int digit = 1; digit <= 5; digit += digit == 1 ? 1 : 3) {
            const double tick = digit * pow(10, decade);
            if (tick >= low && tick <= high && (all || (digit == 1 && decade % stride == 0)))
                add_tick(axis, tick);
        }
}

struct zinf_axis zinf_axis_around(double min, double max, int wanted, bool is_log)
{
    struct zinf_axis axis = {.is_log = is_log};
    if (is_log) {
        axis.min = round_down(min);
        axis.max = round_up(max);
        if (axis.max <= axis.min)
            axis.max = 10 * axis.min;
        add_log_ticks(&axis, wanted);
        return axis;
    }
    const double size = fmax(fabs(min), fabs(max));
    if (max - min <= 1e-9 * size || size == 0) { /* a constant stands in the middle */
        min -= size > 0 ? 0.1 * size : 1;
        max += size > 0 ? 0.1 * size : 1;
    }
    axis.step = round_up((max - min) / wanted);
    axis.min = axis.step * floor(min / axis.step + 1e-9);
    axis.max = axis.step * ceil(max / axis.step - 1e-9);
    add_linear_ticks(&axis);
    return axis;
}

struct zinf_axis zinf_axis_exact(double min, double max, int wanted)
{
    struct zinf_axis axis = {.min = min, .max = max > min ? max : min + 1};
    axis.step = round_up((axis.max - axis.min) / wanted);
    add_linear_ticks(&axis);
    return axis;
}

double zinf_axis_place(const struct zinf_axis *axis, double value)
{
    if (axis->is_log)
        return (log10(value) - log10(axis->min)) / (log10(axis->max) - log10(axis->min));
    return (value - axis->min) / (axis->max - axis->min);
}

/* "5e-4", without the zeros of printf's exponent. */
static void print_power(double value, int digits, char text[ZINF_AXIS_LABEL_BYTES])
{
    const int exponent = (int)floor(log10(fabs(value)) + 1e-9);
    snprintf(text, ZINF_AXIS_LABEL_BYTES, "%.*fe%d", digits, value / pow(10, exponent), exponent);
}

const char *zinf_axis_label(const struct zinf_axis *axis, double tick,
                            char text[ZINF_AXIS_LABEL_BYTES])
{
    const double size = fmax(fabs(axis->min), fabs(axis->max));
    const double step = axis->is_log ? fabs(tick) : axis->step;
    const int finest = (int)floor(log10(step) + 1e-9); /* decimal place of the last digit */
    if (!axis->is_log && fabs(tick) < 1e-9 * size)
        snprintf(text, ZINF_AXIS_LABEL_BYTES, "0");
    else if ((axis->is_log ? fabs(tick) : size) < 1e-2) {
        const int leading = (int)floor(log10(fabs(tick)) + 1e-9);
        print_power(tick, leading > finest ? leading - finest : 0, text);
    } else if (size >= 1e6)
        snprintf(text, ZINF_AXIS_LABEL_BYTES, "%.*fM",
                 finest < 6 ? (6 - finest < 4 ? 6 - finest : 4) : 0, tick / 1e6);
    else if (size >= 1e4)
        snprintf(text, ZINF_AXIS_LABEL_BYTES, "%.*fk", finest < 3 ? 3 - finest : 0, tick / 1e3);
    else
        snprintf(text, ZINF_AXIS_LABEL_BYTES, "%.*f", finest < 0 ? -finest : 0, tick);
    return text;
}
