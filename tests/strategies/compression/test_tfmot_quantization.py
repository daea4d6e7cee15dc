"""TFMOT's quantisation-aware training beside the suite's own, on the models that it accepts."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from strategies import export
from strategies.compression import Quantization, hooks, quantization
from strategies.compression.tfmot_quantization import TfmotQuantization
from tests.strategies.compression import kinds

ACCEPTED = ("conv_bn_relu", "preactivation", "inverted")


def kernels(model):
    return {slot.name: slot.variable.numpy() for slot in hooks.weight_slots(model)}


def task(model, count=200):
    """Images whose class is the channel and half with the largest sum."""
    x = np.random.default_rng(5).normal(size=(count, *model.input_shape[1:])).astype(np.float32)
    halves = x.reshape(count, 2, -1, 3).sum(axis=2).reshape(count, 6)[:, :4]
    return x, np.eye(4, dtype=np.float32)[halves.argmax(axis=1)]


def train(model, x, y, rate=3e-3, epochs=12):
    model.compile(keras.optimizers.Adam(rate), keras.losses.CategoricalCrossentropy(from_logits=True))
    model.fit(x, y, epochs=epochs, verbose=0, shuffle=False)
    return model


@pytest.mark.parametrize("name", ACCEPTED)
def test_both_put_convolutions_on_the_same_grid(name):
    theirs, x = kinds.build(name)
    ours, _ = kinds.build(name)
    recipe = TfmotQuantization()
    recipe.finish(recipe.prepare(theirs))
    recipe = Quantization(x)
    recipe.finish(recipe.prepare(ours))
    original = kernels(kinds.build(name)[0])
    for key, value in kernels(theirs).items():
        if "depthwise" in key or value.ndim == 2:  # there TFMOT has one scale for all
            expected = quantization.quantize_weight(tf.constant(original[key]), ())
            np.testing.assert_allclose(value, expected, atol=1e-7, err_msg=key)
        else:
            np.testing.assert_allclose(value, kernels(ours)[key], atol=1e-7, err_msg=key)


@pytest.mark.parametrize("name", ["conv_bn_relu", pytest.param("inverted", marks=pytest.mark.conformance)])
def test_both_end_with_files_that_are_as_good(name, tmp_path):
    start, _ = kinds.build(name)
    x, y = task(start)
    weights = train(start, x, y, rate=1e-2, epochs=30).get_weights()
    accuracy = {"float": np.mean(start.predict(x, verbose=0).argmax(1) == y.argmax(1))}
    for engine, recipe in (("usagi", Quantization(x)), ("tfmot", TfmotQuantization())):
        model, _ = kinds.build(name)
        model.set_weights(weights)
        plain = recipe.finish(train(recipe.prepare(model), x, y))
        path = tmp_path / f"{engine}.tflite"
        export.convert(plain, path, "int8", representative=x)
        accuracy[engine] = np.mean(export.Runner(path)(x).argmax(1) == y.argmax(1))
        assert export.float_operators(path) == []
    assert accuracy["float"] > 0.6
    assert min(accuracy["usagi"], accuracy["tfmot"]) > accuracy["float"] - 0.03
    assert accuracy["usagi"] > accuracy["tfmot"] - 0.03


def test_layers_have_the_same_names_each_time():
    first, second = (TfmotQuantization().prepare(kinds.build(ACCEPTED[0])[0]) for _ in range(2))
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]


def test_zeros_stay_zeros():
    model, _ = kinds.build("conv_bn_relu")
    x, y = task(model, 60)
    kernel = model.get_layer("a_conv").kernel
    kernel.assign(np.where(np.abs(kernel) < 0.1, 0, kernel))
    zeros = kernel.numpy() == 0
    recipe = TfmotQuantization()
    plain = recipe.finish(train(recipe.prepare(model), x, y, rate=1e-2, epochs=2))
    after = plain.get_layer("a_conv").kernel.numpy()
    assert 0.1 < zeros.mean() < 0.9 and (after[zeros] == 0).all() and (after[~zeros] != 0).mean() > 0.9


@pytest.mark.parametrize("name", [name for name in kinds.KINDS if name not in ACCEPTED])
def test_what_it_refuses_is_said_before_training(name):
    model, x = kinds.build(name)
    with pytest.raises(ValueError, match="TFMOT cannot quantise model .*--quantize_engine=usagi") as error:
        TfmotQuantization().prepare(model)
    assert len(str(error.value)) < 400
    Quantization(x).prepare(model)  # the suite's own takes it


def test_layers_that_scale_the_images_are_passed_through():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1, name="scale")(inputs)
    x = keras.layers.Conv2D(4, 3, name="convolution")(x)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    images = np.random.default_rng(0).uniform(0, 255, (6, 8, 8, 3)).astype(np.float32)
    before = model(images).numpy()
    recipe = TfmotQuantization()
    np.testing.assert_allclose(recipe.finish(recipe.prepare(model))(images), before, atol=0.05)


def test_a_layer_that_it_writes_as_two():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.SeparableConv2D(4, 3, name="separable")(inputs)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    with pytest.raises(ValueError, match="TFMOT writes layer 'separable' .* as others"):
        TfmotQuantization().prepare(model)
