"""Models that `quantize_model` of tensorflow_model_optimization refuses: what its users reported, one for each issue.

Each is refused by TFMOT, trains here under simulated 8 bits and becomes a file of integer operators that agrees.
"""

import numpy as np
import pytest
import tf_keras as keras

from strategies import export
from strategies.compression import Quantization, quantization

IMAGE, SEQUENCE, NUM_CLASSES = (8, 8, 3), (6, 5), 4


def model_of(body, shape=IMAGE):
    inputs = keras.Input(shape)
    x = body(inputs)
    x = x if x.shape.rank == 2 else keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(NUM_CLASSES)(x))


@keras.utils.register_keras_serializable("usagi_tests")
class Composite(keras.layers.Layer):
    """A layer made of Keras' layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.convolution = keras.layers.Conv2D(6, 3, activation="relu")
        self.pool = keras.layers.MaxPooling2D()

    def call(self, inputs):
        return self.pool(self.convolution(inputs))


def activation_before_normalization(x):
    return keras.layers.BatchNormalization()(keras.layers.Conv2D(6, 3, activation="relu")(x))


def convolution_read_twice(x):
    x = keras.layers.Conv2D(6, 3, padding="same", use_bias=False)(x)
    normalized = keras.layers.BatchNormalization()(x)
    return keras.layers.ReLU()(keras.layers.Add()([x, normalized]))


def nested_model(x):
    return keras.Sequential([keras.layers.Conv2D(6, 3, activation="relu"), keras.layers.Flatten(),
                             keras.layers.Dense(8, activation="relu")])(x)


def slices(x):
    x = keras.layers.Conv2D(8, 3, padding="same")(x)
    return keras.layers.Multiply()([x[..., :4], x[..., 4:]])


def layer_normalization(x):
    return keras.layers.LayerNormalization(axis=3)(keras.layers.Conv2D(6, 3, activation="relu")(x))


# Issue of github.com/tensorflow/model-optimization: model.
REFUSED = {
    362: lambda: model_of(keras.layers.Conv1D(8, 3, activation="relu"), SEQUENCE),
    376: lambda: model_of(keras.layers.Bidirectional(keras.layers.LSTM(6)), SEQUENCE),
    628: lambda: model_of(activation_before_normalization),
    718: lambda: model_of(lambda x: keras.layers.MultiHeadAttention(2, 4)(x, x), SEQUENCE),
    756: lambda: model_of(Composite()),
    763: lambda: model_of(convolution_read_twice),
    942: lambda: model_of(layer_normalization),
    957: lambda: model_of(nested_model),
    1114: lambda: model_of(keras.layers.GRU(6, unroll=True), SEQUENCE),
    1139: lambda: model_of(slices)}
EACH = [issue if issue in (957, 1139) else pytest.param(issue, marks=pytest.mark.conformance) for issue in REFUSED]


@pytest.mark.parametrize("issue", EACH)
def test_refused_there_and_quantised_here(issue, tmp_path):
    import tensorflow_model_optimization as tfmot

    keras.utils.set_random_seed(0)
    model = REFUSED[issue]()
    with pytest.raises((RuntimeError, ValueError)):
        tfmot.quantization.keras.quantize_model(model)

    chance = np.random.default_rng(5)
    x = chance.normal(size=(200, *model.input_shape[1:])).astype(np.float32)
    y = np.eye(NUM_CLASSES)[np.argmax(x.reshape(200, -1)[:, :NUM_CLASSES], axis=1)]
    recipe = Quantization(x)
    recipe.prepare(model)
    model.compile(keras.optimizers.Adam(1e-2), keras.losses.CategoricalCrossentropy(from_logits=True))
    losses = model.fit(x, y, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    quantization.calibrate(model, x)
    simulated = model.predict(x, verbose=0)
    path = tmp_path / "int8.tflite"
    export.convert(recipe.finish(model), path, "int8", representative=x)
    found = export.Runner(path)(x)
    assert not export.float_operators(path)
    scale = (simulated.max() - simulated.min()) / 255
    assert np.abs(found - simulated).mean() < 3 * scale
    assert (found.argmax(1) == simulated.argmax(1)).mean() >= 0.97
