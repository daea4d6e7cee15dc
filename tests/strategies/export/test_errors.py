"""Signal to quantisation noise of every operator."""

import numpy as np
import pytest
import tf_keras as keras

from strategies import export
from strategies.export.errors import layer_errors, worst_layer
from tests.strategies.compression import kinds


def files(model, x, folder):
    for format in ("float32", "int8"):
        export.convert(model, folder / f"{format}.tflite", format, representative=x)
    return folder / "float32.tflite", folder / "int8.tflite"


def test_noise_is_a_few_bits_below_the_signal(tmp_path):
    model, x = kinds.build("conv_bn_relu")
    float_path, int8_path = files(model, x, tmp_path)
    rows = layer_errors(float_path, int8_path, {"images": x})
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
    assert "after" in worst_layer(rows)["tensor"]


def test_files_of_different_models_and_wrong_samples(tmp_path):
    model, x = kinds.build("conv_bn_relu")
    float_path, int8_path = files(model, x, tmp_path)
    with pytest.raises(ValueError, match="samples must be {input name"):
        layer_errors(float_path, int8_path, x)
