import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from strategies import export, interpreter
from strategies.export import ConversionError, Runner, convert, folding, litert
from strategies.signature import Signature
from tests.strategies.export import models


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files that several tests look at."""
    folder = tmp_path_factory.mktemp("tflite")
    model, several = models.conv_norm_relu(), models.several()
    convert(model, folder / "float32.tflite", "float32")
    convert(model, folder / "int8.tflite", "int8", representative=models.inputs_for(model, 50))
    convert(model, folder / "integer.tflite", "int8", representative=models.inputs_for(model, 50), integer_io=True)
    convert(several, folder / "several.tflite", "float32")
    return folder


def test_runs_any_number_of_samples(folder):
    model, runner = models.conv_norm_relu(), Runner(folder / "float32.tflite")
    images = models.inputs_for(model, 7)
    assert runner.input_shapes == {"images": (8, 8, 3)} and runner.output_names == ["logits"]
    np.testing.assert_allclose(runner(images), model(images), atol=1e-4)
    np.testing.assert_array_equal(runner({"images": images})[3:4], runner(images[3:4]))


def test_several_inputs_and_outputs_by_name(folder):
    model, runner = models.several(), Runner(folder / "several.tflite")
    inputs = models.inputs_for(model, 3)
    outputs = runner({"left_image": inputs["picture"], "a_number": inputs["number"]})
    assert sorted(outputs) == runner.output_names == ["narrow", "wide"]
    for name, expected in model(inputs).items():
        np.testing.assert_allclose(outputs[name], expected, atol=1e-4)


def test_integer_interface_is_quantised_as_the_file_says(folder):
    model = models.conv_norm_relu()
    images = models.inputs_for(model, 6)
    with_floats, with_integers = Runner(folder / "int8.tflite"), Runner(folder / "integer.tflite")
    borders = [operator.name for operator in litert.operators(folder / "integer.tflite")]
    assert "QUANTIZE" not in borders and "DEQUANTIZE" not in borders
    # The same arithmetic inside: one step of the output scale is what rounding at the border may cost.
    step = with_integers._outputs["logits"]["quantization"][0]
    np.testing.assert_allclose(with_integers(images), with_floats(images), atol=1.01 * step)
    assert with_integers(100 * images).shape == (6, 10)  # out of range: clipped, not wrapped
    np.testing.assert_allclose(with_integers(100 * images), with_floats(100 * images), atol=1.01 * step)


def test_operators_and_integer_only(folder):
    operators = litert.operators(folder / "float32.tflite")
    assert [operator.name for operator in operators] == ["CONV_2D"] * 3 + ["MEAN", "FULLY_CONNECTED"]
    assert operators[0].inputs == ("float32",) * 3 and operators[0].outputs == ("float32",)
    assert litert.float_operators(folder / "float32.tflite") == ["CONV_2D", "FULLY_CONNECTED", "MEAN"]
    assert not litert.only_integer_operators(folder / "float32.tflite")
    assert litert.only_integer_operators(folder / "int8.tflite")
    assert litert.only_integer_operators(folder / "integer.tflite")


def test_float_island_in_an_int8_file_is_seen(tmp_path):
    x = keras.Input((6,), name="x")
    y = keras.layers.Dense(3)(keras.layers.Lambda(tf.sin)(keras.layers.Dense(5)(x)))
    model = keras.Model(x, y)
    convert(model, tmp_path / "a.tflite", "int8", representative=models.inputs_for(model))
    assert litert.float_operators(tmp_path / "a.tflite") == ["SIN"]


def test_int8_of_a_model_without_integer_operators(tmp_path):
    x = keras.Input((6,), name="x")
    model = keras.Model(x, keras.layers.Lambda(tf.sin)(x))
    with pytest.raises(ConversionError, match=r"left every operator .* floating point: .*\(SIN\) has an int8 form"):
        convert(model, tmp_path / "a.tflite", "int8", representative=models.inputs_for(model))
    assert list(tmp_path.iterdir()) == []


def test_measurements_are_there(folder):
    runner = Runner(folder / "float32.tflite")
    assert runner.latency(num_runs=50) > 0
    assert runner.latency(models.inputs_for(models.conv_norm_relu()), num_runs=5, num_warm_up=1) > 0


def test_peak_memory_grows_with_the_model(tmp_path, folder):
    x = keras.Input((1000,))
    large = keras.Model(x, keras.layers.Dense(5000)(x))
    convert(large, tmp_path / "large.tflite", "float32")
    weights = 4 * 1000 * 5000
    small = litert.peak_memory_bytes(folder / "float32.tflite")
    assert 0 < small < 20e6  # the code that runs, for the most part
    assert 0.9 * weights < litert.peak_memory_bytes(tmp_path / "large.tflite") - small < 4 * weights


@pytest.mark.parametrize("content", [None, b"no flatbuffer" * 20])
def test_unreadable_file(tmp_path, content):
    if content:
        (tmp_path / "a.tflite").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.tflite cannot be loaded: a TFLite file with the signature"):
        Runner(tmp_path / "a.tflite")
    with pytest.raises(ValueError, match=r"does not run in LiteRT \(exit code 1\): \w*Error"):
        litert.peak_memory_bytes(tmp_path / "a.tflite")


def test_a_dead_layer_leaves_the_next_one_its_bias(tmp_path):
    inputs = keras.Input((8, 8, 1), name="images")
    dead = keras.layers.Conv2D(4, 3, activation="relu", bias_initializer=keras.initializers.Constant(-100.0),
                               name="dead")(inputs)
    model = keras.Model(inputs, keras.layers.Conv2D(4, 3, bias_initializer="ones", name="after")(dead))
    samples = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
    convert(model, tmp_path / "a.tflite", "int8", representative=samples)
    runner = Runner(tmp_path / "a.tflite")
    np.testing.assert_allclose(runner(samples), model(samples), atol=0.02)


@pytest.mark.parametrize("inputs, message", [
    (np.zeros((2, 8, 8, 1)), r"'images' of float32\.tflite takes arrays of shape \(N, 8, 8, 3\).*\(2, 8, 8, 1\)"),
    (np.zeros((0, 8, 8, 3)), r"N at least 1 .* received shape \(0, 8, 8, 3\)"),
    ({"pictures": np.zeros((2, 8, 8, 3))}, r"has the inputs images; received pictures"),
])
def test_inputs_that_do_not_fit(folder, inputs, message):
    with pytest.raises(ValueError, match=message):
        Runner(folder / "float32.tflite")(inputs)


def test_several_inputs_need_a_dictionary(folder):
    with pytest.raises(ValueError, match=r"several inputs: pass a dictionary with the keys a_number, left_image; "
                                         r"received a ndarray"):
        Runner(folder / "several.tflite")(np.zeros((1, 5)))


def with_a_channel_that_never_varied():
    """A depthwise convolution one of whose inputs is always 0, and whose normalisation has learned just that."""
    inputs = keras.Input([6, 6, 2])
    x = keras.layers.Conv2D(4, 1, activation="relu", name="before")(inputs)
    x = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    outputs = keras.layers.ReLU()(keras.layers.BatchNormalization(epsilon=1e-5, name="norm")(x))
    model = keras.Model(inputs, outputs)
    kernel, bias = model.get_layer("before").get_weights()
    model.get_layer("before").set_weights([np.abs(kernel), bias + [0.1, 0.1, 0.1, -100.0]])
    kernel = model.get_layer("depthwise").get_weights()[0]
    kernel[..., 3, :] = 20.0
    model.get_layer("depthwise").set_weights([kernel])
    model.get_layer("norm").set_weights([np.array(v, np.float32) for v in (
        [1, 1, 1, 20], [0.1, 0.2, 0.3, 0.4], [0, 0, 0, 0], [1, 1, 1, 1e-15])])
    return model


def test_a_channel_that_never_varied_keeps_its_bias_in_8_bits(tmp_path):
    model = with_a_channel_that_never_varied()
    images = np.random.default_rng(0).uniform(0, 1, (32, 6, 6, 2)).astype(np.float32)
    before = model.get_weights()
    export.convert(model, tmp_path / "int8.tflite", "int8", representative=images)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    runner = Runner(tmp_path / "int8.tflite")
    assert runner.delegated
    np.testing.assert_allclose(runner(images), model(images), atol=0.05)
    np.testing.assert_allclose(runner(images)[..., 3], 0.4, atol=0.02)


def test_so_it_does_where_normalisation_is_folded(tmp_path):
    model = with_a_channel_that_never_varied()
    images = np.random.default_rng(0).uniform(0, 1, (32, 6, 6, 2)).astype(np.float32)
    rows = export.export_all(model, tmp_path, formats=["float32", "int8"], samples=images, representative=images,
                             fold_batch_norm=True)
    assert [row["format"] for row in rows] == ["float32", "int8"] and all(row["delegated"] for row in rows)
    assert rows[1]["max_abs_diff"] < 0.05


def test_a_file_that_the_delegate_does_not_survive_runs_without_it(tmp_path, monkeypatch):
    model, path = with_a_channel_that_never_varied(), tmp_path / "int8.tflite"
    images = np.random.default_rng(0).uniform(0, 1, (8, 6, 6, 2)).astype(np.float32)
    monkeypatch.setattr(folding, "_CONSTANT", 0.0)
    export.convert(model, path, "int8", representative=images)
    assert max(interpreter.ratios(path.read_bytes())) > 256
    run = subprocess.run([sys.executable, litert._PROBE, path, "default"], capture_output=True)
    assert run.returncode, "LiteRT takes such files now: `delegate_takes` is no longer needed"
    runner = Runner(path)
    assert not runner.delegated
    np.testing.assert_allclose(runner(images)[..., :3], model(images)[..., :3], atol=0.05)
    assert litert.peak_memory_bytes(path) > 0
    signature = Signature(path)
    outputs = signature({name: np.zeros(shape) for name, shape in signature.shapes.items()})
    assert sorted(outputs) == signature.outputs
    row = {**dict.fromkeys(export.COLUMNS), "variant": "float", "format": "int8", "delegated": False}
    assert "ends the process on this file; run it without" in export.markdown_table([row])
