/*
 * Small words of a pass, see pass.h.
 */
#include "model/pass.h"

#include <math.h>

enum { CARVE_ALIGNMENT = 64 }; /* bytes: a cache line, and what the widest vectors load aligned */

struct zinf_dropout zinf_pass_dropout(const struct zinf_pass *pass, int layer,
                                      enum zinf_dropout_kind kind, double p)
{
    if (!pass->training || p == 0) /* no counters: what does not change looks the same */
        return (struct zinf_dropout){0};
    return (struct zinf_dropout){.key = pass->dropout_key,
                                 .step = pass->counters ? 0 : pass->step,
                                 .place = 8 * (uint32_t)layer + kind,
                                 .sample = pass->counters ? 0 : pass->first_sample,
                                 .p = (float)p,
                                 .counters = pass->counters};
}

struct zinf_dropout_add zinf_pass_dropout_add(const struct zinf_pass *pass, int layer,
                                              enum zinf_dropout_kind kind, double p)
{
    return (struct zinf_dropout_add){.dtype = pass->dtype,
                                     .batch = pass->batch,
                                     .per_sample = pass->sequence * pass->model->hidden,
                                     .dropout = zinf_pass_dropout(pass, layer, kind, p)};
}

void zinf_pass_zero(const struct zinf_pass *pass, void *to, int64_t count)
{
    zinf_ops_zero(pass->ops, pass->dtype, to, count);
}

void *zinf_pass_to(const struct zinf_pass *pass, void *base, int64_t offset)
{
    if (offset < 0)
        return NULL;
    return (char *)base + (size_t)offset * zinf_dtype_bytes(pass->dtype);
}

const void *zinf_pass_at(const struct zinf_pass *pass, const void *base, int64_t offset)
{
    if (offset < 0)
        return NULL;
    return (const char *)base + (size_t)offset * zinf_dtype_bytes(pass->dtype);
}

void *zinf_carve(struct zinf_carver *carver, int64_t count, size_t element_bytes)
{
    size_t begin = carver->used;
    size_t bytes = (size_t)count * element_bytes;
    carver->used += (bytes + CARVE_ALIGNMENT - 1) / CARVE_ALIGNMENT * CARVE_ALIGNMENT;
    return carver->base ? carver->base + begin : NULL;
}

size_t zinf_scratch_bytes(const struct zinf_model *model, enum zinf_dtype dtype, int64_t batch,
                          int64_t sequence)
{
    size_t layer = zinf_layer_scratch_bytes(model, dtype, batch, sequence);
    size_t head = zinf_head_scratch_bytes(model, dtype, batch * sequence);
    return layer > head ? layer : head;
}

/* The product of position and frequency is rounded to fp32 before its cosine is taken:
 * transformers' modeling_llama.py. */
void zinf_rope_table(const struct zinf_model *model, int64_t sequence, float *cosine, float *sine)
{
    const int64_t half = model->head_size / 2;
    for (int64_t s = 0; s < sequence; s++)
        for (int64_t i = 0; i < half; i++) {
            float angle = (float)s * model->inverse_frequency[i];
            cosine[s * half + i] = (float)cos((double)angle);
            sine[s * half + i] = (float)sin((double)angle);
        }
}
