"""The same training written from the formulas alone, one process, float64: the second witness.

    formula_train.py make OUT_DIR       writes the cases DeepSpeed cannot run on CPU ranks (Lion)
    formula_train.py check DIR          holds every stored fp32 case against the formulas, to the tolerances of the C test
    formula_train.py mutants DIR        changes one formula at a time; every mutant has to leave the tolerances

Optimizers: Adam arXiv:1412.6980 algorithm 1; AdamW arXiv:1711.05101 algorithm 2 (decay times lr); Lion arXiv:2302.06675 algorithm 2;
Adagrad JMLR 12 (2011) 2121, diagonal; SGD with momentum as torch's (no dampening). Schedules: as DeepSpeed documents them, one behind: step k
runs with iteration k - 1.
"""

import json
import math
import os
import sys

import numpy as np
import torch

import cases
import formulas

LOSS, NORM, TENSOR, KEY_BIAS = 1e-5, 1e-4, 1e-3, 2e-2  # relative


def warmup(p, iteration):
    """Part of the way from the lowest to the highest rate, and whether warm-up is over."""
    steps = max(2, p.get("warmup_num_steps", 1000))
    if iteration >= steps:
        return 1.0, True
    if p.get("warmup_type", "log") == "linear":
        return iteration / steps, False
    return 1.0 / math.log(steps) * math.log(iteration + 1), False


def one_cycle(p, iteration):
    """(lr, first beta or None)."""
    first = float(p["cycle_first_step_size"])
    second = float(p.get("cycle_second_step_size", first))
    total = first + second
    low, high = p["cycle_min_lr"], p["cycle_max_lr"]
    calm, brisk = p.get("cycle_min_mom", 0.8), p.get("cycle_max_mom", 0.9)
    moves = p.get("cycle_momentum", True)
    if iteration < 0:
        return low, calm if moves else None
    if iteration >= total:
        passed = iteration - total + 1
        size = p.get("decay_step_size", 0)
        lr = low / (1 + p.get("decay_lr_rate", 0) * (passed / size)) if size else low
        momentum = brisk * (1 + p.get("decay_mom_rate", 0) * (passed / size)) if size else brisk
        return lr, momentum if moves else None
    place = iteration + 1
    x = 1.0 + place / total - math.floor(1 + place / total)
    rising = x <= first / total
    part = x / (first / total) if rising else (x - 1) / (first / total - 1)
    stairs = p.get("cycle_first_stair_count", 0)
    if not rising:
        stairs = p.get("cycle_second_stair_count", stairs)
    if stairs:
        offset = place % total
        position = offset * stairs / first if offset <= first else (total - offset) * stairs / second
        part = math.floor(position) / stairs
    return low + (high - low) * part, brisk - (brisk - calm) * part if moves else None


def schedule(config, iteration):
    """(lr, betas or None) of the step that runs with this iteration."""
    kind, p = config["scheduler"]["type"], config["scheduler"]["params"]
    base = config["optimizer"]["params"]["lr"]
    if kind in ("WarmupLR", "WarmupDecayLR"):
        low, high = p.get("warmup_min_lr", 0), p.get("warmup_max_lr", base)
        if iteration < 0:
            return low, None
        part, over = warmup(p, iteration)
        if over and kind == "WarmupDecayLR":
            steps = max(2, p["warmup_num_steps"])
            part = max(0.0, (p["total_num_steps"] - iteration) / max(1.0, p["total_num_steps"] - steps))
        return low + (high - low) * part, None
    if kind == "WarmupCosineLR":
        if iteration < 0:
            return 0.0, None
        part, over = warmup(p, iteration)
        if not over:
            least = p.get("warmup_min_ratio", 0.0)
            return base * (least + part * (1.0 - least)), None
        steps, least = max(2, p["warmup_num_steps"]), p.get("cos_min_ratio", 1e-4)
        progress = min(1.0, (iteration - steps + 1) / max(1, p["total_num_steps"] - steps))
        return base * max(0.0, least + (1.0 - least) * ((1 + math.cos(math.pi * progress)) / 2)), None
    if kind == "LRRangeTest":
        place = (iteration + 1) / p["lr_range_test_step_size"]
        if p.get("lr_range_test_staircase", False):
            place = math.floor(place)
        return p["lr_range_test_min_lr"] * (1 + p["lr_range_test_step_rate"] * place), None
    lr, momentum = one_cycle(p, iteration)
    return lr, None if momentum is None else (momentum, 0.99)


