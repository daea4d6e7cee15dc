"""Language models of characters with equal time.

    python -m benchmarks.character_models --data_dir=tinyshakespeare.txt [--folder=runs/characters] [--minutes=20]

The last tenth of the text is the test, and nothing was chosen by it. The context of a token is the window before it, of
256 characters for the Transformer and 128 for recurrent models, at least half of it (`--test_stride`).
"""

import argparse
import pathlib

from apps.common import reporting
from apps.common.fitting import read_history
from benchmarks import common, runs

RECURRENT = {"length": 128, "test_stride": 64, "units": 512, "num_layers": 2, "dropout": 0.4,
             "learning_rate": 2e-3}
MODELS = {
    **{name: {"model": name, **RECURRENT} for name in ("rnn", "lstm", "peephole_lstm", "gru")},
    "transformer": {"model": "transformer", "length": 256, "test_stride": 128, "units": 256, "num_layers": 4,
                    "num_heads": 8, "dropout": 0.2, "learning_rate": 1.5e-3, "weight_decay": 0.1}}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--folder", default="runs/characters")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--models", default=",".join(MODELS))
    options = parser.parse_args()
    folder = pathlib.Path(options.folder)
    results = runs.run_all(folder, {name: MODELS[name] for name in options.models.split(",")}, {
        "data": "text", "data_dir": pathlib.Path(options.data_dir).absolute(), "validation_fraction": 0.05,
        "test_fraction": 0.1, "time_budget": options.minutes, "batch_size": 32, "keep": "best", "export": "none",
        "warmup_fraction": 0.05, "precision": "mixed_bfloat16"},
        app="language_model", metric="test_cross_entropy")
    rows, figure = [], reporting.new_figure()
    axes = figure.subplots()
    for name, metrics in results.items():
        rows.append({"model": name, "test_cross_entropy": metrics["test_cross_entropy"],
                     "test_bits_per_character": metrics["test_bits_per_character"],
                     "validation_cross_entropy": metrics["validation_cross_entropy"],
                     "parameters": metrics["num_parameters"], "epochs": metrics["epochs"],
                     "minutes": metrics["seconds"] / 60})
        history = read_history(folder / name / "history.csv")
        axes.plot([row["epoch"] + 1 for row in history], [row["val_cross_entropy"] for row in history], label=name)
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation cross-entropy, nats a character")
    axes.legend()
    axes.grid(alpha=0.3)
    reporting.save_figure(figure, "docs/pictures/character_models.png")
    common.write("character_models", rows, key="model")


if __name__ == "__main__":
    main()
