"""A residual network as an ensemble: what is lost when single blocks are deleted after training.

    python -m benchmarks.ensemble_study [--folder=runs/ensemble]

Veit, Wilber & Belongie 2016 (arXiv 1605.06431, section 4.1): deleting one block of a residual network hardly hurts,
deleting one layer of VGG ruins it. A block f(x) + shortcut(x) is deleted by silencing f: the last normalisation of its
residual branch is set to 0, so that only the shortcut is left. For VGG-16 the weights of a convolution are replaced by
the identity kernel where its input and output have as many channels.
"""

import argparse
import functools
import pathlib

import numpy as np
import tf_keras as keras

from apps.common import reporting
from apps.image_classification import data
from apps.image_classification import train as train_lib
from apps.image_classification.config import Config
from benchmarks import common, runs
from strategies import export

FLAGS = {"data": "digits", "epochs": 20, "augmentation": "shift", "shift_pixels": 1, "export": "none"}
MODELS = {"resnet56": {"model": "resnet56"}, "resnet20": {"model": "resnet20"},
          "vgg16": {"model": "vgg16", "width": 0.25, "normalization": "batch", "learning_rate": 0.05}}


def silence(model, block):
    """Deletes a residual block, given the name of the last normalisation of its branch; returns what restores it."""
    layer = model.get_layer(block)
    saved = layer.get_weights()
    layer.gamma.assign(np.zeros(layer.gamma.shape))
    layer.beta.assign(np.zeros(layer.beta.shape))
    return lambda: layer.set_weights(saved)


def make_identity(model, convolution):
    """Replaces a 3×3 convolution by the identity kernel; returns what restores it."""
    layer = model.get_layer(convolution)
    saved = layer.get_weights()
    kernel = np.zeros(layer.kernel.shape)
    kernel[1, 1] = np.eye(kernel.shape[2])
    layer.kernel.assign(kernel)
    return lambda: layer.set_weights(saved)


def deletable(model):
    """{name: function that deletes it}: blocks of a residual network, square convolutions of a plain one."""
    names = [layer.name for layer in model.layers]
    adds = [layer for layer in model.layers if isinstance(layer, keras.layers.Add)]
    if adds:
        last_norms = [name for name in names if name.endswith("_2_norm")]
        return {name.removesuffix("_2_norm"): lambda name=name: silence(model, name) for name in last_norms}
    square = [layer.name for layer in model.layers
              if isinstance(layer, keras.layers.Conv2D) and layer.kernel.shape[2] == layer.kernel.shape[3]]
    return {name: lambda name=name: make_identity(model, name) for name in square}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default="runs/ensemble")
    options = parser.parse_args()
    folder = pathlib.Path(options.folder)
    trained = runs.run_all(folder, MODELS, FLAGS)
    test = data.load(Config(workdir="unused", data="digits")).test
    rows, figure = [], reporting.new_figure()
    axes = figure.subplots()
    for name in MODELS:
        model = keras.models.load_model(folder / name / "model.keras", compile=False)
        accuracies = []
        for delete in deletable(model).values():
            restore = delete()
            accuracies.append(train_lib.accuracy_over(functools.partial(export.predict, model), test))
            restore()
        whole = train_lib.accuracy_over(functools.partial(export.predict, model), test)
        axes.plot(np.linspace(0, 1, len(accuracies)), accuracies, marker="o",
                  label=f"{name} (whole: {trained[name]['test_accuracy']:.3f})")
        rows.append({"model": name, "whole": whole, "blocks": len(accuracies), "median_after_deletion":
                     float(np.median(accuracies)), "worst": min(accuracies), "best": max(accuracies)})
    axes.set_xlabel("which block was deleted (depth, first to last)")
    axes.set_ylabel("test accuracy (digits)")
    axes.legend()
    axes.grid(alpha=0.3)
    reporting.save_figure(figure, "docs/pictures/ensemble_study.png")
    common.write("ensemble_study", rows)


if __name__ == "__main__":
    main()
