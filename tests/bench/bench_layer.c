/*
 * Time of one forward and backward pass of GPT-2 124M (or of a config.json) on this rank, by
 * operation: how far the layers are from the rate of their own matrix products. Not part of `make
 * check`:
 *
 *     make tests/bench/bench_layer && tests/bench/bench_layer [batch [sequence [threads [dtype
 * [config.json]]]]]
 *
 * The operations are counted and timed by a table that wraps the backend's. Gradients are written
 * and forgotten: no optimizer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "model/transformer.h"

static const struct zinf_ops *inner;

enum kind {
    MATMUL,
    BIAS,
    NORM,
    ATTENTION,
    ROPE,
    ACTIVATION,
    DROPOUT,
    EMBEDDING,
    LOSS,
    CAST,
    KINDS
};
static const char *const kind_names[KINDS] = {"matmul", "bias sums",  "norm",     "attention",
                                              "rope",   "activation", "residual", "embedding",
                                              "loss",   "cast"};
static double kind_s[KINDS];
static double matmul_flop;

/* Products apart by shape and flags: which one is slower than the others. */
struct shape {
    int64_t m, n, k;
    bool transpose_a, transpose_b, accumulate;
    int64_t calls;
    double s;
};
static struct shape shapes[64];

/* CPU time of all threads: what a neighbour on the machine does shows less. */
static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

#define TIMED(kind, call)                                                                          \
    do {                                                                                           \
        double begin = now();                                                                      \
        inner->call;                                                                               \
        kind_s[kind] += now() - begin;                                                             \
    } while (0)

static struct shape *find_shape(const struct zinf_matmul *op)
{
    struct shape *shape = shapes;
    for (; shape->calls; shape++) {
        ZINF_ASSERT(shape < shapes + sizeof(shapes) / sizeof(*shapes) - 1);
        if (shape->m == op->m && shape->n == op->n && shape->k == op->k &&
            shape->transpose_a == op->transpose_a && shape->transpose_b == op->transpose_b &&
            shape->accumulate == op->accumulate)
            return shape;
    }
    *shape =
        (struct shape){op->m, op->n, op->k, op->transpose_a, op->transpose_b, op->accumulate, 0, 0};
    return shape;
}

static void matmul(const struct zinf_matmul *op)
{
    struct shape *shape = find_shape(op);
    double begin = now();
    inner->matmul(op);
    shape->s += now() - begin;
    shape->calls++;
    kind_s[MATMUL] += now() - begin;
    matmul_flop += 2.0 * (double)op->m * (double)op->n * (double)op->k;
}

static void bias_backward(void *gradient, const void *dy, enum zinf_dtype dtype, int64_t rows,
                          int64_t columns)
{
    TIMED(BIAS, bias_backward(gradient, dy, dtype, rows, columns));
}

static void norm_forward(const struct zinf_norm *op, void *y)
{
    TIMED(NORM, norm_forward(op, y));
}

static void norm_backward(const struct zinf_norm *op, const void *dy, const void *residual,
                          void *dx, void *dweight, void *dbias)
{
    TIMED(NORM, norm_backward(op, dy, residual, dx, dweight, dbias));
}

static void attention_forward(const struct zinf_attention *op, void *y)
{
    TIMED(ATTENTION, attention_forward(op, y));
}

static void attention_backward(const struct zinf_attention *op, const void *dy, void *dqkv)
{
    TIMED(ATTENTION, attention_backward(op, dy, dqkv));
}

static void rope(const struct zinf_rope *op, void *x)
{
    TIMED(ROPE, rope(op, x));
}

static void activation_forward(enum zinf_activation kind, enum zinf_dtype dtype, int64_t count,
                               const void *x, void *y)
{
    TIMED(ACTIVATION, activation_forward(kind, dtype, count, x, y));
}

static void activation_backward(enum zinf_activation kind, enum zinf_dtype dtype, int64_t count,
                                const void *x, const void *dy, void *dx)
{
    TIMED(ACTIVATION, activation_backward(kind, dtype, count, x, dy, dx));
}

