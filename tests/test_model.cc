// The parameter table: names and shapes against transformers' own, blocks and tiles, what is
// refused and how, initial values.
#include "model/model.h"

#include <cmath>
#include <cstring>
#include <gtest/gtest.h>
#include <string>
#include <vector>

#include "data/model_names.h"

namespace
{
struct Model {
    zinf_model *model = nullptr;
    zinf_error error = {};
    int status = -99;
    explicit Model(const std::string &text)
    {
        zinf_json_options options = {"config.json", true, ZINF_E_DATA, false};
        zinf_error_list errors = {};
        zinf_json *config = nullptr;
        EXPECT_EQ(zinf_json_parse(&config, text.data(), text.size(), &options, &errors), 0) << text;
        if (config)
            status = zinf_model_new(&model, config, "config.json", &error);
        EXPECT_EQ(status == 0, model != nullptr);
        zinf_json_free(config);
        zinf_error_list_release(&errors);
    }
    ~Model()
    {
        zinf_model_free(model);
    }
    Model(const Model &) = delete;
    const zinf_model *operator->() const
    {
        return model;
    }
};

const char tiny_gpt2[] =
    R"("model_type":"gpt2","vocab_size":96,"n_positions":32,"n_embd":48,"n_layer":2,"n_head":4)";
const char tiny_llama[] =
    R"("model_type":"llama","vocab_size":96,"max_position_embeddings":32,"hidden_size":64,
    "num_hidden_layers":2,"num_attention_heads":2,"intermediate_size":80)";

std::string with(const char *base, const std::string &more)
{
    return "{" + std::string(base) + (more.empty() ? "" : ",") + more + "}";
}

void expect_names(const char *config, const std::vector<stored_param> &expected)
{
    Model model(config);
    ASSERT_EQ(model.status, 0) << model.error.text;
    ASSERT_EQ((size_t)model->param_count, expected.size());
    int64_t total = 0;
    for (size_t i = 0; i < expected.size(); i++) {
        const zinf_param &param = model->params[i];
        EXPECT_STREQ(param.name, expected[i].name);
        EXPECT_EQ(param.shape[0], expected[i].rows) << param.name;
        EXPECT_EQ(param.dim_count, expected[i].columns ? 2 : 1) << param.name;
        EXPECT_EQ(param.shape[1], expected[i].columns ? expected[i].columns : 1) << param.name;
        EXPECT_EQ(zinf_model_find(model.model, expected[i].name), (int)i);
        total += param.count;
    }
    EXPECT_EQ(model->total_count, total);
}

TEST(Model, NamesShapesAndOrderAreThoseOfTransformers)
{
    expect_names(gpt2_tied_config, gpt2_tied_params);
    expect_names(gpt2_untied_config, gpt2_untied_params);
    expect_names(llama_biases_config, llama_biases_params);
    expect_names(llama_tied_config, llama_tied_params);
}

TEST(Model, AnEmptyGpt2ConfigIsGpt2Small)
{
    Model model(R"({"model_type":"gpt2"})");
    ASSERT_EQ(model.status, 0) << model.error.text;
    EXPECT_EQ(model->total_count, 124439808); // transformers: num_parameters()
    EXPECT_EQ(model->matmul_count,
              124439808 - 1024 * 768); // the tied table counts, positions do not
    EXPECT_EQ(model->blocks[model->first_layer_block].element_count, 7087872);
    EXPECT_DOUBLE_EQ(zinf_model_flop_per_token(model.model, 256),
                     6.0 * model->matmul_count + 12.0 * 12 * 768 * 256);
    EXPECT_DOUBLE_EQ(model->attention_scale_base, 0.125);
    EXPECT_DOUBLE_EQ(model->embedding_dropout, 0.1);
    EXPECT_EQ(model->embedding_block_count, 6);
    EXPECT_EQ(model->position_block_count, 1);
    EXPECT_EQ(model->first_head_block, 0);
    EXPECT_EQ(model->head_block_count, 6);
    EXPECT_EQ(model->block_count, 6 + 1 + 12 + 1);
}

