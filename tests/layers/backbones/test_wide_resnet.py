"""Wide residual networks: numbers of parameters of the paper, stages, dropout."""

import numpy as np
import pytest

from layers.backbones import wide_resnet
from layers.counting import count_parameters
from layers.regularization import StatelessDropout


def formula(depth, widening, classes=10):
    """Trainable parameters from table 1 of the paper, convolution by convolution."""
    channels, total = 16, 9 * 3 * 16
    for filters in (16 * widening, 32 * widening, 64 * widening):
        for _ in range((depth - 4) // 6):
            total += 2 * channels + 9 * channels * filters + 2 * filters + 9 * filters * filters
            total += channels * filters if channels != filters else 0
            channels = filters
    return total + 2 * channels + (channels + 1) * classes


# Tables 4 and 5: millions of parameters.
@pytest.mark.parametrize("name, millions", [("wrn_40_4", 8.9), ("wrn_16_8", 11.0), ("wrn_22_8", 17.2),
                                            ("wrn_28_10", 36.5)])
def test_parameters_are_those_of_the_paper(name, millions):
    depth, widening = wide_resnet.VARIANTS[name]
    assert name == f"wrn_{depth}_{widening}"
    assert round(formula(depth, widening) / 1e6, 1) == millions


@pytest.mark.parametrize("name", ["wrn_16_1", "wrn_16_2", "wrn_28_10"])
def test_built_networks_follow_the_formula(name):
    model = wide_resnet.BACKBONES[name]((32, 32, 3))
    depth, widening = wide_resnet.VARIANTS[name]
    assert model.name == name
    assert count_parameters(model, trainable_only=True) + (64 * widening + 1) * 10 == formula(depth, widening)
    assert {stage: tuple(tensor.shape[1:]) for stage, tensor in model.output.items()} == {
        "C2": (32, 32, 16 * widening), "C3": (16, 16, 32 * widening), "C4": (8, 8, 64 * widening)}


def test_each_block_drops_others_than_the_block_before():
    model = wide_resnet.wide_resnet(16, 1, (8, 8, 1), width=.25, dropout=.3, seed=5)
    drops = [layer for layer in model.layers if isinstance(layer, StatelessDropout)]
    assert [layer.seed for layer in drops] == [5, 6, 7, 8, 9, 10] and {layer.rate for layer in drops} == {.3}
    x = np.ones([2, 8, 8, 1], "float32")
    first, second = (model(x, training=True)["C4"].numpy() for _ in range(2))
    assert np.abs(first - second).max() > 1e-3
    assert {int(layer.step.numpy()) for layer in drops} == {2}
    without = wide_resnet.wide_resnet(16, 1, (8, 8, 1), width=.25)
    assert not any(isinstance(layer, StatelessDropout) for layer in without.layers)


@pytest.mark.parametrize("arguments, options, message", [
    ((18, 2), {}, r"has 6n \+ 4 layers: 10, 16, .*; received 18"),
    ((4, 2), {}, r"has 6n \+ 4 layers.*received 4"),
    ((16, 0), {}, "widening factor must be at least 1; received 0"),
    ((16, 1), {"width": -1}, "width multiplies the filter counts"),
    ((16, 1), {"normalization": "lair"}, "Unknown normalization 'lair'"),
    ((16, 1), {"dropout": 1.5}, "rate must be at least 0 and below 1; received 1.5"),
])
def test_errors(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        wide_resnet.wide_resnet(*arguments, (8, 8, 1), **options)
