"""Every language model, trained on generated sums, in 8 bits: is the file as good as the model?

    python -m benchmarks.zoo_sequences [--folder=runs/zoo_sequences] [--epochs=40] [--quantize_epochs=10]

For each model: cross-entropy and accuracy a token on windows of the test, of Keras in float32, of two int8 files, one
calibrated after training and one after further training with simulated 8 bits, and of an int16 file of the latter; on
how many tokens these files name the same one as Keras does with the weights that are in them, of all and of those that
the text determines; operators left in floating point (target: none); and the size of the int8 file over that of the
float32 file. The files of models that write text are one step, with its state outside; the LSTM and the Transformer
have an int8 file of the whole window too, in which nothing need be unrolled.

A sum is determined by its summands. A summand's digits can be any: a good model of the text gives ten of them about the
same probability, and which is named first is a matter of the last bits.
"""

import argparse
import pathlib

import numpy as np
import tf_keras as keras

from apps.common import tokens as tokens_lib
from apps.common.variants import read_rows
from apps.language_model import models
from apps.language_model import train as train_lib
from apps.language_model.config import Config
from apps.language_model.data import load
from benchmarks import common, runs
from strategies import export

NUM_WINDOWS = 40
NUM_CALIBRATED = 200  # as `--num_representative` is by default
WINDOWS = ("lstm", "transformer")
FLAGS = {"data": "sums", "units": 128, "num_layers": 2, "sample_tokens": 0, "export": "float32,int8"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default="runs/zoo_sequences")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--quantize_epochs", type=int, default=10)
    parser.add_argument("--models", default=",".join(models.MODELS))
    options = parser.parse_args()
    for name in options.models.split(","):
        common.write("zoo_sequences", [measured(name, pathlib.Path(options.folder), options)], key="model")


def measured(name, folder, options):
    """The row of a model, trained and trained on for 8 bits where that has not been done."""
    flags, metric = {**FLAGS, "model": name}, {"app": "language_model", "metric": "test_cross_entropy"}
    runs.run_all(folder, {name: {"epochs": options.epochs}}, flags, **metric)
    runs.run_all(folder, {f"{name}_quantized": {
        "initial_model": (folder / name).absolute(), "compression": "quantize",
        "compression_epochs": options.quantize_epochs}}, flags, **metric)
    config = Config(workdir="unused", **{key: value for key, value in flags.items() if key != "export"})
    splits = load(config, is_masked=models.is_masked(name))
    batches = [(x.numpy(), y.numpy()) for x, y in splits.test()]
    inputs, targets = (np.concatenate(parts)[:NUM_WINDOWS] for parts in zip(*batches))
    scored, quantized = targets != tokens_lib.PADDING, folder / f"{name}_quantized"
    determined = determined_tokens(inputs, targets, splits.spec)
    row, found = {"model": name}, {}
    for key, run, form in (("float", folder / name, "keras"), ("int8", folder / name, "int8"),
                           ("trained_float", quantized, "keras"), ("trained_int8", quantized, "int8"),
                           ("trained_int16", quantized, "int16"), ("trained_window", quantized, "window")):
        if form == "window" and name not in WINDOWS:
            continue
        try:
            logits = logits_of(run, form, inputs, splits)
        except export.ConversionError as error:
            print(f"{name}: {error}", flush=True)
            continue
        found[key] = logits.argmax(-1)
        if key == "trained_float":
            probabilities = np.exp(logits - logits.max(-1, keepdims=True))
            probabilities /= probabilities.sum(-1, keepdims=True)
        is_right = found[key] == targets
        row |= {f"{key}_cross_entropy": train_lib.mean_cross_entropy(logits, targets),
                f"{key}_accuracy": float(np.mean(is_right[scored])),
                f"{key}_determined_accuracy": float(np.mean(is_right[determined]))}
    for form in ("int8", "int16", "window"):
        same = found[f"trained_{form}"] == found["trained_float"] if f"trained_{form}" in found else None
        row |= {f"{form}_agreement": None if same is None else float(np.mean(same[scored])),
                f"{form}_determined_agreement": None if same is None else float(np.mean(same[determined]))}
    # What the file gives up where it names another token: the first one's probability less that of its own.
    chosen = np.take_along_axis(probabilities, found["trained_int8"][..., None], axis=-1)[..., 0]
    lost = (probabilities.max(-1) - chosen)[scored & (found["trained_int8"] != found["trained_float"])]
    row |= {"int8_given_up": float(lost.mean()), "int8_given_up_at_most": float(lost.max())}
    files = {line["format"]: line for line in read_rows(quantized / "report.csv")}
    return row | {"parameters": files["int8"]["parameters"],
                  "determined": float(np.mean(determined[scored])),
                  "size": files["int8"]["bytes"] / files["float32"]["bytes"],
                  "float_operators": len(export.float_operators(export.path_of(quantized, "int8")))}


def determined_tokens(inputs, targets, spec):
    """Which targets follow from what the model sees, bool [n, T].

    Of the next tokens those of a sum and the end of its line; of hidden ones those whose line stands in the window as
    a whole and hides nothing else.
    """
    determined, ends = np.zeros(targets.shape, bool), spec.vocabulary.encode("=\n")
    for row, (given, wanted) in enumerate(zip(inputs, targets)):
        hidden = wanted != tokens_lib.PADDING
        text = np.where(hidden, wanted, given) if spec.is_masked else wanted
        stops = np.flatnonzero(text == ends[1])
        for first, last in zip(stops[:-1] + 1, stops[1:]):
            line = slice(first, last + 1)
            if not spec.is_masked:
                equals = first + int(np.flatnonzero(text[line] == ends[0])[0])
                determined[row, equals + 1:last + 1] = True
            elif hidden[line].sum() == 1:
                determined[row, line] = hidden[line]
    return determined


def logits_of(folder, form, inputs, splits):
    """Logits [n, T, V] of a run's Keras model or of its file; files of int16 and of the window are written here."""
    model = keras.models.load_model(folder / "model.keras", compile=False)
    if form == "keras":
        return export.predict(model, inputs)
    if form == "window":
        path = folder / "window.tflite"
        export.convert(model, path, "int8", representative=splits.windows(NUM_CALIBRATED))
        return export.Runner(path)(inputs)
    written, representative = train_lib.exported_model(model, splits)
    if form == "int16":
        export.convert(written, export.path_of(folder, form), form, representative=representative(NUM_CALIBRATED))
    runner = export.Runner(export.path_of(folder, form))
    if splits.spec.is_masked:
        return runner(inputs)
    outputs = export.run_steps(runner.named, inputs, step=written)
    return np.concatenate(outputs[models.logits_name(written)], axis=1)


if __name__ == "__main__":
    main()
