"""Exact methods against linear algebra, linear programming, known solutions, and finite differences."""

import itertools

import gymnasium
import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from apps.reinforcement import dynamic_programming as exact
from apps.reinforcement.environments import catalogue, finite
from apps.reinforcement.environments.gambler import gambler
from apps.reinforcement.environments.grid_world import grid_world

NAMES = ("shortest_path", "cliff_walk", "gambler", "grid_world")


def random_model(seed, num_states=5, num_actions=3, discount=0.9, num_terminal=1):
    """A model whose every transition can happen."""
    rng = np.random.default_rng(seed)
    transitions = rng.dirichlet(np.ones(num_states), (num_states, num_actions))
    terminal = np.arange(num_states) >= num_states - num_terminal
    return finite.model(transitions, rng.normal(size=transitions.shape), terminal,
                        np.where(terminal, 0, 1 / (num_states - num_terminal)), discount)


def optimum_by_linear_programming(model):
    """V*, float64 [S]: the least V with V >= r + discount P V gives the policy, Gaussian elimination its values."""
    number = model.num_states
    alive = np.flatnonzero(~model.terminal)
    rows, right = [], []
    for state, action in itertools.product(alive, range(model.num_actions)):
        row = -np.eye(number)[state]
        for after in alive:
            row[after] += model.discount * model.transitions[state, action, after]
        rows.append(row)
        right.append(-sum(model.transitions[state, action] * model.rewards[state, action]))
    bounds = [(0, 0) if model.terminal[state] else (None, None) for state in range(number)]
    found = scipy.optimize.linprog(np.ones(number), np.array(rows), np.array(right), bounds=bounds)
    assert found.status == 0
    slack = (np.array(right) - np.array(rows) @ found.x).reshape(len(alive), -1)
    matrix, vector = np.eye(number), np.zeros(number)
    for place, state in enumerate(alive):
        best = place * model.num_actions + np.argmin(slack[place])  # the constraint that binds
        matrix[state], vector[state] = -rows[best], -right[best]
    return np.linalg.solve(matrix, vector)


@pytest.mark.parametrize("name", [*NAMES, "random"])
def test_value_and_policy_iteration_equal_linear_algebra(name):
    model = random_model(3) if name == "random" else catalogue.make(name).model
    expected = optimum_by_linear_programming(model)
    for solution in (exact.value_iteration(model), exact.policy_iteration(model)):
        np.testing.assert_allclose(solution.values, expected, rtol=0, atol=1e-10)
        np.testing.assert_allclose(exact.linear_values(model, solution.policy), expected, rtol=0, atol=1e-10)
        np.testing.assert_allclose(solution.action_values.max(axis=1), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("discount", [0.0, 0.5, 0.95])
def test_evaluation_equals_linear_algebra(discount):
    model = random_model(4, discount=discount)
    policy = np.random.default_rng(5).dirichlet(np.ones(3), 5)
    matrix, rewards = np.eye(5), np.zeros(5)
    for s, a, t in itertools.product(range(4), range(3), range(5)):  # the fifth is terminal
        weight = policy[s, a] * model.transitions[s, a, t]
        matrix[s, t] -= discount * weight * (t != 4)
        rewards[s] += weight * model.rewards[s, a, t]
    expected = np.linalg.solve(matrix, rewards)
    np.testing.assert_allclose(exact.linear_values(model, policy), expected, rtol=0, atol=1e-12)
    found = exact.evaluate(model, policy)
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-10)
    for s, a in itertools.product(range(4), range(3)):
        ahead = [model.rewards[s, a, t] + discount * expected[t] * (t != 4) for t in range(5)]
        assert found.action_values[s, a] == pytest.approx(model.transitions[s, a] @ ahead, abs=1e-10)


def test_policy_iteration_by_sweeps_is_the_same():
    model = random_model(6)
    one, other = (exact.policy_iteration(model, evaluation=kind) for kind in ("linear", "sweeps"))
    np.testing.assert_array_equal(one.policy, other.policy)
    np.testing.assert_allclose(one.values, other.values, rtol=0, atol=1e-10)


