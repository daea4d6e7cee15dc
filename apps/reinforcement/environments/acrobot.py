"""Acrobot (Sutton 1996; Sutton & Barto 1998, section 11.3) with the physics of gymnasium's Acrobot-v1."""

import math
import typing

import tensorflow as tf

from apps.reinforcement.environments import drawing
from apps.reinforcement.environments.environment import Environment, uniform
from apps.reinforcement.trajectories import Spec

# Both links alike: 1 m, 1 kg, centre of mass in the middle, moment of inertia 1.
_GRAVITY, _CENTRE, _SECONDS = 9.8, 0.5, 0.2
_MAX_SPEEDS = (4 * math.pi, 9 * math.pi)


class State(typing.NamedTuple):
    """[B] each: radians, 0 hanging down, the second against the first; radians a second."""

    angle: tf.Tensor
    bend: tf.Tensor
    angular_velocity: tf.Tensor
    bend_velocity: tf.Tensor


def acrobot(max_steps=500, dtype=tf.float32):
    """Two links hang from a bar: swing the free end 1 m above it by a torque of -1, 0 or 1 N m between them.

    The reward is -1 a step, 0 for the one that arrives. Observations are float32 [B, 6]: cosine and sine of both
    angles, both velocities.

    Args:
        max_steps: 500 in Acrobot-v1.
        dtype: of the physics; gymnasium computes in float64.
    """
    def initial(batch, seed):
        return State(*tf.unstack(uniform([4, batch], seed, -0.1, 0.1, dtype)))

    def dynamics(state, action, seed):
        del seed
        torque = tf.cast(action, dtype) - 1
        moved = _runge_kutta(lambda s: _derivative(s, torque), state)
        after = State(_wrapped(moved.angle), _wrapped(moved.bend),
                      *(tf.clip_by_value(v, -high, high) for v, high in zip(moved[2:], _MAX_SPEEDS)))
        arrived = -tf.cos(after.angle) - tf.cos(after.bend + after.angle) > 1
        return after, tf.where(arrived, 0.0, -1.0), arrived

    def observe(state):
        shown = (tf.cos(state.angle), tf.sin(state.angle), tf.cos(state.bend), tf.sin(state.bend), *state[2:])
        return tf.cast(tf.stack(shown, axis=1), tf.float32)

    limits = (1.0, 1.0, 1.0, 1.0, *_MAX_SPEEDS)
    return Environment(
        "acrobot", Spec((6,), tf.float32, tuple(-limit for limit in limits), limits), Spec((), tf.int32, 0, 2),
        initial, dynamics, observe, max_steps, *drawing.painters(_scene, (-2.2, 2.2, -2.2, 2.2), width=300, columns=50))


def _derivative(state, torque):
    """Change of a state a second: Sutton & Barto 1998, figure 11.4, as its equations stand in the book."""
    angle, bend, v, w = state
    cosine, sine = tf.cos(bend), tf.sin(bend)
    inertia = _CENTRE**2 + (1 + _CENTRE**2 + 2 * _CENTRE * cosine) + 2
    coupling = _CENTRE**2 + _CENTRE * cosine + 1
    lower = _CENTRE * _GRAVITY * tf.cos(angle + bend - math.pi / 2)
    upper = (-_CENTRE * w * w * sine - 2 * _CENTRE * w * v * sine
             + (_CENTRE + 1) * _GRAVITY * tf.cos(angle - math.pi / 2) + lower)
    bending = ((torque + coupling / inertia * upper - _CENTRE * v * v * sine - lower)
               / (_CENTRE**2 + 1 - coupling * coupling / inertia))
    return State(v, w, -(coupling * bending + upper) / inertia, bending)


def _runge_kutta(derivative, state):
    """The state one step of the classical method of fourth order later."""
    def moved(change, seconds):
        return State(*(s + seconds * c for s, c in zip(state, change)))

    first = derivative(state)
    second = derivative(moved(first, _SECONDS / 2))
    third = derivative(moved(second, _SECONDS / 2))
    fourth = derivative(moved(third, _SECONDS))
    mean = (a + 2 * b + 2 * c + d for a, b, c, d in zip(first, second, third, fourth))
    return moved(mean, _SECONDS / 6)


def _wrapped(angle):
    """The same angle from -pi to pi."""
    return angle - 2 * math.pi * tf.math.ceil((angle - math.pi) / (2 * math.pi))


def _scene(canvas, state):
    angle, both = float(state.angle), float(state.angle) + float(state.bend)
    joint = (math.sin(angle), -math.cos(angle))
    tip = (joint[0] + math.sin(both), joint[1] - math.cos(both))
    canvas.line([(-2.2, 1), (2.2, 1)], "-", drawing.INK)
    for base, end in (((0, 0), joint), (joint, tip)):
        canvas.polygon(drawing.bar(base, end, 0.16), "#", drawing.STEEL)
        canvas.disc(base, 0.1, "o", drawing.AMBER)
    canvas.disc(tip, 0.06, "*", drawing.RED)
