"""Asynchronous training: accuracy, time and staleness against the number of workers and --max_staleness.

    python -m benchmarks.stale_gradients [--folder=runs/stale] [--seeds=2]

ResNet-20 of half its width on digits, one parameter server. Two questions. How many updates does a gradient miss, and
what does it cost to drop the old ones? And what if gradients were older than a few workers on one machine can make
them: there `--n_fetch` lets each worker go on with its own weights, while others change the server's.
"""

import argparse
import pathlib

import matplotlib.pyplot as plt
import numpy as np

from apps.common import fitting, reporting
from benchmarks import common, runs

FLAGS = {"data": "digits", "model": "resnet20", "width": 0.5, "epochs": 20, "batch_size": 32, "augmentation": "shift",
         "shift_pixels": 1, "keep": "last", "export": "none", "learning_rate": 0.05, "validation_fraction": 0.1,
         "verbose": 0}
WORKERS = (1, 2, 3, 4)
BOUNDS = (-1, 0, 1, 2)
FETCHES = (1, 4, 16)
PICTURE = pathlib.Path(__file__).parents[1] / "docs" / "pictures" / "stale_gradients.png"


def plan(seeds):
    """{name: flags} of all runs."""
    found = {}
    for seed in range(seeds):
        found[f"single_{seed}"] = {"seed": seed}
        for workers in WORKERS:
            for bound in BOUNDS if workers > 1 else (-1,):
                found[f"workers_{workers}_bound_{bound}_fetch_1_{seed}"] = {
                    "distribution": "async", "cluster": (workers, 1), "max_staleness": bound, "seed": seed}
        for fetch in FETCHES[1:]:
            found[f"workers_4_bound_-1_fetch_{fetch}_{seed}"] = {
                "distribution": "async", "cluster": (4, 1), "n_fetch": fetch, "n_push": 1, "seed": seed}
    return found


def row_of(name, folder, results, seeds):
    """Means over the seeds of one setting."""
    metrics = [results[f"{name}_{seed}"] for seed in range(seeds)]
    history = [row for seed in range(seeds) for row in fitting.read_history(folder / f"{name}_{seed}" / "history.csv")]

    def mean(key):
        return round(float(np.mean([row.get(key, 0.0) for row in history])), 3)

    return {"setting": name, "test_accuracy": round(float(np.mean([m["test_accuracy"] for m in metrics])), 4),
            "seconds": round(float(np.mean([m["seconds"] for m in metrics])), 1),
            "mean_staleness": mean("staleness_mean"),
            "largest_staleness": max(row.get("staleness_max", 0.0) for row in history),
            "dropped_share": mean("dropped_share")}


def draw(rows):
    """Accuracy against staleness, accuracy and time against the number of workers."""
    figure, (over_staleness, *over_workers) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    labels = {-1: "any staleness", 0: "at most 0", 1: "at most 1", 2: "at most 2"}
    by_name = {row["setting"]: row for row in rows}
    for fetch, marker in zip(FETCHES, "osD"):
        mine = [row for row in rows if row["setting"].endswith(f"_bound_-1_fetch_{fetch}")]
        over_staleness.plot([row["mean_staleness"] for row in mine], [row["test_accuracy"] for row in mine], marker,
                            label=f"--n_fetch={fetch}")
    over_staleness.set(xlabel="mean staleness, no bound", title="test accuracy")
    over_staleness.legend(fontsize=8)
    for axis, key, title in zip(over_workers, ("test_accuracy", "seconds"), ("test accuracy", "seconds of training")):
        for bound in BOUNDS:
            points = [(w, by_name[f"workers_{w}_bound_{bound}_fetch_1"][key]) for w in WORKERS
                      if f"workers_{w}_bound_{bound}_fetch_1" in by_name]
            axis.plot(*zip(*points), marker="o", label=labels[bound])
        axis.axhline(by_name["single"][key], color="black", linewidth=0.8, linestyle=":", label="single")
        axis.set(xlabel="workers, --n_fetch=1", title=title, xticks=WORKERS)
    over_workers[1].legend(fontsize=8)
    PICTURE.parent.mkdir(exist_ok=True)
    reporting.save_figure(figure, PICTURE)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default="runs/stale")
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    folder = pathlib.Path(arguments.folder)
    results = runs.run_all(folder, plan(arguments.seeds), FLAGS)
    names = list(dict.fromkeys(name.rsplit("_", 1)[0] for name in results))
    rows = [row_of(name, folder, results, arguments.seeds) for name in names]
    draw(rows)
    common.write("stale_gradients", rows)


if __name__ == "__main__":
    main()
