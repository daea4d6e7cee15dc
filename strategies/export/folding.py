"""Batch normalisation merged into the layer before it: the same outputs from fewer operations.

At inference y = gamma (conv(x) + b - mean) / sqrt(variance + epsilon) + beta is itself a convolution: its kernel is
the old one times s = gamma / sqrt(variance + epsilon), its bias is (b - mean) s + beta. Jacob et al. 2018
(arXiv 1712.05877), section 3.2.
"""

import contextlib
import itertools

import numpy as np
import tf_keras as keras
from tf_keras.src.engine.functional import Functional

from strategies.copying import custom_layers

_NORMALIZATIONS = (keras.layers.BatchNormalization, keras.layers.experimental.SyncBatchNormalization)
_GRAPH_CALLS = (Functional.call, keras.Sequential.call)


# A channel whose variance is below this share of epsilon never varied: its deviations come out a thousandth as large.
_CONSTANT = 1e-6
_SILENCE = 1e12  # a variance that leaves nothing of them


@contextlib.contextmanager
def without_constant_channels(model):
    """Context in which batch normalisation gives its beta alone in channels that did not vary in training.

    There (behind a ReLU that is never above 0, for one) sqrt(variance + epsilon) is near 0, and merged kernels get 10^5
    times as large for inputs that never come. Eight bits cannot hold such a channel beside its bias, and XNNPACK, which
    LiteRT runs files with, ends the process on it (see `interpreter.delegate_takes`). Yields whether there are any.
    """
    changed = []
    for layer in model._flatten_layers():
        if isinstance(layer, _NORMALIZATIONS) and layer.built:
            before = layer.moving_variance.numpy()
            constant = before <= _CONSTANT * layer.epsilon
            if constant.any():
                changed.append((layer, before))
                layer.moving_variance.assign(np.where(constant, _SILENCE, before))
    try:
        yield bool(changed)
    finally:
        for layer, before in changed:
            layer.moving_variance.assign(before)


def _by_last_axis(kernel, scale):
    return kernel * scale  # [..., C, M]; of a separable convolution the pointwise kernel


# How the scale of each output channel [M] multiplies the kernel. Exact classes: a subclass may compute something else.
_SCALE_KERNEL = {
    keras.layers.Dense: _by_last_axis,
    keras.layers.Conv1D: _by_last_axis,
    keras.layers.Conv2D: _by_last_axis,
    keras.layers.Conv3D: _by_last_axis,
    keras.layers.SeparableConv2D: _by_last_axis,
    keras.layers.Conv2DTranspose: lambda kernel, scale: kernel * scale[:, None],  # [h, w, M, C]
    keras.layers.DepthwiseConv2D: lambda kernel, scale: kernel * scale.reshape(kernel.shape[2:]),  # [h, w, C, m]
}


def fold_batch_norm(model, *, as_convolution=False):
    """A new model with the same outputs, in which batch normalisation is part of the layer before it.

    A normalisation is merged when it directly follows a convolution or dense layer of `tf_keras` itself, with a linear
    activation, whose output nothing else reads; the layer that does both has the name of the normalisation. Others
    stay: before the convolution (pre-activation), after a concatenation, after a layer that is called twice.
    Functional and sequential models inside the model are treated likewise. The result is for inference: training would
    find no statistics in it.

    Args:
        model: functional or built sequential `keras.Model`.
        as_convolution: write a normalisation of images that stays as a depthwise 1x1 convolution with bias. TensorFlow
            runs it and a ReLU after it in one pass over memory. A TFLite file gets no faster.

    Returns:
        plain functional `keras.Model` with its own weights; names and structure of inputs and outputs are the same.

    Raises:
        ValueError: the model has a `call` of its own, so the graph of its layers is unknown.
    """
    if not isinstance(model, Functional) or not model.inputs or type(model).call not in _GRAPH_CALLS:
        raise ValueError("Batch normalisation can be merged only in a functional or a built sequential model; received "
                         f"a {type(model).__name__}, whose graph of layers is unknown. Export it without "
                         "fold_batch_norm, or build it as keras.Model(inputs, outputs).")
    model = keras.Model(model.input, model.output, name=model.name)  # of a sequential model or a subclass: plain
    config = model.get_config()
    merged = _fold_config(model, config, as_convolution)
    folded = keras.Model.from_config(config, custom_objects=custom_layers(model))
    _copy_weights(model, folded, merged)
    return folded


