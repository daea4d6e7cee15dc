import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from strategies.export import count_macs
from tests.strategies.export import models


def macs_of(layer, shape):
    x = keras.Input(shape)
    return count_macs(keras.Model(x, layer(x)))


@pytest.mark.parametrize("layer, shape, expected", [
    # positions x kernel x C x M
    (lambda: keras.layers.Conv2D(6, 3, padding="same"), (9, 9, 4), 9 * 9 * 3 * 3 * 4 * 6),
    (lambda: keras.layers.Conv2D(6, 3, strides=2, padding="same"), (9, 9, 4), 5 * 5 * 3 * 3 * 4 * 6),
    (lambda: keras.layers.Conv2D(6, (3, 2)), (9, 9, 4), 7 * 8 * 3 * 2 * 4 * 6),
    (lambda: keras.layers.Conv2D(6, 3, padding="same", groups=2), (9, 9, 4), 9 * 9 * 3 * 3 * 2 * 6),
    (lambda: keras.layers.Conv2D(6, 3, dilation_rate=2), (9, 9, 4), 5 * 5 * 3 * 3 * 4 * 6),
    (lambda: keras.layers.Conv1D(6, 3, dilation_rate=4, padding="causal"), (10, 4), 10 * 3 * 4 * 6),
    (lambda: keras.layers.Conv3D(5, 2), (4, 5, 6, 3), 3 * 4 * 5 * 8 * 3 * 5),
    (lambda: keras.layers.DepthwiseConv2D(3, padding="same"), (9, 9, 4), 9 * 9 * 3 * 3 * 4),
    (lambda: keras.layers.DepthwiseConv2D(3, depth_multiplier=2, dilation_rate=2), (9, 9, 4), 5 * 5 * 3 * 3 * 8),
    (lambda: keras.layers.SeparableConv2D(6, 3), (9, 9, 4), 7 * 7 * (3 * 3 * 4 + 4 * 6)),
    (lambda: keras.layers.Conv2DTranspose(6, 3, strides=2, padding="same"), (9, 9, 4), 9 * 9 * 3 * 3 * 4 * 6),
    (lambda: keras.layers.Conv3DTranspose(5, 2), (4, 4, 4, 3), 4 * 4 * 4 * 8 * 3 * 5),
    (lambda: keras.layers.Dense(7), (5,), 5 * 7),
    (lambda: keras.layers.Dense(7), (11, 5), 11 * 5 * 7),
    (lambda: keras.layers.EinsumDense("...x,xy->...y", output_shape=7), (11, 5), 11 * 5 * 7),
    (lambda: keras.layers.Lambda(lambda x: tf.matmul(x, x, transpose_a=True)), (11, 5), 5 * 5 * 11),
    (lambda: keras.layers.Lambda(lambda x: tf.matmul(x, x, transpose_b=True)), (2, 11, 5), 2 * 11 * 11 * 5),
    (lambda: keras.layers.Lambda(lambda x: tf.function(lambda y: tf.matmul(y, y))(x)), (6, 6), 6 * 6 * 6),
    (lambda: keras.layers.LSTM(3, unroll=True), (4, 5), 4 * (5 * 12 + 3 * 12)),
    (lambda: keras.layers.BatchNormalization(), (5,), 0),
])
def test_by_hand(layer, shape, expected):
    assert macs_of(layer(), shape) == expected


def test_attention():
    x = keras.Input((16, 8))
    model = keras.Model(x, keras.layers.MultiHeadAttention(2, 3)(x, x))
    projections = 4 * 16 * 8 * (2 * 3)  # query, key, value, output
    products = 2 * 2 * 16 * 16 * 3  # scores and weighted values of each head
    assert count_macs(model) == projections + products


def test_whole_model_by_hand():
    by_hand = 8 * 8 * 9 * 3 * 8 + 4 * 4 * 9 * 8 * 16 + 4 * 4 * 9 * 16 * 16 + 16 * 10
    assert count_macs(models.conv_norm_relu()) == by_hand


def test_mobilenet_as_published():
    # Howard et al. 2017, table 4: 569 million multiply-adds.
    assert round(count_macs(keras.applications.MobileNet(weights=None)) / 1e6) == 569


def test_open_dimensions_are_settled_by_samples():
    x = keras.Input((None, None, 3))
    model = keras.Model(x, keras.layers.Conv2D(4, 3, padding="same")(x))
    assert count_macs(model, np.zeros((2, 5, 6, 3))) == 5 * 6 * 27 * 4
    with pytest.raises(ValueError, match=r"every dimension must be known\. Build the model with a fixed input shape"):
        count_macs(model)


@pytest.mark.parametrize("layer", [lambda: keras.layers.LSTM(3), lambda: keras.layers.RNN(keras.layers.LSTMCell(3))])
def test_loops_are_refused(layer):
    with pytest.raises(ValueError, match=r"cannot be counted: (Stateless)?While .* how often that runs is not known"):
        macs_of(layer(), (4, 5))


def test_loop_without_multiply_adds_is_no_obstacle():
    def doubled(x):
        return tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y + y), (0, x))[1]

    assert macs_of(keras.layers.Lambda(doubled), (5,)) == 0


def test_unknown_shape_in_the_graph():
    def rows_above_zero(x):
        return tf.matmul(tf.boolean_mask(x[0], x[0, :, 0] > 0), tf.ones((3, 2)))

    with pytest.raises(ValueError, match=r"MatMul .* has a tensor of shape \(None, 3\)\. Give the model inputs"):
        macs_of(keras.layers.Lambda(rows_above_zero), (5, 3))


def test_model_without_known_inputs():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match=r"needs known inputs and outputs .*; received a Own without them\. Give a"):
        count_macs(Own())
