"""VGG-16 against `keras.applications`, and the classifier of the paper."""

import numpy as np
import pytest
import tf_keras as keras

from layers.backbones.vgg import vgg16, vgg_head
from layers.normalization import NORMALIZATIONS
from layers.regularization import StatelessDropout
from tests.layers.backbones.copying import copy_random_weights, relative_difference


@pytest.mark.parametrize("size", [(64, 64), (68, 50)])  # 17, 25: odd maps on the way
def test_features_agree_with_keras_applications(size):
    ours = vgg16((*size, 3))
    reference = keras.applications.VGG16(weights=None, include_top=False, input_shape=(*size, 3))
    copy_random_weights(reference, ours, seed=1)
    x = np.random.default_rng(2).normal(size=(1, *size, 3)).astype(np.float32)
    expected = reference(x).numpy()
    assert expected.std() > 1e-3
    assert relative_difference(ours(x)["C5"].numpy(), expected) < 1e-4


def test_parameter_counts():
    """keras.applications.VGG16(weights=None): 14,714,688 without its top, 138,357,544 with it."""
    features = vgg16((32, 32, 3)).count_params()
    assert features == 14_714_688
    head = (7 * 7 * 512 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 1000
    assert features + head == 138_357_544


def test_head_is_two_dense_layers_and_logits():
    features = keras.Input((2, 3, 4))
    model = keras.Model(features, vgg_head(features, 5, units=8))
    assert model.count_params() - 2 == (2 * 3 * 4 + 1) * 8 + (8 + 1) * 8 + (8 + 1) * 5  # 2 step counters of dropout
    rng = np.random.default_rng(0)
    for layer in ("fc1", "fc2", "logits"):
        layer = model.get_layer(layer)
        layer.set_weights([rng.normal(size=weight.shape) for weight in layer.weights])
    x = rng.normal(size=(2, 2, 3, 4)).astype(np.float32)
    y = x.reshape(2, -1)
    for name in ("fc1", "fc2"):
        kernel, bias = model.get_layer(name).get_weights()
        y = np.maximum(y @ kernel + bias, 0)
    kernel, bias = model.get_layer("logits").get_weights()
    np.testing.assert_allclose(model(x), y @ kernel + bias, rtol=1e-4, atol=1e-4)


def test_head_has_dropout_after_each_hidden_layer():
    features = keras.Input((1, 1, 4))
    model = keras.Model(features, vgg_head(features, 5, units=8, seed=3))
    dropouts = [layer for layer in model.layers if isinstance(layer, StatelessDropout)]
    assert [layer.rate for layer in dropouts] == [0.5, 0.5]
    assert len({layer.seed for layer in dropouts}) == 2
    plain = keras.Model(features, vgg_head(features, 5, units=8, dropout=0))
    assert not any(isinstance(layer, StatelessDropout) for layer in plain.layers)


def test_head_needs_a_known_size():
    with pytest.raises(ValueError, match=r"vgg_head flattens its input .* received \(None, None, None, 4\)"):
        vgg_head(keras.Input((None, None, 4)), 5)


def test_stages():
    model = vgg16((96, 64, 3), width=1 / 16)
    assert [(stage, tuple(map_.shape[1:])) for stage, map_ in model.output.items()] == [
        ("C1", (48, 32, 4)), ("C2", (24, 16, 8)), ("C3", (12, 8, 16)), ("C4", (6, 4, 32)), ("C5", (3, 2, 32))]
    assert model.get_layer("conv4_3_relu").output.shape[1:] == (12, 8, 32)  # what a detector takes


@pytest.mark.parametrize("size", [8, 1])
def test_pooling_leaves_one_pixel(size):
    model = vgg16((size, size, 1), width=1 / 16)
    assert model(np.ones((2, size, size, 1), np.float32))["C5"].shape == (2, 1, 1, 32)


@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_normalization_replaces_the_biases(kind):
    model = vgg16((8, 8, 1), width=1 / 16, normalization=kind)
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    norms = [layer for layer in model.layers if layer.name.endswith("_norm")]
    assert len(convolutions) == len(norms) == 13
    assert not any(layer.use_bias for layer in convolutions)


def test_names_are_unique_and_stable():
    first, second = (vgg16((8, 8, 1), width=1 / 16, normalization="batch") for _ in range(2))
    names = [layer.name for layer in first.layers]
    assert len(set(names)) == len(names)
    assert names == [layer.name for layer in second.layers]
    assert first.name == "vgg16"
