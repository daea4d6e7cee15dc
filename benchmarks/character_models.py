"""Language models of characters with equal time.

    python -m benchmarks.character_models --data_dir=tinyshakespeare.txt [--folder=runs/characters]
    python -m benchmarks.character_models --data_dir=tinyshakespeare.txt --minutes=60 --models=gru

The last tenth of the text is the test, and nothing was chosen by it. In the runs of 20 minutes a twentieth before it
chooses the best epoch; those of 60 minutes learn all that comes before the test and keep their last weights. The
context of a token is, for the Transformer, a window of 128 characters, of which it has seen 96 at least; recurrent
models carry their state on, in training with gradients through 64 characters, in the test through each of its 32 parts.
`side_by_side` is the test loss where each window (of 128 or 64 characters) begins anew.
"""

import argparse
import dataclasses
import pathlib

import tf_keras as keras

from apps.common import config as config_lib
from apps.common import reporting
from apps.language_model import data, train
from apps.language_model.config import Config
from benchmarks import common, runs

MINUTES = 20
# Few tokens a step: in trials of minutes, many small steps taught more than few large ones.
RECURRENT = {"length": 64, "carry_state": True, "units": 256, "num_layers": 2, "dropout": 0.2, "batch_size": 32,
             "learning_rate": 4e-3}  # of 8e-3, from trials of three minutes, the GRU fell apart in its second pass
MODELS = {
    "rnn": {"model": "rnn", **RECURRENT, "learning_rate": 3e-3},
    **{name: {"model": name, **RECURRENT} for name in ("lstm", "peephole_lstm", "gru")},
    "transformer": {"model": "transformer", "length": 128, "test_stride": 32, "units": 128, "num_layers": 4,
                    "num_heads": 4, "dropout": 0.1, "batch_size": 8, "learning_rate": 2e-3, "weight_decay": 0.1,
                    "beta_2": 0.99}}
# With more time, where there are gates: more units and smaller steps.
LONGER = {name: {"units": 384, "dropout": 0.4, "learning_rate": 3e-3} for name in ("lstm", "peephole_lstm", "gru")}


def flags_of(names, minutes):
    """{name of a run: its flags}; names of runs of another length end with their minutes."""
    if minutes <= MINUTES:
        ending = "" if minutes == MINUTES else f"_{minutes:g}"
        return {f"{name}{ending}": {**MODELS[name], "validation_fraction": 0.05, "keep": "best"} for name in names}
    return {f"{name}_{minutes:g}": {**MODELS[name], **LONGER.get(name, {}), "validation_fraction": 0, "keep": "last"}
            for name in names}


def side_by_side(folder):
    """Test loss of a run's model in windows of which each knows nothing of the one before; so nanoGPT's are too."""
    config, _ = config_lib.load(Config, folder)
    splits = data.load(dataclasses.replace(config, test_stride=0, carry_state=False))
    return train.evaluate(keras.models.load_model(folder / "model.keras", compile=False), splits)["test_cross_entropy"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--folder", default="runs/characters")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--models", default=",".join(MODELS))
    options = parser.parse_args()
    folder = pathlib.Path(options.folder)
    for name, flags in flags_of(options.models.split(","), options.minutes).items():
        (metrics,) = runs.run_all(folder, {name: flags}, {
            "data": "text", "data_dir": pathlib.Path(options.data_dir).absolute(), "test_fraction": 0.1,
            "time_budget": options.minutes, "export": "none", "warmup_fraction": 0.04},
            app="language_model", metric="test_cross_entropy").values()
        record = common.write("character_models", [{
            "model": name, "test_cross_entropy": metrics["test_cross_entropy"],
            "test_bits_per_character": metrics["test_bits_per_character"],
            "side_by_side": side_by_side(folder / name),
            "validation_cross_entropy": metrics.get("validation_cross_entropy"),
            "context": "all of its part" if "carry_state" in flags else
            f"{flags['length'] - flags['test_stride']} at least",
            "parameters": metrics["num_parameters"], "epochs": metrics["epochs"],
            "minutes": metrics["seconds"] / 60,
            "curve": runs.curve(folder / name, metrics, "val_cross_entropy")}], key="model")
    figure = reporting.new_figure()
    axes = figure.subplots()
    for row in record["rows"]:
        if row["curve"]:
            axes.plot(*zip(*row["curve"]), label=row["model"])
    axes.set_xlabel("minutes")
    axes.set_ylabel("validation cross-entropy, nats a character")
    axes.legend()
    axes.grid(alpha=0.3)
    reporting.save_figure(figure, "docs/pictures/character_models.png")


if __name__ == "__main__":
    main()
