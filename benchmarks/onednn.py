"""What TF_ENABLE_ONEDNN_OPTS=1, which `apps` sets, is worth in training.

    python -m benchmarks.onednn [--models=resnet20,wrn_16_2,densenet_bc_40_12,mobilenet_v1] [--rounds=5]

The setting is read once a process, so processes alternate; each times 12 training steps on 32×32 images, batch 128.
"""

import argparse
import os
import subprocess
import sys

import numpy as np

from benchmarks import common, runs

STEPS = """
import time
import tensorflow as tf
from benchmarks.precision import training_step
step, _ = training_step("float32", False, batch=128, name={name!r})
step()
seconds = []
for _ in range(12):
    began = time.perf_counter()
    step()
    seconds.append(time.perf_counter() - began)
print(sorted(seconds)[6])
"""


def median_step(name, setting):
    """Median seconds of a training step in a process of its own."""
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": setting}
    done = subprocess.run([sys.executable, "-c", STEPS.format(name=name)], cwd=runs.ROOT, env=environment,
                          capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="resnet20,wrn_16_2,densenet_bc_40_12,mobilenet_v1")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for name in options.models.split(","):
        pairs = np.array([[median_step(name, setting) for setting in ("0", "1")] for _ in range(options.rounds)])
        low, ratio, high = common.ratio_interval(pairs[:, 0], pairs[:, 1])
        rows.append({"model": name, "without_images_s": 128 / np.median(pairs[:, 0]),
                     "with_images_s": 128 / np.median(pairs[:, 1]), "ratio": ratio, "ratio_low_95": low,
                     "ratio_high_95": high})
    common.write("onednn", rows)


if __name__ == "__main__":
    main()
