"""Campaign mail, the traffic light and bandits against twins in plain Python, row by row, by the same numbers."""

import math

import numpy as np
import pytest
import tensorflow as tf

from apps.reinforcement.environments import advertising, bandit, campaign_mail, catalogue, traffic_light
from apps.reinforcement.environments.environment import uniform

SEGMENTS = [  # share, basket, unasked, by letter, peak, lowest season: the table of the docstring
    (0.45, 18.0, 0.010, 0.16, 0, 1.0), (0.30, 55.0, 0.010, 0.15, 49, 0.10), (0.25, 40.0, 0.008, 0.16, 16, 0.05)]
APPETITE = [0.2, 0.5, 0.8, 1.0, 1.0]


def season(segment, week):
    lowest, peak = SEGMENTS[segment][5], SEGMENTS[segment][4]
    return lowest + (1 - lowest) * ((1 + math.cos(2 * math.pi * (week - peak) / 52)) / 2) ** 3


def purchase(segment, fatigue, recency, week, letter):
    _, _, unasked, by_letter, _, _ = SEGMENTS[segment]
    chance = unasked * season(segment, week)
    if letter:
        chance += by_letter * season(segment, week) * (1 - fatigue / 5)
    return APPETITE[recency] * chance


def a_week(segment, fatigue, recency, week, letter, numbers):
    """(state after, reward, whether it is over) of a customer."""
    buys, worth, leaves, rests = numbers
    reward = -1.2 if letter else 0.0
    bought = buys < purchase(segment, fatigue, recency, week, letter)
    if bought:
        reward += SEGMENTS[segment][1] * (0.5 + worth)
    over = week == 51 or letter and leaves < 0.06 * (fatigue / 5) ** 2
    if letter:
        fatigue = min(fatigue + 1, 5)
    elif rests < 0.5:
        fatigue = max(fatigue - 1, 0)
    return (segment, fatigue, 0 if bought else min(recency + 1, 4), week + 1), reward, over


def test_campaign_mail_equals_its_twin():
    """Every state once with a letter and once without, over many seeds: nearly 100,000 weeks."""
    grid = np.stack(np.meshgrid(range(3), range(6), range(5), range(52), indexing="ij"), -1).reshape(-1, 4)
    state = campaign_mail.State(*(tf.constant(column, tf.int32) for column in grid.T))
    environment, ends, sales = campaign_mail.campaign_mail(), 0, 0
    for seed in range(2):
        for letter in (0, 1):
            key = tf.constant([seed, letter])
            numbers = uniform([4, len(grid)], key).numpy().T
            after, reward, over = environment.dynamics(state, tf.fill([len(grid)], letter), key)
            expected = [a_week(*row, letter, drawn) for row, drawn in zip(grid.tolist(), numbers.tolist())]
            np.testing.assert_array_equal(np.stack(after, axis=1), [row[0] for row in expected])
            np.testing.assert_allclose(reward, [row[1] for row in expected], rtol=1e-6)
            np.testing.assert_array_equal(over, [row[2] for row in expected])
            ends += sum(row[2] and row[0][3] < 52 for row in expected)
            sales += sum(row[1] > 0 for row in expected)
    assert ends > 100 and sales > 300


def test_the_first_week_of_campaign_mail():
    environment = campaign_mail.campaign_mail()
    state = environment.initial(20_000, tf.constant([1, 2]))
    np.testing.assert_allclose(np.bincount(state.segment) / 20_000, [0.45, 0.30, 0.25], atol=0.012)
    np.testing.assert_allclose(np.bincount(state.fatigue) / 20_000, [0.25] * 4, atol=0.012)
    np.testing.assert_allclose(np.bincount(state.recency) / 20_000, [0.2] * 5, atol=0.012)
    shown = environment.observe(campaign_mail.State(*(tf.constant([value]) for value in (1, 2, 3, 13))))
    np.testing.assert_allclose(shown[0], [0, 1, 0, 0.4, 0.75, 0.25, 1, 0], atol=1e-6)


