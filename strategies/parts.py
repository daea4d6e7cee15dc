"""Variables that a strategy keeps in parts or in copies, as one variable each."""

import re

import numpy as np
import tensorflow as tf
from tensorflow.python.distribute import values as distributed_values


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


def copies(variable):
    """The values that the replicas of all processes have of a variable, where they differ; None where they are equal.

    That is so for the statistics of batch normalisation, whose mean is what reading the variable gives. All processes
    must call it at the same time.

    Returns:
        array [replicas, ...] or None.
    """
    variable = _moved_by_each(variable)
    if variable is None:
        return None
    strategy = variable.distribute_strategy
    local = iter(variable.values)
    stacked = strategy.experimental_distribute_values_from_function(lambda context: next(local)[tf.newaxis])
    return strategy.gather(stacked, axis=0).numpy()


def assign_copies(variable, values):
    """Gives each replica here its value of [replicas, ...]; False when there is another number of replicas."""
    variable = _moved_by_each(variable)
    if variable is None or variable.distribute_strategy.num_replicas_in_sync != len(values):
        return False
    strategy = variable.distribute_strategy
    numbers = strategy.experimental_distribute_values_from_function(lambda context: context.replica_id_in_sync_group)
    for number, copy in zip(strategy.experimental_local_results(numbers), variable.values):
        copy.assign(values[int(number)])
    return True


def _moved_by_each(variable):
    variable = getattr(variable, "_variable", variable)  # beneath automatic casts
    if isinstance(variable, distributed_values.SyncOnReadVariable) and variable.dtype.is_floating \
            and variable.aggregation == tf.VariableAggregation.MEAN:
        return variable
    return None