TEST(Model, AnEmptyLlamaConfigIsLlama7B)
{
    Model model(R"({"model_type":"llama"})");
    ASSERT_EQ(model.status, 0) << model.error.text;
    EXPECT_EQ(model->total_count, 6738415616);
    EXPECT_EQ(model->matmul_count, 6738415616 - 32000LL * 4096);
    EXPECT_EQ(model->first_head_block, model->final_norm_block + 1);
    EXPECT_FALSE(model->tied);
}

// Every element of every parameter lies in exactly one piece; pieces of a block do not overlap and
// lie in order.
void expect_cut_once(const Model &model)
{
    std::vector<std::vector<int>> seen(model->param_count);
    for (int i = 0; i < model->param_count; i++)
        seen[i].resize(model->params[i].count);
    for (int b = 0; b < model->block_count; b++) {
        const zinf_block &block = model->blocks[b];
        int64_t end = 0;
        for (int p = 0; p < block.piece_count; p++) {
            const zinf_piece &piece = block.pieces[p];
            EXPECT_GE(piece.block_offset, end);
            EXPECT_LT(piece.block_offset, end + 64);
            end = piece.block_offset + piece.count;
            for (int64_t e = 0; e < piece.count; e++)
                seen[piece.param].at(piece.param_offset + e)++;
        }
        EXPECT_EQ(end, block.element_count);
    }
    for (int i = 0; i < model->param_count; i++)
        for (int count : seen[i])
            ASSERT_EQ(count, 1) << model->params[i].name;
}

TEST(Model, EveryElementIsInExactlyOnePiece)
{
    for (const char *config :
         {gpt2_tied_config, gpt2_untied_config, llama_biases_config, llama_tied_config})
        expect_cut_once(Model(config));
    expect_cut_once(Model(
        R"({"model_type":"gpt2","vocab_size":5003,"n_positions":1030,"n_embd":20,"n_layer":1,"n_head":2})"));
}

TEST(Model, NoTileIsLargerThanALayerAndTilesAreEven)
{
    for (
        const char *text :
        {R"({"model_type":"gpt2"})", R"({"model_type":"llama"})",
         R"({"model_type":"gpt2","vocab_size":5003,"n_positions":1030,"n_embd":20,"n_layer":1,"n_head":2})",
         R"({"model_type":"llama","vocab_size":128256,"hidden_size":2048,"intermediate_size":8192,"num_key_value_heads":8})"}) {
        Model model(text);
        ASSERT_EQ(model.status, 0) << model.error.text;
        int64_t layer = model->blocks[model->first_layer_block].element_count;
        int64_t rows[5] = {0, 0, 0, 0, 0};
        for (int b = 0; b < model->block_count; b++) {
            const zinf_block &block = model->blocks[b];
            EXPECT_LE(block.element_count, layer);
            if (block.kind == ZINF_BLOCK_LAYER || block.kind == ZINF_BLOCK_FINAL_NORM)
                continue;
            EXPECT_EQ(block.first_row, rows[block.kind]);
            EXPECT_EQ(block.element_count, block.row_count * model->hidden);
            rows[block.kind] += block.row_count;
        }
        EXPECT_EQ(rows[ZINF_BLOCK_EMBEDDING], model->vocab);
        EXPECT_EQ(rows[ZINF_BLOCK_POSITION], model->rotary ? 0 : model->positions);
        EXPECT_EQ(rows[ZINF_BLOCK_HEAD], model->tied ? 0 : model->vocab);
    }
}

