/*
 * Which of cuBLASLt's algorithms is the fastest for a product, measured. See zinf_device_products
 * in device/device.h.
 *
 * As a step meets it: random data (zeros make a card faster by an eighth), operands that are not in
 * the L2 cache, because several sets of them are used in turn, and with the product's own bias,
 * accumulation and activation: an algorithm that makes the activation too is held against one that
 * leaves it to our own kernel. An algorithm is run once to load it and once to see whether it is
 * worth more; then the best of three bursts counts. Memory is borrowed: what the device has left
 * besides the run's. A product whose operands do not fit in that keeps the library's first
 * algorithm.
 */
#include "cuda/matmul.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cuda_runtime_api.h>

#include "base/clock.h"
#include "base/rng.h"
#include "cuda/cuda.h"

enum { CANDIDATES = 16, BURSTS = 3, LONGEST_BURST = 8, PATTERN = 1 << 20, ROTATED = 256 << 20 };

static const double burst_s = 1e-3; /* a burst lasts about so long */
static const double hopeless = 1.3; /* so many times the best: not worth a burst */
static const double product_s = 3;  /* candidates are no longer tried after that */

/* Borrowed device memory, filled with random values of one type. */
struct arena {
    char *base;
    size_t bytes;
    int dtype; /* of the values; -1: none yet */
    size_t cache_bytes;
};

struct stopwatch {
    cudaEvent_t begin, end;
};

/* Half of what is free at most: the library loads kernels meanwhile. */
static void borrow(struct arena *arena, size_t wanted)
{
    size_t available = 0, total = 0;
    int device = 0, cache = 0;
    *arena = (struct arena){.dtype = -1};
    CUDA_CHECK(cudaGetDevice(&device));
    CUDA_CHECK(cudaDeviceGetAttribute(&cache, cudaDevAttrL2CacheSize, device));
    CUDA_CHECK(cudaMemGetInfo(&available, &total));
    arena->cache_bytes = (size_t)cache;
    arena->bytes = wanted < available / 2 ? wanted : available / 2;
    void *base = NULL;
    if (arena->bytes == 0 || cudaMalloc(&base, arena->bytes) != cudaSuccess) {
        cudaGetLastError();
        arena->bytes = 0;
    }
    arena->base = base;
}

static void give_back(struct arena *arena)
{
    CUDA_CHECK(cudaStreamSynchronize(zinf_cuda_stream()));
    CUDA_CHECK(cudaFree(arena->base));
}

/* Values of -1 .. 1; read as another type they are finite too. */
static void fill(struct arena *arena, enum zinf_dtype dtype)
{
    const struct zinf_rng_key key = zinf_rng_key(1, "products");
    const size_t bytes = PATTERN * zinf_dtype_bytes(dtype);
    if (arena->dtype == (int)dtype)
        return;
    float *wide = zinf_alloc(PATTERN * sizeof *wide);
    char *rounded = zinf_alloc(bytes);
    for (uint32_t i = 0; i < PATTERN; i += 4) {
        const uint32_t counter[4] = {i, 0, 0, 0};
        uint32_t words[4];
        zinf_rng_philox(counter, key, words);
        for (uint32_t j = 0; j < 4; j++)
            wide[i + j] = (float)(int32_t)words[j] * 0x1p-31f;
    }
    zinf_dtype_convert(rounded, dtype, wide, ZINF_FP32, PATTERN);
    for (size_t at = 0; at < arena->bytes; at += bytes)
        CUDA_CHECK(cudaMemcpyAsync(arena->base + at, rounded,
                                   arena->bytes - at < bytes ? arena->bytes - at : bytes,
                                   cudaMemcpyHostToDevice, zinf_cuda_stream()));
    CUDA_CHECK(cudaStreamSynchronize(zinf_cuda_stream()));
    arena->dtype = (int)dtype;
    free(rounded);
    free(wide);
}

/* Sets of operands that are used in turn: more than the cache holds twice, as far as there is
 * memory. 0: not even one fits. */
static int sets_of(const struct arena *arena, size_t bytes)
{
    size_t fit = arena->bytes / bytes, wanted = 1 + 2 * arena->cache_bytes / bytes;
    return (int)(fit < wanted ? fit : wanted);
}

static double time_of(const struct zinf_matmul *sets, int count, int calls,
                      const struct stopwatch *watch)
{
    float milliseconds = 0;
    CUDA_CHECK(cudaEventRecord(watch->begin, zinf_cuda_stream()));
    for (int i = 0; i < calls; i++)
        zinf_cuda_matmul(&sets[i % count]);
    CUDA_CHECK(cudaEventRecord(watch->end, zinf_cuda_stream()));
    CUDA_CHECK(cudaEventSynchronize(watch->end));
    CUDA_CHECK(cudaEventElapsedTime(&milliseconds, watch->begin, watch->end));
    return milliseconds / 1e3 / calls;
}

