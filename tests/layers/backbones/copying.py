"""Gives two networks that should be the same the same random weights, and compares what they compute."""

import numpy as np


def copy_random_weights(reference, ours, seed):
    """Fills `reference` with random weights and copies them over, by order of the layers that have weights.

    Batch-norm statistics are far from 0 and 1, so that a forgotten epsilon, a swapped order or a missing layer shows.
    """
    rng = np.random.default_rng(seed)
    theirs = [layer for layer in reference.layers if layer.weights]
    own = [layer for layer in ours.layers if layer.weights]
    assert [type(layer).__name__ for layer in own] == [type(layer).__name__ for layer in theirs]
    for source, target in zip(theirs, own):
        values = [_random(weight, rng) for weight in source.weights]
        source.set_weights(values)
        target.set_weights(values)


def relative_difference(actual, expected):
    """Largest absolute difference over the largest absolute value."""
    return float(np.max(np.abs(actual - expected)) / np.max(np.abs(expected)))


def _random(weight, rng):
    name = weight.name.split("/")[-1].split(":")[0]
    if name in ("gamma", "moving_variance"):
        return rng.uniform(0.5, 2, weight.shape)
    if name == "depthwise_kernel":
        return rng.normal(0, (2 / (weight.shape[0] * weight.shape[1])) ** 0.5, weight.shape)
    if name == "kernel":  # keeps the signal's size from layer to layer
        return rng.normal(0, (2 / np.prod(weight.shape[:-1])) ** 0.5, weight.shape)
    return rng.normal(0, 0.5, weight.shape)  # bias, beta, moving_mean
