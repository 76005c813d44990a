/*
 * Causal attention in tiles of 64 queries by 64 keys with an online softmax (FlashAttention-2,
 * arXiv:2307.08691, algorithms 1 and 2, on a CPU).
 *
 * A task owns one key/value head of one sample: it packs that head's keys and values once in fp32,
 * the keys transposed so that scores are plain tile products, and serves all query heads of the
 * group. Working memory per thread is a few times S x head_size, never S x S. Forward, runs of
 * query tiles are independent, so a task may be cut in `parts` without a change of any bit;
 * backward, all query heads of a group add to the gradients of its keys in one order, which one
 * task keeps.
 *
 * Own tile products rather than oneDNN's: at 64 x 64 x 64 the library's call and packing cost as
 * much as the product.
 */
#include "base/status.h"
#include "cpu/kernels.h"
#include "cpu/philox.h"
#include "cpu/product.h"
#include "cpu/vmath.h"

enum { TILE = 64 };

struct attention {
    const struct zinf_attention *op;
    const void *dy;
    void *out;      /* y or dqkv */
    int64_t group;  /* query heads of a key/value head */
    int64_t row;    /* elements of qkv from token to token */
    int64_t padded; /* head_size rounded up to 16 */
    int64_t parts;  /* of the tiles of one head */

    /* one sample's, in a task's own copy */
    int64_t sample, length, tiles;
    int64_t first;                       /* its first token, of all samples' */
    int64_t statistics, head_statistics; /* first of head 0 in log_sum_exp; from head to head */
};

/* Working memory of a task; all fp32. Rows and columns behind the real ones are zero. */
struct work {
    float *keys_transposed, *values_transposed; /* (tiles, head_size, TILE) */
    float *keys, *values;                       /* (tiles * TILE, padded) */
    float *queries, *dout;             /* (tiles * TILE, padded); forward: queries of one tile */
    float *dqueries, *dkeys, *dvalues; /* (tiles * TILE, padded) */
    float *delta;                      /* (tiles * TILE): sum of dout * output of each query */
    float *scores, *dscores;           /* (TILE, TILE) */
    float *sum;                        /* (TILE, padded): output of one tile */
};

static struct attention attention_of(const struct zinf_attention *op)
{
    struct attention a = {.op = op, .group = op->heads / op->kv_heads, .parts = 1};
    a.row = (op->heads + 2 * op->kv_heads) * op->head_size;
    a.padded = (op->head_size + LANES - 1) / LANES * LANES;
    for (int64_t b = 0; op->boundaries && b < op->batch; b++)
        ZINF_ASSERT(op->boundaries[b] <= op->boundaries[b + 1] &&
                    op->boundaries[b + 1] - op->boundaries[b] <= op->sequence);
    ZINF_ASSERT(!op->boundaries ||
                (op->boundaries[0] == 0 && op->boundaries[op->batch] == op->tokens));
    return a;
}

static struct attention of_sample(const struct attention *a, int64_t sample)
{
    const struct zinf_attention *op = a->op;
    struct attention own = *a;
    own.sample = sample;
    if (op->boundaries) {
        own.first = op->boundaries[sample];
        own.length = op->boundaries[sample + 1] - own.first;
        own.statistics = own.first, own.head_statistics = op->tokens;
    } else {
        own.first = sample * op->sequence;
        own.length = op->sequence;
        own.statistics = own.first * op->heads, own.head_statistics = op->sequence;
    }
    own.tiles = chunks(own.length, TILE);
    return own;
}

/** log_sum_exp of the sample's queries in a head. */
static float *log_sum_exp_of(const struct attention *a, int64_t head)
{
    return a->op->log_sum_exp + a->statistics + head * a->head_statistics;
}

/** One head of some tokens, (count, head_size) inside a wider matrix. */
struct rows {
    const void *first; /* element of the first row */
    int64_t stride;    /* elements from row to row */
    int64_t count;
};

/** Rows to dense padded fp32, (count, padded), times `factor`. */
INLINE void pack_rows(enum zinf_dtype dtype, const struct attention *a, float *to,
                      const struct rows *from, float factor)
{
    for (int64_t r = 0; r < from->count; r++)
        for (int64_t i = 0; i < a->padded; i += WIDTH)
            store_whole(ZINF_FP32, to, r * a->padded + i,
                        load(dtype, from->first, r * from->stride + i, a->op->head_size - i) *
                            factor);
}

