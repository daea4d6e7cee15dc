"""ResNet: the papers' numbers of parameters, features of `keras.applications`, sizes of the stages."""

import numpy as np
import pytest
import tf_keras as keras

from layers.backbones import resnet, resnet_v2
from layers.counting import count_parameters
from tests.layers.backbones.copying import copy_random_weights, relative_difference


def head(channels, classes):
    """Parameters of a dense layer behind global average pooling."""
    return (channels + 1) * classes


def assert_features_agree(ours, theirs, names):
    """The stages of `ours` are the outputs of the layers `names` of `theirs` when all weights are equal."""
    copy_random_weights(theirs, ours, seed=1)
    x = np.random.default_rng(2).uniform(-1, 1, (2, *ours.input_shape[1:])).astype("float32")
    taps = keras.Model(theirs.input, {stage: theirs.get_layer(name).output for stage, name in names.items()})
    expected, found = taps(x, training=False), ours(x, training=False)
    assert list(ours.output) == list(names)
    for stage in names:
        assert relative_difference(found[stage].numpy(), expected[stage].numpy()) < 1e-4, stage
    norms = [[(layer.epsilon, layer.momentum) for layer in model.layers
              if isinstance(layer, keras.layers.BatchNormalization)] for model in (ours, theirs)]
    assert norms[0] == norms[1]


def count_deeper(model, depths, deeper, trainable_only=False):
    """Parameters of a network with `deeper` instead of `depths` blocks a stage: all but the first one are alike."""
    total = count_parameters(model, trainable_only)
    for stage, (depth, more) in enumerate(zip(depths, deeper), 2):
        block = [layer for layer in model.layers if layer.name.startswith(f"conv{stage}_block2_")]
        total += (more - depth) * sum(count_parameters(layer, trainable_only) for layer in block)
    return total


# The numbers of parameters with 1000 classes: keras.applications.X(weights=None).count_params()
def test_resnet50_and_its_deeper_kin_are_those_of_keras_applications():
    ours = resnet.resnet50((64, 64, 3), stem="large")
    _, depths = resnet.IMAGENET["resnet50"]
    for name, count in (("resnet50", 25_636_712), ("resnet101", 44_707_176), ("resnet152", 60_419_944)):
        block, deeper = resnet.IMAGENET[name]
        assert block is resnet.IMAGENET["resnet50"][0]
        assert count_deeper(ours, depths, deeper) + head(2048, 1000) == count
    theirs = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(64, 64, 3))
    assert_features_agree(ours, theirs, {"C1": "conv1_relu", "C2": "conv2_block3_out", "C3": "conv3_block4_out",
                                         "C4": "conv4_block6_out", "C5": "conv5_block3_out"})


def test_resnet50_v2_and_its_deeper_kin_are_those_of_keras_applications():
    ours = resnet_v2.resnet50_v2((64, 64, 3), stem="large")
    depths = resnet_v2.IMAGENET["resnet50_v2"]
    for name, count in (("resnet50_v2", 25_613_800), ("resnet101_v2", 44_675_560), ("resnet152_v2", 60_380_648)):
        assert count_deeper(ours, depths, resnet_v2.IMAGENET[name]) + head(2048, 1000) == count
    theirs = keras.applications.ResNet50V2(weights=None, include_top=False, input_shape=(64, 64, 3))
    assert_features_agree(ours, theirs, {"C1": "conv1_conv", "C2": "conv2_block2_out", "C3": "conv3_block3_out",
                                         "C4": "conv4_block5_out", "C5": "post_relu"})


def test_resnet18_and_34_have_the_known_number_of_parameters():
    model = resnet.resnet18((64, 64, 3), stem="large")
    for name, count in (("resnet18", 11_689_512), ("resnet34", 21_797_672)):  # without moving statistics
        assert count_deeper(model, (2, 2, 2, 2), resnet.IMAGENET[name][1], True) + head(512, 1000) == count
    assert not any("bias" in weight.name for weight in model.weights)


@pytest.mark.parametrize("module, name", [(resnet, "resnet20"), (resnet_v2, "preact_resnet20")])
def test_cifar_networks_have_the_parameters_of_table_6(module, name):
    model = module.BACKBONES[name]((32, 32, 3))
    prefix = name.removesuffix("20")
    for depth, millions in ((20, ".27"), (32, ".46"), (44, ".66"), (56, ".85"), (110, "1.7")):
        n = module.CIFAR[f"{prefix}{depth}"]
        assert 6 * n + 2 == depth
        count = count_deeper(model, (3, 3, 3), (n, n, n), True) + head(64, 10)
        assert round(count / 1e6, len(millions.split(".")[1])) == float(millions)


