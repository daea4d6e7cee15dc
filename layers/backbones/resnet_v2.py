"""ResNet-v2: normalisation and ReLU before each convolution (He et al. 2016b, arXiv 1603.05027).

ResNet-50, 101 and 152 v2 follow `keras.applications.resnet_v2` layer for layer: the stride is in the *last* block of a
stage, whose shortcut takes every second pixel; the stem's convolution, the last one of a block and the shortcut's have
a bias; batch normalisation has epsilon 1.001e-5 and momentum .99. The CIFAR networks follow the paper: three stages of
n basic blocks, stride in the first, shortcuts without weights. Weights start as in He et al. 2015, fan-in.

Stages before the last are sums, which no normalisation or ReLU has seen yet; the last one is normalised and activated.

Shapes: B batch, H W image, C channels.
"""

from layers import residual
from layers.backbones.building import choose_stem, image_input, scale_filters, stages_model
from layers.backbones.resnet import CIFAR_FILTERS, IMAGENET_FILTERS, KERAS_APPLICATIONS, PAPER, stem_pooling

# He et al. 2016a, table 1: number of blocks in conv2_x ... conv5_x.
IMAGENET = {"resnet50_v2": (3, 4, 6, 3), "resnet101_v2": (3, 4, 23, 3), "resnet152_v2": (3, 8, 36, 3)}

# Table 3 has 110 layers; the other depths are those of the first paper. n blocks a stage; 6n + 2 layers.
CIFAR = {"preact_resnet20": 3, "preact_resnet32": 5, "preact_resnet44": 7, "preact_resnet56": 9, "preact_resnet110": 18}


def imagenet_resnet_v2(variant, input_shape=None, *, inputs=None, normalization="batch", stem="auto", width=1.0):
    """An ImageNet ResNet-v2 without its head.

    Args:
        variant: a key of `IMAGENET`.
        input_shape, inputs, normalization, stem, width: as in `layers.backbones.resnet.imagenet_resnet`.

    Returns:
        keras.Model from images to {"C1", "C2", "C3", "C4", "C5"}, Ci of stride 2^i. With the small stem there is no C1,
        and C2 ... C5 have strides 1, 2, 4, 8. They have 256, 512, 1024 and 2048 channels times width.

    Raises:
        ValueError: as `imagenet_resnet`.
    """
    images = image_input(input_shape, inputs)
    size, strides = (7, 2) if choose_stem(stem, images) == "large" else (3, 1)
    x = residual.convolution(images, scale_filters(IMAGENET_FILTERS[0], width), size, strides=strides, use_bias=True,
                             name="conv1")
    stages = {}
    if strides > 1:
        stages["C1"] = x
        x = stem_pooling(x)
    for stage, (filters, depth) in enumerate(zip(IMAGENET_FILTERS, IMAGENET[variant], strict=True), 2):
        for i in range(depth):
            is_last = i == depth - 1
            if is_last:
                stages[f"C{stage}"] = x  # the last tensor of this stride
            x = residual.preactivation_bottleneck(
                x, scale_filters(filters, width), strides=2 if is_last and stage < 5 else 1, use_bias=True,
                normalization=normalization, **KERAS_APPLICATIONS, name=f"conv{stage}_block{i + 1}")
    stages["C5"] = residual.normalize_relu(x, kind=normalization, **KERAS_APPLICATIONS, name="post")
    return stages_model(images, stages, variant)


def cifar_preact_resnet(variant, input_shape=None, *, inputs=None, normalization="batch", width=1.0):
    """A CIFAR ResNet with pre-activation, without its head.

    Args:
        variant: a key of `CIFAR`.
        input_shape, inputs, normalization, width: as in `layers.backbones.resnet.cifar_resnet`.

    Returns:
        keras.Model from images to {"C2", "C3", "C4"} of strides 1, 2, 4 and 16, 32, 64 channels times width.

    Raises:
        ValueError: as `imagenet_resnet`.
    """
    images = image_input(input_shape, inputs)
    x = residual.convolution(images, scale_filters(CIFAR_FILTERS[0], width), 3, name="conv1")
    stages = {}
    for stage, filters in enumerate(CIFAR_FILTERS, 2):
        for i in range(CIFAR[variant]):
            # Appendix: the very first block activates before it splits into branch and shortcut.
            x = residual.preactivation_basic(
                x, scale_filters(filters, width), strides=2 if stage > 2 and i == 0 else 1, shortcut="pad",
                activate_shortcut=True if stage == 2 and i == 0 else None, normalization=normalization, **PAPER,
                name=f"conv{stage}_block{i + 1}")
        stages[f"C{stage}"] = x
    stages["C4"] = residual.normalize_relu(x, kind=normalization, **PAPER, name="post")
    return stages_model(images, stages, variant)


def resnet50_v2(input_shape=None, **options):
    """ResNet-50-v2: 25.61 M parameters with 1000 classes. Arguments as `imagenet_resnet_v2`."""
    return imagenet_resnet_v2("resnet50_v2", input_shape, **options)


def resnet101_v2(input_shape=None, **options):
    """ResNet-101-v2: 44.68 M parameters with 1000 classes. Arguments as `imagenet_resnet_v2`."""
    return imagenet_resnet_v2("resnet101_v2", input_shape, **options)


def resnet152_v2(input_shape=None, **options):
    """ResNet-152-v2: 60.38 M parameters with 1000 classes. Arguments as `imagenet_resnet_v2`."""
    return imagenet_resnet_v2("resnet152_v2", input_shape, **options)


def preact_resnet20(input_shape=None, **options):
    """CIFAR ResNet-20 with pre-activation, 0.27 M parameters. Arguments as `cifar_preact_resnet`."""
    return cifar_preact_resnet("preact_resnet20", input_shape, **options)


def preact_resnet32(input_shape=None, **options):
    """CIFAR ResNet-32 with pre-activation, 0.46 M parameters. Arguments as `cifar_preact_resnet`."""
    return cifar_preact_resnet("preact_resnet32", input_shape, **options)


def preact_resnet44(input_shape=None, **options):
    """CIFAR ResNet-44 with pre-activation, 0.66 M parameters. Arguments as `cifar_preact_resnet`."""
    return cifar_preact_resnet("preact_resnet44", input_shape, **options)


def preact_resnet56(input_shape=None, **options):
    """CIFAR ResNet-56 with pre-activation, 0.85 M parameters. Arguments as `cifar_preact_resnet`."""
    return cifar_preact_resnet("preact_resnet56", input_shape, **options)


def preact_resnet110(input_shape=None, **options):
    """CIFAR ResNet-110 with pre-activation, 1.7 M parameters. Arguments as `cifar_preact_resnet`."""
    return cifar_preact_resnet("preact_resnet110", input_shape, **options)


BACKBONES = {"resnet50_v2": resnet50_v2, "resnet101_v2": resnet101_v2, "resnet152_v2": resnet152_v2,
             "preact_resnet20": preact_resnet20, "preact_resnet32": preact_resnet32,
             "preact_resnet44": preact_resnet44, "preact_resnet56": preact_resnet56,
             "preact_resnet110": preact_resnet110}
