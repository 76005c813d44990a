/*
 * config.json -> the plain fields of struct zinf_model, by the family's tables. Every value is
 * checked here, once: what the rest of zinf sees is in range and computable. Refused by name is
 * what would change the mathematics; unknown keys are left alone, as transformers does, since
 * folders carry many that concern generation or other heads (fields.c knows them apart).
 *
 * Problems go to a function of the caller's with key and value, not to a file and line: the object
 * may be merged from a folder's file and the inline object of ds.json.
 */
#include "model/families.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A failure sticks in `status`; the reads behind it go on, so that one look shows all of them. */
struct reader {
    struct zinf_model *model;
    const struct zinf_json *config;
    zinf_model_problem_fn say;
    void *context;
    int status;
};

static void fail(struct reader *reader, const char *key, const struct zinf_json *value,
                 const char *right)
{
    reader->status = ZINF_E_DATA;
    reader->say(reader->context, key, value, right);
}

/* NULL for absent and null: both mean the default, in transformers too. */
static const struct zinf_json *lookup(const struct zinf_json *object, const char *key)
{
    const struct zinf_json *value = key ? zinf_json_get(object, key) : NULL;
    return value && value->type != ZINF_JSON_NULL ? value : NULL;
}

static void read_integer(struct reader *reader, const struct zinf_family_integer *field)
{
    int64_t *to = (int64_t *)((char *)reader->model + field->offset);
    const struct zinf_json *value = lookup(reader->config, field->key);
    const struct zinf_json *alias = lookup(reader->config, field->alias);
    const char *key = value ? field->key : field->alias;
    char right[128];
    snprintf(right, sizeof(right), "it must be an integer from 1 to %lld",
             (long long)field->maximum);
    *to = -1; /* wrong: derive() leaves it alone */
    if (value && alias && value->integer != alias->integer) {
        snprintf(right, sizeof(right), "\"%s\" is another name of it and says something else",
                 field->alias);
        fail(reader, field->key, value, right);
        return;
    }
    value = value ? value : alias;
    if (!value)
        *to = field->otherwise;
    else if (value->type != ZINF_JSON_INTEGER || value->integer < 1 ||
             value->integer > field->maximum)
        fail(reader, key, value, right);
    else
        *to = value->integer;
}

static bool in_range(const struct zinf_json *value, const struct zinf_family_number *field)
{
    bool number = value->type == ZINF_JSON_INTEGER || value->type == ZINF_JSON_NUMBER;
    return number && value->number >= field->minimum && value->number < field->below;
}

static void number_text(const struct zinf_family_number *field, char *out, size_t bytes)
{
    snprintf(out, bytes, "it must be a number, at least %g and below %g", field->minimum,
             field->below);
}

static void read_number(struct reader *reader, const struct zinf_family_number *field, double *to)
{
    const struct zinf_json *value = lookup(reader->config, field->key);
    char right[128];
    *to = value && in_range(value, field) ? value->number : field->otherwise;
    if (!value || in_range(value, field))
        return;
    number_text(field, right, sizeof right);
    fail(reader, field->key, value, right);
}

static void read_switch(struct reader *reader, const char *key, bool otherwise, bool *to)
{
    const struct zinf_json *value = lookup(reader->config, key);
    if (value && value->type != ZINF_JSON_BOOL)
        fail(reader, key, value, "it must be true or false");
    else
        *to = value ? value->boolean : otherwise;
}

static void check_refusal(struct reader *reader, const struct zinf_family_refusal *refusal)
{
    const struct zinf_json *value = lookup(reader->config, refusal->key);
    if (!value)
        return;
    bool number = value->type == ZINF_JSON_INTEGER || value->type == ZINF_JSON_NUMBER;
    bool container = value->type == ZINF_JSON_OBJECT || value->type == ZINF_JSON_ARRAY;
    if (refusal->only == ZINF_ONLY_FALSE && !(value->type == ZINF_JSON_BOOL && !value->boolean))
        fail(reader, refusal->key, value, "zinf computes models with false only");
    if (refusal->only == ZINF_ONLY_ONE && !(number && value->number == 1))
        fail(reader, refusal->key, value, "zinf computes models with 1 only");
    if (refusal->only == ZINF_ONLY_EMPTY && !(container && value->count == 0))
        fail(reader, refusal->key, value, "zinf computes models without it only");
}

/*
 * Names of transformers' ACT2FN. gelu_fast and quick_gelu are other functions, or the same with
 * other constants: refused, since the results would differ from what the folder's authors trained.
 */
static void read_activation(struct reader *reader, const struct zinf_family *family)
{
    static const struct {
        const char *name;
        enum zinf_activation kind;
    } kinds[] = {{"gelu_new", ZINF_GELU_TANH}, {"gelu_pytorch_tanh", ZINF_GELU_TANH},
                 {"gelu", ZINF_GELU_ERF},      {"relu", ZINF_RELU},
                 {"silu", ZINF_SILU},          {"swish", ZINF_SILU}};
    const struct zinf_json *value = lookup(reader->config, family->activation_key);
    const char *name = family->activation;
    if (value)
        name = value->type == ZINF_JSON_STRING ? value->string : "";
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
        if (strcmp(kinds[i].name, name) == 0) {
            reader->model->activation = kinds[i].kind;
            return;
        }
    fail(reader, family->activation_key, value,
         "known are gelu_new, gelu_pytorch_tanh, gelu, relu, silu, swish");
}