static void pack(const struct attention *a, float *to, const struct rows from, float factor)
{
    FOR_DTYPE(a->op->dtype, pack_rows(constant_dtype, a, to, &from, factor));
}

/** Packed rows (rows, padded) to tiles of (head_size, TILE). */
static void transpose(const struct attention *a, float *to, const float *from, int64_t rows)
{
    int64_t size = a->op->head_size;
    for (int64_t tile = 0; tile < a->tiles; tile++)
        for (int64_t key = 0; key < TILE; key++)
            for (int64_t i = 0; i < size; i++) {
                int64_t row = tile * TILE + key;
                to[(tile * size + i) * TILE + key] = row < rows ? from[row * a->padded + i] : 0.0f;
            }
}

/** First element of head `head` (of all query, key, value heads in this order) of the sample's
 * first token. */
static const void *head_of(const struct attention *a, int64_t head)
{
    int64_t at = a->first * a->row + head * a->op->head_size;
    return element(a->op->qkv, a->op->dtype, at);
}

static float *take(float **memory, int64_t count)
{
    float *taken = *memory;
    *memory += (count + LANES - 1) / LANES * LANES;
    return taken;
}

/** scores (rows, TILE) = queries . keys of a tile, -inf where the key comes after the query. */
static void tile_scores(const struct attention *a, const struct work *work, const float *queries,
                        int64_t query_tile, int64_t key_tile)
{
    int64_t size = a->op->head_size;
    int64_t rows = least(TILE, a->length - query_tile * TILE);
    struct product scores = {.c = work->scores, .c_row = TILE, .m = rows, .n = TILE, .k = size};
    scores.a = queries, scores.a_row = a->padded, scores.a_column = 1;
    scores.b = work->keys_transposed + key_tile * size * TILE, scores.b_row = TILE;
    product(&scores);
    if (key_tile == query_tile)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t key = r + 1; key < TILE; key++)
                work->scores[r * TILE + key] = -INFINITY;
}

static struct dropout_row dropout_of(const struct attention *a)
{
    return dropout_row(&a->op->dropout, a->sample);
}

/** Multipliers of the probabilities of one query and one tile of keys; NULL without dropout. */
static const float *factors_of(const struct attention *a, const struct dropout_row *dropout,
                               int64_t head, int64_t query, int64_t key_tile, float *room)
{
    if (!(a->op->dropout.p > 0.0f))
        return NULL;
    int64_t first = (head * a->length + query) * a->length + key_tile * TILE;
    return dropout_factors(dropout, first, TILE, room);
}

enum { FACTOR_ROOM = TILE + 8 * WIDTH };

/** Scores of one query become probabilities not yet divided by their sum. @return their sum */
INLINE float exponentials(float *scores, const float *factors, float maximum)
{
    struct lanes sum = {0};
    for (int64_t i = 0; i < TILE; i += LANES)
        for (int p = 0; p < PARTS; p++) {
            int64_t at = i + p * WIDTH;
            vfloat e = vexp(load_whole(ZINF_FP32, scores, at) - maximum);
            sum.part[p] += e;
            if (factors)
                e *= load_whole(ZINF_FP32, factors, at);
            store_whole(ZINF_FP32, scores, at, e);
        }
    return lanes_sum(&sum);
}

INLINE float largest(const float *scores)
{
    struct lanes maximum;
    for (int p = 0; p < PARTS; p++)
        maximum.part[p] = load_whole(ZINF_FP32, scores, p * WIDTH);
    for (int64_t i = LANES; i < TILE; i += LANES)
        for (int p = 0; p < PARTS; p++)
            maximum.part[p] = vmax(maximum.part[p], load_whole(ZINF_FP32, scores, i + p * WIDTH));
    return lanes_max(&maximum);
}

/* Running softmax of the queries of a tile. */
struct running {
    float maximum[TILE], sum[TILE];
};

/**
 * One step of the online softmax for one query. With m the largest score so far, l = sum e^(score -
 * m) and o = sum e^(score - m) value: when a tile has a larger score m', l and o are multiplied by
 * e^(m - m') before its part is added. o / l is the same as if all scores had been there at once.
 */
