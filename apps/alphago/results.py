"""The games of a match: the file that keeps them, line by line, and what they add up to."""

import collections
import dataclasses
import fcntl
import json
import os
import pathlib

from apps.alphago import elo

ENDS = ("passes", "resignation", "max_moves")


@dataclasses.dataclass(frozen=True)
class Game:
    """A finished game of a match between A and B.

    Attributes:
        number: from 1.
        names: of A and of B.
        black: who had black, "A" or "B".
        score: of A: 1, 0.5 or 0.
        margin: points of black less those of white; None where one resigned.
        ended: one of `ENDS`.
        opening: names of the moves that were drawn.
        length: number of moves, those of the opening included.
        digest: of all moves; the same for the same game.
        chosen: number of answers, moves and resignations, of A and of B.
        seconds: that A and B took for them.
    """

    number: int
    names: tuple
    black: str
    score: float
    margin: float | None
    ended: str
    opening: tuple
    length: int
    digest: str
    chosen: tuple
    seconds: tuple

    @property
    def outcome(self):
        """In words: "GNU Go 3.8 wins by 3.5"."""
        if self.score == 0.5:
            return "a draw"
        winner = self.names[0 if self.score == 1 else 1]
        return f"{winner} wins by {'resignation' if self.margin is None else f'{abs(self.margin):g}'}"


_KEYS = [item.name for item in dataclasses.fields(Game)]


@dataclasses.dataclass(frozen=True)
class MatchResult:
    """What games add up to. They count as independent of each other, which equal games are not: see `distinct`.

    Attributes:
        games: tuple of `Game`, one at least, all between the same two.
    """

    games: tuple

    @property
    def names(self):
        """Of A and of B."""
        return self.games[0].names

    @property
    def wins(self):
        """Games that A won."""
        return sum(game.score == 1 for game in self.games)

    @property
    def losses(self):
        """Games that A lost."""
        return sum(game.score == 0 for game in self.games)

    @property
    def draws(self):
        """Games that nobody won."""
        return len(self.games) - self.wins - self.losses

    @property
    def score(self):
        """Of A, 0 to 1; draws count half."""
        return sum(game.score for game in self.games) / len(self.games)

    @property
    def score_interval(self):
        """(low, high), where the true score lies with 95 %."""
        return elo.score_interval(self.score * len(self.games), len(self.games))

    @property
    def elo(self):
        """By how much A is stronger; infinite where one won all."""
        return elo.difference_of(self.score)

    @property
    def elo_interval(self):
        """(low, high): what the ends of `score_interval` mean."""
        low, high = self.score_interval
        return elo.difference_of(low), elo.difference_of(high)

    @property
    def mean_length(self):
        """Moves of a game."""
        return sum(game.length for game in self.games) / len(self.games)

    @property
    def seconds(self):
        """That A and B took for a move; NaN where one made none."""
        chosen = [sum(game.chosen[side] for game in self.games) for side in (0, 1)]
        spent = [sum(game.seconds[side] for game in self.games) for side in (0, 1)]
        return tuple(spent[side] / chosen[side] if chosen[side] else float("nan") for side in (0, 1))

    @property
    def distinct(self):
        """Number of different games."""
        return len({game.digest for game in self.games})

    @property
    def ends(self):
        """{how: number of games that ended so}."""
        found = collections.Counter(game.ended for game in self.games)
        return {end: found[end] for end in ENDS}


class ResultsFile:
    """Keeps the games of a match: a line of settings, then a line for each finished game. Use it as a context.

    Args:
        path: of the file; it is made where there is none.
        settings: dictionary of what the games depend on, of JSON's types.
        report: function that gets lines for people.

    Attributes:
        games: {number: `Game`}.

    Raises:
        ValueError: the file is in use, of other settings, or damaged before its last line.
    """

    def __init__(self, path, settings, report=print):
        self.games, self._path = {}, pathlib.Path(path)
        self._file = open(self._path, "a+b")  # noqa: SIM115 - closed by the context
        try:
            self._lock()
            self._read(json.loads(json.dumps(settings)), report)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()

    def add(self, game):
        """Writes a finished game.

        Raises:
            ValueError: the players are called differently than in the games before.
        """
        before = next(iter(self.games.values()), game)
        if before.names != game.names:
            raise ValueError(f"{self._path} holds games between {' and '.join(before.names)}; received one between "
                             f"{' and '.join(game.names)}. Choose another folder.")
        self._write(dataclasses.asdict(game))
        self.games[game.number] = game

    def _lock(self):
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"{self._path} is in use by another match. Wait for it to end or choose another "
                             "folder.") from None

    def _read(self, settings, report):
        self._file.seek(0)
        lines, good = self._file.read().splitlines(keepends=True), []
        for number, line in enumerate(lines, 1):
            try:
                values = _parsed(line, ("settings",) if number == 1 else _KEYS)
            except _Damaged as error:
                if number < len(lines):
                    raise ValueError(f"{self._path}, line {number} of {len(lines)}, is damaged: {error}. Remove it, so "
                                     "that its game is played again, or choose another folder.") from None
                report(f"{self._path}: line {number}, the last, is damaged: what it held is played again")
                break
            if number == 1:
                _check_same(values["settings"], settings, self._path)
            else:
                self.games[values["number"]] = _game_of(values)
            good.append(line)
        self._file.truncate(sum(map(len, good)))
        if not good:
            self._write({"settings": settings})
        elif not good[-1].endswith(b"\n"):
            self._file.write(b"\n")

    def _write(self, values):
        # On the disk before the next game begins.
        self._file.write(json.dumps(values).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


class _Damaged(Exception):
    """A line that is not what it should be."""


def _parsed(line, keys):
    try:
        values = json.loads(line)
    except ValueError as error:
        raise _Damaged(str(error)) from None
    if not isinstance(values, dict) or list(values) != list(keys):
        raise _Damaged(f"expected an object with {', '.join(keys)}")
    return values


def _game_of(values):
    return Game(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def _check_same(old, new, path):
    changed = [key for key in new if old.get(key) != new[key]]
    if changed:
        values = ", ".join(f"{key} was {old.get(key)!r}, now {new[key]!r}" for key in changed)
        raise ValueError(f"{path} holds a match with other settings: {values}. Repeat them to go on with it, or choose "
                         "another folder.")
