"""Pruning dense layers at alpha standard deviations, and retraining: measured beside a published table.

    python -m benchmarks.deviation_pruning --data_dir=flowers17 [--seeds=5] [--folder=runs/deviation]

Published: CaffeNet on Oxford-102 flowers, three dense layers, 14 values of alpha. Here: AlexNet in one tower at half
width (dense layers of 2048) with batch normalisation between its convolutions, from random weights, on Oxford-17
flowers at 128 x 128; retraining for 10 epochs. What compares is the share that is removed at an alpha, which depends on
the shape of the weights' distribution, and where accuracy begins to fall; not the accuracy itself. Differences are
paired over seeds; alpha 0 removes nothing and is retrained likewise.
"""

import argparse
import pathlib

import numpy as np
import scipy.stats
import tf_keras as keras

import layers.regularization  # noqa: F401 - Keras has to know its dropout to read the models
from apps.common import reporting
from benchmarks import common, runs

LAYERS = ("fc1", "fc2", "logits")
# alpha: share removed of FC1, FC2, FC3, all; accuracy; all in percent.
PUBLISHED = {
    0.5: (49.54, 47.13, 57.21, 48.86, 91.66), 0.6: (57.54, 55.14, 64.99, 56.86, 91.39),
    0.8: (70.96, 69.04, 76.44, 70.42, 91.16), 1.0: (80.97, 79.77, 83.74, 80.62, 91.11),
    1.3: (90.51, 90.27, 90.01, 90.43, 91.02), 1.5: (94.16, 94.28, 92.45, 94.18, 90.69),
    1.6: (95.44, 95.64, 93.38, 95.49, 90.53), 1.7: (96.41, 96.66, 94.20, 96.47, 89.84),
    1.8: (97.17, 97.43, 94.88, 97.23, 89.94), 1.9: (97.75, 98.02, 95.45, 97.81, 89.45),
    2.0: (98.20, 98.45, 95.94, 98.26, 89.56), 2.2: (98.80, 99.03, 96.74, 98.85, 88.97),
    2.4: (99.19, 99.40, 97.41, 99.24, 87.74), 2.6: (99.46, 99.64, 97.95, 99.50, 87.08)}
TRAINING = {"data": "folder", "model": "alexnet", "width": 0.5, "normalization": "batch", "image_size": 128,
            "dropout": 0.5, "augmentation": "flip,shift", "epochs": 80, "batch_size": 32, "learning_rate": 0.02,
            "export": "none", "keep": "last", "validation_fraction": 0}
PRUNING = {"compression": "prune", "prune_criterion": "deviation", "prune_select": "fc|logits",
           "compression_epochs": 10, "compression_learning_rate": 0.004}


def removed(workdir):
    """Shares of zeros, percent: of each dense layer, and of all."""
    model = keras.models.load_model(workdir / "model.keras", compile=False)
    kernels = [model.get_layer(name).kernel.numpy() for name in LAYERS]
    shares = [100 * float((kernel == 0).mean()) for kernel in kernels]
    return [*shares, 100 * sum(int((k == 0).sum()) for k in kernels) / sum(k.size for k in kernels)]


def paired(values, baseline):
    """Mean difference and half of its 95 % interval (Student's t over seeds)."""
    difference = np.asarray(values) - np.asarray(baseline)
    half = scipy.stats.t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / np.sqrt(len(difference))
    return float(difference.mean()), float(half)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--folder", default="runs/deviation")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    folder = pathlib.Path(options.folder).absolute()
    seeds, alphas = range(options.seeds), (0.0, *PUBLISHED)
    flags = {**TRAINING, "data_dir": pathlib.Path(options.data_dir).absolute()}
    base = runs.run_all(folder, {f"base_{seed}": {"seed": seed} for seed in seeds}, flags)
    pruned = runs.run_all(folder, {
        f"alpha_{alpha}_{seed}": {"seed": seed, "prune_alpha": alpha, "initial_model": folder / f"base_{seed}"}
        for seed in seeds for alpha in alphas}, {**flags, **PRUNING})

    accuracy = {alpha: [100 * pruned[f"alpha_{alpha}_{seed}"]["test_accuracy"] for seed in seeds] for alpha in alphas}
    rows = []
    for alpha in alphas:
        shares = np.mean([removed(folder / f"alpha_{alpha}_{seed}") for seed in seeds], axis=0)
        unpruned, unpruned_half = paired(accuracy[alpha], accuracy[0.0])
        first, first_half = paired(accuracy[alpha], accuracy[0.5])
        published = PUBLISHED.get(alpha, (None,) * 5)
        rows.append({"alpha": alpha, **{f"removed_{name}": float(s) for name, s in zip((*LAYERS, "all"), shares)},
                     "accuracy": float(np.mean(accuracy[alpha])), "spread": float(np.ptp(accuracy[alpha])),
                     "against_unpruned": unpruned, "interval": unpruned_half, "against_alpha_0.5": first,
                     "interval_0.5": first_half, "published_removed_all": published[3],
                     "published_accuracy": published[4],
                     "published_against_0.5": None if alpha == 0 else published[4] - PUBLISHED[0.5][4]})
    plot(rows)
    common.write("deviation_pruning", rows, base_accuracy=[100 * m["test_accuracy"] for m in base.values()],
                 published={str(alpha): values for alpha, values in PUBLISHED.items()})


def plot(rows):
    """Accuracy lost against the share removed, measured and published."""
    figure = reporting.new_figure()
    axes = figure.subplots()
    measured = [row for row in rows if row["alpha"] > 0]
    axes.errorbar([100 - row["removed_all"] for row in measured], [row["against_alpha_0.5"] for row in measured],
                  [row["interval_0.5"] for row in measured], marker="o", capsize=3, label="measured (Oxford-17)")
    axes.plot([100 - values[3] for values in PUBLISHED.values()],
              [values[4] - PUBLISHED[0.5][4] for values in PUBLISHED.values()], marker="s",
              label="published (Oxford-102, CaffeNet)")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.invert_xaxis()
    axes.set_ylim(-12, 2)  # what loses more stands in the table
    axes.set_xlabel("dense weights left, %")
    axes.set_ylabel("accuracy against α = 0.5, points")
    axes.grid(alpha=0.3)
    axes.legend()
    reporting.save_figure(figure, "docs/pictures/deviation_pruning.png")


if __name__ == "__main__":
    main()
