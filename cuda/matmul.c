/*
 * Matrix products by cuBLASLt. The only file that includes its header for calls.
 *
 * The library counts in columns: a row-major (rows, columns) matrix is its column-major (columns,
 * rows) with the same leading dimension. So c = op(a) op(b) is asked for as c^T = op(b)^T op(a)^T:
 * its A is our b, its B is our a, no element moves, and the operation flags stay as they are.
 *
 * The descriptors and the algorithm of a shape are made once and kept. Products are always summed
 * in fp32; TF32 is off. Algorithms that split k and add in place are excluded: their order of sums
 * changes from run to run. Rejected: cublasGemmEx, which hides the workspace and the choice, and
 * needs another 54 MB library.
 */
#include "cuda/matmul.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include "base/status.h"
#include "cuda/cuda.h"
#include "cuda/libraries.h"

/* The functions used, by the names they have in the library. */
#define FUNCTIONS(X)                                                                               \
    X(cublasLtCreate)                                                                              \
    X(cublasLtDestroy)                                                                             \
    X(cublasLtMatmulDescCreate)                                                                    \
    X(cublasLtMatmulDescDestroy)                                                                   \
    X(cublasLtMatmulDescSetAttribute)                                                              \
    X(cublasLtMatrixLayoutCreate)                                                                  \
    X(cublasLtMatrixLayoutDestroy)                                                                 \
    X(cublasLtMatmulPreferenceCreate)                                                              \
    X(cublasLtMatmulPreferenceDestroy)                                                             \
    X(cublasLtMatmulPreferenceSetAttribute)                                                        \
    X(cublasLtMatmulAlgoGetHeuristic)                                                              \
    X(cublasLtMatmul)

#define DECLARE(name) __typeof__(&name) name;
static struct {
    FUNCTIONS(DECLARE)
} api;

/* What an algorithm depends on. Compared as bytes: zeroed before it is filled. */
struct shape {
    int64_t m, n, k, lda, ldb, ldc;
    int32_t dtype, c_dtype, transpose_a, transpose_b, bias;
    int32_t alignment[3]; /* of a, b, c: 16, or the largest power of two that divides */
};

struct product {
    struct product *next;
    struct shape shape;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algorithm;
    bool usable; /* false: the library has no algorithm for it */
};

enum { CANDIDATES = 8, REPEATS = 5 };

static struct {
    pthread_mutex_t lock;
    cublasLtHandle_t handle;
    struct product *products;
    size_t workspace_bytes;
    bool open, tune, told;
} library = {.lock = PTHREAD_MUTEX_INITIALIZER};

/** What only descriptors can do wrong: a wrong attribute is a mistake of this file. */
static void must(cublasStatus_t status, const char *what)
{
    if (status == CUBLAS_STATUS_SUCCESS)
        return;
    zinf_error_log("cuBLASLt: %s failed with status %d", what, (int)status);
    zinf_abort(ZINF_E_RUNTIME);
}

