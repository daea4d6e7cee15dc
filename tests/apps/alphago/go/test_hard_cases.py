"""Positions that programs get wrong, as diagrams; the beginner's board must say the same at every move."""

import numpy as np
import pytest

from apps.alphago.go import rules as go
from apps.alphago.go import text
from tests.apps.alphago.go.reference import Board


class Game:
    """One game from a diagram, played by names of points, beside the reference."""

    def __init__(self, diagram, turn="X", **options):
        stones = text.read(diagram)
        self.size = len(stones)
        self.rules = go.Rules(size=self.size, komi=0, **options)
        colour = {"X": go.BLACK, "O": go.WHITE}[turn]
        self.state = go.from_stones(self.rules, stones, colour)
        self.board = Board(self.size, superko=self.rules.superko, suicide=self.rules.suicide)
        self.board.stones = {(int(r), int(c)): int(stones[r, c]) for r, c in np.argwhere(stones)}
        self.board.turn, self.board.positions = colour, [frozenset(self.board.stones.items())]

    def legal(self, name):
        mask = go.program(self.rules, "legal")(self.state).numpy()[0]
        expected = self.board.legal()
        assert {divmod(int(p), self.size) for p in np.flatnonzero(mask[:-1])} == expected
        return bool(mask[text.move_of(name, self.size)])

    def play(self, *names):
        for name in names:
            assert self.legal(name), name
            move = text.move_of(name, self.size)
            self.state = go.program(self.rules, "play")(self.state, np.array([move], np.int32))
            self.board.play(None if name == "pass" else divmod(move, self.size))
            found = self.state.stones.numpy().reshape(self.size, self.size)
            assert {(int(r), int(c)): int(found[r, c]) for r, c in np.argwhere(found)} == self.board.stones
        return self

    def show(self):
        return text.show(self.state.stones.numpy()[0])

    def stones(self):
        return np.count_nonzero(self.state.stones.numpy())


KO = """
    . X O . .
    X O . O .
    . X O . .
    . . . . .
    . . . . ."""


@pytest.mark.parametrize("superko", [False, True])
def test_ko(superko):
    game = Game(KO, superko=superko).play("C4")
    assert text.read(game.show())[1].tolist() == [1, 0, 1, -1, 0]
    assert not game.legal("B4")
    assert game.play("E1", "A1").legal("B4")  # after a threat and its answer it may be taken back
    assert not game.play("B4").legal("C4")
    both_pass = Game(KO, superko=superko).play("C4", "pass", "pass")
    assert both_pass.legal("B4") is not superko  # a pass lifts simple ko, and no position comes again under superko


def test_a_capture_of_one_that_is_no_ko():
    game = Game("""
        . X O . .
        X O . O .
        . X . . .
        . . . . .
        . . . . .""").play("C4")
    assert game.legal("B4") is False  # suicide, not ko: the capturing stone has another liberty
    assert int(game.state.ko[0]) == -1


def test_snapback():
    game = Game("""
        . . O X .
        O O O X .
        X X X . .
        . . . . .
        . . . . .""").play("B5", "A5")
    assert game.state.prisoners[0].numpy().tolist() == [0, 1]
    game.play("B5")  # at once, where a stone was just taken
    assert game.state.prisoners[0].numpy().tolist() == [5, 1] and game.stones() == 6


@pytest.mark.parametrize("superko", [False, True])
def test_send_two_return_one(superko):
    game = Game("""
        . O . O .
        X X O . .
        . . . . .
        . . . . .
        . . . . .""", "O", superko=superko).play("A5", "C5")
    assert game.legal("B5") is not superko


@pytest.mark.parametrize("superko", [False, True])
def test_triple_ko(superko):
    game = Game("""
        . X O . . . . . .
        X O . O . . . . .
        . X O . . . . . .
        . X O . . . . . .
        X . X O . . . . .
        . X O . . . . . .
        . X O . . . . . .
        X O . O . . . . .
        . X O . . . . . .""", superko=superko)
    before = game.show()
    game.play("C8", "B5", "C2", "B8", "C5")
    assert game.legal("B2") is not superko  # the sixth capture brings the first position back
    if not superko:
        assert game.play("B2").show() == before


@pytest.mark.parametrize("suicide", [False, True])
@pytest.mark.parametrize("superko", [False, True])
def test_suicide(suicide, superko):
    game = Game("""
        . X . O .
        X O O . .
        . . . . .
        . . . . .
        . . . . .""", "O", suicide=suicide, superko=superko)
    assert not game.legal("A5")  # of a single stone never: it would change nothing
    several = Game("""
        X . O . .
        X O O . .
        O . . . .
        . . . . .
        . . . . .""", suicide=suicide, superko=superko)
    assert several.legal("B5") is suicide
    if suicide:
        several.play("B5")
        assert several.stones() == 4 and several.state.prisoners[0].numpy().tolist() == [0, 3]
    capturing = Game("""
        . X O . .
        X O . . .
        O . . . .
        . . . . .
        . . . . .""", "O", suicide=suicide, superko=superko)
    assert capturing.play("A5").stones() == 4  # no suicide: it takes first


@pytest.mark.parametrize("size", [5, 9, 13, 19])
def test_a_chain_as_large_as_the_board(size):
    stones = np.ones([size, size], int)
    stones[0, 0] = 0
    game = Game(text.show(stones), "O", suicide=True, superko=True).play(f"A{size}")
    assert game.stones() == 1 and game.state.prisoners[0].numpy().tolist() == [0, size * size - 1]
    snake = np.zeros([size, size], int)
    snake[::2], snake[1::4, -1], snake[3::4, 0] = 1, 1, 1
    game = Game(text.show(snake), "O", superko=True)
    assert len(set(game.state.chain.numpy()[0])) == 2


def test_a_chain_without_liberties_cannot_be_set_up():
    with pytest.raises(ValueError, match="chain with the stone in row 0, column 0 .* has no liberty"):
        go.from_stones(go.Rules(size=5), text.read("X O . . .\nO . . . .\n. . . . .\n. . . . .\n. . . . ."))
    with pytest.raises(ValueError, match="board of 5 has 25 points; received an array of shape"):
        go.from_stones(go.Rules(size=5), np.zeros([6, 6]))


@pytest.mark.parametrize("options, message", [
    ({"size": 4}, "5 to 19"), ({"size": 20}, "5 to 19"), ({"komi": 6.25}, "multiple of one half"),
    ({"max_moves": -1}, "max_moves must be")])
def test_rules_that_are_none(options, message):
    with pytest.raises(ValueError, match=message):
        go.Rules(**options)
