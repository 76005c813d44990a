"""Writes tests/data/deepspeed_schedules.h: what DeepSpeed 0.19.8's own schedulers give.

    python tests/oracle/deepspeed_schedules.py tests/data/deepspeed_schedules.h

Development only: `make check` reads the stored header. Each case: options, the first values in full, and an FNV-1a hash over the
bits of all values of 3000 steps.
"""
import contextlib
import logging
import math
import random
import struct
import sys

import torch
from deepspeed.runtime import lr_schedules
from deepspeed.utils import logger

logger.setLevel(logging.ERROR)
SHOWN, HASHED = 10, 3000


def cases():
    yield "WarmupLR", {}
    yield "WarmupLR", {"warmup_num_steps": 1}
    yield "WarmupLR", {"warmup_num_steps": 5, "warmup_type": "linear"}
    yield "WarmupLR", {"warmup_min_lr": 1e-6, "warmup_max_lr": 3e-4, "warmup_num_steps": 5}
    yield "WarmupDecayLR", {"total_num_steps": 20, "warmup_num_steps": 5}
    yield "WarmupDecayLR", {"total_num_steps": 20, "warmup_min_lr": 1e-5, "warmup_max_lr": 2e-3, "warmup_num_steps": 5,
                            "warmup_type": "linear"}
    yield "WarmupDecayLR", {"total_num_steps": 3, "warmup_num_steps": 7}
    yield "WarmupCosineLR", {"total_num_steps": 20, "warmup_num_steps": 5}
    yield "WarmupCosineLR", {"total_num_steps": 20, "warmup_num_steps": 5, "warmup_min_ratio": 0.1, "cos_min_ratio": 0.05,
                             "warmup_type": "linear"}
    yield "WarmupCosineLR", {"total_num_steps": 3, "warmup_num_steps": 7}
    yield "OneCycle", {"cycle_min_lr": 1e-5, "cycle_max_lr": 1e-3, "cycle_first_step_size": 5}
    yield "OneCycle", {"cycle_min_lr": 1e-5, "cycle_max_lr": 1e-3, "cycle_first_step_size": 5, "cycle_momentum": False}
    yield "OneCycle", {"cycle_min_lr": 1e-5, "cycle_max_lr": 1e-3, "cycle_first_step_size": 7, "cycle_second_step_size": 3,
                       "decay_lr_rate": 0.5, "decay_step_size": 2, "decay_mom_rate": 0.01}
    yield "OneCycle", {"cycle_min_lr": 1e-5, "cycle_max_lr": 1e-3, "cycle_first_step_size": 12, "cycle_first_stair_count": 4,
                       "cycle_second_step_size": 9, "cycle_second_stair_count": 3, "cycle_min_mom": 0.7}
    yield "OneCycle", {"cycle_min_lr": 1e-5, "cycle_max_lr": 1e-3, "cycle_first_step_size": 6, "cycle_first_stair_count": 5,
                       "cycle_second_step_size": 0, "decay_step_size": 3}
    yield "LRRangeTest", {}
    yield "LRRangeTest", {"lr_range_test_min_lr": 1e-5, "lr_range_test_step_size": 4, "lr_range_test_step_rate": 0.3,
                          "lr_range_test_staircase": True}
    yield "SGD OneCycle", {"cycle_min_lr": 1e-5, "cycle_max_lr": 1e-3, "cycle_first_step_size": 5}
    yield from random_cases(random.Random(1909))


