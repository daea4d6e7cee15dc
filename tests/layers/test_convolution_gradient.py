"""The gradient of narrow, strided 1x1 convolutions against NumPy."""

import importlib
import itertools

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops

from layers import convolution_gradient, residual

SIZES = list(itertools.product([7, 8, 32], [1, 3, 4, 6, 7, 9, 15, 16], [3, 16]))


def gradients(images, filters, weights, padding, strides=2):
    with tf.GradientTape() as tape:
        tape.watch([images, filters])
        value = tf.reduce_sum(tf.nn.conv2d(images, filters, strides, padding) * weights)
    return tape.gradient(value, [images, filters])


def expected(images, filters, weights, strides=2):
    of_images = np.zeros(images.shape)
    of_images[:, ::strides, ::strides] = weights @ filters[0, 0].T
    return of_images, np.einsum("nhwi,nhwo->io", images[:, ::strides, ::strides], weights)[None, None]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "function"])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_equals_numpy(padding, compiled):
    rng = np.random.default_rng(0)
    function = tf.function(gradients) if compiled else gradients
    for size, channels, units in SIZES:
        images, filters = rng.normal(size=(8, size, size, channels)), rng.normal(size=(1, 1, channels, units))
        weights = rng.normal(size=(8, -(-size // 2), -(-size // 2), units))
        arrays = [tf.constant(a, tf.float32) for a in (images, filters, weights)]
        for _ in range(3):  # what is read beside the workspace is other memory each time
            for found, wanted in zip(function(*arrays, padding), expected(images, filters, weights)):
                np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3, err_msg=f"{size} {channels} {units}")


def test_second_derivative():
    """Of the sum of the squares of the filters' gradient with respect to the images, against differences."""
    rng = np.random.default_rng(0)
    images, filters, weights = (tf.constant(rng.normal(size=shape)) for shape in
                                [(2, 4, 4, 3), (1, 1, 3, 2), (2, 2, 2, 2)])

    def squares(images):
        return tf.reduce_sum(gradients(images, filters, weights, "SAME")[1] ** 2)

    (theory,), (numbers,) = tf.test.compute_gradient(squares, [images])
    np.testing.assert_allclose(theory, numbers, atol=1e-5)


@pytest.mark.parametrize("size, strides, channels, padding", [(3, 2, 4, "SAME"), (1, 1, 4, "SAME"), (1, 2, 16, "SAME"),
                                                              (1, 2, 4, [[0, 0], [2, 2], [2, 2], [0, 0]])])
def test_other_convolutions_keep_tensorflows_gradient(monkeypatch, size, strides, channels, padding):
    calls = []
    plain = convolution_gradient._plain_gradient
    monkeypatch.setattr(convolution_gradient, "_plain_gradient", lambda *a: calls.append(1) or plain(*a))
    images, filters = tf.ones([1, 8, 8, channels]), tf.ones([size, size, channels, 2])
    weights = tf.ones_like(tf.nn.conv2d(images, filters, strides, padding))
    gradients(images, filters, weights, padding, strides)
    assert calls


def test_channels_first_is_left_alone():
    """Only a GPU has it; the operation is made and not run."""
    with tf.Graph().as_default():
        images, filters = tf.ones([1, 4, 8, 8]), tf.ones([1, 1, 4, 2])
        y = tf.nn.conv2d(images, filters, [1, 1, 2, 2], "SAME", data_format="NCHW")
        assert tf.gradients(y, filters)[0].op.get_attr("data_format") == b"NCHW"


def test_residual_blocks_bring_it(monkeypatch):
    monkeypatch.setitem(convolution_gradient._REGISTERED, "type", convolution_gradient._plain_gradient)
    importlib.reload(residual)
    assert ops.gradient_registry.lookup("Conv2D") is convolution_gradient.conv2d_gradient
