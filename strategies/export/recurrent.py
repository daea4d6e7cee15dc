"""Recurrent networks on a phone: unrolled over a known number of steps, or one step at a time with the state outside.

The TFLite converter has an operator for Keras' LSTM only. A loop over any other cell becomes WHILE, whose body it does
not quantise to int8 (the process ends). So `unrolled` writes the steps one after another, and `step_model` makes a
model of a single step, for input that comes as a stream or is long:

    step = export.step_model(model)
    export.convert(step, "step.tflite", "int8", representative=export.step_samples(step, sequences))
    outputs = export.run_steps(export.Runner("step.tflite").named, sequences, step=step)
"""

import contextlib
import itertools
import unittest.mock

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tf_keras.src import backend
from tf_keras.src.engine.functional import Functional

from layers.recurrent import TreeLSTM
from layers.regularization import StatelessDropout
from strategies import graph
from strategies.copying import copy_model
from strategies.export.calls import calls_replaced
from strategies.export.saved_model import predict

_STATE = "state"
# Layers that read codes of any scale. A concatenation, on the other side, decides the scale of what it reads.
_READ_ANY_SCALE = (keras.layers.Dense, keras.layers.EinsumDense, keras.layers.RNN, keras.layers.LayerNormalization,
                   keras.layers.BatchNormalization, keras.layers.Add, keras.layers.Subtract, keras.layers.Multiply)
_AFTER_ONE = float(np.nextafter(np.float32(1), np.float32(2)))
# Layers that compute each time step from that step alone.
_BY_STEP = (keras.layers.Dense, keras.layers.Embedding, keras.layers.LayerNormalization,
            keras.layers.BatchNormalization, keras.layers.Activation, keras.layers.ReLU, keras.layers.LeakyReLU,
            keras.layers.PReLU, keras.layers.ELU, keras.layers.Dropout, StatelessDropout, keras.layers.SpatialDropout1D,
            keras.layers.GaussianNoise, keras.layers.Rescaling, keras.layers.TimeDistributed, keras.layers.Add,
            keras.layers.Subtract, keras.layers.Multiply, keras.layers.Average, keras.layers.Maximum,
            keras.layers.Concatenate)


@contextlib.contextmanager
def unrolled(model):
    """Context in which recurrent layers without a TFLite operator of their own, all but LSTM, are traced unrolled.

    `tf.split` gives slices there: the converter leaves a SPLIT of what the first, zero state gives in floating point.
    """
    layers = [layer for layer in model._flatten_layers()
              if isinstance(layer, (keras.layers.RNN, TreeLSTM)) and not isinstance(layer, keras.layers.LSTM)]
    before = [(layer, layer.unroll, getattr(layer, "_could_use_gpu_kernel", None)) for layer in layers]
    try:
        for layer, _, has_kernel in before:
            layer.unroll = True
            if has_kernel is not None:
                layer._could_use_gpu_kernel = False  # else GRU calls a function with a loop in it
        with contextlib.ExitStack() as stack:
            for module in (tf, tf.compat.v2) if layers else ():
                stack.enter_context(unittest.mock.patch.object(module, "split", _split(module.split)))
            yield
    finally:
        for layer, unroll, has_kernel in before:
            layer.unroll = unroll
            if has_kernel is not None:
                layer._could_use_gpu_kernel = has_kernel


@contextlib.contextmanager
def with_scales_of_their_own(model):
    """Context in which the output of an LSTM passes through an operator of its own where its reader decides its scale.

    LiteRT's int8 LSTM writes outputs in the codes of its state. A concatenation (`Bidirectional`, for one) wants all
    that it reads in the same codes: the converter then writes those into the file for the LSTM's output, and LiteRT,
    which computes with the state's, is off by the difference of the zero points. The product with the next number after
    1, which the converter does not know to be nothing, turns one kind of code into the other. The reversal in a
    `Bidirectional` of whatever layer, which only moves codes, needs one behind it too. Yields whether there are any.
    """
    readers, all_layers = graph.consumers(model), list(model._flatten_layers())
    layers = [layer for layer in all_layers if isinstance(layer, keras.layers.LSTM)
              and not all(isinstance(reader, _READ_ANY_SCALE) for reader in readers.get(id(layer), [None]))]
    with calls_replaced(layers, lambda layer: _with_product(layer.call)), \
            unittest.mock.patch.object(backend, "reverse", _with_product(backend.reverse)):
        yield bool(layers) or any(isinstance(layer, keras.layers.Bidirectional) for layer in all_layers)


