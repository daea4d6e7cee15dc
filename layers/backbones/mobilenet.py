"""MobileNetV1 (Howard et al. 2017, arXiv 1704.04861) and MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381).

`width` is the papers' width multiplier alpha. Their resolution multiplier rho is the size of the input: it is the data
that is resized, not the network.

Stages: C1 ... C5, stride 2, 4, 8, 16, 32 with the large stem, half of that with the small one. A stage is the last map
of its stride; C5 of MobileNetV2 is after the final 1x1 convolution.
"""

import tf_keras as keras

from layers.backbones.building import check_width, choose_stem, image_input, scale_filters, stages_model
from layers.normalization import normalization as normalization_layer
from layers.separable import depthwise_separable, inverted_residual, relu6

# V1, table 1: (filters, stride) of each depthwise separable convolution behind the stem of 32 filters. The table prints
# stride 2 for the last depthwise convolution too; its own output size, 7 x 7, says 1.
V1_STEM_FILTERS = 32
V1_BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1),
    (512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1),
    (1024, 2), (1024, 1),
)

# V2, table 2: (expansion t, filters c, repeats n, stride s of the first repeat).
V2_STEM_FILTERS = 32
V2_BLOCKS = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)
V2_LAST_FILTERS = 1280

SMALLEST_ROUNDED_WIDTH = 0.25  # of MobileNetV2's multiples of 8


def mobilenet_v1(input_shape=None, *, inputs=None, normalization="batch", stem="auto", width=1.0):
    """MobileNetV1: 4,253,864 parameters with a head of 1000 classes.

    With the large stem it is, layer for layer, what `keras.applications` builds, its floor(filters * width) and its
    padding of odd maps included.

    Args:
        input_shape: (H, W, C) of scaled images; H and W may be None.
        inputs: instead of `input_shape`, a Keras tensor [B, H, W, C].
        normalization: a kind of `layers.normalization`. With the large stem epsilon is 1e-3 and the momentum .99, as in
            `keras.applications`; with the small one the defaults of `layers.normalization`.
        stem: "large" (first convolution of stride 2), "small" (stride 1), or "auto": small up to 64 pixels.
        width: alpha; multiplies all filter counts.

    Returns:
        A `keras.Model` from [B, H, W, C] to {"C1": ..., "C5": ...}.

    Raises:
        ValueError: input, stem, width or normalization are not as above.
    """
    images = image_input(input_shape, inputs)
    stem = choose_stem(stem, images)
    check_width(width)
    options = {"normalization": normalization}
    if stem == "large":
        options.update(epsilon=1e-3, momentum=0.99)
    x = _convolution(images, _v1_filters(V1_STEM_FILTERS, width), 3, 2 if stem == "large" else 1, options, name="stem")
    stages, stage = {}, 1
    for i, (filters, strides) in enumerate(V1_BLOCKS, start=1):
        stage += strides == 2
        x = depthwise_separable(x, _v1_filters(filters, width), strides=strides,
                                padding="end" if stem == "large" else "same", **options, name=f"block{i}")
        stages[f"C{stage}"] = x
    return stages_model(images, stages, name="mobilenet_v1")


def mobilenet_v2(input_shape=None, *, inputs=None, normalization="batch", stem="auto", width=1.0):
    """MobileNetV2: 3,538,984 parameters with a head of 1000 classes.

    With the large stem it is, layer for layer, what `keras.applications` builds.

    Args:
        width: alpha. Filter counts become multiples of 8, at least 8, and the last 1x1 convolution has 1280 filters
            at alpha <= 1. Below .25, which the paper does not use, counts are only rounded to integers, that of the
            last convolution too.
        normalization: with the large stem epsilon is 1e-3 and the momentum .999, as in `keras.applications`; with the
            small one the defaults of `layers.normalization`.
        input_shape, inputs, stem: as in `mobilenet_v1`.

    Returns:
        A `keras.Model` from [B, H, W, C] to {"C1": ..., "C5": ...}.

    Raises:
        ValueError: input, stem, width or normalization are not as above.
    """
    images = image_input(input_shape, inputs)
    stem = choose_stem(stem, images)
    check_width(width)
    options = {"normalization": normalization}
    if stem == "large":
        options.update(epsilon=1e-3, momentum=0.999)
    x = _convolution(images, _v2_filters(V2_STEM_FILTERS, width), 3, 2 if stem == "large" else 1, options, name="stem")
    stages, stage, block = {}, 1, 0
    for expansion, filters, repeats, first_strides in V2_BLOCKS:
        stage += first_strides == 2
        for repeat in range(repeats):
            x = inverted_residual(x, _v2_filters(filters, width, truncate=True), expansion=expansion,
                                  strides=1 if repeat else first_strides, **options, name=f"block{block}")
            block += 1
        stages[f"C{stage}"] = x
    last_filters = V2_LAST_FILTERS if SMALLEST_ROUNDED_WIDTH <= width <= 1 else _v2_filters(V2_LAST_FILTERS, width)
    stages[f"C{stage}"] = _convolution(x, last_filters, 1, 1, options, name="last")
    return stages_model(images, stages, name="mobilenet_v2")


def _convolution(x, filters, kernel_size, strides, options, name):
    """Convolution, normalisation, ReLU6."""
    x = keras.layers.Conv2D(filters, kernel_size, strides=strides, padding="same", use_bias=False,
                            kernel_initializer="he_normal", name=f"{name}_conv")(x)
    options = dict(options)
    x = normalization_layer(options.pop("normalization"), **options, name=f"{name}_norm")(x)
    return relu6(x, name=f"{name}_relu")


def _v1_filters(filters, width):
    return max(1, int(filters * width))


def _v2_filters(filters, width, truncate=False):
    """filters * width as the nearest multiple of 8, at least 8 and not below 90 % of it.

    `keras.applications` truncates the product to an integer first in the blocks, but not in the stem and at the end: it
    matters for the 90 % of few widths, such as .56.
    """
    if width < SMALLEST_ROUNDED_WIDTH:
        return scale_filters(filters, width)
    scaled = int(filters * width) if truncate else filters * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


BACKBONES = {"mobilenet_v1": mobilenet_v1, "mobilenet_v2": mobilenet_v2}
