"""Masks against brute force and against tensorflow_model_optimization; training under masks."""

import types

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from tensorflow_model_optimization.python.core.sparsity.keras import pruning_impl

from layers.attention import MultiHeadAttention
from strategies.compression import hooks, pruning
from strategies.compression.pruning import Pruning
from tests.strategies.compression import kinds


def weights_of(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tfmot_mask(weights, sparsity, block=(1, 1), m_by_n=None):
    schedule = tfmot.sparsity.keras.ConstantSparsity(sparsity, begin_step=0)
    variable = tf.Variable(weights)
    masker = pruning_impl.Pruning(lambda: 0, [(variable, None, None)], schedule, list(block), "AVG", m_by_n)
    return masker._maybe_update_block_mask(variable)[1].numpy()


@pytest.mark.parametrize("shape", [(12, 8), (3, 3, 4, 8), (2, 5, 7)])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.937])
def test_the_smallest_weights_go(shape, sparsity):
    weights = weights_of(shape)
    mask = pruning.magnitude_mask(weights, sparsity)
    kept = max(1, round(weights.size * (1 - sparsity)))
    assert mask.sum() == kept and set(np.unique(mask)) <= {0, 1}
    assert np.abs(weights)[mask == 0].max(initial=0) <= np.abs(weights)[mask == 1].min()
    np.testing.assert_array_equal(mask, tfmot_mask(weights, sparsity))


def test_groups_lie_along_the_inputs_of_every_kind_of_kernel():
    image, sequence = keras.Input((4, 4, 4)), keras.Input((5, 8))
    heads, transposed = MultiHeadAttention(2, 4, name="heads"), keras.layers.Conv2DTranspose(2, 3, name="transposed")
    model = keras.Model([image, sequence], [transposed(image), heads(sequence, sequence)])
    recipe = Pruning(m_by_n=(2, 4))
    recipe.prepare(model)
    recipe.update_masks(model)
    recipe.finish(model)
    query, output, kernel = heads.query.kernel, heads.attention_output.kernel, transposed.kernel
    for inputs_last in (tf.transpose(query, [1, 2, 0]), tf.transpose(tf.reshape(output, [8, 8])), kernel):
        zeros = np.reshape(inputs_last, [-1, 4]) == 0
        assert (zeros.sum(axis=1) == 2).all()


@pytest.mark.parametrize("block", [(2, 2), (4, 1), (1, 4), (3, 4)])
def test_blocks_go_as_tfmot_has_it(block):
    weights = weights_of((12, 8))
    np.testing.assert_array_equal(pruning.magnitude_mask(weights, 0.5, block), tfmot_mask(weights, 0.5, block))


def test_blocks_at_the_edge_may_be_smaller():
    weights = np.ones((5, 3), np.float32)
    weights[4, 2] = 9.0  # a block of its own with 2 x 2 blocks
    expected = np.zeros((5, 3))
    expected[4, 2] = 1
    np.testing.assert_array_equal(pruning.magnitude_mask(weights, 0.9, (2, 2)), expected)


@pytest.mark.parametrize("shape", [(12, 8), (3, 3, 8, 5)])
@pytest.mark.parametrize("m, n", [(2, 4), (1, 4)])
def test_m_of_n_as_tfmot_has_it(shape, m, n):
    weights = weights_of(shape)
    mask = pruning.m_by_n_mask(weights, m, n)
    np.testing.assert_array_equal(mask, tfmot_mask(weights, 0.5, m_by_n=(m, n)))
    groups = np.moveaxis(mask, -2, -1).reshape(-1, n)
    assert (groups.sum(axis=1) == n - m).all()


def test_of_normal_weights_the_error_function_goes():
    weights = weights_of((200, 50))
    mask = pruning.deviation_mask(weights, 1.3)
    np.testing.assert_array_equal(mask, np.abs(weights) > 1.3 * weights.std())
    assert abs(1 - mask.mean() - 0.8064) < 0.01  # erf(1.3 / sqrt 2)


def test_rounds_at_one_alpha_remove_what_training_has_made_small():
    """Three rounds at 1.5 sigma, as with --prune_iterations=3; between them a quarter of what is left shrinks."""
    weights, noise = weights_of((200, 50)), np.random.default_rng(1)
    shares = []
    for _ in range(3):
        weights *= pruning.deviation_mask(weights, 1.5)
        shares.append(float((weights != 0).mean()))
        weights *= np.where(noise.random(weights.shape) < 0.25, 0.1, 1)
    np.testing.assert_allclose(shares, [0.1336, 0.1336 * 0.75, 0.1336 * 0.75 ** 2], rtol=0.1)


