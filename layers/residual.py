"""Residual blocks: y = shortcut(x) + branch(x).

    block                     branch                                     after the sum  source
    basic                     conv norm ReLU conv norm                   ReLU           [1] figure 5 left
    bottleneck                1x1 norm ReLU conv norm ReLU 1x1 norm      ReLU           [1] figure 5 right
    preactivation_basic       norm ReLU conv norm ReLU conv              -              [2] figure 4e
    preactivation_bottleneck  norm ReLU 1x1 norm ReLU conv norm ReLU 1x1 -              [2] figure 4e
    wide                      norm ReLU conv norm ReLU dropout conv      -              [3] figure 1d
    pyramid_basic             norm conv norm ReLU conv norm              -              [4] figure 6d
    pyramid_bottleneck        norm 1x1 norm ReLU conv norm ReLU 1x1 norm -              [4] figure 6d

[1] He et al. 2016a, arXiv 1512.03385. [2] He et al. 2016b, arXiv 1603.05027. [3] Zagoruyko & Komodakis 2016, arXiv
1605.07146. [4] Han et al. 2017, arXiv 1610.02915. "conv" is 3x3. Where the shape changes the shortcut is a 1x1
convolution ("projection", option B of [1]) or has no weights: every second pixel ("pad", option A) or averages of 2x2
pixels ("pool"), with zeros for the new channels.

A strided 3x3 convolution is padded by one pixel on every side, as in the papers: output i is centred on input 2i, the
pixel that the shortcut takes ("same" padding would centre it on 2i + 1). Sizes are rounded up: H -> ceil(H / strides).

Common arguments of the blocks:
    x: [B, H, W, C].
    filters: channels F of the 3x3 convolutions.
    strides: 1 or 2.
    normalization, epsilon, momentum: see `layers.normalization`.
    name: prefix of the layers' names.
"""

import tf_keras as keras

from layers import convolution_gradient
from layers.checking import unknown_name
from layers.normalization import normalization as normalization_layer
from layers.regularization import StatelessDropout

SHORTCUTS = ("projection", "pad", "pool")
EXPANSION = 4  # channels out of a bottleneck / channels of its 3x3 convolution

convolution_gradient.install()  # projections are strided 1x1 convolutions


def basic(x, filters, *, strides=1, shortcut="projection", use_bias=False, normalization="batch", epsilon=1e-5,
          momentum=0.9, name):
    """Two 3x3 convolutions; returns [B, ceil(H / strides), ceil(W / strides), F]. `use_bias`: of all convolutions."""
    options = {"kind": normalization, "epsilon": epsilon, "momentum": momentum}
    identity = _normalized_shortcut(x, filters, strides, shortcut, use_bias, options, name)
    y = convolution(x, filters, 3, strides=strides, use_bias=use_bias, name=f"{name}_1")
    y = normalize_relu(y, **options, name=f"{name}_1")
    y = convolution(y, filters, 3, use_bias=use_bias, name=f"{name}_2")
    y = normalize(y, **options, name=f"{name}_2")
    return keras.layers.ReLU(name=f"{name}_out")(keras.layers.Add(name=f"{name}_add")([identity, y]))


def bottleneck(x, filters, *, strides=1, shortcut="projection", use_bias=False, normalization="batch", epsilon=1e-5,
               momentum=0.9, name):
    """1x1 with the stride, 3x3, 1x1; returns [B, ceil(H / strides), ceil(W / strides), 4 F]. `use_bias` as `basic`."""
    options = {"kind": normalization, "epsilon": epsilon, "momentum": momentum}
    identity = _normalized_shortcut(x, EXPANSION * filters, strides, shortcut, use_bias, options, name)
    y = convolution(x, filters, 1, strides=strides, use_bias=use_bias, name=f"{name}_1")
    y = normalize_relu(y, **options, name=f"{name}_1")
    y = convolution(y, filters, 3, use_bias=use_bias, name=f"{name}_2")
    y = normalize_relu(y, **options, name=f"{name}_2")
    y = convolution(y, EXPANSION * filters, 1, use_bias=use_bias, name=f"{name}_3")
    y = normalize(y, **options, name=f"{name}_3")
    return keras.layers.ReLU(name=f"{name}_out")(keras.layers.Add(name=f"{name}_add")([identity, y]))