def _with_product(call):
    """`call` whose (first) output is multiplied."""
    def multiplied(*args, **kwargs):
        outputs = call(*args, **kwargs)
        first, *states = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        first = first * tf.cast(_AFTER_ONE, first.dtype)
        return [first, *states] if states else first
    return multiplied


def _split(original):
    """`tf.split` by slices, where the sizes are known."""
    def split(value, num_or_size_splits, axis=0, num=None, name="split"):
        size = value.shape[axis] if value.shape.rank else None
        if size is None or isinstance(num_or_size_splits, tf.Tensor):
            return original(value, num_or_size_splits, axis, num, name)
        sizes = num_or_size_splits
        if isinstance(sizes, int):
            sizes = [size // sizes] * sizes
        rest = size - sum(part for part in sizes if part >= 0)
        sizes = [rest if part == -1 else part for part in sizes]
        if sum(sizes) != size or min(sizes) < 0:  # an error, which the original words
            return original(value, num_or_size_splits, axis, num, name)
        before = (slice(None),) * (axis % value.shape.rank)
        starts = np.cumsum([0, *sizes])
        return [value[(*before, slice(int(a), int(b)))] for a, b in itertools.pairwise(starts)]
    return split


def step_model(model):
    """A model of one time step of a recurrent model, with the states as inputs and outputs.

    Fed with the steps of a sequence in turn, zeros as first states, its last outputs are those of `model`. Padding is
    not fed: there are no masks.

    Args:
        model: functional `keras.Model` whose inputs are sequences, [B, T, ...] each.

    Returns:
        functional `keras.Model` with weights of its own: inputs {name: [B, 1, ...], <layer>_state_<i>: [B, units]},
        outputs {name: [B, ...] or [B, 1, ...], <layer>_state_<i>: [B, units]}. State outputs have the names of the
        inputs to which they go next.

    Raises:
        ValueError: no recurrent layer, or one that needs what is still to come (`Bidirectional`, `go_backwards`), or
            initial states from elsewhere, or a layer that mixes time steps.
    """
    if not isinstance(model, Functional):
        raise ValueError(f"A step can be taken out of a functional model only; received a {type(model).__name__}. "
                         "Build it as keras.Model(inputs, outputs).")
    model = copy_model(model)  # calls are recorded on layers
    inputs = [keras.Input((1, *tensor.shape[2:]), dtype=tensor.dtype, name=name)
              for tensor, name in zip(tf.nest.flatten(model.input), model.input_names)]
    steps = _Steps()
    outputs = steps.through(model, inputs, [True] * len(inputs))
    if not steps.states:
        raise ValueError(f"Model {model.name!r} has no recurrent layer: it has no steps to be taken one by one.")
    names = list(model.output) if isinstance(model.output, dict) else model.output_names
    return keras.Model({tensor.name: tensor for tensor in [*inputs, *steps.states.values()]},
                       dict(zip(names, outputs)) | steps.new_states, name=f"{model.name}_step")


def step_samples(step, sequences, count=200, seed=0):
    """Representative inputs for a step model: steps of sequences with the states that occur there.

    Those with the smallest and the largest value of each input are among them: a state beyond the codes is cut, and
    stays wrong in all steps that follow.

    Args:
        step: what `step_model` returned.
        sequences: array [N, T, ...] or {name: [N, T, ...]}.
        count: how many to choose, the others at random.

    Returns:
        {name: array [count or fewer, ...]}
    """
    seen = []
    run_steps(lambda inputs: seen.append(inputs) or predict(step, inputs), sequences, step=step)
    together = {name: np.concatenate([inputs[name] for inputs in seen]) for name in seen[0]}
    total = len(next(iter(together.values())))
    rows = [array.reshape(total, -1) for array in together.values()]
    extreme = [find(bound(row, axis=1)) for row in rows for find, bound in ((np.argmin, np.min), (np.argmax, np.max))]
    order = [*extreme, *np.random.default_rng(seed).permutation(total)]
    chosen = np.array(list(dict.fromkeys(order)))[:count]
    return {name: array[chosen] for name, array in together.items()}


def run_steps(run, sequences, *, step):
    """Runs a step model, or its file, over sequences.

    Args:
        run: {name: array [N, ...]} -> {name: array [N, ...]}, of a file its `Runner(path).named`.
        sequences: array [N, T, ...] or {name: [N, T, ...]}.
        step: what `step_model` returned: it knows the states.

    Returns:
        {name: [outputs of step 1, of step 2, ...]}, without the states.
    """
    states = {name: tensor for name, tensor in step.input.items() if name in step.output}
    if not isinstance(sequences, dict):
        sequences = {next(name for name in step.input if name not in states): sequences}
    count, length = next(iter(sequences.values())).shape[:2]
    state = {name: np.zeros((count, *tensor.shape[1:]), tensor.dtype.as_numpy_dtype)
             for name, tensor in states.items()}
    results = {name: [] for name in step.output if name not in states}
    for t in range(length):
        outputs = run({name: array[:, t:t + 1] for name, array in sequences.items()} | state)
        state = {name: outputs[name] for name in states}
        for name, values in results.items():
            values.append(outputs[name])
    return results


class _Steps:
    """Builds the graph of one step; gathers the states on the way."""

    def __init__(self):
        self.states, self.new_states = {}, {}

    def through(self, model, tensors, timed):
        """Outputs of a functional model for a step.

        Args:
            tensors: its inputs for one step.
            timed: of each, whether it has an axis of time (of length 1).
        """
        made = {id(old): new for old, new in zip(tf.nest.flatten(model.inputs), tensors)}
        has_time = {id(old): flag for old, flag in zip(tf.nest.flatten(model.inputs), timed)}
        for node in graph.nodes(model):
            if isinstance(node.layer, keras.layers.InputLayer):
                continue
            flags = [has_time[id(tensor)] for tensor in node.keras_inputs]
            values = [made[id(tensor)] for tensor in node.keras_inputs]
            args, kwargs = tf.nest.map_structure(lambda value: made.get(id(value), value),
                                                 (node.call_args, node.call_kwargs))
            if isinstance(node.layer, Functional):
                outputs = self.through(node.layer, values, flags)
                # Of an inner model with several outputs all have time, or none has.
                still = any(flags) and not any(isinstance(layer, keras.layers.RNN) and not layer.return_sequences
                                               for layer in node.layer._flatten_layers(include_self=False))
            elif not any(flags):
                outputs, still = node.layer(*args, **kwargs), False
            elif isinstance(node.layer, keras.layers.RNN):
                outputs, still = self._recurrent(node.layer, values), node.layer.return_sequences
            elif isinstance(node.layer, _BY_STEP):
                outputs, still = node.layer(*args, **kwargs), True
            else:
                raise ValueError(f"Layer {node.layer.name!r} ({type(node.layer).__name__}) may mix time steps: a "
                                 "single step cannot be taken out of the model. Export it unrolled.")
            for old, new in zip(tf.nest.flatten(node.outputs), tf.nest.flatten(outputs)):
                made[id(old)], has_time[id(old)] = new, still
        return [made[id(tensor)] for tensor in tf.nest.flatten(model.outputs)]

    def _recurrent(self, layer, values):
        if layer.go_backwards or layer.return_state or len(values) != 1:
            raise ValueError(f"Recurrent layer {layer.name!r} cannot be run step by step: expected one that goes "
                             "forwards, begins with zeros and gives its output only (go_backwards=False, "
                             "return_state=False, no initial_state).")
        nested = tf.nest.is_nested(layer.cell.state_size)
        sizes = layer.cell.state_size if nested else [layer.cell.state_size]
        states = []
        for i, size in enumerate(tf.nest.flatten(sizes)):
            name = f"{layer.name}_{_STATE}_{i}"
            self.states[name] = keras.Input(tf.TensorShape(size), name=name)
            states.append(self.states[name])
        frame = keras.layers.Reshape(values[0].shape[2:], name=f"{layer.name}_frame")(values[0])
        layer.cell._name = f"{layer.name}_{layer.cell.name}"  # cells of one class have one name, layers must not
        output, new = layer.cell(frame, tf.nest.pack_sequence_as(sizes, states))
        for i, tensor in enumerate(tf.nest.flatten(new)):
            self.new_states[f"{layer.name}_{_STATE}_{i}"] = tensor
        if layer.return_sequences:
            output = keras.layers.Reshape((1, *output.shape[1:]), name=f"{layer.name}_output")(output)
        return output
