"""Local steps between exchanges with parameter servers: Downpour SGD (Dean et al. 2012, section 4.1 and algorithm 1).

A worker fetches the weights every `n_fetch` steps and pushes the sum of its gradients every `n_push` steps. In between
it goes on with a copy of its own, from which each step takes learning rate times gradient.

A worker of TensorFlow keeps nothing between two closures, so a closure here is as many steps as it takes until both are
due at once. The copy stands in for the variables by TensorFlow's own cache of what a closure has read.
"""

import contextlib
import math

import tensorflow as tf
from tensorflow.python.distribute import distribute_utils

from strategies.replacing import replaced, trained_by


def steps_of_closure(n_push, n_fetch):
    """Steps after which both a fetch and a push are due."""
    return math.lcm(n_push, n_fetch)


@contextlib.contextmanager
def local_steps(model, n_push, n_fetch, note_fetch):
    """Within it a compiled model's `train_step` takes [n, B, ...] of batches, n = `steps_of_closure`.

    Args:
        model: compiled `keras.Model` whose `train_step` updates by `optimizer.minimize`, built under
            `ParameterServerStrategy`.
        n_push, n_fetch: at least 1.
        note_fetch: called, in the graph, before the weights are read; returns what must have happened before.
    """
    optimizer, one_step = model.optimizer, model.train_step
    variables, number = model.trainable_variables, steps_of_closure(n_push, n_fetch)
    taken = []

    def minimize(loss, var_list, tape=None):
        del tape  # which watches the variables, not the copies
        taken.append((loss, [id(variable) for variable in var_list]))

    def gradients_of(batch, copies):
        """Of one batch, with respect to the copies; and the metrics."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(copies)
            with _read_as(model, copies):
                metrics = one_step(batch)
            loss, wanted = taken.pop()
        gradients = tape.gradient(loss, copies, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return [g if id(v) in wanted else tf.zeros_like(g) for g, v in zip(gradients, variables)], metrics

    def train_step(data):
        copies, sums, metrics = None, None, None
        for step in range(number):
            if step % n_fetch == 0:
                with tf.control_dependencies([note_fetch()]):
                    copies = [variable.read_value() for variable in variables]
            batch = tf.nest.map_structure(lambda t, i=step: t[i], data)
            gradients, metrics = gradients_of(batch, copies)
            sums = gradients if sums is None else [a + b for a, b in zip(sums, gradients)]
            rate = optimizer.learning_rate
            copies = [copy - tf.cast(rate, copy.dtype) * g for copy, g in zip(copies, gradients)]
            if (step + 1) % n_push == 0:
                optimizer.apply_gradients(zip(sums, variables))
                optimizer.iterations.assign_add(n_push - 1)  # a step of the run is a gradient
                sums = None
        return metrics

    with trained_by(model, train_step), replaced(optimizer, minimize=minimize):
        yield


@contextlib.contextmanager
def _read_as(model, values):
    """Within it reading the trainable variables of a model gives other values."""
    try:
        with distribute_utils.cache_variable_reads():
            for variable, value in zip(_beneath(model.trainable_variables), values):
                variable._cache = value
                variable._current_new_cache_scope_count = distribute_utils.caching_scope_local.new_cache_scope_count
            yield
    finally:
        # TensorFlow counts its scopes by thread, so another thread might take what was read here for its own.
        metrics = [variable for metric in model.metrics for variable in metric.variables]
        for variable in _beneath([*model.weights, *metrics, *model.optimizer.variables]):
            variable._cache, variable._current_new_cache_scope_count = None, 0


def _beneath(variables):
    """The caching variables beneath automatic casts, and the parts of divided ones."""
    for variable in variables:
        if isinstance(variable, tf.__internal__.distribute.ShardedVariable):
            yield from variable.variables
        else:
            yield getattr(variable, "_variable", variable)
