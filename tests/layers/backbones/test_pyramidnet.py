"""PyramidNet: widths, numbers of parameters, stages."""

from fractions import Fraction

import numpy as np
import pytest

from layers.backbones import pyramidnet
from layers.counting import count_parameters


def exact_widths(num_blocks, alpha):
    """One block after the other, in exact fractions; halves are rounded up."""
    real, widths = Fraction(16), []
    for _ in range(num_blocks):
        real += Fraction(alpha, num_blocks)
        widths.append(int(real + Fraction(1, 2)))
    return widths


def formula(depth, alpha, use_bottleneck, classes=10):
    """Trainable parameters, convolution by convolution and normalisation by normalisation."""
    channels, total = 16, 9 * 3 * 16 + 2 * 16
    for f in exact_widths(3 * ((depth - 2) // (9 if use_bottleneck else 6)), alpha):
        if use_bottleneck:
            total += 2 * channels + channels * f + 2 * f + 9 * f * f + 2 * f + 4 * f * f + 2 * 4 * f
            channels = 4 * f
        else:
            total += 2 * channels + 9 * channels * f + 2 * f + 9 * f * f + 2 * f
            channels = f
    return total + 2 * channels + (channels + 1) * classes


def test_width_is_rounded_on_use_only():
    assert pyramidnet.pyramid_widths(9, 24) == [19, 21, 24, 27, 29, 32, 35, 37, 40]
    assert pyramidnet.pyramid_widths(8, 2) == [16, 17, 17, 17, 17, 18, 18, 18]  # alpha / N = 1/4, and still it grows
    for num_blocks, alpha in ((54, 48), (54, 84), (54, 270), (66, 240), (90, 200)):
        assert pyramidnet.pyramid_widths(num_blocks, alpha) == exact_widths(num_blocks, alpha)
    assert pyramidnet.pyramid_widths(4, 16, width=.1) == [2, 2, 3, 3]  # of 20, 24, 28, 32


# Table 4, millions of parameters. The authors' program gives the same as the formula here; the table is a little lower.
@pytest.mark.parametrize("name, millions", [
    ("pyramidnet110_a48", 1.7), ("pyramidnet110_a84", 3.8), ("pyramidnet110_a270", 28.3),
    ("pyramidnet164_a48_bottleneck", 1.7), ("pyramidnet164_a84_bottleneck", 3.8),
    ("pyramidnet164_a270_bottleneck", 27.0), ("pyramidnet200_a240_bottleneck", 26.6),
    ("pyramidnet272_a200_bottleneck", 26.0)])
def test_parameters_are_nearly_those_of_the_paper(name, millions):
    count = formula(*pyramidnet.VARIANTS[name]) / 1e6
    assert np.isclose(count, millions, rtol=.01, atol=.08)


@pytest.mark.parametrize("variant", [(20, 24, False), (14, 5, False), (20, 7, True)])
def test_built_networks_follow_the_formula(variant):
    depth, alpha, use_bottleneck = variant
    model = pyramidnet.pyramidnet(*variant, (32, 32, 3))
    factor = 4 if use_bottleneck else 1
    n = (depth - 2) // (9 if use_bottleneck else 6)
    widths = exact_widths(3 * n, alpha)
    assert count_parameters(model, True) + ((16 + alpha) * factor + 1) * 10 == formula(*variant)
    assert {stage: tuple(tensor.shape[1:]) for stage, tensor in model.output.items()} == {
        "C2": (32, 32, factor * widths[n - 1]), "C3": (16, 16, factor * widths[2 * n - 1]),
        "C4": (8, 8, factor * (16 + alpha))}
    assert model.name == f"pyramidnet{depth}_a{alpha}" + "_bottleneck" * use_bottleneck


def test_table_names_say_what_they_build():
    for name, (depth, alpha, use_bottleneck) in pyramidnet.VARIANTS.items():
        assert name == f"pyramidnet{depth}_a{alpha}" + "_bottleneck" * use_bottleneck
        assert name in pyramidnet.BACKBONES


@pytest.mark.parametrize("arguments, options, message", [
    ((9, 4), {}, r"with basic blocks has 6n \+ 2 layers: 8, 14, 20, 26, ...; received 9"),
    ((12, 4, True), {}, r"with bottlenecks has 9n \+ 2 layers: 11, 20, 29, 38, ...; received 12"),
    ((2, 4), {}, "received 2"),
    ((8, -1), {}, "alpha is how many filters a PyramidNet grows by, at least 0; received -1"),
    ((8, 4), {"width": 0}, "width multiplies the filter counts"),
    ((8, 4), {"normalization": "lair"}, "Unknown normalization 'lair'"),
])
def test_errors(arguments, options, message):
    use_bottleneck = arguments[2] if len(arguments) > 2 else False
    with pytest.raises(ValueError, match=message):
        pyramidnet.pyramidnet(*arguments[:2], use_bottleneck, (8, 8, 1), **options)
