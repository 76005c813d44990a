/*
 * What embedding.c, transformer.c and head.c share: lookups and products on a flat block's groups, dropout of a place, the scratch of a
 * pass. Internal to src/model.
 */
#ifndef ZINF_MODEL_PASS_H
#define ZINF_MODEL_PASS_H

#include "model/transformer.h"

#ifdef __cplusplus
extern "C" {
#endif

enum zinf_dropout_kind {
    ZINF_DROPOUT_EMBEDDING,
    ZINF_DROPOUT_ATTENTION,
    ZINF_DROPOUT_AFTER_ATTENTION,
    ZINF_DROPOUT_AFTER_MLP
};

/** Dropout of one place of this pass; p = 0 when it does not train. */
struct zinf_dropout zinf_pass_dropout(const struct zinf_pass *pass, int layer,
                                      enum zinf_dropout_kind kind, double p);

/** The same of the residual stream, with an addition. */
struct zinf_dropout_add zinf_pass_dropout_add(const struct zinf_pass *pass, int layer,
                                              enum zinf_dropout_kind kind, double p);

/** zinf_ops_zero() in the pass's dtype. */
void zinf_pass_zero(const struct zinf_pass *pass, void *to, int64_t count);

static inline int64_t zinf_pass_tokens(const struct zinf_pass *pass)
{
    return pass->batch * pass->sequence;
}

/** Element `offset` of an array of the pass's dtype; NULL for offset -1 (the family has no such group). */
const void *zinf_pass_at(const struct zinf_pass *pass, const void *base, int64_t offset);
void *zinf_pass_to(const struct zinf_pass *pass, void *base, int64_t offset);

/** Places in a memory that is cut up from the front, each at a multiple of 64 bytes. */
struct zinf_carver {
    char *base;  /* NULL: only count */
    size_t used; /* bytes */
};
void *zinf_carve(struct zinf_carver *carver, int64_t count, size_t element_bytes);

/** Bytes of scratch of the layer functions and of the head's. */
size_t zinf_layer_scratch_bytes(const struct zinf_model *model, enum zinf_dtype dtype, int64_t batch,
                                int64_t sequence);
size_t zinf_head_scratch_bytes(const struct zinf_model *model, enum zinf_dtype dtype, int64_t tokens);

#ifdef __cplusplus
}
#endif
#endif