def worth(segment, fatigue, recency, week, plan, known):
    """Expected profit from a week on, by recursion; plan None: the best."""
    if week == 52:
        return 0.0
    key = fatigue, recency, week
    if key not in known:
        choices = []
        for letter in (0, 1):
            chance = purchase(segment, fatigue, recency, week, letter)
            tired = [(min(fatigue + 1, 5), 1.0)] if letter else [(max(fatigue - 1, 0), 0.5), (fatigue, 0.5)]
            stays = 1 - 0.06 * (fatigue / 5) ** 2 if letter else 1.0
            since = (0, chance), (min(recency + 1, 4), 1 - chance)
            ahead = sum(stays * weight * share * worth(segment, after, recent, week + 1, plan, known)
                        for after, weight in tired for recent, share in since)
            choices.append(chance * SEGMENTS[segment][1] - 1.2 * letter + ahead)
        known[key] = max(choices) if plan is None else choices[plan[segment, fatigue, recency, week]]
    return known[key]


@pytest.mark.parametrize("kind", ["best", "random"])
def test_profits_are_exact(kind):
    plan, profits = campaign_mail.best_plan()
    given = None
    if kind == "random":
        plan = given = np.random.default_rng(1).integers(0, 2, plan.shape)
        profits = campaign_mail.profit(plan)
    for segment in range(3):
        known = {}
        expected = np.mean([worth(segment, fatigue, recency, 0, given, known)
                            for fatigue in range(4) for recency in range(5)])
        assert profits[segment] == pytest.approx(expected, rel=1e-10)
    np.testing.assert_allclose(campaign_mail.profit(plan), profits, rtol=1e-12)


def test_looking_at_the_customer_pays():
    """The best plan earns much more than the best fixed rule, and that more than letters to all or none."""
    rules, profits = campaign_mail.best_timetable()
    np.testing.assert_allclose(campaign_mail.profit(campaign_mail.timetable(rules)), profits, rtol=1e-12)
    none, every = (campaign_mail.mean_profit(campaign_mail.profit(campaign_mail.timetable([(interval, 0.0)] * 3)))
                   for interval in (0, 1))
    fixed, best = (campaign_mail.mean_profit(values) for values in (profits, campaign_mail.best_plan()[1]))
    assert every < none < fixed and best > 1.25 * fixed


def test_policies_of_plans_see_the_state():
    plan = np.random.default_rng(2).integers(0, 2, [3, 6, 5, 52])
    grid = np.stack(np.meshgrid(range(3), range(6), range(5), range(52), indexing="ij"), -1).reshape(-1, 4)
    shown = campaign_mail.campaign_mail().observe(campaign_mail.State(*map(tf.constant, grid.T.astype(np.int32))))
    np.testing.assert_array_equal(campaign_mail.follow(plan)(shown), plan.ravel())


def poisson(mean, number):
    """How many, by inversion; at most 7."""
    count, term, total = 0, math.exp(-mean), math.exp(-mean)
    while number >= total and count < 7:
        count += 1
        term *= mean / count
        total += term
    return count


class Crossing:
    """A traffic light, written as its docstring says it."""

    def __init__(self, offset):
        self.queues, self.phase, self.green, self.amber, self.clock, self.offset = [0] * 4, 0, 0, 0, 0, offset

    def step(self, action, numbers):
        if action == 1 and self.amber == 0 and self.green >= 3:
            self.amber = 2
        if self.amber == 0:
            for side in ((0, 1), (2, 3))[self.phase]:
                self.queues[side] = max(0, self.queues[side] - 1)
            self.green += 1
        else:
            self.amber -= 1
            self.green += 1
            if self.amber == 0:
                self.phase, self.green = 1 - self.phase, 0
        swing = 0.2 * math.sin(2 * math.pi * (self.clock / 300 + self.offset))
        for side, busy in enumerate((1.1, 0.9, 1.1, 0.9)):
            mean = busy * (0.3 + (swing if side < 2 else -swing))
            self.queues[side] = min(40, self.queues[side] + poisson(mean, numbers[side]))
        self.clock += 1
        return -sum(self.queues) * 2 / 60


