"""The models and the cases. A case is a ds.json, whole: the same file goes to DeepSpeed and to zinf."""

import copy
import json
import os
import sys

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import formulas

STEPS = 20
SEQUENCE = 32
CORPUS_BYTES = 32768

GPT2 = {
    "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 257, "n_positions": 64, "n_embd": 32, "n_layer": 2,
    "n_head": 4, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-05, "resid_pdrop": 0.0, "embd_pdrop": 0.0,
    "attn_pdrop": 0.0, "tie_word_embeddings": True, "bos_token_id": 256, "eos_token_id": 256,
}
LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 257, "hidden_size": 32, "intermediate_size": 88,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "hidden_act": "silu",
    "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False,
    "bos_token_id": 256, "eos_token_id": 256,
}
LLAMA3 = dict(LLAMA, tie_word_embeddings=True, rope_scaling={
    "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16})
MODELS = {"gpt2": GPT2, "llama": LLAMA, "llama3": LLAMA3}


def build(name):
    """The transformers model with the formula's weights, float32."""
    config = copy.deepcopy(MODELS[name])
    if config["model_type"] == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(**config))
    else:
        model = LlamaForCausalLM(LlamaConfig(**config))
    with torch.no_grad():
        for key, (shape, offset, exponent) in table(model).items():
            model.get_parameter(key).copy_(torch.from_numpy(formulas.weights(key, shape, offset, exponent)))
    return model.float().train()


def table(model):
    """name -> (shape, offset, exponent) of formulas.weights; tied weights once."""
    out = {}
    for name, value in model.named_parameters():
        norm = value.dim() == 1 and name.endswith("weight")
        bias = name.endswith("bias")
        out[name] = (list(value.shape), 1 if norm else 0, -6 if bias else -4)
    return out


def ds(model, stage, accumulation, **changes):
    out = {
        "train_micro_batch_size_per_gpu": 1 if accumulation > 1 else 2,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": 1.6,
        "optimizer": {"type": "AdamW", "params": {"lr": 3e-3, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1}},
        "scheduler": {"type": "WarmupLR", "params": {"warmup_min_lr": 0, "warmup_max_lr": 3e-3, "warmup_num_steps": 5}},
        "zero_optimization": {"stage": stage},
        "zinf": {
            "model": {"path": model},
            "data": {"train": "corpus.txt", "tokenizer": "bytes", "sequence_length": SEQUENCE, "shuffle": False},
            "train": {"steps": STEPS},
            "run": {"dir": "run"},
        },
    }
    out.update(changes)
    return out


def scheduler(kind, **params):
    return {"type": kind, "params": params}


def optimizer(kind, **params):
    return {"type": kind, "params": params}


def cases():
    """{name: (model, ranks, ds)}."""
    out = {}

    def add(name, model, ranks, stage, accumulation, **changes):
        assert name not in out
        out[name] = (model, ranks, ds(model, stage, accumulation, **changes))

    for stage in range(4):
        for ranks in range(1, 5):
            for accumulation in (1, 4):
                add(f"adamw-z{stage}-r{ranks}-a{accumulation}", "gpt2", ranks, stage, accumulation)

    lr = 3e-3
    schedules = {
        "warmup-linear": scheduler("WarmupLR", warmup_min_lr=1e-4, warmup_max_lr=lr, warmup_num_steps=5, warmup_type="linear"),
        "warmup-decay": scheduler("WarmupDecayLR", warmup_min_lr=0, warmup_max_lr=lr, warmup_num_steps=5, total_num_steps=20),
        "warmup-decay-linear": scheduler("WarmupDecayLR", warmup_min_lr=2e-4, warmup_max_lr=lr, warmup_num_steps=5,
                                         total_num_steps=18, warmup_type="linear"),
        "warmup-cosine": scheduler("WarmupCosineLR", total_num_steps=20, warmup_num_steps=5, warmup_min_ratio=0.05, cos_min_ratio=0.1),
        "warmup-cosine-linear": scheduler("WarmupCosineLR", total_num_steps=20, warmup_num_steps=5, warmup_type="linear"),
        "one-cycle": scheduler("OneCycle", cycle_min_lr=5e-4, cycle_max_lr=lr, cycle_first_step_size=6, cycle_second_step_size=8,
                               decay_lr_rate=0.5, decay_step_size=2, decay_mom_rate=0.01),
        "one-cycle-stairs": scheduler("OneCycle", cycle_min_lr=5e-4, cycle_max_lr=lr, cycle_first_step_size=8,
                                      cycle_first_stair_count=3, cycle_second_stair_count=2, cycle_momentum=False),
        "range-test": scheduler("LRRangeTest", lr_range_test_min_lr=1e-3, lr_range_test_step_size=5, lr_range_test_step_rate=1.5),
        "range-test-stairs": scheduler("LRRangeTest", lr_range_test_min_lr=1e-3, lr_range_test_step_size=5,
                                       lr_range_test_step_rate=1.5, lr_range_test_staircase=True),
    }
    for name, value in schedules.items():
        add(f"schedule-{name}", "gpt2", 2, 2, 1, scheduler=value)

    adam = dict(lr=lr, betas=[0.9, 0.95], eps=1e-8, weight_decay=0.1)
    optimizers = {
        "adam-l2": (optimizer("Adam", **dict(adam, weight_decay=0.01), adam_w_mode=False), {}),
        "adam-is-adamw": (optimizer("Adam", **adam), {}),
        "adamw-no-correction": (optimizer("AdamW", **adam, bias_correction=False), {}),
        "sgd-momentum": (optimizer("SGD", lr=0.3, momentum=0.9, weight_decay=0.01),
                         {"zero_allow_untested_optimizer": True, "gradient_clipping": 1.0, "scheduler": scheduler(
                             "WarmupLR", warmup_min_lr=0, warmup_max_lr=0.3, warmup_num_steps=5)}),
        "adagrad": (optimizer("Adagrad", lr=0.01, weight_decay=0.01),
                    {"zero_allow_untested_optimizer": True, "scheduler": scheduler(
                        "WarmupLR", warmup_min_lr=0, warmup_max_lr=0.01, warmup_num_steps=5)}),
        "lion": (optimizer("Lion", lr=2e-3, betas=[0.9, 0.95], weight_decay=0.1),
                 {"scheduler": scheduler("WarmupLR", warmup_min_lr=0, warmup_max_lr=2e-3, warmup_num_steps=5)}),
    }
    for name, (value, changes) in optimizers.items():
        add(f"optimizer-{name}", "gpt2", 2, 3, 1, optimizer=value, **changes)

    add("llama-z3-r2-a1", "llama", 2, 3, 1)
    add("llama-z1-r3-a4", "llama", 3, 1, 4)
    add("llama3-z2-r2-a1", "llama3", 2, 2, 1)

    for stage in (1, 2, 3):
        add(f"bf16-z{stage}-r2-a1", "gpt2", 2, stage, 1, bf16={"enabled": True})
        add(f"bf16-z{stage}-r2-a4", "gpt2", 2, stage, 4, bf16={"enabled": True})
    add("bf16-z2-r2-a4-fp32-accumulation", "gpt2", 2, 2, 4, bf16={"enabled": True}, data_types={"grad_accum_dtype": "fp32"})
    add("bf16-llama-z3-r3-a1", "llama", 3, 3, 1, bf16={"enabled": True})

    static = {"enabled": True, "loss_scale": 1024}
    dynamic = {"enabled": True, "initial_scale_power": 19, "hysteresis": 2}
    doubling = dict(dynamic, loss_scale_window=4)
    add("fp16-static-z1-r2-a1", "gpt2", 2, 1, 1, fp16=static)
    add("fp16-static-z3-r2-a4", "gpt2", 2, 3, 4, fp16=static)
    add("fp16-dynamic-z2-r2-a1", "gpt2", 2, 2, 1, fp16=dynamic)
    add("fp16-dynamic-z3-r2-a1", "gpt2", 2, 3, 1, fp16=dynamic)
    add("fp16-doubling-z2-r2-a1", "gpt2", 2, 2, 1, fp16=doubling)
    add("fp16-doubling-z3-r2-a1", "gpt2", 2, 3, 1, fp16=doubling)
    return out


BY_FORMULA = {"optimizer-lion"}  # DeepSpeed has no CPU kernel: formula_train.py makes it


def samples(stream, first, count):
    """Inputs and targets (count, SEQUENCE) of samples first .. first + count - 1 of the packed stream."""
    rows = [stream[i * SEQUENCE:i * SEQUENCE + SEQUENCE + 1] for i in range(first, first + count)]
    both = torch.stack(rows)
    return both[:, :-1].contiguous(), both[:, 1:].contiguous()


def stream():
    """The byte tokenizer's ids of the corpus, one document: 256 behind it."""
    return torch.tensor(list(formulas.corpus(CORPUS_BYTES)) + [256], dtype=torch.long)


def write(directory, name, source, log, weights):
    """One case file: a key a line."""
    model, ranks, config = cases()[name]
    record = {"name": name, "source": source, "model": model, "ranks": ranks, "ds": config, **log,
              "tensors": formulas.sketches(weights)}
    write_json(os.path.join(directory, name + ".json"), record)


def write_json(path, record):
    lines = [f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in record.items() if key != "tensors"]
    if "tensors" in record:
        tensors = [f"  {json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in record["tensors"].items()]
        lines.append('"tensors": {\n' + ",\n".join(tensors) + "\n}")
    with open(path, "w") as file:
        file.write("{\n" + ",\n".join(lines) + "\n}\n")


def write_models(directory):
    """model-NAME.json for the C twin: config.json and the table of formulas.weights."""
    for name, config in MODELS.items():
        write_json(os.path.join(directory, f"model-{name}.json"), {
            "config": config, "corpus_bytes": CORPUS_BYTES,
            "tensors": {key: [shape, offset, exponent] for key, (shape, offset, exponent) in table(build(name)).items()}})


if __name__ == "__main__":
    write_models(sys.argv[1])
