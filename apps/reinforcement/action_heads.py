"""What the outputs of a policy network mean: logits of a categorical, or means and log deviations of a Gaussian.

B batch, A actions, D numbers of a continuous action.
"""

import math
import typing
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from apps.reinforcement.environments.environment import uniform

_SMALLEST = 1e-20  # of a uniform number, whose logarithm is taken
_LOG_TWO_PI = math.log(2 * math.pi)


class Head(typing.NamedTuple):
    """Functions of a policy's parameters, float [B, P].

    Attributes:
        num_outputs: what the last dense layer has: A logits, or D means.
        num_parameters: P: A, or 2D.
        mode: parameters -> the likeliest raw action: int32 [B], or float32 [B, D].
        sample: (parameters, seed) -> raw action.
        log_prob: (parameters, raw action) -> [B].
        entropy: parameters -> [B].
        legal: raw action -> action within the bounds of the specification.
    """

    num_outputs: int
    num_parameters: int
    mode: Callable
    sample: Callable
    log_prob: Callable
    entropy: Callable
    legal: Callable


def head_of(action_spec):
    """The `Head` of an action's `Spec`.

    Raises:
        ValueError: several whole numbers at once, which no algorithm here chooses.
    """
    if action_spec.is_discrete:
        if action_spec.shape:
            raise ValueError("A discrete action must be one whole number, shape (); received shape "
                             f"{action_spec.shape}. Number its combinations in the environment.")
        return categorical(action_spec.num_values)
    return gaussian(action_spec)


def categorical(num_actions):
    """Probabilities softmax(logits), logits [B, A]; actions int32 [B]."""
    def sample(logits, seed):
        noise = uniform(logits.shape, seed, _SMALLEST, 1.0, logits.dtype)
        return tf.argmax(logits - tf.math.log(-tf.math.log(noise)), axis=-1, output_type=tf.int32)  # Gumbel's trick

    def log_prob(logits, action):
        chosen = tf.one_hot(action, num_actions, dtype=logits.dtype)
        return tf.reduce_sum(tf.nn.log_softmax(logits) * chosen, axis=-1)

    def entropy(logits):
        logarithm = tf.nn.log_softmax(logits)
        return -tf.reduce_sum(tf.exp(logarithm) * logarithm, axis=-1)

    return Head(num_actions, num_actions, lambda logits: tf.argmax(logits, axis=-1, output_type=tf.int32), sample,
                log_prob, entropy, lambda action: action)


def gaussian(action_spec):
    """Independent Gaussians with means [B, D] and log deviations [B, D], side by side; raw actions float32 [B, D].

    A raw action of -1 to 1 stands for the range of the specification where that is finite; what lies outside is
    clipped, and the probability is that of the raw action, as the clipping belongs to the environment.
    """
    size = math.prod(action_spec.shape)

    def split(parameters):
        return parameters[:, :size], parameters[:, size:]

    def sample(parameters, seed):
        mean, deviation = split(parameters)
        first, second = tf.unstack(uniform([2, *mean.shape], seed, _SMALLEST, 1.0, mean.dtype))
        noise = tf.sqrt(-2 * tf.math.log(first)) * tf.cos(2 * math.pi * second)  # Box & Muller 1958
        return mean + tf.exp(deviation) * noise

    def log_prob(parameters, action):
        mean, deviation = split(parameters)
        distance = (tf.reshape(action, [-1, size]) - mean) * tf.exp(-deviation)
        return -tf.reduce_sum(distance**2 / 2 + deviation + _LOG_TWO_PI / 2, axis=-1)

    def entropy(parameters):
        return tf.reduce_sum(split(parameters)[1] + (_LOG_TWO_PI + 1) / 2, axis=-1)

    return Head(size, 2 * size, lambda parameters: split(parameters)[0], sample, log_prob, entropy,
                lambda action: legal_action(action_spec, tf.reshape(action, [-1, *action_spec.shape]), tf))


def legal_action(action_spec, raw, library=np):
    """Raw actions [B, ...] of -1 to 1 as actions within the specification, in NumPy or TensorFlow."""
    low, high = bounds(action_spec)
    finite = np.isfinite(low) & np.isfinite(high)
    centre, half = np.where(finite, (low + high) / 2, 0), np.where(finite, (high - low) / 2, 1)
    scaled = raw * half.astype(np.float32) + centre.astype(np.float32)
    return library.minimum(library.maximum(scaled, low.astype(np.float32)), high.astype(np.float32))


def bounds(spec):
    """(minimum, maximum) of a `Spec` as float64 arrays of its shape; infinite where it gives none."""
    low = -math.inf if spec.minimum is None else spec.minimum
    high = math.inf if spec.maximum is None else spec.maximum
    return tuple(np.broadcast_to(np.asarray(value, np.float64), spec.shape) for value in (low, high))