def preactivation_basic(x, filters, *, strides=1, shortcut="projection", activate_shortcut=None, dropout=0.0, seed=0,
                        normalization="batch", epsilon=1e-5, momentum=0.9, name):
    """Normalisation and ReLU before each of two 3x3 convolutions, and nothing on the sum.

    Args:
        activate_shortcut: whether the shortcut starts after the first normalisation and ReLU instead of at x. None:
            where channels change, as in the authors' program. The appendix asks for it in a network's first block too.
        dropout: rate of dropout between the convolutions; 0 adds no layer.
        seed: of the dropout masks; give each block another.

    Returns:
        [B, ceil(H / strides), ceil(W / strides), F].
    """
    options = {"kind": normalization, "epsilon": epsilon, "momentum": momentum}
    preactivated = normalize_relu(x, **options, name=f"{name}_preact")
    start = preactivated if _starts_activated(activate_shortcut, x, filters) else x
    identity = shortcut_branch(start, filters, strides=strides, kind=shortcut, name=name)
    y = convolution(preactivated, filters, 3, strides=strides, name=f"{name}_1")
    y = normalize_relu(y, **options, name=f"{name}_1")
    if dropout:
        y = StatelessDropout(dropout, seed=seed, name=f"{name}_dropout")(y)
    y = convolution(y, filters, 3, name=f"{name}_2")
    return keras.layers.Add(name=f"{name}_add")([identity, y])


def preactivation_bottleneck(x, filters, *, strides=1, shortcut="projection", activate_shortcut=None, use_bias=False,
                             normalization="batch", epsilon=1e-5, momentum=0.9, name):
    """Normalisation and ReLU before 1x1, 3x3 (with the stride) and 1x1, and nothing on the sum.

    Args:
        activate_shortcut: as in `preactivation_basic`.
        use_bias: of the two convolutions that no normalisation follows: the last and the shortcut's.

    Returns:
        [B, ceil(H / strides), ceil(W / strides), 4 F].
    """
    options = {"kind": normalization, "epsilon": epsilon, "momentum": momentum}
    channels = EXPANSION * filters
    preactivated = normalize_relu(x, **options, name=f"{name}_preact")
    start = preactivated if _starts_activated(activate_shortcut, x, channels) else x
    identity = shortcut_branch(start, channels, strides=strides, kind=shortcut, use_bias=use_bias, name=name)
    y = convolution(preactivated, filters, 1, name=f"{name}_1")
    y = normalize_relu(y, **options, name=f"{name}_1")
    y = convolution(y, filters, 3, strides=strides, name=f"{name}_2")
    y = normalize_relu(y, **options, name=f"{name}_2")
    y = convolution(y, channels, 1, use_bias=use_bias, name=f"{name}_3")
    return keras.layers.Add(name=f"{name}_add")([identity, y])


def wide(x, filters, *, strides=1, dropout=0.0, seed=0, normalization="batch", epsilon=1e-5, momentum=0.9, name):
    """The block of wide residual networks: pre-activation basic with dropout between the convolutions.

    Returns:
        [B, ceil(H / strides), ceil(W / strides), F].
    """
    return preactivation_basic(x, filters, strides=strides, dropout=dropout, seed=seed, normalization=normalization,
                               epsilon=epsilon, momentum=momentum, name=name)


def pyramid_basic(x, filters, *, strides=1, shortcut="pool", normalization="batch", epsilon=1e-5, momentum=0.9, name):
    """No ReLU before the first convolution, normalisation after the last; returns [B, ceil(H / s), ceil(W / s), F]."""
    options = {"kind": normalization, "epsilon": epsilon, "momentum": momentum}
    identity = shortcut_branch(x, filters, strides=strides, kind=shortcut, name=name)
    y = normalize(x, **options, name=f"{name}_pre")
    y = convolution(y, filters, 3, strides=strides, name=f"{name}_1")
    y = normalize_relu(y, **options, name=f"{name}_1")
    y = convolution(y, filters, 3, name=f"{name}_2")
    y = normalize(y, **options, name=f"{name}_2")
    return keras.layers.Add(name=f"{name}_add")([identity, y])


