"""DenseNet against `keras.applications` and the paper's parameter counts."""

import collections
import functools

import numpy as np
import pytest
import tf_keras as keras

from layers.backbones import densenet
from layers.normalization import NORMALIZATIONS
from layers.regularization import StatelessDropout
from tests.layers.backbones.copying import copy_random_weights, relative_difference

TINY = 1 / 16  # width: k = 2


@pytest.fixture(scope="module")
def densenet121():
    """The full network: slow to build, so once."""
    return densenet.densenet121((64, 64, 3), stem="large")


@pytest.fixture
def short(monkeypatch):
    """densenet121 with fewer dense layers a block, for what does not depend on their number."""
    monkeypatch.setitem(densenet.IMAGENET_BLOCKS, "densenet121", (2, 1, 2, 1))


def sizes(model):
    return {stage: tuple(map_.shape[1:]) for stage, map_ in model.output.items()}


def test_features_agree_with_keras_applications(densenet121):
    reference = keras.applications.DenseNet121(weights=None, include_top=False, input_shape=(64, 64, 3))
    copy_random_weights(reference, densenet121, seed=1)
    x = np.random.default_rng(2).normal(size=(2, 64, 64, 3)).astype(np.float32)
    expected = reference(x, training=False).numpy()
    assert expected.std() > 1e-3
    assert relative_difference(densenet121(x, training=False)["C5"].numpy(), expected) < 1e-4


# keras.applications.DenseNet{121,169,201}(weights=None).count_params()
@pytest.mark.parametrize("variant, expected", [
    ("densenet121", 8_062_504), ("densenet169", 14_307_880), ("densenet201", 20_242_984)])
def test_imagenet_parameter_counts(variant, expected, densenet121):
    """With a head of 1000 classes; built for 121, from the table of blocks for the deeper two."""
    channels, total = 64, 7 * 7 * 3 * 64 + 4 * 64
    blocks = densenet.IMAGENET_BLOCKS[variant]
    for i, num_layers in enumerate(blocks):
        for _ in range(num_layers):
            total += 4 * channels + channels * 128 + 4 * 128 + 9 * 128 * 32
            channels += 32
        if i < len(blocks) - 1:
            total += 4 * channels + channels * (channels // 2)
            channels //= 2
    total += 4 * channels
    if variant == "densenet121":
        assert densenet121.count_params() == total
    assert total + channels * 1000 + 1000 == expected


def test_full_network_has_unique_names_and_its_own(densenet121):
    names = [layer.name for layer in densenet121.layers]
    assert len(set(names)) == len(names)
    assert densenet121.name == "densenet121"


def trainable_parameters(depth, growth_rate, use_bc, classes=10):
    """Section 3, "Implementation Details": the sum over the layers, gamma and beta included."""
    num_layers = (depth - 4) // (6 if use_bc else 3)
    channels = 2 * growth_rate if use_bc else 16
    total = 27 * channels
    for block in range(3):
        for _ in range(num_layers):
            if use_bc:
                total += 2 * channels + channels * 4 * growth_rate + 2 * 4 * growth_rate + 9 * 4 * growth_rate**2
            else:
                total += 2 * channels + 9 * channels * growth_rate
            channels += growth_rate
        if block < 2:
            compressed = channels // 2 if use_bc else channels
            total += 2 * channels + channels * compressed
            channels = compressed
    return total + 2 * channels + channels * classes + classes


# Table 2, column "Params", in millions.
@pytest.mark.parametrize("variant, millions", [
    ("densenet_40_12", 1.0), ("densenet_100_12", 7.0), ("densenet_bc_100_12", 0.8), ("densenet_bc_250_24", 15.3),
    ("densenet_bc_190_40", 25.6)])
def test_cifar_parameter_counts_are_the_papers(variant, millions):
    assert round(trainable_parameters(*densenet.CIFAR_FORMS[variant]) / 1e6, 1) == millions


@pytest.mark.parametrize("variant", ["densenet_40_12", "densenet_bc_40_12"])
def test_cifar_forms_have_the_parameters_of_that_sum(variant):
    model = densenet.BACKBONES[variant]((32, 32, 3))
    logits = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(model.output["C4"]))
    classifier = keras.Model(model.input, logits)
    trainable = sum(int(np.prod(weight.shape)) for weight in classifier.trainable_weights)
    assert trainable == trainable_parameters(*densenet.CIFAR_FORMS[variant])


