"""ResNet: the ImageNet networks of 18 to 152 layers and the CIFAR networks of 20 to 110 layers.

He et al. 2016a (arXiv 1512.03385). ResNet-50, 101 and 152 follow `keras.applications` layer for layer: convolutions
have a bias, the stride of a bottleneck is in its first 1x1 convolution, batch normalisation has epsilon 1.001e-5 and
momentum .99. The others follow the paper: no bias before a normalisation. Weights start as in He et al. 2015, fan-in.

Shapes: B batch, H W image, C channels.
"""

import tf_keras as keras

from layers import residual
from layers.backbones.building import choose_stem, image_input, scale_filters, stages_model

# Table 1: block, and number of blocks in conv2_x ... conv5_x.
IMAGENET = {
    "resnet18": (residual.basic, (2, 2, 2, 2)),
    "resnet34": (residual.basic, (3, 4, 6, 3)),
    "resnet50": (residual.bottleneck, (3, 4, 6, 3)),
    "resnet101": (residual.bottleneck, (3, 4, 23, 3)),
    "resnet152": (residual.bottleneck, (3, 8, 36, 3)),
}
IMAGENET_FILTERS = (64, 128, 256, 512)

# Table 6 and section 4.2: n, the blocks of each of three stages; 6n + 2 layers.
CIFAR = {"resnet20": 3, "resnet32": 5, "resnet44": 7, "resnet56": 9, "resnet110": 18}
CIFAR_FILTERS = (16, 32, 64)

KERAS_APPLICATIONS = {"epsilon": 1.001e-5, "momentum": 0.99}
PAPER = {"epsilon": 1e-5, "momentum": 0.9}


def imagenet_resnet(variant, input_shape=None, *, inputs=None, normalization="batch", stem="auto", width=1.0):
    """An ImageNet ResNet without its head.

    Args:
        variant: a key of `IMAGENET`.
        input_shape: (H, W, C) of the images; H and W may be None.
        inputs: a symbolic Keras tensor [B, H, W, C] instead of `input_shape`.
        normalization: a kind of `layers.normalization`.
        stem: "large" (7x7 convolution and max pooling, stride 4), "small" (3x3 convolution, stride 1) or "auto": small
            when the shorter side is at most 64 pixels.
        width: multiplies all numbers of filters.

    Returns:
        keras.Model from images to {"C1", "C2", "C3", "C4", "C5"}, Ci of stride 2^i. With the small stem there is no C1,
        and C2 ... C5 have strides 1, 2, 4, 8. C2 has 256 channels times width (ResNet-18 and 34: 64), and each further
        stage twice as many.

    Raises:
        ValueError: unknown normalization or stem, width not above 0, or not one of input_shape and inputs.
    """
    block, depths = IMAGENET[variant]
    form = PAPER if block is residual.basic else KERAS_APPLICATIONS
    options = {"normalization": normalization, "use_bias": block is not residual.basic, **form}
    images = image_input(input_shape, inputs)
    stages = {}
    x = _stem(images, scale_filters(IMAGENET_FILTERS[0], width), choose_stem(stem, images), stages, **options)
    for stage, (filters, depth) in enumerate(zip(IMAGENET_FILTERS, depths, strict=True), 2):
        for i in range(depth):
            x = block(x, scale_filters(filters, width), strides=2 if stage > 2 and i == 0 else 1,
                      name=f"conv{stage}_block{i + 1}", **options)
        stages[f"C{stage}"] = x
    return stages_model(images, stages, variant)


