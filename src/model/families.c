/*
 * The table of families. Defaults and names are those of transformers 5.23's GPT2Config /
 * GPT2LMHeadModel and LlamaConfig / LlamaForCausalLM; tests/test_model.cc holds the names against a
 * stored list of theirs.
 */
#include "model/families.h"

#include <string.h>

#define AT(field) offsetof(struct zinf_model, field)

/* Bounds that keep every count below 2^63: vocab * hidden, layers * hidden * features * 3. */
enum { MAX_IDS = INT32_MAX, MAX_WIDTH = 1 << 20, MAX_FEATURES = 1 << 24, MAX_LAYERS = 1 << 12 };

static const struct zinf_family_integer gpt2_integers[] = {
    {"vocab_size", NULL, 50257, MAX_IDS, AT(vocab)},
    {"n_positions", "max_position_embeddings", 1024, MAX_IDS, AT(positions)},
    {"n_embd", "hidden_size", 768, MAX_WIDTH, AT(hidden)},
    {"n_layer", "num_hidden_layers", 12, MAX_LAYERS, AT(layers)},
    {"n_head", "num_attention_heads", 12, MAX_WIDTH, AT(heads)},
    {"n_inner", NULL, 0, MAX_FEATURES, AT(features)},
    {NULL, NULL, 0, 0, 0}};

static const struct zinf_family_number gpt2_numbers[] = {
    {"layer_norm_epsilon", 1e-5, 0, 1, AT(norm_epsilon)},
    {"embd_pdrop", 0.1, 0, 1, AT(embedding_dropout)},
    {"attn_pdrop", 0.1, 0, 1, AT(attention_dropout)},
    {"resid_pdrop", 0.1, 0, 1, AT(residual_dropout)},
    {NULL, 0, 0, 0, 0}};

/* reorder_and_upcast_attn is not here: it changes rounding only, and our softmax is in fp32 always.
 */
static const struct zinf_family_switch gpt2_switches[] = {
    {"tie_word_embeddings", true, AT(tied)},
    {"scale_attn_by_inverse_layer_idx", false, AT(attention_scale_by_layer)},
    {NULL, false, 0}};

static const struct zinf_family_refusal gpt2_refusals[] = {{"add_cross_attention", ZINF_ONLY_FALSE},
                                                           {"is_encoder_decoder", ZINF_ONLY_FALSE},
                                                           {"pruned_heads", ZINF_ONLY_EMPTY},
                                                           {"quantization_config", ZINF_ONLY_EMPTY},
                                                           {NULL, ZINF_ONLY_FALSE}};

static const struct zinf_family_module gpt2_modules[] = {
    {ZINF_ROLE_NORM1, "ln_1", ZINF_BIAS_ALWAYS},
    {ZINF_ROLE_QKV, "attn.c_attn", ZINF_BIAS_ALWAYS},
    {ZINF_ROLE_OUT, "attn.c_proj", ZINF_BIAS_ALWAYS},
    {ZINF_ROLE_NORM2, "ln_2", ZINF_BIAS_ALWAYS},
    {ZINF_ROLE_UP, "mlp.c_fc", ZINF_BIAS_ALWAYS},
    {ZINF_ROLE_DOWN, "mlp.c_proj", ZINF_BIAS_ALWAYS},
    {ZINF_ROLE_NORM1, NULL, ZINF_BIAS_NEVER}};

/* The causal mask that old versions stored: a buffer, made anew by everybody. */
static const char *const gpt2_buffers[] = {".attn.bias", ".attn.masked_bias", NULL};

static const char *const no_others[] = {NULL};

/* n_ctx was n_positions once; transformers ignores it. */
static const char *const gpt2_ignored[] = {"n_ctx",
                                           "reorder_and_upcast_attn",
                                           "summary_type",
                                           "summary_use_proj",
                                           "summary_activation",
                                           "summary_proj_to_labels",
                                           "summary_first_dropout",
                                           NULL};

static const struct zinf_family gpt2 = {
    .name = "gpt2",
    .architecture = "GPT2LMHeadModel",
    .prefix = "transformer.",
    .embedding = "wte",
    .position = "wpe",
    .layers = "h.",
    .final_norm = "ln_f",
    .modules = gpt2_modules,
    .buffers = gpt2_buffers,
    .integers = gpt2_integers,
    .numbers = gpt2_numbers,
    .switches = gpt2_switches,
    .refusals = gpt2_refusals,
    .others = no_others,
    .ignored = gpt2_ignored,
    .activation_key = "activation_function",
    .activation = "gelu_new",
    .scale_switch = "scale_attn_weights",
    .conv1d = true,
    .residual_init = true,
};

