"""The game that commands of the Go Text Protocol act upon, and the words of their arguments."""

import dataclasses
import inspect
import re
import time

import numpy as np

from apps.alphago import players
from apps.alphago.clock import Clock
from apps.alphago.go import rules as go
from apps.alphago.go import text
from apps.alphago.go.board import Board

_COLOURS = {"b": go.BLACK, "black": go.BLACK, "w": go.WHITE, "white": go.WHITE}


class Refused(Exception):
    """The answer to a command that cannot be obeyed."""


class Game:
    """The game that commands act upon, and who plays it.

    Args:
        player: see `players`.
        rules: `Rules` of the first game. Where they leave `max_moves` open it is four times the number of points, since
            programs that speak this protocol go on after two passes, and take moves back.
        sizes: boards that the player can play.
        version: of the program.
        seconds: for a move where the clock has no limit; None: as the player likes.

    Attributes:
        board: `Board`.
        clock: `Clock`.
    """

    def __init__(self, player, rules, sizes, version, seconds=None):
        if rules.size not in sizes:
            raise ValueError(f"The rules are for a board of {rules.size}; expected one of {list(sizes)}.")
        self.player, self.sizes, self.version = player, sizes, version
        self._rules, self._told, self._asked, self._seconds = rules, None, False, seconds
        self.board, self.clock = None, Clock()
        self.start(Board(self.rules(rules.size, rules.komi)))

    def rules(self, size, komi):
        """The first game's rules with another size and komi."""
        return dataclasses.replace(self._rules, size=size, komi=komi, max_moves=self._rules.max_moves or 4 * size**2)

    def start(self, board):
        """Another game, which the player hears of first: it may refuse."""
        self.tell(board.rules, anew=True)
        self.board, self.clock = board, self.clock.restarted()

    def tell(self, rules, anew=False):
        """Tells the player the rules unless it knows them and, for a new game, has not been asked for anything yet."""
        if rules == self._told and not (anew and self._asked):
            return
        if rules != self._told:
            Board(rules).play(rules.num_points)  # compiled now rather than while the first move's time runs
        self._told = None
        self.player.begin(rules)
        self._told, self._asked = rules, False

    def shown(self, colour=None):
        """The board as the player sees it, who may do with it as it likes."""
        self.tell(self.board.rules)
        self._asked = True
        return self.board.for_player(colour)

    def choose(self, colour):
        """`players.Choice` of the player for a side: a legal move, or to resign."""
        rules, played = self.board.rules, len(self.board.moves)
        if played >= rules.last_move:
            raise Refused("too many moves")
        seconds = self.clock.seconds(colour, (0.8 * rules.num_points - played) / 2)
        choice = self.player.choose(self.shown(colour), self._seconds if seconds is None else seconds)
        if choice.move != players.RESIGN and not (0 <= choice.move <= rules.num_points
                                                  and self.board.legal(colour)[choice.move]):
            raise ValueError(f"The player chose {choice.move}, which is no legal move.")
        return choice

    def generate(self, colour):
        """(name of the move that the player has made, its `Choice`)."""
        began = time.monotonic()
        try:
            choice = self.choose(colour)
        finally:
            self.clock.spend(colour, time.monotonic() - began)
        if choice.move != players.RESIGN:
            self.board.play(choice.move, colour)
        return self.name(choice.move), choice

    def name(self, move):
        """A move as the protocol writes it."""
        return "resign" if move == players.RESIGN else text.name_of(move, self.board.rules.size)

    def dead(self):
        """bool [N, N]: stones that the player takes for dead; None where it has no opinion: they are all alive."""
        judge, stones = getattr(self.player, "dead_stones", None), self.board.stones
        if judge is None:
            return None
        dead = np.asarray(judge(self.shown()), bool)
        if dead.shape != stones.shape:
            raise ValueError(f"dead_stones of the player returned shape {dead.shape}; expected {stones.shape}.")
        return dead & (stones != 0)


def colour_of(word):
    """+1 or -1 of a word."""
    if word.lower() not in _COLOURS:
        raise Refused("invalid color")
    return _COLOURS[word.lower()]


def integer_of(word):
    """An unsigned whole number of 31 bits, all that the protocol knows."""
    if not re.fullmatch("[0-9]{1,10}", word) or int(word) >= 2**31:
        raise Refused("syntax error")
    return int(word)


def move_of(game, word):
    """A point of the board, or a pass."""
    try:
        return text.move_of(word, game.board.rules.size)
    except ValueError as error:
        raise Refused("invalid vertex") from error


def run(game, function, words, *others):
    """What a command's function returns for its words, whose number must be right."""
    try:
        inspect.signature(function).bind(game, *others, *words)
    except TypeError as error:
        raise Refused("syntax error") from error
    return function(game, *others, *words)
