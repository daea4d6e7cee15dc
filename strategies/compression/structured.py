"""Structured pruning: filters and neurons are really removed, and a smaller dense model is left.

Li et al. 2017 (arXiv 1608.08710) for chains; what belongs together is found on the graph of the model, as in Fang et
al. 2023 (arXiv 2301.12900): a channel that two convolutions add up (residual sum) can only go from both, and with it go
its entry in every normalisation, its depthwise filter, its place in every concatenation and its input weights in every
layer that reads it.

    ranking  score of a channel                                                              source
    l1       sum of |w| of the filters that make it                                          Li et al. 2017
    scale    |gamma| of the batch normalisations that it goes through; channels without      Liu et al. 2017, 1708.06519
             one stay
    taylor   (sum of gradient * w over the filters that make it)^2, over batches of samples  Molchanov et al. 2019,
                                                                                             1906.10771, equation 8
"""

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tf_keras.src.engine.functional import Functional

from layers.checking import unknown_name
from layers.normalization import GroupNormalization
from layers.regularization import StatelessDropout
from strategies import graph
from strategies.compression import hooks
from strategies.copying import custom_layers

RANKINGS = ("l1", "scale", "taylor")

_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
_SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_ELEMENTWISE = (keras.layers.Add, keras.layers.Subtract, keras.layers.Multiply, keras.layers.Average,
                keras.layers.Maximum, keras.layers.Minimum)
# They do the same to each channel, whatever the others are.
_CHANNELWISE = (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU, keras.layers.Dropout, StatelessDropout,
                keras.layers.SpatialDropout2D, keras.layers.MaxPooling1D, keras.layers.MaxPooling2D,
                keras.layers.AveragePooling1D, keras.layers.AveragePooling2D, keras.layers.GlobalAveragePooling1D,
                keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling1D, keras.layers.GlobalMaxPooling2D,
                keras.layers.UpSampling1D, keras.layers.UpSampling2D, keras.layers.ZeroPadding1D,
                keras.layers.Cropping1D, keras.layers.Cropping2D)


class FilterPruning:
    """Removes the least important channels of a model: `prepare`, then train on.

    Args:
        share: part of the channels to remove from each set of channels that belong together, 0 <= share < 1.
        ranking: one of `RANKINGS`.
        minimum: channels that stay in any case.
        batches: for "taylor", iterable of (inputs, targets).
        loss: for "taylor", `loss(targets, outputs) -> scalar`.

    Raises:
        ValueError: a value out of its range, or "taylor" without batches and loss.
    """

    def __init__(self, *, share=0.3, ranking="l1", minimum=1, batches=None, loss=None):
        if not 0 <= share < 1:
            raise ValueError(f"share must be at least 0 and below 1; received {share!r}.")
        if ranking not in RANKINGS:
            raise unknown_name("ranking", ranking, RANKINGS)
        if minimum < 1:
            raise ValueError(f"minimum must be at least 1; received {minimum!r}.")
        if ranking == "taylor" and (batches is None or loss is None):
            raise ValueError('ranking="taylor" needs batches of (inputs, targets) and a loss; received none.')
        self.share, self.ranking, self.minimum, self.batches, self.loss = share, ranking, minimum, batches, loss

    def prepare(self, model):
        """A smaller model with the weights of the channels that stay.

        Args:
            model: functional `keras.Model`; models inside it keep their channels.

        Returns:
            functional `keras.Model`; `model` itself is unchanged.

        Raises:
            ValueError: not a functional model, or no channel that could go.
        """
        channels = Channels(model)
        scores = channels.scores(self.ranking, self.batches, self.loss)
        removed, ranked = [], [members for members in channels.prunable_sets() if set(members) <= set(scores)]
        if not ranked:
            raise ValueError(f"Model {model.name!r} has no channels that go through a batch normalisation, by whose "
                             'gamma ranking="scale" chooses. Use ranking="l1" or "taylor".')
        for members in ranked:
            count = min(round(self.share * len(members)), len(members) - self.minimum)
            removed += sorted(members, key=lambda root: (scores[root], root))[:max(0, count)]
        return channels.without(removed)

    def finish(self, model):
        """The model itself: nothing is left to do after training."""
        return model


