"""Go environment, tree search and self-play against mctx and pgx, in turn.

    python3 -m venv peers && peers/bin/pip install jax jaxlib mctx pgx
    python -m benchmarks.search_benchmark --peers_python=peers/bin/python [--only=search] [--rounds=7]

Two processes stay, one for each side, and measure case by case in alternation; each rests while the other works. Both
have the same network; where a search uses it, what it evaluates alone is measured in the same turns. A row is kept as
soon as there is one. pgx also looks whether a position has come again, with which a game there ends. The peers get the
setting in which they are fastest: without the XLA flag below jaxlib 0.10.2 runs convolutions on one core.
"""

import argparse
import pathlib
import sys

import numpy as np
import tensorflow as tf

from apps.alphago import games
from apps.alphago.go import rules as go
from apps.alphago.search import tree as trees
from benchmarks import common, peers

CASES = [
    *({"kind": "environment", "size": 9, "batch": batch} for batch in (1, 64, 256, 1024)),
    *({"kind": "environment", "size": 19, "batch": batch} for batch in (1, 64, 256)),
    *({"kind": "search", "network": "tower", "policy": policy, "batch": batch, "simulations": simulations}
      for policy, simulations in (("puct", 32), ("puct", 128), ("gumbel", 32)) for batch in (1, 8, 64)),
    *({"kind": "search", "network": "constant", "policy": "puct", "batch": batch, "simulations": 32}
      for batch in (1, 8, 64)),
    *({"kind": "self_play", "batch": 64, "visits": visits} for visits in (32, 128))]
PEER_SCRIPT = pathlib.Path(__file__).parent / "search" / "peer_worker.py"
PEER_FLAGS = "--xla_cpu_experimental_ynn_fusion_type="


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers_python", default="", help="Python with jax, mctx and pgx; without it only this suite "
                                                           "is measured.")
    parser.add_argument("--only", default="", help="kinds of cases, comma-separated")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    cases = [case for case in CASES if not options.only or case["kind"] in options.only.split(",")]
    sides = {"usagi": peers.Worker(sys.executable, ["-m", "benchmarks.search.usagi_worker"])}
    if options.peers_python:
        sides["peers"] = peers.Worker(options.peers_python, [str(PEER_SCRIPT)], XLA_FLAGS=PEER_FLAGS)
    for case in cases:
        common.write("search_benchmark", [row_of(case, sides, options.rounds)], key="case", tree_bytes={
            f"{size}x{size}, {nodes} nodes": tree_bytes(size, nodes) for size in (9, 19) for nodes in (33, 129, 401)})
    for side in sides.values():
        side.close()


def tree_bytes(size, nodes):
    """Memory of one tree of so many nodes, root included."""
    rules = go.Rules(size=size)
    game = games.go_game(rules)

    def network(planes):
        return tf.zeros([1, game.num_actions]), tf.zeros([1])

    tree = trees.plant(game, network, go.new(rules, 1), nodes)
    return sum(part.dtype.size * part.shape.num_elements() for part in tf.nest.flatten(tree))


def row_of(case, sides, rounds):
    """Medians of the sides for a case, and ratios; of a search also how much of the network's own speed it has."""
    measures = {name: (side, case) for name, side in sides.items()}
    if case.get("network") == "tower":
        measures["alone"] = sides["usagi"], {"kind": "network", "batch": case["batch"]}
    found = {name: [side.measure(what)] for name, (side, what) in measures.items()}
    for number in range(rounds):
        for name, (side, what) in list(measures.items())[::1 if number % 2 else -1]:
            found[name].append(side.measure(what))
    rates = {name: np.array([answer["rate"] for answer in answers[1:]]) for name, answers in found.items()}
    row = {"case": " ".join(map(str, case.values())), "rounds": rounds,
           "compile_seconds": round(found["usagi"][0]["compile_seconds"], 1)}
    for name, column in (("usagi", "usagi"), ("peers", "peers"), ("alone", "network")):
        row[f"{column}_per_second"] = float(np.median(rates[name])) if name in rates else None
    for name, column in (("peers", "ratio"), ("alone", "share_of_network")):
        low, ratio, _ = common.ratio_interval(rates["usagi"], rates[name]) if name in rates else (None,) * 3
        row |= {column: ratio, f"{column}_low_95": low}
    return row


if __name__ == "__main__":
    main()
