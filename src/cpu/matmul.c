/*
 * Matrix products by a library: oneDNN, else a CBLAS. The only file that includes either.
 *
 * Threads: c is cut in one slice per thread, along its longer side, and each thread calls the
 * library serially for its slice. Measured on GPT-2's shapes that is as fast as the libraries' own
 * threading, and the bits do not depend on the number of threads: the libraries' own cut k on many
 * threads when c is small, this never does. For the same reason k is cut here, in runs of at most
 * K_RUN, and slices have a least size: then both libraries add in the order of k whatever the
 * slice. tests/test_ops_matmul.cc checks it.
 *
 * 16-bit types: bf16 on machines whose units multiply bf16 goes to oneDNN's matmul primitive (fp32
 * inside, rounded once). Everything else is widened tile by tile, multiplied in fp32 and rounded
 * once; the tiles bound the memory, whatever the matrices' size.
 */
#include "config.h"

#include "cpu/matmul.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "cpu/threads.h"

#if HAVE_ONEDNN
#include <oneapi/dnnl/dnnl.h>
#elif HAVE_CBLAS
#include <cblas.h>
#include <limits.h>
#endif

enum {
    K_RUN = 768,             /* longest run of k in one library call */
    SMALLEST_SLICE = 64,     /* rows or columns */
    SMALLEST_WORK = 1 << 20, /* multiply-adds of a slice's shortest run; below, libraries have other
                                kernels with other orders of sums */
    SLICE_UNIT = 16,         /* slices begin at multiples of this */
    TILE = 256, /* rows and columns of a widened tile; with K_RUN 0.75 MiB each of a and b */
};

/* One fp32 product in one library call: c (m, n) = beta * c + op(a) . op(b). */
struct product {
    const float *a, *b;
    float *c;
    int64_t m, n, k, lda, ldb, ldc;
    bool transpose_a, transpose_b;
    float beta;
};

/* What tasks share. */
struct task {
    const struct zinf_matmul *op;
    const struct zinf_cpu_rows *rows;
    int64_t slices;
};