static void softmax_row(const struct attention *a, const struct work *work, struct running *running,
                        int64_t r, const float *factors)
{
    float *scores = work->scores + r * TILE;
    float before = running->maximum[r], tile = largest(scores);
    float now = tile <= before ? before : tile;
    float kept = before == -INFINITY ? 0.0f : expf(before - now);
    running->maximum[r] = now;
    running->sum[r] = running->sum[r] * kept + exponentials(scores, factors, now);
    if (kept != 1.0f)
        for (int64_t i = 0; i < a->padded; i += WIDTH)
            store_whole(ZINF_FP32, work->sum, r * a->padded + i,
                        load_whole(ZINF_FP32, work->sum, r * a->padded + i) * kept);
}

/** output = o / l; m + ln l for the backward pass, which makes each probability from it alone. */
static void finish_tile(const struct attention *a, const struct work *work,
                        const struct running *running, int64_t head, int64_t tile)
{
    const struct zinf_attention *op = a->op;
    int64_t rows = least(TILE, a->length - tile * TILE);
    for (int64_t r = 0; r < rows; r++) {
        int64_t query = tile * TILE + r, size = op->head_size;
        int64_t at = ((a->first + query) * op->heads + head) * size;
        float per_sum = 1.0f / running->sum[r];
        for (int64_t i = 0; i < size; i += WIDTH)
            store(op->dtype, a->out, at + i, size - i,
                  load_whole(ZINF_FP32, work->sum, r * a->padded + i) * per_sum);
        log_sum_exp_of(a, head)[query] = running->maximum[r] + logf(running->sum[r]);
    }
}

static void forward_tile(const struct attention *a, const struct work *work, int64_t head,
                         int64_t tile)
{
    const struct zinf_attention *op = a->op;
    struct running running;
    struct dropout_row dropout = dropout_of(a);
    int64_t rows = least(TILE, a->length - tile * TILE);
    const void *from = element(head_of(a, head), op->dtype, tile * TILE * a->row);
    pack(a, work->queries, (struct rows){from, a->row, rows}, (float)op->scale);
    memset(work->sum, 0, sizeof(float) * (size_t)(TILE * a->padded));
    for (int64_t r = 0; r < TILE; r++)
        running.maximum[r] = -INFINITY, running.sum[r] = 0.0f;
    for (int64_t key_tile = 0; key_tile <= tile; key_tile++) {
        tile_scores(a, work, work->queries, tile, key_tile);
        for (int64_t r = 0; r < rows; r++) {
            float room[FACTOR_ROOM];
            softmax_row(a, work, &running, r,
                        factors_of(a, &dropout, head, tile * TILE + r, key_tile, room));
        }
        struct product sum = {.c = work->sum, .c_row = a->padded, .m = rows, .n = a->padded};
        sum.a = work->scores, sum.a_row = TILE, sum.a_column = 1;
        sum.b = work->values + key_tile * TILE * a->padded, sum.b_row = a->padded;
        sum.k = least(TILE, a->length - key_tile * TILE);
        sum.add = true;
        product(&sum);
    }
    finish_tile(a, work, &running, head, tile);
}

static void forward_task(void *context, int64_t task)
{
    const struct attention *all = context;
    const struct zinf_attention *op = all->op;
    int64_t part = all->parts - 1 - task % all->parts; /* the longest first */
    int64_t kv_head = task / all->parts % op->kv_heads;
    const struct attention own = of_sample(all, task / all->parts / op->kv_heads), *a = &own;
    int64_t begin = a->tiles * part / a->parts, end = a->tiles * (part + 1) / a->parts;
    if (begin == end)
        return; /* a sample shorter than the longest */
    int64_t rows = least(end * TILE, a->length), packed = a->tiles * TILE * a->padded;
    int64_t count = 3 * packed + 2 * TILE * a->padded + TILE * TILE;
    float *memory = zinf_cpu_scratch(ZINF_SCRATCH_TASK, sizeof(float) * (size_t)count);
    struct work work = {.keys = take(&memory, packed), .values = take(&memory, packed)};
    work.keys_transposed = take(&memory, packed);
    work.queries = take(&memory, TILE * a->padded);
    work.sum = take(&memory, TILE * a->padded);
    work.scores = take(&memory, TILE * TILE);
    const struct rows keys = {head_of(a, op->heads + kv_head), a->row, rows};
    pack(a, work.keys, keys, 1.0f);
    const struct rows values = {head_of(a, op->heads + op->kv_heads + kv_head), a->row, rows};
    pack(a, work.values, values, 1.0f);
    transpose(a, work.keys_transposed, work.keys, rows);
    for (int64_t head = kv_head * a->group; head < (kv_head + 1) * a->group; head++)
        for (int64_t tile = begin; tile < end; tile++)
            forward_tile(a, &work, head, tile);
}

