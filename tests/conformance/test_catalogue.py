"""The catalogue lists everything public once, and its entries are what they say."""

import importlib
import inspect
import pkgutil

import numpy as np
import pytest
import tf_keras as keras

import layers
from apps.image_classification import models as image_models
from layers import backbones, dense_block, residual, separable
from tests.conformance.catalogue import (
    BATCH_SIZE,
    CATALOGUE,
    MAX_PARAMETERS,
    NUM_CLASSES,
    PACKAGES,
    WITHOUT_ENTRY,
    images,
    labels,
    settle,
    sources,
)
from tests.conformance.matrix import PROPERTIES

NAMES = [entry.name for entry in CATALOGUE]
REPRESENTATIVES = {entry.family: entry for entry in reversed(CATALOGUE)}.values()


def modules_of(package):
    """All modules of a package, imported."""
    found = pkgutil.walk_packages(package.__path__, package.__name__ + ".")
    return [importlib.import_module(module.name) for module in found if not module.ispkg]


def public_layers():
    """Names of the layer classes of `layers` that are registered under "usagi"."""
    modules_of(layers)
    return {cls.__name__ for key, cls in keras.utils.get_custom_objects().items()
            if key.startswith("usagi>") and cls.__module__.startswith("layers.")
            and issubclass(cls, keras.layers.Layer) and not issubclass(cls, keras.metrics.Metric)}


def public_functions(module):
    """The public functions that a module defines."""
    return {name: function for name, function in inspect.getmembers(module, inspect.isfunction)
            if function.__module__ == module.__name__ and not name.startswith("_")}


def public_blocks():
    """Names of the functions that build a block: those whose normalisation can be chosen."""
    return {name for module in (residual, dense_block, separable)
            for name, function in public_functions(module).items()
            if "normalization" in inspect.signature(function).parameters}


def public_backbones():
    """Keys of all tables of backbones, and public functions on images or features, but not those that take a key."""
    names = set()
    for module in modules_of(backbones):
        table = getattr(module, "BACKBONES", {})
        names |= set(table)
        for name, function in public_functions(module).items():
            parameters = list(inspect.signature(function).parameters)
            if table and parameters[0] != "variant" and {"input_shape", "features"} & set(parameters):
                names.add(name)
    return names


def missing(names):
    """What is public but neither in `names` nor excused."""
    return (public_layers() | public_blocks() | public_backbones()) - set(names) - set(WITHOUT_ENTRY)


def test_names_are_unique():
    assert len(set(NAMES)) == len(NAMES)


def test_everything_public_has_an_entry():
    assert missing(NAMES) == set()


def test_the_zoo_holds_no_backbone_without_entry():
    """Its models are backbones of `layers` under their own names; how it wraps them has one entry."""
    assert set(image_models.MODELS) <= set(NAMES) | set(WITHOUT_ENTRY)
    assert "image_classification" in NAMES


@pytest.mark.parametrize("name", [
    "GroupNormalization", "StatelessDropout", "wide", "dense_layer", "inverted_residual", "resnet18",
    "pyramidnet20_a24", "wide_resnet", "densenet121", "mobilenet_v2", "vgg16", "vgg_head"])
def test_what_is_left_out_is_noticed(name):
    assert missing(set(NAMES) - {name}) == {name}


def test_what_has_no_entry_is_public_and_says_why():
    public = public_layers() | public_blocks() | public_backbones()
    for name, reason in WITHOUT_ENTRY.items():
        assert name in public and name not in NAMES
        assert is_sentence(reason), name


def is_sentence(text):
    return len(text.split()) >= 4 and text[0].isupper() and text.endswith(".")


def test_unsupported_properties_exist_and_say_why():
    for entry in CATALOGUE:
        for name, reason in entry.unsupported.items():
            assert name in PROPERTIES, f"{entry.name}: {name}"
            assert is_sentence(reason), f"{entry.name}: {name}: {reason!r}"


def check_size_and_shapes(entry):
    model = entry.build()
    assert model.count_params() <= MAX_PARAMETERS
    assert model(entry.inputs(0)).shape == (BATCH_SIZE, NUM_CLASSES)


@pytest.mark.parametrize("entry", REPRESENTATIVES, ids=lambda entry: entry.name)
def test_representatives_are_small_classifiers(entry):
    check_size_and_shapes(entry)


@pytest.mark.conformance
@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.name)
def test_all_entries_are_small_classifiers(entry):
    check_size_and_shapes(entry)


def test_inputs_are_a_pure_function_of_the_seed():
    first, again, other = images(0), images(0), images(1)
    assert first.dtype == np.float32 and first.shape == (BATCH_SIZE, 8, 8, 1)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_rows_of_a_class_are_nearer_to_each_other_than_to_other_classes():
    x = images(0).reshape(BATCH_SIZE, -1)
    distances = np.linalg.norm(x[:, None] - x[None], axis=-1)
    same = labels()[:, None] == labels()[None]
    assert distances[same].max() < distances[~same].min()


def test_sources_follow_imports():
    from layers.backbones import wide_resnet

    assert sources(wide_resnet) == (
        "layers", "layers.backbones.building", "layers.backbones.resnet", "layers.backbones.wide_resnet",
        "layers.checking", "layers.convolution_gradient", "layers.naming", "layers.normalization",
        "layers.regularization", "layers.residual")


def test_each_source_is_part_of_the_suite():
    for entry in CATALOGUE:
        assert entry.source and all(name.split(".")[0] in PACKAGES for name in entry.source), entry.name


def test_settling_takes_the_statistics_of_the_batch():
    x = images(0)
    source = keras.Input(x.shape[1:])
    model = keras.Model(source, keras.layers.BatchNormalization(momentum=0.9)(keras.layers.Conv2D(3, 3)(source)))
    assert settle(model, x) is model
    convolution, norm = model.layers[1:]
    y = convolution(x).numpy()
    variance = y.var(axis=(0, 1, 2), ddof=1)  # the fused operator keeps the unbiased one
    np.testing.assert_allclose(norm.moving_mean, y.mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, variance + variance.mean(), rtol=1e-4)
    assert norm.momentum == 0.9


@pytest.mark.conformance
def test_what_is_too_large_is_so_at_the_smallest_width():
    from layers.backbones import densenet

    model = densenet.BACKBONES["densenet_100_12"]((8, 8, 1), width=1e-3)
    assert model.count_params() == 66_631 > MAX_PARAMETERS
