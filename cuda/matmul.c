/*
 * Matrix products by cuBLASLt. The only file that includes its header for calls.
 *
 * The library counts in columns: a row-major (rows, columns) matrix is its column-major (columns,
 * rows) with the same leading dimension. So c = op(a) op(b) is asked for as c^T = op(b)^T op(a)^T:
 * its A is our b, its B is our a, no element moves, and the operation flags stay as they are.
 *
 * The descriptors and the algorithm of a product are made once and kept: of those that a step makes
 * before the first, by matmul_take(). matmul_choose.c times algorithms. Products are always summed
 * in fp32; TF32 is off unless the run asks for it. Algorithms that split k and add in place are
 * excluded: their order of sums changes from run to run. The workspace is one size on every stream
 * and in every run, because the library's first algorithm depends on it. Rejected: cublasGemmEx,
 * which hides the workspace and the choice, and needs another 54 MB library.
 */
#include "cuda/matmul.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include "base/status.h"
#include "cuda/cuda.h"
#include "cuda/libraries.h"
#include "cuda/recorder.h"

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
    X(cublasLtMatmulAlgoCheck)                                                                     \
    X(cublasLtMatmul)

#define DECLARE(name) __typeof__(&name) name;
static struct {
    FUNCTIONS(DECLARE)
} api;

struct product {
    struct product *next;
    struct zinf_product key;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algorithm;
    bool fused;  /* the product makes its activation too */
    bool usable; /* false: the library has no algorithm for it */
};

/* What cuBLASLt wants on Hopper; every stream's scratch has it (device/device.c). */
enum { WORKSPACE = 32 << 20 };

static struct {
    pthread_mutex_t lock;
    cublasLtHandle_t handle;
    struct product *products;
    size_t workspace_bytes;
    bool open, tf32, told;
} library = {.lock = PTHREAD_MUTEX_INITIALIZER};

