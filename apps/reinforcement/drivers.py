"""Drivers let a policy act in environments and return what happened, as trajectories [B, T, ...].

`run_steps` and `run_episodes` are TF-Agents' dynamic step and episode driver for the pure environments: they can be
compiled, alone or with what learns from them. `python_steps` does the same with an environment that is stepped from
Python. B environments, T steps.
"""

import numpy as np
import tensorflow as tf

from apps.reinforcement.environments import environment as environment_lib
from apps.reinforcement.environments.environment import fold, split
from apps.reinforcement.trajectories import StepType, from_transition


def run_steps(environment, policy, running, time_step, policy_state, num_steps, seed):
    """Takes `num_steps` steps in each of B environments.

    Args:
        environment: `environment.Environment`.
        policy: `policies.Policy`.
        running, time_step: of `environment.reset`, or what the last call left.
        policy_state: of `policy.initial_state(B)`, or what the last call left.
        num_steps: T, a Python number. The step from LAST to FIRST counts as one, so that shapes are known.
        seed: int32 [2].

    Returns:
        (running, time step, policy state, `Trajectory` [B, T, ...]).
    """
    seeds = split(seed, 2 * num_steps)
    rows = _rows_of(environment, policy, time_step, policy_state, num_steps, seed)

    def body(t, running, time_step, policy_state, rows):
        running, after, step = _act(environment, policy, running, time_step, policy_state, seeds[2 * t],
                                    seeds[2 * t + 1])
        return t + 1, running, after, step.state, _write(rows, t, from_transition(time_step, step, after))

    _, running, time_step, policy_state, rows = tf.while_loop(
        lambda t, *_: t < num_steps, body, (0, running, time_step, policy_state, rows),
        maximum_iterations=num_steps)
    return running, time_step, policy_state, _stacked(environment, policy, rows, time_step, policy_state)


def run_episodes(environment, policy, batch, seed, *, num_episodes=1, max_steps=None):
    """Plays `num_episodes` episodes from the beginning in each of B environments.

    Each environment plays equally many, so that short episodes have no more weight than long ones.

    Args:
        environment, policy, seed: as of `run_steps`.
        batch: B.
        num_episodes: in each environment.
        max_steps: T, at most; None: as many as the environment's own limit makes.

    Returns:
        `Trajectory` [B, T, ...]. What comes after the last episode of an environment is marked as a boundary.

    Raises:
        ValueError: neither the environment nor the call limits the number of steps.
    """
    limit = _limit(environment, max_steps, num_episodes)
    seed, start = tf.unstack(split(seed, 2))
    running, time_step = environment_lib.reset(environment, batch, start)
    policy_state = policy.initial_state(batch)
    seeds = split(seed, 2 * limit)
    rows = _rows_of(environment, policy, time_step, policy_state, limit, seed)

    def body(t, ended, running, time_step, policy_state, rows):
        running, after, step = _act(environment, policy, running, time_step, policy_state, seeds[2 * t],
                                    seeds[2 * t + 1])
        row = from_transition(time_step, step, after)
        row = row._replace(step_type=tf.where(ended >= num_episodes, int(StepType.LAST), row.step_type))
        ended += tf.cast(after.is_last(), tf.int32)
        return t + 1, ended, running, after, step.state, _write(rows, t, row)

    end, _, _, time_step, policy_state, rows = tf.while_loop(
        lambda t, ended, *_: (t < limit) & tf.reduce_any(ended < num_episodes), body,
        (0, tf.zeros([batch], tf.int32), running, time_step, policy_state, rows), maximum_iterations=limit)
    rows = _stacked(environment, policy, rows, time_step, policy_state)
    return rows._replace(step_type=tf.where(tf.range(limit) < end, rows.step_type, int(StepType.LAST)))