static void gated_forward(enum zinf_activation kind, enum zinf_dtype dtype, int64_t rows,
                          int64_t features, const void *gate_up, void *y)
{
    TIMED(ACTIVATION, gated_forward(kind, dtype, rows, features, gate_up, y));
}

static void gated_backward(enum zinf_activation kind, enum zinf_dtype dtype, int64_t rows,
                           int64_t features, const void *gate_up, const void *dy, void *dgate_up)
{
    TIMED(ACTIVATION, gated_backward(kind, dtype, rows, features, gate_up, dy, dgate_up));
}

static void dropout_add(const struct zinf_dropout *dropout, enum zinf_dtype dtype, int64_t batch,
                        int64_t per_sample, const void *x, const void *residual, void *y)
{
    TIMED(DROPOUT, dropout_add(dropout, dtype, batch, per_sample, x, residual, y));
}

static void loss_tile_forward(const struct zinf_loss_tile *op, const void *logits)
{
    TIMED(LOSS, loss_tile_forward(op, logits));
}

static void loss_tile_backward(const struct zinf_loss_tile *op, float scale, void *logits)
{
    TIMED(LOSS, loss_tile_backward(op, scale, logits));
}

static void embedding_backward(enum zinf_dtype dtype, const int32_t *ids, int64_t tokens,
                               int64_t columns, int64_t first_row, int64_t row_count,
                               const void *dx, void *dtile)
{
    TIMED(EMBEDDING,
          embedding_backward(dtype, ids, tokens, columns, first_row, row_count, dx, dtile));
}

static void cast(void *to, enum zinf_dtype to_dtype, const void *from, enum zinf_dtype from_dtype,
                 int64_t count)
{
    TIMED(CAST, cast(to, to_dtype, from, from_dtype, count));
}

static struct zinf_ops timed_ops(void)
{
    struct zinf_ops ops = *inner;
    ops.matmul = matmul;
    ops.bias_backward = bias_backward;
    ops.norm_forward = norm_forward;
    ops.norm_backward = norm_backward;
    ops.attention_forward = attention_forward;
    ops.attention_backward = attention_backward;
    ops.rope = rope;
    ops.activation_forward = activation_forward;
    ops.activation_backward = activation_backward;
    ops.gated_forward = gated_forward;
    ops.gated_backward = gated_backward;
    ops.dropout_add = dropout_add;
    ops.loss_tile_forward = loss_tile_forward;
    ops.loss_tile_backward = loss_tile_backward;
    ops.embedding_backward = embedding_backward;
    ops.cast = cast;
    return ops;
}

/* Everything one pass needs, as a rank would hold it. */
struct bench {
    struct zinf_model *model;
    struct zinf_ops ops;
    struct zinf_pass pass;
    size_t element;
    char **weights; /* by block */
    char **x, **saved, *normed, *dx, *gradient;
    float *dy, *statistics;
    struct zinf_loss loss;
};

/* Aligned as the pools of a run are, and touched. */
static void *memory(size_t bytes)
{
    void *new = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    ZINF_ASSERT(new);
    memset(new, 0, bytes);
    return new;
}

static void open_model(struct bench *bench, const char *path)
{
    static const char gpt2[] = "{\"model_type\": \"gpt2\"}";
    struct zinf_json_options options = {path ? path : "built in", true, ZINF_E_DATA, false};
    struct zinf_error_list errors = {0};
    struct zinf_error error = {0};
    struct zinf_json *config = NULL;
    int status = path ? zinf_json_read(&config, path, &options, &errors)
                      : zinf_json_parse(&config, gpt2, strlen(gpt2), &options, &errors);
    if (!status)
        status = zinf_model_new(&bench->model, config, options.file, &error);
    if (status) {
        zinf_error_log("%s", errors.count ? errors.items[0].text : error.text);
        exit(zinf_exit_code(status));
    }
    zinf_json_free(config);
}

