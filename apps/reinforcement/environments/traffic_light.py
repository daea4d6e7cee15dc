"""A crossing with a traffic light, whose streets are busy at different times.

Four approaches, north, south, east and west; north and south are green together (phase 0), or east and west (phase 1).
A step is 2 s. In each step, in this order:

1. Action 1 ends the green, which begins an amber of 2 steps; 0 keeps it. While it is amber, and in the first 3 steps
   of a green, nothing can be changed.
2. One car leaves each approach that is green, where one waits (1,800 an hour).
3. After the last step of amber the other phase begins.
4. Cars arrive at each approach, Poisson with a mean of side x (0.3 + 0.2 sin(2 pi (step / 300 + offset))) a step in
   phase 0's street, and with the sine's sign turned round in phase 1's; side is 1.1 in the north and east and 0.9 in
   the south and west. The offset, uniform in [0, 1), is the episode's: the rush comes at another time in each. Where 40
   cars wait, no more come.
5. The reward is minus the waiting cars x 2 s, in car-minutes.

An episode is 300 steps, 10 minutes, from empty streets in phase 0. The rates are not shown. B batch.
"""

import math
import typing

import numpy as np
import tensorflow as tf

from apps.reinforcement.environments import drawing
from apps.reinforcement.environments.environment import Environment, uniform
from apps.reinforcement.trajectories import Spec

SECONDS, AMBER, SHORTEST, ROOM, STEPS = 2, 2, 3, 40, 300
_MEAN, _SWING, _SIDES = 0.3, 0.2, (1.1, 0.9, 1.1, 0.9)
_MOST = 7  # cars that arrive at an approach in a step; more have a probability below 1e-6
_QUEUE_SCALE, _TIME_SCALE = 20.0, 30.0


class State(typing.NamedTuple):
    """[B] each but the queues."""

    queues: tf.Tensor  # int32 [B, 4]: north, south, east, west
    phase: tf.Tensor  # int32
    time: tf.Tensor  # int32: steps of this green
    amber: tf.Tensor  # int32: steps of amber that are left
    step: tf.Tensor  # int32
    offset: tf.Tensor  # float32


def traffic_light():
    """The environment. Observations are float32 [B, 8]: queues / 20, phase one-hot, whether it is amber, steps of this
    green / 30."""
    def initial(batch, seed):
        nothing = tf.zeros([batch], tf.int32)
        return State(tf.zeros([batch, 4], tf.int32), nothing, nothing, nothing, nothing, uniform([batch], seed))

    def dynamics(state, action, seed):
        switches = tf.equal(action, 1) & tf.equal(state.amber, 0) & (state.time >= SHORTEST)
        amber = tf.where(switches, AMBER, state.amber)
        is_green = tf.repeat(tf.one_hot(state.phase, 2, True, False), 2, axis=1) & tf.equal(amber, 0)[:, None]
        queues = tf.maximum(state.queues - tf.cast(is_green, tf.int32), 0)
        turns = tf.equal(amber, 1)
        amber = tf.maximum(amber - 1, 0)
        queues = tf.minimum(queues + _arrivals(rates(state.step, state.offset), uniform(queues.shape, seed)), ROOM)
        after = State(queues, tf.where(turns, 1 - state.phase, state.phase), tf.where(turns, 0, state.time + 1), amber,
                      state.step + 1, state.offset)
        waiting = tf.cast(tf.reduce_sum(queues, axis=1), tf.float32) * (SECONDS / 60)
        return after, -waiting, tf.zeros(turns.shape, tf.bool)

    def observe(state):
        parts = [tf.cast(state.queues, tf.float32) / _QUEUE_SCALE, tf.one_hot(state.phase, 2),
                 tf.cast(state.amber > 0, tf.float32)[:, None], tf.cast(state.time, tf.float32)[:, None] / _TIME_SCALE]
        return tf.concat(parts, axis=1)

    highest = (ROOM / _QUEUE_SCALE,) * 4 + (1.0,) * 3 + (STEPS / _TIME_SCALE,)
    return Environment("traffic_light", Spec((8,), tf.float32, 0.0, highest), Spec((), tf.int32, 0, 1), initial,
                       dynamics, observe, STEPS, *drawing.painters(_scene, (-9, 9, -9, 9), width=320, columns=60))


def rates(step, offset):
    """Mean arrivals a step, float32 [B, 4]."""
    swing = _SWING * tf.sin(2 * math.pi * (tf.cast(step, tf.float32) / STEPS + offset))
    return tf.stack([side * (_MEAN + sign * swing) for side, sign in zip(_SIDES, (1, 1, -1, -1))], axis=1)


def _arrivals(means, numbers):
    """Poisson numbers int32 of the shape of `means`, by inversion of uniform ones."""
    term = limit = tf.exp(-means)
    count = tf.cast(numbers >= limit, tf.int32)
    for k in range(1, _MOST):
        term = term * means / k
        limit += term
        count += tf.cast(numbers >= limit, tf.int32)
    return count


def fixed_cycle(first, second):
    """The policy of a light that knows no cars: greens of `first` and `second` seconds, observation -> action [B].

    Raises:
        ValueError: a green shorter than the light allows.
    """
    if min(first, second) < SHORTEST * SECONDS:
        raise ValueError(f"A green lasts at least {SHORTEST * SECONDS} s; received {first} and {second}.")
    steps = tf.constant([first // SECONDS, second // SECONDS], tf.float32)

    def act(observation):
        green = tf.gather(steps, tf.argmax(observation[:, 4:6], axis=1))
        return tf.cast(tf.round(observation[:, 7] * _TIME_SCALE) >= green, tf.int32)

    return act


def baselines():
    """{name: policy, observation -> action}: fixed cycles, equal since both streets are as busy over the time."""
    return {f"{green} s each": fixed_cycle(green, green) for green in (10, 16, 24, 36, 60)}


def _scene(canvas, state):
    queues, phase = np.asarray(state.queues), int(state.phase)
    lights = [drawing.RED] * 4
    for side in (0, 1) if phase == 0 else (2, 3):
        lights[side] = drawing.AMBER if int(state.amber) else drawing.GREEN
    for street in (((0, -9), (0, 9)), ((-9, 0), (9, 0))):
        canvas.polygon(drawing.bar(*street, 2), " ", "#dddddd")
    marks = {drawing.RED: "R", drawing.AMBER: "A", drawing.GREEN: "G"}
    for side, (dx, dy) in enumerate(((0, 1), (0, -1), (1, 0), (-1, 0))):
        for car in range(min(int(queues[side]), 13)):
            place = 2.4 + 0.48 * car
            x, y = dx * place - dy * 0.5, dy * place + dx * 0.5  # they drive on the right
            canvas.polygon(drawing.bar((x - 0.17 * dx, y - 0.17 * dy), (x + 0.17 * dx, y + 0.17 * dy), 0.6), "o",
                           drawing.STEEL)
        canvas.disc((dx * 1.5 - dy * 1.6, dy * 1.5 + dx * 1.6), 0.45, marks[lights[side]], lights[side])
