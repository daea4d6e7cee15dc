"""Who plays: anything that chooses a move for a `Board`.

A player has a `name` and three methods:

    begin(rules)              a new game starts, under these rules; or its komi has changed.
    choose(board, seconds)    -> Choice: a move for the side to move; `seconds` it may take, None: as it likes.
    analyse(board, interval)  -> iterator of Analysis, a newer one about every `interval` seconds, until it is closed.

and may have more:

    dead_stones(board)        -> bool [N, N]: stones that are lost, for the count at the end of the game; without it
                              all that are on the board count as alive.
    can_analyse               False where `analyse` only says so in an error.
    kind                      players of one kind, unless it is None, can think about a board each at the same time:
    choose_together(players, boards)    -> [Choice], a static method.

Whoever asks may have gone on, gone back or begun another game since: the board says all.
"""

import dataclasses

import numpy as np

RESIGN = -1


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A move that was thought about.

    Attributes:
        move: a point, or P to pass.
        visits: searches that went through it.
        win_rate: 0 to 1, for the side to move.
        prior: the network's probability.
        line: what is expected to follow, `move` first.
    """

    move: int
    visits: int
    win_rate: float
    prior: float
    line: tuple


@dataclasses.dataclass(frozen=True)
class Analysis:
    """What a search has found.

    Attributes:
        visits: of the root.
        win_rate: 0 to 1, for the side to move.
        candidates: tuple of `Candidate`, the best first.
    """

    visits: int
    win_rate: float
    candidates: tuple


@dataclasses.dataclass(frozen=True)
class Choice:
    """A move, or `RESIGN`, and what it rests on, where the player knows."""

    move: int
    analysis: Analysis | None = None


class RandomPlayer:
    """Legal moves with equal probability; passes only where nothing else is left but to fill its own eyes.

    Args:
        seed: of the moves.
    """

    name = "random"

    def __init__(self, seed=0):
        self._noise = np.random.default_rng(seed)

    def begin(self, rules):
        """Nothing is kept."""

    def choose(self, board, seconds=None):
        """`Choice` without an analysis."""
        moves = self._moves(board)
        return Choice(int(self._noise.choice(moves)))

    def analyse(self, board, interval):
        """One `Analysis` after another, all the same: every move is as good as any other."""
        moves = self._moves(board)
        share = 1 / len(moves)
        while True:
            yield Analysis(0, 0.5, tuple(Candidate(int(move), 0, 0.5, share, (int(move),)) for move in moves))

    @staticmethod
    def _moves(board):
        legal, size = board.legal().copy(), board.rules.size
        own = np.pad(board.stones == board.turn, 1, constant_values=True)
        eyes = own[:-2, 1:-1] & own[2:, 1:-1] & own[1:-1, :-2] & own[1:-1, 2:]
        legal[:-1] &= ~eyes.ravel()
        moves = np.flatnonzero(legal)
        return moves[moves < size * size] if len(moves) > 1 else moves
