/*
 * Layer and RMS normalisation (Ba et al. 2016; Zhang and Sennrich 2019), forward and backward.
 *
 * A task is a run of rows. The gradients of weight and bias are sums over all rows: each task adds
 * up its own rows, then the tasks' partial sums are added in order. The length of a run depends on
 * the number of rows only, hence so does the order of the sums.
 */
#include "cpu/kernels.h"
#include "cpu/vec.h"

enum {
    LARGEST_PARTS = 64
}; /* partial sums of weight and bias gradients, (parts, 2, columns) fp32 */

struct norm {
    const struct zinf_norm *op;
    const void *dy, *residual;
    void *y, *dweight, *dbias; /* y: dx in the backward pass */
    float *partial;
    int64_t run; /* rows of a task */
};

INLINE float row_mean(enum zinf_dtype dtype, const void *x, int64_t columns)
{
    struct lanes sum = {0};
    for (int64_t i = 0; i < columns; i += LANES)
        for (int p = 0; p < PARTS; p++)
            sum.part[p] += load(dtype, x, i + p * WIDTH, columns - i - p * WIDTH);
    return lanes_sum(&sum) / (float)columns;
}

/** Mean of (x - mean)^2: in two passes, because the difference of large sums of squares would
 * cancel. */
INLINE float row_variance(enum zinf_dtype dtype, const void *x, int64_t columns, float mean)
{
    struct lanes sum = {0};
    for (int64_t i = 0; i < columns; i += LANES)
        for (int p = 0; p < PARTS; p++) {
            int64_t left = columns - i - p * WIDTH;
            vfloat d = keep_first(left, load(dtype, x, i + p * WIDTH, left) - mean, 0.0f);
            sum.part[p] += d * d;
        }
    return lanes_sum(&sum) / (float)columns;
}

INLINE void forward_row(enum zinf_dtype dtype, const struct zinf_norm *op, int64_t row, void *y)
{
    int64_t columns = op->columns;
    const void *x = element(op->x, dtype, row * columns);
    float mean = op->mean ? row_mean(dtype, x, columns) : 0.0f;
    float rstd = 1.0f / sqrtf(row_variance(dtype, x, columns, mean) + (float)op->epsilon);
    if (op->mean)
        op->mean[row] = mean;
    op->rstd[row] = rstd;
    for (int64_t i = 0; i < columns; i += WIDTH) {
        int64_t left = columns - i;
        vfloat v = (load(dtype, x, i, left) - mean) * rstd * load(dtype, op->weight, i, left);
        if (op->bias)
            v += load(dtype, op->bias, i, left);
        store(dtype, y, row * columns + i, left, v);
    }
}

INLINE void forward_rows(enum zinf_dtype dtype, const struct norm *norm, int64_t begin, int64_t end)
{
    for (int64_t row = begin; row < end; row++)
        forward_row(dtype, norm->op, row, norm->y);
}

static void forward_task(void *context, int64_t task)
{
    const struct norm *norm = context;
    int64_t begin = task * norm->run, end = least(begin + norm->run, norm->op->rows);
    FOR_DTYPE(norm->op->dtype, forward_rows(constant_dtype, norm, begin, end));
}

void KERNEL(norm_forward)(const struct zinf_norm *op, void *y)
{
    struct norm norm = {.op = op, .y = y, .run = 16};
    zinf_cpu_for(chunks(op->rows, norm.run), forward_task, &norm);
}

/**
 * With n = (x - mean) * rstd and g = dy * weight:
 * dx = rstd * (g - mean(g) - n * mean(g n)); mean(g) is left out for RMS norm. dweight += dy * n,
 * dbias += dy.
 */
INLINE void backward_row(enum zinf_dtype dtype, const struct norm *norm, int64_t row,
                         float *dweight, float *dbias)
{
    const struct zinf_norm *op = norm->op;
    int64_t columns = op->columns, offset = row * columns;
    float mean = op->mean ? op->mean[row] : 0.0f, rstd = op->rstd[row];
    struct lanes sum_g = {0}, sum_gn = {0};
    for (int64_t i = 0; i < columns; i += LANES)
        for (int p = 0; p < PARTS; p++) {
            int64_t at = i + p * WIDTH, left = columns - at;
            vfloat dy = load(dtype, norm->dy, offset + at, left);
            vfloat n = (load(dtype, op->x, offset + at, left) - mean) * rstd;
            vfloat g = dy * load(dtype, op->weight, at, left);
            sum_g.part[p] += g;
            sum_gn.part[p] += g * n;
            store(ZINF_FP32, dweight, at, left, load(ZINF_FP32, dweight, at, left) + dy * n);
            store(ZINF_FP32, dbias, at, left, load(ZINF_FP32, dbias, at, left) + dy);
        }
    float mean_g = op->mean ? lanes_sum(&sum_g) / (float)columns : 0.0f;
    float mean_gn = lanes_sum(&sum_gn) / (float)columns;
    for (int64_t i = 0; i < columns; i += WIDTH) {
        int64_t left = columns - i;
        vfloat n = (load(dtype, op->x, offset + i, left) - mean) * rstd;
        vfloat g = load(dtype, norm->dy, offset + i, left) * load(dtype, op->weight, i, left);
        vfloat dx = rstd * (g - mean_g - n * mean_gn);
        if (norm->residual)
            dx += load(dtype, norm->residual, offset + i, left);
        store(dtype, norm->y, offset + i, left, dx);
    }
}

