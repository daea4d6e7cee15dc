"""Quantisation-aware training for any layer and model: forward passes see 8-bit weights and activations.

Jacob et al. 2018 (arXiv 1712.05877), section 3: q = clip(round(r / scale) + zero), and training computes with the value
that q stands for, the gradient going straight through within the range. Here

- weights are symmetric, from -127 to 127, with a scale for each output channel, as LiteRT's kernels have it;
- activations are asymmetric, from -128 to 127, one scale a tensor, with moving minimum and maximum (decay .99);
- attention scores have a floor, as they have in the int8 file (see `layers.attention`);
- what the converter fuses into one operator has one range, at its end: nothing is rounded between a convolution, the
  batch normalisation behind it and its ReLU; a concatenation, which cannot requantise, has the range of its inputs.

tensorflow_model_optimization does the same by wrapping layers, for those that it knows. Hooks (see `hooks`) need to
know a layer only where its weights are not grouped by their last axis.

The model that is exported is the plain one, its weights on their 8-bit grid; the converter finds the ranges of the
activations from the samples on which `calibrate` set them, so that file and training agree.
"""

import collections

import tensorflow as tf
import tf_keras as keras
from tf_keras.src.engine import base_layer_utils
from tf_keras.src.engine.functional import Functional

from layers.attention import SCORE_FLOOR, set_score_floor
from layers.regularization import StatelessDropout
from strategies import graph
from strategies.compression import hooks

DECAY = 0.99  # of the moving ranges
LARGEST_CODE = 127
_CALIBRATION_BATCH = 32

_LINEAR = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D,
           keras.layers.DepthwiseConv2D, keras.layers.Conv2DTranspose, keras.layers.SeparableConv2D,
           keras.layers.EinsumDense)
_FUSES_RELU = (*_LINEAR, keras.layers.BatchNormalization, keras.layers.Add, keras.layers.Subtract,
               keras.layers.Multiply)
# LiteRT moves or chooses their input's codes without requantising them.
_PASSING = (keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.GlobalMaxPooling2D,
            keras.layers.AveragePooling2D, keras.layers.Flatten, keras.layers.Reshape, keras.layers.Permute,
            keras.layers.Dropout, StatelessDropout, keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D,
            keras.layers.Cropping1D, keras.layers.Cropping2D, keras.layers.UpSampling2D, keras.layers.RepeatVector,
            keras.layers.Embedding, keras.layers.Masking, keras.layers.InputLayer)


class Quantization:
    """Quantisation-aware training with 8 bits: `prepare`, `fit`, `finish`.

    Args:
        representative: inputs in the model's structure, [N, ...] each: the first ranges of the activations.
        preserve_sparsity: weights that are 0 at the start stay 0. (0 is on every grid; but training could leave it.)
        in_steps: whether recurrent layers go into files as one step of their cells. Then an LSTM's kernels have a scale
            for each column; LiteRT's own LSTM has one for each gate.

    Raises:
        ValueError: no representative samples.
    """

    def __init__(self, representative, *, preserve_sparsity=True, in_steps=False):
        if representative is None or not len(tf.nest.flatten(representative)[0]):
            raise ValueError("Quantisation-aware training needs representative samples for the first ranges of the "
                             "activations; received none. Some hundred typical inputs suffice.")
        self.representative = representative
        self.preserve_sparsity, self.in_steps = preserve_sparsity, in_steps

    def prepare(self, model):
        """Puts fake quantisation around the weights and outputs of all layers.

        Args:
            model: built `keras.Model`, float32 or mixed precision.

        Returns:
            the model.

        Raises:
            ValueError: a weight that cannot be replaced (see `hooks.weight_slots`).
        """
        slots, plan, first = {}, plan_ranges(model), input_layers(model)
        for slot in hooks.weight_slots(model):
            slots.setdefault(id(slot.caller), []).append(slot)
        ranges = {}
        for layer in hooks.leaf_layers(model):
            group, observes = plan.get(id(layer), (None, False))
            if id(layer) not in slots and group is None and id(layer) not in first:
                continue
            hook = FakeQuantization(layer, slots.get(id(layer), ()), self.preserve_sparsity, self.in_steps)
            if group is not None:
                if group not in ranges:
                    ranges[group] = Range(hook, "output")
                hook.set_output_range(ranges[group], observes)
            if id(layer) in first:
                hook.set_input_range(Range(hook, "input"))
            hooks.install(layer, hook)
        set_score_floor(model, SCORE_FLOOR)
        hooks.forget_traces(model)
        calibrate(model, self.representative)
        return model

    def finish(self, model):
        """Writes the 8-bit values into the weights and takes the fake quantisation away.

        Returns:
            the model, plain again. The converter finds the ranges anew: give it the representative samples.
        """
        set_score_floor(model, None)
        return hooks.bake(model)


