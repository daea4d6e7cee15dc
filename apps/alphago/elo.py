"""Ratings from results: who is how much stronger, and how sure that is.

A difference of d Elo means an expected score of 1 / (1 + 10^(-d / 400)). `ratings` finds the numbers under which the
results are likeliest (Bradley & Terry 1952; Zermelo 1929), a draw being half a win and half a loss.
"""

import math
import typing

import numpy as np
import scipy.optimize
import scipy.sparse.csgraph
import scipy.special

_ELO = 400 / math.log(10)  # Elo for one unit of log odds


class Rating(typing.NamedTuple):
    """A row of the table.

    Attributes:
        player: its name.
        elo: above the anchor.
        low, high: interval of the difference to the anchor, which itself has none.
        games: played.
        score: points, draws counting half, over games.
    """

    player: str
    elo: float
    low: float
    high: float
    games: int
    score: float


def expected_score(difference):
    """Score, 0 to 1, that a player with `difference` Elo more than the other can expect."""
    return float(scipy.special.expit(difference / _ELO))


def difference_of(score):
    """Elo that explain a score of 0 to 1; infinite at its ends.

    Raises:
        ValueError: not between 0 and 1.
    """
    if not 0 <= score <= 1:
        raise ValueError(f"A score is a share of the games, 0 to 1; received {score}.")
    return float(scipy.special.logit(score)) * _ELO


def score_interval(points, games, confidence=0.95):
    """Where the true score of a match may lie (Wilson 1927); with draws, which vary less, it is rather too wide.

    Args:
        points: wins and half the draws.
        games: number of games; they count as independent of each other.
        confidence: that the interval covers the true score.

    Returns:
        (low, high), 0 to 1.

    Raises:
        ValueError: no games, or more points than games.
    """
    if games < 1 or not 0 <= points <= games:
        raise ValueError(f"Expected at least one game and between 0 and that many points; received {points} of "
                         f"{games}.")
    z = _quantile(confidence)
    score, weight = points / games, z * z / games
    middle = (score + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(score * (1 - score) / games + weight / games / 4)
    return (middle - half if points > 0 else 0.0), (middle + half if points < games else 1.0)


def ratings(results, anchor, *, confidence=0.95):
    """The likeliest ratings, with intervals from the curvature of the likelihood there.

    A player that won all its games or lost all would be infinitely far away. Such a player gets one draw more, spread
    over its opponents like its games (against one opponent that is Laplace's rule: n wins of n count as n + 1 of
    n + 2, where the opponent lost all its games too). Where that is not enough, since a group won all games against the
    others, all players get it. `games` and `score` of the table do not count these draws.

    Args:
        results: iterable of (player, opponent, score of the player), 1, 0.5 or 0, one for each game.
        anchor: the player at 0.
        confidence: of the intervals.

    Returns:
        list of `Rating`, the best first.

    Raises:
        ValueError: no games, an impossible one, an unknown anchor, or groups of players that never met.
    """
    players, points = _points(results)
    if anchor not in players:
        raise ValueError(f"The anchor {anchor!r} has played no game: expected one of {', '.join(players)}.")
    _check_met(players, points)
    counted = _with_prior(points)
    others = np.array([player != anchor for player in players])
    strengths, deviations = np.zeros(len(players)), np.zeros(len(players))
    strengths[others] = _likeliest(counted, others)
    information = _curvature(counted, strengths)[np.ix_(others, others)]
    deviations[others] = np.sqrt(np.diag(np.linalg.inv(information)))
    elo, margin = strengths * _ELO, deviations * _ELO * _quantile(confidence)
    games = points.sum(axis=1) + points.sum(axis=0)
    rows = zip(players, elo, elo - margin, elo + margin, games, points.sum(axis=1) / games)
    table = [Rating(name, *map(float, (value, low, high)), int(number), float(score))
             for name, value, low, high, number, score in rows]
    return sorted(table, key=lambda row: -row.elo)


def _quantile(confidence):
    if not 0 < confidence < 1:
        raise ValueError(f"Confidence must be between 0 and 1, such as 0.95; received {confidence}.")
    return float(scipy.special.ndtri((1 + confidence) / 2))


def _points(results):
    """Names [K], and what each scored against each, float [K, K]."""
    results = list(results)
    for player, opponent, score in results:
        if player == opponent or score not in (0, 0.5, 1):
            raise ValueError("A result is (player, another player, 1, 0.5 or 0); received "
                             f"({player!r}, {opponent!r}, {score!r}).")
    if not results:
        raise ValueError("There are no results: expected at least one game.")
    players = list(dict.fromkeys(name for result in results for name in result[:2]))
    points = np.zeros([len(players)] * 2)
    for player, opponent, score in results:
        one, other = players.index(player), players.index(opponent)
        points[one, other] += score
        points[other, one] += 1 - score
    return players, points


def _check_met(players, points):
    number, group = scipy.sparse.csgraph.connected_components(points > 0, directed=False)
    if number > 1:
        parts = "; ".join(", ".join(np.array(players)[group == k]) for k in range(number))
        raise ValueError(f"These groups of players never met, so that nothing compares them: {parts}. Let some of them "
                         "play each other.")


def _with_prior(points):
    """Points [K, K] with the draws that keep all strengths finite."""
    games = points + points.T
    won, played = points.sum(axis=1), games.sum(axis=1)
    needs = (won == 0) | (won == played)
    for who in (needs, np.ones_like(needs)):
        draws = np.where(who[:, None], games / played[:, None], 0)
        counted = points + (draws + draws.T) / 2
        # Finite if and only if points lead from everyone to everyone (Ford 1957).
        if scipy.sparse.csgraph.connected_components(counted > 0, connection="strong")[0] == 1:
            return counted
    return counted


def _likeliest(points, others):
    """Log odds of the players except the anchor at 0."""
    share = points / points.sum()

    def spread(values):
        strengths = np.zeros(len(points))
        strengths[others] = values
        return strengths

    def loss(values):
        strengths = spread(values)
        return -np.sum(share * scipy.special.log_expit(strengths[:, None] - strengths))

    def gradient(values):
        strengths = spread(values)
        surprise = share * scipy.special.expit(strengths - strengths[:, None])
        return (surprise.sum(axis=0) - surprise.sum(axis=1))[others]

    def hessian(values):
        return _curvature(share, spread(values))[np.ix_(others, others)]

    found = scipy.optimize.minimize(loss, np.zeros(others.sum()), jac=gradient, hess=hessian, method="trust-exact",
                                    options={"gtol": 1e-12, "maxiter": 1000})
    step = np.linalg.solve(hessian(found.x), gradient(found.x))  # Newton's: how far the top still is
    if np.abs(step).max() > 1e-4:
        raise RuntimeError(f"The likeliest ratings were not found: {found.message}")
    return found.x - step


def _curvature(points, strengths):
    """Fisher's information, float [K, K]."""
    expected = scipy.special.expit(strengths[:, None] - strengths)
    weights = (points + points.T) * expected * (1 - expected)
    return np.diag(weights.sum(axis=1)) - weights