void KERNEL(attention_forward)(const struct zinf_attention *op, void *y)
{
    struct attention a = attention_of(op);
    a.out = y;
    int64_t heads = op->batch * op->kv_heads;
    a.parts = least(chunks(2 * zinf_cpu_threads(), heads),
                    chunks(op->sequence, TILE)); /* does not change a bit */
    zinf_cpu_for_uneven(heads * a.parts, forward_task, &a);
}

/** delta of each query: sum over the head of dout * output, which equals the sum of probability *
 * its gradient. */
static void compute_delta(const struct attention *a, const struct work *work, int64_t head)
{
    const struct zinf_attention *op = a->op;
    int64_t size = op->head_size;
    for (int64_t query = 0; query < a->length; query++) {
        int64_t at = ((a->first + query) * op->heads + head) * size;
        struct lanes sum = {0};
        for (int64_t i = 0; i < size; i += LANES)
            for (int p = 0; p < PARTS; p++) {
                int64_t j = i + p * WIDTH;
                sum.part[p] += load(op->dtype, op->output, at + j, size - j) *
                               load_whole(ZINF_FP32, work->dout, query * a->padded + j);
            }
        work->delta[query] = lanes_sum(&sum);
    }
}

/**
 * One query and one tile of keys: with p = e^(score - log-sum-exp), f its dropout factor and dp
 * from dout . values: scores become p f, dscores p (dp f - delta). This is softmax's gradient,
 * dscore_j = p_j (g_j - sum_k p_k g_k) with g = dp f; the sum over all keys is delta.
 */
INLINE void probability_gradient(float *scores, float *dscores, const float *factors,
                                 float log_sum_exp, float delta)
{
    for (int64_t i = 0; i < TILE; i += WIDTH) {
        vfloat p = vexp(load_whole(ZINF_FP32, scores, i) - log_sum_exp);
        vfloat dp = load_whole(ZINF_FP32, dscores, i), dropped = p;
        if (factors) {
            vfloat f = load_whole(ZINF_FP32, factors, i);
            dropped = p * f;
            dp *= f;
        }
        store_whole(ZINF_FP32, scores, i, dropped);
        store_whole(ZINF_FP32, dscores, i, p * (dp - delta));
    }
}

/** The three products that end in gradients, for one pair of tiles. */
static void add_gradients(const struct attention *a, const struct work *work, int64_t query_tile,
                          int64_t key_tile)
{
    int64_t queries = least(TILE, a->length - query_tile * TILE);
    int64_t keys = least(TILE, a->length - key_tile * TILE);
    int64_t at_query = query_tile * TILE * a->padded, at_key = key_tile * TILE * a->padded;
    struct product op = {.c_row = a->padded, .b_row = a->padded, .n = a->padded, .add = true};
    op.m = keys, op.k = queries, op.a_row = 1, op.a_column = TILE; /* transposed */
    op.c = work->dvalues + at_key, op.a = work->scores, op.b = work->dout + at_query;
    product(&op);
    op.c = work->dkeys + at_key, op.a = work->dscores, op.b = work->queries + at_query;
    product(&op);
    op.m = queries, op.k = keys, op.a_row = TILE, op.a_column = 1;
    op.c = work->dqueries + at_query, op.b = work->keys + at_key;
    product(&op);
}

static void backward_tile(const struct attention *a, const struct work *work, int64_t head,
                          int64_t query_tile, int64_t key_tile)
{
    const struct zinf_attention *op = a->op;
    struct dropout_row dropout = dropout_of(a);
    int64_t rows = least(TILE, a->length - query_tile * TILE), size = op->head_size;
    int64_t at_query = query_tile * TILE * a->padded;
    tile_scores(a, work, work->queries + at_query, query_tile, key_tile);
    struct product dscores = {.c = work->dscores, .c_row = TILE, .m = rows, .n = TILE, .k = size};
    dscores.a = work->dout + at_query, dscores.a_row = a->padded, dscores.a_column = 1;
    dscores.b = work->values_transposed + key_tile * size * TILE, dscores.b_row = TILE;
    product(&dscores);
    const float *log_sum_exp = log_sum_exp_of(a, head);
    for (int64_t r = 0; r < rows; r++) {
        float room[FACTOR_ROOM];
        int64_t query = query_tile * TILE + r;
        const float *factors = factors_of(a, &dropout, head, query, key_tile, room);
        probability_gradient(work->scores + r * TILE, work->dscores + r * TILE, factors,
                             log_sum_exp[query], work->delta[query]);
    }
    add_gradients(a, work, query_tile, key_tile);
}

