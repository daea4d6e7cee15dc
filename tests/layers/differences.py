"""Gradients by central differences, for tests of layers in float64."""

import numpy as np
import pytest
import tensorflow as tf


def check_gradient(function, x, layer=None):
    """Compares gradients of `function`, a layer or a function that calls `layer`, with differences at some entries of
    its input `x` and of every weight."""
    layer = function if layer is None else layer
    x = tf.Variable(x)
    direction = np.random.default_rng(7).normal(size=function(tf.identity(x)).shape)

    def value():
        return tf.reduce_sum(function(tf.identity(x)) * direction)

    with tf.GradientTape() as tape:
        target = value()
    variables = [x, *layer.trainable_weights]
    for variable, gradient in zip(variables, tape.gradient(target, variables)):
        _check_variable(value, variable, tf.convert_to_tensor(gradient).numpy(), 8 if variable is x else 4)


def _check_variable(value, variable, gradient, count, step=1e-6):
    start = variable.numpy()
    places = np.random.default_rng(8).choice(start.size, min(count, start.size), replace=False)
    for place in places:
        results = []
        for sign in (1, -1):
            moved = start.copy()
            moved.flat[place] += sign * step
            variable.assign(moved)
            results.append(float(value()))
        variable.assign(start)
        found = (results[0] - results[1]) / (2 * step)
        assert gradient.flat[place] == pytest.approx(found, rel=1e-5, abs=1e-8), variable.name
