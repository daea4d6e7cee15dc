"""Full games against GNU Go through the GTP client of another program, Sabaki.

    npm install @sabaki/gtp
    python -m benchmarks.gtp_controller --player=network:runs/zero9,simulations=400 [--gnugo=gnugo] [--level=1]

Two games a size, one with each colour, under a clock of main time only. The client plays each move on the other engine,
which refuses an illegal one: then there is no table. It also refuses a game that was lost on time.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

from benchmarks import common, runs

SCRIPT = pathlib.Path(__file__).with_name("search") / "controller.js"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--player", default="random", help="as of apps.alphago.play")
    parser.add_argument("--gnugo", default="gnugo", help="the program")
    parser.add_argument("--level", type=int, default=1, help="of GNU Go")
    parser.add_argument("--sizes", default="9")
    parser.add_argument("--seconds", type=int, default=120, help="of each side for a game")
    parser.add_argument("--modules", default="node_modules", help="folder of npm's packages")
    options = parser.parse_args()
    own = [sys.executable, "-m", "apps.alphago.play", f"--player={options.player}", "--mode=gtp"]
    gnugo = [options.gnugo, "--mode", "gtp", "--level", str(options.level), "--chinese-rules", "--seed", "1"]
    rows = []
    for size in map(int, options.sizes.split(",")):
        for colour, other in (("black", "white"), ("white", "black")):
            game = play({"size": size, "komi": 7, "seconds": options.seconds, "folder": str(runs.ROOT), colour: own,
                         other: gnugo}, options.modules)
            seconds = [took for mover, _, took in game["moves"] if mover == colour]
            rows.append({"player": options.player, "size": size, "colour": colour, "moves": len(game["moves"]),
                         "end": game["end"], "score": game["scores"][colour], "gnugo_score": game["scores"][other],
                         "longest_seconds": max(seconds), "seconds": sum(seconds)})
    common.write("gtp_controller", rows, names=game["names"], clock=options.seconds)


def play(settings, modules):
    """What the script prints of a game.

    Raises:
        RuntimeError: an engine refused a command, or lost on time.
    """
    done = subprocess.run(["node", SCRIPT, json.dumps(settings)], capture_output=True, text=True, timeout=3600,
                          env={**os.environ, "NODE_PATH": str(pathlib.Path(modules).absolute())})
    if done.returncode:
        raise RuntimeError(done.stderr)
    game = json.loads(done.stdout)
    if game["end"].endswith("time"):
        raise RuntimeError(f"{game['end']}: {game['left']}")
    return game


if __name__ == "__main__":
    main()
