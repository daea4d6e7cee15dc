"""One game for Python: moves are made one at a time, and taken back."""

import dataclasses

import numpy as np

from apps.alphago.go import rules as go
from apps.alphago.go import sgf, text

_SIDES = {go.BLACK: "black", go.WHITE: "white"}


class Board:
    """A game from its first position on.

    Args:
        rules: `Rules`. Programs for them are compiled once, at the first move.
        setup: int [N, N] or [P], stones that are there at the beginning, +1, -1 and 0; None: an empty board.
        turn: who moves first.

    Attributes:
        rules: see there; `set_komi` changes their komi.
        setup: int8 [N, N] or None.
        moves: list of (colour, move), what was played so far.

    Raises:
        ValueError: a chain of `setup` has no liberty, or its size is wrong.
    """

    def __init__(self, rules, setup=None, turn=go.BLACK):
        self.rules, self.moves = rules, []
        self.setup = None if setup is None else np.reshape(np.asarray(setup, np.int8), [rules.size, rules.size])
        begin = go.new(rules, 1) if setup is None else go.from_stones(rules, setup, turn)
        self._states = [begin if turn == go.BLACK else go.with_turn(begin, turn)]

    @classmethod
    def from_record(cls, rules, record, name="the game"):
        """The game of an `sgf.Record` after its last move.

        Raises:
            ValueError: wrong size, an illegal move or too many; the message begins with `name`.
        """
        if len(record.moves) > rules.last_move:
            raise ValueError(f"{name}: {len(record.moves)} moves; expected at most {rules.last_move}.")
        states = sgf.replay(rules, record, name)
        board = cls(rules, record.setup, record.first)
        board.moves, board._states = list(record.moves), states
        return board

    def copy(self, moves=None):
        """A board of its own after the first `moves` moves, by default all; nothing is played again.

        Raises:
            ValueError: there have not been so many.
        """
        number = len(self.moves) if moves is None else moves
        if not 0 <= number <= len(self.moves):
            raise ValueError(f"The game has {len(self.moves)} moves; received {number} to copy.")
        board = Board(self.rules)
        board.setup, board.moves, board._states = self.setup, self.moves[:number], self._states[:number + 1]
        return board

    def record(self, **properties):
        """The game as `sgf.Record`; `properties` are its margin, names or comments."""
        first = int(self._states[0].turn.numpy()[0])
        return sgf.Record(self.rules.size, self.rules.komi, tuple(self.moves), self.setup, turn=first, **properties)

    def for_player(self, colour=None):
        """The game as `colour`, by default the side to move, is asked for a move in it: an equal game of its own.

        That side is to move there, and two passes have not ended it: who asks for a move wants the game to go on.
        """
        state = self._for(colour)
        if self.is_over:
            state = state._replace(passes=state.passes * 0)
        shown = self.copy()
        shown._states[-1] = state
        return shown

    def set_komi(self, komi):
        """Changes the komi; position and moves stay.

        Raises:
            ValueError: it is no multiple of one half.
        """
        self.rules = dataclasses.replace(self.rules, komi=komi)

    @property
    def state(self):
        """`rules.State` with B = 1."""
        return self._states[-1]

    @property
    def turn(self):
        """Who is to move, +1 or -1."""
        return int(self.state.turn.numpy()[0])

    @property
    def stones(self):
        """int8 [N, N], +1, -1, 0."""
        return self.state.stones.numpy()[0].reshape(self.rules.size, self.rules.size)

    @property
    def prisoners(self):
        """Stones taken by black and by white."""
        return tuple(int(number) for number in self.state.prisoners.numpy()[0])

    @property
    def is_over(self):
        """Whether both have passed one after the other, or there have been too many moves."""
        return bool(go.program(self.rules, "over")(self.state).numpy()[0])

    def legal(self, colour=None):
        """bool [P + 1], the moves of a side, by default of the one to move; the last is the pass."""
        return go.program(self.rules, "legal")(self._for(colour)).numpy()[0]

    def play(self, move, colour=None):
        """Makes a move; `colour` may be the side whose turn it is not. Also after two passes.

        Raises:
            ValueError: the move is illegal, or the game has as many moves as its rules allow.
        """
        state = self._for(colour)
        side = self.turn if colour is None else colour
        if len(self.moves) >= self.rules.last_move:
            raise ValueError(f"The game has {len(self.moves)} moves, as many as its rules allow.")
        if not 0 <= move <= self.rules.num_points or not self.legal(side)[move]:
            shown = text.name_of(move, self.rules.size) if 0 <= move <= self.rules.num_points else move
            raise ValueError(f"Move {len(self.moves) + 1}, {_SIDES[side]} {shown}, is illegal here:\n{self}")
        self._states.append(go.program(self.rules, "play")(state, np.array([move], np.int32)))
        self.moves.append((side, int(move)))

    def undo(self):
        """Takes the last move back.

        Raises:
            ValueError: there is none.
        """
        if not self.moves:
            raise ValueError("No move has been made yet.")
        self.moves.pop()
        self._states.pop()

    def score(self, dead=None):
        """Points of black less those of white, komi included; `dead` as in `ownership`."""
        return float(self.ownership(dead).sum() - self.rules.komi)

    def ownership(self, dead=None):
        """int8 [N, N]: whose each point is, +1, -1 or 0.

        Args:
            dead: bool [N, N], stones that are taken off before points are counted; None: every stone is alive.
        """
        state = self.state
        if dead is not None:
            state = go.from_stones(self.rules, np.where(dead, 0, self.stones))
        return go.program(self.rules, "ownership")(state).numpy()[0].reshape(self.rules.size, self.rules.size)

    def __str__(self):
        return text.show(self.stones)

    def _for(self, colour):
        if colour is None or colour == self.turn:
            return self.state
        return go.with_turn(self.state, colour)
