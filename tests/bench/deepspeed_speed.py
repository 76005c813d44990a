"""DeepSpeed's side of deepspeed_speed.sh: seconds a step of the ds.json given, one line a step on rank 0.

    DS_ACCELERATOR=cpu torchrun --nproc-per-node 2 deepspeed_speed.py ds.json STEPS
"""

import json
import os
import sys
import time

os.environ["DS_ACCELERATOR"] = "cpu"

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.utils import logger
from transformers import GPT2Config, GPT2LMHeadModel


def main():
    with open(sys.argv[1]) as file:
        config = json.load(file)
    steps = int(sys.argv[2])
    logger.setLevel("ERROR")
    torch.set_num_threads(1)
    deepspeed.init_distributed(dist_backend="gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) >= ranks:
        os.sched_setaffinity(0, {cores[rank]})
    torch.manual_seed(1)
    fields = dict(config["zinf"]["model"]["config"])
    fields.pop("model_type")
    model = GPT2LMHeadModel(GPT2Config(**fields)).train()
    engine, _, _, _ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)
    length, micro = config["zinf"]["data"]["sequence_length"], config["train_micro_batch_size_per_gpu"]
    with open(config["zinf"]["data"]["train"], "rb") as file:
        stream = torch.tensor(list(file.read(steps * ranks * micro * length + 1)))
    for step in range(steps):
        first = (step * ranks + rank) * micro * length
        window = stream[first:first + micro * length + 1]
        inputs, targets = window[:-1].reshape(micro, length), window[1:].reshape(micro, length)
        dist.barrier()
        start, used = time.perf_counter(), time.process_time()
        logits = engine(input_ids=inputs).logits
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))
        engine.backward(loss)
        engine.step()
        dist.barrier()
        if rank == 0:
            print(f"step {step + 1} {time.perf_counter() - start:.6f} s, {time.process_time() - used:.3f} s of CPU, loss {float(loss.detach()):.4f}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
