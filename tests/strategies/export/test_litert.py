import subprocess

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from strategies import export
from strategies.export import ConversionError, Runner, convert, litert
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


def test_a_dead_layer_is_named_where_litert_refuses_the_file(tmp_path):
    inputs = keras.Input((8, 8, 1), name="images")
    dead = keras.layers.Conv2D(4, 3, activation="relu", bias_initializer=keras.initializers.Constant(-100.0),
                               name="dead")(inputs)
    model = keras.Model(inputs, keras.layers.Conv2D(4, 3, name="after")(dead))
    samples = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
    convert(model, tmp_path / "a.tflite", "int8", representative=samples)
    with pytest.raises(ValueError, match="such as '.*dead.*', were 0 for all representative samples"):
        Runner(tmp_path / "a.tflite")


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


def test_a_file_that_the_delegate_does_not_survive_runs_without_it(folder, monkeypatch):
    model = models.conv_norm_relu()
    images, path = models.inputs_for(model, 4), folder / "float32.tflite"
    assert Runner(path).delegated
    monkeypatch.setattr(litert, "_LARGE", 1)
    assert litert.delegate_takes(path)  # tried, and it lived
    killed = subprocess.CompletedProcess([], -6)
    monkeypatch.setattr(litert, "_probe", lambda path, kernels: killed)
    litert._probed.cache_clear()
    runner = Runner(path)
    assert not runner.delegated
    np.testing.assert_allclose(runner(images), model(images), atol=1e-4)
    row = {**dict.fromkeys(export.COLUMNS), "variant": "float", "format": "float32", "delegated": False}
    assert "ends the process on this file; run it without" in export.markdown_table([row])
    litert._probed.cache_clear()
