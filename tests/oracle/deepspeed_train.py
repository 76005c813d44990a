"""DeepSpeed's own numbers: all cases of this job's rank count, one after the other in one process group.

    DS_ACCELERATOR=cpu torchrun --nproc-per-node R deepspeed_train.py OUT_DIR [NAME...]
"""

import copy
import os
import sys
import time

os.environ["DS_ACCELERATOR"] = "cpu"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from deepspeed.utils import safe_get_full_fp32_param, logger

import cases
import formulas


def masters(engine, stage):
    """Final float32 weights as numpy arrays, the same on all ranks."""
    out = {}
    for name, parameter in engine.module.named_parameters():
        value = parameter.data if stage == 0 else safe_get_full_fp32_param(parameter)
        out[name] = value.detach().float().cpu().numpy().copy()
    return out


def unscale_with_own_scale(optimizer, scale_of_step):
    """Repair: 0.19.8 moves the loss scale before it takes it out of the gradients, so a step whose scale doubles gets half its gradient."""
    scaler, unscale = optimizer.loss_scaler, optimizer.unscale_and_clip_grads

    def repaired(*arguments):
        moved, scaler.cur_scale = scaler.cur_scale, scale_of_step[0]
        unscale(*arguments)
        scaler.cur_scale = moved

    optimizer.unscale_and_clip_grads = repaired


def train(model_name, config):
    """One record a step, and the final weights."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    micro, accumulation = config["train_micro_batch_size_per_gpu"], config["gradient_accumulation_steps"]
    model = cases.build(model_name)
    engine, _, _, _ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=copy.deepcopy(config))
    scale_of_step = [1.0]
    if config.get("fp16", {}).get("loss_scale_window"):
        unscale_with_own_scale(engine.optimizer, scale_of_step)
    stream = cases.stream()
    batch = micro * accumulation * ranks
    log = {"loss": [], "lr": [], "grad_norm": [], "loss_scale": [], "skipped": []}
    for step in range(cases.STEPS):
        total = torch.zeros(1, dtype=torch.float64)
        lr = engine.get_lr()[0]
        scale = engine.optimizer.loss_scale if engine.fp16_enabled() else 1.0
        scale_of_step[0] = scale
        skipped = engine.skipped_steps
        for a in range(accumulation):
            inputs, targets = cases.samples(stream, step * batch + (a * ranks + rank) * micro, micro)
            logits = engine(input_ids=inputs).logits
            loss = torch.nn.functional.cross_entropy(logits.float().reshape(-1, logits.shape[-1]), targets.reshape(-1))
            total += loss.detach().double()
            engine.backward(loss)
            engine.step()
        dist.all_reduce(total)
        log["loss"].append(float(total) / (accumulation * ranks))
        log["lr"].append(float(lr))
        norm = engine.get_global_grad_norm()
        was_skipped = engine.skipped_steps > skipped
        # Stage 3 divides the norm it reports by the scale after this step's change of scale.
        scale_moved = engine.fp16_enabled() and engine.optimizer.loss_scale != scale
        log["grad_norm"].append(None if norm is None or was_skipped or scale_moved else float(norm))
        log["loss_scale"].append(float(scale))
        log["skipped"].append(int(engine.skipped_steps))
    weights = masters(engine, config["zero_optimization"]["stage"])
    engine.destroy()
    return log, weights


def main():
    out_dir, names = sys.argv[1], sys.argv[2:]
    torch.set_num_threads(1)
    logger.setLevel("ERROR")
    if not get_accelerator().is_fp16_supported():
        # This CPU has no fp16 unit; torch's kernels widen to fp32 and round. DeepSpeed only asks this function.
        type(get_accelerator()).is_fp16_supported = lambda self: True
    source, norms, pending = f"DeepSpeed {deepspeed.__version__}", {}, []
    deepspeed.init_distributed(dist_backend="gloo")
    for name, (model, ranks, config) in cases.cases().items():
        if ranks != dist.get_world_size() or name in cases.BY_FORMULA or (names and name not in names):
            continue
        start = time.time()
        try:
            log, weights = train(model, config)
        except Exception as error:  # a case DeepSpeed cannot run is reported, the others go on
            if dist.get_rank() == 0:
                print(f"{name}: {type(error).__name__}: {error}", flush=True)
            continue
        if dist.get_rank() == 0:
            if log["grad_norm"][0] is None and "-z0-" in name:
                pending.append((name, log, weights))
            else:
                norms[name] = log["grad_norm"]
                repaired = "; gradients unscaled with the step's own scale" if "fp16-doubling" in name else ""
                cases.write(out_dir, name, source + repaired, log, weights)
            losses = log["loss"]
            clipped = sum(n is not None and n > config["gradient_clipping"] for n in log["grad_norm"])
            print(f"{name}: loss {losses[0]:.4f} -> {losses[-1]:.4f}, clipped {clipped}, {time.time() - start:.1f} s", flush=True)
    for name, log, weights in pending:
        log["grad_norm"] = norms.get(name.replace("-z0-", "-z1-"), log["grad_norm"])
        cases.write(out_dir, name, source + "; grad_norm of stage 1, it has none at stage 0", log, weights)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
