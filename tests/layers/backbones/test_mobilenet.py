"""MobileNetV1 and V2 against `keras.applications`."""

import math

import numpy as np
import pytest
import tf_keras as keras

from layers.backbones import mobilenet
from layers.backbones.mobilenet import BACKBONES, V2_BLOCKS, mobilenet_v2
from layers.normalization import NORMALIZATIONS
from tests.layers.backbones.copying import copy_random_weights, relative_difference

REFERENCES = {"mobilenet_v1": keras.applications.MobileNet, "mobilenet_v2": keras.applications.MobileNetV2}


@pytest.fixture
def short(monkeypatch):
    """Fewer blocks, for what does not depend on their number."""
    monkeypatch.setattr(mobilenet, "V1_BLOCKS", ((64, 1), (128, 2), (128, 1), (256, 2)))
    monkeypatch.setattr(mobilenet, "V2_BLOCKS", ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 1, 2)))


def count_with_head(model, classes=1000):
    channels = model.output["C5"].shape[-1]
    return model.count_params() + channels * classes + classes


# Counts: keras.applications.MobileNet{,V2}(weights=None, alpha=...).count_params()
@pytest.mark.parametrize("variant, size, width, expected_count, rows", [
    ("mobilenet_v1", (64, 64), 1.0, 4_253_864, [32, 16, 8, 4, 2]),
    ("mobilenet_v1", (72, 52), 0.5, 1_342_536, [36, 18, 9, 4, 2]),  # odd maps on the way
    ("mobilenet_v2", (64, 64), 1.0, 3_538_984, [32, 16, 8, 4, 2]),
    ("mobilenet_v2", (72, 52), 0.35, 1_691_208, [36, 18, 9, 5, 3])])
def test_parameters_and_features_are_those_of_keras_applications(variant, size, width, expected_count, rows):
    ours = BACKBONES[variant]((*size, 3), stem="large", width=width)
    assert count_with_head(ours) == expected_count
    assert [ours.output[stage].shape[1] for stage in ("C1", "C2", "C3", "C4", "C5")] == rows
    reference = REFERENCES[variant](weights=None, include_top=False, input_shape=(*size, 3), alpha=width)
    copy_random_weights(reference, ours, seed=1)
    x = np.random.default_rng(2).normal(size=(2, *size, 3)).astype(np.float32)
    expected = reference(x, training=False).numpy()
    assert expected.std() > 1e-3
    assert relative_difference(ours(x, training=False)["C5"].numpy(), expected) < 1e-4


@pytest.mark.parametrize("width", [0.56, 1.4])  # .56: stem 24, since 16 is below 90 % of 17.92; block0 8
def test_v2_filters_are_multiples_of_8_as_in_keras_applications(width):
    """The rule by search: the nearest multiple, ties upwards, at least 8 and 90 % of the product."""
    def nearest(product):
        candidates = [n for n in range(8, 4000, 8) if n >= 0.9 * product]
        return min(candidates, key=lambda n: (abs(n - product), -n))

    model = mobilenet_v2((8, 8, 3), stem="large", width=width)
    assert model.get_layer("stem_conv").filters == nearest(32 * width)
    block = 0
    for _, filters, repeats, _ in V2_BLOCKS:
        for _ in range(repeats):
            assert model.get_layer(f"block{block}_project_conv").filters == nearest(math.floor(filters * width))
            block += 1
    assert model.get_layer("last_conv").filters == (1280 if width <= 1 else nearest(1280 * width))
    if width == 1.4:
        assert count_with_head(model) == 6_156_712


@pytest.mark.parametrize("variant", BACKBONES)
def test_small_stem_and_a_width_below_the_papers(variant):
    model = BACKBONES[variant]((8, 8, 1), width=1 / 16)
    assert model.count_params() < 50_000
    assert model.get_layer("stem_conv").filters == 2
    stages = model(np.ones((2, 8, 8, 1), np.float32))
    assert [(stage, tuple(map_.shape[1:3])) for stage, map_ in stages.items()] == [
        ("C1", (8, 8)), ("C2", (4, 4)), ("C3", (2, 2)), ("C4", (1, 1)), ("C5", (1, 1))]
    last = stages["C5"].numpy()
    assert last.shape[-1] == (64 if variant == "mobilenet_v1" else 80)
    assert last.min() >= 0 and last.max() <= 6


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("variant", BACKBONES)
def test_size_may_be_unknown(variant):
    model = BACKBONES[variant]((None, None, 1), stem="large", width=0.05)
    assert model(np.ones((2, 12, 33, 1), np.float32))["C3"].shape[:3] == (2, 2, 5)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("kind", NORMALIZATIONS)
@pytest.mark.parametrize("variant", BACKBONES)
def test_every_normalization_builds_the_same_unique_names(variant, kind):
    model = BACKBONES[variant]((8, 8, 1), width=0.05, normalization=kind)
    norms = {type(layer).__name__ for layer in model.layers if layer.name.endswith("_norm")}
    assert norms == {"BatchNormalization" if kind == "batch" else "GroupNormalization"}
    names = [layer.name for layer in model.layers]
    assert len(set(names)) == len(names)
    assert names[:3] == ["images", "stem_conv", "stem_norm"] and model.name == variant
