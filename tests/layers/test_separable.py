"""Depthwise separable convolution and inverted residuals against plain operators, and their cost."""

import ctypes
import math

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from layers.normalization import NORMALIZATIONS
from layers.separable import depthwise_separable, inverted_residual, relu6

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


def depthwise(x, kernel, strides):
    """One 3x3 filter a channel over zero-padded x, as TensorFlow's "same" pads: the odd zero at the end."""
    rows, columns = (math.ceil(size / strides) for size in x.shape[1:3])
    total = [max((n - 1) * strides + 3 - size, 0) for n, size in zip((rows, columns), x.shape[1:3])]
    padded = np.pad(x, [(0, 0), *[(t // 2, t - t // 2) for t in total], (0, 0)])
    y = np.zeros((x.shape[0], rows, columns, x.shape[-1]))
    for row in range(rows):
        for column in range(columns):
            window = padded[:, row * strides:row * strides + 3, column * strides:column * strides + 3]
            y[:, row, column] = np.sum(window * kernel[..., 0], axis=(1, 2))
    return y


def normalize(x, layer):
    gamma, beta, mean, variance = layer.get_weights()
    return (x - mean) / np.sqrt(variance + EPSILON) * gamma + beta


def convolve_normalize(x, model, name, strides=1):
    """The convolution and the normalisation of that name; a 1x1 convolution is a matrix product."""
    (kernel,) = model.get_layer(f"{name}_conv").get_weights()  # and no bias
    y = depthwise(x, kernel, strides) if name.endswith("depthwise") else x @ kernel[0, 0]
    return normalize(y, model.get_layer(f"{name}_norm"))


@pytest.mark.parametrize("shape, strides", [((6, 4, 3), 1), ((6, 4, 3), 2), ((5, 7, 3), 2)])
def test_depthwise_separable_is_its_formula(shape, strides):
    model, x = built(depthwise_separable, shape, filters=5, strides=strides, epsilon=EPSILON)
    y = np.clip(convolve_normalize(x, model, "block_depthwise", strides), 0, 6)
    y = np.clip(convolve_normalize(y, model, "block_pointwise"), 0, 6)
    np.testing.assert_allclose(model(x), y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("expansion, filters, strides, has_shortcut", [
    (6, 3, 1, True), (6, 3, 2, False), (6, 5, 1, False), (1, 3, 1, True), (1, 4, 1, False)])
def test_inverted_residual_is_its_formula(expansion, filters, strides, has_shortcut):
    model, x = built(inverted_residual, (6, 4, 3), filters=filters, expansion=expansion, strides=strides,
                     epsilon=EPSILON)
    y = x
    if expansion > 1:
        y = np.clip(convolve_normalize(y, model, "block_expand"), 0, 6)
        assert y.shape[-1] == expansion * 3
    y = np.clip(convolve_normalize(y, model, "block_depthwise", strides), 0, 6)
    y = convolve_normalize(y, model, "block_project")
    assert y.min() < 0  # linear: nothing is cut off
    np.testing.assert_allclose(model(x), x + y if has_shortcut else y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(6, 4, 3), (5, 7, 3), (5, 4, 3)])
def test_padding_end_adds_zeros_below_and_to_the_right(shape):
    model, x = built(depthwise_separable, shape, filters=2, strides=2, padding="end", epsilon=EPSILON)
    (kernel,) = model.get_layer("block_depthwise_conv").get_weights()
    y = tf.nn.depthwise_conv2d(np.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0)]), kernel, [1, 2, 2, 1], "VALID").numpy()
    y = np.clip(normalize(y, model.get_layer("block_depthwise_norm")), 0, 6)
    y = np.clip(convolve_normalize(y, model, "block_pointwise"), 0, 6)
    assert y.shape[1:3] == (shape[0] // 2, shape[1] // 2)
    np.testing.assert_allclose(model(x), y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("padding", ["same", "end"])
def test_one_pixel_stays(padding):
    model, x = built(depthwise_separable, (1, 1, 3), filters=2, strides=2, padding=padding)
    assert model(x).shape == (2, 1, 1, 2)


def test_unknown_padding():
    with pytest.raises(ValueError, match=r'padding must be "same" or "end"; received \'valid\''):
        depthwise_separable(keras.Input((4, 4, 2)), 2, padding="valid", name="block")


def test_relu6_cuts_at_0_and_6():
    np.testing.assert_array_equal(relu6(tf.constant([-1.0, 0, 3, 6, 7]), name="relu6"), [0, 0, 3, 6, 6])


@pytest.mark.parametrize("channels, filters, size", [(4, 8, 6), (16, 5, 4), (3, 64, 8)])
def test_cost_is_1_over_m_plus_1_over_k_squared_of_a_standard_convolution(channels, filters, size):
    """Multiply-adds from the kernels and maps that were built: each kernel is applied at each output position.

    A depthwise kernel [K, K, C, 1] has one product for each of its elements, a convolution's [K, K, C, M] likewise.
    """
    model, _ = built(depthwise_separable, (size, size, channels), filters=filters)
    convolutions = [model.get_layer(name) for name in ("block_depthwise_conv", "block_pointwise_conv")]
    separable = sum(math.prod(layer.weights[0].shape) * math.prod(layer.output_shape[1:3]) for layer in convolutions)
    standard = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)
    output = standard(keras.Input((size, size, channels)))
    standard = math.prod(standard.kernel.shape) * math.prod(output.shape[1:3])
    assert separable / standard == pytest.approx(1 / filters + 1 / 3**2, rel=1e-12)


@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_every_normalization_builds(kind):
    for block in (depthwise_separable, inverted_residual):
        model, x = built(block, (4, 4, 4), filters=4, normalization=kind)
        assert np.all(np.isfinite(model(x)))


@pytest.fixture
def memory_of_nan():
    """Fresh memory is NaN in every type of floating point: what a kernel leaves unwritten shows."""
    perturb = -6  # M_PERTURB of malloc.h; fresh bytes are the value's complement, and 0 itself would switch it off
    library = ctypes.CDLL("libc.so.6")
    assert library.mallopt(perturb, 256)
    yield
    assert library.mallopt(perturb, 0)


@pytest.mark.parametrize("precision", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_a_stride_on_a_map_of_one_point_has_a_gradient(precision, memory_of_nan):
    policy = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(precision)
    try:
        model, x = built(depthwise_separable, (1, 1, 32), filters=5, strides=2)
    finally:
        keras.mixed_precision.set_global_policy(policy)
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x))
        (gradient,) = tape.gradient(loss, model.get_layer("block_depthwise_conv").trainable_weights)
        corners = gradient.numpy()[[0, 0, 1, 1, 2], [0, 2, 0, 2, 1]]  # of the nine taps those that meet padding alone
        np.testing.assert_array_equal(corners, 0)
        assert np.abs(gradient[1, 1]).max() > 0
