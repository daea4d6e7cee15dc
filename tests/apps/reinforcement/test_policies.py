"""Policies and what network outputs mean, against SciPy and counts."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from apps.reinforcement import action_heads, policies
from apps.reinforcement.trajectories import Spec, TimeStep

DISCRETE = Spec((), tf.int32, 0, 3)
BOX = Spec((2,), tf.float32, (-2.0, 0.0), (2.0, np.inf))
LOGITS = np.array([0.0, 1.0, -1.0, 2.0], np.float32)


def step(batch):
    return TimeStep(tf.ones([batch], tf.int32), tf.zeros([batch]), tf.ones([batch]), tf.zeros([batch, 1]))


def same(row, batch=20_000):
    return lambda observation: tf.tile(tf.constant(row, tf.float32)[None], [batch, 1])


def shares(actions):
    return np.bincount(actions.numpy(), minlength=4) / len(actions)


def test_categorical():
    head = action_heads.head_of(DISCRETE)
    expected = np.exp(LOGITS) / np.exp(LOGITS).sum()
    drawn = policies.sampling(same(LOGITS), DISCRETE).action(step(20_000), (), tf.constant([1, 2])).action
    np.testing.assert_allclose(shares(drawn), expected, atol=0.012)
    logits = tf.constant(np.tile(LOGITS, (4, 1)))
    np.testing.assert_allclose(head.log_prob(logits, tf.range(4)), np.log(expected), rtol=1e-5)
    np.testing.assert_allclose(head.entropy(logits[:1]), scipy.stats.entropy(expected), rtol=1e-5)
    assert policies.greedy(same(LOGITS, 1), DISCRETE).action(step(1)).action.numpy() == [3]


def test_gaussian():
    parameters = np.array([0.25, -0.5, np.log(0.5), np.log(2.0)], np.float32)
    policy = policies.sampling(same(parameters), BOX)
    found = policy.action(step(20_000), (), tf.constant([3, 4]))
    raw = found.info.numpy()
    for column, (mean, deviation) in enumerate(((0.25, 0.5), (-0.5, 2.0))):
        assert scipy.stats.kstest(raw[:, column], scipy.stats.norm(mean, deviation).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(raw.T)[0, 1]) < 0.03
    head = action_heads.head_of(BOX)
    expected = scipy.stats.norm([0.25, -0.5], [0.5, 2.0]).logpdf(raw).sum(axis=1)
    tensor = tf.constant(np.tile(parameters, (20_000, 1)))
    np.testing.assert_allclose(head.log_prob(tensor, found.info), expected, rtol=1e-4, atol=1e-4)
    entropy = sum(scipy.stats.norm(0, deviation).entropy() for deviation in (0.5, 2.0))
    np.testing.assert_allclose(head.entropy(tensor[:1]), entropy, rtol=1e-5)


def test_actions_stay_within_their_bounds():
    raw = np.array([[-3.0, -1.0], [0.5, 4.0], [1.0, 0.5]], np.float32)
    expected = [[-2, 0], [1, 4], [2, 0.5]]  # the first number has a finite range, -1 to 1 of it; the second is as it is
    np.testing.assert_allclose(action_heads.legal_action(BOX, raw), expected)
    np.testing.assert_allclose(action_heads.head_of(BOX).legal(tf.constant(raw)), expected)
    found = policies.random(Spec((3,), tf.float32, -2.0, 6.0)).action(step(4000), (), tf.constant([5, 6])).action
    assert -2 <= found.numpy().min() < -1.9 and 5.9 < found.numpy().max() <= 6


def test_epsilon_greedy_follows_its_schedule():
    epsilon = tf.Variable(1.0)
    policy = policies.epsilon_greedy(same(LOGITS), DISCRETE, lambda: epsilon)
    np.testing.assert_allclose(shares(policy.action(step(20_000), (), tf.constant([1, 1])).action), 0.25, atol=0.012)
    epsilon.assign(0.2)
    found = shares(policy.action(step(20_000), (), tf.constant([1, 2])).action)
    np.testing.assert_allclose(found, [0.05, 0.05, 0.05, 0.85], atol=0.012)
    epsilon.assign(0.0)
    assert shares(policy.action(step(20_000), (), tf.constant([1, 3])).action)[3] == 1


def test_a_rule_and_chance():
    found = policies.by_rule(lambda observation: tf.cast(observation[:, 0], tf.int32) + 2).action(step(3))
    assert found.action.numpy().tolist() == [2, 2, 2] and found.state == ()
    drawn = policies.random(DISCRETE).action(step(20_000), (), tf.constant([7, 7])).action
    np.testing.assert_allclose(shares(drawn), 0.25, atol=0.012)


def test_several_numbers_at_once_are_refused():
    with pytest.raises(ValueError, match=r"must be one whole number, shape \(\); received shape \(3,\)"):
        action_heads.head_of(Spec((3,), tf.int32, 0, 1))
