"""What every environment keeps, under random play."""

import itertools

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from apps.reinforcement.environments import catalogue
from apps.reinforcement.environments import environment as environments
from apps.reinforcement.environments.environment import Running, fold, uniform
from apps.reinforcement.trajectories import StepType

BATCH, LIMIT, STEPS = 4, 7, 40
# float32 after 40 steps compiled by XLA, which contracts and reorders; Acrobot and Pendulum let small errors grow.
TOLERANCE = 2e-4


def random_actions(spec, seed):
    """Actions [BATCH, ...] within a spec."""
    numbers = uniform([BATCH, *spec.shape], seed)
    if spec.is_discrete:
        return tf.cast(numbers * spec.num_values, tf.int32)
    return spec.minimum + (spec.maximum - spec.minimum) * numbers


def play(step, environment, steps=STEPS, seed=1, change=None):
    """Time steps and states, arrays [T + 1, B, ...], and actions [T, B, ...]; `change` is done to the first state."""
    running, shown = environments.reset(environment, BATCH, tf.constant([seed, 2]))
    if change is not None:
        running = running._replace(state=change(running.state))
    rows, actions = [(shown, running.state)], []
    for number in range(steps):
        actions.append(random_actions(environment.action_spec, [number, 3]))
        running, shown = step(running, actions[-1], fold(tf.constant([seed, 4]), number))
        rows.append((shown, running.state))
    return tf.nest.map_structure(lambda *parts: np.stack(parts), *rows), np.stack(actions)


@pytest.fixture(scope="module", params=catalogue.ENVIRONMENTS)
def played(request):
    """(environment with episodes of at most 7 steps, its step compiled by XLA, what 40 random steps show)."""
    environment = catalogue.make(request.param)
    assert environment.name == request.param
    environment = environment._replace(max_steps=min(LIMIT, environment.max_steps))

    def step(running, action, seed):
        return environments.step(environment, running, action, seed)

    compiled = tf.function(step, jit_compile=True)
    return environment, step, compiled, play(compiled, environment)


def test_time_steps_keep_their_order_and_specs(played):
    environment, _, _, ((shown, _), _) = played
    kinds, last = shown.step_type, int(StepType.LAST)
    assert (kinds[0] == StepType.FIRST).all()
    np.testing.assert_array_equal(kinds[1:] == StepType.FIRST, kinds[:-1] == last)
    assert (shown.reward[kinds == StepType.FIRST] == 0).all()
    assert set(np.unique(shown.discount)) <= {0.0, 1.0} and (kinds[shown.discount == 0] == last).all()
    age = np.zeros(BATCH, int)
    for kind, discount in zip(kinds, shown.discount):
        age = np.where(kind == StepType.FIRST, 0, age + 1)
        np.testing.assert_array_equal(kind == last, (age == environment.max_steps) | (discount == 0))
    assert (kinds == last).sum() >= BATCH * 4
    spec = environment.observation_spec
    assert shown.observation.shape == (STEPS + 1, BATCH, *spec.shape)
    assert shown.observation.dtype == spec.dtype.as_numpy_dtype
    assert np.isfinite(shown.observation).all() and np.isfinite(shown.reward).all()
    if spec.minimum is not None:
        assert (shown.observation >= np.array(spec.minimum, np.float32)).all()
        assert (shown.observation <= np.array(spec.maximum, np.float32) * (1 + 1e-6)).all()
    assert [part.dtype for part in shown[:3]] == [np.int32, np.float32, np.float32]


def test_eager_and_graph_equal_xla(played):
    environment, step, _, ((shown, states), _) = played
    for other, steps in ((tf.function(step), STEPS), (step, 9)):
        (found, found_states), _ = play(other, environment, steps)
        tf.nest.map_structure(
            lambda ours, expected: np.testing.assert_allclose(ours, expected[:len(ours)], rtol=0, atol=TOLERANCE),
            (found, found_states), (shown, states))


def test_the_same_seed_gives_the_same_episode(played):
    environment, _, compiled, (rows, actions) = played
    again, _ = play(compiled, environment)
    tf.nest.map_structure(np.testing.assert_array_equal, rows, again)
    other, _ = play(compiled, environment, seed=5)
    if environment.name != "cliff_walk":  # where nothing is random
        assert any(not np.array_equal(a, b) for a, b in zip(tf.nest.flatten(rows), tf.nest.flatten(other)))


