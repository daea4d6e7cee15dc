"""The network of AlphaGo Zero with its two heads (Silver et al. 2017, Methods, "Neural network architecture").

`build` gives an ordinary Keras model to train. `Evaluator` computes the same for a search, with batch normalisation
folded and 3x3 convolutions after Winograd, from variables that `update` fills: a compiled search goes on using it while
the network learns. Both go through `_forward`, which says what the network is.

After the paper: global pooling, ownership and score (Wu 2019, arXiv 1902.10565), each an option.
"""

import dataclasses
import functools
import re

import numpy as np
import tensorflow as tf
import tf_keras as keras

from apps.alphago import winograd
from apps.alphago.go import features
from strategies.export import litert

_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class Structure:
    """What a network is made of.

    Attributes:
        size: N, points a side.
        num_actions: A.
        planes: C of the input [B, N, N, C].
        blocks: residual blocks after the first convolution.
        filters: of every convolution of the tower.
        pooling_every: each so manieth block sees the mean and the largest value over the board; 0: none does.
        hidden: units of the value head.
        heads: one of `HEADS`.
        ownership: whether there is a head for whose each point will be.
        score: whether there is a head for the margin.
    """

    size: int = 9
    num_actions: int = 82
    planes: int = 17
    blocks: int = 6
    filters: int = 64
    pooling_every: int = 0
    hidden: int = 256
    heads: str = "dense"
    ownership: bool = False
    score: bool = False


# "dense", the paper's: policy and value from two channels and one, each point with weights of its own. "pooled" (after
# Wu 2019): a logit for each point by a 1x1 convolution, the pass and the value from what is pooled over the board.
HEADS = ("pooled", "dense")
_LAST = ("policy_dense", "policy_points", "policy_pass", "value_dense", "ownership_dense", "score_dense")
# blocks, filters. The last two are the paper's; it counts the first convolution as a block.
PRESETS = {"zero_3x32": (3, 32), "zero_4x48": (4, 48), "zero_6x64": (6, 64), "zero_10x128": (10, 128),
           "zero_19x256": (19, 256), "zero_39x256": (39, 256)}


def build(structure):
    """`keras.Model` from planes [B, N, N, C] to a dictionary, all of it for the side to move.

    "policy" has logits [B, A], "value" [B, 1] lies between -1 and 1; where wanted there is "ownership" [B, N, N, 1],
    between -1 and 1, and "score" [B, 1].
    """
    inputs = keras.Input([structure.size, structure.size, structure.planes], name="planes")
    outputs = _forward(structure, inputs, _Layers())
    # 16-bit arithmetic ends here: losses are computed in float32.
    outputs = {name: keras.layers.Activation("linear", dtype="float32", name=name)(value)
               for name, value in outputs.items()}
    return keras.Model(inputs, outputs, name="zero")


