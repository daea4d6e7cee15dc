"""Federated averaging on digits: what uneven data, drop-outs, late joiners and longer local work cost.

    python -m benchmarks.federated_study [--folder=runs/federated] [--seeds=2]

20 clients, 5 of them in each round. McMahan et al. 2017 (arXiv 1602.05629) count rounds to a given accuracy; here all
runs have the same number of local steps, and the rounds that they take are in the table.
"""

import argparse
import pathlib

import numpy as np

from benchmarks import common, runs

FLAGS = {"data": "digits", "model": "resnet20", "width": 0.5, "normalization": "group", "epochs": 15, "batch_size": 16,
         "augmentation": "none", "keep": "last", "export": "none", "learning_rate": 0.05, "validation_fraction": 0.1,
         "distribution": "federated", "clients": 20, "client_share": 0.25, "verbose": 0}
SETTINGS = {
    "one step a round": {"local_steps": 1},
    "10 steps a round": {"local_steps": 10},
    "40 steps a round": {"local_steps": 40},
    "10 steps, half sorted by class": {"local_steps": 10, "client_skew": 0.5},
    "10 steps, sorted by class": {"local_steps": 10, "client_skew": 1.0},
    "10 steps, a third drops out": {"local_steps": 10, "client_dropout": 0.33},
    "10 steps, half come late": {"local_steps": 10, "late_clients": 0.5},
    "10 steps, all three": {"local_steps": 10, "client_skew": 0.5, "client_dropout": 0.33, "late_clients": 0.5}}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default="runs/federated")
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    plan = {f"{index}_{seed}": {**flags, "seed": seed}
            for index, flags in enumerate(SETTINGS.values()) for seed in range(arguments.seeds)}
    results = runs.run_all(pathlib.Path(arguments.folder), plan, FLAGS)
    rows = []
    for index, (setting, flags) in enumerate(SETTINGS.items()):
        mine = [results[f"{index}_{seed}"] for seed in range(arguments.seeds)]
        accuracies = [m["test_accuracy"] for m in mine]
        rows.append({"setting": setting, "test_accuracy": round(float(np.mean(accuracies)), 4),
                     "lowest": min(accuracies), "rounds": mine[0]["steps"] // flags["local_steps"],
                     "seconds": round(float(np.mean([m["seconds"] for m in mine])), 1)})
    common.write("federated_study", rows)


if __name__ == "__main__":
    main()
