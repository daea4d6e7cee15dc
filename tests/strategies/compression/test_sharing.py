"""Weight sharing: few values, and the step of training projected onto tied weights."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

from strategies.compression import hooks, sharing
from strategies.compression.sharing import WeightSharing
from tests.strategies.compression import kinds


@pytest.mark.parametrize("name", kinds.EACH)
def test_training_moves_shared_values(name):
    model, x = kinds.build(name)
    recipe = WeightSharing(clusters=5)
    slots = hooks.weight_slots(model)
    before = [slot.variable.numpy() for slot in slots]
    recipe.prepare(model)
    y = np.eye(4)[np.arange(len(x)) % 4]
    model.compile(keras.optimizers.SGD(0.05), keras.losses.CategoricalCrossentropy(from_logits=True))
    model.fit(x, y, batch_size=len(x), epochs=3, verbose=0)
    shared = model(x).numpy()
    recipe.finish(model)
    np.testing.assert_allclose(model(x), shared, rtol=1e-5, atol=1e-6)
    for slot, old in zip(slots, before):
        assert len(np.unique(slot.variable)) <= 5
        assert not np.array_equal(slot.variable, old)


def test_clusters_are_nearest_and_zeros_are_apart():
    weights = np.random.default_rng(0).normal(size=(30, 20))
    weights[:10] = 0
    members = sharing.assign_clusters(weights, 8)
    assert (members[:10] == 0).all() and set(np.unique(members[10:])) == set(range(1, 9))
    centres = np.array([weights[members == k].mean() for k in range(1, 9)])
    nearest = np.abs(weights[10:, :, None] - centres).argmin(axis=-1) + 1
    assert (nearest == members[10:]).mean() > 0.99  # k-means ends when its centres hardly move


def test_shared_values_are_nearer_than_those_of_tfmots_clustering():
    """Both begin with evenly spread centroids; TFMOT leaves moving them to training, so that ours are nearer."""
    weights = np.random.default_rng(3).normal(size=(40, 30)).astype(np.float32)
    layer = keras.layers.Dense(30, use_bias=False, input_shape=(40,), weights=[weights])
    theirs = tfmot.clustering.keras.cluster_weights(
        keras.Sequential([layer]), number_of_clusters=8,
        cluster_centroids_init=tfmot.clustering.keras.CentroidInitialization.LINEAR)
    theirs = tfmot.clustering.keras.strip_clustering(theirs).layers[0].kernel.numpy()
    members = sharing.assign_clusters(weights, 8)
    ours = np.array([weights[members == k].mean() for k in range(1, 9)])[members - 1]
    assert len(np.unique(theirs)) == 8
    errors = [np.square(values - weights).mean() for values in (ours, theirs)]
    assert 0 < errors[0] < errors[1]


def test_a_step_is_the_projection_of_the_plain_one():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(5, use_bias=False, name="dense")(inputs))
    variable = model.get_layer("dense").kernel
    members = sharing.assign_clusters(variable.numpy(), 4)
    means = np.array([0, *(variable.numpy()[members == k].mean() for k in range(1, 5))])[members]
    x = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    WeightSharing(clusters=4).prepare(model)
    np.testing.assert_allclose(model(x), x @ means, rtol=1e-4, atol=1e-5)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(model(x)))
    gradient = tape.gradient(loss, variable).numpy()
    plain = x.T @ (2 * x @ means)
    expected = np.array([0, *(plain[members == k].mean() for k in range(1, 5))])[members]
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4)


def test_removed_weights_stay_removed():
    model, x = kinds.build("conv_bn_relu")
    kernel = model.get_layer("first").kernel
    kernel.assign(np.where(np.abs(kernel) < 0.1, 0, kernel))
    zeros = kernel.numpy() == 0
    assert 0.1 < zeros.mean() < 0.9
    recipe = WeightSharing(clusters=3)
    recipe.prepare(model)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(x, np.zeros((len(x), 4)), epochs=2, verbose=0)
    recipe.finish(model)
    np.testing.assert_array_equal(kernel.numpy() == 0, zeros)


@pytest.mark.parametrize("clusters", [1, 2.5, True, 2**17])
def test_bad_number_of_clusters(clusters):
    with pytest.raises(ValueError, match="clusters must be a whole number from 2"):
        WeightSharing(clusters=clusters)