/* torch.nn.Embedding's padding_idx: negative numbers count from the end. */
static void read_padding(struct reader *reader, const struct zinf_family *family)
{
    struct zinf_model *model = reader->model;
    const struct zinf_json *value = lookup(reader->config, "pad_token_id");
    model->padding_row = -1;
    if (!family->padding_row_zero || !value)
        return;
    if (value->type != ZINF_JSON_INTEGER || value->integer >= model->vocab ||
        value->integer < -model->vocab)
        fail(reader, "pad_token_id", value, "it must be an id below vocab_size, or null");
    else
        model->padding_row = value->integer + (value->integer < 0 ? model->vocab : 0);
}

/* "rope_type" (transformers from 4.43) or "type" of the object. */
static void read_rope_type(struct reader *reader, const struct zinf_json *object, const char *place,
                           struct zinf_rope_scaling *rope)
{
    const char *key = lookup(object, "rope_type") ? "rope_type" : "type";
    const struct zinf_json *value = lookup(object, key);
    const char *name = !value ? "default" : value->type == ZINF_JSON_STRING ? value->string : "";
    char path[64];
    snprintf(path, sizeof(path), "%s.%s", place, key);
    if (strcmp(name, "default") == 0)
        rope->type = ZINF_ROPE_DEFAULT;
    else if (strcmp(name, "linear") == 0)
        rope->type = ZINF_ROPE_LINEAR;
    else if (strcmp(name, "llama3") == 0)
        rope->type = ZINF_ROPE_LLAMA3;
    else
        fail(reader, path, value, "known are default, linear, llama3");
}

/* A number of config.json (place "") or of its rope object; `otherwise` NAN = required. */
static double rope_number(struct reader *reader, const char *place, const char *key,
                          double otherwise)
{
    const struct zinf_json *object = *place ? lookup(reader->config, place) : reader->config;
    const struct zinf_json *value = lookup(object, key);
    const struct zinf_family_number field = {key, otherwise, 1e-9, 1e18, 0};
    char path[96], right[128];
    snprintf(path, sizeof path, "%s%s%s", place, *place ? "." : "", key);
    if (!value && isnan(otherwise))
        fail(reader, path, NULL, "this rope_type needs it");
    if (!value || in_range(value, &field))
        return value ? value->number : otherwise;
    number_text(&field, right, sizeof right);
    fail(reader, path, value, right);
    return otherwise;
}

/*
 * transformers 4 writes rope_theta and rope_scaling, 5 writes rope_parameters with rope_theta
 * inside. Order of precedence: transformers 5's
 * RotaryEmbeddingConfigMixin.convert_rope_params_to_dict().
 */
static void read_rope(struct reader *reader, const struct zinf_family *family,
                      struct zinf_rope_scaling *rope)
{
    const struct zinf_json *config = reader->config;
    const char *place = "rope_scaling";
    const struct zinf_json *object = lookup(config, place);
    if (!object || (object->type == ZINF_JSON_OBJECT && object->count == 0))
        object = lookup(config, place = "rope_parameters");
    if (object && object->type != ZINF_JSON_OBJECT) {
        fail(reader, place, object, "it must be an object or null");
        return;
    }
    for (size_t i = 0; object && i < object->count; i++)
        if (object->members[i]->type == ZINF_JSON_OBJECT)
            fail(reader, place, object, "zinf computes models with one kind for all layers only");
    const struct zinf_json *partial = lookup(object, "partial_rotary_factor");
    if (partial && partial->number != 1)
        fail(reader, "partial_rotary_factor", partial, "zinf computes models with 1 only");
    read_rope_type(reader, object, place, rope);
    rope->theta = rope_number(reader, "", "rope_theta", family->rope_theta);
    rope->theta = rope_number(reader, place, "rope_theta", rope->theta);
    if (rope->type != ZINF_ROPE_DEFAULT)
        rope->factor = rope_number(reader, place, "factor", NAN);
    if (rope->type != ZINF_ROPE_LLAMA3)
        return;
    const char *original = "original_max_position_embeddings";
    rope->low = rope_number(reader, place, "low_freq_factor", NAN);
    rope->high = rope_number(reader, place, "high_freq_factor", NAN);
    rope->original = rope_number(reader, place, original, (double)reader->model->positions);
    rope->original = rope_number(reader, "", original, rope->original);
    if (rope->low >= rope->high) { /* false where one of them is missing */
        char path[64];
        snprintf(path, sizeof path, "%s.low_freq_factor", place);
        fail(reader, path, lookup(object, "low_freq_factor"), "it must be below high_freq_factor");
    }
}

