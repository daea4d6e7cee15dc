"""How many dense weights can go: 94 % and 98 % of an AlexNet's on Fashion-MNIST, three seeds.

    python -m benchmarks.dense_pruning --data_dir=data [--seeds=3] [--folder=runs/dense]

A small AlexNet (quarter width: dense layers of 1024) is trained, then pruned in its dense layers along TFMOT's
polynomial schedule and trained on; the loss is against the same training without pruning, seed by seed.
"""

import argparse
import pathlib

import numpy as np

from benchmarks import common, plots, runs
from benchmarks.deviation_pruning import removed

SPARSITIES = (0.9, 0.94, 0.98)
TARGETS = {0.94: 0.5, 0.98: 1.5}  # points that may be lost
TRAINING = {"data": "fashion_mnist", "model": "alexnet", "width": 0.25, "normalization": "batch", "batch_size": 128,
            "dropout": 0.5, "augmentation": "flip,shift", "shift_pixels": 2, "epochs": 15, "learning_rate": 0.05,
            "keep": "last", "validation_fraction": 0.05, "export": "none", "precision": "mixed_bfloat16"}
PRUNING = {"compression": "prune", "prune_select": "fc|logits", "compression_epochs": 6,
           "compression_learning_rate": 0.02}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--folder", default="runs/dense")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    folder, seeds = pathlib.Path(options.folder).absolute(), range(options.seeds)
    flags = {**TRAINING, "data_dir": pathlib.Path(options.data_dir).absolute()}
    runs.run_all(folder, {f"base_{seed}": {"seed": seed} for seed in seeds}, flags)
    metrics = runs.run_all(folder, {
        f"{sparsity}_{seed}": {"seed": seed, "prune_sparsity": sparsity, "initial_model": folder / f"base_{seed}"}
        for seed in seeds for sparsity in (0.0, *SPARSITIES)}, {**flags, **PRUNING})
    accuracy = {sparsity: [100 * metrics[f"{sparsity}_{seed}"]["test_accuracy"] for seed in seeds]
                for sparsity in (0.0, *SPARSITIES)}
    rows = []
    for sparsity in accuracy:
        shares = np.mean([removed(folder / f"{sparsity}_{seed}") for seed in seeds], axis=0)
        rows.append({"sparsity": sparsity, "removed_all": float(shares[-1]),
                     **runs.loss_over_seeds(accuracy[sparsity], accuracy[0.0]), "target": TARGETS.get(sparsity)})
    plots.plot_losses("dense_pruning", "share of dense weights removed", list(SPARSITIES), rows[1:])
    common.write("dense_pruning", rows)


if __name__ == "__main__":
    main()
