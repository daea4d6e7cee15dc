"""Dates to ISO 8601 by a fixed vector, by attention and by a Transformer, and what becomes of long sources.

    python -m benchmarks.date_translation [--folder=runs/date_translation] [--minutes=5]

Each model trains for so many minutes. The table has the share of the 2,400 test dates that are exactly right, the plot
that share by the length of the source: a fixed vector holds less of a long one (Bahdanau et al. 2015, figure 2).
"""

import argparse
import pathlib

import tf_keras as keras

from apps.common import config as config_lib
from apps.common import reporting
from apps.translation import data, translating
from apps.translation.config import Config
from benchmarks import common, runs

MODELS = ("seq2seq", "additive", "multiplicative", "transformer_tiny")
MINUTES = 5
EDGES = (10, 14, 18, 22, 26, 30, 40)


def exact_by_length(folder):
    """[(longest source of the row, share that is exactly right), ...] of a run, by characters of the source."""
    config, _ = config_lib.load(Config, folder)
    splits = data.load(config)
    model = keras.models.load_model(folder / "model.keras", compile=False)
    sources, references = zip(*splits.spec.test_pairs)
    found = translating.translate(model, splits.spec, sources, config)
    rows, first = [], 0
    for last in EDGES:
        right = [a == b for source, a, b in zip(sources, found, references) if first < len(source) <= last]
        rows.append((last, sum(right) / max(1, len(right))))
        first = last
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default="runs/date_translation")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--models", default=",".join(MODELS))
    options = parser.parse_args()
    folder, names = pathlib.Path(options.folder), options.models.split(",")
    results = runs.run_all(folder, {name: {"model": name} for name in names}, {
        "data": "dates", "max_length": 40, "batch_size": 128, "time_budget": options.minutes, "units": 128,
        "learning_rate": 2e-3, "warmup_fraction": 0.1, "label_smoothing": 0, "dropout": 0.05, "norm_first": True,
        "export": "none", "keep": "last", "num_translated": 2400}, app="translation", metric="test_exact_match")
    rows, figure = [], reporting.new_figure()
    axes = figure.subplots()
    for name in names:
        by_length = exact_by_length(folder / name)
        rows.append({"run": name if options.minutes == MINUTES else f"{name}_{options.minutes:g}",
                     "exact_match": results[name]["test_exact_match"], "minutes": results[name]["seconds"] / 60,
                     "parameters": results[name]["num_parameters"], "epochs": results[name]["epochs"],
                     **{f"to {last}": share for last, share in by_length}})
    record = common.write("date_translation", rows, key="run")
    for row in record["rows"]:
        axes.plot(EDGES, [row[f"to {last}"] for last in EDGES], marker="o", label=row["run"])
    axes.set_xlabel("characters of the source, at most")
    axes.set_ylabel("exactly right")
    axes.legend()
    axes.grid(alpha=0.3)
    reporting.save_figure(figure, "docs/pictures/date_translation.png")


if __name__ == "__main__":
    main()
