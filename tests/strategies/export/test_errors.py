"""Signal to quantisation noise of every operator."""

import numpy as np
import pytest
import tf_keras as keras

from strategies import export
from strategies.export.errors import errors_table, layer_errors
from tests.strategies.compression import kinds


def files(model, x, folder):
    for format in ("float32", "int8"):
        export.convert(model, folder / f"{format}.tflite", format, representative=x)
    return folder / "float32.tflite", folder / "int8.tflite"


def test_noise_is_a_few_bits_below_the_signal(tmp_path):
    model, x = kinds.build("conv_bn_relu")
    float_path, int8_path = files(model, x, tmp_path)
    rows = layer_errors(float_path, int8_path, x)
    assert len(rows) >= 3
    assert all(15 < row["sqnr_db"] < 70 for row in rows)
    expected, found = (export.Runner(path)(x) for path in (float_path, int8_path))
    last = 10 * np.log10(np.square(expected).mean() / np.square(expected - found).mean())
    assert rows[-1]["sqnr_db"] == pytest.approx(last, abs=8)  # the delegate rounds otherwise


def test_the_layer_that_costs_most_is_found(tmp_path):
    """One channel a thousand times larger than the others takes the range of its tensor for itself."""
    inputs = keras.Input((8, 8, 3), name="images")
    x = keras.layers.Conv2D(8, 3, activation="relu", name="fine")(inputs)
    x = keras.layers.DepthwiseConv2D(3, activation="relu", name="spoiled")(x)
    x = keras.layers.Conv2D(8, 3, activation="relu", name="after")(x)
    model = keras.Model(inputs, keras.layers.Dense(4, name="logits")(keras.layers.Flatten()(x)))
    spoiled, after = (model.get_layer(name) for name in ("spoiled", "after"))
    scale = np.ones(8, np.float32)
    scale[0] = 1000
    spoiled.depthwise_kernel.assign(np.abs(spoiled.depthwise_kernel) * scale[:, None])
    kernel = after.kernel.numpy()
    kernel[:, :, 0] = 0  # what is large is not read: the rest is all rounding
    after.kernel.assign(kernel)
    images = np.abs(kinds.images())
    rows = layer_errors(*files(model, images, tmp_path), {"images": images})
    table = errors_table(rows, count=3)
    assert "after" in table.splitlines()[2] and len(table.splitlines()) == 7
    assert "Most is lost in" in table and "after" in table.splitlines()[-1]


def test_samples_by_name_or_as_an_array(tmp_path):
    files_of_one = files(*kinds.build("conv_bn_relu"), tmp_path)
    x = kinds.images()
    by_array, by_name = (errors_table(layer_errors(*files_of_one, samples)) for samples in (x, {"images": x}))
    assert by_array == by_name


def test_files_of_different_models(tmp_path):
    (tmp_path / "other").mkdir()
    one, other = files(*kinds.build("conv_bn_relu"), tmp_path), files(*kinds.build("gated_conv"), tmp_path / "other")
    with pytest.raises(ValueError, match="have no tensor of one name"):
        layer_errors(one[0], other[1], kinds.images())
