/*
 * Probes of the machine. See probe.h. Vectors are as wide as the widest there are: narrow ones
 * would be a slower stream than the memory allows.
 */
#include "cpu/probe.h"

#include <string.h>

#include "cpu/threads.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define WIDEST __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDEST
#endif

enum { FMA_STEPS = 1000000, CHUNK = 16384, LANES = 16, MOST_CHUNKS = 1 << 16 };

static volatile float sink;

#if defined(__x86_64__)
/* 14 sums in flight cover the latency of two units and leave registers for x and y. */
__attribute__((target("avx512f"))) static float fma_avx512(void)
{
    __m512 sum[14], x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(1e-3f);
    for (int i = 0; i < 14; i++)
        sum[i] = _mm512_set1_ps((float)i);
    for (int step = 0; step < FMA_STEPS; step++)
#pragma GCC unroll 14
        for (int i = 0; i < 14; i++)
            sum[i] = _mm512_fmadd_ps(sum[i], x, y);
    float total = 0;
    for (int i = 0; i < 14; i++)
        total += _mm512_reduce_add_ps(sum[i]);
    return total;
}

__attribute__((target("avx2,fma"))) static float fma_avx2(void)
{
    __m256 sum[12], x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(1e-3f);
    for (int i = 0; i < 12; i++)
        sum[i] = _mm256_set1_ps((float)i);
    for (int step = 0; step < FMA_STEPS; step++)
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++)
            sum[i] = _mm256_fmadd_ps(sum[i], x, y);
    float total = 0, lanes[8];
    for (int i = 0; i < 12; i++) {
        _mm256_storeu_ps(lanes, sum[i]);
        total += lanes[i % 8];
    }
    return total;
}

static double fma_flop(void)
{
    if (__builtin_cpu_supports("avx512f"))
        return 14.0 * 32 * FMA_STEPS;
    return __builtin_cpu_supports("fma") ? 12.0 * 16 * FMA_STEPS : 0;
}

static void fma_task(void *context, int64_t task)
{
    (void)context, (void)task;
    sink = __builtin_cpu_supports("avx512f") ? fma_avx512() : fma_avx2();
}

double zinf_probe_fma(void)
{
    double flop = fma_flop() * zinf_cpu_threads();
    if (flop > 0)
        zinf_cpu_for(zinf_cpu_threads(), fma_task, NULL);
    return flop;
}
#else
double zinf_probe_fma(void)
{
    return 0;
}
#endif

struct arrays {
    float *a, *b, *c;
    const float *in, *in2;
};

WIDEST static void update_chunk(float *restrict w, float *restrict m, float *restrict v,
                                const float *restrict g)
{
    for (int i = 0; i < CHUNK; i += LANES) {
        float x[3][LANES];
        for (int lane = 0; lane < LANES; lane++) {
            x[0][lane] = w[i + lane] + g[i + lane];
            x[1][lane] = m[i + lane] + g[i + lane];
            x[2][lane] = v[i + lane] + g[i + lane];
        }
        memcpy(w + i, x[0], sizeof x[0]);
        memcpy(m + i, x[1], sizeof x[1]);
        memcpy(v + i, x[2], sizeof x[2]);
    }
}

static void update_task(void *context, int64_t task)
{
    const struct arrays *s = context;
    int64_t at = task * CHUNK;
    update_chunk(s->a + at, s->b + at, s->c + at, s->in + at);
}

void zinf_probe_update(float *w, float *m, float *v, const float *g, int64_t count)
{
    struct arrays arrays = {.a = w, .b = m, .c = v, .in = g};
    zinf_cpu_for(count / CHUNK, update_task, &arrays);
}

WIDEST static float read_chunk(const float *a)
{
    float sums[4 * LANES] = {0}, total = 0;
    for (int i = 0; i < CHUNK; i += 4 * LANES)
        for (int lane = 0; lane < 4 * LANES; lane++)
            sums[lane] += a[i + lane];
    for (int lane = 0; lane < 4 * LANES; lane++)
        total += sums[lane];
    return total;
}

static void read_task(void *context, int64_t task)
{
    const struct arrays *s = context;
    s->a[task % MOST_CHUNKS] = read_chunk(s->in + task * CHUNK);
}

float zinf_probe_read(const float *a, int64_t count)
{
    static float sums[MOST_CHUNKS];
    struct arrays arrays = {.a = sums, .in = a};
    zinf_cpu_for(count / CHUNK, read_task, &arrays);
    float total = 0;
    for (int64_t i = 0; i < count / CHUNK && i < MOST_CHUNKS; i++)
        total += sums[i];
    return total;
}

WIDEST static void triad_chunk(float *restrict a, const float *restrict b, const float *restrict c)
{
    for (int i = 0; i < CHUNK; i++)
        a[i] = b[i] + 3.0f * c[i];
}

static void triad_task(void *context, int64_t task)
{
    const struct arrays *s = context;
    int64_t at = task * CHUNK;
    triad_chunk(s->a + at, s->in + at, s->in2 + at);
}

void zinf_probe_triad(float *a, const float *b, const float *c, int64_t count)
{
    struct arrays arrays = {.a = a, .in = b, .in2 = c};
    zinf_cpu_for(count / CHUNK, triad_task, &arrays);
}

static void copy_task(void *context, int64_t task)
{
    const struct arrays *s = context;
    memcpy(s->a + task * CHUNK, s->in + task * CHUNK, CHUNK * sizeof(float));
}

void zinf_probe_copy(float *a, const float *b, int64_t count)
{
    struct arrays arrays = {.a = a, .in = b};
    zinf_cpu_for(count / CHUNK, copy_task, &arrays);
}
