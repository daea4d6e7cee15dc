"""A player for engines of the Go Text Protocol that does what tests tell it.

As a program: the random player's engine, for a board of the size that is its argument.
"""

import sys
import time

from apps.alphago.go import rules as go
from apps.alphago.go import text
from apps.alphago.gtp import Engine
from apps.alphago.players import RESIGN, Analysis, Candidate, Choice, RandomPlayer

ANALYSIS = Analysis(12, 0.6, (Candidate(12, 10, 0.51234, 0.12, (12, 13)), Candidate(25, 2, 1.0, 0.00004, (25,))))


class Fake:
    """Plays `moves`, names or what to raise, one after the other; keeps what it was asked."""

    name = "fake"

    def __init__(self, *moves, analysis=None, pause=0.0):
        self.moves, self.analysis, self.pause = list(moves), analysis, pause
        self.begun, self.boards, self.seconds, self.intervals, self.steps, self.closed = [], [], [], [], 0, False
        self.stream = None  # kept, so that nobody but the engine closes it

    def begin(self, rules):
        self.begun.append(rules)

    def choose(self, board, seconds=None):
        self.boards.append(board)
        self.seconds.append(seconds)
        time.sleep(self.pause)
        move = self.moves.pop(0)
        if not isinstance(move, str):
            raise move
        return Choice(RESIGN if move == "resign" else text.move_of(move, board.rules.size), self.analysis)

    def analyse(self, board, interval):
        self.boards.append(board)
        self.intervals.append(interval)
        self.stream = self._analyses()
        return self.stream

    def _analyses(self):
        try:
            while True:
                time.sleep(self.pause)
                self.steps += 1
                yield Analysis(self.steps, 0.5, (Candidate(0, self.steps, 0.5, 1.0, (0, 1)),))
        finally:
            self.closed = True


if __name__ == "__main__":
    Engine(RandomPlayer(0), go.Rules(size=int(sys.argv[1]), komi=7.5)).serve(sys.stdin, sys.stdout)
