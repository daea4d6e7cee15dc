"""Normalisation as one argument: batch, layer, instance or group.

They differ only in what the mean and the variance are taken over. For an image tensor [B, H, W, C]:

    batch     (B, H, W) per channel          Ioffe & Szegedy 2015
    layer     (H, W, C) per sample           Ba et al. 2016
    instance  (H, W) per sample and channel  Ulyanov et al. 2016
    group     (H, W, C/G) per sample and group of neighbouring channels  Wu & He 2018, equations 1, 2 and 7

The last three are one layer with G = 1, C, or in between; each has a scale and an offset per channel. `group` takes the
largest G up to 32 that divides C, which in a network of at most 32 channels is `instance`; `group:8` takes 8.
"""

import tensorflow as tf
import tf_keras as keras

from layers.checking import unknown_name
from layers.naming import NamedOnLoading

NORMALIZATIONS = ("batch", "layer", "instance", "group")
DEFAULT_NUM_GROUPS = 32  # Wu & He 2018, table 3: best of 64 ... 1 groups on ResNet-50.
_GROUPS = {"layer": 1, "instance": "channels", "group": "auto", **{f"group:{count}": count for count in (2, 4, 8, 16)}}
KINDS = ("batch", *_GROUPS)


def normalization(kind, *, name, epsilon=1e-5, momentum=0.9):
    """The normalisation layer of that kind.

    Args:
        kind: one of `KINDS`: `NORMALIZATIONS`, or `group:G` for that many groups.
        name: name of the layer.
        epsilon: added to the variance.
        momentum: of the moving statistics of batch normalisation (new = momentum * old + (1 - momentum) * batch);
            the other kinds keep none.

    Returns:
        A `keras.layers.Layer`, [B, ..., C] -> [B, ..., C].

    Raises:
        ValueError: unknown kind.
    """
    if kind not in KINDS:
        raise unknown_name("normalization", kind, KINDS)
    if kind == "batch":
        return keras.layers.BatchNormalization(epsilon=epsilon, momentum=momentum, name=name)
    return GroupNormalization(_GROUPS[kind], epsilon=epsilon, name=name)


@keras.utils.register_keras_serializable("usagi")
class GroupNormalization(NamedOnLoading, keras.layers.Layer):
    """Normalises each sample over its positions and a group of neighbouring channels (Wu & He 2018).

    y = gamma * (x - mean) / sqrt(variance + epsilon) + beta, gamma and beta per channel. Mean and (biased) variance
    are computed in float32, or in float64 when the layer computes in float64. Tensors inside have rank 4 at most and
    the operators are plain arithmetic, so that the TFLite converter writes built-in operators only.

    With one channel a group and a single position (an instance norm on a 1x1 map) the input is its own mean and the
    output is beta, whatever the input: choose another kind where maps shrink to one pixel.

    Args:
        groups: number of groups, a divisor of C; "channels" for one group a channel (instance normalisation);
            "auto" for the largest divisor of C that is not above 32.
        epsilon: added to the variance.

    Call arguments:
        inputs: [B, ..., C], floating point.

    Returns:
        [B, ..., C], of the layer's compute dtype.

    Raises:
        ValueError: `groups` is neither a positive integer nor one of the two words, does not divide C, or C is unknown.
    """

    def __init__(self, groups="auto", *, epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        is_count = isinstance(groups, int) and not isinstance(groups, bool) and groups > 0
        if groups not in ("auto", "channels") and not is_count:
            raise ValueError(f'groups must be a positive integer, "channels" or "auto"; received {groups!r}. Pass 1 '
                             'for layer normalisation, "channels" for instance normalisation.')
        self.groups = groups
        self.epsilon = float(epsilon)
        self.supports_masking = True

    def build(self, input_shape):
        channels = input_shape[-1]
        if channels is None:
            raise ValueError(f"GroupNormalization needs a known number of channels; received shape {input_shape}. "
                             "Give the last axis of the input a size.")
        if self._num_groups(channels) > channels or channels % self._num_groups(channels):
            raise ValueError(f"groups={self.groups} must divide the number of channels; received {channels} channels. "
                             'Pass a divisor, or "auto" for the largest one that is not above 32.')
        # No autocast: scale and offset are applied in the precision of the statistics.
        options = {"shape": [channels], "experimental_autocast": False}
        self.gamma = self.add_weight(name="gamma", initializer="ones", **options)
        self.beta = self.add_weight(name="beta", initializer="zeros", **options)
        super().build(input_shape)

    def call(self, inputs):
        precise = tf.float64 if inputs.dtype == tf.float64 else tf.float32
        x = tf.cast(inputs, precise)
        grouped = tf.reshape(x, _grouped_shape(x, self._num_groups(x.shape[-1])))  # [B, positions, G, C/G]
        mean, variance = tf.nn.moments(grouped, axes=[1, 3], keepdims=True)  # [B, 1, G, 1]
        normalized = (grouped - mean) * tf.math.rsqrt(variance + self.epsilon)
        normalized = tf.reshape(normalized, _known_shape(x))  # [B, ..., C]
        outputs = normalized * tf.cast(self.gamma, precise) + tf.cast(self.beta, precise)
        return tf.cast(outputs, inputs.dtype)

    def _num_groups(self, channels):
        if self.groups == "channels":
            return channels
        if self.groups == "auto":
            return largest_divisor(channels, DEFAULT_NUM_GROUPS)
        return self.groups

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "groups": self.groups, "epsilon": self.epsilon}


def largest_divisor(number, limit):
    """The largest divisor of `number` that is not above `limit`; both positive."""
    return max(d for d in range(1, min(number, limit) + 1) if number % d == 0)


def _grouped_shape(x, groups):
    """[B, positions, G, C/G], static wherever it is known: the converter needs constants."""
    channels = x.shape[-1]
    positions = x.shape[1:-1].num_elements()
    if positions is None:
        return [tf.shape(x)[0], -1, groups, channels // groups]
    return [-1, positions, groups, channels // groups]


def _known_shape(x):
    """Shape to return to: constants where only the batch size is unknown."""
    inner = x.shape[1:].as_list()
    return tf.shape(x) if None in inner else [-1, *inner]