/* Seconds of one product as it is set now; HUGE_VAL: more than `limit`. */
static double best_time(const struct zinf_matmul *sets, int count, double limit,
                        const struct stopwatch *watch)
{
    double best = HUGE_VAL;
    time_of(sets, count, 1, watch);
    double once = time_of(sets, count, 1, watch);
    if (once > limit)
        return HUGE_VAL;
    int calls = once > 0 ? (int)fmin(LONGEST_BURST, fmax(1, burst_s / once)) : LONGEST_BURST;
    for (int i = 0; i < BURSTS; i++)
        best = fmin(best, time_of(sets, count, calls, watch));
    return best;
}

/* What one product's candidates are timed with. */
struct trial {
    struct zinf_product_choice *choice;
    struct zinf_matmul *sets;
    int count;
    double began_s, best_s;
    const struct stopwatch *watch;
};

/* Candidates that make the activation too, or those that leave it to our own operation, which is
 * timed with them. */
static void try_all(struct trial *trial, bool fused)
{
    struct zinf_product_choice *choice = trial->choice;
    struct zinf_cuda_algorithm candidates[CANDIDATES];
    const int found = zinf_cuda_matmul_candidates(&choice->product, fused, candidates, CANDIDATES);
    for (int i = 0; i < found && zinf_clock_s() - trial->began_s < product_s; i++) {
        if (!zinf_cuda_matmul_set(&choice->product, fused, &candidates[i]))
            continue;
        double seconds =
            best_time(trial->sets, trial->count, hopeless * trial->best_s, trial->watch);
        if (i == 0 && !fused)
            choice->first_s = seconds;
        if (seconds >= trial->best_s)
            continue;
        trial->best_s = choice->seconds = seconds;
        choice->candidate = i;
        choice->candidates = found;
        choice->fused = fused;
        choice->bytes = sizeof candidates[i];
        memcpy(choice->algorithm, &candidates[i], sizeof candidates[i]);
    }
}

static void choose(struct zinf_product_choice *choice, struct arena *arena,
                   const struct stopwatch *watch)
{
    const size_t bytes = zinf_product_bytes(&choice->product);
    struct trial trial = {.choice = choice,
                          .count = sets_of(arena, bytes),
                          .began_s = zinf_clock_s(),
                          .best_s = HUGE_VAL,
                          .watch = watch};
    if (trial.count == 0)
        return;
    trial.sets = zinf_alloc((size_t)trial.count * sizeof *trial.sets);
    for (int i = 0; i < trial.count; i++)
        trial.sets[i] = zinf_product_at(&choice->product, arena->base + (size_t)i * bytes);
    fill(arena, (enum zinf_dtype)choice->product.dtype);
    try_all(&trial, false);
    if (zinf_product_activates(&choice->product))
        try_all(&trial, true);
    free(trial.sets);
}

/* The most that is of use for any of them. */
static size_t arena_of(const struct zinf_product_choice *items, int count, size_t least)
{
    size_t most = 0;
    for (int i = 0; i < count; i++) {
        size_t bytes = zinf_product_bytes(&items[i].product);
        size_t rotated = bytes > least ? bytes : bytes + least;
        most = rotated > most ? rotated : most;
    }
    return most;
}

static void source(struct zinf_device *device, char *out, size_t out_bytes)
{
    char library[64];
    zinf_cuda_matmul_source(library, sizeof library);
    snprintf(out, out_bytes, "%s%s%s", library, *library ? ", " : "",
             *library ? device->properties.name : "");
}

static void measure(struct zinf_device *device, struct zinf_product_choice *items, int count)
{
    struct arena arena;
    struct stopwatch watch;
    (void)device;
    borrow(&arena, arena_of(items, count, ROTATED));
    CUDA_CHECK(cudaEventCreate(&watch.begin));
    CUDA_CHECK(cudaEventCreate(&watch.end));
    for (int i = 0; i < count; i++)
        if (items[i].bytes == 0)
            choose(&items[i], &arena, &watch);
    CUDA_CHECK(cudaEventDestroy(watch.begin));
    CUDA_CHECK(cudaEventDestroy(watch.end));
    give_back(&arena);
}

/* Each runs once: a kernel's first launch may wait for the whole device. */
static void take(struct zinf_device *device, const struct zinf_products *products)
{
    struct arena arena;
    (void)device;
    borrow(&arena, arena_of(products->items, products->count, 0));
    for (int i = 0; i < products->count; i++) {
        const struct zinf_product_choice *choice = &products->items[i];
        struct zinf_cuda_algorithm algorithm;
        memcpy(&algorithm, choice->algorithm, sizeof algorithm);
        bool done = zinf_cuda_matmul_set(&choice->product, choice->fused,
                                         choice->bytes ? &algorithm : NULL);
        if (!done && choice->bytes) {
            zinf_error_log("cuBLASLt does not take an algorithm for a matrix product that the same "
                           "version has chosen on another rank, or before the run was stopped; "
                           "--deterministic does without the choice");
            zinf_abort(ZINF_E_RUNTIME);
        }
        if (!done || zinf_product_bytes(&choice->product) > arena.bytes)
            continue;
        const struct zinf_matmul op = zinf_product_at(&choice->product, arena.base);
        zinf_cuda_matmul(&op);
    }
    give_back(&arena);
}

const struct zinf_device_products zinf_cuda_products = {
    .source = source, .measure = measure, .take = take};
