"""Writes tests/data/torch_gradients.h: loss and gradients of tiny models by PyTorch and transformers in float64, for
tests/test_transformer.cc, which makes the same weights and tokens by the same formulas.

    python3 tests/oracle/torch_gradients.py > tests/data/torch_gradients.h

Weights: element e of parameter number p (state-dict order, tied once) is base + scale * u, u = hash(p, e) / 2^15 - 1 in [-1, 1):
    h = (e * 2654435761 + (p + 1) * 40503) mod 2^32;  h = h ^ (h >> 15);  h = h * 2246822519 mod 2^32;  hash = h >> 16
base 1 and scale 0.25 for norm weights, base 0 and scale 0.25 for the rest: multiples of 2^-17, exact in fp32.
Tokens: input t is hash(1000, t) mod vocab, target t is hash(1001, t) mod vocab; every seventh target, from 3, is -100.
The loss is the mean over counted tokens. Sampled elements of a gradient of n: those at (2 i + 1) n div 16 for i = 0 .. 7.
The same models in bfloat16 give the losses and gradient norms that bound what 16 bits may do (norm of the difference from float64).
"""
import json

import torch
import transformers

BATCH, SEQUENCE = 4, 12
CONFIGS = {
    "gpt2_plain": dict(model_type="gpt2", vocab_size=61, n_positions=16, n_embd=24, n_layer=2, n_head=3,
                       resid_pdrop=0, embd_pdrop=0, attn_pdrop=0),
    "gpt2_options": dict(model_type="gpt2", vocab_size=61, n_positions=12, n_embd=24, n_layer=3, n_head=2, n_inner=40,
                         activation_function="gelu", scale_attn_by_inverse_layer_idx=True, tie_word_embeddings=False,
                         layer_norm_epsilon=1e-3, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0),
    "gpt2_relu": dict(model_type="gpt2", vocab_size=61, n_positions=12, n_embd=16, n_layer=1, n_head=2,
                      activation_function="relu", scale_attn_weights=False, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0),
    "llama_grouped": dict(model_type="llama", vocab_size=61, hidden_size=24, num_hidden_layers=2, num_attention_heads=6,
                          num_key_value_heads=2, intermediate_size=40, max_position_embeddings=32,
                          rope_parameters=dict(rope_type="llama3", rope_theta=50.0, factor=4.0, low_freq_factor=1.0,
                                               high_freq_factor=4.0, original_max_position_embeddings=16)),
    "llama_tied": dict(model_type="llama", vocab_size=61, hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
                       num_key_value_heads=1, intermediate_size=40, max_position_embeddings=32, tie_word_embeddings=True,
                       head_dim=16, attention_bias=True, mlp_bias=True, rms_norm_eps=1e-3, pad_token_id=5,
                       rope_parameters=dict(rope_type="linear", rope_theta=100.0, factor=2.0)),
}
CLASSES = {"gpt2": (transformers.GPT2Config, transformers.GPT2LMHeadModel),
           "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM)}


def hashed(stream, count):
    element = torch.arange(count, dtype=torch.int64)
    h = (element * 2654435761 + (stream + 1) * 40503) & 0xFFFFFFFF
    h = h ^ (h >> 15)
    h = (h * 2246822519) & 0xFFFFFFFF  # may wrap in int64; the low 32 bits are right
    return h >> 16


def run(values, dtype):
    config_class, model_class = CLASSES[values["model_type"]]
    config = config_class(**json.loads(json.dumps(values)))
    config._attn_implementation = "eager"
    model = model_class(config).to(torch.float32)
    for number, (name, parameter) in enumerate(model.named_parameters()):
        norm = ".ln_" in name or "norm" in name
        base = 1.0 if norm and name.endswith("weight") else 0.0
        flat = base + 0.25 * (hashed(number, parameter.numel()).double() / 32768 - 1)
        parameter.data = flat.reshape(parameter.shape).float()
    model = model.to(dtype)
    if dtype == torch.bfloat16 and values["model_type"] == "llama":  # frequencies stay fp32, as in a run of transformers
        model.model.rotary_emb.inv_freq = type(model)(config).model.rotary_emb.inv_freq
    tokens = BATCH * SEQUENCE
    inputs = hashed(1000, tokens) % config.vocab_size
    targets = hashed(1001, tokens) % config.vocab_size
    targets[3::7] = -100
    logits = model(input_ids=inputs.reshape(BATCH, SEQUENCE)).logits
    logits = logits.reshape(tokens, -1).to(torch.float64 if dtype == torch.float64 else torch.float32)
    loss = torch.nn.functional.cross_entropy(logits, targets, ignore_index=-100)
    loss.backward()
    return loss.item(), [(n, p.grad.double().flatten()) for n, p in model.named_parameters()]


print(f"/* Made by tests/oracle/torch_gradients.py with torch {torch.__version__}, transformers {transformers.__version__}. */")
print("""struct torch_gradient {
    const char *name;
    double norm, bf16_difference; /* L2 norms: of the gradient; of what bfloat16 makes of it minus that */
    double samples[8];
};
struct torch_model {
    const char *name, *config;
    double loss, bf16_loss;
    std::vector<torch_gradient> gradients;
};
static const std::vector<torch_model> torch_models = {""")
for name, values in CONFIGS.items():
    loss, gradients = run(values, torch.float64)
    bf16_loss, bf16_gradients = run(values, torch.bfloat16)
    print(f'    {{"{name}", R"({json.dumps(values)})",\n     {loss:.15g}, {bf16_loss:.9g}, {{')
    for (parameter, gradient), (_, rounded) in zip(gradients, bf16_gradients):
        samples = ", ".join(f"{gradient[(2 * i + 1) * len(gradient) // 16].item():.9g}" for i in range(8))
        difference = (rounded - gradient).norm().item()
        print(f'         {{"{parameter}", {gradient.norm().item():.12g}, {difference:.4g},\n          {{{samples}}}}},')
    print("     }},")
print("};")