def pyramid_bottleneck(x, filters, *, strides=1, shortcut="pool", normalization="batch", epsilon=1e-5, momentum=0.9,
                       name):
    """As `pyramid_basic` with 1x1, 3x3 (with the stride), 1x1; returns [B, ceil(H / s), ceil(W / s), 4 F]."""
    options = {"kind": normalization, "epsilon": epsilon, "momentum": momentum}
    channels = EXPANSION * filters
    identity = shortcut_branch(x, channels, strides=strides, kind=shortcut, name=name)
    y = normalize(x, **options, name=f"{name}_pre")
    y = convolution(y, filters, 1, name=f"{name}_1")
    y = normalize_relu(y, **options, name=f"{name}_1")
    y = convolution(y, filters, 3, strides=strides, name=f"{name}_2")
    y = normalize_relu(y, **options, name=f"{name}_2")
    y = convolution(y, channels, 1, name=f"{name}_3")
    y = normalize(y, **options, name=f"{name}_3")
    return keras.layers.Add(name=f"{name}_add")([identity, y])


def shortcut_branch(x, channels, *, strides, kind, use_bias=False, name):
    """[B, H, W, C] -> [B, ceil(H / strides), ceil(W / strides), channels] of that kind; x itself where nothing changes.

    A projection that keeps the channels would have nothing to project: every second pixel is taken instead.

    Raises:
        ValueError: unknown kind, or fewer channels than x has without a projection.
    """
    if kind not in SHORTCUTS:
        raise unknown_name("shortcut", kind, SHORTCUTS)
    if kind == "projection" and channels != x.shape[-1]:
        return convolution(x, channels, 1, strides=strides, use_bias=use_bias, name=f"{name}_0")
    if strides > 1 and kind == "pool":
        x = keras.layers.AveragePooling2D(strides, padding="same", name=f"{name}_0_pool")(x)
    elif strides > 1:
        x = keras.layers.MaxPooling2D(1, strides=strides, name=f"{name}_0_subsample")(x)  # the maximum of one pixel
    return pad_channels(x, channels, name=f"{name}_0_channels")


def pad_channels(x, channels, *, name):
    """[B, H, W, C] -> [B, H, W, channels], zeros behind the channels of x.

    Raises:
        ValueError: x has more channels already.
    """
    missing = channels - x.shape[-1]
    if missing < 0:
        raise ValueError(f"A shortcut without weights cannot go from {x.shape[-1]} to {channels} channels (at "
                         f'{name!r}). Use shortcut="projection".')
    if missing == 0:
        return x
    # "channels_first" makes this stock layer pad the last two axes, and here the last one is the channels.
    return keras.layers.ZeroPadding2D(((0, 0), (0, missing)), data_format="channels_first", name=name)(x)


def convolution(x, filters, kernel_size, *, strides=1, use_bias=False, name):
    """Convolution with a pixel outside the image for each side of a kernel's centre; He et al. 2015 weights (fan-in).

    Args:
        x: [B, H, W, C].
        kernel_size: odd.
        name: prefix; layers are `{name}_conv` and, for the padding of a strided one, `{name}_pad`.

    Returns:
        [B, ceil(H / strides), ceil(W / strides), filters].
    """
    padding = "same"  # the same as what is described, without a layer, when the stride is 1
    if strides > 1 and kernel_size > 1:
        x, padding = keras.layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x), "valid"
    return keras.layers.Conv2D(filters, kernel_size, strides=strides, padding=padding, use_bias=use_bias,
                               kernel_initializer="he_normal", name=f"{name}_conv")(x)


def normalize(x, *, kind, epsilon, momentum, name):
    """Normalisation layer `{name}_norm` on a tensor of any rank."""
    return normalization_layer(kind, epsilon=epsilon, momentum=momentum, name=f"{name}_norm")(x)


def normalize_relu(x, *, kind, epsilon, momentum, name):
    """Normalisation `{name}_norm`, then ReLU `{name}_relu`."""
    x = normalize(x, kind=kind, epsilon=epsilon, momentum=momentum, name=name)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def _normalized_shortcut(x, channels, strides, kind, use_bias, options, name):
    """As `shortcut_branch`, with a normalisation after a projection, which is there whenever the shape changes."""
    if kind != "projection" or (strides == 1 and channels == x.shape[-1]):
        return shortcut_branch(x, channels, strides=strides, kind=kind, name=name)
    y = convolution(x, channels, 1, strides=strides, use_bias=use_bias, name=f"{name}_0")
    return normalize(y, **options, name=f"{name}_0")


def _starts_activated(activate_shortcut, x, channels):
    return x.shape[-1] != channels if activate_shortcut is None else activate_shortcut
