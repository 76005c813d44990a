/*
 * What tells models apart, in the words of config.json: what a person is told when a checkpoint and
 * a configuration, or two ranks, do not mean the same model. Values are those that are computed
 * with, defaults filled in, so that two spellings of one model have equal traits.
 */
#include "model/families.h"

#include <stdlib.h>
#include <string.h>

struct traits {
    struct zinf_model_trait *items;
    int count;
};

static bool is_written(const struct zinf_model *model, const char *key)
{
    const struct zinf_json *value = key ? zinf_json_get(model->config, key) : NULL;
    return value && value->type != ZINF_JSON_NULL;
}

static struct zinf_model_trait *add(struct traits *traits, const struct zinf_model *model,
                                    const char *key)
{
    ZINF_ASSERT(traits->count < ZINF_MODEL_TRAITS);
    struct zinf_model_trait *trait = &traits->items[traits->count++];
    *trait = (struct zinf_model_trait){.key = key, .is_written = is_written(model, key)};
    return trait;
}

static void add_text(struct traits *traits, const struct zinf_model *model, const char *key,
                     const char *value)
{
    struct zinf_model_trait *trait = add(traits, model, key);
    snprintf(trait->value, sizeof trait->value, "%s", value);
}

static void add_bool(struct traits *traits, const struct zinf_model *model, const char *key,
                     bool value)
{
    add_text(traits, model, key, value ? "true" : "false");
}

static void add_number(struct traits *traits, const struct zinf_model *model, const char *key,
                       double value)
{
    struct zinf_json *number = zinf_json_new_number(value);
    char *text = zinf_json_print(number, -1);
    add_text(traits, model, key, text);
    free(text);
    zinf_json_free(number);
}

/* The tables of families.c. Rotary positions have no table, so their number makes no other model.
 */
static void add_tables(struct traits *traits, const struct zinf_model *model,
                       const struct zinf_family *family)
{
    const char *at = (const char *)model;
    for (const struct zinf_family_integer *field = family->integers; field->key; field++) {
        if (model->rotary && field->offset == offsetof(struct zinf_model, positions))
            continue;
        struct zinf_model_trait *trait = add(traits, model, field->key);
        trait->is_written = trait->is_written || is_written(model, field->alias);
        snprintf(trait->value, sizeof trait->value, "%lld",
                 (long long)*(const int64_t *)(at + field->offset));
    }
    for (const struct zinf_family_number *field = family->numbers; field->key; field++)
        add_number(traits, model, field->key, *(const double *)(at + field->offset));
    for (const struct zinf_family_switch *field = family->switches; field->key; field++)
        add_bool(traits, model, field->key, *(const bool *)(at + field->offset));
}

/* Only those that its rope_type computes with. */
static void add_rope(struct traits *traits, const struct zinf_model *model)
{
    const struct zinf_rope_scaling *rope = &model->rope;
    const int first = traits->count;
    add_text(traits, model, "rope_type",
             (const char *const[]){"default", "linear", "llama3"}[rope->type]);
    add_number(traits, model, "rope_theta", rope->theta);
    if (rope->type != ZINF_ROPE_DEFAULT)
        add_number(traits, model, "factor", rope->factor);
    if (rope->type == ZINF_ROPE_LLAMA3) {
        add_number(traits, model, "low_freq_factor", rope->low);
        add_number(traits, model, "high_freq_factor", rope->high);
        add_number(traits, model, "original_max_position_embeddings", rope->original);
    }
    for (int i = first; i < traits->count; i++)
        traits->items[i].is_written = true; /* somewhere, under one of several names */
}

int zinf_model_traits(const struct zinf_model *model,
                      struct zinf_model_trait items[ZINF_MODEL_TRAITS])
{
    static const char *const activations[] = {[ZINF_GELU_TANH] = "gelu_new",
                                              [ZINF_GELU_ERF] = "gelu",
                                              [ZINF_RELU] = "relu",
                                              [ZINF_SILU] = "silu"};
    const struct zinf_family *family = zinf_family_find(model->family);
    struct traits traits = {.items = items};
    add_text(&traits, model, "model_type", model->family);
    add_tables(&traits, model, family);
    add_text(&traits, model, family->activation_key, activations[model->activation]);
    for (const char *const *key = (const char *const[]){"attention_bias", "mlp_bias", NULL}; *key;
         key++)
        if (zinf_family_reads(family, *key))
            add_bool(&traits, model, *key, zinf_json_bool(model->config, *key, false));
    if (family->scale_switch)
        add_bool(&traits, model, family->scale_switch,
                 zinf_json_bool(model->config, family->scale_switch, true));
    if (family->padding_row_zero) {
        struct zinf_model_trait *trait = add(&traits, model, "pad_token_id");
        if (model->padding_row >= 0)
            snprintf(trait->value, sizeof trait->value, "%lld", (long long)model->padding_row);
        else
            snprintf(trait->value, sizeof trait->value, "null");
    }
    if (model->rotary)
        add_rope(&traits, model);
    return traits.count;
}

static const struct zinf_model_trait *find(const struct zinf_model_trait *traits, int count,
                                           const char *key)
{
    for (int i = 0; i < count; i++)
        if (!strcmp(traits[i].key, key))
            return &traits[i];
    return NULL;
}

/* "; n_embd is 16 there, 32 here", the "; " behind the first only. A side without it: "not set". */
static void add_difference(char *out, size_t bytes, const struct zinf_model_trait *one,
                           const struct zinf_model_trait *two, const char *const where[2])
{
    const size_t used = strlen(out);
    snprintf(out + used, bytes - used, "%s%s is %s %s, %s %s", used ? "; " : "",
             one ? one->key : two->key, one ? one->value : "not set", where[0],
             two ? two->value : "not set", where[1]);
}

void zinf_model_differences(const struct zinf_model *a, const struct zinf_model *b,
                            const char *const where[2], char *out, size_t out_bytes)
{
    struct zinf_model_trait one[ZINF_MODEL_TRAITS], two[ZINF_MODEL_TRAITS];
    const int count = zinf_model_traits(a, one), others = zinf_model_traits(b, two);
    *out = '\0';
    if (strcmp(one->value, two->value) != 0) { /* of another family everything is different */
        add_difference(out, out_bytes, one, two, where);
        return;
    }
    for (int i = 0; i < count; i++) {
        const struct zinf_model_trait *other = find(two, others, one[i].key);
        const bool follows = other && !one[i].is_written && !other->is_written;
        if (!follows && (!other || strcmp(one[i].value, other->value) != 0))
            add_difference(out, out_bytes, &one[i], other, where);
    }
    for (int i = 0; i < others; i++)
        if (!find(one, count, two[i].key))
            add_difference(out, out_bytes, NULL, &two[i], where);
}
