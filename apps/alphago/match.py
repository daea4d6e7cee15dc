"""The games of a match between A and B: their openings, their moves, their results.

A game ends when both pass, when one resigns, or after the number of moves that its rules allow. Unless one resigned the
board is scored by area as it stands: dead stones that were not taken count as alive.
"""

import contextlib
import hashlib
import itertools
import json
import time
import typing

import numpy as np

from apps.alphago.go import rules as go
from apps.alphago.go import sgf, text
from apps.alphago.go.board import Board
from apps.alphago.gtp_process import GtpError
from apps.alphago.players import RESIGN
from apps.alphago.results import Game

_SIDES = "AB"
_COLOURS = {go.BLACK: "black", go.WHITE: "white"}


class GameAborted(RuntimeError):
    """A player failed in the middle of a game, which counts for nobody."""

    exit_code = 1


def check_opening(rules, num_moves):
    """Raises ValueError when an opening cannot have so many moves."""
    most = min(rules.num_points // 2, rules.last_move - 1)
    if not 0 <= num_moves <= most:
        raise ValueError(f"An opening has 0 to {most} moves (up to half the points of a board of {rules.size}, and "
                         f"fewer than the moves of a game); received {num_moves}.")


def random_opening(rules, num_moves, seed):
    """`Board` after random moves: each one of the legal ones with equal probability, without passes.

    Args:
        rules: `Rules`.
        num_moves: how many; see `check_opening`.
        seed: whole number or a list of such.
    """
    check_opening(rules, num_moves)
    noise, board = np.random.default_rng(seed), Board(rules)
    for _ in range(num_moves):
        board.play(int(noise.choice(np.flatnonzero(board.legal()[:-1]))))
    return board


def play_games(makes, *, rules, numbers, parallel=1, seed=0, opening_moves=0, seconds=None, names=None):
    """Plays games. What is random in them depends on `seed` and their numbers alone.

    A has black in odd games. Games 1 and 2 have the same opening, 3 and 4 the next, and so on.

    Args:
        makes: for A and for B: make(seed) -> player for one game, as of `opponents.player_of`.
        rules: `Rules`.
        numbers: of the games, from 1.
        parallel: how many games go on side by side. Players that can then think together (see `players`).
        seed: of the match, from 0.
        opening_moves: random moves at the beginning.
        seconds: that a player may take for a move, or None.
        names: of A and of B; None: their own.

    Yields:
        (`Game`, `sgf.Record`) of each game, as it ends.

    Raises:
        ValueError: opening_moves out of range.
        GameAborted: a player failed, or made an illegal move.
    """
    numbers, waiting = iter(numbers), {}  # the games that go on, and whose turn it is in each
    try:
        while True:
            for number in itertools.islice(numbers, parallel - len(waiting)):
                game = _game(makes, rules, number, seed, opening_moves, names)
                waiting[game] = next(game)
            if not waiting:
                return
            for game, answer in _answers(waiting, seconds):
                try:
                    waiting[game] = game.send(answer)
                except StopIteration as end:
                    del waiting[game]
                    yield end.value
    finally:
        for game in waiting:
            game.close()


class _Turn(typing.NamedTuple):
    """Whose move it is on a board; `where` says it in words for an error."""

    player: typing.Any
    board: Board
    where: str


def _answers(waiting, seconds):
    """[(game, (move, seconds it took))] for some of {game: `_Turn`}.

    Those who think alone are asked first, so that as many as can be then wait for those who think together.
    """
    together = {}
    for game, turn in waiting.items():
        kind = getattr(turn.player, "kind", None) if seconds is None else None
        together.setdefault(kind, []).append(game)
    alone = together.pop(None, [])
    if alone:
        return [(game, _ask(waiting[game], seconds)) for game in alone]
    games = max(together.values(), key=len)
    players, boards, _ = zip(*(waiting[game] for game in games))
    began = time.perf_counter()
    choices = players[0].choose_together(players, boards)
    spent = (time.perf_counter() - began) / len(games)
    return [(game, (choice.move, spent)) for game, choice in zip(games, choices)]


def _ask(turn, seconds):
    began = time.perf_counter()
    try:
        move = turn.player.choose(turn.board, seconds).move
    except GtpError as error:
        raise GameAborted(f"{turn.where}: {error}") from error
    return move, time.perf_counter() - began


def _game(makes, rules, number, seed, opening_moves, names):
    """One game: yields `_Turn`s, is sent (move, seconds it took), and returns (`Game`, `sgf.Record`)."""
    board = random_opening(rules, opening_moves, [seed, 0, (number - 1) // 2])
    opening = [text.name_of(move, rules.size) for _, move in board.moves]
    board.legal()  # compiled before anyone's time is taken
    with contextlib.ExitStack() as stack:
        players = [_player(makes[side], rules, number, side, seed, stack) for side in (0, 1)]
        loser, chosen, spent = yield from _play_on(board, players, number)
    margin = -loser * sgf.RESIGNATION if loser else board.score()
    game = Game(
        number=number, names=tuple(names or _own_names(players)), black=_SIDES[_side(go.BLACK, number)],
        score=float(1 + np.sign(margin) * (1, -1)[_side(go.BLACK, number)]) / 2, margin=None if loser else margin,
        ended="resignation" if loser else "passes" if int(board.state.passes[0]) >= 2 else "max_moves",
        opening=tuple(opening), length=len(board.moves), digest=_digest(board.moves), chosen=chosen, seconds=spent)
    return game, _record(board, game, margin, seed)


def _side(colour, number):
    """0 where A has the colour in this game, 1 where B has it."""
    return int((colour == go.BLACK) != (number % 2 == 1))


def _player(make, rules, number, side, seed, stack):
    """A player that has begun, and is closed with the stack."""
    try:
        player = make(int(np.random.SeedSequence([seed, 1 + side, number]).generate_state(1)[0]) >> 1)
        stack.callback(getattr(player, "close", lambda: None))
        player.begin(rules)
    except GtpError as error:
        raise GameAborted(f"Game {number} was aborted at its beginning by {_SIDES[side]}: {error}") from error
    return player


def _play_on(board, players, number):
    """Plays to the end: yields and is sent what `_game` is.

    Returns:
        (loser, chosen, spent): colour of who resigned or 0; number of answers and seconds of A and of B.
    """
    loser, chosen, spent = 0, [0, 0], [0.0, 0.0]
    while not board.is_over and not loser:
        side = _side(board.turn, number)
        where = (f"Game {number} was aborted at move {len(board.moves) + 1}, {_COLOURS[board.turn]}, by {_SIDES[side]} "
                 f"({players[side].name})")
        move, took = yield _Turn(players[side], board, where)
        spent[side] += took
        chosen[side] += 1
        if move == RESIGN:
            loser = board.turn
        elif 0 <= move <= board.rules.num_points and board.legal()[move]:
            board.play(move)
        else:
            raise GameAborted(f"{where}: expected a legal move; received {move}, which is not one here.")
    return loser, tuple(chosen), tuple(round(value, 3) for value in spent)


def _own_names(players):
    names = [player.name for player in players]
    return names if names[0] != names[1] else [f"{name} ({side})" for name, side in zip(names, _SIDES)]


def _digest(moves):
    return hashlib.sha256(json.dumps(moves).encode()).hexdigest()[:16]


def _record(board, game, margin, seed):
    names = game.names if game.black == "A" else game.names[::-1]
    comments = [(0, f"Game {game.number} of a match with seed {seed}; {game.black} has black. Opening of "
                    f"{len(game.opening)} random moves{': ' if game.opening else ''}{' '.join(game.opening)}.")]
    if game.opening:
        comments.append((len(game.opening), "End of the opening."))
    how = {"passes": "both passed", "resignation": "one resigned", "max_moves": "as many moves as the rules allow"}
    comments.append((game.length, f"{game.outcome}: {how[game.ended]}."))
    notes = {}
    for number, words in comments:
        notes[number] = f"{notes[number]}\n{words}" if number in notes else words
    return board.record(margin=margin, names=names, comments=notes)
