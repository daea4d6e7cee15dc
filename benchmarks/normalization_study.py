"""Batch norm against layer, instance and group norm at batch sizes 2 … 128.

    python -m benchmarks.normalization_study [--folder=runs/normalization] [--seeds=2]

ResNet-20 at half width on digits, the same number of *images* seen at every batch size and a learning rate in
proportion to it (Wu & He 2018, section 4.1, after Goyal et al. 2017). Expected: batch norm loses at small batches,
where its statistics are of few images; the others do not depend on the batch. Group norm has 4 groups here: the 32 of
its default are single channels, instance norm, in a network of at most 32.
"""

import argparse
import pathlib

import numpy as np

from apps.common import reporting
from benchmarks import common, runs

NORMALIZATIONS = ("batch", "layer", "instance", "group:4")
BATCH_SIZES = (2, 4, 8, 16, 32, 64, 128)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default="runs/normalization")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    flags = {f"{kind}_{batch}_{seed}": {"normalization": kind, "batch_size": batch, "seed": seed,
                                        "learning_rate": 0.1 * batch / 64}
             for kind in NORMALIZATIONS for batch in BATCH_SIZES for seed in range(options.seeds)}
    results = runs.run_all(pathlib.Path(options.folder), flags, {
        "data": "digits", "model": "resnet20", "width": 0.5, "epochs": options.epochs, "keep": "last", "export": "none",
        "validation_fraction": 0})
    rows, figure = [], reporting.new_figure()
    axes = figure.subplots()
    for kind in NORMALIZATIONS:
        accuracy = np.array([[results[f"{kind}_{batch}_{seed}"]["test_accuracy"] for seed in range(options.seeds)]
                             for batch in BATCH_SIZES])
        rows.append({"normalization": kind, **{f"batch {b}": float(a) for b, a in zip(BATCH_SIZES, accuracy.mean(1))}})
        axes.errorbar(BATCH_SIZES, accuracy.mean(1), np.ptp(accuracy, axis=1) / 2, label=kind, capsize=3, marker="o")
    axes.set_xscale("log", base=2)
    axes.set_xlabel("batch size")
    axes.set_ylabel("test accuracy (digits)")
    axes.legend()
    axes.grid(alpha=0.3)
    reporting.save_figure(figure, "docs/pictures/normalization_study.png")
    common.write("normalization_study", rows)


if __name__ == "__main__":
    main()