/* In fp32, step by step as transformers' modeling_rope_utils.py does, so that long contexts turn by
 * the same angles. */
static float inverse_frequency(const struct zinf_rope_scaling *rope, int64_t i, int64_t head_size)
{
    float exponent = (float)(2 * i) / (float)head_size;
    float frequency = 1.0f / (float)pow(rope->theta, exponent);
    if (rope->type == ZINF_ROPE_LINEAR)
        return frequency / (float)rope->factor;
    if (rope->type == ZINF_ROPE_DEFAULT)
        return frequency;
    /* Llama 3.1: low frequencies divided by factor, high ones left, a linear blend between
     * (wavelengths in positions). */
    float wavelength = (float)(2 * M_PI) / frequency;
    if (wavelength > (float)(rope->original / rope->low))
        return frequency / (float)rope->factor;
    if (wavelength < (float)(rope->original / rope->high))
        return frequency;
    float smooth =
        ((float)rope->original / wavelength - (float)rope->low) / (float)(rope->high - rope->low);
    return (1 - smooth) * frequency / (float)rope->factor + smooth * frequency;
}

static void make_rope(struct zinf_model *model, const struct zinf_rope_scaling *rope)
{
    model->inverse_frequency = zinf_alloc((size_t)(model->head_size / 2) * sizeof(float));
    for (int64_t i = 0; i < model->head_size / 2; i++)
        model->inverse_frequency[i] = inverse_frequency(rope, i, model->head_size);
}

/* How this file spells the number of heads. */
static const char *heads_key(const struct reader *reader, const struct zinf_family *family)
{
    const struct zinf_family_integer *field = family->integers;
    while (field->offset != offsetof(struct zinf_model, heads))
        field++;
    return field->alias && lookup(reader->config, field->alias) ? field->alias : field->key;
}

/* What is not written follows from the rest; what does not fit together is said with all values.
 */
static void derive(struct reader *reader, const struct zinf_family *family)
{
    struct zinf_model *model = reader->model;
    const char *right = NULL;
    if (model->hidden < 1 || model->heads < 1 || model->kv_heads < 0 || model->head_size < 0)
        return;
    if (model->hidden % model->heads != 0)
        right = "the hidden size must be a multiple of the number of heads";
    if (!model->kv_heads)
        model->kv_heads = model->heads;
    if (!model->head_size)
        model->head_size = model->hidden / model->heads;
    if (!model->features)
        model->features = 4 * model->hidden;
    if (!right && model->heads % model->kv_heads != 0)
        right = "the number of heads must be a multiple of the number of key-value heads";
    else if (!right && model->head_size > 256)
        right = "zinf computes heads of at most 256";
    else if (!right && model->rotary && model->head_size % 2 != 0)
        right = "rotary positions need an even head size";
    if (!right)
        return;
    char text[256];
    snprintf(text, sizeof text,
             "%s (hidden size %lld, heads %lld, key-value heads %lld, head size %lld)", right,
             (long long)model->hidden, (long long)model->heads, (long long)model->kv_heads,
             (long long)model->head_size);
    const char *key = heads_key(reader, family);
    const struct zinf_json *value = lookup(reader->config, key);
    struct zinf_json otherwise = {.type = ZINF_JSON_INTEGER, .integer = model->heads};
    fail(reader, key, value ? value : &otherwise, text);
}

int zinf_settings_read(struct zinf_model *model, struct zinf_settings *settings,
                       const struct zinf_family *family, zinf_model_problem_fn say, void *context)
{
    struct reader reader = {model, model->config, say, context, 0};
    for (const struct zinf_family_integer *field = family->integers; field->key; field++)
        read_integer(&reader, field);
    derive(&reader, family);
    for (const struct zinf_family_number *field = family->numbers; field->key; field++)
        read_number(&reader, field, (double *)((char *)model + field->offset));
    for (const struct zinf_family_switch *field = family->switches; field->key; field++)
        read_switch(&reader, field->key, field->otherwise, (bool *)((char *)model + field->offset));
    for (const struct zinf_family_refusal *refusal = family->refusals; refusal->key; refusal++)
        check_refusal(&reader, refusal);
    read_activation(&reader, family);
    read_padding(&reader, family);
    if (zinf_family_reads(family, "attention_bias"))
        read_switch(&reader, "attention_bias", false, &settings->attention_bias);
    if (zinf_family_reads(family, "mlp_bias"))
        read_switch(&reader, "mlp_bias", false, &settings->mlp_bias);
    const struct zinf_family_number range = {"initializer_range", 0.02, 1e-12, 1e6, 0};
    read_number(&reader, &range, &settings->init_std);
    bool scaled = true;
    if (family->scale_switch)
        read_switch(&reader, family->scale_switch, true, &scaled);
    if (model->rotary)
        read_rope(&reader, family, &model->rope);
    if (reader.status)
        return reader.status;
    model->attention_scale_base = scaled ? 1 / sqrt((double)model->head_size) : 1;
    if (model->rotary)
        make_rope(model, &model->rope);
    return 0;
}
