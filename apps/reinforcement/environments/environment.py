"""An environment is a few pure functions of a state: a tuple of tensors whose first axis is the batch.

Everything that is random follows from the seeds (int32 [2], as TensorFlow's stateless generators take them), so a run
can be repeated, and `reset` and `step` compile together with whatever acts and learns.
"""

import math
import typing
from collections.abc import Callable

import tensorflow as tf

from apps.reinforcement.trajectories import Spec, StepType, TimeStep

ALGORITHM = "philox"  # the same bits with and without XLA


class Environment(typing.NamedTuple):
    """What a problem is.

    Attributes:
        name: as given to --env.
        observation_spec, action_spec: `Spec` of one observation and one action.
        initial: (batch, seed) -> state of that many new episodes.
        dynamics: (state, action [B, ...], seed) -> (next state, reward float32 [B], terminated bool [B]).
        observe: state -> observation [B, ...].
        max_steps: steps after which an episode is cut; None: never.
        draw: (state of one environment, as arrays without batch) -> text; None: it cannot be shown so.
        picture: the same -> image uint8 [H, W, 3]; None: it cannot be shown so.
        model: `finite.Model`, the tables of a problem of few states; None: it has none.
    """

    name: str
    observation_spec: Spec
    action_spec: Spec
    initial: Callable
    dynamics: Callable
    observe: Callable
    max_steps: int | None = None
    draw: Callable | None = None
    picture: Callable | None = None
    model: typing.Any = None


class Running(typing.NamedTuple):
    """A batch of environments under way."""

    state: typing.Any
    num_steps: tf.Tensor  # int32 [B], in this episode
    is_last: tf.Tensor  # bool [B]: the episode is over, the next step begins another


def reset(environment, batch, seed):
    """Begins `batch` episodes.

    Returns:
        (`Running`, `TimeStep` of type FIRST).
    """
    state = environment.initial(batch, seed)
    running = Running(state, tf.zeros([batch], tf.int32), tf.zeros([batch], tf.bool))
    return running, TimeStep(tf.fill([batch], int(StepType.FIRST)), tf.zeros([batch]), tf.ones([batch]),
                             environment.observe(state))


def step(environment, running, action, seed):
    """Takes an action in every environment; where an episode is over, begins the next one instead.

    Args:
        environment: `Environment`.
        running: `Running` of B environments.
        action: [B, ...].
        seed: int32 [2], another one at every call.

    Returns:
        (`Running`, `TimeStep`).
    """
    seeds = split(seed, 2)
    batch = running.is_last.shape[0]
    moved, reward, terminated = environment.dynamics(running.state, action, seeds[0])
    fresh = running.is_last
    state = tf.nest.map_structure(lambda new, old: where(fresh, new, old), environment.initial(batch, seeds[1]), moved)
    num_steps = tf.where(fresh, 0, running.num_steps + 1)
    terminated &= ~fresh
    is_last = terminated
    if environment.max_steps is not None:
        is_last |= num_steps >= environment.max_steps
    kind = tf.where(fresh, int(StepType.FIRST), tf.where(is_last, int(StepType.LAST), int(StepType.MID)))
    return Running(state, num_steps, is_last), TimeStep(
        kind, tf.where(fresh, 0.0, reward), tf.where(terminated, 0.0, 1.0), environment.observe(state))


def where(rows, a, b):
    """`a` in the rows (bool [B]) that are true, `b` in the others, whatever the shape [B, ...] of the two."""
    return tf.where(tf.reshape(rows, [-1] + [1] * (len(a.shape) - 1)), a, b)


def split(seed, number):
    """`number` seeds out of one, [number, 2]."""
    return tf.random.experimental.stateless_split(seed, number, alg=ALGORITHM)


def fold(seed, number):
    """Another seed [2] for each whole `number` (a scalar), so that a loop needs no seeds made beforehand."""
    return tf.random.experimental.stateless_fold_in(seed, number, alg=ALGORITHM)


def uniform(shape, seed, low=0.0, high=1.0, dtype=tf.float32):
    """Uniform numbers in [low, high), float32 or float64, the same with and without XLA."""
    if dtype == tf.float64:
        first, second = (tf.cast(part, tf.float64) for part in tf.unstack(words([2, *shape], seed)))
        numbers = (first * 2.0**21 + tf.floor(second * 2.0**-11)) * 2.0**-53
    else:
        leading = tf.bitwise.right_shift(words(shape, seed), tf.constant(8, tf.uint32))
        numbers = tf.cast(tf.cast(leading, tf.int32), dtype) * 2.0**-24
    return numbers if (low, high) == (0.0, 1.0) else low + (high - low) * numbers


def words(shape, seed):
    """Random uint32 words of a static shape: hashes of their places, under two keys that philox makes of the seed.

    Several times as fast as a word of philox each, which is most of the time of a step of a small environment; and
    TensorFlow's uniform numbers are not those of XLA, since the two take different bits of the same words.
    """
    keys = tf.random.stateless_uniform([2], seed, None, None, tf.uint32, alg=ALGORITHM)
    places = tf.cast(tf.range(math.prod(shape)), tf.uint32)
    return tf.reshape(_mixed(tf.bitwise.bitwise_xor(_mixed(places + keys[0]), keys[1])), shape)


def _mixed(word):
    """A permutation of the words of 32 bits in which each bit depends on all; shifts and factors as listed in
    github.com/skeeto/hash-prospector for two rounds."""
    for shift, factor in ((16, 0x21F0AAAD), (15, 0xD35A2D97), (15, 1)):
        word = tf.bitwise.bitwise_xor(word, tf.bitwise.right_shift(word, tf.constant(shift, tf.uint32)))
        word *= tf.constant(factor, tf.uint32)
    return word