@pytest.mark.usefixtures("short")
def test_stages_of_the_large_and_the_small_stem():
    large = sizes(densenet.densenet121((96, 64, 3), stem="large", width=TINY))
    assert {stage: size[:2] for stage, size in large.items()} == {
        "C1": (48, 32), "C2": (24, 16), "C3": (12, 8), "C4": (6, 4), "C5": (3, 2)}
    assert list(large) == ["C1", "C2", "C3", "C4", "C5"]
    small = sizes(densenet.densenet121((8, 8, 1), width=TINY))  # auto; channels 4+4, 4+2, 3+4, 3+2
    assert list(small.items()) == [("C2", (8, 8, 8)), ("C3", (4, 4, 6)), ("C4", (2, 2, 7)), ("C5", (1, 1, 5))]


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("size", [1, 3])
def test_small_images_reach_the_last_stage(size):
    model = densenet.densenet121((size, size, 1), width=TINY)
    assert model(np.ones((1, size, size, 1), np.float32))["C5"].shape[1:3] == (1, 1)


def test_stages_of_the_cifar_form():
    model = densenet.BACKBONES["densenet_bc_40_12"]((8, 8, 1), width=0.25)  # k = 3, k0 = 6
    assert list(sizes(model).items()) == [("C2", (8, 8, 24)), ("C3", (4, 4, 30)), ("C4", (2, 2, 33))]
    assert np.all(model(np.ones((1, 8, 8, 1), np.float32))["C4"] >= 0)  # after the last ReLU
    names = [layer.name for layer in model.layers]
    assert len(set(names)) == len(names) and names[:3] == ["images", "stem_conv", "stage2_layer1_1_norm"]
    assert model.name == "densenet_bc_40_12"


def test_size_may_be_unknown():
    model = densenet.densenet_cifar(10, 4, input_shape=(None, None, 3))
    assert model(np.zeros((1, 12, 8, 3), np.float32))["C4"].shape == (1, 3, 2, 9)  # 8+4, 6+4, 5+4 channels


@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_every_normalization_builds(kind):
    model = densenet.densenet_cifar(10, 2, input_shape=(8, 8, 1), normalization=kind)
    types = collections.Counter(type(layer).__name__ for layer in model.layers)
    assert types["BatchNormalization" if kind == "batch" else "GroupNormalization"] == 3 * 2 + 2 + 1
    assert np.all(np.isfinite(model(np.ones((2, 8, 8, 1), np.float32))["C4"]))


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("build", [densenet.densenet121, functools.partial(densenet.densenet_cifar, 16, 4)])
def test_dropout_seeds_differ_everywhere(build):
    model = build(input_shape=(8, 8, 1), width=0.5, dropout=0.2, seed=3)
    seeds = [layer.seed for layer in model.layers if isinstance(layer, StatelessDropout)]
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(seeds) == len(set(seeds)) == len(convolutions) - 1  # "except the first one"


@pytest.mark.parametrize("depth, use_bc, match", [
    (41, False, r"depth of DenseNet must be 3n \+ 4 .* received 41\. Pass 40"),
    (43, True, r"depth of DenseNet-BC must be 6n \+ 4 .* received 43\. Pass 40"),
    (4, True, r"received 4\. Pass 10")])
def test_depth_that_does_not_fit(depth, use_bc, match):
    with pytest.raises(ValueError, match=match):
        densenet.densenet_cifar(depth, 12, use_bc, input_shape=(8, 8, 1))


def test_unknown_variant():
    with pytest.raises(ValueError, match=r"Unknown DenseNet variant 'densenet120'.*Did you mean 'densenet"):
        densenet.densenet_imagenet("densenet120", (8, 8, 1))