def cifar_resnet(variant, input_shape=None, *, inputs=None, normalization="batch", width=1.0):
    """A CIFAR ResNet without its head: 3x3 convolution, three stages of n basic blocks, shortcuts without weights.

    Args:
        variant: a key of `CIFAR`.
        input_shape, inputs, normalization, width: as in `imagenet_resnet`.

    Returns:
        keras.Model from images to {"C2", "C3", "C4"} of strides 1, 2, 4 and 16, 32, 64 channels times width.

    Raises:
        ValueError: as `imagenet_resnet`.
    """
    images = image_input(input_shape, inputs)
    x = residual.convolution(images, scale_filters(CIFAR_FILTERS[0], width), 3, name="conv1")
    x = residual.normalize_relu(x, kind=normalization, **PAPER, name="conv1")
    stages = {}
    for stage, filters in enumerate(CIFAR_FILTERS, 2):
        for i in range(CIFAR[variant]):
            x = residual.basic(x, scale_filters(filters, width), strides=2 if stage > 2 and i == 0 else 1,
                               shortcut="pad", normalization=normalization, **PAPER, name=f"conv{stage}_block{i + 1}")
        stages[f"C{stage}"] = x
    return stages_model(images, stages, variant)


def _stem(images, filters, stem, stages, *, normalization, use_bias, epsilon, momentum):
    """Adds C1 to `stages` if the stem is large; returns its end, of stride 4 or 1."""
    size, strides = (7, 2) if stem == "large" else (3, 1)
    x = residual.convolution(images, filters, size, strides=strides, use_bias=use_bias, name="conv1")
    x = residual.normalize_relu(x, kind=normalization, epsilon=epsilon, momentum=momentum, name="conv1")
    if stem == "small":
        return x
    stages["C1"] = x
    return stem_pooling(x)


def stem_pooling(x):
    """3x3 maximum with stride 2, one pixel of zeros around: [B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), C]."""
    x = keras.layers.ZeroPadding2D(1, name="pool1_pad")(x)
    return keras.layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)


def resnet18(input_shape=None, **options):
    """ResNet-18: 11.69 M parameters with 1000 classes. Arguments as `imagenet_resnet`."""
    return imagenet_resnet("resnet18", input_shape, **options)


def resnet34(input_shape=None, **options):
    """ResNet-34: 21.80 M parameters with 1000 classes. Arguments as `imagenet_resnet`."""
    return imagenet_resnet("resnet34", input_shape, **options)


def resnet50(input_shape=None, **options):
    """ResNet-50: 25.64 M parameters with 1000 classes. Arguments as `imagenet_resnet`."""
    return imagenet_resnet("resnet50", input_shape, **options)


def resnet101(input_shape=None, **options):
    """ResNet-101: 44.71 M parameters with 1000 classes. Arguments as `imagenet_resnet`."""
    return imagenet_resnet("resnet101", input_shape, **options)


def resnet152(input_shape=None, **options):
    """ResNet-152: 60.42 M parameters with 1000 classes. Arguments as `imagenet_resnet`."""
    return imagenet_resnet("resnet152", input_shape, **options)


def resnet20(input_shape=None, **options):
    """CIFAR ResNet-20: 0.27 M parameters with 10 classes. Arguments as `cifar_resnet`."""
    return cifar_resnet("resnet20", input_shape, **options)


def resnet32(input_shape=None, **options):
    """CIFAR ResNet-32: 0.46 M parameters with 10 classes. Arguments as `cifar_resnet`."""
    return cifar_resnet("resnet32", input_shape, **options)


def resnet44(input_shape=None, **options):
    """CIFAR ResNet-44: 0.66 M parameters with 10 classes. Arguments as `cifar_resnet`."""
    return cifar_resnet("resnet44", input_shape, **options)


def resnet56(input_shape=None, **options):
    """CIFAR ResNet-56: 0.85 M parameters with 10 classes. Arguments as `cifar_resnet`."""
    return cifar_resnet("resnet56", input_shape, **options)


def resnet110(input_shape=None, **options):
    """CIFAR ResNet-110: 1.7 M parameters with 10 classes. Arguments as `cifar_resnet`."""
    return cifar_resnet("resnet110", input_shape, **options)


BACKBONES = {"resnet18": resnet18, "resnet34": resnet34, "resnet50": resnet50, "resnet101": resnet101,
             "resnet152": resnet152, "resnet20": resnet20, "resnet32": resnet32, "resnet44": resnet44,
             "resnet56": resnet56, "resnet110": resnet110}