static const struct zinf_family_integer llama_integers[] = {
    {"vocab_size", NULL, 32000, MAX_IDS, AT(vocab)},
    {"max_position_embeddings", NULL, 2048, MAX_IDS, AT(positions)},
    {"hidden_size", NULL, 4096, MAX_WIDTH, AT(hidden)},
    {"num_hidden_layers", NULL, 32, MAX_LAYERS, AT(layers)},
    {"num_attention_heads", NULL, 32, MAX_WIDTH, AT(heads)},
    {"num_key_value_heads", NULL, 0, MAX_WIDTH, AT(kv_heads)},
    {"head_dim", NULL, 0, MAX_WIDTH, AT(head_size)},
    {"intermediate_size", NULL, 11008, MAX_FEATURES, AT(features)},
    {NULL, NULL, 0, 0, 0}};

static const struct zinf_family_number llama_numbers[] = {
    {"rms_norm_eps", 1e-6, 0, 1, AT(norm_epsilon)},
    {"attention_dropout", 0, 0, 1, AT(attention_dropout)},
    {NULL, 0, 0, 0, 0}};

static const struct zinf_family_switch llama_switches[] = {{"tie_word_embeddings", false, AT(tied)},
                                                           {NULL, false, 0}};

/* pretraining_tp is not here: it only splits sums, and transformers 5 ignores it. */
static const struct zinf_family_refusal llama_refusals[] = {
    {"partial_rotary_factor", ZINF_ONLY_ONE}, {"add_cross_attention", ZINF_ONLY_FALSE},
    {"is_encoder_decoder", ZINF_ONLY_FALSE},  {"pruned_heads", ZINF_ONLY_EMPTY},
    {"quantization_config", ZINF_ONLY_EMPTY}, {NULL, ZINF_ONLY_FALSE}};

static const struct zinf_family_module llama_modules[] = {
    {ZINF_ROLE_QUERY, "self_attn.q_proj", ZINF_BIAS_ATTENTION},
    {ZINF_ROLE_KEY, "self_attn.k_proj", ZINF_BIAS_ATTENTION},
    {ZINF_ROLE_VALUE, "self_attn.v_proj", ZINF_BIAS_ATTENTION},
    {ZINF_ROLE_OUT, "self_attn.o_proj", ZINF_BIAS_ATTENTION},
    {ZINF_ROLE_GATE, "mlp.gate_proj", ZINF_BIAS_MLP},
    {ZINF_ROLE_UP, "mlp.up_proj", ZINF_BIAS_MLP},
    {ZINF_ROLE_DOWN, "mlp.down_proj", ZINF_BIAS_MLP},
    {ZINF_ROLE_NORM1, "input_layernorm", ZINF_BIAS_NEVER},
    {ZINF_ROLE_NORM2, "post_attention_layernorm", ZINF_BIAS_NEVER},
    {ZINF_ROLE_NORM1, NULL, ZINF_BIAS_NEVER}};

static const char *const llama_buffers[] = {".rotary_emb.inv_freq", NULL};

static const char *const llama_others[] = {"attention_bias",
                                           "mlp_bias",
                                           "rope_theta",
                                           "rope_scaling",
                                           "rope_parameters",
                                           "original_max_position_embeddings",
                                           NULL};
static const char *const llama_ignored[] = {"pretraining_tp", NULL};

static const struct zinf_family llama = {
    .name = "llama",
    .architecture = "LlamaForCausalLM",
    .prefix = "model.",
    .embedding = "embed_tokens",
    .layers = "layers.",
    .final_norm = "norm",
    .modules = llama_modules,
    .buffers = llama_buffers,
    .integers = llama_integers,
    .numbers = llama_numbers,
    .switches = llama_switches,
    .refusals = llama_refusals,
    .others = llama_others,
    .ignored = llama_ignored,
    .activation_key = "hidden_act",
    .activation = "silu",
    .rope_theta = 10000,
    .rms_norm = true,
    .gated = true,
    .padding_row_zero = true,
};

static const struct zinf_family *const families[] = {&gpt2, &llama, NULL};

const struct zinf_family *const *zinf_family_all(void)
{
    return families;
}

const struct zinf_family *zinf_family_find(const char *model_type)
{
    for (size_t i = 0; families[i]; i++)
        if (strcmp(families[i]->name, model_type) == 0)
            return families[i];
    return NULL;
}

const char *zinf_model_architecture(const char *model_type)
{
    const struct zinf_family *family = zinf_family_find(model_type);
    return family ? family->architecture : NULL;
}