/** Gradient rows of one head, times `factor`, to their place in dqkv. */
static void unpack(const struct attention *a, const float *from, int64_t head, float factor)
{
    const struct zinf_attention *op = a->op;
    int64_t size = op->head_size, first = a->first * a->row + head * size;
    for (int64_t r = 0; r < a->length; r++)
        for (int64_t i = 0; i < size; i += WIDTH)
            store(op->dtype, a->out, first + r * a->row + i, size - i,
                  load_whole(ZINF_FP32, from, r * a->padded + i) * factor);
}

static void backward_head(const struct attention *a, const struct work *work, int64_t head)
{
    const struct zinf_attention *op = a->op;
    int64_t out_row = op->heads * op->head_size;
    const void *dy = element(a->dy, op->dtype, a->first * out_row + head * op->head_size);
    const struct rows queries = {head_of(a, head), a->row, a->length};
    pack(a, work->queries, queries, (float)op->scale);
    pack(a, work->dout, (struct rows){dy, out_row, a->length}, 1.0f);
    compute_delta(a, work, head);
    memset(work->dqueries, 0, sizeof(float) * (size_t)(a->tiles * TILE * a->padded));
    for (int64_t key_tile = 0; key_tile < a->tiles; key_tile++)
        for (int64_t query_tile = key_tile; query_tile < a->tiles; query_tile++)
            backward_tile(a, work, head, query_tile, key_tile);
    unpack(a, work->dqueries, head, (float)op->scale);
}

static struct work backward_work(const struct attention *a)
{
    int64_t packed = a->tiles * TILE * a->padded, rows = a->tiles * TILE;
    int64_t count = 9 * packed + rows + 2 * TILE * TILE;
    float *memory = zinf_cpu_scratch(ZINF_SCRATCH_TASK, sizeof(float) * (size_t)count);
    struct work work = {.keys = take(&memory, packed), .values = take(&memory, packed)};
    work.keys_transposed = take(&memory, packed);
    work.values_transposed = take(&memory, packed);
    work.queries = take(&memory, packed);
    work.dout = take(&memory, packed);
    work.dqueries = take(&memory, packed);
    work.dkeys = take(&memory, packed);
    work.dvalues = take(&memory, packed);
    work.delta = take(&memory, rows);
    work.scores = take(&memory, TILE * TILE);
    work.dscores = take(&memory, TILE * TILE);
    return work;
}

static void backward_task(void *context, int64_t task)
{
    const struct attention *all = context;
    const struct zinf_attention *op = all->op;
    const struct attention own = of_sample(all, task / op->kv_heads), *a = &own;
    int64_t kv_head = task % op->kv_heads;
    int64_t key_head = op->heads + kv_head, value_head = key_head + op->kv_heads;
    size_t bytes = sizeof(float) * (size_t)(a->tiles * TILE * a->padded);
    struct work work = backward_work(a);
    const struct rows keys = {head_of(a, key_head), a->row, a->length};
    const struct rows values = {head_of(a, value_head), a->row, a->length};
    pack(a, work.keys, keys, 1.0f);
    pack(a, work.values, values, 1.0f);
    transpose(a, work.keys_transposed, work.keys, a->length);
    transpose(a, work.values_transposed, work.values, a->length);
    memset(work.dkeys, 0, bytes);
    memset(work.dvalues, 0, bytes);
    for (int64_t head = kv_head * a->group; head < (kv_head + 1) * a->group; head++)
        backward_head(a, &work, head);
    unpack(a, work.dkeys, key_head, 1.0f);
    unpack(a, work.dvalues, value_head, 1.0f);
}

void KERNEL(attention_backward)(const struct zinf_attention *op, const void *dy, void *dqkv)
{
    struct attention a = attention_of(op);
    a.dy = dy;
    a.out = dqkv;
    zinf_cpu_for_uneven(op->batch * op->kv_heads, backward_task, &a);
}