static const void *at(const void *matrix, enum zinf_dtype dtype, int64_t i)
{
    return (const char *)matrix + i * (dtype == ZINF_FP32 ? 4 : 2);
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/** Length of the runs that k is cut in: equal but for the last, which is shorter by less than the
 * number of runs. */
static int64_t run_of(int64_t k)
{
    int64_t runs = (k + K_RUN - 1) / K_RUN;
    return (k + runs - 1) / runs;
}

#if HAVE_ONEDNN

static void check(dnnl_status_t status, const char *what)
{
    if (status == dnnl_success)
        return;
    zinf_error_log("oneDNN: %s failed with status %d", what, (int)status);
    zinf_abort(ZINF_E_RUNTIME);
}

static void library_product(const struct product *p)
{
    check(dnnl_sgemm(p->transpose_a ? 'T' : 'N', p->transpose_b ? 'T' : 'N', p->m, p->n, p->k, 1.0f,
                     p->a, p->lda, p->b, p->ldb, p->beta, p->c, p->ldc),
          "dnnl_sgemm");
}

/* What a compiled primitive depends on. Compared as bytes: zeroed before it is filled. */
struct shape {
    int64_t m, n, k;
    int32_t transpose_a, transpose_b, c_fp32, bias, accumulate, threads;
};

/* A primitive, kept: making one takes half a millisecond, as long as a middling product. */
struct primitive {
    struct shape shape;
    dnnl_primitive_t primitive; /* NULL: oneDNN has no native kernel for this shape */
    dnnl_memory_desc_t a, b, c, bias, scratch;
    size_t scratch_bytes;
};

enum { PRIMITIVES = 512 }; /* a model has a few dozen shapes; when full, all are thrown away */

static struct {
    pthread_rwlock_t lock;
    dnnl_engine_t engine;
    struct primitive *items[PRIMITIVES];
    int count;
} cache = {.lock = PTHREAD_RWLOCK_INITIALIZER};

static bool bf16_is_native(void)
{
    unsigned isa = dnnl_get_effective_cpu_isa();
    return (isa & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16;
}

static struct shape shape_of(const struct zinf_matmul *op)
{
    struct shape shape;
    memset(&shape, 0, sizeof shape);
    shape.m = op->m, shape.n = op->n, shape.k = op->k;
    shape.transpose_a = op->transpose_a, shape.transpose_b = op->transpose_b;
    shape.c_fp32 = op->c_dtype == ZINF_FP32;
    shape.bias = op->bias != NULL, shape.accumulate = op->accumulate;
    shape.threads = zinf_cpu_threads();
    return shape;
}

/** (rows, columns) as the product sees it, stored dense. */
static dnnl_memory_desc_t describe(int64_t rows, int64_t columns, bool transposed,
                                   dnnl_data_type_t type)
{
    dnnl_memory_desc_t description;
    dnnl_dims_t size = {rows, columns};
    dnnl_dims_t stride = {transposed ? 1 : columns, transposed ? rows : 1};
    check(dnnl_memory_desc_init_by_strides(&description, 2, size, type, stride),
          "a memory description");
    return description;
}

static dnnl_primitive_attr_t attributes(bool accumulate)
{
    dnnl_primitive_attr_t attr;
    check(dnnl_primitive_attr_create(&attr), "attributes");
    check(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user),
          "scratchpad mode");
    if (accumulate) {
        dnnl_post_ops_t post_ops;
        check(dnnl_post_ops_create(&post_ops), "post-ops");
        check(dnnl_post_ops_append_sum(post_ops, 1.0f), "a sum post-op");
        check(dnnl_primitive_attr_set_post_ops(attr, post_ops), "post-ops");
        dnnl_post_ops_destroy(post_ops);
    }
    return attr;
}

/** Compile for the threads that zinf_cpu_library_threads() gave. */
static struct primitive *primitive_new(const struct shape *shape)
{
    struct primitive *p = zinf_alloc(sizeof *p);
    p->shape = *shape;
    p->a = describe(shape->m, shape->k, shape->transpose_a, dnnl_bf16);
    p->b = describe(shape->k, shape->n, shape->transpose_b, dnnl_bf16);
    p->c = describe(shape->m, shape->n, false, shape->c_fp32 ? dnnl_f32 : dnnl_bf16);
    p->bias = describe(1, shape->n, false, dnnl_bf16);
    dnnl_matmul_desc_t matmul;
    check(dnnl_matmul_desc_init(&matmul, &p->a, &p->b, shape->bias ? &p->bias : NULL, &p->c),
          "a matmul description");
    dnnl_primitive_attr_t attr = attributes(shape->accumulate);
    dnnl_primitive_desc_t description;
    dnnl_status_t status =
        dnnl_primitive_desc_create(&description, &matmul, attr, cache.engine, NULL);
    dnnl_primitive_attr_destroy(attr);
    if (status != dnnl_success)
        return p;
    const char *name = "";
    dnnl_primitive_desc_query(description, dnnl_query_impl_info_str, 0, &name);
    if (!strncmp(name, "brg", 3)) { /* not a reference loop */
        p->scratch = *dnnl_primitive_desc_query_md(description, dnnl_query_scratchpad_md, 0);
        p->scratch_bytes = dnnl_memory_desc_get_size(&p->scratch);
        check(dnnl_primitive_create(&p->primitive, description), "a matmul primitive");
    }
    dnnl_primitive_desc_destroy(description);
    return p;
}

static struct primitive *cache_find(const struct shape *shape)
{
    for (int i = 0; i < cache.count; i++)
        if (!memcmp(&cache.items[i]->shape, shape, sizeof *shape))
            return cache.items[i];
    return NULL;
}

static void cache_make(const struct shape *shape)
{
    pthread_rwlock_wrlock(&cache.lock);
    if (!cache.engine)
        check(dnnl_engine_create(&cache.engine, dnnl_cpu, 0), "the CPU engine");
    if (cache.count == PRIMITIVES) { /* nobody holds one: holders have the read lock */
        for (int i = 0; i < cache.count; i++) {
            dnnl_primitive_destroy(cache.items[i]->primitive);
            free(cache.items[i]);
        }
        cache.count = 0;
    }
    if (!cache_find(shape))
        cache.items[cache.count++] = primitive_new(shape);
    pthread_rwlock_unlock(&cache.lock);
}

/** The primitive of `shape`, with the read lock held. */
static struct primitive *primitive_acquire(const struct shape *shape)
{
    for (;;) {
        pthread_rwlock_rdlock(&cache.lock);
        struct primitive *p = cache_find(shape);
        if (p)
            return p;
        pthread_rwlock_unlock(&cache.lock);
        cache_make(shape);
    }
}

static void primitive_run(const struct primitive *p, const struct zinf_matmul *op)
{
    void *scratch = zinf_cpu_scratch(ZINF_SCRATCH_LIBRARY, p->scratch_bytes + 64);
    const struct {
        int argument;
        const dnnl_memory_desc_t *description;
        const void *data;
    } parts[] = {
        {DNNL_ARG_SRC, &p->a, op->a},        {DNNL_ARG_WEIGHTS, &p->b, op->b},
        {DNNL_ARG_DST, &p->c, op->c},        {DNNL_ARG_SCRATCHPAD, &p->scratch, scratch},
        {DNNL_ARG_BIAS, &p->bias, op->bias},
    };
    enum { PARTS = sizeof parts / sizeof *parts };
    int count = op->bias ? PARTS : PARTS - 1;
    dnnl_exec_arg_t args[PARTS];
    for (int i = 0; i < count; i++) {
        args[i].arg = parts[i].argument;
        check(dnnl_memory_create(&args[i].memory, parts[i].description, cache.engine,
                                 (void *)parts[i].data),
              "a memory object");
    }
    dnnl_stream_t stream;
    check(dnnl_stream_create(&stream, cache.engine, dnnl_stream_default_flags), "a stream");
    check(dnnl_primitive_execute(p->primitive, stream, count, args), "a matmul");
    check(dnnl_stream_wait(stream), "waiting for a matmul");
    dnnl_stream_destroy(stream);
    for (int i = 0; i < count; i++)
        dnnl_memory_destroy(args[i].memory);
}

/** oneDNN 2.6 has native kernels for matrices without gaps between their rows. */
static bool is_dense(const struct zinf_matmul *op)
{
    return op->lda == (op->transpose_a ? op->m : op->k) &&
           op->ldb == (op->transpose_b ? op->k : op->n) && op->ldc == op->n;
}

/** @return false when oneDNN has no native kernel for it */
static bool bf16_product(const struct zinf_matmul *op)
{
    if (op->dtype != ZINF_BF16 || !is_dense(op) || !bf16_is_native())
        return false;
    zinf_cpu_library_threads(zinf_cpu_threads());
    struct shape shape = shape_of(op);
    struct primitive *p = primitive_acquire(&shape);
    bool native = p->primitive != NULL;
    if (native)
        primitive_run(p, op);
    pthread_rwlock_unlock(&cache.lock);
    return native;
}

const char *zinf_cpu_matmul_name(void)
{
    return bf16_is_native() ? "oneDNN, bf16 native" : "oneDNN, bf16 widened";
}

#elif HAVE_CBLAS

/* Libraries with threads of their own are told to use one; which of these exists shows at link
 * time. */
void openblas_set_num_threads(int count) __attribute__((weak));
void bli_thread_set_num_threads(int64_t count) __attribute__((weak));

static void library_serial(void)
{
    if (openblas_set_num_threads)
        openblas_set_num_threads(1);
    if (bli_thread_set_num_threads)
        bli_thread_set_num_threads(1);
}

static void library_product(const struct product *p)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, library_serial);
    ZINF_ASSERT(p->m <= INT_MAX && p->n <= INT_MAX && p->lda <= INT_MAX && p->ldb <= INT_MAX &&
                p->ldc <= INT_MAX);
    cblas_sgemm(CblasRowMajor, p->transpose_a ? CblasTrans : CblasNoTrans,
                p->transpose_b ? CblasTrans : CblasNoTrans, (int)p->m, (int)p->n, (int)p->k, 1.0f,
                p->a, (int)p->lda, p->b, (int)p->ldb, p->beta, p->c, (int)p->ldc);
}

