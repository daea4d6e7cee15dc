"""A player that does what a test wants."""

import threading

from apps.alphago.go import text
from apps.alphago.players import RESIGN, Analysis, Candidate, Choice


class Scripted:
    """Makes the moves that it was given, and passes when there are no more.

    Args:
        moves: names, "resign", or exceptions, which it raises.
        visits: of the analyses that it gives one after another; their best candidate is the first legal point, with
            the visits as numerator of its win rate in per cent.

    Attributes:
        games: `Rules` of the games that have begun.
        seconds: that it was allowed for its moves.
        asked: positions that were analysed, as numbers of moves.
        ended: number of streams of analyses that were closed.
        gate: moves wait for this event.
    """

    name = "scripted <i>&amp;"

    def __init__(self, *moves, visits=()):
        self._moves, self._visits = list(moves), visits
        self.games, self.seconds, self.asked, self.ended, self.gate = [], [], [], 0, threading.Event()
        self.gate.set()

    def begin(self, rules):
        self.games.append(rules)

    def choose(self, board, seconds=None):
        self.seconds.append(seconds)
        assert self.gate.wait(60)
        move = self._moves.pop(0) if self._moves else "pass"
        if isinstance(move, Exception):
            raise move
        point = RESIGN if move == "resign" else text.move_of(move, board.rules.size)
        return Choice(point, self._analysis(board, 100, point) if self._visits and point >= 0 else None)

    def analyse(self, board, interval):
        self.asked.append(len(board.moves))
        try:
            for visits in self._visits:
                if isinstance(visits, Exception):
                    raise visits
                yield self._analysis(board, visits, int(board.legal().argmax()))
        finally:
            self.ended += 1

    @staticmethod
    def _analysis(board, visits, point):
        size = board.rules.size
        rest = [move for move in range(size * size) if board.legal()[move] and move != point][:3]
        candidates = [Candidate(point, visits, visits / 100, 0.6, (point, size * size, *rest[:1])),
                      *(Candidate(move, k, 0.25, 0.1 / (k + 1), (move,)) for k, move in enumerate(rest))]
        return Analysis(visits + 3, visits / 100, tuple(candidates))