TEST(Model, LayerOffsetsPointAtTheGroups)
{
    Model model(llama_biases_config);
    const zinf_layer_offsets &at = model->layer;
    const zinf_block &block = model->blocks[model->first_layer_block];
    auto offset = [&](const char *name) {
        std::string full = std::string("model.layers.0.") + name;
        for (int p = 0; p < block.piece_count; p++)
            if (full == model->params[block.pieces[p].param].name)
                return block.pieces[p].block_offset;
        return (int64_t)-7;
    };
    EXPECT_EQ(at.qkv_weight % 64, 0);
    EXPECT_EQ(at.qkv_weight, offset("self_attn.q_proj.weight"));
    EXPECT_EQ(at.qkv_weight + 64 * 48, offset("self_attn.k_proj.weight")); // no gap inside a group
    EXPECT_EQ(at.qkv_weight + 96 * 48, offset("self_attn.v_proj.weight"));
    EXPECT_EQ(at.qkv_bias, offset("self_attn.q_proj.bias"));
    EXPECT_EQ(at.qkv_bias + 64, offset("self_attn.k_proj.bias"));
    EXPECT_EQ(at.out_bias, offset("self_attn.o_proj.bias"));
    EXPECT_EQ(at.up_weight, offset("mlp.gate_proj.weight"));
    EXPECT_EQ(at.up_weight + 80 * 48, offset("mlp.up_proj.weight"));
    EXPECT_EQ(at.down_weight, offset("mlp.down_proj.weight"));
    EXPECT_EQ(at.norm1_weight, 0);
    EXPECT_EQ(at.norm1_bias, -1);
}

TEST(Model, NamesAreFoundWithAndWithoutPrefixAndBuffersAreIgnored)
{
    Model gpt2(gpt2_tied_config), llama(llama_biases_config);
    EXPECT_EQ(zinf_model_find(gpt2.model, "wte.weight"), 0);
    EXPECT_EQ(zinf_model_find(gpt2.model, "h.1.attn.c_attn.bias"),
              zinf_model_find(gpt2.model, "transformer.h.1.attn.c_attn.bias"));
    EXPECT_EQ(zinf_model_find(gpt2.model, "h.2.attn.c_attn.bias"), -1);
    EXPECT_EQ(zinf_model_find(gpt2.model, "lm_head.weight"), -1);
    EXPECT_EQ(zinf_model_find(llama.model, "lm_head.weight"), llama->param_count - 1);
    // what DistributedDataParallel, torch.compile, PEFT and classes around a model leave before
    for (const char *name : {"module.transformer.wte.weight", "_orig_mod.module.wte.weight",
                             "model.transformer.wte.weight", "base_model.model.wte.weight"})
        EXPECT_EQ(zinf_model_find(gpt2.model, name), 0) << name;
    EXPECT_EQ(zinf_model_find(llama.model, "model.model.layers.0.mlp.up_proj.weight"),
              zinf_model_find(llama.model, "layers.0.mlp.up_proj.weight"));
    EXPECT_EQ(zinf_model_find(llama.model, "vision.layers.0.mlp.up_proj.weight"), -1);
    EXPECT_TRUE(zinf_model_ignores(gpt2.model, "module.lm_head.weight"));
    EXPECT_TRUE(zinf_model_ignores(gpt2.model, "h.0.attn.bias"));
    EXPECT_TRUE(zinf_model_ignores(gpt2.model, "transformer.h.0.attn.masked_bias"));
    EXPECT_TRUE(zinf_model_ignores(gpt2.model, "lm_head.weight"));
    EXPECT_FALSE(zinf_model_ignores(gpt2.model, "h.0.attn.c_attn.bias"));
    EXPECT_FALSE(zinf_model_ignores(gpt2.model, "score.weight"));
    EXPECT_TRUE(zinf_model_ignores(llama.model, "model.layers.0.self_attn.rotary_emb.inv_freq"));
    EXPECT_FALSE(zinf_model_ignores(llama.model, "lm_head.weight"));
}

