"""Distillation: a small student alone and with Hinton's soft targets, and a FitNet.

    python -m benchmarks.distillation_study --data_dir=data [--seeds=3] [--folder=runs/distillation]

Fashion-MNIST. Part 1: WRN-10-1 alone and under a WRN-16-4. Part 2, FitNets (Romero et al. 2015): a ResNet-20, thinner
and deeper than its teacher, a WRN-10-4, with a quarter of the parameters. The students of part 1 see the images as they
are, so that the teacher's outputs can be kept; those of part 2 shifted and mirrored, as their teacher does.
"""

import argparse
import pathlib

import numpy as np

from benchmarks import common, runs

TRAINING = {"data": "fashion_mnist", "batch_size": 128, "keep": "last", "validation_fraction": 0.05, "export": "none",
            "precision": "mixed_bfloat16"}
AUGMENTED = {"augmentation": "flip,shift", "shift_pixels": 2}
TEACHER = {"model": "wrn_16_4", **AUGMENTED, "epochs": 10, "seed": 0}
STUDENT = {"model": "wrn_10_1", "epochs": 15}
FITNET_TEACHER = {"model": "wrn_10_4", **AUGMENTED, "epochs": 10, "seed": 100}
FITNET = {"model": "resnet20", **AUGMENTED, "epochs": 24}
DISTILL = {"compression": "distill", "distill_temperature": 4, "distill_alpha": 0.9}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--folder", default="runs/distillation")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    folder, seeds = pathlib.Path(options.folder).absolute(), range(options.seeds)
    flags = {**TRAINING, "data_dir": pathlib.Path(options.data_dir).absolute()}
    teachers = runs.run_all(folder, {"teacher": TEACHER, "fitnet_teacher": FITNET_TEACHER}, flags)
    under = {"distill_teacher": folder / "teacher", **DISTILL}
    # Teacher and labels count alike, as at the end of Romero's training: this teacher is worse than the student can be.
    fitnet = {**DISTILL, "distill_teacher": folder / "fitnet_teacher", "distill_alpha": 0.5,
              "distill_hint": "features", "distill_hint_epochs": 2}
    variants = {"alone": STUDENT, "soft_targets": {**STUDENT, **under, "distill_cache": True},
                "fitnet": {**FITNET, **fitnet}, "fitnet_alone": FITNET}
    metrics = runs.run_all(folder, {f"{name}_{seed}": {**values, "seed": seed} for name, values in variants.items()
                                    for seed in seeds}, flags)
    rows = [{"variant": name, "parameters": m["num_parameters"], "multiply_adds": m["macs"],
             "accuracy": 100 * m["test_accuracy"], "spread": 0.0, "least": 100 * m["test_accuracy"],
             "most": 100 * m["test_accuracy"]} for name, m in teachers.items()]
    for name in variants:
        accuracy = [100 * metrics[f"{name}_{seed}"]["test_accuracy"] for seed in seeds]
        m = metrics[f"{name}_0"]
        rows.append({"variant": name, "parameters": m["num_parameters"], "multiply_adds": m["macs"],
                     "accuracy": float(np.mean(accuracy)), "spread": float(np.ptp(accuracy)),
                     "least": min(accuracy), "most": max(accuracy)})
    common.write("distillation_study", rows)


if __name__ == "__main__":
    main()
