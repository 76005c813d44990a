/*
 * How fast the CPU backend is, next to the machine's limits measured in the same run: matrix
 * products beside a multiply-add probe, and each operation of a GPT-2 124M layer beside the layer's
 * matrix products. `zinf bench adam` has the update.
 *
 *   make tests/bench/bench_ops && tests/bench/bench_ops [B S [dtype]]        ZINF_ISA narrows the
 * instruction set
 *
 * Every figure is the best of several rounds, and what is compared is measured in turn: on a shared
 * machine only ratios count.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/status.h"
#include "cpu/matmul.h"
#include "cpu/probe.h"
#include "cpu/threads.h"
#include "device/ops.h"

enum { ROUNDS = 7, WIDTH = 768, HEADS = 12, VOCABULARY_TILE = 9216 };

static const struct zinf_ops *ops;
static enum zinf_dtype dtype;

/** One thread: the time it had a core, so that other programs do not count; more: wall time. */
static double now(void)
{
    struct timespec time;
    clock_gettime(zinf_cpu_threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/** Memory with small values of any type: bf16 and fp32 patterns of about 0.01 .. 1. */
static void *filled(int64_t bytes)
{
    uint16_t *memory = aligned_alloc(64, (size_t)(bytes + 63) / 64 * 64 + 64);
    for (int64_t i = 0; i < bytes / 2; i++)
        memory[i] = (uint16_t)(0x3c00 + rand() % 0x380);
    return memory;
}

static double fma_peak(void)
{
    double start = now(), flop = 0;
    for (int i = 0; i < 4; i++)
        flop += zinf_probe_fma();
    return flop / (now() - start) / 1e9;
}

/* The products of a layer and of a tile of the head: forward, gradient of x, gradient of the
 * weights. */
static const struct {
    const char *name;
    int64_t n, k; /* forward: (T, k) . (k, n) */
} products[] = {
    {"qkv", 3 * WIDTH, WIDTH},  {"projection", WIDTH, WIDTH},          {"up", 4 * WIDTH, WIDTH},
    {"down", WIDTH, 4 * WIDTH}, {"head tile", VOCABULARY_TILE, WIDTH},
};

enum { PRODUCTS = sizeof products / sizeof *products, LAYER_PRODUCTS = 4 };

static struct zinf_matmul product(int which, int pass, int64_t tokens)
{
    int64_t n = products[which].n, k = products[which].k;
    struct zinf_matmul forward = {.m = tokens, .n = n, .k = k, .lda = k, .ldb = n};
    struct zinf_matmul gradient = {
        .m = tokens, .n = k, .k = n, .lda = n, .ldb = n, .transpose_b = true};
    struct zinf_matmul weights = {
        .m = k, .n = n, .k = tokens, .lda = k, .ldb = n, .transpose_a = true};
    struct zinf_matmul op = pass == 0 ? forward : pass == 1 ? gradient : weights;
    op.dtype = op.c_dtype = dtype;
    op.ldc = op.n;
    return op;
}

static double bench_matmul(int64_t tokens)
{
    static const char *const passes[] = {"y", "dx", "dw"};
    void *a = filled(4 * 4 * WIDTH * 4 * WIDTH + 4 * tokens * VOCABULARY_TILE);
    void *b = filled(4 * VOCABULARY_TILE * (4 * WIDTH + tokens));
    void *c = filled(4 * VOCABULARY_TILE * (4 * WIDTH + tokens));
    double layer = 0;
    printf("%-12s %-3s %6s %6s %6s %9s %9s %7s\n", "product", "", "m", "n", "k", "GF/s",
           "peak GF/s", "ratio");
    for (int which = 0; which < PRODUCTS; which++)
        for (int pass = 0; pass < 3; pass++) {
            struct zinf_matmul op = product(which, pass, tokens);
            op.a = a, op.b = b, op.c = c;
            double best = 1e30, peak = 0;
            for (int round = 0; round < ROUNDS; round++) {
                double probe = fma_peak();
                peak = probe > peak ? probe : peak;
                double start = now();
                ops->matmul(&op);
                double took = now() - start;
                best = took < best ? took : best;
            }
            double rate = 2.0 * (double)(op.m * op.n * op.k) / best / 1e9;
            printf("%-12s %-3s %6ld %6ld %6ld %9.1f %9.1f %7.2f\n", products[which].name,
                   passes[pass], (long)op.m, (long)op.n, (long)op.k, rate, peak, rate / peak);
            layer += which < LAYER_PRODUCTS ? best : 0;
        }
    free(a), free(b), free(c);
    return layer;
}

/* Buffers of one layer, larger than any operation needs. */
struct layer {
    int64_t batch, sequence, tokens;
    void *x, *y, *dy, *dx, *weight, *wide, *wide2, *wide3;
    float *mean, *rstd, *log_sum_exp;
    struct zinf_norm norm;
    struct zinf_attention attention;
    struct zinf_activate gelu;
    struct zinf_dropout_add dropout;
};

static void norm_forward(struct layer *l)
{
    ops->norm_forward(&l->norm, l->y);
}

static void norm_backward(struct layer *l)
{
    ops->norm_backward(&l->norm, l->dy, l->y, l->dx, l->wide, l->wide2);
}

static void attention_forward(struct layer *l)
{
    ops->attention_forward(&l->attention, l->y);
}

static void attention_backward(struct layer *l)
{
    ops->attention_backward(&l->attention, l->dy, l->wide2);
}

static void gelu_forward(struct layer *l)
{
    ops->activation_forward(&l->gelu, l->wide2);
}

static void gelu_backward(struct layer *l)
{
    ops->activation_backward(&l->gelu, l->wide3, l->wide2);
}

static void residual(struct layer *l)
{
    l->dropout.dropout.p = 0.0f;
    ops->dropout_add(&l->dropout, l->x, l->y, l->dx);
}

static void dropout(struct layer *l)
{
    l->dropout.dropout.p = 0.1f;
    ops->dropout_add(&l->dropout, l->x, l->y, l->dx);
}

static void bias_backward(struct layer *l)
{
    const struct zinf_column_sum bias = {dtype, l->tokens, 4 * WIDTH};
    ops->bias_backward(&bias, l->wide, l->y);
}

/* How often a layer's forward and backward pass call each; 0: shown, not counted. */
static const struct {
    const char *name;
    void (*run)(struct layer *l);
    double times;
} steps[] = {
    {"norm forward", norm_forward, 2},
    {"norm backward", norm_backward, 2},
    {"attention forward", attention_forward, 1},
    {"attention backward", attention_backward, 1},
    {"gelu forward", gelu_forward, 1},
    {"gelu backward", gelu_backward, 1},
    {"residual", residual, 2},
    {"bias gradient (4C)", bias_backward, 2.25},
    {"dropout + residual", dropout, 0},
};

static struct layer layer_new(int64_t batch, int64_t sequence)
{
    struct layer l = {.batch = batch, .sequence = sequence, .tokens = batch * sequence};
    void **memory[] = {&l.x, &l.y, &l.dy, &l.dx, &l.weight, &l.wide, &l.wide2, &l.wide3};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        *memory[i] = filled(4 * (l.tokens + 4) * 4 * WIDTH);
    l.mean = filled(4 * l.tokens), l.rstd = filled(4 * l.tokens),
    l.log_sum_exp = filled(4 * l.tokens * HEADS);
    l.norm =
        (struct zinf_norm){dtype, l.tokens, WIDTH, 1e-5, l.x, l.weight, l.weight, l.mean, l.rstd};
    l.attention = (struct zinf_attention){
        .dtype = dtype, .batch = batch, .sequence = sequence, .heads = HEADS};
    l.attention.kv_heads = HEADS, l.attention.head_size = WIDTH / HEADS, l.attention.scale = 0.125;
    l.attention.qkv = l.wide, l.attention.log_sum_exp = l.log_sum_exp, l.attention.output = l.y;
    l.gelu = (struct zinf_activate){ZINF_GELU_TANH, dtype, l.tokens, 4 * WIDTH, l.wide};
    l.dropout = (struct zinf_dropout_add){dtype, batch, sequence * WIDTH, {.p = 0}};
    l.dropout.dropout.key = zinf_rng_key(1, "bench");
    return l;
}

static void bench_layer(int64_t batch, int64_t sequence, double products_s)
{
    struct layer l = layer_new(batch, sequence);
    double total = 0;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        double best = 1e30;
        for (int round = 0; round < ROUNDS; round++) {
            double start = now();
            steps[i].run(&l);
            double took = now() - start;
            best = took < best ? took : best;
        }
        printf("%-20s %8.3f ms x %.2f = %5.2f %% of the layer's products\n", steps[i].name,
               best * 1e3, steps[i].times, 100 * best * steps[i].times / products_s);
        total += best * steps[i].times;
    }
    printf("all of them %.3f ms, products %.3f ms: %.1f %%\n", total * 1e3, products_s * 1e3,
           100 * total / products_s);
}

int main(int argc, char **argv)
{
    int64_t batch = argc > 2 ? atoi(argv[1]) : 2, sequence = argc > 2 ? atoi(argv[2]) : 256;
    if (argc > 3 && zinf_dtype_parse(argv[3], &dtype) != 0)
        return 2;
    ops = zinf_cpu_ops();
    printf("%s, %s, %s, B %ld, S %ld\n", ops->name, zinf_cpu_matmul_name(), zinf_dtype_name(dtype),
           (long)batch, (long)sequence);
    for (int threads = 1; threads <= 2; threads++) {
        zinf_cpu_set_threads(threads);
        printf("\n%d thread%s\n", threads, threads > 1 ? "s" : "");
        double products_s = bench_matmul(batch * sequence);
        bench_layer(batch, sequence, products_s);
    }
    return 0;
}
