"""Analysis while it goes on: the commands that Leela Zero and KataGo have added to the Go Text Protocol.

Each gets a `Game`, `wait` and the words after its name, and yields lines. `wait(seconds)` returns whether there is more
input, for which it waits no longer than that; None: as long as it takes.
"""

import contextlib
import functools
import time

from apps.alphago.gtp_game import Refused, colour_of, integer_of

_TICK = 0.1  # seconds until more input is noticed
# What the line may also have; answers without it are understood everywhere.
_IGNORED = {"minmoves", "ownership", "movesOwnership", "movesownership", "rootInfo", "pvVisits", "pvEdgeVisits"}


def _leela(candidate):
    rates = [round(10000 * min(max(value, 0.0), 1.0)) for value in (candidate.win_rate, candidate.prior)]
    return "winrate {} prior {}".format(*rates)


def _kata(candidate):
    return f"winrate {candidate.win_rate:.6f} prior {candidate.prior:.6f}"


def _line(game, style, analysis, most):
    """The candidates of an `Analysis`, the best first."""
    return " ".join(
        f"info move {game.name(one.move)} visits {one.visits} {style(one)} order {order} "
        f"pv {' '.join(game.name(move) for move in one.line)}"
        for order, one in enumerate(analysis.candidates[:most]))


def _options(game, words):
    """(colour, seconds between lines, most candidates) of [colour] [centiseconds] [keyword value]..."""
    colour, interval, most, words = game.board.turn, 100, None, list(words)
    while words:
        word = words.pop(0)
        if word.isdigit():
            interval = integer_of(word)
        elif word in ("interval", "maxmoves") or word in _IGNORED:
            if not words:
                raise Refused("syntax error")
            value = words.pop(0)
            interval = integer_of(value) if word == "interval" else interval
            most = integer_of(value) if word == "maxmoves" else most
        else:
            colour = colour_of(word)
    return colour, max(interval, 1) / 100, most


def _analyse(style, game, wait, *words):
    """Lines at intervals, until there is more input."""
    colour, interval, most = _options(game, words)
    tick, due, began = min(interval, _TICK), 0.0, time.monotonic()
    with contextlib.closing(game.player.analyse(game.shown(colour), tick)) as stream:
        for found in stream:
            now = time.monotonic()
            if found.candidates and now > due - tick / 2:
                yield _line(game, style, found, most)
                due = now + interval
            if wait(max(began + tick - now, 0.0)):  # no longer than the player has left of its interval
                return
            began = time.monotonic()
    wait(None)


def _genmove_analyse(style, game, wait, *words):
    """What the player's choice rests on, if it says so, and the move."""
    colour, _, most = _options(game, words)
    name, choice = game.generate(colour)
    if choice.analysis is not None and choice.analysis.candidates:
        yield _line(game, style, choice.analysis, most)
    yield f"play {name}"


STREAMS = {
    "lz-analyze": functools.partial(_analyse, _leela),
    "kata-analyze": functools.partial(_analyse, _kata),
    "lz-genmove_analyze": functools.partial(_genmove_analyse, _leela),
    "kata-genmove_analyze": functools.partial(_genmove_analyse, _kata),
}
