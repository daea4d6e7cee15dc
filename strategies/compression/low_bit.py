"""Low-bit weights (LBW; Yin, Zhang, Xin & Qi 2016, arXiv 1612.06052): 2 to 8 bits, powers of two only.

A b-bit weight is 0 or +-2^(1-n), ..., +-1/2, +-1 (n = 2^(b-2) levels a sign) times a scale 2^s of the layer, s a whole
number: a product becomes a shift. The codes nearest to the float weights in the Euclidean norm are found exactly: for a
given s each weight takes the nearest level, so trying every s that can win is enough. (Section 2.2 of the paper does so
for 2 and 3 bits in closed form and fixes a threshold for more; the search needs no such parameter.)

Training keeps float master weights w and computes with the codes q(w); the gradient goes straight through to w
(section 2.3). A model with batch normalisation wants its statistics taken anew afterwards: see `statistics`.
"""

import json
import math
import pathlib
import struct
import zlib

import numpy as np
import tensorflow as tf

from strategies import checkpoint
from strategies.compression import hooks
from strategies.export.files import replacing

MAGIC = b"LBW1"
_TINY = 1e-30  # stands in for the largest weight where all are 0


class LowBit:
    """Trains a model under `bits`-bit weights: `prepare`, `fit`, `finish`.

    Weights that are 0 at the start stay 0. Biases and normalisation stay float.

    Args:
        bits: b, 2 to 8.
        select: regular expression for the names of the weights, as in `Pruning`.

    Raises:
        ValueError: bits out of range.
    """

    def __init__(self, *, bits=4, select=".*"):
        check_bits(bits)
        self.bits, self.select = int(bits), select

    def prepare(self, model):
        """Lets the chosen weights be read as their codes. Returns the model."""
        slots = hooks.weight_slots(model, select=self.select)
        hooks.hook_weights(model, slots, lambda layer, mine: Codes(layer, mine, self.bits))
        return model

    def finish(self, model):
        """Writes the codes' values into the weights. Returns the model, plain again."""
        return hooks.bake(model)


class Codes(hooks.Hook):
    """Reads the weights of one layer as their nearest codes, with the gradient of the identity."""

    def __init__(self, caller, slots, bits):
        super().__init__(caller, slots)
        self._bits = bits
        self.mask_zeros()

    def weight(self, slot, value):
        masked = self.masked(slot, value)
        return hooks.straight_through(masked, quantize(masked, self._bits))


def check_bits(bits):
    """Raises ValueError unless bits is a whole number from 2 to 8."""
    if isinstance(bits, bool) or bits != int(bits) or not 2 <= bits <= 8:
        raise ValueError(f"bits must be a whole number from 2 to 8; received {bits!r}. For 16 bits export float16.")


def num_levels(bits):
    """n, the number of magnitudes beside 0."""
    return 2 ** (bits - 2)


def quantize(weights, bits):
    """The weights' nearest b-bit values.

    Args:
        weights: float tensor of any shape.
        bits: 2 to 8.

    Returns:
        tensor like weights; all zeros when the weights are.
    """
    scale = best_scale(weights, bits)
    return round_to_levels(weights / scale, num_levels(bits)) * scale


def best_scale(weights, bits):
    """The scale 2^s whose codes are nearest to the weights.

    The search goes down from the largest s that can win. Above 4/3 max |w| no weight would have level 1, so half of
    that scale does as well. Towards small scales it ends by a bound: codes q gain sum(2 w q - q^2) <= 2 2^s sum |w|
    over all zeros; where that is below the best gain so far, no smaller scale can win.

    Returns:
        scalar tensor of the weights' dtype, above 0.
    """
    magnitudes = tf.abs(weights)
    total, levels = tf.reduce_sum(magnitudes), num_levels(bits)
    top = tf.math.floor(_log2(tf.maximum(tf.reduce_max(magnitudes), _TINY) * (4 / 3)))

    def gain_of(exponent):
        scale = _power_of_two(exponent)
        values = round_to_levels(magnitudes / scale, levels) * scale
        return tf.reduce_sum((2 * magnitudes - values) * values)

    def can_win(exponent, _, best_gain):
        return 2 * _power_of_two(exponent) * total > best_gain

    def step(exponent, best, best_gain):
        gain = gain_of(exponent)
        best = tf.where(gain > best_gain, exponent, best)
        return exponent - 1, best, tf.maximum(gain, best_gain)

    _, best, _ = tf.while_loop(can_win, step, (top - 1, top, gain_of(top)))
    return _power_of_two(best)


def round_to_levels(x, levels):
    """Nearest of 0, +-2^(1-n), ..., +-1 to each element; halves between two go up.

    Args:
        x: float tensor, weights over their scale.
        levels: n.
    """
    magnitude = tf.abs(x)
    smallest = 2.0 ** (1 - levels)
    # Between 2^e and 2^(e+1) the border is 3/2 2^e: 4/3 of it is the next power of two.
    exponent = tf.math.floor(_log2(tf.maximum(magnitude, smallest / 4) * (4 / 3)))
    power = _power_of_two(tf.clip_by_value(exponent, float(1 - levels), 0.0))
    return tf.sign(x) * tf.where(magnitude < smallest / 2, tf.zeros_like(x), power)