def test_traffic_light_equals_its_twin():
    """300 steps of eight crossings, of which some hardly ever switch, so that streets fill up."""
    environment = traffic_light.traffic_light()
    state = environment.initial(8, tf.constant([3, 4]))
    twins = [Crossing(offset) for offset in state.offset.numpy().tolist()]
    often = np.array([0, 0.004, 0.01, 0.03, 0.1, 0.3, 0.6, 1.0])
    dynamics = tf.function(environment.dynamics)
    fullest = 0
    for number in range(300):
        action = (np.random.default_rng(number).uniform(size=8) < often).astype(np.int32)
        key = tf.constant([5, number])
        numbers = uniform([8, 4], key).numpy().tolist()
        state, reward, over = dynamics(state, tf.constant(action), key)
        expected = [twin.step(*given) for twin, given in zip(twins, zip(action.tolist(), numbers))]
        np.testing.assert_array_equal(state.queues, [twin.queues for twin in twins])
        np.testing.assert_allclose(reward, expected, rtol=1e-6)
        for part, name in ((state.phase, "phase"), (state.time, "green"), (state.amber, "amber")):
            np.testing.assert_array_equal(part, [getattr(twin, name) for twin in twins])
        assert not over.numpy().any()
        fullest = max(fullest, int(tf.reduce_max(state.queues)))
    assert fullest == 40


def test_fixed_cycles_keep_their_times():
    environment = traffic_light.traffic_light()
    state, policy, phases = environment.initial(1, tf.constant([1, 1])), traffic_light.fixed_cycle(10, 20), []
    for number in range(60):
        phases.append((int(state.phase[0]), int(state.amber[0]) > 0))
        state, _, _ = environment.dynamics(state, policy(environment.observe(state)), tf.constant([2, number]))
    # Amber shows after the step that begins it: 5 steps of green, and one that is seen as amber.
    greens = "".join("-" if amber else str(phase) for phase, amber in phases)
    assert greens[:38] == "000000-" + "11111111111-" + "000000-" + "11111111111-"
    with pytest.raises(ValueError, match="A green lasts at least 6 s; received 4 and 20"):
        traffic_light.fixed_cycle(4, 20)


def test_arrivals_are_poisson():
    means = tf.constant([0.11, 0.3, 0.55])
    numbers = uniform([200_000, 3], tf.constant([1, 2]))
    counts = traffic_light._arrivals(tf.tile(means[None], [200_000, 1]), numbers).numpy()
    np.testing.assert_allclose(counts.mean(axis=0), means, rtol=0.015)
    np.testing.assert_allclose(counts.var(axis=0), means, rtol=0.015)


def test_baselines_are_policies():
    for name, make in catalogue.BASELINES.items():
        environment = catalogue.make(name)
        shown = environment.observe(environment.initial(5, tf.constant([1, 2])))
        for policy in make().values():
            actions = policy(shown)
            assert actions.shape == (5,) and set(actions.numpy()) <= {0, 1} and actions.dtype == tf.int32


def test_advertising_equals_its_bandit():
    environment = advertising.advertising()
    state = environment.initial(1000, tf.constant([1, 2]))
    shown = environment.observe(state).numpy()
    action = tf.constant(np.arange(1000) % 6, tf.int32)
    _, reward, over = environment.dynamics(state, action, tf.constant([3, 4]))
    numbers = uniform([1000], tf.constant([3, 4])).numpy()
    means = np.einsum("ni,ni->n", shown, advertising.RATES[action.numpy()])
    np.testing.assert_array_equal(reward, numbers < means)
    assert over.numpy().all() and 30 < reward.numpy().sum() < 130


def test_k_armed_bandit_draws_its_means():
    problem = bandit.k_armed(10)
    means = problem.begin(2000, tf.constant([1, 2])).numpy()
    assert means.std() == pytest.approx(1, abs=0.02) and means.mean() == pytest.approx(0, abs=0.02)
    rewards = bandit.pull(problem, tf.fill([20_000], 3.0), tf.constant([1, 2])).numpy()
    assert (rewards.mean(), rewards.std()) == (pytest.approx(3, abs=0.03), pytest.approx(1, abs=0.02))
    np.testing.assert_array_equal(problem.context(means, None), np.ones([2000, 1]))