def calibrate(model, representative):
    """Sets the ranges of all activations to the smallest and largest value that occur on samples, as the TFLite
    converter does. The samples go through the model without fake quantisation of activations, but with that of weights.

    Args:
        model: what `Quantization.prepare` returned.
        representative: inputs in the model's structure, [N, ...] each.
    """
    found = [hooks.hook_of(layer) for layer in hooks.hooked_layers(model)]
    ranges = {id(r): r for hook in found for r in hook.ranges}.values()
    for value in ranges:
        value.begin_calibration()
    arrays = tf.nest.map_structure(tf.convert_to_tensor, representative)
    count = len(tf.nest.flatten(arrays)[0])
    for start in range(0, count, _CALIBRATION_BATCH):
        model(tf.nest.map_structure(lambda a: a[start:start + _CALIBRATION_BATCH], arrays), training=False)  # noqa: B023
    for value in ranges:
        value.end_calibration()


class Range:
    """Smallest and largest value of a tensor: two variables of the hook that owns it, used by all that share it."""

    def __init__(self, hook, name):
        self._minimum = hook.state(f"{name}_minimum", 0.0, tf.float32, by_replica=True)
        self._maximum = hook.state(f"{name}_maximum", 0.0, tf.float32, by_replica=True)
        self._extremes = None

    def begin_calibration(self):
        self._extremes = (0.0, 0.0)  # zero must have a code: padding

    def end_calibration(self):
        low, high = self._extremes
        self._extremes = None
        self._minimum.assign(low)
        self._maximum.assign(max(high, low + 1e-6))

    @property
    def is_calibrating(self):
        return self._extremes is not None

    def observe(self, value):
        """Widens the range in calibration; moves it towards that of the batch in training."""
        low, high = (tf.cast(f(value), tf.float32) for f in (tf.reduce_min, tf.reduce_max))
        if self.is_calibrating:
            self._extremes = min(float(low), self._extremes[0]), max(float(high), self._extremes[1])
            return
        for variable, extreme in ((self._minimum, tf.minimum(low, 0.0)), (self._maximum, tf.maximum(high, 1e-6))):
            variable.assign(DECAY * variable + (1 - DECAY) * extreme)

    def fake_quantize(self, value):
        """`value` on the grid of 256 codes between the extremes."""
        if self.is_calibrating:
            return value
        precise = tf.cast(value, tf.float32)
        return tf.cast(tf.quantization.fake_quant_with_min_max_vars(precise, self._minimum, self._maximum), value.dtype)


class FakeQuantization(hooks.Hook):
    """Fake quantisation of one layer's weights, output, and input where that is the model's."""

    def __init__(self, caller, slots, preserve_sparsity, in_steps):
        super().__init__(caller, slots)
        self._in_steps = in_steps
        self._output_range, self._observes, self._input_range = None, False, None
        if preserve_sparsity:
            self.mask_zeros()

    def set_output_range(self, output_range, observes):
        """`observes`: whether this output moves the range."""
        self._output_range, self._observes = output_range, observes

    def set_input_range(self, input_range):
        self._input_range = input_range

    @property
    def ranges(self):
        """The `Range`s that this hook uses."""
        return [r for r in (self._output_range, self._input_range) if r is not None]

    def weight(self, slot, value):
        masked = self.masked(slot, value)
        return hooks.straight_through(masked, quantize_weight(masked, *scales_of(slot, self._in_steps)))

    def inputs(self, value):
        return value if self._input_range is None else _through(self._input_range, value, True)

    def output(self, value):
        return value if self._output_range is None else _through(self._output_range, value, self._observes)


def _through(value_range, value, observes):
    """Fake-quantises the (first) tensor of a layer's output; a recurrent layer's states are its own business."""
    first, *rest = tf.nest.flatten(value)
    if not first.dtype.is_floating:
        return value
    if observes and (value_range.is_calibrating or _is_training()):
        value_range.observe(first)
    return tf.nest.pack_sequence_as(value, [value_range.fake_quantize(first), *rest])


def _is_training():
    training = base_layer_utils.call_context().training
    return bool(keras.backend.learning_phase() if training is None else training)


