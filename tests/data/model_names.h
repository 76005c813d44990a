/* Made by tests/oracle/model_names.py with transformers 5.23.0; do not edit. */
struct stored_param {
    const char *name;
    int64_t rows, columns; /* columns 0: one dimension */
};
static const char gpt2_tied_config[] = R"({"model_type": "gpt2", "vocab_size": 96, "n_positions": 32, "n_embd": 48, "n_layer": 2, "n_head": 4})";
static const std::vector<stored_param> gpt2_tied_params = {
    {"transformer.wte.weight", 96, 48},
    {"transformer.wpe.weight", 32, 48},
    {"transformer.h.0.ln_1.weight", 48, 0},
    {"transformer.h.0.ln_1.bias", 48, 0},
    {"transformer.h.0.attn.c_attn.weight", 48, 144},
    {"transformer.h.0.attn.c_attn.bias", 144, 0},
    {"transformer.h.0.attn.c_proj.weight", 48, 48},
    {"transformer.h.0.attn.c_proj.bias", 48, 0},
    {"transformer.h.0.ln_2.weight", 48, 0},
    {"transformer.h.0.ln_2.bias", 48, 0},
    {"transformer.h.0.mlp.c_fc.weight", 48, 192},
    {"transformer.h.0.mlp.c_fc.bias", 192, 0},
    {"transformer.h.0.mlp.c_proj.weight", 192, 48},
    {"transformer.h.0.mlp.c_proj.bias", 48, 0},
    {"transformer.h.1.ln_1.weight", 48, 0},
    {"transformer.h.1.ln_1.bias", 48, 0},
    {"transformer.h.1.attn.c_attn.weight", 48, 144},
    {"transformer.h.1.attn.c_attn.bias", 144, 0},
    {"transformer.h.1.attn.c_proj.weight", 48, 48},
    {"transformer.h.1.attn.c_proj.bias", 48, 0},
    {"transformer.h.1.ln_2.weight", 48, 0},
    {"transformer.h.1.ln_2.bias", 48, 0},
    {"transformer.h.1.mlp.c_fc.weight", 48, 192},
    {"transformer.h.1.mlp.c_fc.bias", 192, 0},
    {"transformer.h.1.mlp.c_proj.weight", 192, 48},
    {"transformer.h.1.mlp.c_proj.bias", 48, 0},
    {"transformer.ln_f.weight", 48, 0},
    {"transformer.ln_f.bias", 48, 0},
};
static const char gpt2_untied_config[] = R"({"model_type": "gpt2", "vocab_size": 96, "n_positions": 32, "n_embd": 48, "n_layer": 1, "n_head": 4, "n_inner": 80, "tie_word_embeddings": false})";
static const std::vector<stored_param> gpt2_untied_params = {
    {"transformer.wte.weight", 96, 48},
    {"transformer.wpe.weight", 32, 48},
    {"transformer.h.0.ln_1.weight", 48, 0},
    {"transformer.h.0.ln_1.bias", 48, 0},
    {"transformer.h.0.attn.c_attn.weight", 48, 144},
    {"transformer.h.0.attn.c_attn.bias", 144, 0},
    {"transformer.h.0.attn.c_proj.weight", 48, 48},
    {"transformer.h.0.attn.c_proj.bias", 48, 0},
    {"transformer.h.0.ln_2.weight", 48, 0},
    {"transformer.h.0.ln_2.bias", 48, 0},
    {"transformer.h.0.mlp.c_fc.weight", 48, 80},
    {"transformer.h.0.mlp.c_fc.bias", 80, 0},
    {"transformer.h.0.mlp.c_proj.weight", 80, 48},
    {"transformer.h.0.mlp.c_proj.bias", 48, 0},
    {"transformer.ln_f.weight", 48, 0},
    {"transformer.ln_f.bias", 48, 0},
    {"lm_head.weight", 96, 48},
};
static const char llama_biases_config[] = R"({"model_type": "llama", "vocab_size": 96, "hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 80, "attention_bias": true, "mlp_bias": true})";
static const std::vector<stored_param> llama_biases_params = {
    {"model.embed_tokens.weight", 96, 48},
    {"model.layers.0.self_attn.q_proj.weight", 64, 48},
    {"model.layers.0.self_attn.q_proj.bias", 64, 0},
    {"model.layers.0.self_attn.k_proj.weight", 32, 48},
    {"model.layers.0.self_attn.k_proj.bias", 32, 0},
    {"model.layers.0.self_attn.v_proj.weight", 32, 48},
    {"model.layers.0.self_attn.v_proj.bias", 32, 0},
    {"model.layers.0.self_attn.o_proj.weight", 48, 64},
    {"model.layers.0.self_attn.o_proj.bias", 48, 0},
    {"model.layers.0.mlp.gate_proj.weight", 80, 48},
    {"model.layers.0.mlp.gate_proj.bias", 80, 0},
    {"model.layers.0.mlp.up_proj.weight", 80, 48},
    {"model.layers.0.mlp.up_proj.bias", 80, 0},
    {"model.layers.0.mlp.down_proj.weight", 48, 80},
    {"model.layers.0.mlp.down_proj.bias", 48, 0},
    {"model.layers.0.input_layernorm.weight", 48, 0},
    {"model.layers.0.post_attention_layernorm.weight", 48, 0},
    {"model.norm.weight", 48, 0},
    {"lm_head.weight", 96, 48},
};
static const char llama_tied_config[] = R"({"model_type": "llama", "vocab_size": 96, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 1, "intermediate_size": 80, "tie_word_embeddings": true})";
static const std::vector<stored_param> llama_tied_params = {
    {"model.embed_tokens.weight", 96, 48},
    {"model.layers.0.self_attn.q_proj.weight", 48, 48},
    {"model.layers.0.self_attn.k_proj.weight", 12, 48},
    {"model.layers.0.self_attn.v_proj.weight", 12, 48},
    {"model.layers.0.self_attn.o_proj.weight", 48, 48},
    {"model.layers.0.mlp.gate_proj.weight", 80, 48},
    {"model.layers.0.mlp.up_proj.weight", 80, 48},
    {"model.layers.0.mlp.down_proj.weight", 48, 80},
    {"model.layers.0.input_layernorm.weight", 48, 0},
    {"model.layers.0.post_attention_layernorm.weight", 48, 0},
    {"model.layers.1.self_attn.q_proj.weight", 48, 48},
    {"model.layers.1.self_attn.k_proj.weight", 12, 48},
    {"model.layers.1.self_attn.v_proj.weight", 12, 48},
    {"model.layers.1.self_attn.o_proj.weight", 48, 48},
    {"model.layers.1.mlp.gate_proj.weight", 80, 48},
    {"model.layers.1.mlp.up_proj.weight", 80, 48},
    {"model.layers.1.mlp.down_proj.weight", 48, 80},
    {"model.layers.1.input_layernorm.weight", 48, 0},
    {"model.layers.1.post_attention_layernorm.weight", 48, 0},
    {"model.norm.weight", 48, 0},
};
static const char rope_plain_config[] = R"("rope_theta": 500000.0)";
static const std::vector<double> rope_plain_frequencies = {1, 0.440366626, 0.193922758, 0.0853971019, 0.0376060307, 0.0165604409, 0.00729266508, 0.00321144611, 0.00141421345, 0.000622772437, 0.000274248188, 0.000120769742, 5.31829573e-05, 2.34199979e-05, 1.03133852e-05, 4.54167048e-06};
static const char rope_linear_config[] = R"("rope_theta": 20000.0, "rope_scaling": {"type": "linear", "factor": 4.0})";
static const std::vector<double> rope_linear_frequencies = {0.25, 0.134624973, 0.072495535, 0.039038837, 0.0210224111, 0.0113205658, 0.00609612372, 0.0032827619, 0.00176776701, 0.000951942347, 0.000512620842, 0.000276046281, 0.000148650885, 8.00484922e-05, 4.31061053e-05, 2.32126313e-05};
static const char rope_llama3_config[] = R"("rope_parameters": {"rope_theta": 10000.0, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 256})";
static const std::vector<double> rope_llama3_frequencies = {1, 0.562341332, 0.316227764, 0.177827939, 0.100000001, 0.0282067824, 0.00661310693, 0.00222284929, 0.00124999997, 0.000702926656, 0.000395284733, 0.000222284929, 0.000125000006, 7.02926627e-05, 3.95284733e-05, 2.22284925e-05};
