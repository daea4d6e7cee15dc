import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from apps.alphago import networks, winograd
from apps.alphago.go import features
from apps.alphago.networks import Evaluator, Structure


@pytest.mark.parametrize("size", [5, 9, 13, 19])
def test_winograd_is_a_convolution(size):
    noise = np.random.default_rng(0)
    x, kernel = noise.normal(size=[2, size, size, 7]), noise.normal(size=[3, 3, 7, 5])
    found = winograd.convolve(tf.constant(x, tf.float32), winograd.transform_kernel(kernel).astype("float32"))
    np.testing.assert_allclose(found, tf.nn.conv2d(x, kernel, 1, "SAME"), atol=1e-4)
    back, g, forth = winograd.matrices()
    signal, taps = noise.normal(size=5), noise.normal(size=3)
    np.testing.assert_allclose(back @ ((g @ taps) * (forth @ signal)), np.convolve(signal, taps[::-1], "valid"))


def settled(structure):
    """A model whose normalisations have seen something."""
    keras.utils.set_random_seed(0)
    model, noise = networks.build(structure), np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([noise.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
        elif isinstance(layer, keras.layers.Dense) and not layer.kernel.numpy().any():
            layer.set_weights([noise.normal(0, 0.1, weight.shape) for weight in layer.get_weights()])
    return model


STRUCTURES = [Structure(blocks=2, filters=16), Structure(size=5, num_actions=26, blocks=3, filters=8, pooling_every=2),
              Structure(size=13, num_actions=170, blocks=1, filters=8, ownership=True, score=True, pooling_every=1),
              Structure(size=9, blocks=1, filters=8, heads="pooled", ownership=True),
              Structure(size=3, num_actions=9, planes=2, blocks=1, filters=8, heads="pooled")]


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
@pytest.mark.parametrize("use_winograd", [False, True])
def test_an_evaluator_computes_what_the_model_does(structure, use_winograd, tmp_path):
    model, planes = settled(structure), tf.cast(tf.random.stateless_uniform(
        [4, structure.size, structure.size, structure.planes], [0, 1]) > 0.7, tf.float32)
    model.save(tmp_path / "model.keras")
    read = keras.models.load_model(tmp_path / "model.keras")
    assert networks.structure_of(read) == structure
    evaluator = Evaluator(networks.build(structure), use_winograd=use_winograd)
    program = tf.function(evaluator, jit_compile=True)
    program(planes)
    evaluator.update(read)  # a compiled program sees it
    logits, value = program(planes)
    expected = model(planes)
    np.testing.assert_allclose(logits, expected["policy"], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(value, expected["value"][:, 0], atol=1e-4)
    assert program.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("heads", networks.HEADS)
def test_a_new_network_prefers_nothing(heads):
    outputs = networks.build(Structure(blocks=1, filters=8, heads=heads, ownership=True, score=True))(
        tf.random.stateless_uniform([2, 9, 9, 17], [0, 1]))
    assert all(not outputs[name].numpy().any() for name in ("policy", "value", "ownership", "score"))


def test_parameters_of_the_paper():
    # 19 blocks of 256 filters on 19x19: by hand, batch normalisation's 4 numbers a filter included
    def conv(size, inputs, filters):
        return size * size * inputs * filters + 4 * filters

    tower = conv(3, 17, 256) + 38 * conv(3, 256, 256)
    heads = conv(1, 256, 2) + (2 * 361 + 1) * 362 + conv(1, 256, 1) + (361 + 1) * 256 + 257
    blocks, filters = networks.PRESETS["zero_19x256"]
    model = networks.build(Structure(size=19, num_actions=362, blocks=blocks, filters=filters))
    assert model.count_params() == tower + heads


def test_another_model_is_refused():
    with pytest.raises(ValueError, match="is no network of AlphaGo Zero: expected layers stem_conv"):
        networks.structure_of(keras.Sequential([keras.layers.Dense(3, input_shape=[2])]))


@pytest.mark.parametrize("structure", [structure for structure in STRUCTURES if structure.size in (3, 9)], ids=str)
def test_positions_are_seen_under_symmetries(structure):
    model, size = settled(structure), structure.size
    planes = tf.cast(tf.random.stateless_uniform([48, size, size, structure.planes], [0, 1]) > 0.7, tf.float32)
    logits, value = tf.function(Evaluator(model, symmetric=True), jit_compile=True)(planes)
    seen = []
    for symmetry in range(8):
        image = model(features.transform_planes(size, planes, tf.fill([48], symmetry)))
        policy = image["policy"]
        back = features.inverse_symmetries(size)[symmetry, :structure.num_actions]
        same = np.isclose(tf.gather(policy, back, axis=1), logits, rtol=1e-3, atol=1e-3).all(axis=1)
        seen.append(same & np.isclose(image["value"][:, 0], value, atol=1e-4))
    assert np.any(seen, axis=0).all()
    assert np.any(seen, axis=1).sum() == 8  # of 48 positions
    again = Evaluator(model, symmetric=True)(planes[:5])
    np.testing.assert_allclose(again[0], logits[:5], rtol=1e-3, atol=1e-3)


def test_the_mean_over_symmetries():
    structure = next(structure for structure in STRUCTURES if structure.size == 9)
    size, model = 9, settled(structure)
    planes = tf.cast(tf.random.stateless_uniform([5, size, size, structure.planes], [0, 2]) > 0.7, tf.float32)
    seen = tf.function(networks.seen_under_symmetries, jit_compile=True)
    logits, value = seen(size, Evaluator(model), planes, 8)
    sums = [0, 0]
    for symmetry in range(8):
        image = model(features.transform_planes(size, planes, tf.fill([5], symmetry)))
        back = features.inverse_symmetries(size)[symmetry, :structure.num_actions]
        sums[0] += tf.gather(image["policy"], back, axis=1).numpy()
        sums[1] += image["value"][:, 0].numpy()
    np.testing.assert_allclose(logits, sums[0] / 8, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(value, sums[1] / 8, atol=1e-4)
    turned = seen(size, Evaluator(model), features.transform_planes(size, planes, tf.fill([5], 3)), 8)
    np.testing.assert_allclose(tf.gather(turned[0], features.inverse_symmetries(size)[3, :82], axis=1), logits,
                               rtol=1e-3, atol=1e-3)
    two = seen(size, Evaluator(model), planes, 2)
    assert np.abs(two[0] - logits).max() > 1e-2  # half way
