"""What the commands of the Go Text Protocol (version 2, draft 2) do: one function for each.

A command gets a `Game` and the words after its name, and returns its answer. It raises `Refused`, with the answer,
where it cannot be obeyed; then it has changed nothing.
"""

import dataclasses
import pathlib
import re

import numpy as np

from apps.alphago.clock import Clock
from apps.alphago.go import rules as go
from apps.alphago.go import sgf, text
from apps.alphago.go.board import Board
from apps.alphago.gtp_analysis import STREAMS
from apps.alphago.gtp_game import Refused, colour_of, integer_of, move_of
from strategies.export.files import replacing


def known_command(game, name):
    """Whether there is such a command."""
    return "true" if name in COMMANDS or name in STREAMS else "false"


def boardsize(game, size):
    """Another board, empty, with the same komi."""
    size = integer_of(size)
    if size not in game.sizes:
        raise Refused("unacceptable size")
    game.start(Board(game.rules(size, game.board.rules.komi)))


def clear_board(game):
    """A new game on the same board."""
    game.start(Board(game.board.rules))


def komi(game, value):
    """Points for white; the game goes on."""
    if not re.fullmatch(r"[+-]?([0-9]{1,15}(\.[0-9]{0,15})?|\.[0-9]{1,15})", value):
        raise Refused("syntax error")
    try:
        rules = game.rules(game.board.rules.size, float(value))
    except ValueError as error:
        raise Refused("unacceptable komi: expected a multiple of 0.5") from error
    game.tell(rules)
    game.board.set_komi(rules.komi)


def play(game, colour, vertex):
    """A move that somebody else has made, whose turn it may not have been."""
    colour, move = colour_of(colour), move_of(game, vertex)
    try:
        game.board.play(move, colour)
    except ValueError as error:
        raise Refused("illegal move") from error


def undo(game):
    """Takes the last move back."""
    if not game.board.moves:
        raise Refused("cannot undo")
    game.board.undo()


def genmove(game, colour):
    """The player moves."""
    return game.generate(colour_of(colour))[0]


def reg_genmove(game, colour):
    """What the player would do."""
    return game.name(game.choose(colour_of(colour)).move)


def showboard(game):
    """A diagram."""
    black, white = game.board.prisoners
    side = "Black" if game.board.turn == go.BLACK else "White"
    return f"\n{game.board}\n{side} to move. Prisoners of black (X): {black}, of white (O): {white}"


def fixed_handicap(game, stones):
    """Stones where tradition has them; the game begins with them on the board."""
    stones, size = integer_of(stones), game.board.rules.size
    return _handicap(game, stones, stones if size >= 7 else 0)


def place_free_handicap(game, stones):
    """Stones where the player wants them: as tradition has it. The protocol allows fewer than were asked for."""
    stones = integer_of(stones)
    points = game.board.rules.num_points
    return _handicap(game, stones, min(stones, 9 if points % 2 and points > 49 else 4) if stones < points else 0)


def _handicap(game, asked, stones):
    _refuse_unless_empty(game)
    try:
        points = text.handicap_points(game.board.rules.size, stones)
    except ValueError as error:
        raise Refused("invalid number of stones") from error
    _set_up(game, points)
    return " ".join(game.name(point) for point in points)


def set_free_handicap(game, *vertices):
    """Stones where somebody else wants them."""
    _refuse_unless_empty(game)
    points, number = [move_of(game, vertex) for vertex in vertices], game.board.rules.num_points
    if not 2 <= len(points) < number or len(set(points)) < len(points) or number in points:
        raise Refused("bad vertex list")
    _set_up(game, points)


def _refuse_unless_empty(game):
    if game.board.moves or game.board.stones.any():
        raise Refused("board not empty")


def _set_up(game, points):
    stones = np.zeros(game.board.rules.num_points, np.int8)
    stones[points] = go.BLACK
    game.start(Board(game.board.rules, stones, go.WHITE))


