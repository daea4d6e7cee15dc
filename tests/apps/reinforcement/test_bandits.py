"""Bandit algorithms against loops of NumPy, and their regret against theory."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from apps.reinforcement import bandits, exploration
from apps.reinforcement.bandits import Options
from apps.reinforcement.environments import advertising, bandit
from apps.reinforcement.environments.environment import fold, split, uniform


def in_loops(problem, options, seed, num_steps):
    """One run after another, arm by arm, by the same random numbers: (actions, rewards) [T, R]."""
    seeds = split(tf.constant([seed, 0]), 2)
    parameters = problem.begin(options.num_runs, seeds[0])
    arms, size = problem.num_arms, problem.num_features
    pulls, sums = np.zeros([2, options.num_runs, arms])
    designs = np.tile(options.ridge * np.eye(size), (options.num_runs, arms, 1, 1))
    weighted = np.zeros([options.num_runs, arms, size])
    amount = exploration.schedule(options.schedule, options.start, options.end, options.steps)
    rows = []
    for step in range(num_steps):
        context_seed, algorithm_seed, action_seed, reward_seed = split(fold(seeds[1], step), 4)
        contexts = problem.context(parameters, context_seed)
        truth = problem.means(parameters, contexts).numpy()
        numbers = uniform([options.num_runs], action_seed).numpy()
        normal = bandit.gaussian([options.num_runs, arms], algorithm_seed).numpy()
        drawn = np.zeros([options.num_runs, arms])
        if options.algorithm == "thompson":
            drawn = bandits.beta(tf.constant(1 + sums), tf.constant(1 + pulls - sums), algorithm_seed).numpy()
        epsilon, actions = float(amount(step)), []
        for run in range(options.num_runs):
            x, scores = contexts[run].numpy().astype(np.float64), np.zeros(arms)
            for arm in range(arms):
                mean = sums[run, arm] / pulls[run, arm] if pulls[run, arm] else options.initial_value
                theta = np.linalg.solve(designs[run, arm], weighted[run, arm])
                deviation = np.sqrt(x @ np.linalg.solve(designs[run, arm], x))
                unknown = np.inf if not pulls[run, arm] else np.sqrt(np.log(max(step, 1)) / pulls[run, arm])
                scores[arm] = {
                    "epsilon_greedy": mean, "ucb": mean + options.width * unknown, "thompson": drawn[run, arm],
                    "linear_epsilon_greedy": x @ theta, "linucb": x @ theta + options.width * deviation,
                    "linear_thompson": x @ theta + options.width * deviation * normal[run, arm]}[options.algorithm]
            is_best = scores > scores.max() - 1e-12 if np.isfinite(scores.max()) else scores == np.inf
            chances = is_best / is_best.sum()
            if "epsilon" in options.algorithm:
                chances = epsilon / arms + (1 - epsilon) * chances
            actions.append(int(np.searchsorted(np.cumsum(chances), numbers[run], side="right")))
        rewards = bandit.pull(problem, tf.constant(truth[np.arange(options.num_runs), actions]), reward_seed).numpy()
        for run, (action, reward) in enumerate(zip(actions, rewards)):
            x = contexts[run].numpy().astype(np.float64)
            pulls[run, action] += 1
            sums[run, action] += reward
            designs[run, action] += np.outer(x, x)
            weighted[run, action] += reward * x
        rows.append((actions, rewards, truth.max(axis=1) - truth[np.arange(options.num_runs), actions]))
    return [np.array(column) for column in zip(*rows)]


@pytest.mark.parametrize("options, problem", [
    (Options("epsilon_greedy", "linear", 0.5, 0.1, 20, num_runs=2), bandit.k_armed(4)),
    (Options("ucb", num_runs=2), bandit.k_armed(4)),
    (Options("thompson", num_runs=2), bandit.k_armed(4, "bernoulli")),
    (Options("linear_epsilon_greedy", start=0.3, num_runs=2), advertising.bandit()),
    (Options("linucb", width=0.4, num_runs=2), advertising.bandit()),
    (Options("linear_thompson", width=0.3, ridge=0.5, num_runs=2), advertising.bandit())],
    ids=lambda item: getattr(item, "algorithm", ""))
def test_pulls_equal_loops_also_when_resumed(options, problem):
    program = bandits.program(problem, options, 8)
    half, *begun = program(bandits.begin(problem, options, 3))
    _, *ended = program(half)
    actions, rewards, regret = in_loops(problem, options, 3, 16)
    for ours, expected in zip(map(np.concatenate, zip(begun, ended)), (regret, actions, rewards)):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)
    assert len(np.unique(actions)) > 2
    # What the last run knows does not reach the first.
    other = half._replace(sums=half.sums + np.array([0, 1.0])[:, None] * np.arange(problem.num_arms),
                          weighted=half.weighted + np.array([0, 5.0])[:, None, None])
    np.testing.assert_array_equal(program(other)[2][:, 0], ended[1][:, 0])


def test_regret_of_ucb_is_below_its_bound():
    """Auer et al. 2002, theorem 1: at most sum 8 ln n / gap + (1 + pi^2 / 3) sum gap, in expectation."""
    means = np.array([0.2, 0.5, 0.8], np.float32)
    problem = bandit.k_armed(3, "bernoulli")._replace(begin=lambda batch, seed: tf.tile([means], [batch, 1]))
    result = bandits.learn(problem, Options("ucb", num_runs=64), 1, num_steps=2000)
    assert result.state.counts.sum() == 64 * 2000 and result.state.step == 2000
    gaps = means.max() - means[:2]
    bound = np.sum(8 * np.log(2000) / gaps) + (1 + np.pi**2 / 3) * gaps.sum()
    total = result.regret.sum(axis=0).mean()
    assert 10 < total < bound
    assert result.regret[-500:].sum() < result.regret[:500].sum() / 2  # it grows ever slower


def test_context_pays_on_adverts():
    """Regret of 2,000 visitors is less than half of what showing all of them the best single advert would cost."""
    problem = advertising.bandit()
    result = bandits.learn(problem, Options("linucb", width=0.3, num_runs=16), 2, num_steps=2000)
    means = problem.means(None, problem.context(tf.zeros([20_000]), tf.constant([1, 2]))).numpy()
    blind = means.max(axis=1).mean() - means.mean(axis=0).max()
    assert blind == pytest.approx(0.062, abs=0.002)
    assert result.regret.sum(axis=0).mean() < 2000 * blind / 2
    assert result.regret[-500:].sum() < result.regret[:500].sum() / 2


def test_best_expected_reward_is_that_of_the_shares():
    problem = advertising.bandit()
    context = problem.context(problem.begin(5, [1, 2]), [3, 4]).numpy()
    np.testing.assert_allclose(context.sum(axis=1), 1, rtol=1e-6)
    means = problem.means(None, context).numpy()
    for visitor in range(5):
        for advert in range(6):
            rate = sum(share * rate for share, rate in zip(context[visitor], advertising.RATES[advert]))
            assert means[visitor, advert] == pytest.approx(rate, abs=1e-6)


@pytest.mark.parametrize("first, second", [(1.0, 1.0), (3.0, 12.0), (400.0, 1.0)])
def test_draws_of_beta(first, second):
    numbers = bandits.beta(*(tf.fill([20_000], tf.constant(value, tf.float64)) for value in (first, second)), [5, 6])
    assert scipy.stats.kstest(numbers, scipy.stats.beta(first, second).cdf).pvalue > 0.01
    assert np.isnan(bandits.gamma(tf.constant([0.5], tf.float64), [1, 2])).all()


def test_gaussian_numbers():
    assert scipy.stats.kstest(bandit.gaussian([20_000], [1, 2]), scipy.stats.norm.cdf).pvalue > 0.01


@pytest.mark.parametrize("call, words", [
    (lambda: Options("greedy"), "Unknown bandit algorithm 'greedy'.*linear_epsilon_greedy"),
    (lambda: Options(width=-1), "width must be at least 0 and ridge above 0; received -1 and 1"),
    (lambda: Options(schedule="linear", steps=0), "at least 1 step"),
    (lambda: bandits.program(bandit.k_armed(), Options("thompson"), 5), "those of k_armed are gaussian"),
    (lambda: bandit.pull(bandit.k_armed(3, "gauss"), tf.zeros([2]), [0, 1]), "Unknown kind of rewards 'gauss'")])
def test_errors(call, words):
    with pytest.raises(ValueError, match=words):
        call()
