"""What both sides compute exactly: initial weights, the text, and sketches of tensors.

tests/tools/deepspeed_case.c is the C twin of the first two and of the sketch; each formula is described here once.
"""

import numpy as np

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
SKETCH_SIZE = 24


def fnv1a(text):
    """FNV-1a, 64 bit, of a name's bytes."""
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return value


def splitmix(start, count):
    """splitmix64's finaliser at start + (i + 1) * GOLDEN, i = 0 .. count - 1."""
    index = np.arange(1, count + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = np.uint64(start) + index * np.uint64(GOLDEN)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def weights(name, shape, offset, exponent):
    """offset + h * 2^exponent, h uniform in [-1, 1) with 20 bits: exact in float32, so no rounding to agree on."""
    count = int(np.prod(shape))
    bits = (splitmix(fnv1a(name), count) >> np.uint64(44)).astype(np.int64) - (1 << 19)
    value = offset + np.ldexp(bits.astype(np.float64), exponent - 19)
    rounded = value.astype(np.float32)
    assert np.array_equal(rounded.astype(np.float64), value)
    return rounded.reshape(shape)


WORDS = ("the of and a to in he was that it his her with as had she for on at by which not be from "
         "but they were one all this have there their him been would when more no out so said what "
         "water light house river morning stone garden letter").split()


def corpus(size):
    """`size` bytes that look like English: small words more often, sentences of 4 to 12 words, now and then a new line.

    Numbers come from x <- 1103515245 x + 12345 mod 2^31, of which x >> 16 is used.
    """
    state = 20240607
    out = bytearray()

    def draw(limit):
        nonlocal state
        state = (1103515245 * state + 12345) & 0x7FFFFFFF
        return (state >> 16) % limit

    while len(out) < size:
        length = 4 + draw(9)
        for place in range(length):
            word = WORDS[min(draw(len(WORDS)), draw(len(WORDS)))]
            out += (word.capitalize() if place == 0 else word).encode()
            out += b"." if place == length - 1 else b" "
        out += b"\n" if draw(4) == 0 else b" "
    return bytes(out[:size])


def parts(name, values):
    """A tensor as it is compared. The key third of gpt2's c_attn.bias has no gradient but rounding: it stands alone."""
    if name.endswith("c_attn.bias"):
        third = values.size // 3
        flat = values.reshape(-1)
        return [(name + ":" + part, flat[i * third:(i + 1) * third]) for i, part in enumerate("qkv")]
    return [(name, values)]


def sketch(values):
    """L2 norm and SKETCH_SIZE dot products with +-1 vectors (bit k of a hash of the element's number), divided by the norm.

    The mean square of the differences of two tensors' dot products estimates the squared L2 norm of their difference with a
    relative standard deviation of sqrt(2 / SKETCH_SIZE); of the norm itself, half of that: 14 %.
    """
    flat = values.reshape(-1).astype(np.float64)
    norm = float(np.sqrt(np.sum(flat * flat)))
    hashes = splitmix(fnv1a("sketch"), flat.size)
    dots = np.empty(SKETCH_SIZE)
    for k in range(SKETCH_SIZE):
        sign = 1.0 - 2.0 * ((hashes >> np.uint64(k)) & np.uint64(1)).astype(np.float64)
        dots[k] = np.sum(sign * flat)
    return norm, dots


def sketches(tensors):
    """{part name: [norm, dot / norm * 1e5 rounded, ...]} of a state dict of numpy arrays."""
    out = {}
    for name, values in tensors.items():
        for part, piece in parts(name, values):
            norm, dots = sketch(piece)
            scale = norm if norm > 0 else 1.0
            out[part] = [norm] + [int(round(float(d) / scale * 1e5)) for d in dots]
    return out


def difference(part, stored, values):
    """Estimated L2 norm of (values - stored tensor), relative to the stored norm."""
    norm = stored[0]
    _, dots = sketch(values)
    delta = dots / norm - np.array(stored[1:]) / 1e5
    return float(np.sqrt(np.mean(delta * delta)))