def test_shortest_path():
    model = catalogue.make("shortest_path").model
    policy = exact.value_iteration(model).policy
    assert finite.path(model, policy, 0) == [0, 1, 4, 7, 8]
    assert finite.path(model, policy, 3) == [3, 6, 7, 8]
    assert finite.path_text(model, policy, 5) == "5 -> 2 -> 1 -> 4 -> 7 -> 8: 5 steps, return 100"
    np.testing.assert_allclose(exact.value_iteration(model).values,
                               [100 * 0.9**k for k in (3, 2, 3, 2, 1, 4, 1, 0)] + [0], rtol=1e-12)


def test_cliff_walk():
    """Sutton & Barto 2018, example 6.6: the optimal path of 13 steps goes along the edge."""
    model = catalogue.make("cliff_walk").model
    solution = exact.value_iteration(model)
    assert finite.path(model, solution.policy, 36) == [36, *range(24, 36), 47]
    assert solution.values[36] == -13
    assert finite.path_text(model, np.zeros(48, int), 36).endswith("0, and goes round from there: 3 steps, return -3")


def test_gambler():
    """Sutton & Barto 2018, example 4.3 and figure 4.3: a whole family of policies is optimal."""
    solution = exact.value_iteration(gambler().model)
    np.testing.assert_allclose(solution.values[[25, 50, 75]], [0.16, 0.4, 0.64], rtol=0, atol=1e-10)
    capitals = np.arange(1, 100)
    bold = np.concatenate([[0], np.minimum(capitals, 100 - capitals) - 1, [0]])
    np.testing.assert_allclose(exact.linear_values(gambler().model, bold), solution.values, rtol=0, atol=1e-10)
    best = exact.best_actions(solution.action_values)
    stakes = {capital: list(np.flatnonzero(best[capital]) + 1) for capital in (13, 25, 50, 51, 75)}
    assert stakes == {13: [12, 13], 25: [25], 50: [50], 51: [1, 49], 75: [25]}
    assert list(solution.policy[1:26] + 1) == [*range(1, 13), 12, *range(11, 0, -1), 25]  # the smallest, as printed
    # With a fair coin every stake within the rules is as good: V is the capital's share.
    fair = exact.value_iteration(gambler(20, 0.5).model)
    np.testing.assert_allclose(fair.values[:20], np.arange(20) / 20, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name, options", [
    ("CliffWalking-v1", None), ("FrozenLake-v1", {"slip": 2 / 3, "hole_reward": 0.0, "step_reward": 0.0})])
def test_grids_equal_gymnasium(name, options):
    """The tables of gymnasium's CliffWalking and FrozenLake; the latter numbers left, down, right, up."""
    theirs, order = gymnasium.make(name).unwrapped, range(4)
    model = catalogue.make("cliff_walk").model
    if options is not None:
        plan = "\n".join("".join(letter.decode() for letter in row) for row in theirs.desc).replace("F", ".")
        model, order = grid_world(plan, **options).model, (3, 2, 1, 0)
    reached = {state for state in range(model.num_states) if any(
        state == after for row in theirs.P.values() for ways in row.values() for _, after, _, _ in ways)}
    for state in reached - set(np.flatnonzero(model.terminal)):
        for action in range(4):
            ours = {after: (model.transitions[state, action, after], model.rewards[state, action, after])
                    for after in np.flatnonzero(model.transitions[state, action])}
            expected = {}
            for chance, after, reward, ends in theirs.P[state][order[action]]:
                expected[after] = (expected.get(after, (0, 0))[0] + chance, reward)
                assert model.terminal[after] == ends
            assert ours.keys() == expected.keys()
            for after, pair in expected.items():
                assert ours[after] == pytest.approx(pair, abs=1e-12)


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("kind, num_terminal", [("discounted", 1), ("average", 0), ("average", 1)])
def test_policy_gradient_theorem_equals_finite_differences(kind, num_terminal):
    """Of a softmax policy: d pi(a|s) / d logit(s, b) = pi(a|s) (1[a = b] - pi(b|s))."""
    model = random_model(7, num_terminal=num_terminal)
    logits = np.random.default_rng(8).normal(size=(5, 3))
    policy = softmax(logits)
    to_policy = exact.policy_gradient(model, policy, kind)
    found = policy * (to_policy - np.sum(policy * to_policy, axis=1, keepdims=True))
    for s, a in itertools.product(range(5), range(3)):
        nudge = np.zeros_like(logits)
        nudge[s, a] = 1e-5
        high, low = (float(exact.objective(model, tf.constant(softmax(logits + sign * nudge)), kind))
                     for sign in (1, -1))
        assert found[s, a] == pytest.approx((high - low) / 2e-5, rel=1e-6, abs=1e-9)
    variable = tf.Variable(logits)
    with tf.GradientTape() as tape:
        value = exact.objective(model, tf.nn.softmax(variable), kind)
    np.testing.assert_allclose(tape.gradient(value, variable), found, rtol=1e-9, atol=1e-12)
    assert np.abs(found).max() > 0.01