class Channels:
    """Which channels of a functional model's tensors belong together.

    Every channel of every tensor has an id; ids that can only be removed together are united, and a root stands for
    them.

    Args:
        model: functional `keras.Model`.

    Raises:
        ValueError: the model is not functional, or no channel can be removed.
    """

    def __init__(self, model):
        if not isinstance(model, Functional) or not model.inputs:
            raise ValueError("Filters can be removed only from a functional model, whose graph of layers is known; "
                             f"received a {type(model).__name__}. Build it as keras.Model(inputs, outputs).")
        self._model = model
        self._parent, self._fixed = [], set()
        self._of_tensor = {}  # id(tensor) -> ids [C]
        self._calls = {}  # layer name -> (ids it reads, ids it makes), of its first call
        for node in graph.nodes(model):
            self._trace(node)
        for tensor in tf.nest.flatten(model.outputs):
            self._fix(self._of_tensor[id(tensor)])
        if not self.prunable_sets():
            raise ValueError(f"Model {model.name!r} has no channel that can be removed: each is an input, an "
                             "output, or goes through a layer that mixes or counts channels in a way of its own.")

    def root(self, channel):
        """The id that stands for all ids united with this one."""
        while self._parent[channel] != channel:
            self._parent[channel] = self._parent[self._parent[channel]]
            channel = self._parent[channel]
        return channel

    def prunable_sets(self):
        """Lists of roots: channels made by the same layers, of which some may be removed."""
        makers = {}
        for layer in self._makers():
            for channel in self._calls[layer.name][1]:
                makers.setdefault(self.root(channel), []).append(layer.name)
        fixed = {self.root(channel) for channel in self._fixed}
        sets = {}
        for root, names in makers.items():
            if root not in fixed:
                sets.setdefault(tuple(sorted(names)), []).append(root)
        return list(sets.values())

    def scores(self, ranking, batches=None, loss=None):
        """{root: importance}; see the module's table. By scale only of channels that are normalised in batches."""
        if ranking == "taylor":
            values = _taylor(self._model, self._makers(), batches, loss)
        elif ranking == "scale":
            norms = [layer for layer in self._model.layers if isinstance(layer, keras.layers.BatchNormalization)
                     and layer.scale and layer.name in self._calls]
            values = {layer.name: np.abs(layer.gamma.numpy()) for layer in norms}
        else:
            values = {layer.name: _by_filter(layer, np.abs(_kernel(layer).numpy())).sum(axis=0)
                      for layer in self._makers()}
        totals, counts = {}, {}
        for name, value in values.items():
            for channel, score in zip(self._calls[name][1], value):
                root = self.root(channel)
                totals[root] = totals.get(root, 0.0) + float(score)
                counts[root] = counts.get(root, 0) + 1
        return {root: total / counts[root] for root, total in totals.items()}

    def without(self, roots):
        """The model without the channels that these roots stand for."""
        roots = set(roots)
        config = self._model.get_config()
        kept = {name: tuple(np.array([self.root(c) not in roots for c in ids], bool) for ids in pair)
                for name, pair in self._calls.items()}
        for entry in config["layers"]:
            entry["build_config"] = None  # holds the old shapes
            if entry["config"]["name"] in kept:
                _resize(entry, *kept[entry["config"]["name"]])
        smaller = keras.Model.from_config(config, custom_objects=custom_layers(self._model))
        for layer in smaller.layers:
            old = self._model.get_layer(layer.name)
            weights = old.get_weights()
            layer.set_weights(_slice(old, weights, *kept[layer.name]) if layer.name in kept else weights)
        return smaller

    def _makers(self):
        return [layer for layer in self._model.layers
                if isinstance(layer, (*_CONVOLUTIONS, *hooks.TRANSPOSED, *_SEPARABLE, keras.layers.Dense))
                and not isinstance(layer, _DEPTHWISE) and layer.name in self._calls]

    def _trace(self, node):
        layer = node.layer
        sources = [self._of_tensor[id(tensor)] for tensor in node.keras_inputs]
        outputs = tf.nest.flatten(node.outputs)
        made = self._made_by(layer, sources, node) if len(outputs) == 1 and sources else None
        if made is None:
            for ids in sources:
                self._fix(ids)
            for tensor in outputs:
                self._of_tensor[id(tensor)] = self._fresh(tensor.shape[-1] or 0)
                self._fix(self._of_tensor[id(tensor)])
            return
        if layer.name in self._calls:  # called again, with the same weights: all its calls agree
            for before, now in zip(self._calls[layer.name], (sources[0], made)):
                self._unite(before, now)
        else:
            self._calls[layer.name] = (sources[0], made)
        self._of_tensor[id(outputs[0])] = made

    def _made_by(self, layer, sources, node):
        """Ids of the channels of a layer's output, or None for a layer of which nothing is known."""
        first = sources[0]
        size = tf.nest.flatten(node.outputs)[0].shape[-1]
        if getattr(layer, "data_format", "channels_last") == "channels_first":
            return self._padded(layer, first, size) if _pads_channels(layer) else None
        if isinstance(layer, _DEPTHWISE):
            return first if layer.depth_multiplier == 1 else None
        if isinstance(layer, (*_CONVOLUTIONS, *hooks.TRANSPOSED, *_SEPARABLE)):
            depthwise_ok = not isinstance(layer, _SEPARABLE) or layer.depth_multiplier == 1
            return self._fresh(size) if layer.groups == 1 and depthwise_ok else None
        if isinstance(layer, keras.layers.Dense):
            return self._fresh(size) if layer.activation is not keras.activations.softmax else None
        if isinstance(layer, keras.layers.BatchNormalization):
            return first if list(layer.axis) == [node.keras_inputs[0].shape.rank - 1] else None
        if isinstance(layer, GroupNormalization):  # with groups between, groups would have to go as a whole
            return first if layer.groups in (1, "channels") else None
        if isinstance(layer, keras.layers.Activation):
            return first if layer.activation is not keras.activations.softmax else None
        if isinstance(layer, (*_CHANNELWISE, keras.layers.ZeroPadding2D)):
            return first
        if isinstance(layer, _ELEMENTWISE):
            if any(len(ids) != len(first) for ids in sources):
                return None
            for ids in sources[1:]:
                self._unite(first, ids)
            return first
        if isinstance(layer, keras.layers.Concatenate):
            rank = node.keras_inputs[0].shape.rank
            return np.concatenate(sources) if layer.axis in (-1, rank - 1) else None
        if isinstance(layer, keras.layers.Flatten) and size is not None:
            return np.tile(first, size // len(first))
        return None

    def _padded(self, layer, ids, size):
        return np.concatenate([ids, self._fresh(size - len(ids))])

    def _fresh(self, count):
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return np.arange(first, first + count)

    def _fix(self, ids):
        self._fixed.update(int(channel) for channel in ids)

    def _unite(self, first, second):
        for a, b in zip(first, second):
            a, b = self.root(a), self.root(b)
            self._parent[max(a, b)] = min(a, b)


def _pads_channels(layer):
    """Whether a layer appends zero channels: see `layers.residual.pad_channels`."""
    return isinstance(layer, keras.layers.ZeroPadding2D) and tuple(layer.padding[0]) == (0, 0) \
        and layer.padding[1][0] == 0


def _kernel(layer):
    return layer.pointwise_kernel if isinstance(layer, _SEPARABLE) else layer.kernel


def _by_filter(layer, kernel):
    """[weights of a filter, filters]."""
    if isinstance(layer, hooks.TRANSPOSED):  # [..., filters, inputs]
        kernel = np.moveaxis(kernel, -2, -1)
    return kernel.reshape(-1, kernel.shape[-1])


def _taylor(model, layers, batches, loss):
    """{layer name: [filters]}: squared sum of gradient times weight."""
    kernels = [_kernel(layer) for layer in layers]
    sums = [0.0] * len(kernels)
    for inputs, targets in batches:
        with tf.GradientTape() as tape:
            value = loss(targets, model(inputs, training=False))
        for i, (layer, gradient) in enumerate(zip(layers, tape.gradient(value, kernels))):
            sums[i] = sums[i] + _by_filter(layer, gradient.numpy() * kernels[i].numpy()).sum(axis=0) ** 2
    return {layer.name: value for layer, value in zip(layers, sums)}


def _resize(entry, kept_inputs, kept_outputs):
    """Writes the new number of channels into a layer's configuration."""
    config, count = entry["config"], int(kept_outputs.sum())
    if entry["class_name"] == "ZeroPadding2D" and config.get("data_format") == "channels_first":
        (rows, _) = config["padding"]
        config["padding"] = (rows, (0, count - int(kept_inputs.sum())))
    elif "filters" in config:
        config["filters"] = count
    elif "units" in config:
        config["units"] = count


def _slice(layer, weights, kept_inputs, kept_outputs):
    """The weights of the channels that stay."""
    if isinstance(layer, _SEPARABLE):
        depthwise, pointwise, *bias = weights
        return [depthwise[..., kept_inputs, :], pointwise[..., kept_inputs, :][..., kept_outputs],
                *(b[kept_outputs] for b in bias)]
    if isinstance(layer, _DEPTHWISE):
        kernel, *bias = weights
        return [kernel[..., kept_inputs, :], *(b[kept_outputs] for b in bias)]
    if isinstance(layer, hooks.TRANSPOSED):
        kernel, *bias = weights
        return [kernel[..., kept_outputs, :][..., kept_inputs], *(b[kept_outputs] for b in bias)]
    if isinstance(layer, (*_CONVOLUTIONS, keras.layers.Dense)):
        kernel, *bias = weights
        return [kernel[..., kept_inputs, :][..., kept_outputs], *(b[kept_outputs] for b in bias)]
    if isinstance(layer, (keras.layers.BatchNormalization, GroupNormalization)):
        return [w[kept_outputs] for w in weights]
    return weights
