"""Inputs, stems, widths and the stages' model that all backbones share."""

import numpy as np
import pytest
import tf_keras as keras

from layers.backbones.building import choose_stem, image_input, scale_filters, stages_model


@pytest.mark.parametrize("shape, expected", [
    ((64, 64, 3), "small"), ((224, 64, 3), "small"), ((8, 8, 1), "small"), ((65, 65, 3), "large"),
    ((None, None, 3), "large"), ((None, 32, 3), "small")])
def test_auto_takes_the_small_stem_up_to_64_pixels(shape, expected):
    assert choose_stem("auto", keras.Input(shape)) == expected


def test_a_stem_that_is_named_is_taken():
    assert choose_stem("large", keras.Input((8, 8, 1))) == "large"
    assert choose_stem("small", keras.Input((224, 224, 3))) == "small"


def test_unknown_stem():
    with pytest.raises(ValueError, match=r"Unknown stem 'smal': .* auto, small, large\. Did you mean 'small'"):
        choose_stem("smal", keras.Input((8, 8, 1)))


@pytest.mark.parametrize("filters, width, expected", [(64, 1.0, 64), (64, 0.5, 32), (64, 0.3, 19), (4, 0.01, 1)])
def test_filters_are_rounded_and_at_least_1(filters, width, expected):
    assert scale_filters(filters, width) == expected


@pytest.mark.parametrize("width", [0, -1, float("nan")])
def test_width_must_be_positive(width):
    with pytest.raises(ValueError, match=r"width .* must be above 0; received (0|-1|nan)\. Pass 1\.0"):
        scale_filters(64, width)


def test_one_of_shape_and_tensor():
    match = r"input_shape=\(H, W, C\) or inputs=<Keras tensor>, one of the two; received"
    with pytest.raises(ValueError, match=match):
        image_input(None, None)
    with pytest.raises(ValueError, match=match):
        image_input((8, 8, 1), keras.Input((8, 8, 1)))


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, None), (0, 8, 1), (2, 8, 8, 1)])
def test_shapes_that_are_no_images(shape):
    with pytest.raises(ValueError, match=r"images of shape \(H, W, C\).* received \(.*Add a channel axis"):
        image_input(shape, None)


def test_a_model_over_a_tensor_starts_at_its_source():
    source = keras.Input((4, 4, 1))
    images = image_input(None, keras.layers.Rescaling(2.0)(source))
    x = keras.layers.MaxPooling2D(2)(images)
    model = stages_model(images, {"C1": images, "C2": x}, name="stages")
    assert model.input is source
    stages = model(np.ones((1, 4, 4, 1), np.float32))
    assert list(stages) == ["C1", "C2"]
    np.testing.assert_array_equal(stages["C2"], np.full((1, 2, 2, 1), 2.0))
