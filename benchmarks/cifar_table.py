"""Six networks on CIFAR-10 with 30 minutes of training each.

    python -m benchmarks.cifar_table --data_dir=data [--folder=runs/cifar] [--minutes=30] [--seed=0]

Each run turns its minutes into a number of steps and scales its schedule to it, so the table shows what a network is
worth at equal time, not at equal epochs. Runs that have ended are read back; an interrupted one resumes. The first
minute of a run needs a machine with nothing else to do: then the steps are timed, and their speed is in the table. What
runs beside it later makes the run longer, not shorter in steps. With --models=... the others' rows stay in the file.
"""

import argparse
import pathlib

from apps.common import config as config_lib
from apps.image_classification.config import Config
from benchmarks import common, runs

MODELS = ("resnet20", "preact_resnet20", "wrn_16_2", "pyramidnet20_a24", "densenet_bc_40_12", "mobilenet_v1")
BATCH_SIZE = 128


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--folder", default="runs/cifar")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    flags = {name: {"model": name} for name in options.models.split(",")}
    folder = pathlib.Path(options.folder)
    results = runs.run_all(folder, flags, {
        "data": "cifar10", "data_dir": pathlib.Path(options.data_dir).absolute(), "time_budget": options.minutes,
        "batch_size": BATCH_SIZE, "augmentation": "flip,shift", "seed": options.seed, "keep": "last",
        "validation_fraction": 0.02, "export": "none"})
    rows = []
    for name, metrics in results.items():
        _, resolved = config_lib.load(Config, folder / name)
        rows.append({"model": name, "test_accuracy": metrics["test_accuracy"], "parameters": metrics["num_parameters"],
                     "multiply_adds": metrics["macs"], "images_s": BATCH_SIZE / resolved["timed_step_seconds"],
                     "steps": metrics["steps"], "epochs": metrics["epochs"], "wall_minutes": metrics["seconds"] / 60})
    common.write("cifar_table", rows, key="model", seed=options.seed)


if __name__ == "__main__":
    main()
