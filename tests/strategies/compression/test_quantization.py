"""Fake quantisation against TensorFlow's operators and TFMOT, ranges, and agreement with LiteRT."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from layers.embedding import TokenEmbedding
from strategies import export
from strategies.compression import hooks, quantization
from strategies.compression.quantization import Quantization
from tests.strategies.compression import kinds


@pytest.mark.parametrize("shape, axes", [((5, 7), (1,)), ((3, 3, 4, 6), (3,)), ((5, 7), ())])
def test_weights_as_tensorflow_quantises_them(shape, axes):
    weights = tf.random.stateless_normal(shape, [1, 2])
    found = quantization.quantize_weight(weights, axes)
    flat = tf.reshape(weights, [-1, shape[-1]])
    if axes:
        largest = tf.reduce_max(tf.abs(flat), axis=0)
        expected = tf.quantization.fake_quant_with_min_max_vars_per_channel(flat, -largest, largest, narrow_range=True)
    else:
        largest = tf.reduce_max(tf.abs(flat))
        expected = tf.quantization.fake_quant_with_min_max_vars(flat, -largest, largest, narrow_range=True)
    np.testing.assert_allclose(found, tf.reshape(expected, shape), atol=1e-6 * float(tf.reduce_max(largest)))


def test_groups_of_weights():
    def groups(name, begin, end, **options):
        model, _ = kinds.build(name)
        found = [slot for slot in hooks.weight_slots(model) if slot.name.startswith(begin) and slot.name.endswith(end)]
        assert len(found) == 1
        return quantization.scales_of(found[0], **options)

    assert groups("inverted", "block_depthwise_conv", "depthwise_kernel") == ((2, 3), 1)
    assert groups("embedding", "embedding", "embeddings") == ((), 1)
    assert groups("lstm", "lstm", "/kernel") == ((), 4)
    assert groups("lstm", "lstm", "/kernel", in_steps=True) == ((1,), 1)
    assert groups("gru", "gru", "/kernel") == ((1,), 1)
    assert groups("own_cell", "rnn", "/peephole") == ((), 1)
    assert groups("transformer", "attention/query", "/kernel") == ((1, 2), 1)
    assert groups("transformer", "attention/attention_output", "/kernel") == ((2,), 1)


def test_gates_have_a_scale_each():
    weights = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32) * np.repeat([1, 10, 100, 1000], 2)
    found = quantization.quantize_weight(tf.constant(weights), (), gates=4).numpy()
    for gate in range(4):
        part = slice(2 * gate, 2 * gate + 2)
        scale = np.abs(weights[:, part]).max() / 127
        np.testing.assert_allclose(found[:, part], np.round(weights[:, part] / scale) * scale, rtol=1e-5)


def planned(name):
    """{layer name: (names of the layers of its group, whether it moves the range)}"""
    model, _ = kinds.build(name)
    plan, names = quantization.plan_ranges(model), {id(layer): layer.name for layer in hooks.leaf_layers(model)}
    return {names[key]: ({names[k] for k, (g, _) in plan.items() if g == group}, observes)
            for key, (group, observes) in plan.items()}


def test_what_is_fused_has_one_range_at_its_end():
    assert set(planned("conv_bn_relu")) == {"first", "a_relu", "mean", "logits"}


def test_a_dense_block_has_one_range_which_the_widest_concatenation_moves():
    plan = planned("dense_blocks")
    concatenations = [name for name in plan if "concat" in name]
    group, _ = plan[concatenations[-1]]
    assert set(concatenations) < group and "first" in group
    assert [name for name in group if plan[name][1]] == [concatenations[-1]]


@pytest.mark.parametrize("name", kinds.EACH)
def test_training(name):
    model, x = kinds.build(name)
    Quantization(x).prepare(model)
    ranges = [w.numpy() for w in model.non_trainable_weights if w.name.endswith(("minimum:0", "maximum:0"))]
    assert ranges
    y = np.eye(4)[np.arange(len(x)) % 4]
    model.compile(keras.optimizers.Adam(3e-3), keras.losses.CategoricalCrossentropy(from_logits=True))
    losses = model.fit(x, y, batch_size=len(x), epochs=15, verbose=0).history["loss"]
    assert losses[-1] < losses[0] and np.isfinite(losses).all()
    names = [w.name for w in model.weights]
    assert len(set(names)) == len(names)


def test_a_layer_that_is_called_twice_has_no_one_range():
    """An embedding that is the last layer too: its outputs are embedded tokens, and logits."""
    tokens, embedding = keras.Input((5,), dtype="int32"), TokenEmbedding(7, 4)
    hidden = keras.layers.Dense(4, name="dense")(embedding(tokens))
    model = keras.Model(tokens, embedding(hidden, as_logits=True))
    plan = quantization.plan_ranges(model)
    assert id(embedding) not in plan and id(model.get_layer("dense")) in plan


def test_what_is_read_by_a_layer_called_twice_has_its_own_range():
    """Two dense layers with one ReLU and one concatenation: neither has a range, so what they read has."""
    relu, join, inputs = keras.layers.ReLU(), keras.layers.Concatenate(), keras.Input((4,))
    x = relu(keras.layers.Dense(4, name="a")(inputs))
    x = relu(keras.layers.Dense(4, name="b")(join([x, inputs])))
    model = keras.Model(inputs, keras.layers.Dense(2, name="c")(join([x, inputs])))
    plan = quantization.plan_ranges(model)
    assert set(plan) == {id(model.get_layer(name)) for name in "abc"}
    assert np.isfinite(Quantization(np.ones((2, 4), np.float32)).prepare(model)(np.ones((2, 4)), training=True)).all()


def test_ranges_are_those_of_the_samples():
    model, x = kinds.build("conv_bn_relu")
    inner = keras.Model(model.input, [model.get_layer(n).output for n in ("first", "a_relu", "logits")])
    values = [v.numpy() for v in inner(x)]
    Quantization(x).prepare(model)
    found = {w.name: float(w) for w in model.non_trainable_weights if w.shape.rank == 0}
    for name, value in zip(("first", "a_relu", "logits"), values):
        assert found[f"{name}/output_minimum:0"] == pytest.approx(
            float(min(0, value.min())), abs=0.02 * float(np.abs(value).max()))
        assert found[f"{name}/output_maximum:0"] == pytest.approx(float(value.max()), rel=0.02)
    assert found["first/input_maximum:0"] == pytest.approx(float(x.max()))


def test_zeros_stay_zeros():
    model, x = kinds.build("inverted")
    kernel = model.get_layer("first").kernel
    kernel.assign(np.where(np.abs(kernel) < 0.1, 0, kernel))
    zeros = kernel.numpy() == 0
    recipe = Quantization(x)
    recipe.prepare(model)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(x, np.zeros((len(x), 4)), epochs=3, verbose=0)
    recipe.finish(model)
    assert zeros.any() and (kernel.numpy()[zeros] == 0).all()


@pytest.mark.parametrize("name", ["conv_bn_relu", "preactivation", "dense_blocks", "inverted", "nested", "gated_conv"])
def test_the_file_computes_what_training_saw(name, tmp_path):
    model, _ = kinds.build(name)
    x = np.random.default_rng(5).normal(size=(200, *model.input_shape[1:])).astype(np.float32)
    y = np.eye(4)[np.argmax(x.reshape(200, -1)[:, :4], axis=1)]
    recipe = Quantization(x)
    recipe.prepare(model)
    model.compile(keras.optimizers.Adam(1e-2), keras.losses.CategoricalCrossentropy(from_logits=True))
    model.fit(x, y, epochs=4, verbose=0)
    quantization.calibrate(model, x)
    simulated = model.predict(x, verbose=0)
    plain = recipe.finish(model)
    export.convert(plain, tmp_path / "int8.tflite", "int8", representative=x)
    found = export.Runner(tmp_path / "int8.tflite")(x)
    # Disagreements are where two classes are within a few codes of each other.
    scale = (simulated.max() - simulated.min()) / 255
    assert np.abs(found - simulated).mean() < 3 * scale
    assert (found.argmax(1) == simulated.argmax(1)).mean() >= 0.97


def test_no_samples():
    for samples in (None, np.zeros((0, 8, 8, 3), np.float32)):
        with pytest.raises(ValueError, match="needs representative samples"):
            Quantization(samples)