static void fill_weights(struct bench *bench)
{
    const struct zinf_model *model = bench->model;
    bench->weights = zinf_alloc((size_t)model->block_count * sizeof(*bench->weights));
    for (int b = 0; b < model->block_count; b++) {
        const struct zinf_block *block = &model->blocks[b];
        bench->weights[b] = memory((size_t)block->element_count * bench->element);
        for (int i = 0; i < block->piece_count; i++) {
            const struct zinf_piece *piece = &block->pieces[i];
            float *values = memory((size_t)piece->count * sizeof(float));
            zinf_model_init_values(model, piece->param, 42, piece->param_offset, piece->count,
                                   values);
            inner->cast(bench->weights[b] + (size_t)piece->block_offset * bench->element,
                        bench->pass.dtype, values, ZINF_FP32, piece->count);
            free(values);
        }
    }
}

static void allocate(struct bench *bench)
{
    const struct zinf_model *model = bench->model;
    struct zinf_pass *pass = &bench->pass;
    const int64_t tokens = pass->batch * pass->sequence;
    const size_t row_bytes = (size_t)(tokens * model->hidden) * bench->element;
    int32_t *ids = memory((size_t)(tokens + 1) * sizeof(int32_t));
    for (int64_t t = 0; t <= tokens; t++)
        ids[t] = (int32_t)((uint64_t)t * 2654435761u % (uint64_t)model->vocab);
    pass->inputs = ids;
    pass->targets = ids + 1;
    float *table = memory((size_t)(2 * pass->sequence * model->head_size) * sizeof(float));
    if (model->rotary)
        zinf_rope_table(model, pass->sequence, table, table + pass->sequence * model->head_size);
    pass->cosine = table;
    pass->sine = table + pass->sequence * model->head_size;
    pass->scratch = memory(zinf_scratch_bytes(model, pass->dtype, pass->batch, pass->sequence));
    bench->x = zinf_alloc((size_t)(model->layers + 1) * sizeof(*bench->x));
    bench->saved = zinf_alloc((size_t)model->layers * sizeof(*bench->saved));
    for (int64_t i = 0; i <= model->layers; i++)
        bench->x[i] = memory(row_bytes);
    for (int64_t i = 0; i < model->layers; i++)
        bench->saved[i] =
            memory(zinf_layer_saved_bytes(model, pass->dtype, pass->batch, pass->sequence));
    bench->normed = memory(row_bytes);
    bench->dx = memory(row_bytes);
    bench->dy = memory((size_t)(tokens * model->hidden) * sizeof(float));
    bench->statistics = memory((size_t)(2 * tokens) * sizeof(float));
    bench->gradient =
        memory((size_t)model->blocks[model->first_layer_block].element_count * bench->element);
    float *loss = memory((size_t)(3 * tokens) * sizeof(float));
    bench->loss = (struct zinf_loss){loss, loss + tokens, loss + 2 * tokens};
}

static double forward(struct bench *bench)
{
    const struct zinf_model *model = bench->model;
    const struct zinf_pass *pass = &bench->pass;
    for (int b = 0; b < model->first_layer_block; b++)
        zinf_embedding_forward(pass, &model->blocks[b], bench->weights[b], bench->x[0]);
    zinf_embedding_dropout(pass, bench->x[0]);
    for (int layer = 0; layer < model->layers; layer++)
        zinf_layer_forward(pass, layer, bench->weights[model->first_layer_block + layer],
                           bench->x[layer], bench->x[layer + 1], bench->saved[layer]);
    zinf_final_norm_forward(pass, bench->weights[model->final_norm_block], bench->x[model->layers],
                            bench->normed, bench->statistics);
    zinf_loss_begin(pass, &bench->loss);
    for (int b = model->first_head_block; b < model->first_head_block + model->head_block_count;
         b++)
        zinf_head_forward(pass, &model->blocks[b], bench->weights[b], bench->normed, &bench->loss);
    int64_t counted = 0;
    double loss = zinf_loss_end(pass, &bench->loss, &counted);
    return loss / (double)counted;
}

