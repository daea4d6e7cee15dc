"""Matches of networks, with networks that know the answer."""

import numpy as np
import pytest
import tensorflow as tf

from apps.alphago import games, ladder
from apps.alphago.search import tree as trees

GAME = games.tic_tac_toe()


class Fake:
    """An evaluator whose network likes low fields, or high ones, and knows nothing of values."""

    def __init__(self, slope):
        self.values = {"slope": tf.constant(slope)}

    @staticmethod
    def bound(values):
        def network(planes):
            logits = values["slope"] * tf.range(9.0)[None]
            return tf.repeat(logits, planes.shape[0], axis=0), tf.zeros([planes.shape[0]])
        return network


def test_the_same_network_scores_half():
    """Every opening is played twice with sides changed, so one network cannot beat itself."""
    player = ladder.Match(GAME, games.empty_marks, Fake.bound, games=20, simulations=8)
    score = player.play(Fake(0.3), Fake(0.3), seed=1)
    assert score.share == 0.5 and score.wins + score.draws + score.losses == 20


def test_more_search_is_not_needed_to_see_who_is_better():
    """Without an opening the network of low fields takes 0, 1, 2 as first player, and so loses as second or first."""
    player = ladder.Match(GAME, games.empty_marks, Fake.bound, games=4, simulations=1, opening_moves=0)
    low, high = Fake(5.0), Fake(-5.0)
    # low first: 0, 8, 1, 7, 2 wins. high first: 8, 0, 7, 1, 6 wins.
    assert player.play(low, high) == ladder.Score(2, 0, 2)
    # against one that likes the middle of what low takes
    assert player.play(low, low) == ladder.Score(2, 0, 2)
    assert player._choose.experimental_get_tracing_count() == 1


def test_results_are_those_of_the_rules():
    """a takes whole lines of play that are replayed here by hand."""
    player = ladder.Match(GAME, games.empty_marks, Fake.bound, games=2, simulations=1, opening_moves=0)
    weights = {0: Fake(5.0), 1: Fake(-5.0)}
    wins = 0
    for first in (0, 1):
        board, side = np.zeros(9, int), 0
        while True:
            free = np.flatnonzero(board == 0)
            slope = float(weights[(first + side) % 2].values["slope"])
            board[free[0] if slope > 0 else free[-1]] = side + 1
            if any((board[line] == side + 1).all() for line in games._LINES):
                wins += (first + side) % 2 == 0
                break
            side = 1 - side
    assert player.play(weights[0], weights[1]).wins == wins


def test_a_game_that_ends_in_its_opening_is_a_draw():
    """A game of three moves, which whoever is to move then has won; going on after that would be a move of nobody's."""
    def step(state, action):
        tf.debugging.assert_less(tf.reduce_max(state), 10)
        return state + 1

    game = trees.Game(num_actions=9, step=step, legal=lambda state: tf.ones([state.shape[0], 9], tf.bool),
                      result=lambda state: (state >= 3, tf.where(state == 3, 1.0, -1.0)),
                      observe=lambda state: tf.cast(state, tf.float32))
    player = ladder.Match(game, lambda number: tf.zeros([number], tf.int32), Fake.bound, games=60, simulations=2)
    ended = (np.random.default_rng(4).integers(0, 7, 30) >= 3).sum()
    score = player.play(Fake(0.3), Fake(0.3), seed=4)
    assert 0 < ended < 30 and score.draws == 2 * ended and score.wins == score.losses == 30 - ended


def test_odd_numbers_are_refused():
    with pytest.raises(ValueError, match="even number of games, each opening twice; received 3"):
        ladder.Match(GAME, games.empty_marks, Fake.bound, games=3, simulations=1)
