"""Ratings against a likelihood that is maximised by brute force, and against what is known in closed form."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from apps.alphago import elo


def log_likelihood(strengths, results):
    """Of results [(player, opponent, score)], with {player: Elo}; game by game."""
    total = 0.0
    for player, opponent, score in results:
        chance = 1 / (1 + 10 ** ((strengths[opponent] - strengths[player]) / 400))
        total += score * math.log(chance) + (1 - score) * math.log(1 - chance)
    return total


def drawn_results(strengths, games, noise, draws=0.2):
    names, results = list(strengths), []
    for _ in range(games):
        a, b = noise.choice(len(names), 2, replace=False)
        a, b = names[a], names[b]
        if noise.random() < draws:
            results.append((a, b, 0.5))
        else:
            results.append((a, b, int(noise.random() < elo.expected_score(strengths[a] - strengths[b]))))
    return results


@pytest.mark.parametrize("score, difference", [(0.5, 0), (0.75, 190.85), (0.25, -190.85), (0.91, 401.92),
                                               (10 / 11, 400)])
def test_score_and_difference(score, difference):
    assert elo.difference_of(score) == pytest.approx(difference, abs=0.01)
    assert elo.expected_score(difference) == pytest.approx(score, abs=1e-5)
    assert elo.expected_score(elo.difference_of(score)) == pytest.approx(score, abs=1e-12)


def test_ends_of_the_scale():
    assert elo.difference_of(1) == math.inf and elo.difference_of(0) == -math.inf
    assert elo.expected_score(math.inf) == 1 and elo.expected_score(-1e6) == 0


@pytest.mark.parametrize("points, games", [(0, 5), (5, 5), (15, 20), (1, 100), (400, 777)])
def test_interval_of_a_score(points, games):
    expected = scipy.stats.binomtest(points, games).proportion_ci(0.9, method="wilson")
    np.testing.assert_allclose(elo.score_interval(points, games, 0.9), expected, atol=1e-12)
    assert elo.score_interval(points, games)[0] <= points / games <= elo.score_interval(points, games)[1]
    if points in (0, games):
        assert elo.score_interval(points, games)[points > 0] == float(points > 0)


def test_interval_of_a_score_with_draws():
    low, high = elo.score_interval(7.5, 10)
    assert elo.score_interval(7, 10)[0] < low < elo.score_interval(8, 10)[0]
    assert elo.score_interval(7, 10)[1] < high < elo.score_interval(8, 10)[1]


def test_two_players_in_closed_form():
    first, second = elo.ratings([("a", "b", 1)] * 50 + [("b", "a", 1)] * 10 + [("a", "b", 0.5)] * 20, "b")
    assert second == ("b", 0, 0, 0, 80, 0.25)
    assert first.elo == pytest.approx(190.8485, abs=1e-3) and first.score == 0.75
    margin = 1.959964 * 400 / math.log(10) / math.sqrt(80 * 0.75 * 0.25)
    assert (first.low, first.high) == pytest.approx((first.elo - margin, first.elo + margin))


@pytest.mark.parametrize("seed", range(3))
def test_against_brute_force(seed):
    noise = np.random.default_rng(seed)
    names = ["a", "b", "c", "d"]
    results = drawn_results(dict(zip(names, noise.normal(0, 250, 4))), 150, noise)

    def loss(values):
        return -log_likelihood(dict(zip(names, [0, *values])), results)

    best = scipy.optimize.minimize(loss, np.zeros(3), method="Nelder-Mead",
                                   options={"xatol": 1e-3, "fatol": 1e-9, "maxiter": 5000, "maxfev": 5000}).x
    step, unit = 1.0, np.eye(3)
    hessian = np.array([[(loss(best + step * (unit[i] + unit[j])) - loss(best + step * (unit[i] - unit[j]))
                          - loss(best - step * (unit[i] - unit[j])) + loss(best - step * (unit[i] + unit[j])))
                         / (4 * step**2) for j in range(3)] for i in range(3)])
    deviations = np.sqrt(np.diag(np.linalg.inv(hessian)))
    table = {row.player: row for row in elo.ratings(results, "a")}
    for name, value, deviation in zip("bcd", best, deviations):
        row = table[name]
        assert row.elo == pytest.approx(value, abs=0.05)
        assert (row.high - row.elo, row.elo - row.low) == pytest.approx([1.96 * deviation] * 2, rel=1e-3)
        assert row.games == sum(name in result[:2] for result in results)
    assert [row.elo for row in elo.ratings(results, "a")] == sorted((row.elo for row in table.values()), reverse=True)


def test_another_anchor_shifts_all():
    noise = np.random.default_rng(5)
    results = drawn_results({"a": 0, "b": 100, "c": -100}, 60, noise)
    by_a, by_c = ({row.player: row.elo for row in elo.ratings(results, anchor)} for anchor in "ac")
    assert by_a["a"] == 0 and by_c["c"] == 0
    for name in "abc":
        assert by_a[name] - by_a["c"] == pytest.approx(by_c[name], abs=1e-6)


def test_intervals_cover_the_truth():
    truth, noise, covered = {"a": 0, "b": 150, "c": -200}, np.random.default_rng(0), []
    for _ in range(300):
        for row in elo.ratings(drawn_results(truth, 90, noise, draws=0), "a"):
            covered.append(row.player == "a" or row.low <= truth[row.player] <= row.high)
    share = 1 - (900 - sum(covered)) / 600  # the anchor's rows always do
    assert 0.92 < share < 0.985


@pytest.mark.parametrize("games", [1, 10, 10000])
def test_who_won_all_gets_laplaces_draws(games):
    first, last = elo.ratings([("a", "b", 1)] * games, "b")
    assert first.elo == pytest.approx(400 * math.log10(games + 1), abs=0.01)
    assert (first.games, first.score, last.score) == (games, 1, 0) and first.low < first.elo < first.high


def test_who_won_all_does_not_change_the_others_much():
    others = [("b", "c", 1)] * 60 + [("b", "c", 0)] * 20
    table = {row.player: row.elo for row in elo.ratings(others + [("a", "b", 1)] * 4 + [("a", "c", 1)] * 4, "c")}
    assert table["b"] == pytest.approx(190.85, abs=10) and 200 < table["a"] - table["b"] < 600
    strengths = dict(table)
    prior = [("a", "b", 0.5), ("a", "c", 0.5)]  # half a draw against each
    counted = others + [("a", "b", 1)] * 4 + [("a", "c", 1)] * 4

    def likelihood(change):
        moved = strengths | {"a": strengths["a"] + change}
        return log_likelihood(moved, counted) + 0.5 * log_likelihood(moved, prior)

    assert likelihood(0) > max(likelihood(1), likelihood(-1))


def test_a_group_that_won_all():
    within = [("a", "b", 1), ("a", "b", 0), ("c", "d", 1), ("c", "d", 0)]
    across = [(strong, weak, 1) for strong in "ab" for weak in "cd"]
    table = {row.player: row for row in elo.ratings(within * 3 + across * 3, "a")}
    assert table["b"].elo == pytest.approx(0, abs=1e-6) and table["c"].elo == pytest.approx(table["d"].elo, abs=1e-6)
    assert -1500 < table["c"].elo < -200 and all(np.isfinite(row[1:4]).all() for row in table.values())


@pytest.mark.parametrize("results, anchor, message", [
    ([], "a", "There are no results"),
    ([("a", "b", 1)], "c", "The anchor 'c' has played no game: expected one of a, b"),
    ([("a", "a", 1)], "a", r"another player, 1, 0.5 or 0\); received \('a', 'a', 1\)"),
    ([("a", "b", 2)], "a", r"received \('a', 'b', 2\)"),
    ([("a", "b", 1), ("c", "d", 0)], "a", "never met, so that nothing compares them: a, b; c, d"),
])
def test_bad_results(results, anchor, message):
    with pytest.raises(ValueError, match=message):
        elo.ratings(results, anchor)


def test_bad_numbers():
    with pytest.raises(ValueError, match="0 to 1; received 1.5"):
        elo.difference_of(1.5)
    with pytest.raises(ValueError, match="received 3 of 2"):
        elo.score_interval(3, 2)
    with pytest.raises(ValueError, match="received 0 of 0"):
        elo.score_interval(0, 0)
    with pytest.raises(ValueError, match="Confidence must be between 0 and 1, such as 0.95; received 95"):
        elo.ratings([("a", "b", 1)], "a", confidence=95)
