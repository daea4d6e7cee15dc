"""Whether an environment keeps to its specification: tried before training, and looked at in every step of it."""

import numpy as np
import tensorflow as tf

from apps.reinforcement import policies
from apps.reinforcement.action_heads import bounds
from apps.reinforcement.environments import environment as environment_lib

OK, REWARD, OBSERVATION, RANGE = range(4)
_WORDS = {REWARD: "a reward that is not a finite number", OBSERVATION: "an observation that is not finite",
          RANGE: "an observation outside the minimum and maximum of its specification"}
_SLACK = 1e-4  # of rounding, relative


class EnvironmentFault(ValueError):
    """An environment that breaks its specification."""


def fault_of(environment, trajectory, next_time_step):
    """What is wrong with a `Trajectory` [B, T, ...] and the time step after it, int32: OK, or the first of the faults
    that is met. Can be compiled."""
    spec = environment.observation_spec
    reward_ok = tf.reduce_all(tf.math.is_finite(trajectory.reward))
    finite = in_range = tf.constant(True)
    for observation in (trajectory.observation, next_time_step.observation):
        if not spec.is_discrete:
            finite &= tf.reduce_all(tf.math.is_finite(observation))
        low, high = bounds(spec)
        slack = _SLACK * np.maximum(np.abs(np.where(np.isfinite(low) & np.isfinite(high), high - low, 0)), 1)
        number = tf.cast(observation, tf.float64 if spec.is_discrete else tf.float32)
        if np.isfinite(low).any() or np.isfinite(high).any():
            in_range &= tf.reduce_all((number >= tf.cast(low - slack, number.dtype))
                                      & (number <= tf.cast(high + slack, number.dtype)))
    return tf.where(~reward_ok, REWARD, tf.where(~finite, OBSERVATION, tf.where(~in_range, RANGE, OK)))


def error_of(environment, fault, step):
    """The error of a fault, met after `step` steps of all environments together."""
    return EnvironmentFault(
        f"Environment {environment.name!r} gave {_WORDS[int(fault)]} within the rollout that began after "
        f"{int(step)} steps; expected {_expected(environment.observation_spec)}. The state before it is saved; correct "
        "the environment and run the same command again.")


def check_environment(environment, seed=0):
    """Takes a step and looks whether shapes and dtypes are those of the specification.

    Raises:
        EnvironmentFault: they are not.
    """
    seed = tf.constant([seed, 0x7E57], tf.int32)
    running, time_step = environment_lib.reset(environment, 2, seed)
    for _ in range(2):
        _check_part(environment, "observation", time_step.observation, environment.observation_spec)
        action = policies.random(finite_spec(environment.action_spec)).action(time_step, (), seed).action
        running, time_step = environment_lib.step(environment, running, action, seed)
        for name, dtype in (("reward", tf.float32), ("discount", tf.float32), ("step_type", tf.int32)):
            part = getattr(time_step, name)
            if part.shape != [2] or part.dtype != dtype:
                raise EnvironmentFault(f"Environment {environment.name!r}: {name} must be {dtype.name} of shape [B]; "
                                       f"received {part.dtype.name} of shape {list(part.shape)} for B = 2.")


def finite_spec(spec):
    """A continuous specification within -1 and 1 where it has no bounds, for actions that are drawn evenly."""
    if spec.is_discrete:
        return spec
    low, high = bounds(spec)
    return spec._replace(minimum=np.where(np.isfinite(low), low, -1.0), maximum=np.where(np.isfinite(high), high, 1.0))


def _check_part(environment, name, part, spec):
    if part.shape[1:] != spec.shape or part.dtype != spec.dtype:
        raise EnvironmentFault(f"Environment {environment.name!r}: an {name} must be {spec.dtype.name} of shape "
                               f"{list(spec.shape)}, as its specification says; received {part.dtype.name} of shape "
                               f"{list(part.shape[1:])}. Correct the specification or `observe`.")


def _expected(spec):
    return f"observations {spec.dtype.name} of shape {list(spec.shape)} within [{spec.minimum}, {spec.maximum}]"
