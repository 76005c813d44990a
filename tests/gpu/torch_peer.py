#!/usr/bin/env python3
"""PyTorch of this machine, measured as zinf is: what tests/gpu/check.sh holds zinf's figures against. For development: zinf needs no Python.

    torch_peer.py operations|copies|gpt2|llama --device cuda|cpu --values FILE

operations: a product of 8192 squares, a copy inside the device, causal attention forward and backward by the backend that
scaled_dot_product_attention picks itself, which is printed, and by FlashAttention-2. copies: pinned memory both ways at once. gpt2, llama:
tokens/s of a training step of 32768 tokens, torch.compile (of each block: the graph is the same), fused AdamW, SDPA, fp32 master weights under
bf16 autocast, as zinf keeps them; the largest micro-batch that fits. On a CPU (a try of this script) everything is tiny.

FILE gets lines "name<TAB>number"; lines for the table of check.sh go to standard output.
"""
import argparse
import math
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel


def result(name, figure, reach="", verdict="measured"):
    print("result", name, figure, reach, verdict, sep="\t", flush=True)


class Peer:
    def __init__(self, arguments):
        self.device = torch.device(arguments.device)
        self.card = self.device.type == "cuda"
        self.values = arguments.values

    def value(self, name, number):
        with open(self.values, "a", encoding="ascii") as file:
            file.write(f"{name}\t{number}\n")

    def wait(self):
        if self.card:
            torch.cuda.synchronize()

    def seconds(self, call, rounds=5, span=0.1):
        """Of one call: the best of some rounds of about `span` seconds, as zinf bench device counts."""
        call()
        self.wait()
        begin = time.perf_counter()
        call()
        self.wait()
        calls = max(1, min(1000, int(span / max(1e-9, time.perf_counter() - begin))))
        best = math.inf
        for _ in range(rounds):
            if self.card:
                first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                first.record()
                for _ in range(calls):
                    call()
                last.record()
                last.synchronize()
                best = min(best, first.elapsed_time(last) / 1e3 / calls)
            else:
                begin = time.perf_counter()
                for _ in range(calls):
                    call()
                best = min(best, (time.perf_counter() - begin) / calls)
        return best


def operations(peer):
    n = 8192 if peer.card else 256
    a = torch.randn(n, n, device=peer.device, dtype=torch.bfloat16)
    b = torch.randn(n, n, device=peer.device, dtype=torch.bfloat16)
    rate = 2 * n**3 / peer.seconds(lambda: a @ b)
    result(f"PyTorch {torch.__version__}: product, bf16, {n} x {n} x {n}", f"{rate / 1e12:.0f} TFLOP/s")
    peer.value("torch product", rate)
    source = torch.randn(2**28 if peer.card else 2**20, device=peer.device)
    target = torch.empty_like(source)
    result("PyTorch: copy inside the device", f"{8 * source.numel() / peer.seconds(lambda: target.copy_(source)) / 1e9:.0f} GB/s read and written")
    del a, b, source, target
    for head_size in (64, 128):
        for sequence in (2048, 8192) if peer.card else (128, 256):
            attention(peer, head_size, sequence)


def attention(peer, head_size, sequence):
    """Forward and backward of the sizes of zinf bench device: 16384 tokens, 2048 wide."""
    tokens, width = (16384, 2048) if peer.card else (512, 256)
    batch, heads = tokens // sequence, width // head_size
    flop = 3.5 * 2 * batch * heads * head_size * sequence**2
    qkv = torch.randn(batch, sequence, 3, heads, head_size, device=peer.device, dtype=torch.bfloat16, requires_grad=True)
    dy = torch.randn(batch, heads, sequence, head_size, device=peer.device, dtype=torch.bfloat16)

    def both():
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        torch.autograd.grad(y, qkv, dy)

    place = f"head size {head_size}, sequence {sequence}"
    q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
    try:
        backend = SDPBackend(torch._fused_sdp_choice(q, k, v, is_causal=True)).name
    except (AttributeError, TypeError, ValueError) as error:
        backend = f"unknown backend ({type(error).__name__})"
    rate = flop / peer.seconds(both)
    peer.value(f"torch attention {place}", rate)
    peer.value(f"torch attention backend {place}", backend)
    figure = f"{rate / 1e12:.0f} TFLOP/s by {backend}"
    if peer.card:
        try:
            with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
                flash = flop / peer.seconds(both)
            peer.value(f"torch flash attention {place}", flash)
            figure += f", {flash / 1e12:.0f} by FlashAttention-2"
        except RuntimeError as error:
            figure += f", FlashAttention-2: {str(error).splitlines()[0]}"
    result(f"PyTorch: attention forward and backward, {place}", figure)


def copies(peer):
    if not peer.card:
        result("PyTorch: pinned copies both ways", "", "", "not measured: no card")
        return
    count = 2**28
    hosts = [torch.ones(count, dtype=torch.float32).pin_memory() for _ in range(2)]
    cards = [torch.ones(count, dtype=torch.float32, device=peer.device) for _ in range(2)]
    streams = [torch.cuda.Stream() for _ in range(2)]

    def both():
        with torch.cuda.stream(streams[0]):
            cards[0].copy_(hosts[0], non_blocking=True)
        with torch.cuda.stream(streams[1]):
            hosts[1].copy_(cards[1], non_blocking=True)
        torch.cuda.synchronize()

    both()
    best = math.inf
    for _ in range(5):
        begin = time.perf_counter()
        both()
        best = min(best, time.perf_counter() - begin)
    peer.value("torch copies both ways", 8 * count / best)
    result("PyTorch: pinned copies both ways", f"{8 * count / best / 1e9:.1f} GB/s")


