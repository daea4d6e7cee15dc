"""TD(lambda) against loops, its two views against each other, and the book's random walk."""

import numpy as np
import pytest
import tensorflow as tf

from apps.reinforcement import dynamic_programming as exact
from apps.reinforcement import td_lambda
from apps.reinforcement.environments import finite
from apps.reinforcement.environments.grid_world import grid_world
from apps.reinforcement.td_lambda import Options


def random_walk(number=19):
    """Sutton & Barto 2018, example 7.1: left or right by chance, -1 at the left end and 1 at the right."""
    states = np.arange(number + 2)
    transitions = np.zeros([number + 2, 1, number + 2])
    for state in states[1:-1]:
        transitions[state, 0, [state - 1, state + 1]] = 0.5
    transitions[0, 0, 0] = transitions[-1, 0, -1] = 1
    rewards = np.zeros_like(transitions)
    rewards[1, 0, 0], rewards[-2, 0, -1] = -1, 1
    table = finite.model(transitions, rewards, np.isin(states, (0, number + 1)), states == (number + 1) // 2, 1.0)
    return finite.environment("random_walk", table, max_steps=1000)


def learner_in_loops(options, values, happened, learner):
    """V of one learner after an episode, step by step as in the book's equations."""
    values = values.copy()
    places, rewards, ended, counts = (part[:, learner] for part in happened)
    length = int(counts.sum())
    traces, before = np.zeros_like(values), values.copy()
    if options.view == "forward":
        for t in range(length):  # equation 12.3: the n-step returns, weighted
            mean, weight = 0.0, 1.0
            for n in range(1, length - t + 1):
                end = t + n
                ahead = 0.0 if ended[end - 1] else before[places[end]]
                n_step = sum(options.discount**k * rewards[t + k] for k in range(n)) + options.discount**n * ahead
                share = weight if end == length else weight * (1 - options.trace_decay)
                mean, weight = mean + share * n_step, weight * options.trace_decay
            values[places[t]] += options.step_size * (mean - before[places[t]])
        return values
    for t in range(length):
        known = values if options.view == "online" else before
        error = rewards[t] - known[places[t]] + options.discount * (0 if ended[t] else known[places[t + 1]])
        traces *= options.discount * options.trace_decay
        traces[places[t]] = 1 if options.traces == "replacing" else traces[places[t]] + 1
        values = values + options.step_size * error * traces
    return values


@pytest.fixture(scope="module")
def happened():
    """Three learners' episodes on slippery ground, of which the limit of steps cuts some."""
    environment = grid_world("S..\n.#H\n..G", slip=0.3, max_steps=12)
    chances = tf.constant(exact.uniform_policy(environment.model))
    episode = td_lambda.play(environment, chances, tf.constant([1, 2]), 3)
    ends = episode.ended.numpy().any(axis=0)
    assert ends.any() and not ends.all()
    return episode


@pytest.mark.parametrize("options", [
    Options("forward", 0.9, 0.8), Options("backward", 0.9, 0.8), Options("online", 0.9, 0.8), Options("forward", 1, 1),
    Options("online", 0.9, 0.6, traces="replacing"), Options("backward", 0.9, 0.0)], ids=str)
def test_changes_equal_loops(happened, options):
    values = np.random.default_rng(1).normal(size=(3, 9))
    found = td_lambda.CHANGED[options.view](options, tf.constant(values), happened)
    rows = [part.numpy() for part in happened]
    for learner in range(3):
        np.testing.assert_allclose(found[learner], learner_in_loops(options, values[learner], rows, learner),
                                   rtol=0, atol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.7, 1.0])
def test_forward_view_equals_backward_view(happened, decay):
    values = tf.constant(np.random.default_rng(2).normal(size=(3, 9)))
    one, other = (td_lambda.CHANGED[view](Options(view, 0.95, decay, 0.3), values, happened)
                  for view in ("forward", "backward"))
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-13)
    assert np.abs(one - values).max() > 0.1


def test_random_walk_also_when_resumed():
    """Figure 12.3: the error over the first ten episodes at lambda 0.8 and a step size of 0.4 is below 0.3."""
    environment, options = random_walk(), Options("online", 1.0, 0.8, 0.4, num_learners=25)
    truth = exact.linear_values(environment.model, np.zeros(21, int))
    np.testing.assert_allclose(truth[1:-1], np.arange(-9, 10) / 10, atol=1e-12)
    program = td_lambda.program(environment, np.ones([21, 1]), options, 5)
    first = program(td_lambda.begin(environment, options, 1))
    rest = program(td_lambda.State(*(part[-1] for part in first)))
    values, state = td_lambda.learn(environment, np.ones([21, 1]), options, 1, num_episodes=10)
    np.testing.assert_array_equal(values, np.concatenate([first.values, rest.values]))
    assert state.episode == 10
    errors = td_lambda.root_mean_square(values, truth, range(1, 20))
    assert errors.mean() < 0.3 and errors[-1].mean() < 0.7 * errors[0].mean()


@pytest.mark.parametrize("changes, words", [
    ({"view": "both"}, "Unknown view 'both'"), ({"traces": "dutch"}, "Unknown kind of traces"),
    ({"trace_decay": 2.0}, "trace_decay must be 0 to 1; received 2.0"), ({"step_size": 0}, "step_size must be above 0"),
    ({"view": "forward", "traces": "replacing"}, "The forward view has no traces to replace")])
def test_options_that_cannot_be(changes, words):
    with pytest.raises(ValueError, match=words):
        Options(**changes)
