"""Two hours of self-play at Go on 9x9, or fifteen minutes on 5x5: how strong is what comes out?

    python -m benchmarks.zero_go --size=9 [--folder=runs/zero_go] [--minutes=120] [--gnugo=gnugo]
    python -m benchmarks.zero_go --size=5 [--minutes=15]

On 9x9 the network plays GNU Go: after all of its training with a search, alone, and with as large a search before any
training; and with the search as it was on the way. On 5x5 it plays random moves, and is asked for the first move.
Training goes on where it was interrupted, and so do matches. Openings are four random moves, each with both colours.
A row is kept as soon as there is one. --network plays another network than that of --folder, such as go9, which comes
with the suite: then nothing is trained, there is no curve, and the record has its name.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import tf_keras as keras

from apps.alphago import settings
from apps.alphago.config import ZeroConfig
from apps.alphago.go import rules as go
from apps.alphago.go import text
from apps.alphago.go.board import Board
from apps.alphago.opponents import player_of
from apps.common import config as config_lib
from apps.common import reporting
from apps.common.fitting import read_history
from apps.common.workdir import computes_bfloat16
from benchmarks import common, runs

# The one in which self-play is fastest here; the run's config.json names it.
PRECISION = "mixed_bfloat16" if computes_bfloat16() else "float32"
FLAGS = {5: ("--model=zero_2x32",), 9: (f"--precision={PRECISION}",)}
MINUTES = {5: 15, 9: 120}
GNU_GO = "--mode gtp --level {} --chinese-rules --capture-all-dead --play-out-aftermath --seed {{seed}}"
SEARCH, ALONE = ",simulations=400,leaves=1,capacity=2000", ",simulations=1,leaves=1"
PARALLEL = 16  # games of a match, side by side


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, choices=list(FLAGS), required=True)
    parser.add_argument("--folder", default="runs/zero_go")
    parser.add_argument("--minutes", type=float, help="of training; 120 on 9x9, 15 on 5x5")
    parser.add_argument("--gnugo", default="gnugo", help="the program")
    parser.add_argument("--only", default="", help="the matches to play, by their names, comma-separated")
    parser.add_argument("--network", default="", help="the one that plays, instead of training one")
    options = parser.parse_args()
    folder, size = pathlib.Path(options.folder).absolute(), options.size
    minutes = MINUTES[size] if options.minutes is None else options.minutes
    run, untrained = options.network or folder / f"size{size}", folder / f"untrained{size}"
    if not options.network:
        train(run, size, f"--time_budget={minutes:g}")
    train(untrained, size, "--epochs=0")
    matches = matches_of(run, untrained, options.gnugo) if size == 9 else {
        "50 simulations": (f"{run},simulations=50", "random", 100), "alone": (f"{run}{ALONE}", "random", 100)}
    if size == 9 and not options.network:
        matches |= on_the_way(run, minutes, options.gnugo)
    name, rows = "zero_go" if size == 9 else "zero_go_5", []
    if options.network:  # rows of one record are of one network
        name += f"_{pathlib.Path(options.network).stem}"
    for match in options.only.split(",") if options.only else matches:
        rows.append({"match": match, **play(folder / f"match{size}" / match.replace(" ", "_"), size, *matches[match])})
        record = common.write(name, rows, key="match", **training_of(run, size))
    if "ladder" in record:
        plot(size, record)


def matches_of(run, untrained, program):
    """{name: (path of the network and its settings, opponent, games)} of 9x9."""
    weak, strong = (f"gtp:{program} {GNU_GO.format(level)}" for level in (1, 10))
    return {"400 simulations": (f"{run}{SEARCH}", weak, 200), "alone": (f"{run}{ALONE}", weak, 200),
            "untrained": (f"{untrained}{SEARCH}", weak, 40), "level 10": (f"{run}{SEARCH}", strong, 100)}


def on_the_way(run, minutes, program):
    """The same of networks of the ladder, those nearest to an eighth, a quarter and a half of the minutes."""
    config, _ = config_lib.load(ZeroConfig, run)
    learned = settings.game_options(config, go.Rules(size=config.size))  # a rung's file does not know
    options = "".join(f",{name}={value:g}" for name, value in learned.items())
    matches = {}
    for part in (minutes / 8, minutes / 4, minutes / 2):
        rung = min(read_history(run / "ladder.csv"), key=lambda row: abs(row["minutes"] - part), default=None)
        if rung is not None:
            file = run / "rungs" / f"{rung['generation']:05.0f}.keras"
            matches[f"after {rung['minutes']:.0f} minutes"] = (
                f"{file}{SEARCH}{options}", f"gtp:{program} {GNU_GO.format(1)}", 60)
    return matches


def train(workdir, size, budget):
    """A run of self-play, unless it has ended."""
    flags = [f"--size={size}", *FLAGS[size], budget]
    if (workdir / "metrics.json").exists():
        runs.check_same(workdir, dict(flag.removeprefix("--").split("=", 1) for flag in flags))
    else:
        subprocess.run([sys.executable, "-m", "apps.alphago.train_zero", "--game=go", *flags, f"--workdir={workdir}"],
                       cwd=runs.ROOT, check=True)


def play(workdir, size, network, opponent, games):
    """Figures of a match of a network. Seconds are left out: a move's share of a search of many games tells nothing."""
    flags = {"a": f"network:{network}", "b": opponent, "size": size, "komi": 7, "games": games,
             "parallel_games": PARALLEL}
    if (workdir / "report.md").exists():
        runs.check_same(workdir, flags)
    else:
        subprocess.run([sys.executable, "-m", "apps.alphago.arena", *(f"--{key}={value}" for key, value in
                        flags.items()), f"--workdir={workdir}"], cwd=runs.ROOT, check=True)
    metrics = json.loads((workdir / "metrics.json").read_text())
    return {key: value for key, value in metrics.items() if not key.startswith("seconds")}