def test_average_reward_is_that_of_a_long_run():
    model = random_model(9)
    policy = softmax(np.random.default_rng(10).normal(size=(5, 3)))
    rng, state, total, steps = np.random.default_rng(11), 0, 0.0, 200_000
    chances = np.cumsum(model.transitions, axis=2)
    choices = np.cumsum(policy, axis=1)
    numbers = rng.uniform(size=(steps, 3))
    for action_number, state_number, start_number in numbers:
        action = min(np.searchsorted(choices[state], action_number), 2)
        after = min(np.searchsorted(chances[state, action], state_number), 4)
        total += model.rewards[state, action, after]
        state = int(4 * start_number) if model.terminal[after] else after
    deviation = 3 * 2 / np.sqrt(steps)  # rewards deviate by about 1; successive ones hardly depend on each other
    assert total / steps == pytest.approx(float(exact.objective(model, policy, "average")), abs=deviation)


@pytest.mark.parametrize("call, words", [
    (lambda model: finite.model(model.transitions[0], 0, [], [], 1), r"shape \[S, A, S\]; received \[3, 5\]"),
    (lambda model: finite.model(*model._replace(rewards=np.zeros([5, 2]))), r"Rewards must have the shape \[5, 3, 5\]"),
    (lambda model: finite.model(*model._replace(rewards=np.full([5, 3], np.nan))), "Rewards must be finite"),
    (lambda model: finite.model(*model._replace(transitions=model.transitions / 2)), "sum to 1.*a sum of 0.5"),
    (lambda model: finite.model(*model._replace(initial=np.eye(5)[4])), "begin in a terminal state"),
    (lambda model: finite.model(*model._replace(discount=1.5)), "discount must be 0 to 1; received 1.5"),
    (lambda model: exact.evaluate(model, np.full(5, 3)), r"actions 0 to 2 of the shape \[5\]; received int64 \[5\]"),
    (lambda model: exact.evaluate(model, exact.uniform_policy(model), max_sweeps=3), "after 3 sweeps"),
    (lambda model: exact.objective(model, None, "total"), "Unknown objective 'total': expected one of discounted"),
    (lambda model: exact.policy_gradient(model, None, "total"), "Unknown objective"),
    (lambda model: exact.policy_iteration(model, evaluation="exact"), "Unknown evaluation 'exact'"),
    (lambda model: exact.policy_iteration(model, max_changes=1), "after 1 changes")])
def test_errors(call, words):
    with pytest.raises(ValueError, match=words):
        call(random_model(1))


def test_a_policy_that_never_ends_has_no_undiscounted_value():
    model = catalogue.make("cliff_walk").model
    with pytest.raises(ValueError, match="an episode must end from every state"):
        exact.linear_values(model, np.zeros(48, int))


@pytest.mark.parametrize("plan, words", [
    ("S..\nG.", "lines of one length"), ("S.x\n..G", "received 'x'"), ("...\n..G", "received 0 and 1"),
    ("SS.\n...", "received 2 and 0")])
def test_plans_that_are_none(plan, words):
    with pytest.raises(ValueError, match=words):
        grid_world(plan)
