"""Writes tests/data/deepspeed_loss_scale.h: the states DeepSpeed 0.19.8's own loss scaler runs through.

    python tests/oracle/deepspeed_loss_scale.py tests/data/deepspeed_loss_scale.h

Development only. 1000 overflow patterns for each set of options; each row is an FNV-1a hash, folded to 32 bits, over every state
of the pattern; a few patterns stand there in full. test_loss_scale.cc makes the same patterns with the same generator.
"""
import contextlib
import struct
import sys

from deepspeed import comm
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler

comm.get_rank = lambda: 1  # rank 1 prints nothing
STEPS, PATTERNS, SHOWN = 200, 1000, 40
# initial_scale_power, loss_scale_window, hysteresis, consecutive_hysteresis, min_loss_scale
OPTIONS = [(16, 1000, 2, False, 1), (16, 5, 2, False, 1), (16, 5, 2, True, 1), (16, 1, 1, False, 1), (8, 3, 3, True, 16),
           (4, 7, 4, False, 8), (3, 20, 1, True, 16), (16, 10, 0, False, 1)]


def pattern(seed):
    """STEPS booleans; the share of overflows grows with seed % 10."""
    state = (seed * 0x9e3779b97f4a7c15 + 1) & 0xffffffffffffffff
    for _ in range(STEPS):
        state = (state * 6364136223846793005 + 1442695040888963407) & 0xffffffffffffffff
        yield (state >> 33) % 1000 < 10 + 40 * (seed % 10)


def states(options, overflows):
    power, window, hysteresis, consecutive, minimum = options
    scaler = DynamicLossScaler(2**power, window, minimum, hysteresis, consecutive)
    for overflow in overflows:
        try:
            scaler.update_scale(overflow)
        except Exception as error:
            assert "already at minimum" in str(error)
            yield (-1.0, 0, 0, 0)
            return
        yield (float(scaler.cur_scale), scaler.cur_hysteresis, scaler.cur_iter, scaler.last_overflow_iter)


def folded(sequence):
    state = 0xcbf29ce484222325
    for row in sequence:
        for byte in struct.pack("<d3q", *row):
            state = ((state ^ byte) * 0x100000001b3) & 0xffffffffffffffff
    return (state ^ (state >> 32)) & 0xffffffff


def main():
    print("/* Made by tests/oracle/deepspeed_loss_scale.py with DeepSpeed 0.19.8. Do not edit. */")
    print(f"enum {{ STEPS = {STEPS}, PATTERNS = {PATTERNS}, SETS = {len(OPTIONS)}, SHOWN = {SHOWN} }};")
    print("static const struct option_set option_sets[SETS] = {")
    for power, window, hysteresis, consecutive, minimum in OPTIONS:
        print(f"    {{{power}, {window}, {hysteresis}, {str(consecutive).lower()}, {minimum}}},")
    print("};\nstatic const uint32_t hashes[SETS][PATTERNS] = {")
    for options in OPTIONS:
        row = [f"0x{folded(states(options, pattern(seed))):x}" for seed in range(PATTERNS)]
        print("    {" + ",\n     ".join(",".join(row[i:i + 12]) for i in range(0, PATTERNS, 12)) + "},")
    print("};\n/* Pattern 7: scale, hysteresis, iteration, last overflow; a scale of -1 is the end of the run. */")
    print("static const struct state shown[SETS][SHOWN] = {")
    for options in OPTIONS:
        rows = list(states(options, pattern(7)))[:SHOWN]
        print("    {" + ",\n     ".join(f"{{{r[0]:.0f},{r[1]},{r[2]},{r[3]}}}" for r in rows) + "},")
    print("};")


with open(sys.argv[1], "w") as out, contextlib.redirect_stdout(out):
    main()
