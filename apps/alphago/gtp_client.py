"""Programs that speak GTP as players.

    player = GtpPlayer("gnugo --mode gtp --level 1 --chinese-rules")
"""

import itertools

import numpy as np

from apps.alphago.go import rules as go
from apps.alphago.go import text
from apps.alphago.gtp_process import GtpError, Program, Refused
from apps.alphago.players import RESIGN, Choice

_LETTERS = {go.BLACK: "b", go.WHITE: "w"}
_NO_LIMIT = (0, 1, 0)  # in the words of GTP: a last period without a number of moves


class GtpPlayer:
    """A GTP program as a player; it does not analyse. Use it as a context, or `close` it.

    Args:
        command: one line, split as a shell does, or a list of words.
        timeout: seconds that an answer may take; a move has those that `choose` gives in addition.
        time_settings: (main time, seconds of a last period, moves in it) of each game, whole numbers, or None.

    Attributes:
        name: as the program calls itself, with its version.

    Raises:
        ValueError: the program is not there, or the times make no sense.
        GtpError: it does not answer.
    """

    def __init__(self, command, *, timeout=60.0, time_settings=None):
        if timeout <= 0:
            raise ValueError(f"The time-out of a GTP program must be above 0 seconds; received {timeout}.")
        if time_settings is not None and (len(time_settings) != 3 or min(time_settings) < 0):
            raise ValueError("time_settings are three whole numbers, not negative: main time, seconds of a last "
                             f"period, moves in it; received {time_settings}.")
        self._program, self._time_settings = Program(command, timeout), time_settings
        # What the program knows: rules, stones set up, moves (None: not known), limit of time.
        self._rules, self._setup, self._moves, self._limit = None, None, None, None
        try:
            self.name = f"{self._program.ask('name')} {self._program.ask('version')}".strip()
        except BaseException:
            self._program.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def begin(self, rules):
        """A new game: its board, its komi, and times where they are given.

        GTP has no words for superko, suicide and max_moves: the command must make the program play by the same rules.

        Raises:
            GtpError: from the program.
        """
        self._rules, self._moves = None, None
        self._program.ask(f"boardsize {rules.size}")
        self._program.ask(f"komi {rules.komi:g}")
        self._clear(None)
        if self._time_settings is not None or self._limit is not None:
            self._set_limit(self._time_settings)
        self._rules = rules

    def choose(self, board, seconds=None):
        """`Choice` without an analysis.

        Args:
            board: `Board`; what the program knows of its game already is not sent again.
            seconds: for the move, rounded down to whole ones, 1 at least; None: as `time_settings` say.

        Raises:
            ValueError: the board begins with stones that are no handicap.
            GtpError: from the program, or its move is illegal.
        """
        _check_setup(board)
        self._bring_to(board)
        letter, limit = _LETTERS[board.turn], self._time_settings
        if seconds is not None:
            seconds = max(1, int(seconds))
            limit = (0, seconds, 1)
        if limit != self._limit:
            self._set_limit(limit)
        if seconds is not None:
            self._program.ask(f"time_left {letter} {seconds} 1")
        answer = self._program.ask(f"genmove {letter}", seconds or 0)
        return Choice(RESIGN if answer.lower() == "resign" else self._accept(board, answer))

    can_analyse = False

    def analyse(self, board, interval):
        """Not supported.

        Raises:
            GtpError: always.
        """
        raise GtpError(f"{self.name} cannot analyse: GTP has no command for it that all programs share. Ask for moves "
                       "with choose.")

    def close(self):
        """Ends the program; a second call does nothing."""
        self._program.close()

    def _accept(self, board, answer):
        """The move of an answer, which genmove has made in the program already."""
        moves, self._moves = self._moves, None  # not known, should the answer be wrong
        try:
            move = text.move_of(answer, board.rules.size)
        except ValueError as error:
            raise GtpError(f"{self._program} answered genmove with what is no move: {error}"
                           f"{self._program.last_words()}") from None
        if not board.legal()[move]:
            raise GtpError(f"{self._program} proposes an illegal move, {text.name_of(move, board.rules.size)} as move "
                           f"{len(board.moves) + 1}. Does it play by the same rules?{self._program.last_words()}")
        self._moves = [*moves, (board.turn, move)]
        return move

    def _set_limit(self, limit):
        main, period, moves = _NO_LIMIT if limit is None else limit
        self._program.ask(f"time_settings {main} {period} {moves}")
        self._limit = limit

    def _bring_to(self, board):
        """Makes the program's position that of the board."""
        if board.rules != self._rules:
            self.begin(board.rules)
        if self._moves is None or not np.array_equal(self._setup, board.setup):
            self._clear(board.setup)
        both = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(self._moves, board.moves))
        same = sum(1 for _ in both)
        if len(self._moves) > same and not self._undo_to(same):
            self._clear(board.setup)
        for colour, move in board.moves[len(self._moves):]:
            self._program.ask(f"play {_LETTERS[colour]} {text.name_of(move, board.rules.size)}")
            self._moves.append((colour, move))

    def _undo_to(self, number):
        """Takes moves back until `number` are left, where that is shorter than a new beginning; whether it was done."""
        if len(self._moves) - number > number:
            return False
        try:
            while len(self._moves) > number:
                self._program.ask("undo")
                self._moves.pop()
        except Refused:  # not every program has it
            return False
        return True

    def _clear(self, setup):
        self._moves = None
        self._program.ask("clear_board")
        if setup is not None and setup.any():
            names = (text.name_of(point, len(setup)) for point in np.flatnonzero(setup))
            self._program.ask(f"set_free_handicap {' '.join(names)}")
        self._setup, self._moves = setup, []


def _check_setup(board):
    """Raises ValueError when a game begins with stones that GTP has no command for."""
    stones = np.zeros(0) if board.setup is None else board.setup
    black, white = np.count_nonzero(stones == go.BLACK), np.count_nonzero(stones == go.WHITE)
    if white or black == 1:
        raise ValueError("A GTP program begins with an empty board or with two or more black stones, a handicap; "
                         f"received a board set up with {black} black and {white} white stones. Make them moves.")