class Optimizer:
    """Float64 state for a list of parameters; `mutant` names one deliberate error."""

    def __init__(self, config, parameters, mutant):
        self.kind, self.p, self.mutant = config["optimizer"]["type"].lower(), config["optimizer"]["params"], mutant
        self.parameters = parameters
        self.first = [torch.zeros_like(x) for x in parameters]
        self.second = [torch.zeros_like(x) for x in parameters]
        self.steps = 0

    def step(self, gradients, lr, betas):
        self.steps += 1
        betas = betas or self.p.get("betas", (0.9, 0.999))
        if self.mutant == "beta2":
            betas = (betas[0], 1 - (1 - betas[1]) * 0.9)
        decay = self.p.get("weight_decay", 0.0)
        if self.mutant == "decay":
            decay *= 0.9
        for x, g, m, v in zip(self.parameters, gradients, self.first, self.second):
            if self.mutant == "decay on matrices only" and x.dim() < 2:
                getattr(self, self.kind)(x, g, m, v, lr, betas, 0.0)
            else:
                getattr(self, self.kind)(x, g, m, v, lr, betas, decay)

    def adam(self, x, g, m, v, lr, betas, decay):
        decoupled = self.kind == "adamw" or self.p.get("adam_w_mode", True)
        if not decoupled:
            g = g + decay * x
        else:
            x.mul_(1 - lr * decay)
        m.mul_(betas[0]).add_(g, alpha=1 - betas[0])
        v.mul_(betas[1]).add_(g * g, alpha=1 - betas[1])
        corrections = (1.0, 1.0)
        if self.p.get("bias_correction", True):
            t = self.steps + (1 if self.mutant == "step count" else 0)
            corrections = (1 - betas[0]**t, 1 - betas[1]**t)
        eps = self.p.get("eps", 1e-8)
        if self.mutant == "eps inside":
            below = ((v + eps) / corrections[1]).sqrt()
        else:
            below = (v / corrections[1]).sqrt() + eps
        x.sub_(lr / corrections[0] * m / below)

    adamw = adam

    def sgd(self, x, g, m, v, lr, betas, decay):
        g = g + decay * x
        m.mul_(self.p.get("momentum", 0.0)).add_(g)
        x.sub_(lr * m)

    def adagrad(self, x, g, m, v, lr, betas, decay):
        g = g + decay * x
        v.add_(g * g)
        x.sub_(lr * g / (v.sqrt() + self.p.get("eps", 1e-10)))

    def lion(self, x, g, m, v, lr, betas, decay):
        x.mul_(1 - lr * decay)
        x.sub_(lr * torch.sign(betas[0] * m + (1 - betas[0]) * g))
        m.mul_(betas[1]).add_(g, alpha=1 - betas[1])


def clip(gradients, limit, mutant):
    norm = math.sqrt(sum(float((g * g).sum()) for g in gradients))
    factor = 1 / max(1.0, (norm + 1e-6) / limit)
    if mutant == "no clip":
        factor = 1.0
    if mutant == "clip always":
        factor = limit / (norm + 1e-6)
    if mutant == "clip each tensor":
        return norm, [g / max(1.0, (float(g.norm()) + 1e-6) / limit) for g in gradients]
    return norm, [g * factor for g in gradients]


