"""DenseNet (Huang et al. 2017, arXiv 1608.06993): ImageNet forms of table 1, CIFAR forms of section 3 and table 2.

    stage   ImageNet forms             stride: large stem, small stem   CIFAR forms            stride
    C1      7x7 convolution, norm, ReLU        2           -            3x3 convolution        -
    C2      3x3 max pool, dense block 1        4           1            dense block 1          1
    C3      transition, dense block 2          8           2            transition, block 2    2
    C4      transition, dense block 3         16           4            transition, block 3    4
    C5      transition, dense block 4         32           8

The small stem of the ImageNet forms is a 3x3 convolution without pooling. The last stage is given after the final
normalisation and ReLU; C2 to the one before are the concatenated maps as they leave their block, before the
normalisation of the transition.
"""

import functools

import tf_keras as keras

from layers.backbones.building import choose_stem, image_input, scale_filters, stages_model
from layers.checking import unknown_name
from layers.dense_block import dense_block, transition
from layers.normalization import normalization as normalization_layer

# Table 1: dense layers of the four blocks; k = 32, k0 = 2k, bottlenecks, theta = 0.5.
IMAGENET_BLOCKS = {
    "densenet121": (6, 12, 24, 16),
    "densenet169": (6, 12, 32, 32),
    "densenet201": (6, 12, 48, 32),
}
IMAGENET_GROWTH_RATE = 32

# Table 2: depth L, growth rate k, whether bottleneck and compression (BC). densenet_bc_40_12 is not in the table: the
# same rule at L = 40, for small budgets.
CIFAR_FORMS = {
    "densenet_40_12": (40, 12, False),
    "densenet_100_12": (100, 12, False),
    "densenet_bc_40_12": (40, 12, True),
    "densenet_bc_100_12": (100, 12, True),
    "densenet_bc_190_40": (190, 40, True),
    "densenet_bc_250_24": (250, 24, True),
}


def densenet121(input_shape=None, **options):
    """DenseNet-121: 8,062,504 parameters with a head of 1000 classes. Options as in `densenet_imagenet`."""
    return densenet_imagenet("densenet121", input_shape, **options)


def densenet169(input_shape=None, **options):
    """DenseNet-169: 14,307,880 parameters with a head of 1000 classes. Options as in `densenet_imagenet`."""
    return densenet_imagenet("densenet169", input_shape, **options)


def densenet201(input_shape=None, **options):
    """DenseNet-201: 20,242,984 parameters with a head of 1000 classes. Options as in `densenet_imagenet`."""
    return densenet_imagenet("densenet201", input_shape, **options)


def densenet_imagenet(variant, input_shape=None, *, inputs=None, normalization="batch", stem="auto", width=1.0,
                      dropout=0.0, seed=0):
    """A form of table 1, layer for layer as `keras.applications` builds it when the stem is large.

    Args:
        variant: a key of `IMAGENET_BLOCKS`.
        input_shape: (H, W, C) of scaled images; H and W may be None.
        inputs: instead of `input_shape`, a Keras tensor [B, H, W, C].
        normalization: a kind of `layers.normalization`. With the large stem epsilon is 1.001e-5 and the momentum .99,
            as in `keras.applications`; with the small one the defaults of `layers.normalization`.
        stem: "large" (stride 4), "small" (3x3 convolution, stride 1), or "auto": small up to 64 pixels.
        width: multiplies the growth rate and the stem's filters.
        dropout: rate after each convolution except the stem's; the paper uses none on ImageNet.
        seed: of the dropout masks.

    Returns:
        A `keras.Model` from [B, H, W, C] to {"C1": ..., "C5": ...}; without C1 if the stem is small.

    Raises:
        ValueError: variant, input, stem, width or normalization are not as above.
    """
    if variant not in IMAGENET_BLOCKS:
        raise unknown_name("DenseNet variant", variant, IMAGENET_BLOCKS)
    images = image_input(input_shape, inputs)
    stem = choose_stem(stem, images)
    normalize = {"normalization": normalization}
    if stem == "large":
        normalize.update(epsilon=1.001e-5, momentum=0.99)
    growth_rate = scale_filters(IMAGENET_GROWTH_RATE, width)
    stages = {}
    x = _imagenet_stem(images, scale_filters(2 * IMAGENET_GROWTH_RATE, width), stem, stages, normalize)
    stages |= _dense_stages(x, IMAGENET_BLOCKS[variant], growth_rate, use_bottleneck=True, compression=0.5,
                            normalize=normalize, dropout=dropout, seed=seed)
    return stages_model(images, stages, name=variant)


