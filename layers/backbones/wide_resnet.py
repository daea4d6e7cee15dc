"""Wide residual networks: few layers, k times as many filters (Zagoruyko & Komodakis 2016, arXiv 1605.07146).

WRN-d-k has d = 6n + 4 convolutions: 3x3 with 16 filters, three stages of n blocks with 16k, 32k and 64k filters, and
the 1x1 convolution of each stage's first shortcut (table 1). Convolutions have no bias; weights start as in He et al.
2015, fan-in. Stages before the last are sums, which no normalisation or ReLU has seen yet.

Shapes: B batch, H W image, C channels.
"""

import functools

from layers import residual
from layers.backbones.building import image_input, scale_filters, stages_model
from layers.backbones.resnet import CIFAR_FILTERS, PAPER

# Depth and widening factor. Tables 4 and 5; 16-1, 16-2 and 16-4 as small ones of the same family.
VARIANTS = {"wrn_16_1": (16, 1), "wrn_16_2": (16, 2), "wrn_16_4": (16, 4), "wrn_40_4": (40, 4), "wrn_16_8": (16, 8),
            "wrn_22_8": (22, 8), "wrn_28_10": (28, 10)}


def wide_resnet(depth, widening, input_shape=None, *, inputs=None, normalization="batch", width=1.0, dropout=0.0,
                seed=0):
    """WRN-depth-widening without its head.

    Args:
        depth: d = 6n + 4, n at least 1.
        widening: k, at least 1.
        input_shape, inputs, normalization: as in `layers.backbones.resnet.imagenet_resnet`.
        width: multiplies all numbers of filters, the first 16 included.
        dropout: rate between the two convolutions of a block (the paper: .3 on CIFAR, .4 on SVHN); 0 adds no layer.
        seed: of the dropout masks; block i of the network takes seed + i.

    Returns:
        keras.Model from images to {"C2", "C3", "C4"} of strides 1, 2, 4 and 16k, 32k, 64k channels times width.

    Raises:
        ValueError: depth is not 6n + 4, widening below 1, or as `imagenet_resnet`.
    """
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"A wide residual network has 6n + 4 layers: 10, 16, 22, 28, 34, 40, ...; received {depth}.")
    if widening < 1:
        raise ValueError(f"The widening factor must be at least 1; received {widening}. Use width to shrink it.")
    images = image_input(input_shape, inputs)
    x = residual.convolution(images, scale_filters(CIFAR_FILTERS[0], width), 3, name="conv1")
    stages, num_blocks = {}, (depth - 4) // 6
    for stage, filters in enumerate(CIFAR_FILTERS, 2):
        for i in range(num_blocks):
            x = residual.wide(x, scale_filters(filters * widening, width), strides=2 if stage > 2 and i == 0 else 1,
                              dropout=dropout, seed=seed + (stage - 2) * num_blocks + i, normalization=normalization,
                              **PAPER, name=f"conv{stage}_block{i + 1}")
        stages[f"C{stage}"] = x
    stages["C4"] = residual.normalize_relu(x, kind=normalization, **PAPER, name="post")
    return stages_model(images, stages, f"wrn_{depth}_{widening}")


BACKBONES = {name: functools.partial(wide_resnet, *variant) for name, variant in VARIANTS.items()}
