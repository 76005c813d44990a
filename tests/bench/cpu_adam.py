"""Both sides of cpu_adam.sh: python cpu_adam.py ZINF_PROGRAM ROUNDS THREADS"""

import json
import statistics
import subprocess
import sys
import time

import torch
from deepspeed.ops.adam import DeepSpeedCPUAdam
from deepspeed.utils import logger

COUNT = 16 << 20  # as zinf bench adam
TRIES = 5  # the best of each round counts, on both sides


def deepspeed_rate(optimizer):
    best = 1e9
    for _ in range(TRIES):
        start = time.perf_counter()
        optimizer.step()
        best = min(best, time.perf_counter() - start)
    return COUNT / best


def zinf_rates(program, threads):
    result = subprocess.run(
        [program, "bench", "adam", "--json", "-q", "--threads", str(threads), "--rounds", str(TRIES)],
        check=True, capture_output=True, text=True)
    adam = json.loads(result.stdout)["adam"]
    return adam["parameters_per_s"], adam["of_stream"]


def main():
    program, rounds, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    logger.setLevel("ERROR")
    torch.set_num_threads(threads)
    weights = torch.nn.Parameter(torch.linspace(0.01, 1.0, COUNT))
    weights.grad = torch.zeros(COUNT)
    optimizer = DeepSpeedCPUAdam([weights], lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, adamw_mode=True)
    optimizer.step()
    ratios, streams = [], []
    for number in range(rounds):
        theirs = deepspeed_rate(optimizer)
        ours, stream = zinf_rates(program, threads)
        ratios.append(ours / theirs)
        streams.append(stream)
        print(f"round {number + 1}: DeepSpeed {theirs / 1e6:.0f} M parameters/s, zinf {ours / 1e6:.0f}: "
              f"ratio {ours / theirs:.2f}, {stream:.2f} of the stream", flush=True)
    ratio, stream = statistics.median(ratios), statistics.median(streams)
    print(f"median: {ratio:.2f} x DeepSpeed, {stream:.2f} of the stream")
    sys.exit(0 if ratio >= 1.0 and stream >= 0.90 else 1)


if __name__ == "__main__":
    main()