static void backward(struct bench *bench)
{
    const struct zinf_model *model = bench->model;
    const struct zinf_pass *pass = &bench->pass;
    const float scale = 1.0f / (float)(pass->batch * pass->sequence);
    for (int b = model->first_head_block; b < model->first_head_block + model->head_block_count;
         b++) {
        const struct zinf_head_gradients tile = {scale, b == model->first_head_block, bench->dy,
                                                 bench->gradient};
        zinf_head_backward(pass, &model->blocks[b], bench->weights[b], bench->normed, &bench->loss,
                           &tile);
    }
    zinf_head_backward_end(pass, bench->dy, bench->normed);
    const struct zinf_gradients norm = {bench->normed, bench->dx, bench->gradient};
    const struct zinf_gradients in_place = {bench->dx, bench->dx, bench->gradient};
    zinf_final_norm_backward(pass, bench->weights[model->final_norm_block], bench->x[model->layers],
                             bench->statistics, &norm);
    for (int layer = (int)model->layers - 1; layer >= 0; layer--)
        zinf_layer_backward(pass, layer, bench->weights[model->first_layer_block + layer],
                            bench->x[layer], bench->saved[layer], &in_place);
    zinf_embedding_dropout(pass, bench->dx);
    for (int b = 0; b < model->first_layer_block; b++)
        zinf_embedding_backward(pass, &model->blocks[b], bench->dx, bench->gradient);
}

static void print(const struct bench *bench, double loss, double forward_s, double backward_s)
{
    const double total = forward_s + backward_s,
                 tokens = (double)(bench->pass.batch * bench->pass.sequence);
    const double flop = tokens * zinf_model_flop_per_token(bench->model, bench->pass.sequence);
    double rest = total;
    printf("loss %.4f  forward %.3f s  backward %.3f s  %.0f tokens/s  %.1f GFLOP/s of the model, "
           "its products %.1f\n",
           loss, forward_s, backward_s, tokens / total, 1e-9 * flop / total,
           1e-9 * matmul_flop / kind_s[MATMUL]);
    for (int i = 0; i < KINDS; i++) {
        printf("  %-11s %8.2f ms %5.1f %%\n", kind_names[i], 1e3 * kind_s[i],
               100 * kind_s[i] / total);
        rest -= kind_s[i];
    }
    printf("  %-11s %8.2f ms %5.1f %%\n", "rest", 1e3 * rest, 100 * rest / total);
}

static void print_shapes(void)
{
    for (const struct shape *shape = shapes; shape->calls; shape++)
        printf("  m %6lld n %6lld k %6lld %s%s%s %5lld calls %8.1f ms %6.1f GFLOP/s\n",
               (long long)shape->m, (long long)shape->n, (long long)shape->k,
               shape->transpose_a ? "T" : "N", shape->transpose_b ? "T" : "N",
               shape->accumulate ? "+" : " ", (long long)shape->calls, 1e3 * shape->s,
               2e-9 * (double)(shape->calls * shape->m * shape->n) * (double)shape->k / shape->s);
}

int main(int argc, char **argv)
{
    struct bench bench = {0};
    bench.pass.batch = argc > 1 ? atoll(argv[1]) : 2;
    bench.pass.sequence = argc > 2 ? atoll(argv[2]) : 256;
    zinf_cpu_set_threads(argc > 3 ? atoi(argv[3]) : 1);
    if (zinf_dtype_parse(argc > 4 ? argv[4] : "fp32", &bench.pass.dtype))
        return 2;
    open_model(&bench, argc > 5 ? argv[5] : NULL);
    inner = zinf_cpu_ops();
    bench.ops = timed_ops();
    bench.pass.model = bench.model;
    bench.pass.ops = &bench.ops;
    bench.pass.training = true;
    bench.pass.dropout_key = zinf_rng_key(42, "dropout");
    bench.element = zinf_dtype_bytes(bench.pass.dtype);
    fill_weights(&bench);
    allocate(&bench);
    printf("%s, %lld parameters, %s\n", bench.model->family, (long long)bench.model->total_count,
           inner->name);
    for (int round = 0; round < 4; round++) { /* the first one also prepares the products */
        memset(kind_s, 0, sizeof(kind_s));
        memset(shapes, 0, sizeof(shapes));
        matmul_flop = 0;
        double begin = now();
        double loss = forward(&bench);
        double middle = now();
        backward(&bench);
        print(&bench, loss, middle - begin, now() - middle);
    }
    print_shapes();
    return 0;
}
