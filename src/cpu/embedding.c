/*
 * Look-up tables of tokens and positions, forward and backward, for tiles of rows.
 */
#include "cpu/kernels.h"
#include "cpu/vec.h"

enum { ROWS_OF_TASK = 16 };

struct embedding {
    enum zinf_dtype dtype;
    const int32_t *ids;
    int64_t tokens, sequence, columns, first_row, row_count;
    const void *from;
    void *to;
    int32_t *first_token, *next_token; /* of each row of the tile; of each token: the next with the
                                          same id; -1 = none */
};

static struct embedding embedding_of(const struct zinf_embedding *op, const void *from, void *to)
{
    return (struct embedding){.dtype = op->dtype,
                              .ids = op->ids,
                              .tokens = op->batch * op->sequence,
                              .sequence = op->sequence,
                              .columns = op->columns,
                              .first_row = op->first_row,
                              .row_count = op->row_count,
                              .from = from,
                              .to = to};
}

static void lookup_task(void *context, int64_t task)
{
    const struct embedding *op = context;
    int64_t end = least((task + 1) * ROWS_OF_TASK, op->tokens);
    for (int64_t token = task * ROWS_OF_TASK; token < end; token++) {
        int64_t row = op->ids[token] - op->first_row;
        if (row >= 0 && row < op->row_count)
            memcpy(element_out(op->to, op->dtype, token * op->columns),
                   element(op->from, op->dtype, row * op->columns),
                   (size_t)(op->columns * element_bytes(op->dtype)));
    }
}

void KERNEL(embedding_forward)(const struct zinf_embedding *op, const void *tile, void *x)
{
    struct embedding lookup = embedding_of(op, tile, x);
    zinf_cpu_for(chunks(lookup.tokens, ROWS_OF_TASK), lookup_task, &lookup);
}

/** Chain the tokens of each row, first to last: chains are walked in token order whoever owns the
 * row. */
static void chain_tokens(struct embedding *op)
{
    op->first_token =
        zinf_cpu_scratch(ZINF_SCRATCH_CALL, sizeof(int32_t) * (size_t)(op->row_count + op->tokens));
    op->next_token = op->first_token + op->row_count;
    memset(op->first_token, -1, sizeof(int32_t) * (size_t)op->row_count);
    for (int64_t token = op->tokens - 1; token >= 0; token--) {
        int64_t row = op->ids[token] - op->first_row;
        if (row < 0 || row >= op->row_count)
            continue;
        op->next_token[token] = op->first_token[row];
        op->first_token[row] = (int32_t)token;
    }
}

INLINE void gather_row(enum zinf_dtype dtype, const struct embedding *op, int64_t row)
{
    for (int64_t i = 0; i < op->columns; i += WIDTH) {
        int64_t left = op->columns - i;
        vfloat sum = {0};
        for (int64_t token = op->first_token[row]; token >= 0; token = op->next_token[token])
            sum += load(dtype, op->from, token * op->columns + i, left);
        store(dtype, op->to, row * op->columns + i, left, sum);
    }
}

static void gather_task(void *context, int64_t task)
{
    const struct embedding *op = context;
    int64_t end = least((task + 1) * ROWS_OF_TASK, op->row_count);
    for (int64_t row = task * ROWS_OF_TASK; row < end; row++)
        if (op->first_token[row] < 0)
            memset(element_out(op->to, op->dtype, row * op->columns), 0,
                   (size_t)(op->columns * element_bytes(op->dtype)));
        else
            FOR_DTYPE(op->dtype, gather_row(constant_dtype, op, row));
}

void KERNEL(embedding_backward)(const struct zinf_embedding *op, const void *dx, void *dtile)
{
    struct embedding gather = embedding_of(op, dx, dtile);
    chain_tokens(&gather);
    zinf_cpu_for(chunks(op->row_count, ROWS_OF_TASK), gather_task, &gather);
}

INLINE void add_position(enum zinf_dtype dtype, const struct embedding *op, int64_t token)
{
    int64_t row = token % op->sequence - op->first_row;
    if (row < 0 || row >= op->row_count)
        return;
    for (int64_t i = 0; i < op->columns; i += WIDTH) {
        int64_t left = op->columns - i, at = token * op->columns + i;
        store(dtype, op->to, at, left,
              load(dtype, op->to, at, left) + load(dtype, op->from, row * op->columns + i, left));
    }
}

static void add_position_task(void *context, int64_t token)
{
    const struct embedding *op = context;
    FOR_DTYPE(op->dtype, add_position(constant_dtype, op, token));
}

void KERNEL(position_forward)(const struct zinf_embedding *op, const void *tile, void *x)
{
    struct embedding add = embedding_of(op, tile, x);
    zinf_cpu_for(add.tokens, add_position_task, &add);
}

/** Sum over the samples; positions behind the sequence have no gradient. */
INLINE void sum_position(enum zinf_dtype dtype, const struct embedding *op, int64_t row)
{
    int64_t position = op->first_row + row;
    for (int64_t i = 0; i < op->columns; i += WIDTH) {
        int64_t left = op->columns - i;
        vfloat sum = {0};
        for (int64_t token = position; token < op->tokens && position < op->sequence;
             token += op->sequence)
            sum += load(dtype, op->from, token * op->columns + i, left);
        store(dtype, op->to, row * op->columns + i, left, sum);
    }
}

static void sum_position_task(void *context, int64_t row)
{
    const struct embedding *op = context;
    FOR_DTYPE(op->dtype, sum_position(constant_dtype, op, row));
}

void KERNEL(position_backward)(const struct zinf_embedding *op, const void *dx, void *dtile)
{
    struct embedding sum = embedding_of(op, dx, dtile);
    zinf_cpu_for(op->row_count, sum_position_task, &sum);
}
