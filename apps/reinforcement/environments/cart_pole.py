"""CartPole (Barto, Sutton & Anderson 1983) with the physics of gymnasium's CartPole-v1."""

import math
import typing

import tensorflow as tf

from apps.reinforcement.environments import drawing
from apps.reinforcement.environments.environment import Environment, uniform
from apps.reinforcement.trajectories import Spec

_GRAVITY, _CART_MASS, _POLE_MASS, _HALF_LENGTH, _FORCE, _SECONDS = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
_MASS, _MOMENT = _CART_MASS + _POLE_MASS, _POLE_MASS * _HALF_LENGTH
_MAX_POSITION, _MAX_ANGLE = 2.4, 12 * 2 * math.pi / 360


class State(typing.NamedTuple):
    """[B] each: metres, metres a second, radians, radians a second."""

    position: tf.Tensor
    velocity: tf.Tensor
    angle: tf.Tensor
    angular_velocity: tf.Tensor


def cart_pole(max_steps=500, dtype=tf.float32):
    """A pole on a cart: push it left (0) or right (1), 1 a step until it falls or the cart leaves the track.

    Args:
        max_steps: 500 in CartPole-v1, 200 in v0.
        dtype: of the physics; gymnasium computes in float64. Observations are float32 [B, 4].
    """
    def initial(batch, seed):
        return State(*tf.unstack(uniform([4, batch], seed, -0.05, 0.05, dtype)))

    def dynamics(state, action, seed):
        del seed
        x, v, angle, w = state
        force = tf.where(tf.equal(action, 1), tf.constant(_FORCE, dtype), -_FORCE)
        sine, cosine = tf.sin(angle), tf.cos(angle)
        push = (force + _MOMENT * w * w * sine) / _MASS
        turn = (_GRAVITY * sine - cosine * push) / (_HALF_LENGTH * (4 / 3 - _POLE_MASS * cosine * cosine / _MASS))
        acceleration = push - _MOMENT * turn * cosine / _MASS
        after = State(x + _SECONDS * v, v + _SECONDS * acceleration, angle + _SECONDS * w, w + _SECONDS * turn)
        fallen = (tf.abs(after.position) > _MAX_POSITION) | (tf.abs(after.angle) > _MAX_ANGLE)
        return after, tf.ones_like(fallen, tf.float32), fallen

    limits = (2 * _MAX_POSITION, math.inf, 2 * _MAX_ANGLE, math.inf)
    return Environment(
        "cart_pole", Spec((4,), tf.float32, tuple(-limit for limit in limits), limits), Spec((), tf.int32, 0, 1),
        initial, dynamics, lambda state: tf.cast(tf.stack(state, axis=1), tf.float32), max_steps,
        *drawing.painters(_scene, (-2.6, 2.6, -0.3, 1.3)))


def _scene(canvas, state):
    x, angle = float(state.position), float(state.angle)
    canvas.line([(-_MAX_POSITION, 0), (_MAX_POSITION, 0)], "-", drawing.INK)
    canvas.polygon([(x - 0.25, -0.1), (x - 0.25, 0.1), (x + 0.25, 0.1), (x + 0.25, -0.1)], "#", drawing.STEEL)
    tip = (x + 2 * _HALF_LENGTH * math.sin(angle), 0.1 + 2 * _HALF_LENGTH * math.cos(angle))
    canvas.polygon(drawing.bar((x, 0.1), tip, 0.08), "|", drawing.WOOD)
    canvas.disc((x, 0.1), 0.05, "o", drawing.RED)
