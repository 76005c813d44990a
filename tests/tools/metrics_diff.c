/*
 * metrics_diff A.jsonl B.jsonl TOLERANCE [STEPS]: are losses, learning rates and gradient norms of
 * two runs the same?
 *
 * TOLERANCE 0 asks for equal bits, else for relative differences up to it, over the first STEPS
 * steps (all by default). Learning rates must be equal always. Prints the largest differences; exit
 * 0 = the same, 1 = not, 2 = a file cannot be read or has other steps.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "train/metrics.h"

enum { MAX_STEPS = 100000 };

struct series {
    double loss, lr, norm;
};

static long read_series(const char *path, struct series *out)
{
    char line[4096];
    double values[ZINF_METRIC_COUNT];
    long count = 0;
    FILE *file = fopen(path, "r");
    if (!file)
        return -1;
    while (count < MAX_STEPS && fgets(line, sizeof line, file)) {
        if (!zinf_metrics_parse(line, values) || isnan(values[ZINF_METRIC_LR]))
            continue;
        out[count++] = (struct series){values[ZINF_METRIC_LOSS], values[ZINF_METRIC_LR],
                                       values[ZINF_METRIC_GRAD_NORM]};
    }
    fclose(file);
    return count;
}

static double difference(double a, double b)
{
    if (a == b || (isnan(a) && isnan(b)))
        return 0;
    return fabs(a - b) / fmax(fabs(a), fabs(b));
}

int main(int argc, char **argv)
{
    static struct series a[MAX_STEPS], b[MAX_STEPS];
    double loss = 0, norm = 0, lr = 0;
    if (argc < 4)
        return 2;
    double tolerance = atof(argv[3]);
    long count_a = read_series(argv[1], a), count_b = read_series(argv[2], b);
    long steps = argc > 4 ? atol(argv[4]) : count_a;
    if (count_a <= 0 || count_b <= 0 || steps > count_a || steps > count_b ||
        (argc == 4 && count_a != count_b)) {
        printf("%s: %ld steps, %s: %ld steps\n", argv[1], count_a, argv[2], count_b);
        return 2;
    }
    for (long i = 0; i < steps; i++) {
        loss = fmax(loss, difference(a[i].loss, b[i].loss));
        norm = fmax(norm, difference(a[i].norm, b[i].norm));
        lr = fmax(lr, difference(a[i].lr, b[i].lr));
    }
    /* The norm is a square root of a sum over all elements: allow it ten times as much. */
    int same = lr == 0 && loss <= tolerance && norm <= 10 * tolerance;
    printf("%ld steps: loss %.1e, norm %.1e, lr %.1e%s\n", steps, loss, norm, lr,
           same ? "" : "  DIFFERENT");
    return !same;
}
