/*
 * A libcublasLt that any machine can load: the calls that cuda/matmul.c makes, carried out in
 * memory of the host, in the order of a fake stream. It has four algorithms for a product, which
 * add in different orders and so give different bits; a fifth it says it cannot use. What one takes
 * is counted on a clock of its own (fake_cublaslt_s), by ZINF_FAKE_CUBLASLT="fast=N[,version=V]":
 * algorithm N is three times as fast as the others; "rank": the one of the rank's number.
 * version=V: what it says of itself; "rank": another on each rank. fuse=1: activations that it
 * makes are cheap.
 *
 * It is as strict as the library: a descriptor that lacks what its epilogue needs, a workspace that
 * is not there, an algorithm of another version, are refused.
 */
#include <cublasLt.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake_stream.h"

enum { ALGORITHMS = 4, MAGIC = 0x5a1f };

struct operation {
    int32_t compute, transpose_a, transpose_b, epilogue;
    const void *bias, *other;
    int64_t other_ld;
};

struct matrix {
    int32_t type;
    uint64_t rows, columns;
    int64_t ld;
};

_Static_assert(sizeof(struct operation) <= sizeof(cublasLtMatmulDescOpaque_t), "it is kept inside");
_Static_assert(sizeof(struct matrix) <= sizeof(cublasLtMatrixLayoutOpaque_t), "it is kept inside");

struct work {
    struct operation operation;
    struct matrix a, b, d;
    const void *a_at, *b_at;
    void *d_at;
    float beta;
    int algorithm;
    struct fake_stream *stream;
};

static double spent_s;

double fake_cublaslt_s(void);
double fake_cublaslt_s(void)
{
    return spent_s;
}

/* The number that the environment gives for `name`, a rank's own for "rank". */
static long setting(const char *name, long otherwise)
{
    const char *text = getenv("ZINF_FAKE_CUBLASLT"), *rank = getenv("PMI_RANK");
    const char *at = text ? strstr(text, name) : NULL;
    if (!at)
        return otherwise;
    if (!rank)
        rank = getenv("OMPI_COMM_WORLD_RANK");
    at += strlen(name);
    return strncmp(at, "rank", 4) ? atol(at) : rank ? atol(rank) : 0;
}

size_t cublasLtGetVersion(void)
{
    return (size_t)setting("version=", CUBLAS_VERSION);
}

/* ---- products ---- */

static float load(int32_t type, const void *matrix, int64_t i)
{
    float value;
    if (type == CUDA_R_32F) {
        value = ((const float *)matrix)[i];
    } else if (type == CUDA_R_16BF) {
        uint32_t bits = (uint32_t)((const uint16_t *)matrix)[i] << 16;
        memcpy(&value, &bits, sizeof value);
    } else {
        value = (float)((const _Float16 *)matrix)[i];
    }
    return value;
}

static void store(int32_t type, void *matrix, int64_t i, float value)
{
    if (type == CUDA_R_32F) {
        ((float *)matrix)[i] = value;
    } else if (type == CUDA_R_16BF) {
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        bits = isnan(value) ? bits | 1 << 22 : bits + 0x7fff + (bits >> 16 & 1);
        ((uint16_t *)matrix)[i] = (uint16_t)(bits >> 16);
    } else {
        ((_Float16 *)matrix)[i] = (_Float16)value;
    }
}

