/*
 * Which algorithm makes which matrix product: a table that all ranks of a job share and a checkpoint keeps. A library has many algorithms for a
 * product; they differ in speed and, by the order of their sums, in bits. So rank 0 times them before the first step and the others do
 * what it has chosen; a run that goes on takes the choice of the run before it. What is chosen is plain data of the library, good for the
 * same version of it on the same kind of device (`source`).
 *
 * Who does what: src/model/products.c lists the products of a pass; the backend of a device times and makes them (zinf_device_products in
 * device.h); src/train/products.c leads. A product that is not in the table is made by the library's first algorithm, on every rank.
 */
#ifndef ZINF_DEVICE_PRODUCTS_H
#define ZINF_DEVICE_PRODUCTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "device/ops.h"
#include "topology/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * What is made of the sums. Of activations only the tanh form of GELU, which cuBLASLt has: an operation with another is listed by its product, as
 * is one whose rows are not of a multiple of 8 elements.
 */
enum zinf_product_epilogue {
    ZINF_PRODUCT_PLAIN,
    ZINF_PRODUCT_BIAS,
    ZINF_PRODUCT_GELU,      /* f(c) beside c */
    ZINF_PRODUCT_BIAS_GELU,
    ZINF_PRODUCT_SLOPE,     /* c times f' */
    ZINF_PRODUCT_EPILOGUES
};

enum { ZINF_PRODUCT_OPERANDS = 5, ZINF_PRODUCT_ALIGNMENT = 16, ZINF_PRODUCT_ALGORITHM_BYTES = 64 };

/** What an algorithm may depend on. Compared as bytes: zero it before it is filled. */
struct zinf_product {
    int64_t m, n, k, lda, ldb, ldc;
    int32_t dtype, c_dtype, transpose_a, transpose_b, accumulate, epilogue;
    int32_t alignment[ZINF_PRODUCT_OPERANDS]; /* bytes that every row of a, b, c, the bias and `activated` or `slope_of` begin at a multiple of, at most 16; 0: it has none */
};

struct zinf_product_choice {
    struct zinf_product product;
    int32_t candidate, candidates; /* number of the algorithm in the library's order, of how many; candidates 0: not chosen, the library's first */
    int32_t fused;                 /* the activation is the algorithm's too; 0: an operation of its own follows */
    int32_t bytes;                 /* of algorithm; 0: not chosen */
    unsigned char algorithm[ZINF_PRODUCT_ALGORITHM_BYTES]; /* the library's plain data */
    double seconds, first_s;       /* one operation by it, and by the library's first; not part of the text */
};

struct zinf_products {
    char source[320]; /* library with version, device, and how it was chosen: one line */
    struct zinf_product_choice *items;
    int count;
};

/** The product that `op` is. */
void zinf_product_of(const struct zinf_matmul *op, struct zinf_product *product);
/** Has it an activation that an algorithm may make? */
bool zinf_product_activates(const struct zinf_product *product);
/** Bytes that operands of `product` take behind each other, and an operation with such operands at `memory` (aligned to 256 bytes). */
size_t zinf_product_bytes(const struct zinf_product *product);
struct zinf_matmul zinf_product_at(const struct zinf_product *product, char *memory);
/** "bf16 1024 x 768 x 3072", for a log. */
void zinf_product_name(const struct zinf_product *product, char *out, size_t bytes);

/** A zeroed table is empty. add(): the product's row, made if there is none; valid until the next. find(): NULL when there is none. */
struct zinf_product_choice *zinf_products_add(struct zinf_products *products,
                                              const struct zinf_product *product);
const struct zinf_product_choice *zinf_products_find(const struct zinf_products *products,
                                                     const struct zinf_product *product);
void zinf_products_release(struct zinf_products *products);

/** The table as text: the source, then a line a product; owned by the caller. */
char *zinf_products_print(const struct zinf_products *products);
/** @param products  out, empty before. @return 0, or ZINF_E_CHECKPOINT and `error` names the line; `products` is empty then */
int zinf_products_parse(struct zinf_products *products, const char *text, struct zinf_error *error);

/** The first rank whose `source` is not rank 0's; -1: all have the same. `theirs` becomes that rank's. Collective. */
int zinf_products_other_source(struct zinf_comm *comm, const char *source, char theirs[320]);
/** Rank 0's table on every rank. Collective. */
void zinf_products_share(struct zinf_products *products, struct zinf_comm *comm);

#ifdef __cplusplus
}
#endif
#endif