static bool load(void)
{
    if (zinf_cuda_library_open(&zinf_cuda_cublaslt)) {
        zinf_warn("cuBLASLt cannot be used: %s. Matrix products run on zinf's own kernel, which is "
                  "many times slower",
                  zinf_cuda_cublaslt.why);
        return false;
    }
#define LOAD(name)                                                                                 \
    *(void **)&api.name = zinf_cuda_library_symbol(&zinf_cuda_cublaslt, #name);                    \
    if (!api.name) {                                                                               \
        zinf_warn("%s has no %s: matrix products run on zinf's own kernel, which is many times "   \
                  "slower",                                                                        \
                  zinf_cuda_cublaslt.path, #name);                                                 \
        return false;                                                                              \
    }
    FUNCTIONS(LOAD)
#undef LOAD
    return true;
}

void zinf_cuda_matmul_open(bool tune, size_t workspace_bytes)
{
    library.tune = tune;
    library.workspace_bytes = workspace_bytes;
    library.open = load();
    if (library.open)
        must(api.cublasLtCreate(&library.handle), "cublasLtCreate");
}

void zinf_cuda_matmul_close(void)
{
    for (struct product *p = library.products, *next; p; p = next) {
        next = p->next;
        api.cublasLtMatmulDescDestroy(p->operation);
        api.cublasLtMatrixLayoutDestroy(p->a);
        api.cublasLtMatrixLayoutDestroy(p->b);
        api.cublasLtMatrixLayoutDestroy(p->c);
        free(p);
    }
    if (library.handle)
        api.cublasLtDestroy(library.handle);
    library.products = NULL;
    library.handle = NULL;
    library.open = library.told = false;
}

static cudaDataType_t type_of(int32_t dtype)
{
    return dtype == ZINF_FP32 ? CUDA_R_32F : dtype == ZINF_BF16 ? CUDA_R_16BF : CUDA_R_16F;
}

/** Bytes that every row of a matrix begins at a multiple of; 16 is the most that matters. */
static int32_t alignment_of(const void *matrix, int64_t ld, int32_t dtype)
{
    uint64_t bits = (uint64_t)(uintptr_t)matrix | (uint64_t)ld * (dtype == ZINF_FP32 ? 4 : 2) | 16;
    return (int32_t)(bits & (~bits + 1));
}

static struct shape shape_of(const struct zinf_matmul *op, bool bias)
{
    struct shape s;
    memset(&s, 0, sizeof s);
    s.m = op->m, s.n = op->n, s.k = op->k;
    s.lda = op->lda, s.ldb = op->ldb, s.ldc = op->ldc;
    s.dtype = (int32_t)op->dtype, s.c_dtype = (int32_t)op->c_dtype;
    s.transpose_a = op->transpose_a, s.transpose_b = op->transpose_b, s.bias = bias;
    s.alignment[0] = alignment_of(op->a, op->lda, s.dtype);
    s.alignment[1] = alignment_of(op->b, op->ldb, s.dtype);
    s.alignment[2] = alignment_of(op->c, op->ldc, s.c_dtype);
    return s;
}

/** Our (rows, columns) with `ld` as the library's columns-first matrix. */
static cublasLtMatrixLayout_t layout(int32_t dtype, int64_t rows, int64_t columns, int64_t ld)
{
    cublasLtMatrixLayout_t made = NULL;
    must(api.cublasLtMatrixLayoutCreate(&made, type_of(dtype), (uint64_t)columns, (uint64_t)rows,
                                        ld),
         "cublasLtMatrixLayoutCreate");
    return made;
}

static void set(struct product *p, cublasLtMatmulDescAttributes_t attribute, const void *value,
                size_t bytes)
{
    must(api.cublasLtMatmulDescSetAttribute(p->operation, attribute, value, bytes),
         "cublasLtMatmulDescSetAttribute");
}

static void describe(struct product *p, const struct zinf_matmul *op)
{
    const struct shape *s = &p->shape;
    cublasOperation_t ours[2] = {s->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N,
                                 s->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N};
    must(api.cublasLtMatmulDescCreate(&p->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
         "cublasLtMatmulDescCreate");
    set(p, CUBLASLT_MATMUL_DESC_TRANSA, &ours[1], sizeof ours[1]);
    set(p, CUBLASLT_MATMUL_DESC_TRANSB, &ours[0], sizeof ours[0]);
    if (s->bias) { /* its pointer too: the heuristic reads the alignment */
        cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
        set(p, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
        set(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &op->bias, sizeof op->bias);
    }
    p->a = layout(s->dtype, s->transpose_a ? s->k : s->m, s->transpose_a ? s->m : s->k, s->lda);
    p->b = layout(s->dtype, s->transpose_b ? s->n : s->k, s->transpose_b ? s->k : s->n, s->ldb);
    p->c = layout(s->c_dtype, s->m, s->n, s->ldc);
}

static int ask(const struct product *p, cublasLtMatmulHeuristicResult_t results[CANDIDATES])
{
    cublasLtMatmulPreference_t preference = NULL;
    uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    size_t workspace = library.workspace_bytes;
    int found = 0;
    must(api.cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t bytes;
    } wishes[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &p->shape.alignment[1], sizeof(int32_t)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &p->shape.alignment[0], sizeof(int32_t)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &p->shape.alignment[2], sizeof(int32_t)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &p->shape.alignment[2], sizeof(int32_t)},
    };
    for (size_t i = 0; i < sizeof wishes / sizeof *wishes; i++)
        must(api.cublasLtMatmulPreferenceSetAttribute(preference, wishes[i].name, wishes[i].value,
                                                      wishes[i].bytes),
             "cublasLtMatmulPreferenceSetAttribute");
    cublasStatus_t status =
        api.cublasLtMatmulAlgoGetHeuristic(library.handle, p->operation, p->b, p->a, p->c, p->c,
                                           preference, CANDIDATES, results, &found);
    api.cublasLtMatmulPreferenceDestroy(preference);
    return status == CUBLAS_STATUS_SUCCESS ? found : 0;
}

static cublasStatus_t run(const struct product *p, const struct zinf_matmul *op,
                          const cublasLtMatmulAlgo_t *algorithm)
{
    const float one = 1.0f, beta = op->accumulate ? 1.0f : 0.0f;
    return api.cublasLtMatmul(library.handle, p->operation, &one, op->b, p->b, op->a, p->a, &beta,
                              op->c, p->c, op->c, p->c, algorithm,
                              zinf_cuda_scratch(library.workspace_bytes), library.workspace_bytes,
                              zinf_cuda_stream());
}

/** Milliseconds of one product by an algorithm, the first run left out; infinite if it does not
 * run. */
static float time_of(const struct product *p, const struct zinf_matmul *op,
                     const cublasLtMatmulAlgo_t *algorithm, cudaEvent_t events[2])
{
    float milliseconds = 0;
    if (run(p, op, algorithm) != CUBLAS_STATUS_SUCCESS)
        return HUGE_VALF;
    CUDA_CHECK(cudaEventRecord(events[0], zinf_cuda_stream()));
    for (int i = 0; i < REPEATS; i++)
        must(run(p, op, algorithm), "cublasLtMatmul");
    CUDA_CHECK(cudaEventRecord(events[1], zinf_cuda_stream()));
    CUDA_CHECK(cudaEventSynchronize(events[1]));
    CUDA_CHECK(cudaEventElapsedTime(&milliseconds, events[0], events[1]));
    return milliseconds;
}

/** The fastest on the real operands, which a product without accumulation may overwrite as often as
 * it likes. */
static int fastest(const struct product *p, const struct zinf_matmul *op,
                   const cublasLtMatmulHeuristicResult_t *results, int count)
{
    cudaEvent_t events[2];
    float best_time = HUGE_VALF;
    int best = 0;
    for (int i = 0; i < 2; i++)
        CUDA_CHECK(cudaEventCreate(&events[i]));
    for (int i = 0; i < count; i++) {
        float time = results[i].state == CUBLAS_STATUS_SUCCESS
                         ? time_of(p, op, &results[i].algo, events)
                         : HUGE_VALF;
        if (time < best_time)
            best_time = time, best = i;
    }
    for (int i = 0; i < 2; i++)
        CUDA_CHECK(cudaEventDestroy(events[i]));
    return best;
}

static struct product *make(const struct shape *shape, const struct zinf_matmul *op)
{
    cublasLtMatmulHeuristicResult_t results[CANDIDATES];
    struct product *p = zinf_alloc(sizeof *p);
    p->shape = *shape;
    describe(p, op);
    int found = ask(p, results), chosen = 0;
    if (found > 0 && library.tune && !op->accumulate)
        chosen = fastest(p, op, results, found);
    p->usable = found > 0 && results[chosen].state == CUBLAS_STATUS_SUCCESS;
    if (p->usable)
        p->algorithm = results[chosen].algo;
    p->next = library.products;
    library.products = p;
    return p;
}

static struct product *product_of(const struct shape *shape, const struct zinf_matmul *op)
{
    for (struct product *p = library.products; p; p = p->next)
        if (!memcmp(&p->shape, shape, sizeof *shape))
            return p;
    return make(shape, op);
}

bool zinf_cuda_matmul_library(const struct zinf_matmul *op)
{
    /* The library's bias has the type of c; an empty sum has no algorithm. */
    bool bias = op->bias && op->c_dtype == op->dtype;
    struct shape shape = shape_of(op, bias);
    if (!library.open || op->k == 0)
        return false;
    pthread_mutex_lock(&library.lock);
    struct product *p = product_of(&shape, op);
    if (p->usable) {
        if (bias)
            set(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &op->bias, sizeof op->bias);
        must(run(p, op, &p->algorithm), "cublasLtMatmul");
        if (zinf_cuda_synchronous())
            CUDA_CHECK(cudaStreamSynchronize(zinf_cuda_stream()));
    } else if (!library.told) {
        library.told = true;
        zinf_warn("cuBLASLt has no algorithm for a product of %lld x %lld x %lld (rows aligned to "
                  "%d, %d, %d bytes): it runs on zinf's own kernel, which is slower",
                  (long long)op->m, (long long)op->n, (long long)op->k, shape.alignment[0],
                  shape.alignment[1], shape.alignment[2]);
    }
    bool done = p->usable;
    pthread_mutex_unlock(&library.lock);
    if (done && op->bias && !bias)
        zinf_cuda_add_bias(op);
    return done;
}
