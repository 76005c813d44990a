/*
 * What every drawing of a curve needs, on whatever it is drawn: the points, their moving mean, an axis with round numbers.
 */
#ifndef ZINF_TRAIN_CHART_H
#define ZINF_TRAIN_CHART_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Points in the order of x; every y is finite. A zeroed curve is empty. */
struct zinf_curve {
    double *x, *y; /* owned */
    int64_t count;
};
void zinf_curve_add(struct zinf_curve *curve, double x, double y);
void zinf_curve_release(struct zinf_curve *curve);

/** A window that takes the noise out and leaves the shape: about a fiftieth of the points, odd; 1 = nothing to smooth. */
int64_t zinf_curve_window(int64_t count);
/** Centred mean over `window` points, fewer at the ends; the same x. Owned by the caller. */
struct zinf_curve zinf_curve_smooth(const struct zinf_curve *curve, int64_t window);

/**
 * At most `columns` pairs of points that look the same when drawn `columns` wide: the lowest and the highest of every column, in their
 * order. Owned by the caller.
 */
struct zinf_curve zinf_curve_thin(const struct zinf_curve *curve, int64_t columns);

enum { ZINF_AXIS_TICKS = 16, ZINF_AXIS_LABEL_BYTES = 32 };

/* From min to max, both round. */
struct zinf_axis {
    double min, max;
    bool is_log;
    int tick_count;
    double ticks[ZINF_AXIS_TICKS];
    double step; /* between ticks; linear only */
};

/**
 * An axis around [min, max] with about `wanted` ticks at 1, 2 or 5 times a power of ten.
 * @param is_log  decades; min must be positive
 */
struct zinf_axis zinf_axis_around(double min, double max, int wanted, bool is_log);
/** The same from the exact `min` to the exact `max`, ticks inside: for steps, which end where they end. */
struct zinf_axis zinf_axis_exact(double min, double max, int wanted);
/** 0 at min, 1 at max. */
double zinf_axis_place(const struct zinf_axis *axis, double value);
/** As many digits as the ticks need: "0.25", "1e-4", "12k". */
const char *zinf_axis_label(const struct zinf_axis *axis, double tick,
                            char text[ZINF_AXIS_LABEL_BYTES]);

#ifdef __cplusplus
}
#endif
#endif