@pytest.mark.parametrize("options, message", [
    ({"criterion": "threshold", "threshold": 9.0}, "threshold=9 removes every weight of 'first/kernel', the largest"),
    ({"criterion": "deviation", "alpha": 50.0}, "alpha=50 removes every weight of 'first/kernel'")])
def test_a_layer_is_not_emptied(options, message):
    model, _ = kinds.build("conv_bn_relu")
    recipe = Pruning(**options)
    with pytest.raises(ValueError, match=message):
        recipe.update_masks(recipe.prepare(model))


def test_the_schedule_is_tfmots():
    recipe = Pruning(sparsity=0.8, ramp=0.5)
    due = pruning.due_steps(recipe, 400)
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.8, 0, 200, frequency=4)
    assert sorted(due) == list(range(0, 201, 4))
    assert all(schedule(step)[0] for step in due)
    np.testing.assert_allclose([due[s] for s in sorted(due)], [schedule(s)[1] for s in sorted(due)], rtol=1e-6)
    assert pruning.due_steps(Pruning(sparsity=0.8, schedule="constant"), 400) == {0: 0.8}
    assert pruning.due_steps(Pruning(criterion="threshold"), 400) == {0: None}


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_short_trainings_reach_the_sparsity_too(steps):
    due = pruning.due_steps(Pruning(sparsity=0.8, ramp=1.0), steps)
    assert max(due) <= steps - 1 and due[max(due)] == 0.8


@pytest.mark.parametrize("name", kinds.EACH)
def test_training_under_masks(name):
    model, x = kinds.build(name)
    recipe = Pruning(sparsity=0.6, ramp=0.5)
    recipe.prepare(model)
    progress = types.SimpleNamespace(step=0)

    class Count(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            progress.step += 1

    y = np.eye(4)[np.arange(len(x)) % 4]
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), keras.losses.CategoricalCrossentropy(from_logits=True))
    data = tf.data.Dataset.from_tensors((x, y)).repeat()
    history = model.fit(data, steps_per_epoch=12, epochs=1, verbose=0,
                        callbacks=[*recipe.callbacks(model, progress, 12), Count()])
    assert history.history["sparsity"][-1] == pytest.approx(0.6, abs=0.05)
    pruned = model(x).numpy()
    slots = recipe._slots(model)
    plain = recipe.finish(model)
    np.testing.assert_allclose(plain(x), pruned, rtol=1e-5, atol=1e-6)
    share = sum((slot.variable.numpy() == 0).sum() for slot in slots) / sum(np.size(slot.variable) for slot in slots)
    assert share == pytest.approx(0.6, abs=0.05)


def test_masks_only_lose_weights_and_keep_what_was_removed_before():
    model, _ = kinds.build("conv_bn_relu")
    kernel = model.get_layer("first").kernel
    zeroed = kernel.numpy()
    zeroed[0] = 0
    kernel.assign(zeroed)
    recipe = Pruning(sparsity=0.2)
    recipe.prepare(model)
    mask = hooks.hook_of(model.get_layer("first")).mask(hooks.weight_slots(model)[0])
    before = mask.numpy()
    assert not before[0].any() and before[1:].all()
    for sparsity in (0.5, 0.4, 0.7):
        recipe.update_masks(model, sparsity)
        now = mask.numpy()
        assert (now <= before).all()
        before = now


def test_depthwise_kernels_stay_unless_named():
    model, _ = kinds.build("inverted")
    assert not any("depthwise" in slot.name for slot in Pruning()._slots(model))
    named = Pruning(select="depthwise")._slots(model)
    assert [slot.name for slot in named] == ["block_depthwise_conv/depthwise_kernel"]


@pytest.mark.parametrize("options, message", [
    ({"sparsity": 1.0}, "sparsity must be at least 0 and below 1; received 1.0"),
    ({"sparsity": -0.1}, "sparsity must be at least 0"),
    ({"criterion": "magnitude"}, "Unknown pruning criterion 'magnitude'"),
    ({"schedule": "linear"}, "Unknown pruning schedule 'linear'"),
    ({"ramp": 0.0}, "ramp must be above 0"),
    ({"block": (0, 1)}, "block must be two whole numbers"),
    ({"threshold": -1.0}, "threshold must be at least 0"),
    ({"alpha": -1.0}, "alpha must be at least 0"),
    ({"m_by_n": (4, 4)}, "m_by_n must be m zeros in every n > m"),
    ({"m_by_n": (2, 4), "block": (2, 2)}, "says by itself what is removed"),
    ({"criterion": "deviation", "block": (2, 2)}, "goes with criterion=\"sparsity\" only")])
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Pruning(**options)