INLINE void backward_rows(enum zinf_dtype dtype, const struct norm *norm, int64_t task)
{
    int64_t begin = task * norm->run, end = least(begin + norm->run, norm->op->rows);
    float *dweight = norm->partial + task * 2 * norm->op->columns;
    float *dbias = dweight + norm->op->columns;
    memset(dweight, 0, sizeof(float) * 2 * (size_t)norm->op->columns);
    for (int64_t row = begin; row < end; row++)
        backward_row(dtype, norm, row, dweight, dbias);
}

static void backward_task(void *context, int64_t task)
{
    const struct norm *norm = context;
    FOR_DTYPE(norm->op->dtype, backward_rows(constant_dtype, norm, task));
}

/** Columns of the partial sums, added over the runs in order. */
static void combine_task(void *context, int64_t task)
{
    const struct norm *norm = context;
    int64_t columns = norm->op->columns, parts = chunks(norm->op->rows, norm->run);
    for (int64_t i = task * 64; i < least(task * 64 + 64, columns); i += WIDTH) {
        int64_t left = columns - i;
        vfloat dweight = {0}, dbias = {0};
        for (int64_t part = 0; part < parts; part++) {
            dweight += load(ZINF_FP32, norm->partial, part * 2 * columns + i, left);
            dbias += load(ZINF_FP32, norm->partial, (part * 2 + 1) * columns + i, left);
        }
        store(norm->op->dtype, norm->dweight, i, left, dweight);
        if (norm->dbias)
            store(norm->op->dtype, norm->dbias, i, left, dbias);
    }
}

void KERNEL(norm_backward)(const struct zinf_norm *op, const void *dy, const void *residual,
                           void *dx, void *dweight, void *dbias)
{
    struct norm norm = {.op = op, .dy = dy, .residual = residual, .y = dx};
    norm.dweight = dweight;
    norm.dbias = dbias;
    norm.run = chunks(op->rows, LARGEST_PARTS);
    if (norm.run < 8)
        norm.run = 8;
    int64_t parts = chunks(op->rows, norm.run);
    norm.partial =
        zinf_cpu_scratch(ZINF_SCRATCH_CALL, sizeof(float) * 2 * (size_t)(parts * op->columns));
    zinf_cpu_for(parts, backward_task, &norm);
    zinf_cpu_for(chunks(op->columns, 64), combine_task, &norm);
}

struct bias {
    const struct zinf_column_sum *op;
    const void *dy;
    void *gradient;
};

enum { BIAS_COLUMNS = 128 }; /* of one task: it reads 512 bytes of each row in fp32 */

INLINE void bias_columns(enum zinf_dtype dtype, const struct bias *bias, int64_t begin, int64_t end)
{
    enum { VECTORS = BIAS_COLUMNS / WIDTH };
    const int64_t rows = bias->op->rows, columns = bias->op->columns;
    vfloat sum[VECTORS] = {0};
    for (int64_t row = 0; row < rows; row++)
        for (int64_t v = 0; v < VECTORS && begin + v * WIDTH < end; v++)
            sum[v] +=
                load(dtype, bias->dy, row * columns + begin + v * WIDTH, end - begin - v * WIDTH);
    for (int64_t v = 0; v < VECTORS && begin + v * WIDTH < end; v++)
        store(dtype, bias->gradient, begin + v * WIDTH, end - begin - v * WIDTH, sum[v]);
}

static void bias_task(void *context, int64_t task)
{
    const struct bias *bias = context;
    int64_t begin = task * BIAS_COLUMNS, end = least(begin + BIAS_COLUMNS, bias->op->columns);
    FOR_DTYPE(bias->op->dtype, bias_columns(constant_dtype, bias, begin, end));
}

void KERNEL(bias_backward)(const struct zinf_column_sum *op, const void *dy, void *dbias)
{
    struct bias bias = {op, dy, dbias};
    zinf_cpu_for(chunks(op->columns, BIAS_COLUMNS), bias_task, &bias);
}