def random_cases(rng):
    for _ in range(12):
        yield "WarmupLR", {"warmup_min_lr": rng.uniform(0, 1e-4), "warmup_max_lr": rng.uniform(1e-4, 1e-2),
                           "warmup_num_steps": rng.randint(1, 900), "warmup_type": rng.choice(["log", "linear"])}
        yield "WarmupDecayLR", {"total_num_steps": rng.randint(500, 2500), "warmup_min_lr": rng.uniform(0, 1e-4),
                                "warmup_max_lr": rng.uniform(1e-4, 1e-2), "warmup_num_steps": rng.randint(1, 900),
                                "warmup_type": rng.choice(["log", "linear"])}
        yield "WarmupCosineLR", {"total_num_steps": rng.randint(500, 2500), "warmup_min_ratio": rng.uniform(0, 0.5),
                                 "cos_min_ratio": rng.uniform(0, 0.5), "warmup_num_steps": rng.randint(1, 900),
                                 "warmup_type": rng.choice(["log", "linear"])}
        yield "OneCycle", {"cycle_min_lr": rng.uniform(0, 1e-4), "cycle_max_lr": rng.uniform(1e-4, 1e-2),
                           "cycle_first_step_size": rng.randint(1, 900), "cycle_second_step_size": rng.randint(1, 900),
                           "cycle_first_stair_count": rng.choice([0, rng.randint(1, 40)]),
                           "cycle_second_stair_count": rng.choice([0, rng.randint(1, 40)]),
                           "decay_lr_rate": rng.uniform(0, 1), "decay_step_size": rng.randint(0, 300),
                           "cycle_min_mom": rng.uniform(0.5, 0.8), "cycle_max_mom": rng.uniform(0.8, 0.95),
                           "decay_mom_rate": rng.uniform(0, 1e-3)}
        yield "LRRangeTest", {"lr_range_test_min_lr": rng.uniform(1e-6, 1e-3), "lr_range_test_step_size": rng.randint(1, 900),
                              "lr_range_test_step_rate": rng.uniform(0, 3), "lr_range_test_staircase": rng.random() < 0.5}


def values_of(kind, params, lr):
    weight = [torch.nn.Parameter(torch.zeros(1))]
    sgd = kind.startswith("SGD")
    optimizer = torch.optim.SGD(weight, lr=lr) if sgd else torch.optim.AdamW(weight, lr=lr, betas=(0.91, 0.995))
    schedule = getattr(lr_schedules, kind.split()[-1])(optimizer, **params)
    for _ in range(HASHED):
        group = optimizer.param_groups[0]
        yield (float(group["lr"]), *map(float, group.get("betas", (0.91, 0.995))))
        schedule.step()


def assignments(kind, params, lr):
    yield f"optimizer_lr = {lr.hex()}"
    if kind.startswith("SGD"):
        yield "optimizer_has_betas = false"
    for key, value in params.items():
        if key == "warmup_type":
            key, value = "warmup_linear", value == "linear"
        if isinstance(value, bool):
            text = "true" if value else "false"
        else:
            text = value.hex() if isinstance(value, float) else str(value)
        yield f"{key} = {text}"


TYPES = {"WarmupLR": "WARMUP_LR", "WarmupDecayLR": "WARMUP_DECAY_LR", "WarmupCosineLR": "WARMUP_COSINE_LR",
         "OneCycle": "ONE_CYCLE", "LRRangeTest": "LR_RANGE_TEST"}


def fnv(values):
    state = 0xcbf29ce484222325
    for triple in values:
        for byte in struct.pack("<3d", *triple):
            state = ((state ^ byte) * 0x100000001b3) & 0xffffffffffffffff
    return state


def main():
    print("/* Made by tests/oracle/deepspeed_schedules.py with DeepSpeed 0.19.8. Do not edit. */")
    for number, (kind, params) in enumerate(cases()):
        lr = 0.00073
        values = list(values_of(kind, params, lr))
        assert all(math.isfinite(v) for triple in values for v in triple)
        print(f"CASE(ZINF_SCHEDULE_{TYPES[kind.split()[-1]]}, {hex(fnv(values))}ull,")
        print("     " + " ".join(f"o.{a};" for a in assignments(kind, params, lr)) + ",")
        print("     " + ",\n     ".join("{" + ", ".join(v.hex() for v in triple) + "}" for triple in values[:SHOWN if number < 18 else 2]) + ")")


with open(sys.argv[1], "w") as out, contextlib.redirect_stdout(out):
    main()