class Gpt2Block(torch.nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.qkv, self.out = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.up, self.down = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)

    def forward(self, x, _):
        batch, length, width = x.shape
        q, k, v = self.qkv(self.ln_1(x)).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh"))


class LlamaBlock(torch.nn.Module):
    def __init__(self, width, inner, heads):
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = torch.nn.RMSNorm(width, eps=1e-6), torch.nn.RMSNorm(width, eps=1e-6)
        self.qkv, self.out = torch.nn.Linear(width, 3 * width, bias=False), torch.nn.Linear(width, width, bias=False)
        self.gate_up, self.down = torch.nn.Linear(width, 2 * inner, bias=False), torch.nn.Linear(inner, width, bias=False)

    def forward(self, x, angles):
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm_1(x)).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        cosine, sine = angles

        def turn(t):
            first, second = t.chunk(2, -1)
            return torch.cat((first * cosine - second * sine, second * cosine + first * sine), -1).to(v.dtype)

        y = F.scaled_dot_product_attention(turn(q), turn(k), v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        gate, up = self.gate_up(self.norm_2(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Model(torch.nn.Module):
    def __init__(self, name, layers, card):
        super().__init__()
        gpt2 = name == "gpt2"
        if gpt2:
            width, heads, vocabulary, self.length = (1600, 25, 50257, 1024) if card else (64, 2, 300, 64)
        else:
            width, heads, vocabulary, self.length = (4096, 32, 32000, 2048) if card else (64, 2, 300, 64)
        inner = 11008 if card else 176
        self.vocabulary = vocabulary
        self.tokens = torch.nn.Embedding(vocabulary, width)
        self.positions = torch.nn.Embedding(self.length, width) if gpt2 else None
        self.blocks = torch.nn.ModuleList(Gpt2Block(width, heads) if gpt2 else LlamaBlock(width, inner, heads) for _ in range(layers))
        self.norm = torch.nn.LayerNorm(width) if gpt2 else torch.nn.RMSNorm(width, eps=1e-6)
        self.head = torch.nn.Linear(width, vocabulary, bias=False)
        if gpt2:
            self.head.weight = self.tokens.weight
        angle = torch.outer(torch.arange(self.length), 10000 ** (-torch.arange(0, width // heads, 2) / (width // heads)))
        self.register_buffer("cosine", angle.cos())
        self.register_buffer("sine", angle.sin())
        for parameter in self.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.02)

    def forward(self, ids, targets):
        x = self.tokens(ids)
        if self.positions is not None:
            x = x + self.positions.weight
        x = x.to(torch.bfloat16)
        for block in self.blocks:
            x = block(x, (self.cosine, self.sine))
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.view(-1, self.vocabulary), targets.view(-1))


def train(peer, name):
    layers = 48 if name == "gpt2" else 32
    try:  # as many as zinf took: speed.sh has left the number
        with open(peer.values, encoding="ascii") as file:
            layers = int([line.split("\t")[1] for line in file if line.startswith(f"{name} layers\t")][-1])
    except (OSError, IndexError):
        pass
    if not peer.card:
        layers = 2
    micro = (16 if name == "gpt2" else 4) if peer.card else 32
    seconds = None
    while micro >= 1 and seconds is None:
        try:
            seconds = steps(peer, name, layers, micro)
        except torch.OutOfMemoryError as error:
            print(f"micro-batch {micro}: {str(error).splitlines()[0]}", flush=True)
        if seconds is None:  # here the frames of the failure, and what they held, are gone
            micro //= 2
            torch.cuda.empty_cache()
    if seconds is None:
        result(f"PyTorch: training, {name}, {layers} layers", "", "", "not measured: out of memory with one sequence")
        return
    length = {"gpt2": 1024, "llama": 2048}[name] if peer.card else 64
    sequences = batch_of(peer, length)
    rate = sequences * length / seconds
    peer.value(f"torch {name} tokens/s", rate)
    result(f"PyTorch: training, {name}, {layers} layers, {micro} x {sequences // micro}", f"{seconds:.3f} s a step, {rate:.0f} tokens/s")


def batch_of(peer, length):
    """Sequences of a step."""
    return 32768 // length if peer.card else 32


def steps(peer, name, layers, micro, count=6):
    """Seconds of a step: the median, without the first two, which compile and take memory."""
    torch.compiler.reset()
    with peer.device:
        model = Model(name, layers, peer.card)
    for block in model.blocks:
        block.compile(dynamic=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    sequences = batch_of(peer, model.length)
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        for _ in range(sequences // micro):
            ids = torch.randint(model.vocabulary, (micro, model.length + 1), device=peer.device)
            with torch.autocast(peer.device.type, torch.bfloat16):
                loss = model(ids[:, :-1], ids[:, 1:].contiguous())
            (loss * micro / sequences).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        peer.wait()
        times.append(time.perf_counter() - begin)
        print(f"step {times[-1]:.3f} s, loss {loss.item():.3f}", flush=True)
    return statistics.median(times[2:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("operations", "copies", "gpt2", "llama"))
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--values", required=True)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print(f"PyTorch {torch.__version__} sees no card")
        sys.exit(77)
    torch.manual_seed(1)
    peer = Peer(arguments)
    if arguments.what in ("gpt2", "llama"):
        train(peer, arguments.what)
    else:
        {"operations": operations, "copies": copies}[arguments.what](peer)


if __name__ == "__main__":
    main()
