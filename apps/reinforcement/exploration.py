"""How a learner tries what does not look best, and schedules of how much.

A strategy gives the probability of every action from their values, so that one function serves for acting, for the
mean over actions (expected SARSA) and for tests. B batch, A actions.
"""

import math
from collections.abc import Callable

import tensorflow as tf

from layers.checking import unknown_name

Schedule = Callable[[tf.Tensor], tf.Tensor]  # step, any shape -> float32 of that shape
SCHEDULES = ("constant", "linear", "exponential")


def schedule(kind, start, end, steps):
    """A number that depends on the step alone, so that a resumed run goes on exactly.

    Args:
        kind: "constant": `start` for ever; "linear": from `start` to `end` in equal steps; "exponential": from `start`
            to `end` by equal factors.
        start, end: values at step 0 and from step `steps` on.
        steps: how many steps the way takes.

    Returns:
        `Schedule`.

    Raises:
        ValueError: unknown kind, no step, or an exponential schedule from or to 0.
    """
    if kind not in SCHEDULES:
        raise unknown_name("schedule of exploration", kind, SCHEDULES)
    if kind != "constant" and steps < 1:
        raise ValueError(f"A {kind} schedule needs at least 1 step; received {steps}.")
    if kind == "exponential" and (start <= 0 or end <= 0):
        raise ValueError("An exponential schedule goes between numbers above 0; received "
                         f"{start:g} and {end:g}. Take a linear one or a small end.")

    def value(step):
        step = tf.cast(step, tf.float32)
        if kind == "constant":
            return tf.fill(tf.shape(step), tf.constant(start, tf.float32))
        done = tf.clip_by_value(step / float(steps), 0.0, 1.0)
        if kind == "linear":
            return start + (end - start) * done
        return start * tf.exp(math.log(end / start) * done)

    return value


def epsilon_greedy(values, counts, amount):
    """A random action with probability `amount`, else the best (any of the best). Sutton & Barto 2018, section 2.2."""
    del counts
    epsilon = amount[:, None]
    return epsilon / values.shape[1] + (1 - epsilon) * best(values)


def boltzmann(values, counts, amount):
    """Softmax of the values over the temperature `amount`. Sutton & Barto 2018, section 13.1."""
    del counts
    return tf.nn.softmax(values / amount[:, None])


def upper_confidence(values, counts, amount):
    """The action of the highest value + amount sqrt(ln t / n), n its count and t their sum; first those never tried.

    Sutton & Barto 2018, equation 2.10 (UCB1 of Auer et al. 2002, with amount sqrt(2)).
    """
    counts = tf.cast(counts, values.dtype)
    total = tf.reduce_sum(counts, axis=1, keepdims=True)
    width = amount[:, None] * tf.sqrt(tf.math.log(tf.maximum(total, 1)) / tf.maximum(counts, 1))
    return best(tf.where(counts > 0, values + width, values.dtype.max))


EXPLORATIONS = {"epsilon_greedy": epsilon_greedy, "boltzmann": boltzmann, "ucb": upper_confidence}


def probabilities(name, values, counts, amount):
    """Probability of every action.

    Args:
        name: of `EXPLORATIONS`.
        values: [B, A], float32 or float64.
        counts: int32 [B, A], how often each was taken.
        amount: [B]: epsilon, temperature (above 0) or width of the confidence.

    Returns:
        [B, A], of the type of `values`.

    Raises:
        ValueError: unknown name.
    """
    if name not in EXPLORATIONS:
        raise unknown_name("exploration", name, EXPLORATIONS)
    return EXPLORATIONS[name](values, counts, tf.cast(amount, values.dtype))


def choose(chances, numbers):
    """The actions, int32 [B], that uniform numbers [B] in [0, 1) mean for probabilities [B, A]."""
    limits = tf.cumsum(chances, axis=1)
    limits /= limits[:, -1:]  # of rounding, so that the last limit is 1
    return tf.reduce_sum(tf.cast(tf.cast(numbers, limits.dtype)[:, None] >= limits, tf.int32), axis=1)


def best(values):
    """Probability 1, in equal parts for the actions of the highest value."""
    is_best = tf.cast(values >= tf.reduce_max(values, axis=1, keepdims=True), values.dtype)
    return is_best / tf.reduce_sum(is_best, axis=1, keepdims=True)
