import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from strategies.export import fold_batch_norm, inference_function
from tests.strategies.export import models

LAYERS = {
    "conv1d": ((9, 4), lambda: keras.layers.Conv1D(6, 3, use_bias=False)),
    "conv2d": ((5, 5, 4), lambda: keras.layers.Conv2D(6, 3, groups=2)),
    "conv3d": ((4, 4, 4, 2), lambda: keras.layers.Conv3D(3, 2)),
    "depthwise": ((5, 5, 4), lambda: keras.layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)),
    "separable": ((5, 5, 4), lambda: keras.layers.SeparableConv2D(6, 3)),
    "transposed": ((5, 5, 4), lambda: keras.layers.Conv2DTranspose(6, 3, strides=2, use_bias=False)),
    "dense": ((7,), lambda: keras.layers.Dense(6)),
}


def norms(model):
    return [layer.name for layer in model.submodules if isinstance(layer, keras.layers.BatchNormalization)]


def assert_same(model, other, tolerance=1e-5):
    inputs = models.inputs_for(model)
    expected, received = tf.nest.flatten(model(inputs)), tf.nest.flatten(other(inputs))
    tf.nest.assert_same_structure(model(inputs), other(inputs))
    for a, b in zip(expected, received):
        np.testing.assert_allclose(b, a, atol=tolerance * np.abs(a).max(), rtol=0)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False, "epsilon": 0.1}])
def test_each_kind_of_layer(name, options):
    shape, layer = LAYERS[name]
    norm = keras.layers.BatchNormalization(**options)
    model = models.randomized(keras.Sequential([keras.Input(shape), layer(), norm]))
    folded = fold_batch_norm(model)
    assert_same(model, folded)
    assert norms(folded) == []
    assert [layer.name for layer in folded.layers[1:]] == [norm.name]
    assert folded.output_names == model.output_names


def test_merged_weights_by_hand():
    model = models.randomized(keras.Sequential([keras.Input((2, 2, 3)), keras.layers.Conv2D(4, 1),
                                                keras.layers.BatchNormalization(epsilon=0.01)]))
    kernel, bias, gamma, beta, mean, variance = (np.asarray(w, np.float64) for w in model.get_weights())
    new_kernel, new_bias = fold_batch_norm(model).get_weights()
    for m in range(4):
        deviation = (variance[m] + 0.01) ** 0.5
        np.testing.assert_allclose(new_kernel[0, 0, :, m], gamma[m] * kernel[0, 0, :, m] / deviation, rtol=1e-6)
        np.testing.assert_allclose(new_bias[m], beta[m] + gamma[m] * (bias[m] - mean[m]) / deviation, rtol=1e-5)


@pytest.mark.parametrize("build, num_left", [(models.conv_norm_relu, 0), (models.inverted_residual, 0),
                                             (models.preactivation, 2)])
def test_whole_models(build, num_left):
    model = build()
    weights = model.get_weights()
    folded = fold_batch_norm(model)
    assert_same(model, folded)
    assert len(norms(folded)) == num_left
    assert all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights()))
    assert folded.name == model.name


def test_as_convolution_leaves_none_on_images():
    model = models.preactivation()
    folded = fold_batch_norm(model, as_convolution=True)
    assert_same(model, folded)
    assert norms(folded) == []


def test_what_cannot_be_merged_stays():
    x = keras.Input((6, 6, 3))
    shared = keras.layers.Conv2D(3, 3, padding="same", name="shared")
    read_twice = keras.layers.Conv2D(3, 1, name="read_twice")(x)
    relu = keras.layers.Conv2D(3, 1, activation="relu", name="relu")(x)
    other_axis = keras.layers.Conv2D(3, 1, name="other_axis")(x)
    sources = {"shared": shared(shared(x)), "read_twice": read_twice, "relu": relu}
    outputs = [keras.layers.BatchNormalization(name=f"norm_{name}")(y) for name, y in sources.items()]
    outputs += [read_twice, keras.layers.BatchNormalization(axis=1, name="norm_axis")(other_axis)]
    outputs += [keras.layers.BatchNormalization(name="norm_training")(keras.layers.Conv2D(3, 1)(x), training=True)]
    model = models.randomized(keras.Model(x, outputs))
    folded = fold_batch_norm(model)
    assert sorted(norms(folded)) == sorted(norms(model))
    folded.get_layer("norm_training").momentum = model.get_layer("norm_training").momentum = 1.0
    assert_same(model, folded)


@keras.utils.register_keras_serializable("usagi_tests")
class Plus(keras.layers.Layer):
    """A layer with a second tensor argument and a tensor among its keyword arguments."""

    def call(self, x, y, *, z):
        return x + 2 * y + 3 * z


class Unregistered(keras.layers.Layer):
    def call(self, x):
        return -x


def test_nested_models_operators_keyword_tensors_and_dictionaries():
    inner = keras.Sequential([keras.Input((6, 6, 4)), keras.layers.Conv2D(4, 3, padding="same"),
                              keras.layers.BatchNormalization()], name="inner")
    x = keras.Input((6, 6, 3), name="pixels")
    scaled = keras.layers.Normalization(mean=[1.0, 2, 3], variance=[4.0, 5, 6])(x)
    adapted = keras.layers.Normalization()
    adapted.adapt(np.random.default_rng(0).normal(3, 5, (20, 6, 6, 3)))
    y = keras.layers.BatchNormalization(name="a")(keras.layers.Conv2D(4, 3, padding="same", name="c")(scaled))
    y = Plus()(y, inner(inner(y)), z=keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 1)(adapted(x))))
    model = models.randomized(keras.Model({"in": x}, {"z": Unregistered()(y * 2.0 + y[..., :1]), "y": y}))
    folded = fold_batch_norm(model)
    assert norms(folded) == []
    assert_same(model, folded)


class OwnConstructor(keras.Model):
    """A functional model by a subclass, as a trainer with its own `train_step` is."""

    def __init__(self, width):
        x = keras.Input((4,))
        super().__init__(x, keras.layers.BatchNormalization()(keras.layers.Dense(width)(x)))


def test_subclass_of_functional_model():
    model = models.randomized(OwnConstructor(3))
    folded = fold_batch_norm(model)
    assert norms(folded) == []
    assert_same(model, folded)


def test_model_without_graph_is_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    model = Own()
    model(np.zeros((1, 2), np.float32))
    with pytest.raises(ValueError, match=r"only in a functional or a built sequential model; received a Own, .*"
                                         r"Export it without\s+fold_batch_norm, or build it as keras\.Model"):
        fold_batch_norm(model)


@pytest.mark.parametrize("build", [models.preactivation, models.several, models.inverted_residual])
def test_inference_function(build):
    model = build()
    infer = inference_function(model)
    assert_same(model, infer)
    before = [np.array(x) for x in tf.nest.flatten(infer(models.inputs_for(model)))]
    model.set_weights([w + 1 for w in model.get_weights()])
    after = tf.nest.flatten(infer(models.inputs_for(model)))
    assert all(np.array_equal(a, b) for a, b in zip(before, after))  # the weights of the moment