def _fold_config(model, config, as_convolution):
    """Edits the configuration of `model` in place: the merged layer takes the place of the normalisation.

    Returns:
        {name of a normalisation: name of the layer merged with it, or its own where it becomes a convolution};
        of a model inside {its name: such a dictionary}.
    """
    entries = {entry["config"]["name"]: entry for entry in config["layers"]}
    instances = {layer.name: layer for layer in model.layers}
    calls, num_readers = _calls(config, entries)
    merged = {}
    for name, instance in instances.items():
        if type(instance) in (Functional, keras.Sequential):
            merged[name] = _fold_config(instance, entries[name]["config"], as_convolution)
        elif type(instance) in _NORMALIZATIONS:
            source = _only_source(calls[name])
            if source and num_readers[source] == len(calls[source]) == 1 and _mergeable(instances[source], instance):
                merged[name] = source
                entries[name].update({key: value for key, value in entries.pop(source).items() if key != "name"})
                entries[name]["config"] |= {"name": name, "use_bias": True}
            elif as_convolution and _convertible(instance, calls[name]):
                merged[name] = name
                convolution = keras.layers.DepthwiseConv2D(1, name=name, dtype=instance.dtype_policy)
                entries[name].update(keras.saving.serialize_keras_object(convolution), build_config=None)
    config["layers"] = list(entries.values())
    return merged


def _calls(config, entries):
    """Who reads whom.

    Returns:
        ({name: [references of its first call, of its second, ...]}, {name: number of references to it}), a reference
        being [name, call, output] or [name, call, output, arguments of the reading call].
    """
    if "input_layers" in config:
        calls = {name: [list(_references(call, entries)) for call in entry["inbound_nodes"]]
                 for name, entry in entries.items()}
        outputs = list(_references(config["output_layers"], entries))
    else:  # a sequential model: each reads the one before
        calls = {name: [[]] for name in entries}
        calls |= {name: [[[before, 0, 0]]] for before, name in itertools.pairwise(entries)}
        outputs = [[list(entries)[-1], 0, 0]]
    num_readers = dict.fromkeys(entries, 0)
    for name, *_ in itertools.chain(outputs, *itertools.chain(*calls.values())):
        num_readers[name] += 1
    return calls, num_readers


def _references(value, names):
    if isinstance(value, (list, tuple)) and len(value) >= 3 and isinstance(value[0], str) and value[0] in names:
        yield value
        value = value[3:]  # a call's other arguments may be tensors too
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        yield from _references(part, names)


def _only_source(calls):
    """Name of the layer whose output is the only input of a normalisation called once, in inference mode; or None."""
    if len(calls) != 1 or len(calls[0]) != 1:
        return None
    name, _, _, *arguments = calls[0][0]
    return None if arguments and arguments[0].get("training") else name


def _mergeable(layer, norm):
    if type(layer) not in _SCALE_KERNEL or layer.activation is not keras.activations.linear:
        return False
    channels_first = getattr(layer, "data_format", "channels_last") == "channels_first"
    return list(norm.axis) == [1 if channels_first else len(norm.input_shape) - 1]


def _convertible(norm, calls):
    is_image = norm.input_spec.ndim == 4 and list(norm.axis) == [3]
    arguments = [argument for call in calls for _, _, _, *rest in call for argument in rest if argument]
    return is_image and not arguments  # a convolution takes neither `training` nor a mask


def _copy_weights(model, folded, merged):
    instances = {layer.name: layer for layer in model.layers}
    for layer in folded.layers:
        instance, source = instances[layer.name], merged.get(layer.name)
        if isinstance(source, dict):
            _copy_weights(instance, layer, source)
        elif source:
            layer.set_weights(_merged_weights(instances[source], instance))
        else:
            layer.set_weights(instance.get_weights())
            if isinstance(layer, keras.layers.experimental.preprocessing.PreprocessingLayer):
                layer.finalize_state()  # Normalization computes with values derived from its weights


def _merged_weights(layer, norm):
    """Kernels and bias, computed in float64, of the layer that does the work of `layer` and then `norm`."""
    variance = norm.moving_variance.numpy().astype(np.float64)
    scale = (norm.gamma.numpy() if norm.scale else 1.0) / np.sqrt(variance + norm.epsilon)
    kernels, bias = layer.get_weights(), 0.0
    if layer is norm:
        return [scale.reshape(1, 1, -1, 1), _offset(norm, scale, bias)]
    if layer.use_bias:
        *kernels, bias = kernels
    *others, kernel = kernels  # others: the depthwise kernel of a separable convolution
    return [*others, _SCALE_KERNEL[type(layer)](kernel, scale), _offset(norm, scale, bias)]


def _offset(norm, scale, bias):
    return (bias - norm.moving_mean.numpy()) * scale + (norm.beta.numpy() if norm.center else 0.0)
