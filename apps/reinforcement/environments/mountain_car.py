"""MountainCar (Moore 1990; Sutton & Barto 2018, example 10.1) as gymnasium's MountainCar-v0, and with an engine of any
strength as its MountainCarContinuous-v0."""

import math
import typing

import tensorflow as tf

from apps.reinforcement.environments import drawing
from apps.reinforcement.environments.environment import Environment, uniform
from apps.reinforcement.trajectories import Spec

_GRAVITY, _LEFT, _RIGHT, _MAX_SPEED = 0.0025, -1.2, 0.6, 0.07
_FORCE, _GOAL = 0.001, 0.5
_CONTINUOUS_FORCE, _CONTINUOUS_GOAL = 0.0015, 0.45


class State(typing.NamedTuple):
    """[B] each."""

    position: tf.Tensor
    velocity: tf.Tensor


def mountain_car(max_steps=200, dtype=tf.float32):
    """A weak car in a valley: push left (0), not (1) or right (2), -1 a step until it is on the hill to the right.

    Args:
        max_steps: 200 in MountainCar-v0.
        dtype: of the physics; gymnasium computes in float64. Observations are float32 [B, 2].
    """
    def dynamics(state, action, seed):
        del seed
        after, arrived = _moved(state, (tf.cast(action, dtype) - 1) * _FORCE, _GOAL)
        return after, tf.fill(arrived.shape, -1.0), arrived

    return _environment("mountain_car", Spec((), tf.int32, 0, 2), dynamics, max_steps, dtype, _GOAL)


def mountain_car_continuous(max_steps=999, dtype=tf.float32):
    """The same with a push of -1 to 1, float32 [B, 1]; what is beyond pushes no more but costs.

    The reward is -0.1 action^2 a step, and 100 for the one that arrives.

    Args:
        max_steps: 999 in MountainCarContinuous-v0.
        dtype: of the physics; gymnasium computes in float32. Observations are float32 [B, 2].
    """
    def dynamics(state, action, seed):
        del seed
        push = tf.cast(action[:, 0], dtype)
        after, arrived = _moved(state, tf.clip_by_value(push, -1, 1) * _CONTINUOUS_FORCE, _CONTINUOUS_GOAL)
        return after, tf.where(arrived, 100.0, 0.0) - 0.1 * tf.cast(push, tf.float32) ** 2, arrived

    return _environment("mountain_car_continuous", Spec((1,), tf.float32, -1.0, 1.0), dynamics, max_steps, dtype,
                        _CONTINUOUS_GOAL)


def _moved(state, push, goal):
    """(state after a step, whether the goal is reached)."""
    velocity = state.velocity + (push - _GRAVITY * tf.cos(3 * state.position))
    velocity = tf.clip_by_value(velocity, -_MAX_SPEED, _MAX_SPEED)
    position = tf.clip_by_value(state.position + velocity, _LEFT, _RIGHT)
    is_at_wall = position <= tf.constant(_LEFT, position.dtype)
    velocity = tf.where(is_at_wall & (velocity < 0), tf.zeros_like(velocity), velocity)
    return State(position, velocity), (position >= tf.constant(goal, position.dtype)) & (velocity >= 0)


def _environment(name, action_spec, dynamics, max_steps, dtype, goal):
    def initial(batch, seed):
        return State(uniform([batch], seed, -0.6, -0.4, dtype), tf.zeros([batch], dtype))

    return Environment(
        name, Spec((2,), tf.float32, (_LEFT, -_MAX_SPEED), (_RIGHT, _MAX_SPEED)), action_spec, initial, dynamics,
        lambda state: tf.cast(tf.stack(state, axis=1), tf.float32), max_steps,
        *drawing.painters(lambda canvas, state: _scene(canvas, state, goal), (-1.25, 0.65, -0.05, 1.25)))


def _height(x):
    return 0.45 * math.sin(3 * x) + 0.55


def _scene(canvas, state, goal):
    ground = [(_LEFT + i * (_RIGHT - _LEFT) / 60, _height(_LEFT + i * (_RIGHT - _LEFT) / 60)) for i in range(61)]
    canvas.line(ground, ".", drawing.LEAF, 0.02)
    canvas.line([(goal, _height(goal)), (goal, _height(goal) + 0.18)], "|", drawing.INK)
    canvas.polygon([(goal, _height(goal) + 0.18), (goal + 0.08, _height(goal) + 0.15), (goal, _height(goal) + 0.12)],
                   "F", drawing.RED)
    x, slope = float(state.position), math.atan(1.35 * math.cos(3 * float(state.position)))
    along, across = (math.cos(slope), math.sin(slope)), (-math.sin(slope), math.cos(slope))
    foot = (x + 0.045 * across[0], _height(x) + 0.045 * across[1])
    canvas.polygon(drawing.bar(*((foot[0] + side * along[0], foot[1] + side * along[1]) for side in (-0.06, 0.06)),
                               0.05), "#", drawing.STEEL)
    for side in (-0.035, 0.035):
        canvas.disc((x + side * along[0] + 0.02 * across[0], _height(x) + side * along[1] + 0.02 * across[1]), 0.02,
                    "o", drawing.INK)