/** What only descriptors can do wrong: a wrong attribute is a mistake of this file. */
static void must(cublasStatus_t status, const char *what)
{
    if (status == CUBLAS_STATUS_SUCCESS ||
        zinf_cuda_recording_failed(cudaErrorStreamCaptureInvalidated, what))
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

void zinf_cuda_matmul_open(size_t scratch_bytes, bool tf32)
{
    library.tf32 = tf32;
    library.workspace_bytes = scratch_bytes < WORKSPACE ? scratch_bytes : WORKSPACE;
    library.open = load();
    if (library.open)
        must(api.cublasLtCreate(&library.handle), "cublasLtCreate");
}

static void destroy(struct product *p)
{
    api.cublasLtMatmulDescDestroy(p->operation);
    api.cublasLtMatrixLayoutDestroy(p->a);
    api.cublasLtMatrixLayoutDestroy(p->b);
    api.cublasLtMatrixLayoutDestroy(p->c);
}

void zinf_cuda_matmul_close(void)
{
    for (struct product *p = library.products, *next; p; p = next) {
        next = p->next;
        destroy(p);
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

static bool has_bias(const struct product *p)
{
    return p->key.epilogue == ZINF_PRODUCT_BIAS || p->key.epilogue == ZINF_PRODUCT_BIAS_GELU;
}

/* Where an operation's result goes: beside what is kept of it, where the library makes both. */
static void *result_of(const struct product *p, const struct zinf_matmul *op)
{
    return p->fused && op->activated ? op->activated : op->c;
}

/* The addresses of what an epilogue reads and writes beside the result. */
static void set_pointers(struct product *p, const struct zinf_matmul *op)
{
    const void *other = op->slope_of ? op->slope_of : op->c;
    if (has_bias(p))
        set(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &op->bias, sizeof op->bias);
    if (p->fused)
        set(p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &other, sizeof other);
}

static cublasLtEpilogue_t epilogue_of(const struct product *p)
{
    static const cublasLtEpilogue_t fused[ZINF_PRODUCT_EPILOGUES] = {
        [ZINF_PRODUCT_GELU] = CUBLASLT_EPILOGUE_GELU_AUX,
        [ZINF_PRODUCT_BIAS_GELU] = CUBLASLT_EPILOGUE_GELU_AUX_BIAS,
        [ZINF_PRODUCT_SLOPE] = CUBLASLT_EPILOGUE_DGELU};
    if (p->fused)
        return fused[p->key.epilogue];
    return has_bias(p) ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
}

/* Of operands at `op`'s addresses: the library reads how they are aligned. */
static void describe(struct product *p, const struct zinf_matmul *op)
{
    const struct zinf_product *s = &p->key;
    const cublasLtEpilogue_t epilogue = epilogue_of(p);
    cublasOperation_t ours[2] = {s->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N,
                                 s->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N};
    cublasComputeType_t compute =
        s->dtype == ZINF_FP32 && library.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    must(api.cublasLtMatmulDescCreate(&p->operation, compute, CUDA_R_32F),
         "cublasLtMatmulDescCreate");
    set(p, CUBLASLT_MATMUL_DESC_TRANSA, &ours[1], sizeof ours[1]);
    set(p, CUBLASLT_MATMUL_DESC_TRANSB, &ours[0], sizeof ours[0]);
    set(p, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    if (p->fused)
        set(p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &s->ldc, sizeof s->ldc);
    set_pointers(p, op);
    p->a = layout(s->dtype, s->transpose_a ? s->k : s->m, s->transpose_a ? s->m : s->k, s->lda);
    p->b = layout(s->dtype, s->transpose_b ? s->n : s->k, s->transpose_b ? s->k : s->n, s->ldb);
    p->c = layout(s->c_dtype, s->m, s->n, s->ldc);
}

/* The library's algorithms for a product, the one it thinks the fastest first. @return how many */
static int ask(const struct product *p, cublasLtMatmulHeuristicResult_t *results, int room)
{
    cublasLtMatmulPreference_t preference = NULL;
    uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    size_t workspace = library.workspace_bytes;
    int found = 0, good = 0;
    must(api.cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t bytes;
    } wishes[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &p->key.alignment[1], sizeof(int32_t)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &p->key.alignment[0], sizeof(int32_t)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &p->key.alignment[2], sizeof(int32_t)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &p->key.alignment[2], sizeof(int32_t)},
    };
    for (size_t i = 0; i < sizeof wishes / sizeof *wishes; i++)
        must(api.cublasLtMatmulPreferenceSetAttribute(preference, wishes[i].name, wishes[i].value,
                                                      wishes[i].bytes),
             "cublasLtMatmulPreferenceSetAttribute");
    cublasStatus_t status = api.cublasLtMatmulAlgoGetHeuristic(
        library.handle, p->operation, p->b, p->a, p->c, p->c, preference, room, results, &found);
    api.cublasLtMatmulPreferenceDestroy(preference);
    if (status != CUBLAS_STATUS_SUCCESS)
        return 0;
    for (int i = 0; i < found; i++)
        if (results[i].state == CUBLAS_STATUS_SUCCESS)
            results[good++] = results[i];
    return good;
}

static cublasStatus_t run(struct product *p, const struct zinf_matmul *op,
                          const cublasLtMatmulAlgo_t *algorithm)
{
    const float one = 1.0f, beta = op->accumulate ? 1.0f : 0.0f;
    void *result = result_of(p, op);
    set_pointers(p, op);
    return api.cublasLtMatmul(library.handle, p->operation, &one, op->b, p->b, op->a, p->a, &beta,
                              result, p->c, result, p->c, algorithm,
                              zinf_cuda_scratch(library.workspace_bytes), library.workspace_bytes,
                              zinf_cuda_stream());
}

static struct product *find(const struct zinf_product *key)
{
    for (struct product *p = library.products; p; p = p->next)
        if (!memcmp(&p->key, key, sizeof *key))
            return p;
    return NULL;
}

/* With the library's first algorithm. */
static struct product *make(const struct zinf_product *key, const struct zinf_matmul *op)
{
    cublasLtMatmulHeuristicResult_t first;
    struct product *p = zinf_alloc(sizeof *p);
    p->key = *key;
    describe(p, op);
    p->usable = ask(p, &first, 1) > 0;
    if (p->usable)
        p->algorithm = first.algo;
    p->next = library.products;
    library.products = p;
    return p;
}

/* ---- before the first step ---- */

_Static_assert(sizeof(cublasLtMatmulAlgo_t) == ZINF_PRODUCT_ALGORITHM_BYTES,
               "an algorithm is kept as plain data");

void zinf_cuda_matmul_source(char *out, size_t out_bytes)
{
    if (library.open)
        snprintf(out, out_bytes, "cuBLASLt %d%s",
                 zinf_cuda_cublaslt.version(zinf_cuda_cublaslt.handle),
                 library.tf32 ? " with TF32" : "");
    else
        *out = '\0';
}

/* Operands that nobody touches, aligned as the product's. */
static struct zinf_matmul nowhere(const struct zinf_product *product)
{
    return zinf_product_at(product, (char *)(uintptr_t)(1 << 20));
}

int zinf_cuda_matmul_candidates(const struct zinf_product *product, bool fused,
                                struct zinf_cuda_algorithm *algorithms, int room)
{
    const struct zinf_matmul op = nowhere(product);
    cublasLtMatmulHeuristicResult_t *results = zinf_alloc((size_t)room * sizeof *results);
    struct product p = {.key = *product, .fused = fused};
    int found = 0;
    pthread_mutex_lock(&library.lock);
    if (library.open) {
        describe(&p, &op);
        found = ask(&p, results, room);
        destroy(&p);
    }
    pthread_mutex_unlock(&library.lock);
    for (int i = 0; i < found; i++)
        memcpy(&algorithms[i], &results[i].algo, sizeof *algorithms);
    free(results);
    return found;
}

/* Does the library take it for these operands? */
static bool check(const struct product *p, const cublasLtMatmulAlgo_t *algorithm)
{
    cublasLtMatmulHeuristicResult_t result;
    return api.cublasLtMatmulAlgoCheck(library.handle, p->operation, p->b, p->a, p->c, p->c,
                                       algorithm, &result) == CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= library.workspace_bytes;
}

bool zinf_cuda_matmul_set(const struct zinf_product *product, bool fused,
                          const struct zinf_cuda_algorithm *algorithm)
{
    const struct zinf_matmul op = nowhere(product);
    struct product own = {.key = *product, .fused = fused, .usable = true};
    bool done = library.open;
    pthread_mutex_lock(&library.lock);
    struct product *p = library.open ? find(product) : NULL;
    if (library.open && !p)
        p = make(product, &op);
    if (p && algorithm) {
        memcpy(&own.algorithm, algorithm, sizeof own.algorithm);
        describe(&own, &op);
        done = check(&own, &own.algorithm);
        own.next = p->next;
        destroy(done ? p : &own);
        if (done)
            *p = own;
    }
    pthread_mutex_unlock(&library.lock);
    return done;
}

/* ---- in a step ---- */

/* The last resort of the caller, told once. */
static void tell_slow(const struct zinf_product *product)
{
    char name[160];
    if (library.told)
        return;
    library.told = true;
    zinf_product_name(product, name, sizeof name);
    zinf_warn("cuBLASLt has no algorithm for a product %s (rows aligned to %d, %d, %d bytes): it "
              "runs on zinf's own kernel, which is slower",
              name, product->alignment[0], product->alignment[1], product->alignment[2]);
}

enum zinf_cuda_made zinf_cuda_matmul_library(const struct zinf_matmul *op)
{
    struct zinf_matmul own = *op;
    struct zinf_product key;
    if (!library.open || op->k == 0) /* an empty sum has no algorithm */
        return ZINF_CUDA_NOTHING;
    if (op->c_dtype != op->dtype) /* the library's bias has the type of c */
        own.bias = NULL;
    zinf_product_of(&own, &key);
    pthread_mutex_lock(&library.lock);
    struct product *p = find(&key);
    if (!p) {
        char name[160];
        zinf_product_name(&key, name, sizeof name);
        zinf_debug("product     %s was not prepared: by the library's first algorithm", name);
        p = make(&key, &own);
    }
    if (p->usable)
        must(run(p, &own, &p->algorithm), "cublasLtMatmul");
    else
        tell_slow(&key);
    const enum zinf_cuda_made made = !p->usable ? ZINF_CUDA_NOTHING
                                     : p->fused ? ZINF_CUDA_ALL
                                                : ZINF_CUDA_PRODUCT;
    pthread_mutex_unlock(&library.lock);
    if (made && zinf_cuda_synchronous())
        CUDA_CHECK(cudaStreamSynchronize(zinf_cuda_stream()));
    if (made && op->bias && !own.bias)
        zinf_cuda_add_bias(op);
    return made;
}
