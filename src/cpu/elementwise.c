/*
 * Conversions, sums and scans of flat arrays. Bound by memory: one pass, chunks of fixed length.
 */
#include "cpu/kernels.h"
#include "cpu/vec.h"

struct flat {
    void *to;
    const void *from;
    enum zinf_dtype to_dtype, from_dtype;
    int64_t count;
    int ranks;
    float scale;
    bool first;
};

INLINE void add_chunk(enum zinf_dtype to_dtype, enum zinf_dtype from_dtype, const struct flat *op,
                      int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i += WIDTH) {
        vfloat x = load(from_dtype, op->from, i, end - i);
        if (!op->first)
            x += load(to_dtype, op->to, i, end - i);
        store(to_dtype, op->to, i, end - i, x);
    }
}

/** The type of `from` as a constant too: nine copies, all of them in use. */
INLINE void add_chunk_from(enum zinf_dtype to_dtype, const struct flat *op, int64_t begin,
                           int64_t end)
{
    FOR_DTYPE(op->from_dtype, add_chunk(to_dtype, constant_dtype, op, begin, end));
}

static void add_task(void *context, int64_t task)
{
    const struct flat *op = context;
    int64_t begin = task * CHUNK, end = least(begin + CHUNK, op->count);
    FOR_DTYPE(op->to_dtype, add_chunk_from(constant_dtype, op, begin, end));
}

void KERNEL(accumulate)(const struct zinf_accumulate *op, const void *from, void *to)
{
    struct flat add = {to, from, op->to_dtype, op->from_dtype, op->count, .first = op->first};
    zinf_cpu_for(chunks(op->count, CHUNK), add_task, &add);
}

void KERNEL(cast)(const struct zinf_cast *op, const void *from, void *to)
{
    const struct zinf_accumulate first = {op->from_dtype, op->to_dtype, op->count, true};
    KERNEL(accumulate)(&first, from, to);
}

INLINE void reduce_chunk(enum zinf_dtype dtype, const struct flat *op, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i += WIDTH) {
        int64_t left = end - i;
        vfloat sum = load(dtype, op->from, i, left);
        for (int rank = 1; rank < op->ranks; rank++)
            sum += load(dtype, op->from, rank * op->count + i, left);
        sum = rounded(op->to_dtype, sum * op->scale);
        if (!op->first)
            sum += load(op->to_dtype, op->to, i, left);
        store(op->to_dtype, op->to, i, left, sum);
    }
}

static void reduce_task(void *context, int64_t task)
{
    const struct flat *op = context;
    int64_t begin = task * CHUNK, end = least(begin + CHUNK, op->count);
    FOR_DTYPE(op->from_dtype, reduce_chunk(constant_dtype, op, begin, end));
}

void KERNEL(reduce)(const struct zinf_reduce *op, const void *parts, void *to)
{
    struct flat sum = {to,        parts,     op->to_dtype, op->from_dtype,
                       op->count, op->ranks, op->scale,    op->first};
    zinf_cpu_for(chunks(op->count, CHUNK), reduce_task, &sum);
}

INLINE void scale_chunk(enum zinf_dtype dtype, const struct flat *op, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i += WIDTH)
        store(dtype, op->to, i, end - i, load(dtype, op->to, i, end - i) * op->scale);
}

static void scale_task(void *context, int64_t task)
{
    const struct flat *op = context;
    int64_t begin = task * CHUNK, end = least(begin + CHUNK, op->count);
    FOR_DTYPE(op->to_dtype, scale_chunk(constant_dtype, op, begin, end));
}

void KERNEL(scale)(const struct zinf_scale *op, void *x)
{
    struct flat product = {.to = x, .to_dtype = op->dtype, .count = op->count, .scale = op->factor};
    zinf_cpu_for(chunks(op->count, CHUNK), scale_task, &product);
}

struct scan {
    const void *x;
    enum zinf_dtype dtype;
    int64_t count;
    double *sums;  /* one of each chunk */
    int64_t found; /* lowest index so far */
};

INLINE double square_chunk(enum zinf_dtype dtype, const void *x, int64_t begin, int64_t end)
{
    vdouble part[PARTS] = {0};
    for (int64_t i = begin; i < end; i += LANES)
        for (int p = 0; p < PARTS; p++) {
            int64_t at = i + p * WIDTH;
            vdouble wide = __builtin_convertvector(load(dtype, x, at, end - at), vdouble);
            part[p] += wide * wide;
        }
    double sum = 0;
    for (int p = 0; p < PARTS; p++)
        for (int lane = 0; lane < WIDTH; lane++)
            sum += part[p][lane];
    return sum;
}

static void square_task(void *context, int64_t task)
{
    struct scan *op = context;
    int64_t begin = task * CHUNK, end = least(begin + CHUNK, op->count);
    FOR_DTYPE(op->dtype, op->sums[task] = square_chunk(constant_dtype, op->x, begin, end));
}

double KERNEL(square_sum)(const struct zinf_scan *op, const void *x)
{
    struct scan scan = {.x = x, .dtype = op->dtype, .count = op->count};
    int64_t tasks = chunks(op->count, CHUNK);
    scan.sums = zinf_cpu_scratch(ZINF_SCRATCH_CALL, sizeof(double) * (size_t)(tasks + 1));
    zinf_cpu_for(tasks, square_task, &scan);
    double sum = 0;
    for (int64_t task = 0; task < tasks; task++)
        sum += scan.sums[task];
    return sum;
}

/** First element whose difference from itself is not 0 (infinity or NaN), or `end`. */
INLINE int64_t nonfinite_chunk(enum zinf_dtype dtype, const void *x, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i += WIDTH) {
        vfloat v = load(dtype, x, i, end - i);
        vint bad = (v - v) != 0.0f;
        int32_t any = 0;
        for (int lane = 0; lane < WIDTH; lane++)
            any |= bad[lane];
        if (__builtin_expect(any, 0))
            for (int lane = 0; lane < WIDTH; lane++)
                if (bad[lane])
                    return i + lane;
    }
    return end;
}

static void nonfinite_task(void *context, int64_t task)
{
    struct scan *op = context;
    int64_t begin = task * CHUNK, end = least(begin + CHUNK, op->count), at = end;
    int64_t found = __atomic_load_n(&op->found, __ATOMIC_RELAXED);
    if (found < begin)
        return;
    FOR_DTYPE(op->dtype, at = nonfinite_chunk(constant_dtype, op->x, begin, end));
    while (at < end && at < found &&
           !__atomic_compare_exchange_n(&op->found, &found, at, true, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED)) {
    }
}

int64_t KERNEL(first_nonfinite)(const struct zinf_scan *op, const void *x)
{
    struct scan scan = {.x = x, .dtype = op->dtype, .count = op->count, .found = INT64_MAX};
    zinf_cpu_for(chunks(op->count, CHUNK), nonfinite_task, &scan);
    return scan.found == INT64_MAX ? -1 : scan.found;
}
