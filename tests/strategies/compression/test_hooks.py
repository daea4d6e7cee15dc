"""Hooks replace weights for the duration of a call, in every kind of layer."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from strategies.compression import hooks
from tests.strategies.compression import kinds


class Doubling(hooks.Hook):
    """Computes with 2 w."""

    def weight(self, slot, value):
        return 2 * value


def hook_all(model, cls):
    hooks.hook_weights(model, hooks.weight_slots(model), cls)


@pytest.mark.parametrize("name", kinds.KINDS)
def test_layers_compute_with_what_the_hook_gives(name):
    model, x = kinds.build(name)
    reference, _ = kinds.build(name)
    for slot in hooks.weight_slots(reference):
        slot.variable.assign(2 * slot.variable)
    plain = model(x).numpy()
    hook_all(model, Doubling)
    for run in (model, tf.function(model)):
        np.testing.assert_allclose(run(x), reference(x), rtol=1e-5, atol=1e-6)
    hooks.remove(model)
    np.testing.assert_array_equal(model(x), plain)


def test_functions_that_keras_has_traced_are_traced_anew():
    model, x = kinds.build("conv_bn_relu")
    plain = model.predict(x, verbose=0)
    hook_all(model, Doubling)
    hooked = model.predict(x, verbose=0)
    np.testing.assert_allclose(hooked, model(x), rtol=1e-5, atol=1e-6)
    hooks.remove(model)
    assert np.abs(hooked - plain).max() > 0.01
    np.testing.assert_array_equal(model.predict(x, verbose=0), plain)


@pytest.mark.parametrize("name", kinds.KINDS)
def test_gradients_reach_every_weight_through_the_hook(name):
    model, x = kinds.build(name)
    weights = [w.name for w in model.weights]
    hook_all(model, Doubling)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(model(x)))
    gradients = tape.gradient(loss, model.trainable_weights)
    assert all(g is not None for g in gradients)
    hooks.remove(model)
    assert [w.name for w in model.weights] == weights


@pytest.mark.parametrize("name", kinds.KINDS)
def test_every_matrix_has_one_slot(name):
    model, _ = kinds.build(name)
    slots = hooks.weight_slots(model)
    expected = [w.name for w in model.trainable_weights if w.shape.rank >= 2 and "bias" not in w.name]
    assert sorted(slot.variable.name for slot in slots) == sorted(expected)


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_hooks_see_master_weights(precision):
    seen = []

    class Watching(hooks.Hook):
        def weight(self, slot, value):
            seen.append(value.dtype)
            return value

    old = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(precision)
    try:
        model, x = kinds.build("conv_bn_relu")
        expected = model(x).numpy()
        hook_all(model, Watching)
        np.testing.assert_array_equal(model(x), expected)
    finally:
        keras.mixed_precision.set_global_policy(old)
    assert set(seen) == {tf.float64 if precision == "float64" else tf.float32}


def test_state_is_saved_with_the_model_and_goes_with_the_hook():
    model, _ = kinds.build("conv_bn_relu")
    before = len(model.weights)

    class Masked(hooks.Hook):
        def __init__(self, caller, slots):
            super().__init__(caller, slots)
            self.mask_zeros(always=True)

    hook_all(model, Masked)
    names = [w.name for w in model.non_trainable_weights]
    assert "first/kernel_mask:0" in names and "logits/kernel_mask:0" in names
    hooks.remove(model)
    assert len(model.weights) == before and not hooks.hooked_layers(model)


def test_a_layer_that_keras_made_of_an_operator_has_its_call_again():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs[:, :2]))
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    expected = model(x)
    for layer in hooks.leaf_layers(model):
        hooks.install(layer, hooks.Hook(layer))
    np.testing.assert_array_equal(model(x), expected)
    hooks.remove(model)
    np.testing.assert_array_equal(model(x), expected)


def test_a_layer_has_one_hook():
    model, _ = kinds.build("conv_bn_relu")
    hook_all(model, Doubling)
    with pytest.raises(ValueError, match="compressed already by a Doubling; call finish"):
        hook_all(model, Doubling)


def test_a_weight_that_is_no_attribute_is_named():
    class Listed(keras.layers.Layer):
        def build(self, shape):
            self.kernels = [self.add_weight(name="kernel", shape=[shape[-1], 3])]

        def call(self, inputs):
            return inputs @ self.kernels[0]

    source = keras.Input((5,))
    model = keras.Model(source, Listed(name="listed")(source))
    with pytest.raises(ValueError, match="'listed/kernel:0' cannot be compressed: it is not an attribute"):
        hooks.weight_slots(model)


@pytest.mark.parametrize("select, message", [("conv9", "No weight of model .* matches 'conv9': expected part of one of"
                                              " first/kernel"), ("[", "is not a regular expression")])
def test_bad_selections(select, message):
    model, _ = kinds.build("conv_bn_relu")
    with pytest.raises(ValueError, match=message):
        hooks.weight_slots(model, select=select)


def test_an_exception_in_a_call_leaves_the_weights_in_place():
    model, x = kinds.build("conv_bn_relu")

    class Failing(hooks.Hook):
        def weight(self, slot, value):
            raise RuntimeError("no")

    layer = model.get_layer("logits")
    slots = [slot for slot in hooks.weight_slots(model) if slot.caller is layer]
    hooks.install(layer, Failing(layer, slots))
    with pytest.raises(RuntimeError, match="no"):
        model(x)
    assert layer.__dict__["kernel"] is slots[0].variable
