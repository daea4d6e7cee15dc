"""Asynchronous training beside one device: test accuracy with 3 workers and 1 server, and with 2 and 2.

    python -m benchmarks.async_accuracy --data_dir=DIR [--folder=runs/async_accuracy] [--data=digits,fashion_mnist]

The length of the training is the same number of gradients for all, each of a batch of the same size. An asynchronous
run never comes out twice the same, and one image of the test part of digits is 0.28 points: so digits have three seeds.
"""

import argparse
import pathlib

import numpy as np

from apps.common import fitting
from benchmarks import common, runs

FLAGS = {"model": "resnet20", "width": 0.5, "keep": "last", "export": "none", "learning_rate": 0.05,
         "validation_fraction": 0.1, "verbose": 0}
DATA = {"digits": {"data": "digits", "epochs": 20, "batch_size": 32, "augmentation": "shift", "shift_pixels": 1},
        "fashion_mnist": {"data": "fashion_mnist", "epochs": 5, "batch_size": 128, "augmentation": "flip,shift",
                          "shift_pixels": 2}}
SEEDS = {"digits": 3, "fashion_mnist": 1}
CLUSTERS = {"single": (0, 0), "3 workers, 1 server": (3, 1), "2 workers, 2 servers": (2, 2)}


def plan(names, data_dir):
    """{name: flags} of all runs."""
    found = {}
    for name in names:
        flags = {**DATA[name], **({} if name == "digits" else {"data_dir": data_dir})}
        for workers, servers in CLUSTERS.values():
            cluster = {"distribution": "async", "cluster": (workers, servers)} if workers else {}
            for seed in range(SEEDS[name]):
                found[f"{name}_{workers}_{servers}_{seed}"] = {**flags, **cluster, "seed": seed}
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=",".join(DATA))
    parser.add_argument("--data_dir", default="")
    parser.add_argument("--folder", default="runs/async_accuracy")
    arguments = parser.parse_args()
    names, folder = arguments.data.split(","), pathlib.Path(arguments.folder)
    results = runs.run_all(folder, plan(names, arguments.data_dir), FLAGS)
    rows = []
    for name in names:
        for label, (workers, servers) in CLUSTERS.items():
            mine = [f"{name}_{workers}_{servers}_{seed}" for seed in range(SEEDS[name])]
            staleness = [row.get("staleness_mean", 0) for run in mine
                         for row in fitting.read_history(folder / run / "history.csv")]
            accuracies = [results[run]["test_accuracy"] for run in mine]
            rows.append({"data": name, "cluster": label, "test_accuracy": round(float(np.mean(accuracies)), 4),
                         "of_each_seed": [round(accuracy, 4) for accuracy in accuracies],
                         "seconds": round(float(np.mean([results[run]["seconds"] for run in mine])), 1),
                         "mean_staleness": round(float(np.mean(staleness)), 3)})
    common.write("async_accuracy", rows)


if __name__ == "__main__":
    main()
