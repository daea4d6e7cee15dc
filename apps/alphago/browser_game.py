"""A game between a person and a player, with what is known about its positions; knows nothing of threads or pages.

Every position of a game has a number of its own, which no other position gets: after a move is taken back and another
is made, what was said about the old position is not taken for the new one.
"""

import dataclasses
import functools
import itertools
import json
import math
import time

import numpy as np

from apps.alphago.go import rules as go
from apps.alphago.go import sgf, text
from apps.alphago.go.board import Board

SIDES = {"black": go.BLACK, "white": go.WHITE, "both": 0}
NAMES = {side: name for name, side in SIDES.items()}
_LINES = 10  # candidates of which the expected line is told
_LENGTH = 24  # moves of such a line
# By the clock: a page that is still open does not take them for those of a server that ran before.
_positions = itertools.count(time.time_ns() // 10**6)


class Match:
    """A game in which a person plays against a player, or both sides.

    Args:
        rules: `Rules`; their programs are compiled here, which takes seconds the first time.
        person: +1, -1, or 0 for both sides.
        setup, turn: as of `Board`.

    Attributes:
        board: `Board`.
        person: see there.
        positions: numbers of the positions, one more than there are moves.
        rates: {moves before it: black's win rate in that position}.
        comments: {moves before it: text}, of a file that was loaded.
        names: of black and of white, of a file that was loaded, or None.
        given_up: the side that gave up, or 0.
    """

    def __init__(self, rules, person, setup=None, turn=go.BLACK):
        _compile(rules)
        self.board, self.person = Board(rules, setup, turn), person
        self.positions, self.rates, self.comments, self.names, self.given_up = [next(_positions)], {}, {}, None, 0
        self._taken, self._analyses = [], {}

    @classmethod
    def from_record(cls, rules, record):
        """The game of an `sgf.Record`, in which the person has both sides.

        Raises:
            ValueError: it breaks the rules.
        """
        rules = dataclasses.replace(rules, size=record.size, komi=record.komi)
        match = cls(rules, SIDES["both"], record.setup, record.first)
        for number, (colour, move) in enumerate(record.moves, 1):
            try:
                match.play(move, colour)
            except ValueError as error:
                raise ValueError(f"Move {number} of the file, {NAMES[colour]}: {error}") from error
        match.comments, match.names = dict(record.comments), record.names
        if record.margin is not None and math.isinf(record.margin):
            match.given_up = go.WHITE if record.margin > 0 else go.BLACK
        return match

    def play(self, move, colour=None):
        """Makes a move.

        Raises:
            ValueError: it may not be made; the message says why, for people.
        """
        board, before = self.board, self.board.stones.ravel()
        if len(board.moves) >= board.rules.last_move:
            raise ValueError(f"The game has {len(board.moves)} moves, as many as its rules allow.")
        if not 0 <= move <= board.rules.num_points:
            raise ValueError(f"A move must be 0 to {board.rules.num_points}; received {move}.")
        if not board.legal(colour)[move]:
            raise ValueError(why_illegal(board, move, colour))
        board.play(move, colour)
        gone = np.flatnonzero((before != 0) & (board.stones.ravel() == 0)).tolist()
        if move < before.size and not board.stones.ravel()[move]:
            gone.append(move)  # the stone took its own chain
        self._taken.append(gone)
        self.positions.append(next(_positions))
        self.given_up = 0

    def undo(self):
        """Takes back the last move of the person, and what followed.

        Raises:
            ValueError: there is none.
        """
        if self.given_up and self.person in (0, self.given_up):
            self.given_up = 0
            return
        own = [number for number, (colour, _) in enumerate(self.board.moves) if self.person in (0, colour)]
        if not own:
            raise ValueError("You have not made a move yet that could be taken back.")
        self.back(own[-1])

    def back(self, number):
        """Goes back to the position after so many moves; the rest is forgotten.

        Raises:
            ValueError: there have not been so many.
        """
        if not 0 <= number <= len(self.board.moves):
            raise ValueError(f"The game has {len(self.board.moves)} moves; received {number} to go back to.")
        while len(self.board.moves) > number:
            self.board.undo()
        for position in self.positions[number + 1:]:
            self._analyses.pop(position, None)
        del self.positions[number + 1:], self._taken[number:]
        self.rates = {at: rate for at, rate in self.rates.items() if at <= number}
        self.comments = {at: comment for at, comment in self.comments.items() if at <= number}
        self.given_up = 0

    @property
    def margin(self):
        """Points by which black won, plus or minus infinity where a side gave up, None before the end."""
        if self.given_up:
            return -self.given_up * sgf.RESIGNATION
        return self.board.score() if self.board.is_over else None

    def note(self, position, turn, analysis):
        """Keeps what a player said about a position; the side to move there is `turn`.

        Returns:
            What is kept, as JSON.

        Raises:
            ValueError: a move or a rate is none; or the position has been taken back.
        """
        told = {"position": position, **_told(analysis, turn, self.board.rules)}
        self.rates[self.positions.index(position)] = told["rate"]
        self._analyses[position] = json.dumps(told)
        return self._analyses[position]

    def analysis(self, position):
        """What `note` kept of a position, as JSON; `null` if nothing."""
        return self._analyses.get(position, "null")

    def copy(self, position):
        """A `Board` of its own in a position."""
        return self.board.copy(self.positions.index(position))

    def record(self, player):
        """`sgf.Record` of the game against a player of that name."""
        names = self.names or tuple("person" if self.person in (0, side) else player for side in (go.BLACK, go.WHITE))
        return self.board.record(margin=self.margin, names=names, comments=self.comments)

    def describe(self):
        """The game as a dictionary for JSON."""
        board, size, margin = self.board, self.board.rules.size, self.margin
        setup = np.zeros([size, size]) if board.setup is None else board.setup
        scored = margin is not None and not self.given_up
        return {
            "size": size, "komi": board.rules.komi, "colour": NAMES[self.person], "turn": NAMES[board.turn],
            "setup": {NAMES[side]: _named(np.flatnonzero(setup == side), size) for side in (go.BLACK, go.WHITE)},
            "moves": [{"colour": NAMES[colour], "move": text.name_of(move, size), "taken": _named(taken, size)}
                      for (colour, move), taken in zip(board.moves, self._taken)],
            "positions": self.positions, "rates": self.rates, "comments": self.comments, "names": self.names,
            "legal": _named(np.flatnonzero(board.legal()[:-1]), size) if margin is None else [],
            "result": None if margin is None else {
                "winner": NAMES[int(np.sign(margin))] if margin else None,
                "points": abs(margin) if scored else None,
                "text": sgf.result_of(margin)},
            "owner": board.ownership().ravel().tolist() if scored else None}


def why_illegal(board, move, colour=None):
    """A sentence for people: why a move may not be made."""
    state = board.state if colour in (None, board.turn) else go.with_turn(board.state, colour)
    name = text.name_of(move, board.rules.size)
    if board.stones.ravel()[move]:
        return f"There is a stone on {name} already."
    if move == int(state.ko[0]):
        return f"Ko: you may take back on {name} only after a move elsewhere."
    plain = dataclasses.replace(board.rules, superko=False)
    if board.rules.superko and bool(go.legal(plain, state)[0, move]):
        return f"A stone on {name} would bring back an earlier position of the whole board (superko)."
    return f"A stone on {name} would have no liberty, and takes none away from a chain of the other side."


@functools.cache
def _compile(rules):
    """Compiles what a game calls, so that its first move does not wait for it."""
    board = Board(rules)
    board.play(0)
    return board.is_over, board.score(), board.ownership()


def _named(points, size):
    return [text.name_of(point, size) for point in points]


def _told(analysis, turn, rules):
    """An `Analysis` for JSON: `rate` is black's, the candidates' are those of the side to move."""
    candidates = []
    for rank, candidate in enumerate(analysis.candidates):
        line = candidate.line[:_LENGTH] if rank < _LINES else ()
        if not all(0 <= move <= rules.num_points for move in (candidate.move, *line)):
            raise ValueError(f"Moves must be 0 to {rules.num_points}; received the candidate {candidate.move} with the "
                             f"line {tuple(line)}.")
        candidates.append({"move": text.name_of(candidate.move, rules.size), "visits": int(candidate.visits),
                           "rate": _share(candidate.win_rate), "prior": _share(candidate.prior),
                           "line": _named(line, rules.size)})
    rate = _share(analysis.win_rate)
    return {"turn": NAMES[turn], "visits": int(analysis.visits), "candidates": candidates,
            "rate": rate if turn == go.BLACK else round(1 - rate, 4)}


def _share(value):
    if not -1e-6 <= value <= 1 + 1e-6:
        raise ValueError(f"Win rates and priors must be 0 to 1; received {value}.")
    return round(float(value), 4)
