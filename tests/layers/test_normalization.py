"""`layers.normalization` against NumPy, tf_keras' own layer and finite differences."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from layers import normalization
from layers.normalization import NORMALIZATIONS, GroupNormalization


def reference(x, groups, gamma, beta, epsilon):
    """Sample by sample and group by group; x [B, H, W, C]."""
    y = np.empty_like(x)
    per_group = x.shape[-1] // groups
    for sample in range(x.shape[0]):
        for group in range(groups):
            channels = slice(group * per_group, (group + 1) * per_group)
            part = x[sample, ..., channels]
            y[sample, ..., channels] = (part - part.mean()) / np.sqrt(part.var() + epsilon)
    return y * gamma + beta


def random_layer(groups, channels, dtype="float64", epsilon=1e-3):
    generator = np.random.default_rng(1)
    layer = GroupNormalization(groups, epsilon=epsilon, dtype=dtype)
    layer.build([None, None, None, channels])
    layer.set_weights([generator.normal(1, .3, channels), generator.normal(0, .3, channels)])
    return layer


@pytest.mark.parametrize("groups, number", [(1, 1), (3, 3), ("channels", 12), ("auto", 12)])
def test_group_normalization_equals_numpy(groups, number):
    x = np.random.default_rng(0).normal(2, 3, (3, 5, 4, 12))
    layer = random_layer(groups, 12)
    gamma, beta = layer.get_weights()
    np.testing.assert_allclose(layer(x), reference(x, number, gamma, beta, 1e-3), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 4, 8])
def test_group_normalization_equals_tf_keras(groups):
    x = np.random.default_rng(0).normal(2, 3, (2, 3, 5, 8)).astype("float32")
    stock = keras.layers.GroupNormalization(groups, epsilon=1e-3)
    stock.build(x.shape)
    layer = random_layer(groups, 8, "float32")
    stock.set_weights(layer.get_weights())
    np.testing.assert_allclose(layer(x), stock(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 6), (4, 7, 6), (2, 3, 2, 2, 6)])
def test_any_rank(shape):
    x = np.random.default_rng(0).normal(size=shape)
    layer = random_layer(2, 6)
    flat = x.reshape(shape[0], -1, 1, 6)
    np.testing.assert_allclose(layer(x), np.reshape(layer(flat), shape), rtol=1e-12, atol=1e-12)


def test_unknown_image_size_gives_the_same_numbers():
    x = np.random.default_rng(0).normal(size=(2, 5, 3, 6))
    layer = random_layer(3, 6)
    inputs = keras.Input((None, None, 6), dtype="float64")
    np.testing.assert_array_equal(keras.Model(inputs, layer(inputs))(x), layer(x))


def test_gradient_equals_finite_differences():
    generator = np.random.default_rng(0)
    x, direction = generator.normal(size=(2, 3, 2, 4)), generator.normal(size=(2, 3, 2, 4))
    layer = random_layer(2, 4)

    def value(x):
        return float(tf.reduce_sum(layer(x) * direction))

    variable = tf.Variable(x)
    with tf.GradientTape() as tape:
        target = tf.reduce_sum(layer(variable) * direction)
    gradient = tape.gradient(target, variable).numpy()
    step = 1e-6
    for index in np.ndindex(x.shape):
        bump = np.zeros_like(x)
        bump[index] = step
        assert gradient[index] == pytest.approx((value(x + bump) - value(x - bump)) / (2 * step), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("policy, tolerance", [("mixed_float16", 4e-3), ("mixed_bfloat16", 3e-2), ("float16", 4e-3)])
def test_low_precision_keeps_precise_statistics(policy, tolerance):
    # The mean of 4,096 values around 200: summed in float16 it would overflow at 65,504.
    x = np.random.default_rng(0).normal(200, 10, (2, 64, 64, 2)).astype("float32")
    x = tf.cast(tf.cast(x, tf.bfloat16 if "bfloat16" in policy else tf.float16), tf.float32)
    layer = GroupNormalization(1, dtype=keras.mixed_precision.Policy(policy))
    exact = GroupNormalization(1, dtype="float64")
    y = layer(x)
    assert y.dtype == layer.compute_dtype
    np.testing.assert_allclose(tf.cast(y, tf.float64), exact(tf.cast(x, tf.float64)), atol=tolerance, rtol=tolerance)


def test_auto_takes_the_largest_divisor_not_above_32():
    assert [normalization.largest_divisor(c, 32) for c in (1, 24, 64, 48, 67, 100, 640)] == [1, 24, 32, 24, 1, 25, 32]


def test_statistics_of_each_kind():
    x = np.random.default_rng(0).normal(2, 3, (4, 6, 6, 64))
    axes = {"batch": (0, 1, 2), "layer": (1, 2, 3), "instance": (1, 2)}
    for kind in (*NORMALIZATIONS, "group:4"):
        layer = normalization.normalization(kind, name="norm", epsilon=1e-12)
        y = layer(x.astype("float32"), training=True).numpy().astype("float64")
        assert layer.name == "norm" and layer.epsilon == 1e-12
        if kind.startswith("group"):
            groups = 4 if kind == "group:4" else 32
            y, over = y.reshape(4, 36, groups, 64 // groups), (1, 3)
        else:
            over = axes[kind]
        np.testing.assert_allclose(y.mean(over), 0, atol=1e-5)
        np.testing.assert_allclose(y.var(over), 1, atol=1e-4)
    assert normalization.normalization("batch", name="b", momentum=.7).momentum == .7


def test_configuration_round_trip():
    layer = GroupNormalization("channels", epsilon=.5, name="n")
    copy = GroupNormalization.from_config(layer.get_config())
    assert (copy.groups, copy.epsilon, copy.name) == ("channels", .5, "n")


@pytest.mark.parametrize("call, message", [
    (lambda: normalization.normalization("bach", name="n"),
     "Unknown normalization 'bach': expected one of batch, layer, instance, group, group:2, .*. Did you mean 'batch'"),
    (lambda: GroupNormalization(0), "groups must be a positive integer.*received 0"),
    (lambda: GroupNormalization("all"), "groups must be a positive integer.*received 'all'"),
    (lambda: GroupNormalization(3).build([None, 4]), "groups=3 must divide the number of channels; received 4"),
    (lambda: GroupNormalization(8).build([None, 4]), "groups=8 must divide the number of channels; received 4"),
    (lambda: GroupNormalization(1).build([None, None]), "needs a known number of channels"),
])
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