static bool bf16_product(const struct zinf_matmul *op)
{
    (void)op;
    return false;
}

const char *zinf_cpu_matmul_name(void)
{
    return "CBLAS, bf16 widened";
}

#endif

/** Element (row, k) of op(a), (k, column) of op(b). */
static const void *a_at(const struct zinf_matmul *op, int64_t row, int64_t k)
{
    return at(op->a, op->dtype, op->transpose_a ? k * op->lda + row : row * op->lda + k);
}

static const void *b_at(const struct zinf_matmul *op, int64_t k, int64_t column)
{
    return at(op->b, op->dtype, op->transpose_b ? column * op->ldb + k : k * op->ldb + column);
}

static void fp32_slice(const struct zinf_matmul *op, const struct zinf_cpu_rows *rows)
{
    int64_t run = run_of(op->k);
    for (int64_t k = 0; k < op->k; k += run) {
        struct product p = {.m = op->m, .n = op->n, .k = least(run, op->k - k)};
        p.a = a_at(op, 0, k), p.lda = op->lda, p.transpose_a = op->transpose_a;
        p.b = b_at(op, k, 0), p.ldb = op->ldb, p.transpose_b = op->transpose_b;
        p.c = op->c, p.ldc = op->ldc, p.beta = op->accumulate || k > 0 ? 1.0f : 0.0f;
        library_product(&p);
    }
    struct zinf_cpu_finish finish = {.to = op->c, .dtype = ZINF_FP32, .ld = op->ldc};
    finish.from = op->c, finish.from_ld = op->ldc;
    finish.bias = op->bias, finish.bias_dtype = op->dtype;
    if (op->bias)
        rows->finish(&finish, op->m, op->n);
}