def write_packed(path, model, bits, select=".*"):
    """Writes a model's weights with `bits` bits for each weight that was trained so, float32 for all others.

    The file: "LBW1", length of the header (uint32), header (JSON: bits, and name, shape, kind and exponent s of each
    weight), the weights in that order, CRC-32 of all before. Codes are packed without gaps, first code in the highest
    bits: 0 is code 0, and +-2^-k is code 1 + 2 k, or 2 + 2 k for the negative.

    Args:
        path: file to write.
        model: what `LowBit.finish` returned.
        bits, select: as given to `LowBit`.

    Returns:
        {"bytes": of the file, "coded_weights": how many have codes, "bits_per_weight": of the file, over all weights}.

    Raises:
        ValueError: a weight is not on its b-bit grid: it was changed after `finish`.
    """
    check_bits(bits)
    coded = {id(slot.variable) for slot in hooks.weight_slots(model, select=select)}
    entries, parts = [], []
    for weight, name in zip(model.weights, checkpoint.variable_names(model.weights)):
        value = weight.numpy()
        entry = {"name": name, "shape": list(value.shape), "kind": "float32"}
        if id(weight) in coded:
            codes, exponent = encode(value, bits, name)
            entry |= {"kind": "codes", "exponent": exponent}
            parts.append(pack_codes(codes, bits))
        else:
            entry["kind"] = value.dtype.name
            parts.append(value.tobytes())
        entries.append(entry)
    header = json.dumps({"bits": bits, "weights": entries}).encode()
    content = b"".join([MAGIC, struct.pack("<I", len(header)), header, *parts])
    with replacing(path) as temporary:
        temporary.write_bytes(content + struct.pack("<I", zlib.crc32(content)))
    sizes = [math.prod(entry["shape"]) for entry in entries]
    num_coded = sum(size for size, entry in zip(sizes, entries) if entry["kind"] == "codes")
    num_bytes = len(content) + 4
    return {"bytes": num_bytes, "coded_weights": num_coded, "bits_per_weight": 8 * num_bytes / sum(sizes)}


def read_packed(path):
    """The weights of a packed file.

    Returns:
        {name: array}, in the order of the model's weights.

    Raises:
        ValueError: not such a file, truncated or damaged.
    """
    content = pathlib.Path(path).read_bytes()
    if content[:4] != MAGIC:
        raise ValueError(f"{path} is not a file of low-bit weights: it must begin with {MAGIC!r}; received "
                         f"{content[:4]!r}.")
    if len(content) < 12 or zlib.crc32(content[:-4]) != struct.unpack("<I", content[-4:])[0]:
        raise ValueError(f"{path} is damaged: its check sum does not fit. Write it again.")
    length = struct.unpack("<I", content[4:8])[0]
    header, position, arrays = json.loads(content[8:8 + length]), 8 + length, {}
    for entry in header["weights"]:
        count = math.prod(entry["shape"])
        if entry["kind"] == "codes":
            size = -(-count * header["bits"] // 8)
            codes = unpack_codes(content[position:position + size], count, header["bits"])
            value = decode(codes, entry["exponent"])
        else:
            dtype = np.dtype(entry["kind"])
            size = count * dtype.itemsize
            value = np.frombuffer(content[position:position + size], dtype)
        arrays[entry["name"]] = value.reshape(entry["shape"])
        position += size
    return arrays


def encode(weights, bits, name="weights"):
    """Codes (uint8 array, flat) and exponent s of weights that are on their b-bit grid. Raises ValueError if not."""
    scale = float(best_scale(tf.constant(weights), bits))
    x = weights.ravel() / scale
    magnitude = np.abs(x)
    k = np.where(magnitude > 0, -np.log2(np.where(magnitude > 0, magnitude, 1)), 0).round().astype(int)
    codes = np.where(magnitude > 0, 1 + 2 * k + (x < 0), 0)
    exponent = round(math.log2(scale))
    if k.min() < 0 or k.max() >= num_levels(bits) or not np.array_equal(decode(codes, exponent), weights.ravel()):
        raise ValueError(f"{name} does not hold {bits}-bit weights: expected 0 and {num_levels(bits)} powers of two a "
                         "sign, as LowBit.finish leaves them.")
    return codes.astype(np.uint8), exponent


def decode(codes, exponent):
    """float32 weights of codes; the inverse of `encode`."""
    codes = codes.astype(int)
    value = np.ldexp(1.0, exponent - (codes - 1) // 2) * np.where(codes % 2, 1.0, -1.0)
    return np.where(codes > 0, value, 0.0).astype(np.float32)


def pack_codes(codes, bits):
    """Codes [N] as bytes, `bits` bits each, the last byte filled up with zeros."""
    planes = (codes[:, None] >> np.arange(bits - 1, -1, -1, dtype=np.uint8)) & 1
    return np.packbits(planes.astype(np.uint8).ravel()).tobytes()


def unpack_codes(content, count, bits):
    """The inverse of `pack_codes`: uint8 [count]."""
    planes = np.unpackbits(np.frombuffer(content, np.uint8), count=count * bits).reshape(count, bits)
    return (planes << np.arange(bits - 1, -1, -1, dtype=np.uint8)).sum(axis=1).astype(np.uint8)


def _log2(x):
    return tf.math.log(x) / math.log(2.0)


def _power_of_two(exponent):
    return tf.pow(tf.constant(2.0, exponent.dtype), exponent)
