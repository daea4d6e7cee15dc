"""float32, float16, bfloat16 and float64 beside each other, with and without XLA: accuracy, speed, memory.

    python -m benchmarks.precision [--folder=runs/precision] [--seeds=3]

Accuracy: training runs on digits. Speed: training steps of each precision in turn within one process. Memory: bytes of
variables and optimizer slots, and the peak of the training process.
"""

import argparse
import pathlib
import re
import subprocess
import sys

import numpy as np
import tensorflow as tf
import tf_keras as keras

from apps.common import workdir
from apps.common.config import PRECISIONS
from apps.image_classification import models
from apps.image_classification.config import Config
from apps.image_classification.data import ImageSpec
from benchmarks import common, runs

SPEC = ImageSpec(32, 32, 3, 10, tuple("0123456789"), (127.5,) * 3, (127.5,) * 3)


def training_step(precision, jit_compile, batch=64, name="resnet20"):
    """A compiled training step of a network on 32×32 images, and the network."""
    workdir.set_precision(precision)
    try:
        keras.utils.set_random_seed(0)
        model = models.build(Config(workdir="unused", model=name), SPEC)
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9), keras.losses.CategoricalCrossentropy(from_logits=True),
                      jit_compile=jit_compile)
        dtype = "float64" if precision == "float64" else "float32"
        x = tf.cast(tf.random.stateless_uniform([batch, 32, 32, 3], [1, 2], 0, 255), dtype)
        y = tf.one_hot(tf.range(batch) % 10, 10, dtype=dtype)
        step = common.training_step(model, x, y)
        step()
        return step, model
    finally:
        workdir.set_precision("float32")


def state_bytes(model):
    """Bytes of weights and optimizer slots."""
    variables = [*model.weights, *model.optimizer.variables]
    return sum(int(np.prod(v.shape)) * v.dtype.size for v in variables)


def peak_bytes(precision, jit_compile):
    """Peak resident memory of a process that takes ten such steps."""
    code = (f"from benchmarks.precision import training_step, print_peak\nstep, _ = training_step({precision!r}, "
            f"{jit_compile})\nfor _ in range(10): step()\nprint_peak()")
    out = subprocess.run([sys.executable, "-c", code], cwd=runs.ROOT, capture_output=True, text=True, check=True).stdout
    return int(out.split()[-1])


def print_peak():
    """Prints the peak resident memory of this process, bytes; `getrusage` would count what its parent held too."""
    status = pathlib.Path("/proc/self/status").read_text()
    print(1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default="runs/precision")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    variants = [(precision, jit) for precision in PRECISIONS for jit in (False, True)]
    trained = runs.run_all(pathlib.Path(options.folder), {
        f"{precision}_{'xla' if jit else 'graph'}_{seed}": {"precision": precision, "jit_compile": jit, "seed": seed}
        for precision, jit in variants for seed in range(options.seeds)},
        {"data": "digits", "epochs": 15, "augmentation": "shift", "shift_pixels": 1, "export": "none"})
    steps = {variant: training_step(*variant) for variant in variants}
    seconds = common.paired_seconds({v: step for v, (step, _) in steps.items()}, rounds=options.rounds)
    rows = []
    for precision, jit in variants:
        accuracies = [trained[f"{precision}_{'xla' if jit else 'graph'}_{s}"]["test_accuracy"]
                      for s in range(options.seeds)]
        _, ratio, _ = common.ratio_interval(seconds["float32", False], seconds[precision, jit])
        rows.append({"precision": precision, "xla": jit, "test_accuracy": float(np.mean(accuracies)),
                     "spread": float(np.ptp(accuracies)), "images_s": 64 / np.median(seconds[precision, jit]),
                     "speed_over_float32": ratio, "state_bytes": state_bytes(steps[precision, jit][1]),
                     "peak_process_bytes": peak_bytes(precision, jit)})
    common.write("precision", rows)


if __name__ == "__main__":
    main()
