"""How far back the gradient reaches in a plain RNN, an LSTM and a GRU, before and after training.

    python -m benchmarks.vanishing_gradients [--data_dir=FILE] [--folder=runs/vanishing] [--epochs=4]

One recurrent layer of 128 units reads windows of 100 characters. Plotted is the norm of the gradient of the *last*
token's loss with respect to the input of the layer d steps before, over that at d = 0, in the mean over 64 windows of
the test part: Bengio et al. 1994; Hochreiter & Schmidhuber 1997, section 3.1. Without --data_dir the text is that of
--data=sums.
"""

import argparse
import pathlib

import tensorflow as tf
import tf_keras as keras

from apps.common import config as config_lib
from apps.common import reporting
from apps.language_model import data, models
from apps.language_model.config import Config
from benchmarks import common, runs

MODELS = ("rnn", "gru", "lstm")
LENGTH, WINDOWS = 100, 64
DISTANCES = (1, 5, 10, 20, 50, 90)


def gradient_norms(model, inputs, targets):
    """Norm of the last loss's gradient by distance, float [T]: index d is the input d steps before the last."""
    embedded = model.get_layer("embedding")(inputs)
    with tf.GradientTape() as tape:
        tape.watch(embedded)
        logits = model.get_layer("logits")(model.get_layer("layer_0")(embedded))[:, -1]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets[:, -1], logits)
    # [B, T]; a row's loss depends on that row alone. Squares of what has vanished are too small for float32.
    norms = tf.norm(tf.cast(tape.gradient(losses, embedded), tf.float64), axis=-1)
    return tf.reduce_mean(norms, axis=0).numpy()[::-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", default="")
    parser.add_argument("--folder", default="runs/vanishing")
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    folder = pathlib.Path(options.folder)
    flags = {"data": "text", "data_dir": pathlib.Path(options.data_dir).absolute()} if options.data_dir else {
        "data": "sums"}
    runs.run_all(folder, {name: {"model": name} for name in MODELS}, {
        **flags, "length": LENGTH, "num_layers": 1, "epochs": options.epochs, "export": "none"}, app="language_model",
        metric="test_cross_entropy")
    rows, figure = [], reporting.new_figure()
    axes = figure.subplots()
    for number, name in enumerate(MODELS):
        config, _ = config_lib.load(Config, folder / name)
        splits = data.load(config)
        batches = list(splits.test().take(8))
        inputs, targets = (tf.concat(parts, 0)[:WINDOWS] for parts in zip(*batches))
        keras.utils.set_random_seed(config.seed)
        for state, model in (("new", models.build(config, splits.spec)),
                             ("trained", keras.models.load_model(folder / name / "model.keras", compile=False))):
            norms = gradient_norms(model, inputs, targets)
            share = norms / norms[0]
            rows.append({"model": name, "weights": state, **{f"d={d}": float(share[d]) for d in DISTANCES}})
            axes.plot(share, "-" if state == "trained" else ":", color=f"C{number}",
                      label=f"{name}, {state}")
    axes.set_yscale("log")
    axes.set_xlabel("steps back")
    axes.set_ylabel("norm of the gradient, relative")
    axes.legend()
    axes.grid(alpha=0.3)
    reporting.save_figure(figure, "docs/pictures/vanishing_gradients.png")
    common.write("vanishing_gradients", rows)


if __name__ == "__main__":
    main()
