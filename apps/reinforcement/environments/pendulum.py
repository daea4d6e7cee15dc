"""A pendulum to be swung up, with the physics of gymnasium's Pendulum-v1."""

import math
import typing

import tensorflow as tf

from apps.reinforcement.environments import drawing
from apps.reinforcement.environments.environment import Environment, uniform
from apps.reinforcement.trajectories import Spec

_GRAVITY, _SECONDS, _MAX_SPEED, _MAX_TORQUE = 10.0, 0.05, 8.0, 2.0  # 1 kg at 1 m


class State(typing.NamedTuple):
    """[B] each: radians from upright, not wrapped; radians a second."""

    angle: tf.Tensor
    angular_velocity: tf.Tensor


def pendulum(max_steps=200, dtype=tf.float32):
    """Swing a pendulum up and hold it there by a torque of -2 to 2 N m, float32 [B, 1]; it ends by the limit only.

    The reward is -(angle^2 + 0.1 velocity^2 + 0.001 torque^2), of the state before the step. Observations are float32
    [B, 3]: cosine and sine of the angle, velocity.

    Args:
        max_steps: 200 in Pendulum-v1.
        dtype: of the physics; gymnasium computes in float64.
    """
    def initial(batch, seed):
        angle, velocity = tf.unstack(uniform([2, batch], seed, -1.0, 1.0, dtype))
        return State(math.pi * angle, velocity)

    def dynamics(state, action, seed):
        del seed
        torque = tf.clip_by_value(action[:, 0], -_MAX_TORQUE, _MAX_TORQUE)
        push, angle, velocity = tf.cast(3 * torque, dtype), *state  # the product in float32, as in gymnasium
        lean = tf.math.floormod(angle + math.pi, 2 * math.pi) - math.pi
        cost = lean**2 + 0.1 * velocity**2 + tf.cast(0.001 * torque**2, dtype)
        velocity += (1.5 * _GRAVITY * tf.sin(angle) + push) * _SECONDS
        velocity = tf.clip_by_value(velocity, -_MAX_SPEED, _MAX_SPEED)
        return (State(angle + _SECONDS * velocity, velocity), -tf.cast(cost, tf.float32),
                tf.zeros(angle.shape, tf.bool))

    def observe(state):
        shown = (tf.cos(state.angle), tf.sin(state.angle), state.angular_velocity)
        return tf.cast(tf.stack(shown, axis=1), tf.float32)

    limits = (1.0, 1.0, _MAX_SPEED)
    return Environment(
        "pendulum", Spec((3,), tf.float32, tuple(-limit for limit in limits), limits),
        Spec((1,), tf.float32, -_MAX_TORQUE, _MAX_TORQUE), initial, dynamics, observe, max_steps,
        *drawing.painters(_scene, (-1.3, 1.3, -1.3, 1.3), width=240, columns=44))


def _scene(canvas, state):
    angle = float(state.angle)
    tip = (-math.sin(angle), math.cos(angle))  # anticlockwise, as gymnasium draws it
    canvas.polygon(drawing.bar((0, 0), tip, 0.16), "#", drawing.WOOD)
    canvas.disc((0, 0), 0.06, "o", drawing.INK)
    canvas.disc(tip, 0.08, "*", drawing.RED)