def train(model_name, ranks, config, mutant=None):
    model = cases.build(model_name).double()
    names, parameters = zip(*[(n, p) for n, p in model.named_parameters()])
    optimizer = Optimizer(config, [p.data for p in parameters], mutant)
    batch = ranks * config["train_micro_batch_size_per_gpu"] * config["gradient_accumulation_steps"]
    stream = cases.stream()
    log = {"loss": [], "lr": [], "grad_norm": [], "loss_scale": [], "skipped": []}
    for step in range(cases.STEPS):
        inputs, targets = cases.samples(stream, step * batch, batch)
        logits = model(input_ids=inputs).logits
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))
        gradients = torch.autograd.grad(loss, parameters)
        lr, betas = schedule(config, step if mutant == "schedule" else step - 1)
        norm, gradients = clip(gradients, config["gradient_clipping"], mutant)
        with torch.no_grad():
            optimizer.step(gradients, lr, betas)
        for key, value in zip(log, (loss.item(), lr, norm, 1.0, 0)):
            log[key].append(value)
    return log, {n: p.detach().numpy() for n, p in zip(names, parameters)}


def compare(stored, log, weights):
    """Worst relative difference of loss, lr, grad_norm, tensors, key bias."""
    worst = [0.0] * 5
    for i, key in enumerate(("loss", "lr", "grad_norm")):
        for a, b in zip(stored[key], log[key]):
            if a is not None:
                worst[i] = max(worst[i], abs(a - b) / max(abs(a), 1e-30))
    for name, values in weights.items():
        for part, piece in formulas.parts(name, values):
            delta = formulas.difference(part, stored["tensors"][part], piece)
            if part.endswith(":k"):
                whole = math.sqrt(sum(stored["tensors"][part[:-1] + c][0]**2 for c in "qkv"))
                worst[4] = max(worst[4], delta * stored["tensors"][part][0] / whole)
            else:
                worst[3] = max(worst[3], delta)
    return worst


def within(worst, lion=False):
    """Lion's step is lr times a sign, also of rounding noise: the key bias of gpt2 is not defined there."""
    limits = (LOSS, 0.0, NORM, TENSOR, math.inf if lion else KEY_BIAS)
    return all(w <= limit for w, limit in zip(worst, limits))


def stored_cases(directory):
    for name in sorted(os.listdir(directory)):
        if name.endswith(".json") and not name.startswith(("model-", "bf16", "fp16")):
            with open(os.path.join(directory, name)) as file:
                yield json.load(file)


def make(directory):
    for name in cases.BY_FORMULA:
        model, ranks, config = cases.cases()[name]
        log, weights = train(model, ranks, config)
        cases.write(directory, name, "formula, float64", log, weights)
        print(f"{name}: loss {log['loss'][0]:.4f} -> {log['loss'][-1]:.4f}")


def check(directory):
    failed = 0
    for stored in stored_cases(directory):
        log, weights = train(stored["model"], stored["ranks"], stored["ds"])
        worst = compare(stored, log, weights)
        good = within(worst, "lion" in stored["name"])
        failed += not good
        print(f"{'PASS' if good else 'FAIL'} {stored['name']}: loss %.1e lr %.1e grad_norm %.1e tensors %.1e key bias %.1e" %
              tuple(worst), flush=True)
    return failed


MUTANTS = ["beta2", "decay", "decay on matrices only", "step count", "eps inside", "no clip", "clip always", "clip each tensor",
           "schedule"]


def mutants(directory):
    survivors = 0
    for name in ("adamw-z2-r2-a1", "optimizer-sgd-momentum", "optimizer-adam-l2"):
        with open(os.path.join(directory, name + ".json")) as file:
            stored = json.load(file)
        for mutant in MUTANTS:
            if "sgd" in name and mutant in ("beta2", "step count", "eps inside"):
                continue
            worst = compare(stored, *train(stored["model"], stored["ranks"], stored["ds"], mutant))
            found = not within(worst)
            survivors += not found
            print(f"{'killed  ' if found else 'SURVIVED'} {name}, {mutant}: loss %.1e lr %.1e grad_norm %.1e tensors %.1e key %.1e"
                  % tuple(worst), flush=True)
    return survivors


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(1 if {"make": make, "check": check, "mutants": mutants}[sys.argv[1]](sys.argv[2]) else 0)
