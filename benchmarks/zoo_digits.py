"""Every family of the zoo, trained on digits at reduced width, in every format: does the exported file decide the same?

    python -m benchmarks.zoo_digits [--folder=runs/zoo] [--epochs=25]

For each network: the largest relative difference of LiteRT's float32 logits from Keras', and the share of the 360 test
images on which each exported file and Keras name the same class. Targets: 1e-4, and 98 % for int8.
"""

import argparse
import pathlib

import numpy as np
import tf_keras as keras

from apps.image_classification import data
from apps.image_classification import train as train_lib
from apps.image_classification.config import Config
from benchmarks import common, runs
from strategies import export

WIDTHS = {"resnet18": 0.25, "resnet34": 0.25, "resnet50": 0.25, "resnet101": 0.125, "resnet152": 0.125, "resnet20": 1,
          "resnet32": 0.5, "resnet44": 0.5, "resnet56": 0.5, "resnet110": 0.5, "resnet50_v2": 0.25,
          "resnet101_v2": 0.125, "resnet152_v2": 0.125, "preact_resnet20": 1, "preact_resnet110": 0.5, "wrn_16_1": 1,
          "wrn_16_4": 0.5, "wrn_28_10": 0.1, "pyramidnet20_a24": 1, "pyramidnet110_a48": 0.5,
          "pyramidnet164_a48_bottleneck": 0.5, "densenet121": 0.25, "densenet169": 0.25, "densenet201": 0.25,
          "densenet_40_12": 0.5, "densenet_bc_40_12": 1, "densenet_bc_100_12": 0.5, "mobilenet_v1": 0.25,
          "mobilenet_v2": 0.35, "vgg16": 0.125}
OPTIONS = {"vgg16": {"normalization": "batch", "learning_rate": 0.05}}
FORMATS = ("float32", "float16", "dynamic", "int8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default="runs/zoo")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--models", default=",".join(WIDTHS))
    options = parser.parse_args()
    folder = pathlib.Path(options.folder)
    names = options.models.split(",")
    trained = runs.run_all(folder, {n: {"model": n, "width": WIDTHS[n], **OPTIONS.get(n, {})} for n in names}, {
        "data": "digits", "epochs": options.epochs, "augmentation": "shift", "shift_pixels": 1, "keep": "last",
        "export": ",".join(FORMATS)})
    test = data.load(Config(workdir="unused", data="digits")).test
    images = np.concatenate([batch for batch, _ in train_lib.batches(test)])
    rows = []
    for name in names:
        logits = keras.models.load_model(folder / name / "model.keras", compile=False).predict(images, verbose=0)
        row = {"model": name, "width": WIDTHS[name], "parameters": trained[name]["num_parameters"],
               "test_accuracy": trained[name]["test_accuracy"]}
        for form in FORMATS:
            found = export.Runner(folder / name / "export" / f"{form}.tflite")(images)
            row[f"{form}_agreement"] = float(np.mean(found.argmax(1) == logits.argmax(1)))
            if form == "float32":
                row["float32_relative"] = float(np.abs(found - logits).max() / np.abs(logits).max())
        rows.append(row)
    common.write("zoo_digits", rows)


if __name__ == "__main__":
    main()
