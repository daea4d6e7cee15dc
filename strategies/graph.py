"""Who reads whom in a functional model."""

import tensorflow as tf
import tf_keras as keras
from tf_keras.src.engine.functional import Functional


def nodes(model):
    """The calls of a functional model's layers, inputs first: objects with `layer`, `parent_nodes`, `keras_inputs` and
    `outputs`, as Keras keeps them."""
    return [node for depth in sorted(model._nodes_by_depth, reverse=True) for node in model._nodes_by_depth[depth]]


def consumers(model):
    """{id(layer): layers that read its output} over a model and all models in it.

    Of a layer that gives an output of its model None is among the readers: who reads it is for the caller to know. A
    layer that no functional model calls has no key.
    """
    readers = {}
    for part in models_in(model):
        if not isinstance(part, Functional):
            continue
        for node in nodes(part):
            for tensor in node.keras_inputs:
                readers.setdefault(id(tensor._keras_history.layer), []).append(node.layer)
        for tensor in tf.nest.flatten(part.outputs):
            readers.setdefault(id(tensor._keras_history.layer), []).append(None)
    return readers


def models_in(model):
    """The model and the models that it contains, at any depth."""
    inner = [layer for layer in model._flatten_layers(include_self=False) if isinstance(layer, keras.Model)]
    return [model, *inner]
