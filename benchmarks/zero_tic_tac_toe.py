"""Two minutes of self-play at tic-tac-toe: how often is the network, alone or with a search, wrong?

    python -m benchmarks.zero_tic_tac_toe [--workdir=runs/tic_tac_toe] [--minutes=2]

A move is wrong if it gives up a win or a draw. All 4,520 positions of play are asked, and those among them that a game
can come to in which one side is this player, whatever the other does: right there, it cannot be beaten.
"""

import argparse
import functools
import subprocess
import sys

import numpy as np
import tensorflow as tf
import tf_keras as keras

from apps.alphago import games, networks
from apps.alphago.search import policies, simulate
from apps.alphago.search import tree as trees
from benchmarks import common, runs

FLAGS = ("--game=tic_tac_toe", "--model=zero_2x64", "--pooling_every=0", "--heads=dense", "--window=60000",
         "--first_window=0", "--policy=puct", "--simulations=64", "--fast_simulations=64", "--full_share=1",
         "--sampled_moves=9", "--steps_per_generation=50", "--reuse=8", "--learning_rate=0.05", "--rate_every=0",
         "--value_lambda=1", "--nosymmetric")
_LINES = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6))
_EMPTY = (False,) * 9


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", default="runs/tic_tac_toe")
    parser.add_argument("--minutes", type=float, default=2)
    options = parser.parse_args()
    subprocess.run([sys.executable, "-m", "apps.alphago.train_zero", *FLAGS, f"--time_budget={options.minutes:g}",
                    f"--workdir={options.workdir}"], cwd=runs.ROOT, check=True)
    model = keras.models.load_model(runs.ROOT / options.workdir / "model.keras", compile=False)
    positions = reachable(free)
    rows = []
    for simulations in (0, 16, 64):
        chosen = dict(zip(positions, moves(model, positions, simulations)))
        met = reachable(lambda own, other, chosen=chosen: [chosen[own, other]])
        wrong = {position for position in positions if is_wrong(*position, chosen[position])}
        rows.append({"simulations": simulations, "positions": len(positions), "wrong": len(wrong),
                     "positions_met": len(met), "wrong_met": len(wrong & set(met))})
    common.write("zero_tic_tac_toe", rows, minutes=options.minutes)


def moves(model, positions, simulations):
    """The player's move in each position: the network's first choice, or that of a search."""
    game, evaluator = games.tic_tac_toe(), networks.Evaluator(model)

    @tf.function(jit_compile=True)
    def choose(state):
        tree = trees.plant(game, evaluator, state, simulations + 1)
        if not simulations:
            return tf.argmax(tree.prior[:, 0], axis=1)
        return tf.argmax(simulate.search(game, evaluator, policies.Puct(), tree, simulations).visits[:, 0], axis=1)

    return choose(games.Marks(*(tf.constant([position[side] for position in positions]) for side in (0, 1)))).numpy()


def reachable(player):
    """Positions (own, other marks of the side to move) in which `player`, (own, other) -> moves, comes to choose.

    One side is the player and the other does what it likes; a player of all moves meets all positions.
    """
    found = set()

    def visit(own, other, is_player):
        if is_won(other) or all(np.add(own, other)) or is_player and (own, other) in found:
            return
        if is_player:
            found.add((own, other))
        for move in player(own, other) if is_player else free(own, other):
            visit(other, after(own, move), not is_player)

    visit(_EMPTY, _EMPTY, True)
    visit(_EMPTY, _EMPTY, False)
    return sorted(found)


@functools.cache
def solve(own, other):
    """The result for the side to move under best play: 1, 0 or -1."""
    if is_won(other):
        return -1
    return max((-solve(other, after(own, move)) for move in free(own, other)), default=0)


def is_wrong(own, other, move):
    """Whether a move gives up something."""
    return -solve(other, after(own, move)) < solve(own, other)


def is_won(marks):
    """Whether three are in a row."""
    return any(all(marks[point] for point in line) for line in _LINES)


def free(own, other):
    """Points without a mark."""
    return [point for point in range(9) if not own[point] and not other[point]]


def after(marks, move):
    """Marks with one more."""
    return tuple(marked or point == move for point, marked in enumerate(marks))


if __name__ == "__main__":
    main()
