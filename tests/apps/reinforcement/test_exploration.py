"""Exploration and its schedules against hand values."""

import numpy as np
import pytest
import tensorflow as tf

from apps.reinforcement import exploration


@pytest.mark.parametrize("kind, expected", [
    ("constant", [0.8, 0.8, 0.8, 0.8]), ("linear", [0.8, 0.6, 0.2, 0.2]),
    ("exponential", [0.8, 0.8 * 0.25 ** (1 / 3), 0.2, 0.2])])
def test_schedules(kind, expected):
    value = exploration.schedule(kind, 0.8, 0.2, 30)
    np.testing.assert_allclose(value(tf.constant([0, 10, 30, 31])), expected, rtol=1e-6)
    assert value(tf.constant(0)).numpy() == pytest.approx(0.8)


def test_epsilon_greedy_shares_among_the_best():
    found = exploration.probabilities("epsilon_greedy", tf.constant([[1.0, 3.0, 3.0, 0.0]]), None, tf.constant([0.2]))
    np.testing.assert_allclose(found, [[0.05, 0.45, 0.45, 0.05]], rtol=1e-6)


def test_boltzmann():
    values = np.array([[1.0, 3.0, 2.0], [0.0, -1e3, 1e3]])
    found = exploration.probabilities("boltzmann", tf.constant(values), None, tf.constant([0.5, 2.0]))
    expected = np.exp((values[0] - 3) / 0.5)
    np.testing.assert_allclose(found[0], expected / expected.sum(), rtol=1e-12)
    np.testing.assert_allclose(found[1], [0, 0, 1], atol=1e-12)


def test_upper_confidence():
    values = tf.constant([[1.0, 0.9, 0.5], [1.0, 0.9, 0.5], [5.0, 0.0, 0.0]])
    counts = tf.constant([[50, 50, 1], [1000, 10, 10], [3, 0, 0]])
    found = exploration.probabilities("ucb", values, counts, tf.constant([0.5, 1.0, 1.0]))
    widths = [value + c * np.sqrt(np.log(101) / n) for value, n, c in ((1.0, 50, 0.5), (0.5, 1, 0.5))]
    assert widths[1] > widths[0]
    np.testing.assert_allclose(found, [[0, 0, 1], [0, 1, 0], [0, 0.5, 0.5]])  # the third: what was never tried


def test_choose_draws_with_the_probabilities_given():
    chances = tf.constant([[0.0, 0.3, 0.0, 0.7]])
    numbers = np.arange(1000) / 1000
    found = exploration.choose(tf.repeat(chances, 1000, axis=0), tf.constant(numbers, tf.float32))
    np.testing.assert_array_equal(np.bincount(found, minlength=4), [0, 300, 0, 700])
    last = exploration.choose(tf.constant([[0.1] * 10]), tf.constant([1 - 2**-24]))  # the largest number below 1
    assert last.numpy() == [9]


@pytest.mark.parametrize("call, words", [
    (lambda: exploration.schedule("cosine", 1, 0, 5), "Unknown schedule of exploration 'cosine'"),
    (lambda: exploration.schedule("linear", 1, 0, 0), "at least 1 step; received 0"),
    (lambda: exploration.schedule("exponential", 1, 0, 5), "numbers above 0; received 1 and 0"),
    (lambda: exploration.probabilities("greedy", None, None, None), "Unknown exploration 'greedy'.*epsilon_greedy")])
def test_errors(call, words):
    with pytest.raises(ValueError, match=words):
        call()