def _forward(structure, x, ops):
    """Outputs of the network, made by the methods of `_Layers` or of `_Folded`."""
    x = ops.convolve(x, "stem", structure.filters, 3, True)
    for block in range(1, structure.blocks + 1):
        name = f"block_{block}"
        pooled = structure.pooling_every and block % structure.pooling_every == 0
        y = ops.convolve(x, f"{name}_1", structure.filters, 3, not pooled)
        if pooled:
            seen = ops.convolve(x, f"{name}_seen", structure.filters // 2, 1, True)
            y = ops.add_relu(y, ops.dense(ops.mean_and_largest(seen), f"{name}_dense", structure.filters))
        x = ops.add_relu(x, ops.convolve(y, f"{name}_2", structure.filters, 3, False))
    if structure.heads == "pooled":
        policy = ops.convolve(x, "policy", structure.filters // 2, 1, True)
        logits = [ops.flat(ops.dense(policy, "policy_points", 1))]
        if structure.num_actions > structure.size**2:
            logits.append(ops.dense(ops.mean_and_largest(policy), "policy_pass", structure.num_actions
                                    - structure.size**2))
        logits = ops.concatenate(logits)
        value = ops.mean_and_largest(ops.convolve(x, "value", structure.filters // 2, 1, True))
    else:
        logits = ops.dense(ops.flat(ops.convolve(x, "policy", 2, 1, True)), "policy_dense", structure.num_actions)
        value = ops.flat(ops.convolve(x, "value", 1, 1, True))
    hidden = ops.dense(value, "value_hidden", structure.hidden, "relu")
    outputs = {"policy": logits, "value": ops.dense(hidden, "value_dense", 1, "tanh")}
    if structure.ownership:
        outputs["ownership"] = ops.dense(x, "ownership_dense", 1, "tanh")
    if structure.score:
        outputs["score"] = ops.dense(hidden, "score_dense", 1)
    return outputs


class _Layers:
    """The network in Keras layers."""

    @staticmethod
    def convolve(x, name, filters, size, relu):
        """Convolution and normalisation, and ReLU where wanted."""
        x = keras.layers.Conv2D(filters, size, padding="same", use_bias=False, kernel_initializer="he_normal",
                                name=f"{name}_conv")(x)
        # 100 steps in, the first games are not to be played with statistics of the beginning. A batch has thousands of
        # points: few batches say enough.
        x = keras.layers.BatchNormalization(momentum=0.9, epsilon=_EPSILON, name=f"{name}_norm")(x)
        return keras.layers.ReLU(name=f"{name}_relu")(x) if relu else x

    @staticmethod
    def dense(x, name, units, activation=None):
        # All moves equal and nobody ahead: before normalisation has seen anything, values would be near -1 and 1, and
        # a network that learns its own search's values stays there.
        start = "zeros" if name in _LAST else "glorot_uniform"
        return keras.layers.Dense(units, activation, kernel_initializer=start, name=name)(x)

    @staticmethod
    def add_relu(x, y):
        """ReLU of x [B, N, N, C] and y, which may be [B, C]."""
        if len(y.shape) == 2:
            y = keras.layers.Reshape([1, 1, y.shape[1]])(y)
        return keras.layers.ReLU()(keras.layers.Add()([x, y]))

    @staticmethod
    def flat(x):
        return keras.layers.Flatten()(x)

    @staticmethod
    def concatenate(parts):
        return keras.layers.Concatenate()(parts) if len(parts) > 1 else parts[0]

    @staticmethod
    def mean_and_largest(x):
        """[B, 2 C] of [B, N, N, C]."""
        pooled = keras.layers.GlobalAveragePooling2D()(x), keras.layers.GlobalMaxPooling2D()(x)
        return keras.layers.Concatenate()(pooled)


def structure_of(model):
    """`Structure` of a model that `build` made, also of one that was read from a file.

    Raises:
        ValueError: it is another model.
    """
    layers = {layer.name: layer for layer in model.layers}
    if not {"stem_conv", "policy_conv", "value_dense"} <= set(layers):
        raise ValueError(f"{model.name!r} is no network of AlphaGo Zero: expected layers stem_conv and policy_conv, "
                         f"received {', '.join(list(layers)[:4])}, ….")
    size, planes = layers["planes"].input_shape[0][1], layers["planes"].input_shape[0][3]
    blocks = max(int(found[1]) for name in layers if (found := re.fullmatch(r"block_(\d+)_1_conv", name)))
    pooled = sorted(int(found[1]) for name in layers if (found := re.fullmatch(r"block_(\d+)_seen_conv", name)))
    return Structure(size=size, num_actions=layers["policy"].output_shape[-1], planes=planes, blocks=blocks,
                     filters=layers["stem_conv"].filters, pooling_every=pooled[0] if pooled else 0,
                     hidden=layers["value_hidden"].units,
                     heads="dense" if "policy_dense" in layers else "pooled", ownership="ownership_dense" in layers,
                     score="score_dense" in layers)


class Evaluator(tf.Module):
    """A network for searches: called with planes [B, N, N, C], it gives (logits [B, A], value [B]).

    Args:
        model: from `build`.
        use_winograd: whether 3x3 convolutions are computed so.
        symmetric: whether each position is seen under one of the eight symmetries of the board, which one being drawn
            by its stones.
    """

    def __init__(self, model, *, use_winograd=True, symmetric=False):
        super().__init__(name="evaluator")
        self._structure, self._winograd, self._symmetric = structure_of(model), use_winograd, symmetric
        self._weights = {name: [tf.Variable(value, trainable=False) for value in values]
                         for name, values in self._folded(model).items()}

    def update(self, model):
        """Takes over the weights of a model of the same structure."""
        for name, values in self._folded(model).items():
            for variable, value in zip(self._weights[name], values):
                variable.assign(value)

    def __call__(self, planes):
        return self.bound(self._weights)(planes)

    @property
    def planes(self):
        """C."""
        return self._structure.planes

    @property
    def values(self):
        """{name: tensors [kernel, bias]}, what the variables hold now."""
        return tf.nest.map_structure(tf.convert_to_tensor, self._weights)

    def bound(self, values):
        """The same network with other weights, `values` of an evaluator of the same structure, as a function."""
        network = _Folded(self._structure, values, self._winograd)
        return functools.partial(seen_under_symmetries, self._structure.size, network) if self._symmetric else network

    def _folded(self, model):
        """{name: float32 arrays [kernel, bias]}, batch normalisation folded into both."""
        found = {}
        for layer in model.layers:
            if isinstance(layer, keras.layers.Conv2D):
                name = layer.name.removesuffix("_conv")
                norm = model.get_layer(f"{name}_norm")
                gamma, beta, mean, variance = (weight.numpy().astype(np.float64) for weight in (
                    norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance))
                scale = gamma / np.sqrt(variance + _EPSILON)
                kernel = layer.kernel.numpy().astype(np.float64) * scale
                if layer.kernel_size == (3, 3) and self._winograd:
                    kernel = winograd.transform_kernel(kernel)
                found[name] = [kernel.astype(np.float32), (beta - mean * scale).astype(np.float32)]
            elif isinstance(layer, keras.layers.Dense):
                found[layer.name] = [layer.kernel.numpy().astype(np.float32), layer.bias.numpy().astype(np.float32)]
        return found


def seen_under_symmetries(size, network, planes, number=1):
    """What a network says of planes [B, N, N, C] that it sees under `number` symmetries of the board, in the mean.

    Which ones is drawn by a position's stones, so that the same position is always seen alike.

    Args:
        size: N.
        network: planes [K, N, N, C] -> (logits [K, A], value [K]).
        planes: float32.
        number: 1, 2, 4 or 8 (all).

    Returns:
        (logits [B, A], value [B]).
    """
    # Whole numbers, so that every way to add them up gives the same.
    numbers = np.random.default_rng(0).integers(0, 1024, [size, size, 2]).astype(np.float32)
    first = tf.cast(tf.reduce_sum(planes[..., :2] * numbers, axis=[1, 2, 3]), tf.int32)
    steps = tf.range(0, features.NUM_SYMMETRIES, features.NUM_SYMMETRIES // number)
    symmetry = tf.reshape((first + steps[:, None]) % features.NUM_SYMMETRIES, [-1])
    logits, value = network(features.transform_planes(size, tf.tile(planes, [number, 1, 1, 1]), symmetry))
    source = tf.gather(features.inverse_symmetries(size)[:, :logits.shape[1]], symmetry)
    logits = tf.gather(logits, source, batch_dims=1)
    if number == 1:
        return logits, value
    return (tf.reduce_mean(tf.reshape(logits, [number, -1, logits.shape[1]]), axis=0),
            tf.reduce_mean(tf.reshape(value, [number, -1]), axis=0))


class _Folded:
    """A network computed from folded weights."""

    def __init__(self, structure, weights, use_winograd):
        self._structure, self._weights, self._winograd = structure, weights, use_winograd

    def __call__(self, planes):
        outputs = _forward(self._structure, planes, self)
        return outputs["policy"], outputs["value"][:, 0]

    def convolve(self, x, name, filters, size, relu):
        """As of `_Layers`."""
        kernel, bias = self._weights[name]
        if size == 1:
            x = x @ kernel[0, 0]
        elif self._winograd:
            x = winograd.convolve(x, kernel)
        else:
            x = tf.nn.conv2d(x, kernel, 1, "SAME")
        return tf.nn.relu(x + bias) if relu else x + bias

    def dense(self, x, name, units, activation=None):
        """As of `_Layers`."""
        kernel, bias = self._weights[name]
        return {None: tf.identity, "relu": tf.nn.relu, "tanh": tf.tanh}[activation](x @ kernel + bias)

    @staticmethod
    def add_relu(x, y):
        """As of `_Layers`."""
        return tf.nn.relu(x + (y[:, None, None] if len(y.shape) == 2 else y))

    @staticmethod
    def flat(x):
        """As of `_Layers`."""
        return tf.reshape(x, [-1, np.prod(x.shape[1:])])

    @staticmethod
    def concatenate(parts):
        """As of `_Layers`."""
        return tf.concat(parts, axis=-1)

    @staticmethod
    def mean_and_largest(x):
        """As of `_Layers`."""
        return tf.concat([tf.reduce_mean(x, axis=[1, 2]), tf.reduce_max(x, axis=[1, 2])], axis=-1)


def lite_network(path, num_threads=1):
    """A TFLite file of a network as a function in NumPy.

    Returns:
        (planes [K, N, N, C] -> (logits [K, A], value [K]) with the attribute `planes`, C; N).

    Raises:
        ValueError: it is no such file.
    """
    runner = litert.Runner(path, num_threads)
    shapes = list(runner.input_shapes.values())
    if not {"policy", "value"} <= set(runner.output_names) or len(shapes) != 1 or len(shapes[0]) != 3:
        raise ValueError(f"{path} is no network for Go: expected planes and the outputs policy and value, received "
                         f"inputs of shape {shapes} and {', '.join(runner.output_names)}.")

    def network(planes):
        outputs = runner.named(np.asarray(planes))
        return outputs["policy"], outputs["value"][:, 0]

    network.planes = shapes[0][2]
    return network, shapes[0][0]
