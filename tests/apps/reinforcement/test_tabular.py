"""Tables learned from episodes, against exact solutions, loops of NumPy, and the book's figures."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from apps.reinforcement import dynamic_programming as exact
from apps.reinforcement import exploration, tabular
from apps.reinforcement.environments import catalogue, finite
from apps.reinforcement.environments.environment import fold, split, uniform
from apps.reinforcement.environments.gambler import gambler
from apps.reinforcement.environments.grid_world import cliff_walk, grid_world
from apps.reinforcement.tabular import Options

SMALL = grid_world("S..\n.#H\n..G", slip=0.3, max_steps=12, discount=0.9)


def in_loops(environment, options, seed, num_episodes):
    """The algorithms as in the boxes of Sutton & Barto, one learner, by the same random numbers: (Q, counts)."""
    values = np.full([environment.model.num_states, environment.model.num_actions], options.initial_value)
    counts, steps = np.zeros(values.shape, np.int32), 0
    amount = exploration.schedule(options.schedule, options.start, options.end, options.steps)

    def chances(state):
        tables = (tf.constant(table[state][None]) for table in (values, counts))
        return exploration.probabilities(options.exploration, *tables, amount(tf.constant([steps])))

    def move(state, action, seed):
        after, reward, ended = environment.dynamics(tf.constant([state]), tf.constant([action]), seed)
        return int(after[0]), float(reward[0]), bool(ended[0])

    def choose(state, seed):
        return int(exploration.choose(chances(state), uniform([1], seed))[0])

    def learn(state, action, target, traces=None):
        counts[state, action] += 1
        share = options.step_size / counts[state, action] ** options.step_size_power
        error = target - values[state, action]
        if traces is None:
            values[state, action] += share * error
        else:
            values[...] += share * error * traces

    for episode in range(num_episodes):
        begin = fold(tf.constant([seed, 0]), episode)
        state = int(environment.initial(1, split(begin, 2)[0])[0])
        happened, traces = [], np.zeros_like(values)
        action = choose(state, split(begin, 2)[1])
        for time in range(environment.max_steps):
            seeds = split(fold(begin, time), 2)
            if options.algorithm == "monte_carlo":
                action = choose(state, seeds[1])
            after, reward, ended = move(state, action, seeds[0])
            steps += 1
            if options.algorithm == "monte_carlo":
                happened.append((state, action, reward))
            else:
                following = choose(after, seeds[1])
                ahead = {"sarsa": values[after, following], "q_learning": values[after].max(),
                         "expected_sarsa": float(np.sum(chances(after)[0] * values[after]))}[options.algorithm]
                traces *= options.discount * options.trace_decay
                traces[state, action] = 1 if options.traces == "replacing" else traces[state, action] + 1
                learn(state, action, reward + options.discount * ahead * (not ended), traces)
                if options.algorithm != "sarsa":
                    following = choose(after, seeds[1])
                if options.algorithm == "q_learning" and values[after, following] < values[after].max():
                    traces[...] = 0
                action = following
            state = after
            if ended:
                break
        gained = 0.0
        for time, (state, action, reward) in reversed(list(enumerate(happened))):
            gained = reward + options.discount * gained
            if options.visits == "every" or (state, action) not in [row[:2] for row in happened[:time]]:
                learn(state, action, gained)
    return values, counts


@pytest.mark.parametrize("options", [
    Options("q_learning", discount=0.9, start=0.4, step_size_power=0.6, step_size=1.0),
    Options("sarsa", discount=0.9, schedule="linear", start=1.0, end=0.1, steps=60, trace_decay=0.7),
    Options("q_learning", discount=0.9, start=0.3, trace_decay=0.8, traces="replacing", initial_value=0.5),
    Options("expected_sarsa", discount=0.9, exploration="boltzmann", start=0.2, end=0.2),
    Options("monte_carlo", discount=0.9, exploration="ucb", start=0.5, step_size=1.0, step_size_power=1.0),
    Options("monte_carlo", discount=0.9, start=0.7, visits="every")],
    ids=lambda options: f"{options.algorithm}-{options.exploration}-{options.trace_decay:g}")
def test_tables_equal_loops_also_when_resumed(options):
    program = tabular.program(SMALL, options, 3)
    half, _, first = program(tabular.begin(SMALL, options, 5))
    whole, _, last = program(half)
    values, counts = in_loops(SMALL, options, 5, 6)
    np.testing.assert_array_equal(whole.counts[0], counts)
    np.testing.assert_allclose(whole.values[0], values, rtol=1e-9, atol=1e-12)
    assert np.concatenate([first, last]).sum() == whole.steps[0] and len(np.unique(values)) > 5


def test_learners_do_not_influence_each_other():
    options = Options("sarsa", discount=0.9, start=0.3, trace_decay=0.5, num_learners=3)
    program = tabular.program(SMALL, options, 10)
    state = tabular.begin(SMALL, options, 7)
    alike, *_ = program(state)
    changed, *_ = program(state._replace(values=state.values + np.array([0, 0, 1.0])[:, None, None]))
    np.testing.assert_array_equal(changed.values[:2], alike.values[:2])
    assert not np.array_equal(changed.values[2], alike.values[2])
    assert not np.array_equal(alike.values[0], alike.values[1])


def test_q_learning_finds_the_shortest_path():
    environment = catalogue.make("shortest_path")
    optimum = exact.value_iteration(environment.model)
    result = tabular.learn(environment, Options(discount=0.9, step_size=1.0, start=0.5), 1, num_episodes=1000)
    np.testing.assert_allclose(result.values[0], optimum.action_values, rtol=0, atol=1e-9)
    text = finite.path_text(environment.model, tabular.greedy(result.values[0]).numpy(), 0)
    print(text)
    assert text == "0 -> 1 -> 4 -> 7 -> 8: 4 steps, return 100"


def entered(model):
    """States, bool [S], that an episode can be in; not the cliff itself, nor the end."""
    found = model.initial > 0
    for _ in range(model.num_states):
        found |= np.einsum("s,sat->t", found & ~model.terminal, model.transitions) > 0
    return found & ~model.terminal


def test_q_learning_reaches_the_optimum_of_the_cliff_walk():
    """Nothing is random there, so that a step size of 1 gives it without error; from half the actions at random."""
    environment = cliff_walk(max_steps=500)
    optimum = exact.value_iteration(environment.model)
    result = tabular.learn(environment, Options(step_size=1.0, start=0.5), 1, num_episodes=1000)
    rows = entered(environment.model)
    assert rows.sum() == 37
    np.testing.assert_allclose(result.values[0][rows], optimum.action_values[rows], rtol=0, atol=1e-9)
    path = finite.path(environment.model, tabular.greedy(result.values[0]).numpy(), 36)
    assert path == [36, *range(24, 36), 47]


def test_q_learning_comes_near_the_optimum_of_the_gambler():
    """16 to win: every value within 0.05, within 0.01 in the mean; and what its policy earns, within 0.05."""
    environment = gambler(16)
    optimum = exact.value_iteration(environment.model)
    options = Options(step_size=1.0, step_size_power=0.8, start=0.5)
    result = tabular.learn(environment, options, 1, num_episodes=80_000)
    error = np.abs(result.values[0] - optimum.action_values)
    assert error.max() < 0.05 and error.mean() < 0.01
    policy = tabular.greedy(result.values[0]).numpy()
    assert np.abs(exact.linear_values(environment.model, policy) - optimum.values).max() < 0.05


def test_sarsa_goes_the_safe_way_and_q_learning_along_the_cliff():
    """Sutton & Barto 2018, figure 6.4: about -25 and -50 an episode while exploring; means of 30 learners."""
    environment, paths, gained = cliff_walk(), {}, {}
    for algorithm in ("sarsa", "q_learning"):
        result = tabular.learn(environment, Options(algorithm, step_size=0.5, num_learners=30), 1, num_episodes=500)
        gained[algorithm] = result.returns[-100:].mean()
        mean = tabular.greedy(result.values.mean(axis=0)).numpy()
        paths[algorithm] = finite.path(environment.model, mean, 36)
    assert -30 < gained["sarsa"] < -20 and -60 < gained["q_learning"] < -40
    assert paths["q_learning"] == [36, *range(24, 36), 47]
    assert paths["sarsa"][-1] == 47 and {state // 12 for state in paths["sarsa"][3:-3]} <= {0, 1}


@pytest.mark.parametrize("changes, words", [
    ({"algorithm": "q"}, "Unknown algorithm 'q'.*q_learning"), ({"visits": "last"}, "Unknown kind of visits 'last'"),
    ({"exploration": "none"}, "Unknown exploration"), ({"traces": "dutch"}, "Unknown kind of traces 'dutch'"),
    ({"discount": 1.1}, "discount must be 0 to 1; received 1.1"), ({"step_size": 0.0}, "step_size must be above 0"),
    ({"algorithm": "monte_carlo", "trace_decay": 0.5}, "monte_carlo has no traces"),
    ({"exploration": "boltzmann", "end": 0.0}, "temperature of boltzmann must stay above 0"),
    ({"schedule": "linear", "steps": 0}, "at least 1 step")])
def test_options_that_cannot_be(changes, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(Options(), **changes)


@pytest.mark.parametrize("environment, words", [
    (catalogue.make("cart_pole"), r"numbered observations; those of cart_pole are float32 of the shape \[4\]"),
    (catalogue.make("gambler")._replace(action_spec=catalogue.make("pendulum").action_spec), "numbered actions"),
    (catalogue.make("gambler")._replace(max_steps=None), "gambler has no limit of steps")])
def test_environments_without_a_table(environment, words):
    with pytest.raises(ValueError, match=words):
        tabular.learn(environment, Options(), num_episodes=1)