def test_rows_do_not_influence_each_other(played):
    """The last row begins with the state of the first; the others stay as they were, also after later resets."""
    environment, _, compiled, ((shown, states), _) = played

    def change(state):
        return tf.nest.map_structure(lambda part: tf.concat([part[:-1], part[:1]], axis=0), state)

    (found, found_states), _ = play(compiled, environment, change=change)
    tf.nest.map_structure(lambda ours, expected: np.testing.assert_array_equal(ours[:, :-1], expected[:, :-1]),
                          (found, found_states), (shown, states))
    if environment.name not in ("cliff_walk", "grid_world"):  # whose episodes all begin in one place
        assert any(len(np.unique(part[0])) > 1 for part in tf.nest.flatten(states))


def test_pictures(played):
    environment, _, _, ((_, states), _) = played
    pictures = []
    for time in (0, 3):
        state = tf.nest.map_structure(lambda part, time=time: part[time, 0], states)
        if environment.draw is not None:
            text = environment.draw(state)
            assert text.strip() and max(map(len, text.splitlines())) <= 80
        if environment.picture is not None:
            pictures.append(environment.picture(state))
            assert pictures[-1].dtype == np.uint8 and pictures[-1].shape[2] == 3
            assert not any(size % 2 for size in pictures[-1].shape[:2])  # films want even sizes
            assert len(np.unique(pictures[-1])) > 2
    assert environment.draw is not None
    if pictures and not np.array_equal(*(tf.nest.flatten(states)[0][time, 0] for time in (0, 3))):
        assert pictures[0].shape == pictures[1].shape and not np.array_equal(*pictures)


def test_a_limit_of_steps_is_no_end():
    """At the limit the discount stays 1; where the pole falls in the same step, it is 0."""
    environment = catalogue.make("cart_pole")._replace(max_steps=3)
    running, _ = environments.reset(environment, 2, [0, 0])
    angle = tf.constant([0.0, 0.2])
    running = Running(running.state._replace(angle=angle, angular_velocity=0 * angle), running.num_steps,
                      running.is_last)
    for number in range(3):
        running, shown = environments.step(environment, running, tf.constant([number % 2, 0]), [0, 1])
    assert shown.is_last().numpy().all()
    np.testing.assert_array_equal(shown.discount, [1, 0])


def test_uniform_numbers_are_the_same_with_and_without_xla():
    for dtype in (tf.float32, tf.float64):
        numbers = uniform([10_001], [1, 2], dtype=dtype)
        compiled = tf.function(lambda dtype=dtype: uniform([10_001], [1, 2], dtype=dtype), jit_compile=True)()
        np.testing.assert_array_equal(numbers, compiled)
        assert 0 <= numbers.numpy().min() < 0.001 and 0.999 < numbers.numpy().max() < 1
        assert numbers.numpy().mean() == pytest.approx(0.5, abs=0.01)


def test_uniform_numbers_are_uniform_and_independent():
    """Within a call, between places, and between calls with neighbouring seeds; 2^16 numbers each."""
    draws = np.stack([uniform([2**16], seed) for seed in ([0, 0], [0, 1], [1, 0], [1, 1])]).astype(np.float64)
    for row in draws:
        assert scipy.stats.kstest(row, "uniform").pvalue > 0.001
        for lag in (1, 2, 3, 4, 64):
            pairs = np.histogram2d(row[:-lag], row[lag:], 16, [[0, 1], [0, 1]])[0]
            assert scipy.stats.chisquare(pairs.ravel()).pvalue > 0.001
    for one, other in itertools.combinations(draws, 2):
        for shift in (0, 1, 2):
            pairs = np.histogram2d(one, np.roll(other, shift), 16, [[0, 1], [0, 1]])[0]
            assert scipy.stats.chisquare(pairs.ravel()).pvalue > 0.001
    ends = np.concatenate([uniform([4, 8], [number, 0]).numpy().ravel() for number in range(512)])  # short calls
    assert scipy.stats.kstest(ends, "uniform").pvalue > 0.001 and len(np.unique(ends)) > 0.999 * len(ends)
    bits = np.unpackbits(environments.words([2**14], [5, 6]).numpy().view(np.uint8)).reshape(-1, 32).mean(axis=0)
    np.testing.assert_allclose(bits, 0.5, atol=0.016)  # four deviations
