"""Two hours of self-play at Go on 9x9, or fifteen minutes on 5x5: how strong is what comes out?

    python -m benchmarks.zero_go --size=9 [--folder=runs/zero_go] [--minutes=120] [--gnugo=gnugo]
    python -m benchmarks.zero_go --size=5 [--minutes=15]

On 9x9 the network plays GNU Go: after all of its training with a search, alone, and with as large a search before any
training; and with the search as it was on the way. On 5x5 it plays random moves, and is asked for the first move.
Training goes on where it was interrupted, and so do matches. Openings are four random moves, each with both colours.
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
from benchmarks import common, runs

FLAGS = {5: ("--model=zero_2x32",), 9: (f"--precision={common.fast_precision()}",)}
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
    parser.add_argument("--only", default="", help="the one match to play, by its name; the table is not written")
    options = parser.parse_args()
    folder, size = pathlib.Path(options.folder).absolute(), options.size
    minutes = MINUTES[size] if options.minutes is None else options.minutes
    run, untrained = folder / f"size{size}", folder / f"untrained{size}"
    train(run, size, f"--time_budget={minutes:g}")
    train(untrained, size, "--epochs=0")
    matches = matches_of(run, untrained, minutes, options.gnugo) if size == 9 else {
        "50 simulations": (f"{run},simulations=50", "random", 100), "alone": (f"{run}{ALONE}", "random", 100)}
    if options.only:
        matches = {options.only: matches[options.only]}
    rows = [{"size": size, "match": name, **play(folder / f"match{size}" / name.replace(" ", "_"), size, *match)}
            for name, match in matches.items()]
    if options.only:
        return
    network = keras.models.load_model(run / "model.keras", compile=False)
    common.write("zero_go" if size == 9 else "zero_go_5", rows, minutes=minutes, parameters=network.count_params(),
                 run=json.loads((run / "metrics.json").read_text()), ladder=read_history(run / "ladder.csv"),
                 first_moves={name: first_move(f"{run}{words}", size)
                              for name, words in (("400 simulations", SEARCH), ("alone", ALONE))})
    plot(size, run, rows)


def matches_of(run, untrained, minutes, program):
    """{name: (path of the network and its settings, opponent, games)} of 9x9."""
    weak, strong = (f"gtp:{program} {GNU_GO.format(level)}" for level in (1, 10))
    matches = {"400 simulations": (f"{run}{SEARCH}", weak, 200), "alone": (f"{run}{ALONE}", weak, 200),
               "untrained": (f"{untrained}{SEARCH}", weak, 60), "level 10": (f"{run}{SEARCH}", strong, 100)}
    config, _ = config_lib.load(ZeroConfig, run)
    learned = settings.game_options(config, go.Rules(size=config.size))  # a rung's file does not know
    options = "".join(f",{name}={value:g}" for name, value in learned.items())
    for parts in (8, 4, 2):
        rung = rung_at(run, minutes / parts)
        matches[f"after {minutes / parts:g} minutes"] = (f"{rung}{SEARCH}{options}", weak, 60)
    return matches


def rung_at(run, minutes):
    """The network of the ladder whose training took nearest to so many minutes."""
    rung = min(read_history(run / "ladder.csv"), key=lambda row: abs(row["minutes"] - minutes))
    return run / "rungs" / f"{rung['generation']:05.0f}.keras"


def train(workdir, size, budget):
    """A run of self-play, unless it has ended."""
    if not (workdir / "metrics.json").exists():
        subprocess.run([sys.executable, "-m", "apps.alphago.train_zero", "--game=go", f"--size={size}", *FLAGS[size],
                        budget, f"--workdir={workdir}"], cwd=runs.ROOT, check=True)


def play(workdir, size, network, opponent, games):
    """Figures of a match of a network."""
    if not (workdir / "report.md").exists():
        subprocess.run([sys.executable, "-m", "apps.alphago.arena", f"--a=network:{network}", f"--b={opponent}",
                        f"--size={size}", "--komi=7", f"--games={games}", f"--parallel_games={PARALLEL}",
                        f"--workdir={workdir}"], cwd=runs.ROOT, check=True)
    metrics = json.loads((workdir / "metrics.json").read_text())
    return {key: metrics[key] for key in ("games", "wins", "draws", "losses", "score", "score_low", "score_high",
                                          "distinct_games", "mean_length", "seconds_a", "seconds_b")}


def first_move(network, size):
    """Name of the move on an empty board."""
    rules = go.Rules(size, 7.0)
    player = player_of(f"network:{network}")(0)
    player.begin(rules)
    return text.name_of(player.choose(Board(rules)).move, size)


def plot(size, run, rows):
    """Elo of the ladder by minutes of training, and points against GNU Go."""
    figure = reporting.new_figure()
    axes = figure.subplots()
    ladder = read_history(run / "ladder.csv")
    axes.plot([row["minutes"] for row in ladder], [row["elo"] for row in ladder], marker=".", label="Elo of the ladder")
    axes.set_xlabel("minutes of training")
    axes.set_ylabel("Elo above the first rung")
    axes.grid(alpha=0.3)
    on_the_way = [(float(row["match"].split()[1]), row) for row in rows if row["match"].startswith("after")]
    if on_the_way:
        end = next(row for row in rows if row["match"] == "400 simulations")
        minutes, found = zip(*on_the_way, (ladder[-1]["minutes"], end))
        points = axes.twinx()
        points.errorbar(minutes, [row["score"] for row in found], color="tab:red", marker="o", capsize=3,
                        yerr=([row["score"] - row["score_low"] for row in found],
                              [row["score_high"] - row["score"] for row in found]))
        points.set_ylim(0, 1)
        points.set_ylabel("points a game against GNU Go, level 1 (red)")
    reporting.save_figure(figure, f"docs/pictures/zero_go_{size}.png")


if __name__ == "__main__":
    main()
