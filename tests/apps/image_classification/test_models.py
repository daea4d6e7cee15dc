import numpy as np
import pytest
import tf_keras as keras

from apps.common import workdir
from apps.image_classification import models
from apps.image_classification.config import Config
from apps.image_classification.data import ImageSpec
from layers.counting import count_parameters

SPEC = ImageSpec(8, 8, 1, 10, tuple("0123456789"), (78.0,), (96.0,))
RGB = ImageSpec(32, 32, 3, 10, tuple("abcdefghij"), (125.0, 123.0, 114.0), (63.0, 62.0, 66.0))


def build(name, spec=SPEC, **options):
    return models.build(Config(workdir="x", model=name, **options), spec)


@pytest.mark.parametrize("name", ["resnet18", "resnet20", "preact_resnet20", "resnet50_v2", "wrn_16_1",
                                  "pyramidnet20_a24", "densenet121", "densenet_bc_40_12", "mobilenet_v1",
                                  "mobilenet_v2", "vgg16"])
def test_every_family_takes_digits(name):
    model = build(name, width=0.125)
    assert model.output_shape == (None, 10)
    assert np.isfinite(model(np.full((2, 8, 8, 1), 255.0, "float32"))).all()


def test_inputs_are_pixels_scaled_by_the_training_statistics():
    model = build("resnet20", RGB)
    scale = keras.Model(model.input, model.get_layer("scale").output)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(scale(pixels), (pixels - RGB.mean) / RGB.std, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name, convolutions", [
    ("wrn_10_3", 10), ("pyramidnet8_a6", 7), ("pyramidnet11_a6_bottleneck", 10), ("densenet_bc_10_4", 9),
    ("densenet_7_4", 6)])
def test_families_take_numbers_that_are_not_listed(name, convolutions):
    assert name not in models.MODELS
    layers = [layer for layer in build(name, RGB).layers if isinstance(layer, keras.layers.Conv2D)]
    # The depth in the name counts the dense layer too, but for wide networks, which count their projections instead.
    assert len(layers) == convolutions


def test_options_reach_the_model():
    dropout = [layer.name for layer in build("wrn_16_1", dropout=0.3).layers if "StatelessDropout" in str(type(layer))]
    assert len(dropout) == 7 and "dropout" in dropout  # one a block, one before the classifier
    assert not any(isinstance(layer, keras.layers.BatchNormalization)
                   for layer in build("resnet20", normalization="group").layers)
    norms = [layer for layer in build("mobilenet_v2", width=0.25, stem="large", batch_norm_momentum=0.7).layers
             if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms and {layer.get_config()["momentum"] for layer in norms} == {0.7}
    assert count_parameters(build("resnet20", width=0.5)) < 0.3 * count_parameters(build("resnet20"))


@pytest.mark.parametrize("name, options, message", [
    ("resnet21", {}, r"Unknown model 'resnet21'.*Did you mean 'resnet\d+'"),
    ("wrn_15_2", {}, r"6n \+ 4 layers.*received 15"),
    ("resnet20", {"stem": "large"}, r"--stem=large does not apply to --model=resnet20.*one of resnet18, "),
])
def test_bad_models(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, **options)


def test_logits_are_float32_in_mixed_precision():
    workdir.set_precision("mixed_float16")
    try:
        for name in ("resnet20", "vgg16"):
            assert build(name, width=0.125).output.dtype == "float32"
    finally:
        workdir.set_precision("float32")
