"""Depthwise separable convolution (MobileNetV1) and the inverted residual with a linear bottleneck (MobileNetV2).

A K x K convolution from C to M channels over H x W positions costs H W K^2 C M multiply-adds. Split into a depthwise
(one K x K filter a channel) and a pointwise convolution (1x1, mixes channels), one after the other, it costs
H W C K^2 + H W C M, that is 1/M + 1/K^2 of it. Howard et al. 2017 (arXiv 1704.04861), section 3.1.

Shapes: B batch, H W image, C channels in, M channels out, t expansion, s stride.
"""

import tf_keras as keras

from layers.normalization import normalization as normalization_layer

KERNEL_SIZE = 3


def relu6(x, *, name):
    """min(max(x, 0), 6): bounded, so that a fixed-point activation keeps its resolution. Any shape."""
    return keras.layers.ReLU(6.0, name=name)(x)


def depthwise_separable(x, filters, *, strides=1, padding="same", normalization="batch", epsilon=1e-5, momentum=0.9,
                        name):
    """3x3 depthwise, norm, ReLU6, 1x1 pointwise, norm, ReLU6 (Howard et al. 2017, figure 3; ReLU6 as they trained it).

    Args:
        x: [B, H, W, C].
        filters: M.
        strides: s, of the depthwise convolution.
        padding: "same", or "end" for one row below and one column to the right where s = 2, as MobileNetV1 of
            `keras.applications` has it. They differ on odd maps only: "end" gives floor(H / 2), but never 0.
        normalization: a kind of `layers.normalization`.
        epsilon: added to the variance by the normalisation.
        momentum: of the moving statistics of batch normalisation.
        name: prefix of the layers' names.

    Returns:
        [B, ceil(H / s), ceil(W / s), M].

    Raises:
        ValueError: unknown padding.
    """
    options = {"kind": normalization, "epsilon": epsilon, "momentum": momentum}
    x = _depthwise(x, strides, padding, options, name=f"{name}_depthwise")
    x = _pointwise(x, filters, options, name=f"{name}_pointwise")  # [B, H/s, W/s, M]
    return relu6(x, name=f"{name}_pointwise_relu")


def inverted_residual(x, filters, *, expansion=6, strides=1, normalization="batch", epsilon=1e-5, momentum=0.9, name):
    """1x1 to t C channels, 3x3 depthwise, 1x1 to M channels without activation, plus the input where shapes agree.

    The shortcut joins the thin ends, hence "inverted"; the last convolution is linear, since a ReLU on few channels
    loses information. Sandler et al. 2018 (arXiv 1801.04381), table 1 and figure 4.

    Args:
        x: [B, H, W, C].
        filters: M.
        expansion: t; 1 leaves the expanding convolution out (the first block of MobileNetV2).
        strides: s. The shortcut is there when s = 1 and M = C.
        normalization, epsilon, momentum, name: as in `depthwise_separable`.

    Returns:
        [B, ceil(H / s), ceil(W / s), M].
    """
    options = {"kind": normalization, "epsilon": epsilon, "momentum": momentum}
    channels = x.shape[-1]
    y = x
    if expansion != 1:
        y = _pointwise(y, expansion * channels, options, name=f"{name}_expand")  # [B, H, W, t C]
        y = relu6(y, name=f"{name}_expand_relu")
    y = _depthwise(y, strides, "same", options, name=f"{name}_depthwise")  # [B, H/s, W/s, t C]
    y = _pointwise(y, filters, options, name=f"{name}_project")  # [B, H/s, W/s, M]
    if strides == 1 and filters == channels:
        y = keras.layers.Add(name=f"{name}_add")([x, y])
    return y


def _depthwise(x, strides, padding, options, name):
    if tuple(x.shape[1:3]) == (1, 1):
        # No stride moves on a map of one point, and with one above 1 the kernel of TensorFlow 2.21 for bfloat16 on
        # processors with AVX-512 leaves the gradient of some taps unwritten: whatever lay in memory, NaN at times.
        strides = 1
    x, padding = _pad(x, strides, padding, name=f"{name}_pad")
    # Each output sees K^2 inputs, not the K^2 C that Keras' own scaling counts: it would start too small to survive
    # the epsilon of the normalisation behind it.
    initializer = keras.initializers.TruncatedNormal(stddev=(2 / KERNEL_SIZE**2) ** 0.5)
    x = keras.layers.DepthwiseConv2D(KERNEL_SIZE, strides=strides, padding=padding, use_bias=False,
                                     depthwise_initializer=initializer, name=f"{name}_conv")(x)
    x = normalization_layer(**options, name=f"{name}_norm")(x)
    return relu6(x, name=f"{name}_relu")


def _pointwise(x, filters, options, name):
    x = keras.layers.Conv2D(filters, 1, padding="same", use_bias=False, kernel_initializer="he_normal",
                            name=f"{name}_conv")(x)
    return normalization_layer(**options, name=f"{name}_norm")(x)


def _pad(x, strides, padding, name):
    """(x, padding of the convolution). On even maps "end" is what "same" does, without a pass over memory."""
    if padding not in ("same", "end"):
        raise ValueError(f'padding must be "same" or "end"; received {padding!r}.')
    sizes = x.shape[1:3]
    is_odd = any(size is not None and size % 2 for size in sizes)
    if padding == "same" or strides == 1 or not is_odd or 1 in sizes:
        return x, "same"
    return keras.layers.ZeroPadding2D(((0, 1), (0, 1)), name=name)(x), "valid"