void expect_refused(const std::string &config, std::vector<std::string> words)
{
    Model model(config);
    EXPECT_EQ(model.status, ZINF_E_DATA) << config;
    words.push_back("config.json");
    for (const std::string &word : words)
        EXPECT_NE(std::string(model.error.text).find(word), std::string::npos)
            << word << " in: " << model.error.text;
}

TEST(Model, WhatChangesTheMathematicsIsRefusedByNameAndValue)
{
    expect_refused(R"({"model_type":"bert"})", {"bert", "gpt2", "llama"});
    expect_refused(R"({"n_layer":3})", {"model_type", "missing"});
    expect_refused(with(tiny_gpt2, R"("activation_function":"gelu_fast")"),
                   {"activation_function", "gelu_fast", "gelu_new"});
    expect_refused(with(tiny_gpt2, R"("activation_function":7)"), {"activation_function", "7"});
    expect_refused(with(tiny_gpt2, R"("add_cross_attention":true)"),
                   {"add_cross_attention", "true"});
    expect_refused(with(tiny_gpt2, R"("pruned_heads":{"0":[1]})"), {"pruned_heads", "[1]"});
    expect_refused(with(tiny_llama, R"("quantization_config":{"bits":4})"),
                   {"quantization_config", "4"});
    expect_refused(with(tiny_llama, R"("rope_scaling":{"rope_type":"yarn","factor":2.0})"),
                   {"rope_scaling.rope_type", "yarn", "llama3"});
    expect_refused(with(tiny_llama, R"("rope_parameters":{"rope_type":"dynamic","factor":2.0})"),
                   {"rope_parameters.rope_type", "dynamic"});
    expect_refused(with(tiny_llama, R"("rope_scaling":{"type":"linear"})"), {"factor", "missing"});
    expect_refused(
        with(
            tiny_llama,
            R"("rope_scaling":{"type":"llama3","factor":8,"low_freq_factor":4,"high_freq_factor":1})"),
        {"low_freq_factor", "4"});
    expect_refused(with(tiny_llama, R"("rope_scaling":"linear")"), {"rope_scaling", "object"});
    expect_refused(
        with(tiny_llama, R"("rope_parameters":{"full_attention":{"rope_type":"default"}})"),
        {"rope_parameters", "full_attention"});
    expect_refused(with(tiny_llama, R"("partial_rotary_factor":0.5)"),
                   {"partial_rotary_factor", "0.5"});
    expect_refused(with(tiny_llama, R"("rope_parameters":{"partial_rotary_factor":0.25})"),
                   {"partial_rotary_factor", "0.25"});
}

TEST(Model, ValuesOutOfRangeAreNamed)
{
    expect_refused(with(tiny_gpt2, R"("n_inner":0)"), {"n_inner", "0"});
    expect_refused(R"({"model_type":"gpt2","n_layer":-1})", {"n_layer", "-1"});
    expect_refused(R"({"model_type":"gpt2","n_layer":1e30})", {"n_layer", "1e"});
    expect_refused(R"({"model_type":"gpt2","n_embd":"768"})", {"n_embd", "\"768\""});
    expect_refused(R"({"model_type":"gpt2","n_embd":768,"hidden_size":512})",
                   {"n_embd", "768", "hidden_size"});
    expect_refused(R"({"model_type":"gpt2","n_embd":100})", {"100", "12", "multiple"});
    expect_refused(R"({"model_type":"gpt2","n_embd":1024,"n_head":2})", {"512", "256"});
    expect_refused(R"({"model_type":"llama","num_key_value_heads":5})", {"32", "5", "key-value"});
    expect_refused(R"({"model_type":"llama","head_dim":33})", {"33", "even"});
    expect_refused(with(tiny_gpt2, R"("resid_pdrop":1.0)"), {"resid_pdrop", "1"});
    expect_refused(with(tiny_gpt2, R"("resid_pdrop":true)"), {"resid_pdrop", "true"});
    expect_refused(with(tiny_gpt2, R"("initializer_range":0)"), {"initializer_range", "0"});
    expect_refused(with(tiny_gpt2, R"("scale_attn_weights":1)"),
                   {"scale_attn_weights", "true or false"});
    expect_refused(with(tiny_llama, R"("pad_token_id":96)"), {"pad_token_id", "96"});
}

