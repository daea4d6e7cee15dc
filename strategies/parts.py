"""Variables that parameter servers keep in parts, as one variable each."""

import re

import numpy as np
import tensorflow as tf


class Whole:
    """Stands for the variable that parts along its first axis make up: `name`, `shape`, `dtype`, `numpy`, `assign`."""

    def __init__(self, name, parts):
        self.name, self._parts = name, list(parts)
        self.dtype = self._parts[0].dtype
        self.shape = tf.TensorShape([sum(part.shape[0] for part in self._parts), *self._parts[0].shape[1:]])

    def numpy(self):
        """The value, one array."""
        return np.concatenate([part.numpy() for part in self._parts])

    def assign(self, value):
        """Gives each part its rows of an array."""
        start = 0
        for part in self._parts:
            part.assign(value[start:start + part.shape[0]])
            start += part.shape[0]


def whole(variables):
    """The same variables, in order, with a `Whole` for those that are there in parts.

    TensorFlow lists a divided variable either as one object or as its parts one after another, `name/part_0`,
    `name/part_1`, …
    """
    found, parts = [], []
    for variable in variables:
        match = re.fullmatch(r"(.*)/part_(\d+):0", variable.name)
        if parts and not (match and parts[0].name == f"{match[1]}/part_0:0" and int(match[2]) == len(parts)):
            found.append(_joined(parts))
            parts = []
        if isinstance(variable, tf.__internal__.distribute.ShardedVariable):
            found.append(_joined(variable.variables))
        elif match:
            parts.append(variable)
        else:
            found.append(variable)
    return [*found, _joined(parts)] if parts else found


def _joined(parts):
    return Whole(re.sub(r"/part_\d+:0$", ":0", parts[0].name), parts)
