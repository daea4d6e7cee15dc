"""Small models of the kinds that compression has to work on, each with inputs: {name: (build, inputs)}."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from layers import residual, separable
from layers.dense_block import dense_block
from layers.normalization import normalization

NUM_CLASSES = 4
IMAGE, SEQUENCE, TOKENS = (8, 8, 3), (6, 5), (7,)


def images(count=12):
    """float32 [count, 8, 8, 3]"""
    return np.random.default_rng(0).normal(size=(count, *IMAGE)).astype(np.float32)


def sequences(count=12):
    """float32 [count, 6, 5]"""
    return np.random.default_rng(1).normal(size=(count, *SEQUENCE)).astype(np.float32)


def tokens(count=12):
    """int32 [count, 7], below 11"""
    return np.random.default_rng(2).integers(0, 11, (count, *TOKENS)).astype(np.int32)


def _image_model(body):
    inputs = keras.Input(IMAGE, name="images")
    x = keras.layers.Conv2D(8, 3, padding="same", name="first")(inputs)
    x = keras.layers.GlobalAveragePooling2D(name="mean")(body(x))
    return keras.Model(inputs, keras.layers.Dense(NUM_CLASSES, name="logits")(x))


def conv_bn_relu():
    return _image_model(lambda x: residual.normalize_relu(
        residual.convolution(x, 8, 3, name="a"), kind="batch", epsilon=1e-5, momentum=0.9, name="a"))


def preactivation():
    return _image_model(lambda x: residual.preactivation_basic(x, 12, strides=2, name="block"))


def dense_blocks():
    return _image_model(lambda x: dense_block(x, num_layers=3, growth_rate=4, name="block"))


def inverted():
    return _image_model(lambda x: separable.inverted_residual(x, 8, expansion=3, name="block"))


def group_norm():
    # A mean over all positions of what was normalised would be a constant.
    return _image_model(lambda x: keras.layers.ReLU(name="relu")(normalization("group", name="norm")(x)))


def _sequence_model(body):
    inputs = keras.Input(SEQUENCE, name="frames")
    return keras.Model(inputs, keras.layers.Dense(NUM_CLASSES, name="logits")(body(inputs)))


def lstm():
    return _sequence_model(keras.layers.LSTM(8, name="lstm"))


def gru():
    return _sequence_model(keras.layers.GRU(8, name="gru", unroll=True))


@keras.utils.register_keras_serializable("usagi_tests")
class PeepholeCell(keras.layers.Layer):
    """An LSTM cell whose gates see the state; a layer that the suite has not heard of."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.state_size = [units, units]
        self.output_size = units

    def build(self, shape):
        self.kernel = self.add_weight(name="kernel", shape=[shape[-1] + self.units, 4 * self.units])
        self.bias = self.add_weight(name="bias", shape=[4 * self.units], initializer="zeros")
        self.peephole = self.add_weight(name="peephole", shape=[3, self.units])
        super().build(shape)

    def call(self, inputs, states):
        hidden, cell = states
        gates = tf.concat([inputs, hidden], axis=-1) @ self.kernel + self.bias
        i, f, g, o = (gates[:, k * self.units:(k + 1) * self.units] for k in range(4))
        new = tf.sigmoid(f + self.peephole[0] * cell) * cell + tf.sigmoid(i + self.peephole[1] * cell) * tf.tanh(g)
        output = tf.sigmoid(o + self.peephole[2] * new) * tf.tanh(new)
        return output, [output, new]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def own_cell():
    return _sequence_model(keras.layers.RNN(PeepholeCell(8), unroll=True, name="rnn"))


def transformer():
    def body(x):
        x = keras.layers.Dense(8, name="embed")(x)
        y = keras.layers.MultiHeadAttention(2, 4, name="attention")(x, x)
        x = keras.layers.LayerNormalization(name="norm1")(keras.layers.Add(name="add1")([x, y]))
        y = keras.layers.Dense(8, name="down")(keras.layers.Dense(16, activation="relu", name="up")(x))
        x = keras.layers.LayerNormalization(name="norm2")(keras.layers.Add(name="add2")([x, y]))
        return keras.layers.GlobalAveragePooling1D(name="mean")(x)
    return _sequence_model(body)


def gated_conv():
    def body(x):
        a = keras.layers.Conv1D(8, 2, padding="causal", dilation_rate=2, activation="tanh", name="filter")(x)
        b = keras.layers.Conv1D(8, 2, padding="causal", dilation_rate=2, activation="sigmoid", name="gate")(x)
        return keras.layers.GlobalAveragePooling1D(name="mean")(keras.layers.Multiply(name="gated")([a, b]))
    return _sequence_model(body)


def embedding():
    inputs = keras.Input(TOKENS, dtype="int32", name="tokens")
    x = keras.layers.Embedding(11, 8, name="embedding")(inputs)
    x = keras.layers.GlobalAveragePooling1D(name="mean")(x)
    return keras.Model(inputs, keras.layers.Dense(NUM_CLASSES, name="logits")(x))


def nested():
    inner_input = keras.Input((8, 8, 8))
    inner = keras.Model(inner_input, residual.basic(inner_input, 8, name="block"), name="inner")
    return _image_model(inner)


KINDS = {"conv_bn_relu": (conv_bn_relu, images), "preactivation": (preactivation, images),
         "dense_blocks": (dense_blocks, images), "inverted": (inverted, images), "group_norm": (group_norm, images),
         "lstm": (lstm, sequences), "gru": (gru, sequences), "own_cell": (own_cell, sequences),
         "transformer": (transformer, sequences), "gated_conv": (gated_conv, sequences),
         "embedding": (embedding, tokens), "nested": (nested, images)}
# For tests that train: the other kinds are left to `make conformance`.
EACH = [name if name in ("conv_bn_relu", "inverted", "lstm", "own_cell", "gated_conv", "embedding") else pytest.param(
    name, marks=pytest.mark.conformance) for name in KINDS]


def build(name, seed=0):
    """(model with seeded weights, inputs)"""
    keras.utils.set_random_seed(seed)
    make, inputs = KINDS[name]
    return make(), inputs()