/* A factor: 10 of its 23 bits are left where TF32 is allowed. */
static float factor(const struct work *w, int32_t type, const void *matrix, int64_t i)
{
    float value = load(type, matrix, i);
    uint32_t bits;
    if (w->operation.compute != CUBLAS_COMPUTE_32F_FAST_TF32)
        return value;
    memcpy(&bits, &value, sizeof bits);
    bits = (bits + 0x1000) & ~(uint32_t)0x1fff;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Algorithm n adds n + 1 sums, each over every n + 1-st part of k. */
static float sum_of(const struct work *w, const void *a, const void *b, int64_t i, int64_t j)
{
    const struct operation *o = &w->operation;
    const int64_t k = (int64_t)(o->transpose_a ? w->a.rows : w->a.columns);
    const int64_t a_row = o->transpose_a ? w->a.ld : 1, a_k = o->transpose_a ? 1 : w->a.ld;
    const int64_t b_column = o->transpose_b ? 1 : w->b.ld, b_k = o->transpose_b ? w->b.ld : 1;
    float sum = 0;
    for (int first = 0; first <= w->algorithm; first++) {
        float part = 0;
        for (int64_t at = first; at < k; at += w->algorithm + 1)
            part += factor(w, w->a.type, a, i * a_row + at * a_k) *
                    factor(w, w->b.type, b, at * b_k + j * b_column);
        sum += part;
    }
    return sum;
}

/* GELU in its tanh form, and its slope. */
static float gelu(float x, bool slope)
{
    const double outer = 0.7978845608028654, inner = 0.044715;
    double t = tanh(outer * (x + inner * x * x * x));
    if (!slope)
        return (float)(0.5 * x * (1 + t));
    return (float)(0.5 * (1 + t) + 0.5 * x * (1 - t * t) * outer * (1 + 3 * inner * x * x));
}

/* What an epilogue makes of a sum that is not rounded. */
static float finish(const struct work *w, void *other, int64_t at, float x)
{
    switch (w->operation.epilogue) {
    case CUBLASLT_EPILOGUE_GELU_AUX:
    case CUBLASLT_EPILOGUE_GELU_AUX_BIAS:
        store(w->d.type, other, at, x);
        return gelu(x, false);
    case CUBLASLT_EPILOGUE_DGELU:
        return x * gelu(load(w->d.type, other, at), true);
    default:
        return x;
    }
}

/* An algorithm that makes an activation takes half of the time of the product, or one and a half.
 */
static double cost_of(const struct work *w)
{
    const double s = w->algorithm == setting("fast=", 0) % ALGORITHMS ? 1e-3 : 3e-3;
    if (w->operation.epilogue == CUBLASLT_EPILOGUE_DEFAULT ||
        w->operation.epilogue == CUBLASLT_EPILOGUE_BIAS)
        return s;
    return setting("fuse=", 0) ? s / 2 : s * 3 / 2;
}

static bool carry_out(void *context)
{
    struct work *w = context;
    const void *a = w->stream->bytes_of(w->a_at), *b = w->stream->bytes_of(w->b_at);
    const void *bias = w->operation.bias ? w->stream->bytes_of(w->operation.bias) : NULL;
    void *d = w->stream->bytes_of(w->d_at);
    void *other = w->operation.other ? w->stream->bytes_of(w->operation.other) : NULL;
    for (int64_t j = 0; j < (int64_t)w->d.columns; j++)
        for (int64_t i = 0; i < (int64_t)w->d.rows; i++) {
            float x = sum_of(w, a, b, i, j);
            if (bias)
                x += load(w->d.type, bias, i);
            if (w->beta != 0)
                x += w->beta * load(w->d.type, d, i + j * w->d.ld);
            x = finish(w, other, i + j * w->operation.other_ld, x);
            store(w->d.type, d, i + j * w->d.ld, x);
        }
    spent_s += cost_of(w);
    free(w);
    return true;
}

static bool is_whole(const struct operation *o, const struct matrix *a, const struct matrix *b,
                     const struct matrix *d)
{
    uint64_t m = o->transpose_a ? a->columns : a->rows, k = o->transpose_a ? a->rows : a->columns;
    uint64_t n = o->transpose_b ? b->rows : b->columns;
    if (m != d->rows || n != d->columns || k != (o->transpose_b ? b->columns : b->rows))
        return false;
    if (a->ld < (int64_t)a->rows || b->ld < (int64_t)b->rows || d->ld < (int64_t)d->rows)
        return false;
    const bool half = d->type != CUDA_R_32F;
    const bool other = half && o->other && o->other_ld % 8 == 0 && o->other_ld >= (int64_t)d->rows;
    switch (o->epilogue) {
    case CUBLASLT_EPILOGUE_DEFAULT:
        return true;
    case CUBLASLT_EPILOGUE_BIAS:
        return o->bias;
    case CUBLASLT_EPILOGUE_GELU_AUX_BIAS:
        return other && o->bias;
    case CUBLASLT_EPILOGUE_GELU_AUX:
    case CUBLASLT_EPILOGUE_DGELU:
        return other;
    default:
        return false;
    }
}

static bool is_ours(const cublasLtMatmulAlgo_t *algorithm)
{
    return algorithm->data[0] == MAGIC && algorithm->data[1] < ALGORITHMS &&
           algorithm->data[2] == cublasLtGetVersion();
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation,
                              const void *alpha, const void *a, cublasLtMatrixLayout_t a_layout,
                              const void *b, cublasLtMatrixLayout_t b_layout, const void *beta,
                              const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t *algorithm, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream)
{
    struct work *w = malloc(sizeof *w);
    if (!w || !handle || *(const float *)alpha != 1 || c != d || c_layout != d_layout ||
        !is_ours(algorithm) || !workspace || workspace_bytes < 4096) {
        free(w);
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    *w = (struct work){.a_at = a,
                       .b_at = b,
                       .d_at = d,
                       .beta = *(const float *)beta,
                       .algorithm = (int)algorithm->data[1],
                       .stream = (struct fake_stream *)stream};
    memcpy(&w->operation, operation, sizeof w->operation);
    memcpy(&w->a, a_layout, sizeof w->a);
    memcpy(&w->b, b_layout, sizeof w->b);
    memcpy(&w->d, d_layout, sizeof w->d);
    if (!is_whole(&w->operation, &w->a, &w->b, &w->d)) {
        free(w);
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    w->stream->append(w->stream, carry_out, w);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle,
                                              cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int room,
                                              cublasLtMatmulHeuristicResult_t *results, int *found)
{
    if (!handle || c != d || preference->data[0] == 0 ||
        !is_whole((struct operation *)operation, (struct matrix *)a, (struct matrix *)b,
                  (struct matrix *)d))
        return CUBLAS_STATUS_INVALID_VALUE;
    memset(results, 0, (size_t)room * sizeof *results);
    for (*found = 0; *found < room && *found <= ALGORITHMS; (*found)++) {
        bool usable = *found != 1; /* the second of five */
        cublasLtMatmulHeuristicResult_t *r = &results[*found];
        r->state = usable ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
        r->algo.data[0] = MAGIC;
        r->algo.data[1] = (uint64_t)(*found - (*found > 1));
        r->algo.data[2] = cublasLtGetVersion();
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algorithm,
                                       cublasLtMatmulHeuristicResult_t *result)
{
    if (!handle || c != d || !is_ours(algorithm) ||
        !is_whole((struct operation *)operation, (struct matrix *)a, (struct matrix *)b,
                  (struct matrix *)d))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    memset(result, 0, sizeof *result);
    result->workspaceSize = 4096;
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- descriptors ---- */

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    *handle = malloc(1);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    free(handle);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *made, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    const struct operation operation = {.compute = (int32_t)compute,
                                        .epilogue = CUBLASLT_EPILOGUE_DEFAULT};
    *made = calloc(1, sizeof **made);
    memcpy(*made, &operation, sizeof operation);
    return scale == CUDA_R_32F ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t operation)
{
    free(operation);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
    struct operation *o = (struct operation *)operation;
    const struct {
        cublasLtMatmulDescAttributes_t name;
        void *member;
        size_t bytes;
    } all[] = {{CUBLASLT_MATMUL_DESC_TRANSA, &o->transpose_a, sizeof o->transpose_a},
               {CUBLASLT_MATMUL_DESC_TRANSB, &o->transpose_b, sizeof o->transpose_b},
               {CUBLASLT_MATMUL_DESC_EPILOGUE, &o->epilogue, sizeof o->epilogue},
               {CUBLASLT_MATMUL_DESC_BIAS_POINTER, &o->bias, sizeof o->bias},
               {CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &o->other, sizeof o->other},
               {CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &o->other_ld, sizeof o->other_ld}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].name == attribute && all[i].bytes == bytes) {
            memcpy(all[i].member, value, bytes);
            return CUBLAS_STATUS_SUCCESS;
        }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *made, cudaDataType type,
                                          uint64_t rows, uint64_t columns, int64_t ld)
{
    const struct matrix matrix = {(int32_t)type, rows, columns, ld};
    *made = calloc(1, sizeof **made);
    memcpy(*made, &matrix, sizeof matrix);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    free(layout);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *made)
{
    *made = calloc(1, sizeof **made);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    free(preference);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes)
{
    if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES && bytes == sizeof(uint64_t))
        memcpy(preference->data, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}
