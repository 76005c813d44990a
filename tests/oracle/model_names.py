"""Writes tests/data/model_names.h: names and shapes of the parameters of small models, in state-dict order, as transformers
(5.23 when this was run) makes them from the same config.json. Used by tests/test_model.cc.

    python3 tests/oracle/model_names.py > tests/data/model_names.h
"""
import json

import transformers

CONFIGS = {
    "gpt2_tied": dict(model_type="gpt2", vocab_size=96, n_positions=32, n_embd=48, n_layer=2, n_head=4),
    "gpt2_untied": dict(model_type="gpt2", vocab_size=96, n_positions=32, n_embd=48, n_layer=1, n_head=4,
                        n_inner=80, tie_word_embeddings=False),
    "llama_biases": dict(model_type="llama", vocab_size=96, hidden_size=48, num_hidden_layers=1,
                         num_attention_heads=4, num_key_value_heads=2, head_dim=16, intermediate_size=80,
                         attention_bias=True, mlp_bias=True),
    "llama_tied": dict(model_type="llama", vocab_size=96, hidden_size=48, num_hidden_layers=2,
                       num_attention_heads=4, num_key_value_heads=1, intermediate_size=80,
                       tie_word_embeddings=True),
}
CLASSES = {"gpt2": (transformers.GPT2Config, transformers.GPT2LMHeadModel),
           "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM)}

print(f"/* Made by tests/oracle/model_names.py with transformers {transformers.__version__}; do not edit. */")
print("struct stored_param {\n    const char *name;\n    int64_t rows, columns; /* columns 0: one dimension */\n};")
for name, values in CONFIGS.items():
    config_class, model_class = CLASSES[values["model_type"]]
    model = model_class(config_class(**values))
    seen = set()
    print(f"static const char {name}_config[] = R\"({json.dumps(values)})\";")
    print(f"static const std::vector<stored_param> {name}_params = {{")
    for key, tensor in model.state_dict().items():
        if tensor.data_ptr() in seen:  # the tied head
            continue
        seen.add(tensor.data_ptr())
        shape = list(tensor.shape) + [0]
        print(f"    {{\"{key}\", {shape[0]}, {shape[1]}}},")
    print("};")

ROPES = {  # spellings of transformers 4 and 5 of the same thing, and the plain one
    "rope_plain": dict(rope_theta=500000.0),
    "rope_linear": dict(rope_theta=20000.0, rope_scaling={"type": "linear", "factor": 4.0}),
    "rope_llama3": dict(rope_parameters={"rope_theta": 10000.0, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                         "high_freq_factor": 4.0, "original_max_position_embeddings": 256}),
}
for name, values in ROPES.items():
    config = transformers.LlamaConfig(hidden_size=64, num_attention_heads=2, num_hidden_layers=1, intermediate_size=8,
                                      vocab_size=8, **json.loads(json.dumps(values)))
    model = transformers.LlamaModel(config)
    print(f"static const char {name}_config[] = R\"({json.dumps(values)[1:-1]})\";")
    numbers = ", ".join(f"{x:.9g}" for x in model.rotary_emb.inv_freq.tolist())
    print(f"static const std::vector<double> {name}_frequencies = {{{numbers}}};")
