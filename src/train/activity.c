/*
 * Time per activity. See activity.h.
 */
#include "train/activity.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "base/trace.h"
#include "train/terminal.h"

static const char *const names[ZINF_ACTIVITY_COUNT] = {
    "start",       "data wait",   "forward", "loss",      "backward",   "gather wait", "nvme wait",
    "update wait", "reduce wait", "norm",    "optimizer", "evaluation", "checkpoint",  "logging"};

void zinf_activities_init(struct zinf_activities *activities)
{
    memset(activities, 0, sizeof *activities);
    activities->began_s = activities->since_s = zinf_clock_s();
}

/* Seconds since the last change go to the innermost activity that runs: each second counts once, so
 * that the rows and "rest" add up to the wall time. */
static void charge(struct zinf_activities *activities)
{
    const double now_s = zinf_clock_s();
    if (activities->depth > 0)
        activities->totals.rows[activities->stack[activities->depth - 1]].seconds +=
            now_s - activities->since_s;
    activities->since_s = now_s;
}

/* A gather inside an evaluation is evaluation, not "gather wait": the rows of a step should not
 * depend on how often one evaluates. */
static bool keeps_all(enum zinf_activity activity)
{
    return activity == ZINF_ACTIVITY_EVALUATION || activity == ZINF_ACTIVITY_CHECKPOINT ||
           activity == ZINF_ACTIVITY_START;
}

/* What a start of `activity` counts for here. */
static enum zinf_activity owner_of(const struct zinf_activities *activities,
                                   enum zinf_activity activity)
{
    if (activities->depth == 0)
        return activity;
    const enum zinf_activity outer = activities->stack[activities->depth - 1];
    return keeps_all(outer) ? outer : activity;
}

void zinf_activity_start(struct zinf_activities *activities, enum zinf_activity activity)
{
    ZINF_ASSERT(activities->depth < ZINF_ACTIVITY_DEPTH);
    charge(activities);
    const enum zinf_activity owner = owner_of(activities, activity);
    activities->stack[activities->depth++] = owner;
    zinf_trace_push(names[activity]);
    activities->totals.rows[owner].calls += owner == activity;
}

void zinf_activity_stop(struct zinf_activities *activities, enum zinf_activity activity)
{
    ZINF_ASSERT(activities->depth > 0);
    const enum zinf_activity owner = activities->stack[activities->depth - 1];
    ZINF_ASSERT(owner == activity || keeps_all(owner));
    charge(activities);
    activities->depth--;
    zinf_trace_pop();
}

void zinf_activity_move(struct zinf_activities *activities, enum zinf_activity from,
                        enum zinf_activity to, double seconds)
{
    const enum zinf_activity owner = owner_of(activities, from);
    if (seconds <= 0 || owner != from)
        return; /* inside an evaluation everything is the evaluation's */
    activities->totals.rows[from].seconds -= seconds;
    activities->totals.rows[to].seconds += seconds;
    activities->totals.rows[to].calls++;
}

void zinf_activity_add_bytes(struct zinf_activities *activities, enum zinf_activity activity,
                             int64_t bytes)
{
    activities->totals.rows[activity].bytes += bytes;
}

struct zinf_activity_totals zinf_activities_totals(struct zinf_activities *activities)
{
    charge(activities);
    activities->totals.wall_s = activities->since_s - activities->began_s;
    return activities->totals;
}

/* One row over all ranks. */
struct spread {
    double min, sum, max;
};

static void widen(struct spread *spread, double value, int rank)
{
    spread->min = rank ? fmin(spread->min, value) : value;
    spread->max = rank ? fmax(spread->max, value) : value;
    spread->sum += value;
}

static double rest_of(const struct zinf_activity_totals *totals)
{
    double rest = totals->wall_s;
    for (int i = 0; i < ZINF_ACTIVITY_COUNT; i++)
        rest -= totals->rows[i].seconds;
    return fmax(0, rest); /* sums of rounded differences may end a hair below zero */
}

static void print_row(FILE *out, const char *name, struct spread spread, int ranks, double wall_sum)
{
    fprintf(out, "%-12s %10.3f %10.3f %10.3f %8.1f", name, spread.min, spread.sum / ranks,
            spread.max, wall_sum > 0 ? 100 * spread.sum / wall_sum : 0);
}

static void print_activity(FILE *out, int activity, const struct zinf_activity_totals *ranks,
                           int rank_count, double wall_sum)
{
    struct spread spread = {0, 0, 0};
    char text[ZINF_SHORT_BYTES];
    int64_t calls = 0, bytes = 0;
    for (int i = 0; i < rank_count; i++) {
        widen(&spread, ranks[i].rows[activity].seconds, i);
        calls += ranks[i].rows[activity].calls;
        bytes += ranks[i].rows[activity].bytes;
    }
    if (!calls && !bytes)
        return;
    print_row(out, names[activity], spread, rank_count, wall_sum);
    fprintf(out, " %9lld", (long long)ranks[0].rows[activity].calls);
    if (bytes)
        fprintf(out, "  %s", zinf_short_bytes((double)bytes, text));
    fputc('\n', out);
}

char *zinf_activity_table(const struct zinf_activity_totals *ranks, int rank_count)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    struct spread rest = {0, 0, 0}, wall = {0, 0, 0};
    ZINF_ASSERT(out && rank_count > 0);
    for (int i = 0; i < rank_count; i++) {
        widen(&rest, rest_of(&ranks[i]), i);
        widen(&wall, ranks[i].wall_s, i);
    }
    fprintf(out, "%-12s %10s %10s %10s %8s %9s  %s\n", "activity", "min s", "mean s", "max s",
            "% wall", "calls", "bytes");
    for (int i = 0; i < ZINF_ACTIVITY_COUNT; i++)
        print_activity(out, i, ranks, rank_count, wall.sum);
    print_row(out, "rest", rest, rank_count, wall.sum);
    fputc('\n', out);
    print_row(out, "wall", wall, rank_count, wall.sum);
    fputc('\n', out);
    ZINF_ASSERT(!ferror(out) && !fclose(out));
    return text;
}