def time_settings(game, main, period, stones):
    """Seconds of main time and of a period of byo-yomi, and stones in it; the clocks start anew."""
    game.clock = Clock(*(integer_of(word) for word in (main, period, stones)))


def kgs_time_settings(game, kind, *words):
    """The same with a name: none, absolute, byoyomi or canadian."""
    numbers = [integer_of(word) for word in words]
    if (kind, len(numbers)) not in (("none", 0), ("absolute", 1), ("byoyomi", 3), ("canadian", 3)):
        raise Refused("syntax error")
    if kind == "byoyomi":
        numbers[2] = 1  # the number of periods; each is for one stone
    game.clock = Clock(*numbers)


def time_left(game, colour, seconds, stones):
    """What the clock of a side shows."""
    game.clock.set_left(colour_of(colour), integer_of(seconds), integer_of(stones))


def final_score(game):
    """The result by area, without dead stones."""
    margin = game.board.score(game.dead())
    return f"{'B' if margin > 0 else 'W'}+{abs(margin):.15g}" if margin else "0"


def final_status_list(game, status):
    """Stones that are alive, dead or in seki, a line for each chain."""
    if status not in ("alive", "dead", "seki"):
        raise Refused("syntax error")
    dead, stones = game.dead(), game.board.stones.ravel() != 0
    dead = np.zeros_like(stones) if dead is None else dead.ravel()
    wanted = {"alive": stones & ~dead, "dead": dead, "seki": np.zeros_like(stones)}[status]
    chains = game.board.state.chain.numpy()[0]
    return "\n".join(" ".join(game.name(point) for point in np.flatnonzero(wanted & (chains == chain)))
                     for chain in np.unique(chains[wanted]))


def loadsgf(game, file, number=None):
    """The position before the move of that number, or the last; komi stays where the file has none."""
    number = None if number is None else integer_of(number)
    try:
        path = pathlib.Path(file)
        tree = sgf.tree_of(path.read_bytes(), path.name)
        record = sgf.record_of(tree, path.name)
        if number is not None:
            record = dataclasses.replace(record, moves=record.moves[:max(number - 1, 0)], turn=record.first)
        if record.size not in game.sizes:
            raise ValueError(f"the board has {record.size} points a side")
        rules = game.rules(record.size, record.komi if tree.get_root().has_property("KM") else game.board.rules.komi)
        board = Board.from_record(rules, record, path.name)
    except (OSError, ValueError, LookupError, RecursionError) as error:
        raise Refused(f"cannot load file: {error}".splitlines()[0]) from error
    game.start(board)


def printsgf(game, file=None):
    """The game, as the answer or as a file."""
    content = sgf.write(game.board.record())
    if file is None:
        return content.decode()
    try:
        with replacing(file) as temporary:
            temporary.write_bytes(content)
    except (OSError, ValueError) as error:
        raise Refused(f"cannot write file: {error}".splitlines()[0]) from error


COMMANDS = {
    "protocol_version": lambda game: "2",
    "name": lambda game: game.player.name,
    "version": lambda game: game.version,
    "known_command": known_command,
    "list_commands": lambda game: "\n".join([*COMMANDS, *STREAMS]),
    "quit": lambda game, *words: None,
    "boardsize": boardsize,
    "clear_board": clear_board,
    "komi": komi,
    "get_komi": lambda game: f"{game.board.rules.komi:.15g}",
    "play": play,
    "genmove": genmove,
    "reg_genmove": reg_genmove,
    "undo": undo,
    "showboard": showboard,
    "fixed_handicap": fixed_handicap,
    "place_free_handicap": place_free_handicap,
    "set_free_handicap": set_free_handicap,
    "time_settings": time_settings,
    "kgs-time_settings": kgs_time_settings,
    "time_left": time_left,
    "final_score": final_score,
    "final_status_list": final_status_list,
    "loadsgf": loadsgf,
    "printsgf": printsgf,
}
