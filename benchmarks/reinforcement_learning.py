"""What is learned, over five seeds, beside published or well-known figures.

    python -m benchmarks.reinforcement_learning [--folder=runs/reinforcement] [--seeds=5] [--only=cart_pole]

Each run is one of `apps.reinforcement.train` with its tuned defaults, in a process of its own; its policy is that of
the best trial, tried in fresh episodes. The interval is the bootstrap's over the seeds, 95 %. The defaults were tuned
with seeds 0 to 4: here they begin with 100. Where an int8 file loses more than 5 % of the return, the policies are
trained on with simulated 8 bits, by `apps.reinforcement.distill`, and exported again.
"""

import argparse
import pathlib

import numpy as np

from apps.common import fitting, reporting
from apps.common.variants import read_rows
from apps.reinforcement import compare
from apps.reinforcement.reports import interval
from benchmarks import common, runs

PICTURE = pathlib.Path(__file__).parents[1] / "docs" / "pictures" / "reinforcement_learning.png"
# Setting: flags, the return that the suite must reach, and what others report: rl-zoo (Raffin 2020, its benchmark.md),
# CleanRL's documentation of each algorithm, gymnasium's threshold for "solved".
SETTINGS = {
    "dqn cart_pole": ({"algorithm": "dqn"}, 475, "500 (rl-zoo); 488.69 ± 16.11 (CleanRL)"),
    "dqn double dueling prioritised 3-step cart_pole": (
        {"algorithm": "dqn", "double": True, "dueling": True, "prioritized": True, "n_step": 3}, 475, "500 (rl-zoo)"),
    "reinforce cart_pole": ({"algorithm": "reinforce"}, 475, "475 (gymnasium: solved)"),
    "reinforce without baseline cart_pole": ({"algorithm": "reinforce", "baseline": False}, None, ""),
    "a2c cart_pole": ({"algorithm": "a2c"}, 475, "500 (rl-zoo)"),
    "ppo cart_pole": ({"algorithm": "ppo"}, 475, "500 (rl-zoo); 490.04 ± 6.12 (CleanRL)"),
    "ppo sync cart_pole": ({"algorithm": "ppo", "distribution": "sync", "num_devices": 2}, 475, "as ppo cart_pole"),
    "ppo async cart_pole": ({"algorithm": "ppo", "distribution": "async", "cluster": (2, 1), "epochs": 6}, 475,
                            "as ppo cart_pole"),
    "ppo acrobot": ({"algorithm": "ppo", "env": "acrobot"}, -100, "-73.5 (rl-zoo); -86.36 ± 1.32 (CleanRL)"),
    "ppo campaign_mail": ({"algorithm": "ppo", "env": "campaign_mail"}, None, ""),
    "ppo traffic_light": ({"algorithm": "ppo", "env": "traffic_light"}, None, ""),
}
FEW_SEEDS = {"ppo sync cart_pole": 3, "ppo async cart_pole": 3}  # which take minutes each
MOST_LOST = 0.05  # by an int8 file, of the return
_OF_RULES = ("send", "best_fixed", "10_s", "16_s", "24_s", "36_s", "60_s")  # how the metrics of fixed policies go on


def row_of(name, found, wanted, published, folder):
    """A row of the table from the metrics of the seeds, {name of the run: metrics}."""
    names, found = list(found), list(found.values())
    returns = np.array([metrics["test_return"] for metrics in found])
    low, high = interval(returns)
    rules = [max(value for key, value in metrics.items() if _is_rule(key)) for metrics in found
             if any(map(_is_rule, metrics))]
    int8 = max(_change(metrics["return_keras"], metrics["return_int8"]) for metrics in found)
    equal = min(metrics["equal_actions_float32"] for metrics in found)
    return {"setting": name, "seeds": len(found), "return": round(float(returns.mean()), 2), "low": round(low, 2),
            "high": round(high, 2), "worst": round(float(returns.min()), 2), "wanted": wanted,
            "best_fixed_policy": round(float(np.mean(rules)), 2) if rules else None,
            "steps": round(float(np.mean([metrics["steps"] for metrics in found]))),
            "seconds": round(float(np.mean([metrics["seconds"] for metrics in found])), 1),
            "int8_change": round(int8, 4),
            "int8_change_trained": round(in_8_bits(folder, names), 4) if int8 > MOST_LOST else None,
            "equal_actions_float32": equal, "published": published}


def in_8_bits(folder, names):
    """Largest change of a run's return by the int8 file after training with simulated 8 bits."""
    runs.run_all(folder, {f"{name}_quantized": {"teacher": (folder / name).absolute()} for name in names},
                 {"compression": "quantize", "export": "float32,int8", "verbose": 0}, app="reinforcement",
                 program="distill", metric="test_return")
    changes = []
    for name in names:
        teacher, student = ({row["format"]: row["value"] for row in read_rows(folder / run / "report.csv")}
                            for run in (name, f"{name}_quantized"))
        changes.append(_change(teacher["keras"], student["int8"]))
    return max(changes)


def _change(before, after):
    return abs(after - before) / abs(before)


def _is_rule(key):
    return key.startswith(tuple(f"return_{name}" for name in _OF_RULES))


def figure_of(found):
    """Learning curves by environment, and what the best fixed policies there earn.

    Args:
        found: {setting: [(history, metrics) of each seed]}.
    """
    environments = {}
    for name in found:
        environments.setdefault(name.split()[-1], []).append(name)
    figure = reporting.new_figure(12, 9)
    grid = figure.add_gridspec(2, len(environments) - 1, height_ratios=(1.3, 1))
    places = [grid[0, :], *(grid[1, column] for column in range(len(environments) - 1))]
    for place, (environment, names) in zip(places, environments.items()):
        axes = figure.add_subplot(place)
        curves = {name.removesuffix(f" {environment}"): [history for history, _ in found[name]] for name in names}
        compare.draw_curves(axes, curves, "greedy_return")
        rules = {key: np.mean([metrics[key] for _, metrics in found[names[0]]]) for key in found[names[0]][0][1]
                 if _is_rule(key)}
        for (key, value), style in zip(sorted(rules.items(), key=lambda rule: -rule[1])[:3], ("--", "-.", ":")):
            axes.axhline(value, color="gray", linestyle=style, label=key.removeprefix("return_").replace("_", " "))
        axes.set(title=environment.replace("_", " "), ylabel="mean return of 100 episodes")
        axes.legend(fontsize=7)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default="runs/reinforcement")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first_seed", type=int, default=100)
    parser.add_argument("--only", default="", help="settings whose name holds this text")
    arguments = parser.parse_args()
    folder, curves = pathlib.Path(arguments.folder), {}
    for name, (flags, wanted, published) in SETTINGS.items():
        if arguments.only not in name:
            continue
        seeds = range(arguments.first_seed, arguments.first_seed + min(arguments.seeds, FEW_SEEDS.get(name, 99)))
        plan = {f"{name.replace(' ', '_')}_{seed}": {**flags, "seed": seed} for seed in seeds}
        found = runs.run_all(folder, plan, {"export": "float32,int8", "verbose": 0},
                             app="reinforcement", metric="test_return")
        common.write("reinforcement_learning", [row_of(name, found, wanted, published, folder)], key="setting")
        curves[name] = [(fitting.read_history(folder / run / "history.csv"), metrics) for run, metrics in found.items()]
    if not arguments.only:
        reporting.save_figure(figure_of(curves), PICTURE)


if __name__ == "__main__":
    main()
