"""PyramidNet: every block is a little wider than the one before (Han et al. 2017, arXiv 1610.02915).

Additive form: of N blocks, block k has 16 + alpha k / N filters, rounded, k = 1 ... N. The paper prints
D_k = floor(D_{k-1} + alpha / N), which never grows when alpha < N; the authors' program accumulates a real number and
rounds it on use, as here. So counted, the networks are up to 4 % larger than table 4 says (PyramidNet-110 with alpha
48, 84, 270: 1.77, 3.90, 28.49 M here; 1.7, 3.8, 28.3 M there). Shortcuts have no weights: averages of 2x2 pixels where
the image shrinks, zeros for new channels. Convolutions have no bias; weights start as in He et al. 2015, fan-in. Stages
before the last are sums, which the last normalisation and ReLU have not seen.

Shapes: B batch, H W image, C channels.
"""

import functools
import math

from layers import residual
from layers.backbones.building import image_input, scale_filters, stages_model
from layers.backbones.resnet import PAPER

NUM_STAGES = 3
FIRST_FILTERS = 16

# Depth, alpha, and whether blocks are bottlenecks. Table 4 (CIFAR); 20 layers as a small one of the same family.
VARIANTS = {
    "pyramidnet20_a24": (20, 24, False),
    "pyramidnet110_a48": (110, 48, False),
    "pyramidnet110_a84": (110, 84, False),
    "pyramidnet110_a270": (110, 270, False),
    "pyramidnet164_a48_bottleneck": (164, 48, True),
    "pyramidnet164_a84_bottleneck": (164, 84, True),
    "pyramidnet164_a270_bottleneck": (164, 270, True),
    "pyramidnet200_a240_bottleneck": (200, 240, True),
    "pyramidnet272_a200_bottleneck": (272, 200, True),
}


def pyramidnet(depth, alpha, use_bottleneck=False, input_shape=None, *, inputs=None, normalization="batch", width=1.0):
    """An additive PyramidNet without its head.

    Args:
        depth: 6n + 2 layers with basic blocks, 9n + 2 with bottlenecks; n blocks a stage, at least 1.
        alpha: how many filters the last block has above 16, at least 0.
        use_bottleneck: whether blocks are bottlenecks, with four times as many channels between them.
        input_shape, inputs, normalization: as in `layers.backbones.resnet.imagenet_resnet`.
        width: multiplies all numbers of filters.

    Returns:
        keras.Model from images to {"C2", "C3", "C4"} of strides 1, 2, 4; C4 has 16 + alpha channels times width, and
        four times that with bottlenecks.

    Raises:
        ValueError: depth does not fit the block, alpha below 0, or as `imagenet_resnet`.
    """
    num_blocks = _blocks_a_stage(depth, 9 if use_bottleneck else 6)
    block = residual.pyramid_bottleneck if use_bottleneck else residual.pyramid_basic
    images = image_input(input_shape, inputs)
    x = residual.convolution(images, scale_filters(FIRST_FILTERS, width), 3, name="conv1")
    widths = pyramid_widths(NUM_STAGES * num_blocks, alpha, width)
    x = residual.normalize(x, kind=normalization, **PAPER, name="conv1")
    stages = {}
    for stage in range(2, 2 + NUM_STAGES):
        for i in range(num_blocks):
            x = block(x, widths[(stage - 2) * num_blocks + i], strides=2 if stage > 2 and i == 0 else 1,
                      normalization=normalization, **PAPER, name=f"conv{stage}_block{i + 1}")
        stages[f"C{stage}"] = x
    stages["C4"] = residual.normalize_relu(x, kind=normalization, **PAPER, name="post")
    name = f"pyramidnet{depth}_a{alpha}" + ("_bottleneck" if use_bottleneck else "")
    return stages_model(images, stages, name)


def pyramid_widths(num_blocks, alpha, width=1.0):
    """Filters of each block: width * (16 + alpha k / num_blocks), rounded with halves up, k = 1 ... num_blocks.

    Raises:
        ValueError: alpha below 0.
    """
    if not alpha >= 0:
        raise ValueError(f"alpha is how many filters a PyramidNet grows by, at least 0; received {alpha}.")
    real_widths = [width * (FIRST_FILTERS + alpha * k / num_blocks) for k in range(1, num_blocks + 1)]
    return [max(1, math.floor(real + 0.5)) for real in real_widths]


def _blocks_a_stage(depth, layers_a_step):
    """n of depth = layers_a_step * n + 2: three stages with 2 or 3 convolutions a block."""
    if depth < layers_a_step + 2 or (depth - 2) % layers_a_step:
        known = ", ".join(str(layers_a_step * n + 2) for n in range(1, 5))
        raise ValueError(f"A PyramidNet with {'bottlenecks' if layers_a_step == 9 else 'basic blocks'} has "
                         f"{layers_a_step}n + 2 layers: {known}, ...; received {depth}.")
    return (depth - 2) // layers_a_step


BACKBONES = {name: functools.partial(pyramidnet, *variant) for name, variant in VARIANTS.items()}
