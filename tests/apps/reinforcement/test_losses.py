"""Returns, advantages, targets and losses against loops in NumPy, and the policy gradient against the exact one."""

import numpy as np
import pytest
import tensorflow as tf

from apps.reinforcement import dynamic_programming, losses
from apps.reinforcement.environments import finite

GAMMA, LAMBDA = 0.9, 0.7


def rollout(seed=0, batch=3, time=7):
    """Rewards, discounts and ends of episodes of both kinds, with a boundary after each end."""
    noise = np.random.default_rng(seed)
    reward = noise.normal(size=[batch, time])
    discount, goes_on, weight = np.ones([batch, time]), np.ones([batch, time]), np.ones([batch, time])
    discount[0, 2] = goes_on[0, 2] = 0  # ends for good; row 3 is the boundary
    goes_on[1, 4] = 0  # is only cut; row 5 is the boundary
    for row, column in ((0, 3), (1, 5)):
        weight[row, column] = reward[row, column] = discount[row, column] = goes_on[row, column] = 0
    return reward, GAMMA * discount, goes_on, weight


def test_returns_are_sums_to_the_end_of_the_episode():
    reward, discount, goes_on, _ = rollout()
    found = losses.returns(*map(tf.constant, (reward, discount, goes_on))).numpy()
    for b in range(3):
        for t in range(7):
            total, factor, k = 0.0, 1.0, t
            while k < 7:
                total += factor * reward[b, k]
                factor *= discount[b, k]
                if not goes_on[b, k]:
                    break
                k += 1
            assert found[b, t] == pytest.approx(total, abs=1e-12)


def test_advantages_are_sums_of_errors_within_the_episode():
    reward, discount, goes_on, weight = rollout()
    noise = np.random.default_rng(1)
    value, following = noise.normal(size=[2, 3, 7]) * weight
    found = losses.generalized_advantages(*map(tf.constant, (reward, discount, goes_on, value, following)),
                                          LAMBDA).numpy()
    for b in range(3):
        for t in range(7):
            total, factor = 0.0, 1.0
            for k in range(t, 7):
                total += factor * (reward[b, k] + discount[b, k] * following[b, k] - value[b, k])
                factor *= GAMMA * LAMBDA
                if not goes_on[b, k]:
                    break
            assert found[b, t] == pytest.approx(total, abs=1e-12)
    # With lambda 1 and consistent values the sum telescopes to return - value.
    value = np.random.default_rng(2).normal(size=[1, 8])
    ones, reward = np.ones([1, 7]), reward[2:]
    full = losses.generalized_advantages(*map(tf.constant, (reward, GAMMA * ones, ones, value[:, :7], value[:, 1:])), 1)
    expected = losses.returns(*map(tf.constant, (reward, GAMMA * ones, ones)), tf.constant(value[:, 7])) - value[:, :7]
    np.testing.assert_allclose(full, expected, atol=1e-12)


def test_differential_returns_leave_boundaries_out():
    reward, _, _, weight = rollout()
    found, mean = losses.differential_returns(tf.constant(reward), tf.constant(weight))
    assert mean.numpy() == pytest.approx(reward[weight > 0].mean())
    for b in range(3):
        for t in range(7):
            expected = sum(reward[b, k] - mean.numpy() for k in range(t, 7) if weight[b, k])
            assert found[b, t].numpy() == pytest.approx(expected, abs=1e-12)


def test_n_step_returns_end_with_the_episode():
    reward = np.array([[1., 2, 4], [1, 2, 4], [1, 2, 4], [9, 9, 9]])
    discount = GAMMA * np.array([[1., 1, 1], [1, 0, 1], [1, 1, 1], [1, 1, 1]])
    last = np.zeros([4, 4], bool)
    last[1, 2] = last[2, 1] = last[3, 0] = True  # ends for good; is cut after one step; begins at a boundary
    total, product, steps = (part.numpy() for part in losses.n_step(*map(tf.constant, (reward, discount, last))))
    np.testing.assert_allclose(total, [1 + GAMMA * 2 + GAMMA**2 * 4, 1 + GAMMA * 2, 1, 0])
    np.testing.assert_allclose(product, [GAMMA**3, 0, GAMMA, 1])
    assert list(steps) == [3, 2, 1, 1]


