"""The player that knows nothing."""

import numpy as np
import pytest

from apps.alphago.go import rules as go
from apps.alphago.go import text
from apps.alphago.go.board import Board
from apps.alphago.players import RandomPlayer

RULES = go.Rules(size=5)


@pytest.mark.parametrize("seed", range(3))
def test_games_end_by_passes(seed):
    player, board = RandomPlayer(seed), Board(RULES)
    player.begin(RULES)
    while not board.is_over:
        board.play(player.choose(board).move)
    assert board.moves[-1][1] == board.moves[-2][1] == 25 or len(board.moves) == RULES.last_move


def test_eyes_are_left_alone():
    stones = text.read("""
        . X . X .
        X X X X X
        X X X X X
        X X X X X
        X X X X X""")
    assert RandomPlayer().choose(Board(RULES, stones)).move == 25
    found = {RandomPlayer(seed).choose(Board(RULES)).move for seed in range(300)}
    assert found == set(range(25))


def test_analysis():
    stream = RandomPlayer().analyse(Board(RULES), 0.1)
    found = next(stream)
    assert len(found.candidates) == 25 and np.isclose(sum(c.prior for c in found.candidates), 1)
    assert next(stream) == found
