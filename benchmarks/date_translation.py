"""Dates to ISO 8601 by a fixed vector, by attention and by a Transformer, and what becomes of long sources.

    python -m benchmarks.date_translation [--folder=runs/date_translation] [--minutes=5]
    python -m benchmarks.date_translation --most=4 --models=seq2seq,additive,transformer_tiny

Each model trains for so many minutes. The table has the share of the 2,400 test lines that are exactly right, the plot
that share by the length of the source. A line is a date, or, with --most, a list of one to so many: a fixed vector
holds less of a long one (Bahdanau et al. 2015, figure 2).
"""

import argparse
import pathlib
import random

import tf_keras as keras

from apps.common import config as config_lib
from apps.common import reporting
from apps.translation import data, dates, translating
from apps.translation.config import Config
from benchmarks import common, runs

MODELS = ("seq2seq", "additive", "multiplicative", "transformer_tiny")
MINUTES = 5
EDGES = (10, 14, 18, 22, 26, 30, 40)  # of characters
BETWEEN = "; "
PARTS = {"test": slice(2400), "dev": slice(2400, 4000), "train": slice(4000, None)}


def write_lists(folder, most):
    """Writes test.tsv, dev.tsv and train.tsv, lines of 1 to `most` dates. None is written so in two parts."""
    chance, pairs = random.Random(0), dates.generate()
    folder.mkdir(parents=True, exist_ok=True)
    for part, places in PARTS.items():
        found = pairs[places]
        lists = [chance.choices(found, k=chance.randint(1, most)) for _ in found]
        lines = ["\t".join(map(BETWEEN.join, zip(*some))) for some in lists]
        (folder / f"{part}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def exact_by(folder, edges, length):
    """[(largest length of the row, share that is exactly right), ...] of a run; `length` is a function of a source."""
    config, _ = config_lib.load(Config, folder)
    splits = data.load(config)
    model = keras.models.load_model(folder / "model.keras", compile=False)
    sources, references = zip(*splits.spec.test_pairs)
    found = translating.translate(model, splits.spec, sources, config)
    rows, first = [], 0
    for last in edges:
        right = [a == b for source, a, b in zip(sources, found, references) if first < length(source) <= last]
        rows.append((last, sum(right) / max(1, len(right))))
        first = last
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default="runs/date_translation")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--most", type=int, default=1, help="dates of a line")
    options = parser.parse_args()
    folder, names, most = pathlib.Path(options.folder).absolute(), options.models.split(","), options.most
    if most == 1:
        record, edges, length, words = "date_translation", EDGES, len, "characters of the source, at most"
        settings = {"data": "dates", "max_length": 40}
    else:
        record, edges, words = "date_lists", range(1, most + 1), "dates of a line"
        folder /= f"lists_{most}"
        settings = {"data": "tsv", "data_dir": folder / "data", "tokens": "characters", "max_length": 32 * most}
        write_lists(folder / "data", most)

        def length(source):
            return source.count(BETWEEN) + 1

    results = runs.run_all(folder, {name: {"model": name} for name in names}, {
        **settings, "batch_size": 128, "time_budget": options.minutes, "units": 128, "learning_rate": 2e-3,
        "warmup_fraction": 0.1, "label_smoothing": 0, "dropout": 0.05, "norm_first": True, "export": "none",
        "keep": "last", "num_translated": 2400}, app="translation", metric="test_exact_match")
    rows, figure = [], reporting.new_figure()
    axes = figure.subplots()
    for name in names:
        rows.append({"run": name if options.minutes == MINUTES else f"{name}_{options.minutes:g}",
                     "exact_match": results[name]["test_exact_match"], "minutes": results[name]["seconds"] / 60,
                     "parameters": results[name]["num_parameters"], "epochs": results[name]["epochs"],
                     **{f"to {last}": share for last, share in exact_by(folder / name, edges, length)}})
    for row in common.write(record, rows, key="run")["rows"]:
        axes.plot(edges, [row[f"to {last}"] for last in edges], marker="o", label=row["run"])
    axes.set_xticks(edges)
    axes.set_xlabel(words)
    axes.set_ylabel("exactly right")
    axes.legend()
    axes.grid(alpha=0.3)
    reporting.save_figure(figure, f"docs/pictures/{record}.png")


if __name__ == "__main__":
    main()
