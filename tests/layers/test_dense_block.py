"""Dense layers, blocks and transitions against NumPy loops."""

import numpy as np
import pytest
import tf_keras as keras

from layers.dense_block import dense_block, dense_layer, transition
from layers.normalization import NORMALIZATIONS
from layers.regularization import StatelessDropout

EPSILON = 1e-3


def built(block, shape, **options):
    """The block as a model, with random weights and statistics, and an input."""
    images = keras.Input(shape)
    model = keras.Model(images, block(images, **options, name="block"))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        low = 0.5 if "gamma" in weight.name or "variance" in weight.name else -1
        weight.assign(rng.uniform(low, 1, weight.shape))
    return model, rng.normal(size=(2, *shape)).astype(np.float32)


def convolve(x, kernel):
    """Zero-padded convolution of stride 1, one output pixel at a time."""
    size = kernel.shape[0]
    padded = np.pad(x, [(0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)])
    y = np.zeros((*x.shape[:3], kernel.shape[-1]))
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            window = padded[:, row:row + size, column:column + size]
            y[:, row, column] = np.tensordot(window, kernel, axes=[[1, 2, 3], [0, 1, 2]])
    return y


def normalize_relu(x, layer):
    gamma, beta, mean, variance = layer.get_weights()
    return np.maximum((x - mean) / np.sqrt(variance + EPSILON) * gamma + beta, 0)


def kernel_of(model, name):
    (kernel,) = model.get_layer(name).get_weights()  # and no bias
    return kernel


@pytest.mark.parametrize("use_bottleneck", [True, False])
def test_dense_layer_is_its_formula(use_bottleneck):
    model, x = built(dense_layer, (5, 4, 6), growth_rate=3, use_bottleneck=use_bottleneck, epsilon=EPSILON)
    y = x
    if use_bottleneck:
        y = convolve(normalize_relu(y, model.get_layer("block_1_norm")), kernel_of(model, "block_1_conv"))
        assert y.shape[-1] == 4 * 3
    y = convolve(normalize_relu(y, model.get_layer("block_2_norm")), kernel_of(model, "block_2_conv"))
    np.testing.assert_allclose(model(x), np.concatenate([x, y], axis=-1), rtol=1e-4, atol=1e-4)


def test_layer_l_of_a_block_sees_k0_plus_k_times_l_minus_1_channels():
    model, x = built(dense_block, (4, 4, 5), num_layers=4, growth_rate=3)
    seen = [model.get_layer(f"block_layer{number}_1_conv").input_shape[-1] for number in (1, 2, 3, 4)]
    assert seen == [5, 8, 11, 14]
    output = model(x).numpy()
    assert output.shape == (2, 4, 4, 5 + 4 * 3)
    np.testing.assert_array_equal(output[..., :5], x)  # concatenated, not added


@pytest.mark.parametrize("shape", [(6, 4, 5), (5, 3, 5)], ids=["even", "odd"])
def test_transition_is_its_formula(shape):
    model, x = built(transition, shape, compression=0.5, epsilon=EPSILON)
    y = convolve(normalize_relu(x, model.get_layer("block_norm")), kernel_of(model, "block_conv"))
    assert y.shape[-1] == 2  # floor(5 / 2)
    rows, columns = shape[0] // 2 * 2, shape[1] // 2 * 2  # an odd row or column is dropped
    pooled = (y[:, 0:rows:2, 0:columns:2] + y[:, 1:rows:2, 0:columns:2]
              + y[:, 0:rows:2, 1:columns:2] + y[:, 1:rows:2, 1:columns:2]) / 4
    np.testing.assert_allclose(model(x), pooled, rtol=1e-4, atol=1e-4)


def test_transition_leaves_one_pixel_and_one_channel():
    model, x = built(transition, (1, 1, 1), compression=0.5)
    assert model(x).shape == (2, 1, 1, 1)


@pytest.mark.parametrize("compression", [0, 1.5, -1])
def test_transition_refuses_a_compression_outside_its_range(compression):
    with pytest.raises(ValueError, match=r"compression must be above 0 and at most 1; received .*Pass 0\.5"):
        transition(keras.Input((4, 4, 2)), compression, name="t")


def test_dropout_follows_every_convolution_with_a_seed_of_its_own():
    def block_and_transition(x, name):
        x = dense_block(x, 3, 2, dropout=0.2, seed=7, name=name)
        return transition(x, dropout=0.2, seed=7 + 2 * 3, name=name)

    model, _ = built(block_and_transition, (4, 4, 2))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            (node,) = layer.outbound_nodes
            assert isinstance(node.layer, StatelessDropout)
    dropouts = [layer for layer in model.layers if isinstance(layer, StatelessDropout)]
    assert len({layer.seed for layer in dropouts}) == len(dropouts) == 7
    assert {layer.rate for layer in dropouts} == {0.2}


def test_no_dropout_layer_at_rate_0():
    model, _ = built(dense_block, (4, 4, 2), num_layers=2, growth_rate=2)
    assert not any(isinstance(layer, StatelessDropout) for layer in model.layers)


@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_every_normalization_builds(kind):
    for block, options in ((dense_layer, {"growth_rate": 2}), (transition, {})):
        model, x = built(block, (4, 4, 4), normalization=kind, **options)
        assert np.all(np.isfinite(model(x)))
