"""Every family of the zoo, trained on digits at reduced width, in every format: does the exported file decide the same?

    python -m benchmarks.zoo_digits [--folder=runs/zoo] [--epochs=25] [--quantize_epochs=10]

For each network: the largest relative difference of LiteRT's float32 logits from Keras', and the share of the 360 test
images on which each exported file and Keras name the same class. Targets: 1e-4, and 98 % for int8. Then each is trained
on with simulated 8 bits: accuracy of its int8 file, agreement of the file with the simulation (target 99 %), operators
left in floating point (none), and the size of the file over that of the float32 file.
"""

import argparse
import pathlib

import numpy as np
import tf_keras as keras

from apps.common.variants import read_rows
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
# Made for large images: of 8 x 8 pixels their maps would be one point from early on.
ENLARGED = ("resnet50", "resnet101", "resnet152", "resnet50_v2", "resnet101_v2", "resnet152_v2", "mobilenet_v1",
            "mobilenet_v2")
OPTIONS = {"vgg16": {"normalization": "batch", "learning_rate": 0.05},
           **dict.fromkeys(ENLARGED, {"image_size": 32})}
FORMATS = ("float32", "float16", "dynamic", "int8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default="runs/zoo")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--quantize_epochs", type=int, default=10)
    parser.add_argument("--models", default=",".join(WIDTHS))
    options = parser.parse_args()
    folder = pathlib.Path(options.folder)
    for name in options.models.split(","):
        common.write("zoo_digits", [measured(name, folder, options)], key="model")


def measured(name, folder, options):
    """The row of a network, trained and trained on for 8 bits where that has not been done."""
    network = {"model": name, "width": WIDTHS[name], **OPTIONS.get(name, {})}
    flags = {"data": "digits", "augmentation": "shift", "shift_pixels": 1, "keep": "last"}
    trained = runs.run_all(folder, {name: network}, {**flags, "epochs": options.epochs, "export": ",".join(FORMATS)})
    quantized = runs.run_all(
        folder, {f"{name}_quantized": {**network, "initial_model": (folder / name).absolute()}},
        {**flags, "compression": "quantize", "compression_epochs": options.quantize_epochs, "export": "float32,int8"})
    test = data.load(Config(workdir="unused", data="digits", image_size=network.get("image_size", 0))).test
    images = np.concatenate([batch for batch, _ in train_lib.batches(test)])
    logits = export.predict(keras.models.load_model(folder / name / "model.keras", compile=False), images)
    row = {"model": name, "width": WIDTHS[name], "parameters": trained[name]["num_parameters"],
           "test_accuracy": trained[name]["test_accuracy"]}
    for form in FORMATS:
        found = export.Runner(folder / name / "export" / f"{form}.tflite")(images)
        row[f"{form}_agreement"] = float(np.mean(found.argmax(1) == logits.argmax(1)))
        if form == "float32":
            row["float32_relative"] = float(np.abs(found - logits).max() / np.abs(logits).max())
    files = {line["format"]: line for line in read_rows(folder / f"{name}_quantized" / "report.csv")}
    int8 = export.path_of(folder / f"{name}_quantized", "int8")
    return row | {"quantized_accuracy": files["int8"]["value"],
                  "quantized_agreement": quantized[f"{name}_quantized"]["int8_agreement"],
                  "quantized_size": files["int8"]["bytes"] / files["float32"]["bytes"],
                  "float_operators": len(export.float_operators(int8))}


if __name__ == "__main__":
    main()
