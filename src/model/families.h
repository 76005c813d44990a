/*
 * What makes a model family different from the others, as data: spellings and defaults of config.json, names of parameters, traits.
 * A family that differs in data only (qwen2, mistral) is one more table in families.c; everything else stays as it is.
 *
 * Internal to src/model.
 */
#ifndef ZINF_MODEL_FAMILIES_H
#define ZINF_MODEL_FAMILIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/** An integer of config.json: 1 .. maximum, stored as int64_t at `offset` of struct zinf_model. */
struct zinf_family_integer {
    const char *key, *alias; /* alias: transformers' other name of the same value; NULL = none */
    int64_t otherwise;       /* when absent or null; 0 = derived from the others, see settings.c */
    int64_t maximum;
    size_t offset;
};

/** A number: minimum <= value < below, stored as double at `offset`. */
struct zinf_family_number {
    const char *key;
    double otherwise, minimum, below;
    size_t offset;
};

/** A truth value, stored as bool at `offset`. */
struct zinf_family_switch {
    const char *key;
    bool otherwise;
    size_t offset;
};

/** A key whose other values change the mathematics in a way zinf does not compute: absent, null, false, 1 or empty only. */
struct zinf_family_refusal {
    const char *key;
    enum { ZINF_ONLY_FALSE, ZINF_ONLY_ONE, ZINF_ONLY_EMPTY } only;
};

enum zinf_role {
    ZINF_ROLE_NORM1,
    ZINF_ROLE_QKV, /* q, k and v in one matrix */
    ZINF_ROLE_QUERY,
    ZINF_ROLE_KEY,
    ZINF_ROLE_VALUE,
    ZINF_ROLE_OUT,
    ZINF_ROLE_NORM2,
    ZINF_ROLE_GATE,
    ZINF_ROLE_UP,
    ZINF_ROLE_DOWN
};

enum zinf_bias { ZINF_BIAS_NEVER, ZINF_BIAS_ALWAYS, ZINF_BIAS_ATTENTION, ZINF_BIAS_MLP };

/** One module of a layer: "<prefix><layers>N.<name>.weight" and perhaps ".bias". */
struct zinf_family_module {
    enum zinf_role role;
    const char *name;
    enum zinf_bias bias; /* ATTENTION, MLP: when config.json's attention_bias, mlp_bias is true */
};

struct zinf_family {
    const char *name;   /* model_type */
    const char *architecture; /* transformers' class with its head */
    const char *prefix; /* of all names but the head's; a file may leave it out */
    const char *embedding, *position, *layers, *final_norm; /* behind the prefix; position NULL = rotary */
    const struct zinf_family_module *modules;               /* in state-dict order; role 0, name NULL at the end */
    const char *const *buffers; /* suffixes of names in weight files that are no parameters; NULL at the end */

    const struct zinf_family_integer *integers; /* key NULL at the end, as in the next three */
    const struct zinf_family_number *numbers;
    const struct zinf_family_switch *switches;
    const struct zinf_family_refusal *refusals;
    const char *activation_key, *activation; /* and its default */
    const char *const *others; /* further keys of config.json that settings.c reads; NULL at the end */
    const char *const *ignored; /* keys of transformers' class that change nothing here; NULL at the end */
    const char *scale_switch; /* false there: scores are not scaled by 1 / sqrt(head_size); NULL = always */
    double rope_theta;

    bool conv1d, rms_norm, gated;
    bool residual_init;    /* projections onto the residual stream start with std / sqrt(2 layers) */
    bool padding_row_zero; /* the embedding has torch's padding_idx = pad_token_id */
};

/** The family of that model_type, NULL when there is none. */
const struct zinf_family *zinf_family_find(const char *model_type);
/** All families; NULL behind the last. */
const struct zinf_family *const *zinf_family_all(void);

/** What config.json says besides what struct zinf_model keeps. */
struct zinf_settings {
    bool attention_bias, mlp_bias;
    double init_std;
};

/**
 * Read and check every value of model->config that the family knows: fills the plain fields of `model`. settings.c
 * @param say  called with `context` for each problem
 * @return 0 or ZINF_E_DATA
 */
int zinf_settings_read(struct zinf_model *model, struct zinf_settings *settings,
                       const struct zinf_family *family, zinf_model_problem_fn say, void *context);

/** Does settings.c read this key of config.json for this family? fields.c */
bool zinf_family_reads(const struct zinf_family *family, const char *key);

#ifdef __cplusplus
}
#endif
#endif
