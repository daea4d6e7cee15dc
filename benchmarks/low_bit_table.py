"""Low-bit weights: accuracy lost at 2 to 6 bits, beside the published loss on detection.

    python -m benchmarks.low_bit_table --data_dir=data [--seeds=3] [--folder=runs/low_bit]

ResNet-20 on Fashion-MNIST, trained in float; from there each number of bits, and float itself, is trained on for the
same few epochs. The loss is against that float training, seed by seed. Published (Yin et al. 2016, as the notes print
it): R-FCN with ResNet-50 and ResNet-101 on Pascal VOC, mAP lost against 32 bits.
"""

import argparse
import pathlib

import tf_keras as keras

from benchmarks import common, plots, runs
from strategies.compression import low_bit

BITS = (2, 3, 4, 5, 6)
TARGETS = {2: 2.5, 3: 1.2, 4: 0.6, 5: 0.4, 6: 0.2}  # points that may be lost
PUBLISHED = {4: (77.66 - 74.37, 78.94 - 76.79), 5: (77.66 - 76.99, 78.94 - 77.85), 6: (77.66 - 77.05, 78.94 - 78.24)}
NETWORKS = ("published: R-FCN, ResNet-50 (mAP)", "published: R-FCN, ResNet-101 (mAP)")
TRAINING = {"data": "fashion_mnist", "model": "resnet20", "batch_size": 128, "augmentation": "flip,shift",
            "shift_pixels": 2, "keep": "last", "validation_fraction": 0.05, "export": "none",
            "precision": "mixed_bfloat16"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--folder", default="runs/low_bit")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--compression_epochs", type=int, default=4)
    options = parser.parse_args()
    folder, seeds = pathlib.Path(options.folder).absolute(), range(options.seeds)
    flags = {**TRAINING, "data_dir": pathlib.Path(options.data_dir).absolute(), "epochs": options.epochs}
    runs.run_all(folder, {f"base_{seed}": {"seed": seed} for seed in seeds}, flags)
    fine = {"compression_epochs": options.compression_epochs, "compression_learning_rate": 0.02}
    starts = {seed: {"seed": seed, "initial_model": folder / f"base_{seed}", **fine} for seed in seeds}
    # Training on without compression: pruning of nothing.
    metrics = runs.run_all(folder, {
        **{f"float_{s}": {**starts[s], "compression": "prune", "prune_criterion": "threshold", "prune_threshold": 0}
           for s in seeds},
        **{f"bits{bits}_{s}": {**starts[s], "compression": "low_bit", "low_bit_bits": bits}
           for bits in BITS for s in seeds}}, flags)

    def accuracy(name):
        return [100 * metrics[f"{name}_{s}"]["test_accuracy"] for s in seeds]

    rows = [{"bits": 32, **runs.loss_over_seeds(accuracy("float"), accuracy("float")), "target": None,
             "bits_per_weight": 32.0, "kilobytes": None, "published_lost": None}]
    for bits in BITS:
        model = keras.models.load_model(folder / f"bits{bits}_0" / "model.keras", compile=False)
        facts = low_bit.write_packed(folder / f"bits{bits}_0" / "export" / "model.lbw", model, bits)
        rows.append({"bits": bits, **runs.loss_over_seeds(accuracy(f"bits{bits}"), accuracy("float")),
                     "target": TARGETS[bits], "bits_per_weight": facts["bits_per_weight"],
                     "kilobytes": facts["bytes"] / 1000,
                     "published_lost": None if bits not in PUBLISHED else
                     " and ".join(f"{value:.2f}" for value in PUBLISHED[bits])})
    published = {network: {bits: values[i] for bits, values in PUBLISHED.items()} for i, network in enumerate(NETWORKS)}
    plots.plot_losses("low_bit_table", "bits a weight", list(BITS), rows[1:], curves=published)
    common.write("low_bit_table", rows)


if __name__ == "__main__":
    main()
