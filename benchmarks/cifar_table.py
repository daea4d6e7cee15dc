"""Six networks on CIFAR-10 with 30 minutes of training each.

    python -m benchmarks.cifar_table --data_dir=data [--folder=runs/cifar] [--minutes=30] [--seed=0]

Each run turns its minutes into a number of steps and scales its schedule to it, so the table shows what a network is
worth at equal time, not at equal epochs. Runs that have ended are read back; an interrupted one resumes.
"""

import argparse
import pathlib

from benchmarks import common, runs

MODELS = ("resnet20", "preact_resnet20", "wrn_16_2", "pyramidnet20_a24", "densenet_bc_40_12", "mobilenet_v1")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--folder", default="runs/cifar")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    flags = {name: {"model": name} for name in options.models.split(",")}
    results = runs.run_all(pathlib.Path(options.folder), flags, {
        "data": "cifar10", "data_dir": pathlib.Path(options.data_dir).absolute(), "time_budget": options.minutes,
        "batch_size": 128, "augmentation": "flip,shift", "seed": options.seed, "keep": "last",
        "validation_fraction": 0.02, "export": "none"})
    rows = [{"model": name, "test_accuracy": m["test_accuracy"], "parameters": m["num_parameters"],
             "multiply_adds": m["macs"], "images_s": m["images_per_second"], "epochs": m["epochs"],
             "minutes": m["seconds"] / 60} for name, m in results.items()]
    common.write("cifar_table", rows, seed=options.seed)


if __name__ == "__main__":
    main()