def stage_sizes(model):
    return {stage: tuple(tensor.shape[1:]) for stage, tensor in model.output.items()}


@pytest.fixture
def short(monkeypatch):
    """Fewer blocks, for what does not depend on their number."""
    monkeypatch.setitem(resnet_v2.IMAGENET, "resnet50_v2", (2, 2, 2, 2))
    monkeypatch.setitem(resnet.IMAGENET, "resnet18", (resnet.IMAGENET["resnet18"][0], (1, 1, 1, 1)))
    monkeypatch.setitem(resnet.CIFAR, "resnet20", 1)
    monkeypatch.setitem(resnet_v2.CIFAR, "preact_resnet20", 1)


@pytest.mark.parametrize("backbone", [resnet.resnet18, resnet_v2.resnet50_v2])
def test_stem_follows_the_image(backbone, short):
    channels = [2, 4, 8, 16] if backbone is resnet.resnet18 else [8, 16, 32, 64]
    small, large = backbone((33, 64, 1), width=1 / 32), backbone((65, 70, 1), width=1 / 32)
    sizes = [(33, 64), (17, 32), (9, 16), (5, 8)]
    assert stage_sizes(small) == {f"C{i}": (*size, c) for i, size, c in zip((2, 3, 4, 5), sizes, channels)}
    sizes = [(33, 35), (17, 18), (9, 9), (5, 5), (3, 3)]
    assert stage_sizes(large) == {f"C{i}": (*size, c) for i, size, c in zip((1, 2, 3, 4, 5), sizes, [2, *channels])}


@pytest.mark.parametrize("backbone", [resnet.resnet20, resnet_v2.preact_resnet20])
def test_eight_pixels_are_enough(backbone, short):
    model = backbone((8, 8, 1), width=.25, normalization="group")
    assert stage_sizes(model) == {"C2": (8, 8, 4), "C3": (4, 4, 8), "C4": (2, 2, 16)}
    assert stage_sizes(resnet.resnet18((8, 8, 1), width=1 / 64))["C5"] == (1, 1, 8)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)


def test_last_stage_of_preactivation_networks_is_activated(short):
    model = resnet_v2.preact_resnet20((8, 8, 1), width=.25)
    stages = model(np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype("float32"))
    assert stages["C4"].numpy().min() == 0 and stages["C3"].numpy().min() < 0


def test_unknown_image_size_gives_the_same_features(short):
    fixed, free = (resnet.resnet20(shape, width=.25) for shape in ((9, 12, 3), (None, None, 3)))
    free.set_weights(fixed.get_weights())
    x = np.random.default_rng(0).normal(size=(2, 9, 12, 3)).astype("float32")
    for one, other in zip(fixed(x).values(), free(x).values()):
        np.testing.assert_array_equal(one, other)


def test_a_tensor_as_input_keeps_one_flat_graph(short):
    inputs = keras.Input((8, 8, 1), name="pixels")
    model = resnet.resnet20(inputs=keras.layers.Rescaling(1 / 255, name="scale")(inputs), width=.25)
    assert [layer.name for layer in model.layers[:3]] == ["pixels", "scale", "conv1_conv"]


def test_reloaded_model_returns_the_same_stages(tmp_path, short):
    model = resnet_v2.preact_resnet20((8, 8, 1), width=.125)
    model.save(tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype("float32")
    again = keras.models.load_model(tmp_path / "model.keras")
    for (stage, one), (name, other) in zip(model(x).items(), again(x).items()):
        assert stage == name
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("backbone", [resnet.resnet50, resnet.resnet20, resnet_v2.resnet50_v2,
                                      resnet_v2.preact_resnet20])
@pytest.mark.parametrize("options, message", [
    ({"width": 0}, "width multiplies the filter counts and must be above 0; received 0"),
    ({"normalization": "groups"}, "Unknown normalization 'groups'.*Did you mean 'group'"),
])
def test_errors(backbone, options, message):
    with pytest.raises(ValueError, match=message):
        backbone((8, 8, 1), **options)


def test_error_of_an_unknown_stem():
    with pytest.raises(ValueError, match="Unknown stem 'smal'.*Did you mean 'small'"):
        resnet.resnet18((8, 8, 1), stem="smal")