def test_q_targets_and_huber_loss():
    noise = np.random.default_rng(3)
    reward, discount, target, online = noise.normal(size=5), noise.uniform(size=5), *noise.normal(size=[2, 5, 4])
    plain = [r + d * row.max() for r, d, row in zip(reward, discount, target)]
    double = [r + d * row[other.argmax()] for r, d, row, other in zip(reward, discount, target, online)]
    tensors = [tf.constant(part) for part in (reward, discount, target)]
    np.testing.assert_allclose(losses.q_targets(*tensors), plain)
    np.testing.assert_allclose(losses.q_targets(*tensors, tf.constant(online)), double)
    assert not np.allclose(plain, double)
    action, wanted = np.array([0, 3, 1, 2, 2]), np.array([5.0, -4, 0.1, 0.2, 0])
    loss, error = losses.td_loss(tf.constant(online), tf.constant(action), tf.constant(wanted))
    for i in range(5):
        expected = wanted[i] - online[i, action[i]]
        huber = expected**2 / 2 if abs(expected) <= 1 else abs(expected) - 0.5
        assert (loss[i].numpy(), error[i].numpy()) == (pytest.approx(huber), pytest.approx(expected))


def test_clipped_losses():
    noise = np.random.default_rng(4)
    new, old, advantage, value, before, target = noise.normal(size=[6, 50])
    ratio = np.exp(new - old)
    expected = [-min(r * a, np.clip(r, 0.8, 1.2) * a) for r, a in zip(ratio, advantage)]
    np.testing.assert_allclose(losses.clipped_policy_loss(new, old, advantage, 0.2), expected)
    plain = 0.5 * (value - target)**2
    np.testing.assert_allclose(losses.value_loss(value, target), plain)
    near = [b + np.clip(v - b, -0.3, 0.3) for v, b in zip(value, before)]
    both = np.maximum(plain, 0.5 * (np.array(near) - target)**2)
    np.testing.assert_allclose(losses.value_loss(value, target, before, 0.3), both)
    assert (both > plain).any()


def test_normalized_over_the_rows_that_count():
    values, weights = np.random.default_rng(5).normal(3, 2, size=[4, 6]), np.ones([4, 6])
    weights[1, 2:] = 0
    found = losses.normalized(tf.constant(values), tf.constant(weights)).numpy()
    kept = values[weights > 0]
    np.testing.assert_allclose(found[weights > 0], (kept - kept.mean()) / kept.std(), rtol=1e-6)
    assert not found[weights == 0].any()


@pytest.mark.parametrize("kind", ["discounted", "average"])
def test_the_policy_gradient_is_the_derivative_of_the_exact_objective(kind):
    """The estimate's mean, over states and actions as often as they come, against finite differences of J."""
    model, logits = small_problem(), np.random.default_rng(6).normal(size=[4, 3])
    policy = softmax(logits)
    visits, values = discounted(model, policy) if kind == "discounted" else averaged(model, policy)
    states, actions = (part.ravel() for part in np.indices(policy.shape))
    with tf.GradientTape() as tape:
        variable = tf.Variable(logits)
        tape.watch(variable)
        log_prob = tf.gather_nd(tf.nn.log_softmax(variable), np.stack([states, actions], axis=1))
        # A baseline that does not depend on the action changes nothing.
        advantage = values[states, actions] - values.mean(axis=1)[states]
        loss = tf.reduce_sum((visits[:, None] * policy)[states, actions]
                             * losses.policy_gradient_loss(log_prob, tf.constant(advantage)))
    found = -tape.gradient(loss, variable).numpy()
    expected, width = np.zeros_like(logits), 1e-6
    for index in np.ndindex(*logits.shape):
        shift = np.zeros_like(logits)
        shift[index] = width
        above, below = (float(dynamic_programming.objective(model, tf.constant(softmax(logits + sign * shift)), kind))
                        for sign in (1, -1))
        expected[index] = (above - below) / (2 * width)
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert np.abs(expected).max() > 0.01


def small_problem():
    noise = np.random.default_rng(7)
    transitions = noise.dirichlet(np.ones(4), size=[4, 3])
    return finite.model(transitions, noise.normal(size=[4, 3]), np.zeros(4, bool), noise.dirichlet(np.ones(4)), 0.8)


def discounted(model, policy):
    """(sum over t of gamma^t P(s_t = s), Q) by linear algebra."""
    chain = np.einsum("sa,sat->st", policy, model.transitions)
    inverse = np.linalg.inv(np.eye(4) - model.discount * chain)
    values = inverse @ (policy * model.expected_rewards).sum(axis=1)
    return model.initial @ inverse, model.expected_rewards + model.discount * model.transitions @ values


def averaged(model, policy):
    """(stationary share of s, differential Q): long sums of (reward - mean)."""
    chain = np.einsum("sa,sat->st", policy, model.transitions)
    share = np.linalg.matrix_power(chain, 500)[0]
    reward = (policy * model.expected_rewards).sum(axis=1)
    mean, values, power = share @ reward, np.zeros(4), np.eye(4)
    for _ in range(500):
        values, power = values + power @ (reward - mean), power @ chain
    return share, model.expected_rewards - mean + model.transitions @ values


def softmax(logits):
    exponential = np.exp(logits)
    return exponential / exponential.sum(axis=1, keepdims=True)
