import math

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from apps.common import optimization
from apps.image_classification.config import Config


def expected_rate(shape, peak, total, warmup_fraction, step):
    """The schedule as a sentence: rise to the peak, then fall by the shape."""
    warmup = round(warmup_fraction * total)
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / (total - warmup)
    if shape == "cosine":
        return peak * (1 + math.cos(math.pi * done)) / 2
    if shape == "step":
        return peak * (1 if done < 0.5 else 0.1 if done < 0.75 else 0.01)
    if shape == "inverse_square_root":
        return peak * math.sqrt(max(warmup, 1) / (step + 1))
    return peak


@pytest.mark.parametrize("shape", optimization.SHAPES)
@pytest.mark.parametrize("warmup_fraction", [0.0, 0.1])
def test_schedule(shape, warmup_fraction):
    schedule = optimization.Schedule(0.4, 200, shape=shape, warmup_fraction=warmup_fraction)
    for step in (0, 1, 19, 20, 50, 99, 100, 109, 111, 149, 164, 166, 199):
        expected = expected_rate(shape, 0.4, 200, warmup_fraction, step)
        np.testing.assert_allclose(schedule(tf.constant(step, tf.int64)), expected, rtol=1e-5, atol=1e-6)


def test_schedule_ends_at_zero_and_stays_there():
    schedule = optimization.Schedule(0.4, 200)
    np.testing.assert_allclose([schedule(200), schedule(300)], 0, atol=1e-8)


def test_schedule_survives_saving():
    schedule = optimization.Schedule(0.4, 200, shape="step", warmup_fraction=0.2)
    copy = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert copy.get_config() == schedule.get_config()


def model():
    inputs = keras.Input((3,))
    built = keras.Model(inputs, keras.layers.BatchNormalization(name="norm")(keras.layers.Dense(2, name="d")(inputs)))
    for weight in built.trainable_weights:
        weight.assign(tf.ones_like(weight))
    return built


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_decay_acts_on_kernels_only(name):
    built = model()
    config = Config(workdir="x", optimizer=name, learning_rate=0.1, weight_decay=0.5, schedule="constant",
                    warmup_fraction=0.0)
    optimizer = optimization.make_optimizer(config, 10, built)
    optimizer.apply_gradients([(tf.zeros_like(v), v) for v in built.trainable_variables])
    values = {v.name: v.numpy() for v in built.trainable_variables}
    np.testing.assert_allclose(values.pop("d/kernel:0"), 1 - 0.1 * 0.5, rtol=1e-6)
    for value in values.values():
        np.testing.assert_array_equal(value, 1)


def test_sgd_is_nesterov():
    built, velocity, weight = model(), 0.0, 1.0
    config = Config(workdir="x", learning_rate=0.1, weight_decay=0.0, schedule="constant", warmup_fraction=0.0)
    optimizer = optimization.make_optimizer(config, 10, built)
    kernel = built.trainable_variables[0]
    for gradient in (1.0, -0.5, 2.0):
        optimizer.apply_gradients([(tf.fill(kernel.shape, gradient), kernel)])
        velocity = 0.9 * velocity - 0.1 * gradient
        weight += 0.9 * velocity - 0.1 * gradient
    np.testing.assert_allclose(kernel.numpy(), weight, rtol=1e-5)


def test_adam_follows_its_equations_with_another_decay():
    """Kingma & Ba 2015, algorithm 1, in NumPy."""
    built, weight, mean, square = model(), 1.0, 0.0, 0.0
    config = Config(workdir="x", optimizer="adam", learning_rate=0.1, beta_2=0.9, schedule="constant",
                    warmup_fraction=0.0)
    optimizer = optimization.make_optimizer(config, 10, built)
    kernel = built.trainable_variables[0]
    for step, gradient in enumerate((1.0, -0.5, 2.0), 1):
        optimizer.apply_gradients([(tf.fill(kernel.shape, gradient), kernel)])
        mean, square = 0.9 * mean + 0.1 * gradient, 0.9 * square + 0.1 * gradient ** 2
        weight -= 0.1 * (mean / (1 - 0.9 ** step)) / (np.sqrt(square / (1 - 0.9 ** step)) + 1e-7)
    np.testing.assert_allclose(kernel.numpy(), weight, rtol=1e-5)


def test_gradient_is_clipped_to_its_global_norm():
    built = model()
    config = Config(workdir="x", learning_rate=1.0, momentum=0.0, weight_decay=0.0, schedule="constant",
                    warmup_fraction=0.0, gradient_clip=0.5)
    optimizer = optimization.make_optimizer(config, 10, built)
    kernel, bias = built.trainable_variables[:2]
    optimizer.apply_gradients([(tf.fill(kernel.shape, 3.0), kernel), (tf.fill(bias.shape, 3.0), bias)])
    moved = np.concatenate([(1 - v.numpy()).ravel() for v in (kernel, bias)])
    np.testing.assert_allclose(np.linalg.norm(moved), 0.5, rtol=1e-5)


@pytest.mark.parametrize("name", optimization.OPTIMIZERS)
def test_a_table_is_clipped_by_the_norm_of_its_gradient(name):
    """Which is that of the sum over the tokens of an entry: three times the same one here."""
    table = tf.Variable(tf.zeros([4, 2]))
    gradient = tf.IndexedSlices(tf.ones([3, 2]), tf.constant([1, 1, 1]), tf.constant([4, 2]))
    model = keras.Sequential([keras.layers.Dense(1, input_shape=(2,))])
    config = Config(workdir="x", optimizer=name, learning_rate=0.5, momentum=0.0, weight_decay=0.0, gradient_clip=1.0,
                    schedule="constant", warmup_fraction=0.0)
    found = []
    with pytest.MonkeyPatch.context() as patch:
        optimizer = optimization.make_optimizer(config, 10, model)
        patch.setattr(optimizer, "update_step", lambda gradient, variable: found.append(gradient))
        optimizer.apply_gradients([(gradient, table)], skip_gradients_aggregation=True)
    expected = np.zeros([4, 2])
    expected[1] = np.sqrt(0.5)
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)


def test_unknown_names():
    with pytest.raises(ValueError, match="Unknown schedule 'cosin'.*Did you mean 'cosine'"):
        optimization.Schedule(0.1, 10, shape="cosin")
