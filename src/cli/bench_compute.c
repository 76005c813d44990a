/*
 * How fast memory, AdamW and matrix products are on this rank's threads, each beside the limit that
 * it cannot pass. What is compared is measured in turn, because other programs on the machine come
 * and go; the best round of each counts.
 */
#include "cli/bench.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/crc32c.h"
#include "cpu/matmul.h"
#include "cpu/probe.h"
#include "device/ops.h"

enum { COUNT = 16 << 20, WIDTH = 768, TOKENS = 512 };

/* Touched memory of float32 values of about 0.01 .. 1, in which nothing overflows and nothing is
 * denormal. */
static float *filled(int64_t count)
{
    float *memory =
        mmap(NULL, (size_t)count * 4, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ZINF_ASSERT(memory != MAP_FAILED);
    for (int64_t i = 0; i < count; i++)
        memory[i] = 0.01f + 0.001f * (float)(i % 997);
    return memory;
}

static void give_back(float *memory, int64_t count)
{
    munmap(memory, (size_t)count * 4);
}

static void keep_best(double *best_s, double begin_s)
{
    double seconds = zinf_clock_s() - begin_s;
    if (*best_s == 0 || seconds < *best_s)
        *best_s = seconds;
}

static void set_number(struct zinf_json *object, const char *key, double value)
{
    zinf_json_set(object, key, zinf_json_new_number(value));
}

void zinf_bench_memory(const struct zinf_bench *bench, struct zinf_json *result)
{
    float *a = filled(COUNT), *b = filled(COUNT), *c = filled(COUNT);
    double read_s = 0, triad_s = 0, copy_s = 0, checksum_s = 0, sum = 0;
    for (int round = 0; round < bench->rounds; round++) {
        double begin_s = zinf_clock_s();
        sum += (double)zinf_probe_read(a, COUNT);
        keep_best(&read_s, begin_s);
        begin_s = zinf_clock_s();
        zinf_probe_triad(a, b, c, COUNT);
        keep_best(&triad_s, begin_s);
        begin_s = zinf_clock_s();
        zinf_probe_copy(a, b, COUNT);
        keep_best(&copy_s, begin_s);
        begin_s = zinf_clock_s();
        sum += zinf_crc32c(0, a, 4 * (size_t)COUNT);
        keep_best(&checksum_s, begin_s);
    }
    ZINF_ASSERT(sum > 0);
    set_number(result, "read_bytes_per_s", 4.0 * COUNT / read_s);
    set_number(result, "triad_bytes_per_s", 12.0 * COUNT / triad_s);
    set_number(result, "memcpy_bytes_per_s", 4.0 * COUNT / copy_s);
    set_number(result, "checksum_bytes_per_s", 4.0 * COUNT / checksum_s); /* one thread */
    zinf_json_set(result, "threads", zinf_json_new_integer(bench->threads));
    give_back(a, COUNT), give_back(b, COUNT), give_back(c, COUNT);
}

const struct zinf_update zinf_bench_adamw = {.optimizer = ZINF_ADAM,
                                             .learning_rate = 1e-4,
                                             .beta1 = 0.9,
                                             .beta2 = 0.999,
                                             .epsilon = 1e-8,
                                             .weight_decay = 0.01,
                                             .decoupled_decay = true,
                                             .bias_correction = true,
                                             .step = 10,
                                             .gradient_scale = 1};

void zinf_bench_adam(const struct zinf_bench *bench, struct zinf_json *result)
{
    const struct zinf_ops *ops = zinf_cpu_ops();
    float *w = filled(COUNT), *m = filled(COUNT), *v = filled(COUNT), *g = filled(COUNT),
          *low = filled(COUNT / 2);
    const struct zinf_update_op update = {.options = zinf_bench_adamw,
                                          .count = COUNT,
                                          .weights = w,
                                          .state = {m, v},
                                          .gradient = g,
                                          .gradient_dtype = ZINF_FP32};
    struct zinf_update_op update16 = update;
    update16.gradient_dtype = update16.low_dtype = ZINF_BF16;
    update16.low = low;
    memset(g, 0, (size_t)COUNT * 4);
    double adam_s = 0, stream_s = 0, low_s = 0;
    for (int round = 0; round < bench->rounds; round++) {
        double begin_s = zinf_clock_s();
        ops->update(&update);
        keep_best(&adam_s, begin_s);
        begin_s = zinf_clock_s();
        zinf_probe_update(w, m, v, g, COUNT);
        keep_best(&stream_s, begin_s);
        begin_s = zinf_clock_s();
        ops->update(&update16);
        keep_best(&low_s, begin_s);
    }
    zinf_json_set(result, "kernels", zinf_json_new_string(ops->name));
    zinf_json_set(result, "threads", zinf_json_new_integer(bench->threads));
    set_number(result, "parameters_per_s", COUNT / adam_s);
    set_number(result, "bytes_per_s", 28.0 * COUNT / adam_s);
    set_number(result, "stream_parameters_per_s", COUNT / stream_s);
    set_number(result, "of_stream", stream_s / adam_s);
    set_number(result, "bf16_parameters_per_s", COUNT / low_s);
    give_back(w, COUNT), give_back(m, COUNT), give_back(v, COUNT), give_back(g, COUNT);
    give_back(low, COUNT / 2);
}

/* The forward products of a GPT-2 124M layer: (TOKENS, k) . (k, n). */
static const struct {
    const char *name;
    int64_t n, k;
} products[] = {{"qkv", 3 * WIDTH, WIDTH},
                {"projection", WIDTH, WIDTH},
                {"up", 4 * WIDTH, WIDTH},
                {"down", WIDTH, 4 * WIDTH}};

static struct zinf_json *measure_product(const struct zinf_bench *bench, int which,
                                         const struct zinf_matmul *operands)
{
    struct zinf_matmul op = *operands;
    op.m = TOKENS;
    op.n = op.ldb = op.ldc = products[which].n;
    op.k = op.lda = products[which].k;
    double product_s = 0, probe_s = 0, probe_flop = 0;
    for (int round = 0; round < bench->rounds; round++) {
        double begin_s = zinf_clock_s();
        probe_flop = zinf_probe_fma();
        keep_best(&probe_s, begin_s);
        begin_s = zinf_clock_s();
        zinf_cpu_ops()->matmul(&op);
        keep_best(&product_s, begin_s);
    }
    double rate = 2.0 * (double)(op.m * op.n * op.k) / product_s;
    struct zinf_json *object = zinf_json_new(ZINF_JSON_OBJECT);
    zinf_json_set(object, "product", zinf_json_new_string(products[which].name));
    zinf_json_set(object, "dtype", zinf_json_new_string(zinf_dtype_name(op.dtype)));
    set_number(object, "flop_per_s", rate);
    if (probe_flop > 0) {
        set_number(object, "fp32_limit_flop_per_s", probe_flop / probe_s);
        set_number(object, "of_limit", rate / (probe_flop / probe_s));
    }
    return object;
}

void zinf_bench_gemm(const struct zinf_bench *bench, struct zinf_json *result)
{
    static const enum zinf_dtype dtypes[] = {ZINF_FP32, ZINF_BF16};
    const int64_t rows = 4 * WIDTH * TOKENS, count = 4 * WIDTH * WIDTH;
    float *a = filled(rows), *b = filled(count), *c = filled(rows);
    float *a16 = filled(rows / 2), *b16 = filled(count / 2); /* (rows), (count) bf16 */
    const struct zinf_cast cast_a = {ZINF_FP32, ZINF_BF16, rows};
    const struct zinf_cast cast_b = {ZINF_FP32, ZINF_BF16, count};
    zinf_cpu_ops()->cast(&cast_a, a, a16);
    zinf_cpu_ops()->cast(&cast_b, b, b16);
    struct zinf_json *list = zinf_json_new(ZINF_JSON_ARRAY);
    for (int d = 0; d < 2; d++) {
        struct zinf_matmul op = {.c = c, .dtype = dtypes[d], .c_dtype = dtypes[d]};
        op.a = d ? a16 : a;
        op.b = d ? b16 : b;
        for (size_t i = 0; i < sizeof products / sizeof *products; i++)
            zinf_json_append(list, measure_product(bench, (int)i, &op));
    }
    zinf_json_set(result, "library", zinf_json_new_string(zinf_cpu_matmul_name()));
    zinf_json_set(result, "threads", zinf_json_new_integer(bench->threads));
    zinf_json_set(result, "tokens", zinf_json_new_integer(TOKENS));
    zinf_json_set(result, "products", list);
    give_back(a, rows), give_back(b, count), give_back(c, rows);
    give_back(a16, rows / 2), give_back(b16, count / 2);
}
