"""The dense block of DenseNet: every layer sees the concatenation of all maps before it.

Huang et al. 2017 (arXiv 1608.06993), section 3. With k0 channels at the entry and growth rate k, layer l of a block
sees k0 + k (l - 1) channels and adds k. "B" is the 1x1 bottleneck of 4k channels before the 3x3 convolution, "C" the
compression theta < 1 of the transition between two blocks. The order is normalisation, ReLU, convolution throughout,
and convolutions have no bias.

Shapes: B batch, H W image, C channels.
"""

import tf_keras as keras

from layers.normalization import normalization as normalization_layer
from layers.regularization import StatelessDropout

BOTTLENECK_FACTOR = 4  # "we let each 1x1 convolution produce 4k feature-maps"


def dense_block(x, num_layers, growth_rate, *, use_bottleneck=True, normalization="batch", epsilon=1e-5, momentum=0.9,
                dropout=0.0, seed=0, name):
    """`num_layers` dense layers, each concatenated to its input.

    Args:
        x: [B, H, W, C].
        num_layers: number of dense layers.
        growth_rate: k, channels that each layer adds.
        use_bottleneck: whether a 1x1 convolution to 4k channels precedes each 3x3 convolution (DenseNet-B).
        normalization: a kind of `layers.normalization`.
        epsilon: added to the variance by the normalisation.
        momentum: of the moving statistics of batch normalisation.
        dropout: rate after each convolution (section 4.2: .2 on data without augmentation); 0 adds no layer.
        seed: of the dropout masks; each layer gets a different one.
        name: prefix of the layers' names.

    Returns:
        [B, H, W, C + num_layers * growth_rate].
    """
    for i in range(num_layers):
        x = dense_layer(x, growth_rate, use_bottleneck=use_bottleneck, normalization=normalization, epsilon=epsilon,
                        momentum=momentum, dropout=dropout, seed=seed + 2 * i, name=f"{name}_layer{i + 1}")
    return x


def dense_layer(x, growth_rate, *, use_bottleneck=True, normalization="batch", epsilon=1e-5, momentum=0.9, dropout=0.0,
                seed=0, name):
    """One composite function H of equation 2, concatenated to its input: [x, H(x)].

    H is norm ReLU 1x1(4k) norm ReLU 3x3(k) with the bottleneck, norm ReLU 3x3(k) without. Arguments as in
    `dense_block`; with a bottleneck dropout the seeds `seed` and `seed + 1` are used.

    Returns:
        [B, H, W, C + growth_rate].
    """
    options = {"kind": normalization, "epsilon": epsilon, "momentum": momentum}
    y = x
    if use_bottleneck:
        y = _normalize_relu(y, options, name=f"{name}_1")
        y = _convolution(y, BOTTLENECK_FACTOR * growth_rate, kernel_size=1, name=f"{name}_1")  # [B, H, W, 4k]
        y = _dropout(y, dropout, seed, name=f"{name}_1")
    y = _normalize_relu(y, options, name=f"{name}_2")
    y = _convolution(y, growth_rate, kernel_size=3, name=f"{name}_2")  # [B, H, W, k]
    y = _dropout(y, dropout, seed + 1, name=f"{name}_2")
    return keras.layers.Concatenate(name=f"{name}_concat")([x, y])


def transition(x, compression=0.5, *, normalization="batch", epsilon=1e-5, momentum=0.9, dropout=0.0, seed=0, name):
    """Between two blocks: norm, ReLU, 1x1 convolution to floor(theta C) channels, 2x2 average pooling.

    The pooling drops the last row or column of an odd map, as `keras.applications` does, but leaves a map that is one
    pixel high or wide at that size.

    Args:
        x: [B, H, W, C].
        compression: theta, 0 < theta <= 1; .5 in DenseNet-C, 1 in plain DenseNet.
        normalization, epsilon, momentum, dropout, seed, name: as in `dense_block`.

    Returns:
        [B, H // 2, W // 2, max(1, floor(theta C))].

    Raises:
        ValueError: compression outside ]0, 1].
    """
    if not 0 < compression <= 1:
        raise ValueError(f"compression must be above 0 and at most 1; received {compression!r}. Pass 0.5 for "
                         "DenseNet-C or 1 to keep all channels.")
    x = _normalize_relu(x, {"kind": normalization, "epsilon": epsilon, "momentum": momentum}, name=name)
    x = _convolution(x, max(1, int(x.shape[-1] * compression)), kernel_size=1, name=name)
    x = _dropout(x, dropout, seed, name=name)
    padding = "same" if 1 in x.shape[1:3] else "valid"
    return keras.layers.AveragePooling2D(2, strides=2, padding=padding, name=f"{name}_pool")(x)


def _normalize_relu(x, options, name):
    x = normalization_layer(**options, name=f"{name}_norm")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def _convolution(x, filters, kernel_size, name):
    return keras.layers.Conv2D(filters, kernel_size, padding="same", use_bias=False, kernel_initializer="he_normal",
                               name=f"{name}_conv")(x)


def _dropout(x, rate, seed, name):
    return StatelessDropout(rate, seed=seed, name=f"{name}_dropout")(x) if rate else x
