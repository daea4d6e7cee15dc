"""Copies of models that share nothing with the original: from their configuration, not from the code that made them."""

import numpy as np
import tf_keras as keras
from tf_keras.src.engine.functional import Functional

from strategies.parts import whole

KEPT_FLOAT32 = "_float32"  # layers whose name ends so compute in float32 in every precision


def copy_model(model, precision=None):
    """A model of the same layers and weights, with its own variables.

    Args:
        model: functional or sequential `keras.Model`, or one with `get_config`.
        precision: name of a `keras.mixed_precision` policy for all layers, but for those called `*_float32`; None
            keeps theirs. Weights are cast.

    Returns:
        `keras.Model`, uncompiled.
    """
    config = _edited(model.get_config(), precision)
    cls = keras.Model if isinstance(model, Functional) and not isinstance(model, keras.Sequential) else type(model)
    copy = cls.from_config(config, custom_objects=custom_layers(model))
    copy_weights(model, copy)
    return copy


def copy_weights(source, target):
    """Gives a model the weights of another of the same architecture, in the target's precision."""
    target.set_weights([np.asarray(value.numpy()).astype(variable.dtype.as_numpy_dtype)
                        for value, variable in zip(whole(source.weights), target.weights, strict=True)])


def custom_layers(model):
    """{class name: class} of a model's layers that Keras itself does not know: for `from_config`."""
    return {type(layer).__name__: type(layer) for layer in model.submodules
            if isinstance(layer, keras.layers.Layer) and not type(layer).__module__.startswith("tf_keras.")}


def _edited(config, precision, name=""):
    """A configuration with other dtypes, all the way down, whose layers are built when they are called: built from
    `build_config` their weights would have other names."""
    if isinstance(config, (list, tuple)):
        return type(config)(_edited(value, precision, name) for value in config)
    if not isinstance(config, dict):
        return config
    name = config.get("name", name) if isinstance(config.get("name"), str) else name
    is_input = "batch_input_shape" in config and "sparse" in config
    edited = {key: _edited(value, precision, name) for key, value in config.items() if key != "dtype"}
    if "build_config" in edited:
        edited["build_config"] = None
    if "dtype" in config:
        edited["dtype"] = config["dtype"] if precision is None else _dtype(config["dtype"], precision, is_input, name)
    return edited


def _dtype(value, precision, is_input, name):
    old = value.get("config", {}).get("name") if isinstance(value, dict) else value
    if not isinstance(old, str) or not old.endswith(("float16", "float32", "float64", "bfloat16")):
        return value  # whole numbers stay what they are
    if is_input:
        return "float64" if precision == "float64" else "float32"
    new = "float32" if name.endswith(KEPT_FLOAT32) else precision
    return {**value, "config": {"name": new}} if isinstance(value, dict) else new
