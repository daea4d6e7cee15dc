"""Asynchronous training beside one device: test accuracy with 3 workers and 1 server, and with 2 and 2.

    python -m benchmarks.async_accuracy --data_dir=DIR [--folder=runs/async_accuracy] [--data=digits,fashion_mnist]

The length of the training is the same number of gradients for all, each of a batch of the same size.
"""

import argparse
import pathlib

from apps.common import fitting
from benchmarks import common, runs

FLAGS = {"model": "resnet20", "width": 0.5, "keep": "last", "export": "none", "learning_rate": 0.05,
         "validation_fraction": 0.1, "seed": 0, "verbose": 0}
DATA = {"digits": {"data": "digits", "epochs": 20, "batch_size": 32, "augmentation": "shift", "shift_pixels": 1},
        "fashion_mnist": {"data": "fashion_mnist", "epochs": 5, "batch_size": 128, "augmentation": "flip,shift",
                          "shift_pixels": 2}}
CLUSTERS = {"single": (0, 0), "3 workers, 1 server": (3, 1), "2 workers, 2 servers": (2, 2)}


def plan(names, data_dir):
    """{name: flags} of all runs."""
    found = {}
    for name in names:
        flags = {**DATA[name], **({} if name == "digits" else {"data_dir": data_dir})}
        for workers, servers in CLUSTERS.values():
            cluster = {"distribution": "async", "cluster": (workers, servers)} if workers else {}
            found[f"{name}_{workers}_{servers}"] = {**flags, **cluster}
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
            run = f"{name}_{workers}_{servers}"
            staleness = [row.get("staleness_mean") for row in fitting.read_history(folder / run / "history.csv")]
            rows.append({"data": name, "cluster": label, "test_accuracy": results[run]["test_accuracy"],
                         "seconds": results[run]["seconds"],
                         "mean_staleness": round(sum(staleness) / len(staleness), 3) if workers else None})
    common.write("async_accuracy", rows)


if __name__ == "__main__":
    main()