/** One tile of c, (m, n) at (row, column), from widened runs of k. `memory`: tiles of a, b and c.
 */
static void widened_tile(const struct zinf_matmul *op, const struct zinf_cpu_rows *rows,
                         int64_t row, int64_t column, float *memory)
{
    float *a = memory, *b = a + TILE * K_RUN, *c = b + TILE * K_RUN;
    int64_t m = least(TILE, op->m - row), n = least(TILE, op->n - column);
    int64_t run = run_of(op->k);
    for (int64_t k = 0; k < op->k; k += run) {
        struct product p = {.a = a, .b = b, .c = c, .m = m, .n = n, .ldc = n};
        p.k = least(run, op->k - k);
        p.transpose_a = op->transpose_a, p.transpose_b = op->transpose_b;
        p.lda = op->transpose_a ? m : p.k, p.ldb = op->transpose_b ? p.k : n;
        rows->widen(a, a_at(op, row, k), op->dtype, op->lda, op->transpose_a ? p.k : m, p.lda);
        rows->widen(b, b_at(op, k, column), op->dtype, op->ldb, op->transpose_b ? n : p.k, p.ldb);
        p.beta = k > 0 ? 1.0f : 0.0f;
        library_product(&p);
    }
    struct zinf_cpu_finish finish = {.dtype = op->c_dtype, .ld = op->ldc, .from = c, .from_ld = n};
    finish.to = (void *)at(op->c, op->c_dtype, row * op->ldc + column);
    finish.bias = op->bias ? at(op->bias, op->dtype, column) : NULL;
    finish.bias_dtype = op->dtype;
    finish.accumulate = op->accumulate;
    rows->finish(&finish, m, n);
}

/** A task is one tile of a grid that depends on the shape only: so do the bits. */
static void widened_task(void *context, int64_t tile)
{
    const struct task *task = context;
    int64_t across = (task->op->n + TILE - 1) / TILE;
    float *memory =
        zinf_cpu_scratch(ZINF_SCRATCH_TASK, sizeof(float) * (2 * TILE * K_RUN + TILE * TILE));
    zinf_cpu_library_threads(1);
    widened_tile(task->op, task->rows, tile / across * TILE, tile % across * TILE, memory);
}

/** Where slice `slice` of `count` elements begins. */
static int64_t slice_begin(int64_t count, int64_t slice, int64_t slices)
{
    int64_t units = (count + SLICE_UNIT - 1) / SLICE_UNIT;
    return least(units * slice / slices * SLICE_UNIT, count);
}

static void slice_task(void *context, int64_t slice)
{
    const struct task *task = context;
    struct zinf_matmul op = *task->op;
    zinf_cpu_library_threads(1);
    int64_t side = op.n >= op.m ? op.n : op.m;
    int64_t begin = slice_begin(side, slice, task->slices);
    int64_t count = slice_begin(side, slice + 1, task->slices) - begin;
    if (op.n >= op.m) {
        op.b = b_at(&op, 0, begin);
        op.c = (void *)at(op.c, op.c_dtype, begin);
        op.bias = op.bias ? at(op.bias, op.dtype, begin) : NULL;
        op.n = count;
    } else {
        op.a = a_at(&op, begin, 0);
        op.c = (void *)at(op.c, op.c_dtype, begin * op.ldc);
        op.m = count;
    }
    fp32_slice(&op, task->rows);
}

static int64_t slices_of(const struct zinf_matmul *op)
{
    int64_t side = op->n >= op->m ? op->n : op->m, run = run_of(op->k);
    int64_t by_work = op->m * op->n * (run / 2 + 1) / SMALLEST_WORK;
    int64_t slices = least(least(side / SMALLEST_SLICE, by_work), zinf_cpu_threads());
    return slices < 1 ? 1 : slices;
}

void zinf_cpu_matmul(const struct zinf_matmul *op, const struct zinf_cpu_rows *rows)
{
    ZINF_ASSERT(op->m >= 0 && op->n >= 0 && op->k > 0);
    ZINF_ASSERT(op->c_dtype == op->dtype || op->c_dtype == ZINF_FP32);
    if (op->m == 0 || op->n == 0 || bf16_product(op))
        return;
    struct task task = {.op = op, .rows = rows, .slices = slices_of(op)};
    if (op->dtype == ZINF_FP32)
        zinf_cpu_for(task.slices, slice_task, &task);
    else
        zinf_cpu_for((op->m + TILE - 1) / TILE * ((op->n + TILE - 1) / TILE), widened_task, &task);
}