TEST(Model, SettingsAreReadInAllSpellings)
{
    Model aliases(
        R"({"model_type":"gpt2","hidden_size":64,"num_hidden_layers":1,"num_attention_heads":2,"max_position_embeddings":16})");
    ASSERT_EQ(aliases.status, 0) << aliases.error.text;
    EXPECT_EQ(aliases->hidden, 64);
    EXPECT_EQ(aliases->positions, 16);
    EXPECT_EQ(aliases->features, 256);
    Model gpt2(
        with(tiny_gpt2,
             R"("scale_attn_weights":false,"scale_attn_by_inverse_layer_idx":true,"attn_pdrop":0.25,
        "activation_function":"relu","n_inner":null,"reorder_and_upcast_attn":true,"pruned_heads":{},"dtype":"float32")"));
    ASSERT_EQ(gpt2.status, 0) << gpt2.error.text;
    EXPECT_EQ(gpt2->attention_scale_base, 1);
    EXPECT_TRUE(gpt2->attention_scale_by_layer);
    EXPECT_EQ(gpt2->attention_dropout, 0.25);
    EXPECT_EQ(gpt2->activation, ZINF_RELU);
    EXPECT_EQ(gpt2->features, 192);
    EXPECT_EQ(gpt2->inverse_frequency, nullptr);
    Model llama(with(
        tiny_llama,
        R"("pretraining_tp":2,"torch_dtype":"bfloat16","attention_dropout":0.5,"pad_token_id":-1)"));
    ASSERT_EQ(llama.status, 0) << llama.error.text;
    EXPECT_EQ(llama->attention_dropout, 0.5);
    EXPECT_EQ(llama->kv_heads, 2);
    EXPECT_EQ(llama->padding_row, 95);
}

TEST(Model, RotaryFrequenciesAreThoseOfTransformers)
{
    const struct {
        const char *config;
        const std::vector<double> &expected;
    } cases[] = {{rope_plain_config, rope_plain_frequencies},
                 {rope_linear_config, rope_linear_frequencies},
                 {rope_llama3_config, rope_llama3_frequencies}};
    for (const auto &test : cases) {
        Model model(with(tiny_llama, test.config));
        ASSERT_EQ(model.status, 0) << model.error.text;
        ASSERT_EQ(model->head_size / 2, (int64_t)test.expected.size());
        for (size_t i = 0; i < test.expected.size();
             i++) // two roundings to fp32 may differ between math libraries
            EXPECT_NEAR(model->inverse_frequency[i], test.expected[i], 2.5e-7 * test.expected[i])
                << test.config << i;
    }
}

TEST(Model, Llama3RopeIsTheSameInTheSpellingOfTransformers4)
{
    Model v4(with(
        tiny_llama,
        R"("rope_theta":10000.0,"rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,
        "high_freq_factor":4.0,"original_max_position_embeddings":256})"));
    Model v5(with(tiny_llama, rope_llama3_config)), plain(with(tiny_llama, ""));
    ASSERT_EQ(v4.status, 0) << v4.error.text;
    EXPECT_EQ(zinf_model_fingerprint(v4.model), zinf_model_fingerprint(v5.model));
    EXPECT_NE(zinf_model_fingerprint(v4.model), zinf_model_fingerprint(plain.model));
}

TEST(Model, FingerprintTellsModelsApart)
{
    Model base(with(tiny_gpt2, ""));
    EXPECT_EQ(zinf_model_fingerprint(base.model),
              zinf_model_fingerprint(Model(with(tiny_gpt2, R"("use_cache":false)")).model));
    for (const char *more :
         {R"("n_inner":200)", R"("tie_word_embeddings":false)", R"("attn_pdrop":0)",
          R"("layer_norm_epsilon":1e-6)", R"("activation_function":"gelu")",
          R"("scale_attn_by_inverse_layer_idx":true)"})
        EXPECT_NE(zinf_model_fingerprint(base.model),
                  zinf_model_fingerprint(Model(with(tiny_gpt2, more)).model))
            << more;
}

std::string differences(const Model &a, const Model &b)
{
    const char *const where[2] = {"there", "here"};
    char text[1000];
    zinf_model_differences(a.model, b.model, where, text, sizeof text);
    return text;
}

TEST(Model, WhatTellsTwoModelsApartIsNamedWithBothValues)
{
    const struct {
        const char *base, *more, *expected;
    } cases[] = {
        {tiny_gpt2, R"("n_inner":200)", "n_inner is 192 there, 200 here"},
        {tiny_gpt2, R"("tie_word_embeddings":false)",
         "tie_word_embeddings is true there, false here"},
        {tiny_gpt2, R"("attn_pdrop":0,"resid_pdrop":0.25)",
         "attn_pdrop is 0.1 there, 0.0 here; resid_pdrop is 0.1 there, 0.25 here"},
        {tiny_gpt2, R"("activation_function":"relu")",
         "activation_function is gelu_new there, relu here"},
        {tiny_gpt2, R"("scale_attn_weights":false)",
         "scale_attn_weights is true there, false here"},
        {tiny_gpt2, R"("scale_attn_by_inverse_layer_idx":true)",
         "scale_attn_by_inverse_layer_idx is false there, true here"},
        {tiny_llama, R"("mlp_bias":true)", "mlp_bias is false there, true here"},
        {tiny_llama, R"("pad_token_id":-1)", "pad_token_id is null there, 95 here"},
        {tiny_llama, R"("num_key_value_heads":1)", "num_key_value_heads is 2 there, 1 here"},
        {tiny_llama, R"("rope_theta":5e5)", "rope_theta is 10000.0 there, 500000.0 here"},
        {tiny_llama, R"("rope_scaling":{"type":"linear","factor":4})",
         "rope_type is default there, linear here; factor is not set there, 4.0 here"}};
    for (const auto &test : cases) {
        Model base(with(test.base, "")), other(with(test.base, test.more));
        ASSERT_EQ(other.status, 0) << other.error.text;
        EXPECT_NE(zinf_model_fingerprint(base.model), zinf_model_fingerprint(other.model));
        EXPECT_EQ(test.expected, differences(base, other));
    }
}

TEST(Model, EqualModelsDifferInNothingHoweverTheyAreSpelt)
{
    EXPECT_EQ("", differences(Model(with(tiny_gpt2, "")),
                              Model(with(tiny_gpt2, R"("n_inner":192,"activation_function":
                                                     "gelu_pytorch_tanh","use_cache":false)"))));
    Model v4(with(tiny_llama, R"("rope_scaling":{"type":"linear","factor":4})"));
    Model v5(with(tiny_llama, R"("rope_parameters":
                                 {"rope_type":"linear","factor":4.0,"rope_theta":1e4})"));
    ASSERT_EQ(v5.status, 0) << v5.error.text;
    EXPECT_EQ("", differences(v4, v5));
}

TEST(Model, WhatFollowsFromADifferenceIsNotOne)
{
    Model wide(
        R"({"model_type":"gpt2","vocab_size":96,"n_positions":32,"n_embd":96,"n_layer":2,"n_head":4})");
    EXPECT_EQ("n_embd is 48 there, 96 here", differences(Model(with(tiny_gpt2, "")), wide));
    EXPECT_EQ("model_type is gpt2 there, llama here",
              differences(wide, Model(with(tiny_llama, ""))));
}

std::vector<float> initial(const Model &model, const char *name, uint64_t seed)
{
    int param = zinf_model_find(model.model, name);
    EXPECT_GE(param, 0) << name;
    std::vector<float> values(model->params[param].count);
    zinf_model_init_values(model.model, param, seed, 0, (int64_t)values.size(), values.data());
    return values;
}

// Mean within 5 standard errors, variance too (standard error of a normal's variance: sigma^2
// sqrt(2 / n)).
void expect_moments(const std::vector<float> &values, double std)
{
    double n = (double)values.size(), sum = 0, squares = 0;
    for (float value : values) {
        sum += value;
        squares += (double)value * value;
    }
    EXPECT_NEAR(sum / n, 0, 5 * std / sqrt(n));
    EXPECT_NEAR(squares / n, std * std, 5 * std * std * sqrt(2 / n));
}

TEST(Model, InitialValuesHaveTheFamilysMoments)
{
    Model gpt2(
        R"({"model_type":"gpt2","vocab_size":500,"n_embd":64,"n_layer":8,"n_head":2,"initializer_range":0.05})");
    expect_moments(initial(gpt2, "wte.weight", 1), 0.05);
    expect_moments(initial(gpt2, "wpe.weight", 1), 0.05);
    expect_moments(initial(gpt2, "h.3.attn.c_attn.weight", 1), 0.05);
    expect_moments(initial(gpt2, "h.3.attn.c_proj.weight", 1), 0.05 / 4); // sqrt(2 * 8 layers)
    expect_moments(initial(gpt2, "h.3.mlp.c_proj.weight", 1), 0.05 / 4);
    for (float value : initial(gpt2, "h.3.ln_1.weight", 1))
        EXPECT_EQ(value, 1);
    for (const char *zero :
         {"h.3.ln_1.bias", "h.3.attn.c_attn.bias", "h.3.mlp.c_proj.bias", "ln_f.bias"})
        for (float value : initial(gpt2, zero, 1))
            EXPECT_EQ(value, 0) << zero;
    Model llama(llama_biases_config);
    expect_moments(initial(llama, "layers.0.self_attn.o_proj.weight", 1), 0.02);
    expect_moments(initial(llama, "lm_head.weight", 1), 0.02);
}

TEST(Model, InitialValuesDependOnSeedNameAndElementOnly)
{
    Model model(gpt2_tied_config);
    std::vector<float> whole = initial(model, "h.0.mlp.c_fc.weight", 7), sliced(whole.size());
    int param = zinf_model_find(model.model, "h.0.mlp.c_fc.weight");
    const int64_t cuts[] = {0, 1, 2, 67, 1000, 1001, 5003, (int64_t)whole.size()};
    for (size_t i = 7; i-- > 0;) // from the back: the order must not matter either
        zinf_model_init_values(model.model, param, 7, cuts[i], cuts[i + 1] - cuts[i],
                               sliced.data() + cuts[i]);
    EXPECT_EQ(memcmp(whole.data(), sliced.data(), whole.size() * sizeof(float)), 0);
    EXPECT_NE(whole, initial(model, "h.1.mlp.c_fc.weight", 7));
    EXPECT_NE(whole, initial(model, "h.0.mlp.c_fc.weight", 8));
}

TEST(Model, ThePaddingRowOfLlamaStartsAtZero)
{
    Model model(with(tiny_llama, R"("pad_token_id":3)"));
    std::vector<float> whole = initial(model, "embed_tokens.weight", 1), part(100);
    for (int64_t i = 0; i < 96 * 64; i++)
        EXPECT_EQ(whole[i] == 0, i / 64 == 3) << i;
    zinf_model_init_values(model.model, 0, 1, 3 * 64 - 10, 100, part.data());
    EXPECT_EQ(memcmp(part.data(), whole.data() + 3 * 64 - 10, 100 * sizeof(float)), 0);
    EXPECT_NE(initial(model, "lm_head.weight", 1)[3 * 64], 0);
}
} // namespace