def evaluate(environment, policy, batch, seed, *, max_steps=None):
    """Plays one episode in each of B environments and keeps only what it brought.

    Args:
        As of `run_episodes`.

    Returns:
        (returns float32 [B], lengths int32 [B]); an episode that is cut at `max_steps` counts as far as it went.
    """
    limit = _limit(environment, max_steps, 1)
    seed, start = tf.unstack(split(seed, 2))
    running, first = environment_lib.reset(environment, batch, start)

    def body(t, playing, returns, lengths, state, policy_state):
        seeds = split(fold(seed, t), 2)
        # What comes after the end is not looked at, so that nothing has to be begun again.
        step = policy.action(first._replace(observation=environment.observe(state)), policy_state, seeds[0])
        state, reward, terminated = environment.dynamics(state, step.action, seeds[1])
        returns += tf.where(playing, reward, 0.0)
        lengths += tf.cast(playing, tf.int32)
        return t + 1, playing & ~terminated, returns, lengths, state, step.state

    _, _, returns, lengths, *_ = tf.while_loop(
        lambda t, playing, *_: (t < limit) & tf.reduce_any(playing), body,
        (0, tf.ones([batch], tf.bool), tf.zeros([batch]), tf.zeros([batch], tf.int32), running.state,
         policy.initial_state(batch)))
    return returns, lengths


def _limit(environment, max_steps, num_episodes):
    limit = max_steps or environment.max_steps
    if not limit:
        raise ValueError(f"Environment {environment.name!r} has no limit of steps, so an episode may never end: "
                         "expected max_steps, a positive integer; received None.")
    return limit * num_episodes + num_episodes - 1  # the steps from LAST to FIRST between them


def _act(environment, policy, running, time_step, policy_state, act_seed, step_seed):
    step = policy.action(time_step, policy_state, act_seed)
    running, after = environment_lib.step(environment, running, step.action, step_seed)
    return running, after, step


def _rows_of(environment, policy, time_step, policy_state, length, seed):
    """A TensorArray for each tensor of a trajectory."""
    step = policy.action(time_step, policy_state, seed)  # for dtypes and shapes; not computed
    row = from_transition(time_step, step, time_step)
    return tuple(tf.TensorArray(part.dtype, length, element_shape=part.shape) for part in tf.nest.flatten(row))


def _write(rows, t, row):
    return tuple(array.write(t, part) for array, part in zip(rows, tf.nest.flatten(row), strict=True))


def _stacked(environment, policy, rows, time_step, policy_state):
    step = policy.action(time_step, policy_state, tf.zeros([2], tf.int32))
    structure = from_transition(time_step, step, time_step)
    return tf.nest.pack_sequence_as(structure, [batch_major(array.stack()) for array in rows])


def batch_major(tensor):
    """[T, B, ...] as [B, T, ...]."""
    return tf.transpose(tensor, [1, 0, *range(2, len(tensor.shape))])


def python_steps(environment, policy, time_step, num_steps, seed):
    """As `run_steps`, for environments that are stepped from Python.

    Args:
        environment: `gym.GymBatch`, or anything with `step(action) -> TimeStep` for B environments.
        policy: `policies.Policy` without a state.
        time_step: what the environments showed last.
        num_steps, seed: as of `run_steps`.

    Returns:
        ((), time step, `Trajectory` [B, T, ...]).
    """
    rows, seeds = [], split(seed, num_steps)
    for t in range(num_steps):
        step = policy.action(time_step, (), seeds[t])
        after = environment.step(step.action)
        rows.append(from_transition(time_step, step, after))
        time_step = after
    return (), time_step, tf.nest.map_structure(lambda *parts: tf.stack(parts, axis=1), *rows)


def python_evaluate(environment, policy, max_steps):
    """As `evaluate`, for environments that are stepped from Python.

    Args:
        environment: `gym.GymBatch` of E environments, which is reset.
        policy: greedy `policies.Policy`.
        max_steps: after which an episode is cut.

    Returns:
        (returns float64 [E], lengths int [E]), NumPy.
    """
    time_step = environment.reset()
    playing = np.ones(time_step.reward.shape[0], bool)
    returns, lengths = np.zeros(len(playing)), np.zeros(len(playing), int)
    for _ in range(max_steps):
        time_step = environment.step(policy.action(time_step, ()).action)
        returns += np.where(playing, time_step.reward.numpy(), 0)
        lengths += playing
        playing &= ~time_step.is_last().numpy()
        if not playing.any():
            break
    return returns, lengths