def densenet_cifar(depth, growth_rate, use_bc=True, input_shape=None, *, inputs=None, normalization="batch", width=1.0,
                   dropout=0.0, seed=0):
    """The form for images of about 32 x 32: three dense blocks of equal length, no pooling in the stem.

    Args:
        depth: L = 3n + 4 without, 6n + 4 with bottlenecks, n dense layers a block.
        growth_rate: k.
        use_bc: whether with bottlenecks, compression 0.5 and k0 = 2k (DenseNet-BC); otherwise k0 = 16.
        input_shape, inputs, normalization, width, dropout, seed: as in `densenet_imagenet`. The paper's dropout is 0.2
            on data without augmentation.

    Returns:
        A `keras.Model` from [B, H, W, C] to {"C2": ..., "C3": ..., "C4": ...}.

    Raises:
        ValueError: depth does not fit the formula, or an argument is not as above.
    """
    step = 6 if use_bc else 3
    num_layers, rest = divmod(depth - 4, step)
    if rest or num_layers < 1:
        raise ValueError(f"depth of {'DenseNet-BC' if use_bc else 'DenseNet'} must be {step}n + 4 with n >= 1; "
                         f"received {depth}. Pass {step * max(num_layers, 1) + 4}, for example.")
    images = image_input(input_shape, inputs)
    first_filters = scale_filters(2 * growth_rate if use_bc else 16, width)
    x = keras.layers.Conv2D(first_filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal",
                            name="stem_conv")(images)
    stages = _dense_stages(x, (num_layers,) * 3, scale_filters(growth_rate, width), use_bottleneck=use_bc,
                           compression=0.5 if use_bc else 1.0, normalize={"normalization": normalization},
                           dropout=dropout, seed=seed)
    return stages_model(images, stages, name=f"densenet_{'bc_' if use_bc else ''}{depth}_{growth_rate}")


def _imagenet_stem(images, filters, stem, stages, normalize):
    """Adds C1 to `stages` if the stem is large; returns its end, of stride 4 or 1."""
    if stem == "small":
        x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal",
                                name="stem_conv")(images)
        return _normalize_relu(x, normalize, name="stem")
    x = keras.layers.ZeroPadding2D(3, name="stem_pad")(images)
    x = keras.layers.Conv2D(filters, 7, strides=2, use_bias=False, kernel_initializer="he_normal",
                            name="stem_conv")(x)
    stages["C1"] = x = _normalize_relu(x, normalize, name="stem")
    x = keras.layers.ZeroPadding2D(1, name="stem_pool_pad")(x)  # zeros are neutral behind a ReLU
    return keras.layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)


def _dense_stages(x, blocks, growth_rate, *, use_bottleneck, compression, normalize, dropout, seed):
    """Dense blocks with a transition between each two: {"C2": ..., ...}, the last normalised."""
    stages = {}
    for stage, num_layers in enumerate(blocks, start=2):
        if stage > 2:
            x = transition(x, compression, **normalize, dropout=dropout, seed=seed, name=f"stage{stage}_transition")
            seed += 1
        x = dense_block(x, num_layers, growth_rate, use_bottleneck=use_bottleneck, **normalize, dropout=dropout,
                        seed=seed, name=f"stage{stage}")
        seed += 2 * num_layers
        stages[f"C{stage}"] = x
    stages[f"C{stage}"] = _normalize_relu(x, normalize, name="final")
    return stages


def _normalize_relu(x, normalize, name):
    options = {key: value for key, value in normalize.items() if key != "normalization"}
    x = normalization_layer(normalize["normalization"], **options, name=f"{name}_norm")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


BACKBONES = {
    "densenet121": densenet121,
    "densenet169": densenet169,
    "densenet201": densenet201,
    **{name: functools.partial(densenet_cifar, *form) for name, form in CIFAR_FORMS.items()},
}
