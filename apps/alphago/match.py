"""One game of a match between A and B: its opening, its moves, its result.

A game ends when both pass, when one resigns, or after the number of moves that its rules allow. Unless one resigned the
board is scored by area as it stands: dead stones that were not taken count as alive.
"""

import contextlib
import hashlib
import json
import time

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


def play_game(makes, *, rules, number, seed=0, opening_moves=0, seconds=None, names=None):
    """Plays one game. What is random in it depends on `seed` and `number` alone.

    A has black in odd games. Games 1 and 2 have the same opening, 3 and 4 the next, and so on.

    Args:
        makes: for A and for B: make(seed) -> player for one game, as of `opponents.player_of`.
        rules: `Rules`.
        number: of the game, from 1.
        seed: of the match, from 0.
        opening_moves: random moves at the beginning.
        seconds: that a player may take for a move, or None.
        names: of A and of B; None: their own.

    Returns:
        (`Game`, `sgf.Record`).

    Raises:
        ValueError: opening_moves out of range.
        GameAborted: a player failed, or made an illegal move.
    """
    board = random_opening(rules, opening_moves, [seed, 0, (number - 1) // 2])
    opening = [text.name_of(move, rules.size) for _, move in board.moves]
    board.legal()  # compiled before anyone's time is taken
    with contextlib.ExitStack() as stack:
        players = [_player(makes[side], rules, number, side, seed, stack) for side in (0, 1)]
        loser, chosen, spent = _play_on(board, players, number, seconds)
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


def _play_on(board, players, number, seconds):
    """Plays to the end.

    Returns:
        (loser, chosen, spent): colour of who resigned or 0; number of answers and seconds of A and of B.
    """
    loser, chosen, spent = 0, [0, 0], [0.0, 0.0]
    while not board.is_over and not loser:
        side = _side(board.turn, number)
        began = time.perf_counter()
        move = _move(board, players[side], seconds, f"Game {number} was aborted at move {len(board.moves) + 1}, "
                     f"{_COLOURS[board.turn]}, by {_SIDES[side]} ({players[side].name})")
        spent[side] += time.perf_counter() - began
        chosen[side] += 1
        if move == RESIGN:
            loser = board.turn
        else:
            board.play(move)
    return loser, tuple(chosen), tuple(round(value, 3) for value in spent)


def _move(board, player, seconds, where):
    try:
        move = player.choose(board, seconds).move
    except GtpError as error:
        raise GameAborted(f"{where}: {error}") from error
    if move != RESIGN and not (0 <= move <= board.rules.num_points and board.legal()[move]):
        raise GameAborted(f"{where}: expected a legal move; received {move}, which is not one here.")
    return move


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
