"""Low-bit codes against brute force; the packed file."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from strategies.compression import low_bit
from strategies.compression.low_bit import LowBit
from tests.strategies.compression import kinds


def brute_force(weights, bits):
    """Least squared error over every scale 2^-40 ... 2^20 and every nearest level, in float64."""
    magnitudes = [2.0 ** -k for k in range(low_bit.num_levels(bits))]
    levels = np.array([0.0, *magnitudes, *(-m for m in magnitudes)])
    errors = []
    for exponent in range(-40, 21):
        grid = levels * 2.0 ** exponent
        errors.append(np.square(weights[:, None] - grid).min(axis=1).sum())
    return min(errors)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("kind", ["normal", "heavy", "uniform", "one"])
def test_no_scale_and_no_rounding_is_better(bits, kind):
    noise = np.random.default_rng(bits)
    draw = {"normal": noise.normal(size=(20, 30)), "heavy": noise.standard_t(1.2, size=(20, 30)),
            "uniform": noise.uniform(-1, 1, size=(20, 30)), "one": noise.normal(size=(20, 1))}[kind]
    for weights in draw:
        codes = low_bit.quantize(tf.constant(weights), bits).numpy()
        assert np.square(weights - codes).sum() <= brute_force(weights, bits) * (1 + 1e-9) + 1e-15


def test_every_assignment_of_a_small_vector():
    """All 3^5 (2 bits) and 5^5 (3 bits) assignments, not only the nearest: rounding is the best of them."""
    weights = np.random.default_rng(3).normal(size=5)
    for bits, levels in ((2, [0, 1, -1]), (3, [0, 0.5, 1, -0.5, -1])):
        best = min(np.square(weights - 2.0 ** s * np.array(choice)).sum()
                   for choice in itertools.product(levels, repeat=5) for s in range(-6, 5))
        codes = low_bit.quantize(tf.constant(weights), bits).numpy()
        assert np.square(weights - codes).sum() == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("bits", range(2, 9))
def test_codes_are_powers_of_two_of_one_scale(bits):
    codes = low_bit.quantize(tf.random.stateless_normal([1000], [1, bits]), bits).numpy()
    powers = np.log2(np.abs(codes[codes != 0]))
    np.testing.assert_array_equal(powers, powers.round())
    assert powers.max() - powers.min() < low_bit.num_levels(bits)


def test_zeros_stay_zeros_and_all_zeros_are_fine():
    assert not low_bit.quantize(tf.zeros([7]), 4).numpy().any()
    weights = tf.constant([0.0, 1.0, 0.0, -0.3])
    assert (low_bit.quantize(weights, 4).numpy()[[0, 2]] == 0).all()


@pytest.mark.parametrize("jit_compile", [False, True])
def test_in_a_graph(jit_compile):
    weights = tf.random.stateless_normal([3, 3, 4, 8], [1, 2])
    found = tf.function(lambda w: low_bit.quantize(w, 5), jit_compile=jit_compile)(weights)
    np.testing.assert_allclose(found, low_bit.quantize(weights, 5), rtol=1e-6)


@pytest.mark.parametrize("name", kinds.EACH)
def test_training_keeps_master_weights_and_ends_on_the_grid(name):
    model, x = kinds.build(name)
    masters = [w.numpy() for w in model.trainable_weights]
    recipe = LowBit(bits=4)
    recipe.prepare(model)
    y = np.eye(4)[np.arange(len(x)) % 4]
    model.compile(keras.optimizers.SGD(1e-3), keras.losses.CategoricalCrossentropy(from_logits=True))
    model.fit(x, y, batch_size=len(x), epochs=2, verbose=0)
    moved = [np.abs(a - b.numpy()).max() for a, b in zip(masters, model.trainable_weights)]
    assert max(moved) < 0.1 and any(m > 0 for m in moved)  # small steps, which the grid would swallow
    coded = model(x).numpy()
    recipe.finish(model)
    np.testing.assert_allclose(model(x), coded, rtol=1e-4, atol=1e-5)


def test_packed_file(tmp_path):
    model, x = kinds.build("inverted")
    LowBit(bits=5).prepare(model)
    LowBit(bits=5).finish(model)
    facts = low_bit.write_packed(tmp_path / "model.lbw", model, 5)
    arrays = low_bit.read_packed(tmp_path / "model.lbw")
    assert len(arrays) == len(model.weights)
    for weight, value in zip(model.weights, arrays.values()):
        np.testing.assert_array_equal(weight.numpy(), value)
    assert facts["bytes"] == (tmp_path / "model.lbw").stat().st_size
    floats = sum(np.size(w) for w in model.weights) - facts["coded_weights"]
    header = facts["bytes"] - 4 * floats - facts["coded_weights"] * 5 / 8
    assert 0 < header < 200 * len(model.weights)


@pytest.mark.parametrize("bits", range(2, 9))
def test_packing_has_no_gaps(bits):
    codes = np.random.default_rng(0).integers(0, 2 * low_bit.num_levels(bits) + 1, 1001).astype(np.uint8)
    packed = low_bit.pack_codes(codes, bits)
    assert len(packed) == -(-1001 * bits // 8)
    np.testing.assert_array_equal(low_bit.unpack_codes(packed, 1001, bits), codes)


@pytest.mark.parametrize("change", [lambda b: b[:-9], lambda b: b[:40] + bytes([b[40] ^ 1]) + b[41:]])
def test_a_damaged_file_is_refused(tmp_path, change):
    model, _ = kinds.build("conv_bn_relu")
    LowBit(bits=3).finish(LowBit(bits=3).prepare(model))
    path = tmp_path / "model.lbw"
    low_bit.write_packed(path, model, 3)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match="damaged: its check sum does not fit"):
        low_bit.read_packed(path)
    path.write_bytes(b"else")
    with pytest.raises(ValueError, match="not a file of low-bit weights"):
        low_bit.read_packed(path)


def test_weights_off_the_grid_are_not_written(tmp_path):
    model, _ = kinds.build("conv_bn_relu")
    with pytest.raises(ValueError, match="first/kernel does not hold 3-bit weights"):
        low_bit.write_packed(tmp_path / "model.lbw", model, 3)
    assert not (tmp_path / "model.lbw").exists()


@pytest.mark.parametrize("bits", [1, 9, 2.5, True])
def test_bits_out_of_range(bits):
    with pytest.raises(ValueError, match="bits must be a whole number from 2 to 8"):
        LowBit(bits=bits)
