"""Drivers and metrics against a loop that steps one thing after the other."""

import numpy as np
import pytest
import tensorflow as tf

from apps.reinforcement import drivers, metrics, policies
from apps.reinforcement.environments import environment as environment_lib
from apps.reinforcement.environments.cart_pole import cart_pole
from apps.reinforcement.trajectories import StepType

ENVIRONMENT = cart_pole(max_steps=12)
SEED = tf.constant([5, 9])
POLICY = policies.random(ENVIRONMENT.action_spec)


def begin(batch):
    return environment_lib.reset(ENVIRONMENT, batch, tf.constant([1, 2]))


def looped(batch, number):
    """The same steps one by one, as lists of time steps and actions."""
    running, time_step = begin(batch)
    seeds = environment_lib.split(SEED, 2 * number)
    steps, actions = [time_step], []
    for t in range(number):
        actions.append(POLICY.action(steps[-1], (), seeds[2 * t]).action)
        running, time_step = environment_lib.step(ENVIRONMENT, running, actions[-1], seeds[2 * t + 1])
        steps.append(time_step)
    return steps, actions


def test_steps_are_those_of_a_loop():
    running, time_step = begin(3)
    compiled = tf.function(lambda r, s: drivers.run_steps(ENVIRONMENT, POLICY, r, s, (), 30, SEED), jit_compile=True)
    for run in (lambda r, s: drivers.run_steps(ENVIRONMENT, POLICY, r, s, (), 30, SEED), compiled):
        _, last, _, rows = run(running, time_step)
        steps, actions = looped(3, 30)
        for t in range(30):
            np.testing.assert_allclose(rows.observation[:, t], steps[t].observation, atol=1e-5)
            np.testing.assert_array_equal(rows.step_type[:, t], steps[t].step_type)
            np.testing.assert_array_equal(rows.action[:, t], actions[t])
            for name, other in (("reward", "reward"), ("discount", "discount"), ("next_step_type", "step_type")):
                np.testing.assert_array_equal(getattr(rows, name)[:, t], getattr(steps[t + 1], other))
        np.testing.assert_allclose(last.observation, steps[-1].observation, atol=1e-5)
    assert (rows.step_type.numpy() == StepType.LAST).any() and rows.observation.shape == [3, 30, 4]


def test_python_steps_are_the_same():
    class Stepped:
        """The pure environment, stepped from Python."""

        def __init__(self, seeds):
            self.running, self.first = begin(3)
            self.seeds = iter(seeds)

        def step(self, action):
            self.running, time_step = environment_lib.step(ENVIRONMENT, self.running, action, next(self.seeds))
            return time_step

    seeds = environment_lib.split(SEED, 10)
    stepped = Stepped(environment_lib.split(tf.constant([8, 8]), 10))
    _, last, rows = drivers.python_steps(stepped, POLICY, stepped.first, 10, SEED)
    running, time_step = begin(3)
    for t, seed in enumerate(environment_lib.split(tf.constant([8, 8]), 10)):
        np.testing.assert_array_equal(rows.observation[:, t], time_step.observation)
        action = POLICY.action(time_step, (), seeds[t]).action
        np.testing.assert_array_equal(rows.action[:, t], action)
        running, time_step = environment_lib.step(ENVIRONMENT, running, action, seed)
    np.testing.assert_array_equal(last.observation, time_step.observation)


@pytest.mark.parametrize("number", [1, 3])
def test_episodes_are_whole_and_equally_many(number):
    rows = drivers.run_episodes(ENVIRONMENT, POLICY, 4, SEED, num_episodes=number)
    assert rows.reward.shape == [4, 12 * number + number - 1]
    is_step = rows.step_type.numpy() != StepType.LAST
    ends = is_step & (rows.next_step_type.numpy() == StepType.LAST)
    assert (ends.sum(axis=1) == number).all()
    assert ((rows.step_type.numpy() == StepType.FIRST) & is_step).sum(axis=1).tolist() == [number] * 4
    for row, end in zip(is_step, ends):
        assert not row[np.flatnonzero(end)[-1] + 1:].any()  # nothing after the last


def test_a_trial_counts_the_first_episode_only():
    returns, lengths = (part.numpy() for part in drivers.evaluate(ENVIRONMENT, POLICY, 64, SEED))
    np.testing.assert_array_equal(returns, lengths)  # CartPole gives 1 a step
    assert lengths.min() >= 8 and lengths.max() == 12
    shorter = drivers.evaluate(ENVIRONMENT, POLICY, 64, SEED, max_steps=5)[1].numpy()
    assert (shorter == 5).all()


def test_metrics_follow_the_episodes_across_rollouts():
    running, time_step = begin(5)
    state, returns, lengths, total, steps = metrics.initial(5), [], [], np.zeros(5), 0
    act = tf.function(lambda *parts: drivers.run_steps(ENVIRONMENT, POLICY, *parts[:2], (), 9, parts[2]))
    update = tf.function(metrics.update)
    assert np.isnan(metrics.average_return(state).numpy())
    for number in range(32):
        seed = tf.constant([number, 3])
        running, time_step, _, rows = act(running, time_step, seed)
        rows = rows._replace(reward=rows.reward * 2)
        state = update(state, rows)
        kinds, following = rows.step_type.numpy(), rows.next_step_type.numpy()
        for t in range(9):
            for b in range(5):
                if kinds[b, t] != StepType.LAST:
                    total[b] += 2
                    steps += 1
                    if following[b, t] == StepType.LAST:
                        returns.append(total[b])
                        lengths.append(total[b] / 2)
                        total[b] = 0
    assert int(state.num_episodes) == len(returns) > metrics.WINDOW and int(state.num_steps) == steps
    assert metrics.average_return(state).numpy() == pytest.approx(np.mean(returns[-100:]))
    assert metrics.average_length(state).numpy() == pytest.approx(np.mean(lengths[-100:]))


def test_an_episode_that_may_never_end():
    endless = ENVIRONMENT._replace(max_steps=None)
    with pytest.raises(ValueError, match="'cart_pole' has no limit of steps.*expected max_steps.*received None"):
        drivers.run_episodes(endless, POLICY, 2, SEED)