def quantize_weight(weights, axes, gates=1):
    """Symmetric 8-bit values of weights: codes -127 ... 127 times a scale, the largest |w| of a group over 127.

    Args:
        weights: float tensor.
        axes: axes along which each index is a group of its own.
        gates: parts of the last axis that are groups; with axes ().

    Returns:
        tensor like weights.
    """
    shape = weights.shape
    if gates > 1:
        weights, axes = tf.reshape(weights, [-1, gates, shape[-1] // gates]), (1,)
    others = [axis for axis in range(weights.shape.rank) if axis not in axes]
    scale = tf.reduce_max(tf.abs(weights), axis=others, keepdims=True) / LARGEST_CODE
    scale = tf.where(scale > 0, scale, tf.ones_like(scale))
    return tf.reshape(tf.round(weights / scale) * scale, shape)


def scales_of(slot, in_steps=False):
    """How TFLite scales a weight: (axes along which each index has a scale of its own, number of gates that have one
    where their weights stand side by side in one variable, else 1). `in_steps`: as of `Quantization`."""
    rank = slot.variable.shape.rank
    if not slot.attribute.endswith("kernel"):
        return (), 1  # embeddings, and constants that are multiplied element by element
    if isinstance(slot.owner, keras.layers.LSTMCell) and not in_steps:
        return (), 4
    return (rank - 2, rank - 1) if slot.attribute.startswith("depthwise") else hooks.channel_axes(slot)[1], 1


def plan_ranges(model):
    """Which outputs are fake-quantised, and which of them share a range.

    Returns:
        {id(layer): (group, whether its output moves the group's range)}.
    """
    readers = graph.consumers(model)
    leaves = hooks.leaf_layers(model)
    # A layer that is called at several places, as an embedding that is the last layer too, gives outputs of different
    # ranges: the file has one for each, and one for all would be none's.
    calls = collections.Counter(id(node.layer) for part in graph.models_in(model) if isinstance(part, Functional)
                                for node in graph.nodes(part))
    shared = {key for key, count in calls.items() if count > 1}
    quantized = [layer for layer in leaves if id(layer) not in shared
                 and _has_range(layer, readers.get(id(layer), [None]), shared)]
    group_of = {id(layer): id(layer) for layer in quantized}
    concatenations = []
    for part in graph.models_in(model):
        for node in graph.nodes(part) if isinstance(part, Functional) else ():
            if isinstance(node.layer, keras.layers.Concatenate) and id(node.layer) in group_of:
                sources = [_origin(tensor) for tensor in node.keras_inputs]
                _unite(group_of, [node.layer, *(source for source in sources if id(source) in group_of)])
                concatenations.append((node.layer, sources))
    inner = {id(source) for _, sources in concatenations for source in sources}
    joined = {group_of[id(layer)] for layer, _ in concatenations}
    widest = {id(layer) for layer, _ in concatenations if id(layer) not in inner}
    return {id(layer): (group_of[id(layer)], group_of[id(layer)] not in joined or id(layer) in widest)
            for layer in quantized}


def input_layers(model):
    """Ids of the leaf layers that read an input of the model."""
    first = set()
    for node in graph.nodes(model) if isinstance(model, Functional) else ():
        if any(isinstance(tensor._keras_history.layer, keras.layers.InputLayer) for tensor in node.keras_inputs):
            leaves = hooks.leaf_layers(node.layer)
            first |= {id(leaf) for leaf in leaves[:1]}
    return first


def _has_range(layer, readers, shared):
    if isinstance(layer, _PASSING):
        return False
    if any(id(reader) in shared for reader in readers):
        return True  # what reads it has none
    if isinstance(layer, _LINEAR) and _is_linear(layer) and _all(readers, keras.layers.BatchNormalization):
        return False
    only = readers[0] if len(readers) == 1 else None
    return not (isinstance(layer, _FUSES_RELU) and _is_linear(layer) and _is_relu(only))


def _all(readers, kind):
    return bool(readers) and all(isinstance(reader, kind) for reader in readers)


def _is_linear(layer):
    return getattr(layer, "activation", keras.activations.linear) is keras.activations.linear


def _is_relu(layer):
    return isinstance(layer, keras.layers.ReLU) or (
        isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.relu)


def _origin(tensor):
    """The layer that computes a tensor, before any that only pass codes on."""
    layer, node, _ = tensor._keras_history
    while isinstance(layer, _PASSING) and not isinstance(layer, (keras.layers.InputLayer, keras.layers.Embedding)):
        tensor = layer._inbound_nodes[node].keras_inputs[0]
        layer, node, _ = tensor._keras_history
    return layer


def _unite(group_of, layers):
    groups = {group_of[id(layer)] for layer in layers}
    target = group_of[id(layers[0])]
    for key, group in group_of.items():
        if group in groups:
            group_of[key] = target
