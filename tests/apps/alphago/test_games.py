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