def training_of(run, size):
    """What a record says of how the network was made."""
    moves = {name: first_move(f"{run}{words}", size) for name, words in (("400 simulations", SEARCH), ("alone", ALONE))}
    if not isinstance(run, pathlib.Path):
        return {"first_moves": moves}
    network = keras.models.load_model(run / "model.keras", compile=False)
    return {"first_moves": moves, "parameters": network.count_params(),
            "run": json.loads((run / "metrics.json").read_text()), "ladder": read_history(run / "ladder.csv")}


def first_move(network, size):
    """Name of the move on an empty board."""
    rules = go.Rules(size, 7.0)
    player = player_of(f"network:{network}")(0)
    player.begin(rules)
    return text.name_of(player.choose(Board(rules)).move, size)


def plot(size, record):
    """Elo of the ladder by minutes of training, and points against GNU Go."""
    figure, rows, ladder = reporting.new_figure(), record["rows"], record["ladder"]
    axes = figure.subplots()
    axes.plot([row["minutes"] for row in ladder], [row["elo"] for row in ladder], marker=".", label="Elo of the ladder")
    axes.set_xlabel("minutes of training")
    axes.set_ylabel("Elo above the first rung")
    axes.grid(alpha=0.3)
    points = sorted(((float(row["match"].split()[1]), row) for row in rows if row["match"].startswith("after")),
                    key=lambda point: point[0])
    points += [(record["run"]["seconds"] / 60, row) for row in rows if row["match"] == "400 simulations"]
    if len(points) > 1:
        minutes, found = zip(*points)
        right = axes.twinx()
        right.errorbar(minutes, [row["score"] for row in found], color="tab:red", marker="o", capsize=3,
                       yerr=([row["score"] - row["score_low"] for row in found],
                             [row["score_high"] - row["score"] for row in found]))
        right.set_ylim(0, 1)
        right.set_ylabel("points a game against GNU Go, level 1 (red)")
    reporting.save_figure(figure, f"docs/pictures/zero_go_{size}.png")


if __name__ == "__main__":
    main()
