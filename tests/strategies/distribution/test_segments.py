import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from strategies.distribution import segments


@pytest.mark.parametrize("start, total, expected", [
    (0, 10, [(0, 0, 2, 4), (8, 2, 1, 2)]),
    (3, 10, [(3, 0, 1, 1), (4, 1, 1, 4), (8, 2, 1, 2)]),
    (5, 6, [(5, 1, 1, 1)]),
    (8, 8, []),
    (9, 20, [(9, 2, 1, 3), (12, 3, 2, 4)]),
])
def test_plan(start, total, expected):
    assert segments.plan(4, start, total) == expected


def run(start, total, weights=None):
    model = keras.Sequential([keras.layers.Dense(1, input_shape=(2,))])
    model.set_weights(weights or [np.array([[0.5], [0.1]]), np.array([0.0])])
    model.compile("sgd", "mse")

    def dataset_from(step):
        return tf.data.Dataset.range(step, 1000).map(
            lambda i: (tf.stack([[tf.cast(i, tf.float32), 1.0]]) / 10, tf.ones([1, 1])))

    history = segments.fit(model, dataset_from, 4, start_step=start, total_steps=total, validation=None, callbacks=(),
                           verbose=0)
    return model.get_weights(), history


def test_two_parts_equal_the_whole():
    whole, history = run(0, 10)
    half, _ = run(0, 5)
    rest, _ = run(5, 10, weights=half)
    for expected, value in zip(whole, rest):
        np.testing.assert_array_equal(expected, value)
    assert len(history["loss"]) == 3
