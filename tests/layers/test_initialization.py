"""Initial values of weights."""

import numpy as np
import tf_keras as keras

from layers.attention import MultiHeadAttention
from layers.initialization import GlorotOfMatrix


def test_spread_is_that_of_the_matrix():
    for axes, shape, inputs, outputs in ((1, (96, 6, 32), 96, 192), (2, (6, 32, 64), 192, 64), (1, (50, 70), 50, 70)):
        limit = np.sqrt(6 / (inputs + outputs))
        values = GlorotOfMatrix(axes, seed=0)(shape).numpy()
        assert values.shape == shape and 0.99 * limit < np.abs(values).max() <= limit
        np.testing.assert_allclose(values.std(), limit / np.sqrt(3), rtol=0.03)


def test_a_matrix_begins_as_in_keras():
    np.testing.assert_allclose(GlorotOfMatrix(1, seed=3)((20, 30)), keras.initializers.GlorotUniform(3)((20, 30)))


def test_attention_that_was_read_has_it_too():
    layer = MultiHeadAttention(4, 8)
    layer(np.zeros([1, 2, 32]), np.zeros([1, 3, 32]))
    again = keras.initializers.deserialize(keras.initializers.serialize(layer.query.kernel_initializer))
    assert isinstance(again, GlorotOfMatrix) and again.input_axes == 1
    # Scores of inputs with the variance 1 have a spread near 1, not of a few hundredths.
    x = np.random.default_rng(0).normal(size=[1, 64, 32]).astype(np.float32)
    keys, _ = layer.project(x)
    scores = np.einsum("bqhd,bvhd->bhqv", layer.query(x), keys) / np.sqrt(8)
    assert 0.5 < scores.std() < 2
