"""What a finished game of Go is worth."""

import numpy as np
import pytest

from apps.alphago import games
from apps.alphago.go import rules as go
from apps.alphago.go.board import Board


@pytest.mark.parametrize("komi, share, expected", [
    (7.0, 0.0, 1.0), (7.0, 0.25, 0.75 + 0.25 * 18 / 25), (25.0, 0.25, 0.0), (25.5, 0.25, -0.75 - 0.25 * 0.5 / 25),
    (80.0, 0.25, -1.0)])
def test_value_of_the_whole_board(komi, share, expected):
    rules = go.Rules(size=5, komi=komi)
    board = Board(rules)
    board.play(12)
    game = games.go_game(rules, share)
    assert not game.result(board.state)[0].numpy()[0]
    for turn in (go.BLACK, go.WHITE):  # who is to move in the end
        board.play(25)
        if turn == go.BLACK:
            board.play(25)
        over, value = (part.numpy()[0] for part in game.result(board.state))
        outcome = game.outcome(board.state)
        assert over and value == pytest.approx(expected * board.turn, abs=1e-6)
        assert outcome["score"].numpy() == (25 - komi) * board.turn
        np.testing.assert_array_equal(outcome["ownership"].numpy(), np.full([1, 5, 5, 1], board.turn))


def considered(game, board, value):
    legal = game.legal(board.state)
    found = game.sensible(board.state, legal, np.float32([value])).numpy()[0]
    np.testing.assert_array_equal(found[:-1], legal.numpy()[0, :-1])
    return found[-1]


def test_passes_that_a_search_considers():
    rules = go.Rules(size=5, komi=0.5)
    game = games.go_game(rules, first_pass=4, losing_pass=-0.75)
    board = Board(rules)
    for move in (12, 0, 13):
        board.play(move)
        assert not considered(game, board, 0.0)  # too early
    board.play(1)
    assert considered(game, board, 0.0)
    board.play(25)
    # White is asked: all is not counted yet (neither side has the empty points), and white is half a point ahead.
    assert considered(game, board, 0.9)
    for move in (2, 14, 25):
        board.play(move)
    # Black is behind: with hope left the game goes on.
    assert not considered(game, board, 0.0) and not considered(game, board, -0.75) and considered(game, board, -0.8)
    assert considered(games.go_game(rules), board, 0.0)


def test_a_pass_is_considered_where_there_is_nothing_else():
    stones = np.ones([5, 5], np.int8)
    stones[0, 0] = stones[4, 4] = 0
    state = go.from_stones(go.Rules(size=5), stones, turn=go.WHITE)
    game = games.go_game(go.Rules(size=5), first_pass=4, losing_pass=-1.0)
    legal = game.legal(state)
    assert legal.numpy().sum() == 1  # suicide
    for passes in (0, 1):
        assert game.sensible(state._replace(passes=np.int8([passes])), legal, np.float32([0])).numpy()[0, -1]
