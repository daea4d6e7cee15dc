"""Where a person meets a player: one game, a thread in which the player thinks, and news for whoever watches.

A lock guards the game; nobody holds it while the player thinks, or while programs for new rules are compiled. What the
player has to do is not queued but follows from the game (`_due`), so a thought that the game has overtaken is dropped.
"""

import contextlib
import dataclasses
import json
import logging
import threading
import time

from apps.alphago import players
from apps.alphago.browser_game import SIDES, Match
from apps.alphago.go import rules as go
from apps.alphago.go import sgf, text

_THINK, _ANALYSE = "think", "analyse"


class Conflict(ValueError):
    """The game is no longer what a request took it for."""


class Table:
    """One game between a person and a player. All methods may be called from any thread.

    Args:
        player: see `players`.
        rules: `Rules` of the first game; those after it may differ in size and komi.
        sizes: boards that the player can play on; None: that of `rules` only.
        colour: the person's: black, white, or both.
        seconds: that the player may take for a move; None: as it likes.
        interval: seconds between two reports of a search.
        watch: seconds of `analyse` that are shown before each move of the player, at most half of `seconds`; a player
            that keeps its search loses nothing by it. It ends early when nothing new comes. 0: none.

    Raises:
        ValueError: a size, colour or time is out of range.
    """

    def __init__(self, player, rules, *, sizes=None, colour="black", seconds=None, interval=0.5, watch=1.0):
        self.sizes = tuple(sizes or (rules.size,))
        if rules.size not in self.sizes:
            raise ValueError(f"The player plays on boards of {self.sizes}; received {rules.size} for the first game.")
        if interval <= 0 or watch < 0 or (seconds is not None and seconds <= 0):
            raise ValueError(f"Times must be positive; received interval {interval}, watch {watch}, seconds {seconds}.")
        self._player, self._rules, self._seconds, self._interval = player, rules, seconds, interval
        self._watch = watch if seconds is None else min(watch, seconds / 2)
        self._match, self._begun, self._error, self._is_preparing = Match(rules, _side(colour)), None, None, False
        self._analysing, self._target, self._ended = False, None, None  # the target None: the newest position
        self._lock, self._closed = threading.Condition(), False
        self._news, self._serial, self._game = {}, 0, None
        with self._lock:
            self._publish()
        self._worker = threading.Thread(target=self._work, name="player", daemon=True)
        self._worker.start()

    def play(self, move, position=None):
        """Makes the person's move.

        Args:
            move: its name, D4 or pass.
            position: number of the position for which it is meant; None: the newest.

        Raises:
            Conflict: it is not the person's turn, the game is over or has gone on.
            ValueError: the move is illegal.
        """
        with self._change() as match:
            if match.margin is not None:
                raise Conflict("The game is over. Take a move back, or begin a new game.")
            if position not in (None, match.positions[-1]):
                raise Conflict("The game has gone on in the meantime. Here is how it stands.")
            if match.person not in (0, match.board.turn):
                raise Conflict("It is not your turn.")
            match.play(text.move_of(move, match.board.rules.size))

    def resign(self):
        """The person gives up; with both sides, the one to move does.

        Raises:
            Conflict: the game is over.
        """
        with self._change() as match:
            if match.margin is not None:
                raise Conflict("The game is over already.")
            match.given_up = match.person or match.board.turn

    def undo(self):
        """Takes back the person's last move and what followed; see `Match.undo`."""
        with self._change() as match:
            match.undo()

    def back(self, position):
        """Takes back all moves after a position.

        Raises:
            Conflict: there is no such position any more.
        """
        with self._change() as match:
            match.back(self._number(position))

    def new(self, size, komi, colour):
        """Begins another game.

        Raises:
            ValueError: the player cannot play on such a board, or the rules do not know such a komi.
        """
        if size not in self.sizes:
            raise ValueError(f"{self._player.name} plays on boards of {self.sizes}; received {size}.")
        if not -size * size <= komi <= size * size:
            raise ValueError(f"Komi must be {-size * size} to {size * size}; received {komi}.")
        match = Match(dataclasses.replace(self._rules, size=size, komi=komi), _side(colour))
        with self._change():
            self._match, self._target = match, None

    def load(self, content):
        """Takes the game of an SGF file, in which the person has both sides.

        Raises:
            ValueError: it is no such file, breaks the rules, or the player cannot play on its board.
        """
        record = sgf.record_of(sgf.tree_of(content, "The file"), "The file")
        if record.size not in self.sizes:
            raise ValueError(f"{self._player.name} plays on boards of {self.sizes}; the file has {record.size}.")
        match = Match.from_record(self._rules, record)
        with self._change():
            self._match, self._target = match, None

    def seat(self, colour):
        """Lets the person play another colour from now on."""
        with self._change() as match:
            match.person = _side(colour)

    def analyse(self, on, position=None):
        """Begins or ends to analyse a position; None: always the newest.

        Raises:
            Conflict: there is no such position any more.
        """
        with self._change():
            if position is not None:
                self._number(position)
            self._analysing, self._target = on, position

    def retry(self):
        """Lets the player try again after an error."""
        with self._change():
            pass

    def analysis(self, position):
        """JSON of the newest analysis of a position, or `null`."""
        with self._lock:
            return self._match.analysis(position)

    def record(self):
        """The game as `sgf.Record`."""
        with self._lock:
            return self._match.record(self._player.name)

    def board(self, position=None):
        """A `Board` of its own in a position, by default the newest.

        Raises:
            Conflict: there is no such position any more.
        """
        with self._lock:
            return self._match.board.copy(None if position is None else self._number(position))

    def news(self, seen=-1, seconds=0.0):
        """What is newer than the serial number `seen`: the game, and the last analysis.

        Args:
            seen: the largest serial number that is known, -1: none.
            seconds: to wait for news, if there are none.

        Returns:
            List of (serial number, "game" or "analysis", JSON), by number; empty after `seconds` and when closed.
        """
        with self._lock:
            self._lock.wait_for(lambda: self._closed or self._serial > seen, seconds)
            return sorted((serial, name, content or self._told()) for name, (serial, content) in self._news.items()
                          if serial > seen)

    @property
    def is_closed(self):
        """Whether `close` has been called."""
        return self._closed

    def close(self):
        """Ends the thread, as soon as the player has finished its thought."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        self._worker.join(timeout=5)

    @contextlib.contextmanager
    def _change(self):
        """Holds the lock for a change of the game, which is told to all if it succeeds, and clears an error."""
        with self._lock:
            yield self._match
            self._error, self._ended = None, None
            self._publish()

    def _number(self, position):
        """How many moves there are before a position."""
        if position not in self._match.positions:
            raise Conflict("That position has been taken back in the meantime. Here is how the game stands.")
        return self._match.positions.index(position)

    def _publish(self):
        """Tells all that the game is another; what it is now, is told when they ask."""
        self._tell("game", None)

    def _tell(self, name, content):
        self._serial += 1
        self._news[name], self._game = (self._serial, content), None
        self._lock.notify_all()

    def _told(self):
        """JSON of the game, with the win rates that have come since it changed."""
        if self._game is None:
            due = self._due()
            self._game = json.dumps({
                **self._match.describe(), "player": self._player.name, "sizes": self.sizes, "error": self._error,
                "preparing": self._is_preparing, "thinking": due is not None and due[0] == _THINK,
                "analysing": {"on": self._analysing, "position": self._target}})
        return self._game

    def _due(self):
        """(what, position) that the player has to do now, or None."""
        match = self._match
        if self._error:
            return None
        if match.margin is None and match.person not in (0, match.board.turn):
            return _THINK, match.positions[-1]
        position = self._target if self._target in match.positions else match.positions[-1]
        if self._analysing and self._ended != position:
            return _ANALYSE, position
        return None

    def _is_stale(self, job):
        return self._closed or self._due() != job

    def _work(self):
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._closed or self._due())
                if self._closed:
                    return
                job, match = self._due(), self._match
                board = match.copy(job[1])
            try:
                self._prepare(match)
                if job[0] == _THINK:
                    self._think(job, match, board)
                elif self._show(job, match, board):
                    with self._lock:
                        self._ended = job[1]
            except Exception as error:  # whatever the player raises, the person is told
                logging.exception("%s failed in move %d:\n%s", self._player.name, len(board.moves) + 1, board)
                with self._lock:
                    if not self._is_stale(job):
                        self._error = f"{type(error).__name__}: {error}"
                        self._publish()

    def _prepare(self, match):
        """Tells the player of a new game."""
        if self._begun is match:
            return
        try:
            with self._lock:
                self._is_preparing = True
                self._publish()
            self._player.begin(match.board.rules)
            self._begun = match
        finally:
            with self._lock:
                self._is_preparing = False
                self._publish()

    def _think(self, job, match, board):
        """Lets the player make its move."""
        began = time.monotonic()
        if self._watch and getattr(self._player, "can_analyse", True):
            self._show(job, match, board, self._watch)
        seconds = None if self._seconds is None else max(self._seconds - (time.monotonic() - began), 0.01)
        with self._lock:
            if self._is_stale(job):
                return
        choice = self._player.choose(board.copy(), seconds)
        with self._lock:
            if self._is_stale(job):
                return
            if choice.analysis is not None:
                self._note(match, job[1], board.turn, choice.analysis)
            if choice.move == players.RESIGN:
                match.given_up = board.turn
            else:
                self._play(match, choice)
            self._publish()

    def _play(self, match, choice):
        """Makes the player's move; its win rate is the first that is known of the position after it."""
        turn = match.board.turn
        try:
            match.play(choice.move)
        except ValueError as error:
            raise ValueError(f"{self._player.name} chose an illegal move. {error}") from error
        for candidate in choice.analysis.candidates if choice.analysis else ():
            if candidate.move == choice.move:
                rate = float(candidate.win_rate)
                match.rates[len(match.board.moves)] = round(rate if turn == go.BLACK else 1 - rate, 4)

    def _show(self, job, match, board, seconds=None):
        """Shows how a search goes on; for so many seconds, in which case what repeats itself ends it too.

        Returns:
            Whether the player has nothing more to say of that position.
        """
        if board.is_over:
            return True
        began = last = time.monotonic()
        before = None
        with contextlib.closing(self._player.analyse(board.copy(), self._interval)) as stream:
            for found in stream:
                with self._lock:
                    if self._is_stale(job) or seconds is not None and found == before:
                        return False
                    if found != before:
                        self._note(match, job[1], board.turn, found)
                    pause = self._interval - (time.monotonic() - last)  # for streams that do not wait themselves
                    if seconds is not None:
                        pause = min(pause, began + seconds - time.monotonic())
                    self._lock.wait_for(lambda: self._is_stale(job), max(pause, 0))
                if seconds is not None and time.monotonic() >= began + seconds:
                    return False
                before, last = found, time.monotonic()
        return True

    def _note(self, match, position, turn, analysis):
        self._tell("analysis", match.note(position, turn, analysis))


def _side(colour):
    if colour not in SIDES:
        raise ValueError(f"The colour must be one of {', '.join(SIDES)}; received {colour!r}.")
    return SIDES[colour]
