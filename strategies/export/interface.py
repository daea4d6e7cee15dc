"""What goes into a model and comes out of it, by name: the seam between Keras and the exported files.

A Keras model takes and returns a tensor, a list or a dictionary. A file's signature has a name for each input and each
output. `Interface` is the only place that knows both.
"""

import re

import numpy as np
import tensorflow as tf


class Interface:
    """Names, shapes and dtypes of a model's inputs and outputs.

    Inputs are called after their `keras.Input`. Outputs are called after their key where the model returns a
    dictionary, after their layer otherwise. Characters other than letters, digits and _ become _.

    Args:
        model: functional or built sequential `keras.Model`.
        samples: example inputs in the structure that the model takes, [N, ...] each. They settle dimensions that the
            model leaves open, which a file for a phone must have.

    Attributes:
        input_specs: `tf.TensorSpec` of each input, in order: shape [None, ...], dtype, name.
        output_names: name of each output, in the order of `tf.nest.flatten`.

    Raises:
        ValueError: the model has no symbolic inputs and outputs, or the samples do not fit it.
    """

    def __init__(self, model, samples=None):
        if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
            raise ValueError(
                f"A model needs known inputs and outputs to be exported or counted; received a {type(model).__name__} "
                "without them. Give a functional model: x = keras.Input(shape); keras.Model(x, model(x)).")
        self._model = model
        names = unique_names(model.input_names)
        shapes = [tensor.shape for tensor in tf.nest.flatten(model.input)]
        self.input_specs = [tf.TensorSpec([None, *shape[1:]], tensor.dtype, name)
                            for shape, tensor, name in zip(shapes, tf.nest.flatten(model.input), names)]
        outputs = model.output
        flat_dictionary = isinstance(outputs, dict) and not any(map(tf.nest.is_nested, outputs.values()))
        self.output_names = unique_names(sorted(outputs) if flat_dictionary else model.output_names)
        if samples is not None:
            named = self.named(samples)
            self.input_specs = [tf.TensorSpec([None, *named[spec.name].shape[1:]], spec.dtype, spec.name)
                                for spec in self.input_specs]

    @property
    def input_names(self):
        """Name of each input, in order."""
        return [spec.name for spec in self.input_specs]

    def named(self, inputs):
        """Inputs in the model's structure as {name: array [N, ...]} in the model's dtypes.

        Raises:
            ValueError: another number of inputs, shapes that do not fit, or different numbers of samples.
        """
        arrays = [np.asarray(array) for array in _flatten(inputs)]
        if len(arrays) != len(self.input_specs):
            raise ValueError(f"The model takes {len(self.input_specs)} inputs ({', '.join(self.input_names)}); "
                             f"received {len(arrays)} arrays.")
        for array, spec in zip(arrays, self.input_specs):
            fits = spec.shape.is_compatible_with(array.shape) and array.size
            if not fits or len(array) != len(arrays[0]):
                raise ValueError(f"Input {spec.name!r} must be an array of shape {tuple(spec.shape)} with the same "
                                 "number of samples, at least 1, in all inputs (the first None); received shape "
                                 f"{array.shape}.")
        return {spec.name: array.astype(spec.dtype.as_numpy_dtype, copy=False)
                for array, spec in zip(arrays, self.input_specs)}

    def structured(self, outputs):
        """Outputs {name: array} in the structure that the model returns."""
        return tf.nest.pack_sequence_as(self._model.output, [outputs[name] for name in self.output_names])

    def named_outputs(self, outputs):
        """Outputs in the structure that the model returns as {name: array}."""
        return {name: np.asarray(array) for name, array in zip(self.output_names, tf.nest.flatten(outputs))}

    def function(self, batch_size=None):
        """The model in inference mode as a concrete function of named inputs that returns {name: output}.

        Args:
            batch_size: B of every input, or None for any.

        Raises:
            ValueError: `batch_size` is given and another dimension of an input is open.
        """
        specs = [tf.TensorSpec([batch_size, *spec.shape[1:]], spec.dtype, spec.name) for spec in self.input_specs]
        for spec in specs:
            if batch_size and not spec.shape.is_fully_defined():
                raise ValueError(f"Input {spec.name!r} has shape {tuple(spec.shape)}: every dimension must be known. "
                                 "Build the model with a fixed input shape, or pass samples of the size wanted.")

        def serve(*tensors):
            outputs = self._model(tf.nest.pack_sequence_as(self._model.input, tensors), training=False)
            return dict(zip(self.output_names, map(_readable, tf.nest.flatten(outputs))))

        return tf.function(serve).get_concrete_function(*specs)


def _readable(tensor):
    """A 16-bit result as float32, as the other files give it."""
    return tf.cast(tensor, tf.float32) if tensor.dtype in (tf.float16, tf.bfloat16) else tensor


def unique_names(names):
    """Names of letters, digits and _ only, with _1, _2, … added where one stands again."""
    unique = []
    for name in names:
        stem = name = re.sub(r"\W", "_", str(name))
        count = 0
        while name in unique:
            count += 1
            name = f"{stem}_{count}"
        unique.append(name)
    return unique


def _flatten(inputs):
    # tf.nest would take a nested list of numbers apart; only containers of arrays are structures here.
    return tf.nest.flatten(inputs) if isinstance(inputs, (list, tuple, dict)) else [inputs]
