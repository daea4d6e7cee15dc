"""Recurrent translation, attention and the Transformer on real sentence pairs with equal time.

    python -m benchmarks.translation_table --data_dir=data [--folder=runs/translation] [--only=ende]
    python -m benchmarks.translation_table --data_dir=data --minutes=40 --only=ende_transformer

`data_dir` holds small_parallel_enja/ and multi30k_en_de/ with train, dev or val, and test as tsv. Each run turns its
minutes into a number of steps. BLEU is sacrebleu's with the tokenisation that the table names, of the text as it is and
lower-cased; and of the test pairs of which no side stands in the training part: of small_parallel_enja 60 of the 500
English test sentences do.
"""

import argparse
import pathlib

import tf_keras as keras

from apps.common import config as config_lib
from apps.common import reporting
from apps.translation import data, scoring, translating
from apps.translation.config import Config
from benchmarks import common, runs

# Japanese in that set is cut into words already: its blanks are kept, and count. The longest sentence has 16 words.
TASKS = {
    "enja": {"data_dir": "small_parallel_enja", "tokens": "words", "minimum_count": 2, "max_length": 18,
             "bleu_tokenize": "none"},
    "jaen": {"data_dir": "small_parallel_enja", "reverse": True, "tokens": "words", "minimum_count": 2,
             "max_length": 18, "bleu_tokenize": "none"},
    "ende": {"data_dir": "multi30k_en_de", "tokens": "subwords", "vocabulary_size": 4000, "share_vocabulary": True,
             "max_length": 48}}
RECURRENT = {"learning_rate": 2e-3}
MODELS = {
    "seq2seq": {"model": "seq2seq", **RECURRENT}, "additive": {"model": "additive", **RECURRENT},
    "multiplicative": {"model": "multiplicative", **RECURRENT},
    "transformer": {"model": "transformer_tiny", "num_layers": 4, "norm_first": True, "dropout": 0.1,
                    "learning_rate": 2e-3, "beta_2": 0.98}}
LONGER = {"transformer": {"dropout": 0.2}}  # where there is more time than 20 minutes
LEFT_OUT = ("enja_multiplicative", "jaen_multiplicative")  # one kind of attention is enough there
MINUTES = 20
FEW = 20  # fewer sentences of like length are not shown


def flags_of(root, minutes):
    """{name of a run: its flags}; names of runs of another length end with their minutes."""
    ending = "" if minutes == MINUTES else f"_{minutes:g}"
    return {f"{task}_{name}{ending}": {**settings, **model, **(LONGER.get(name, {}) if minutes > MINUTES else {}),
                                       "data_dir": root / settings["data_dir"]}
            for task, settings in TASKS.items() for name, model in MODELS.items() if f"{task}_{name}" not in LEFT_OUT}


def examined(folder):
    """Of a run: ({words of the source: chrF}, for lengths of which the test has enough sentences; (number of test pairs
    of which no side stands in the training part, their BLEU))."""
    config, _ = config_lib.load(Config, folder)
    splits = data.load(config)
    spec = splits.spec
    model = keras.models.load_model(folder / "model.keras", compile=False)
    sources, references = zip(*spec.test_pairs)
    found = translating.translate(model, spec, sources, config)
    lengths = [source.split() for source in sources]
    longest = max(map(len, lengths))
    by_length = {f"{first} to {last}": chrf for first, last, count, _, chrf in scoring.by_length(
        found, references, lengths, [*range(5, longest, 5), longest]) if count >= FEW}
    seen = [{pair[side] for pair in data.read_parts(config)["train"]} for side in (0, 1)]
    new = [i for i, pair in enumerate(spec.test_pairs) if not any(text in side for text, side in zip(pair, seen))]
    bleu = scoring.score([found[i] for i in new], [references[i] for i in new], tokenize=config.bleu_tokenize).bleu
    return by_length, (len(new), bleu)


def row_of(name, folder, metrics):
    """A row of the table."""
    config, _ = config_lib.load(Config, folder)
    by_length, (count, bleu) = examined(folder)
    return {"run": name, "bleu": metrics["test_bleu"], "lower_case": metrics["test_bleu_lower_case"],
            "chrf": metrics["test_chrf"], "unseen_pairs": count, "unseen_bleu": bleu,
            "perplexity": metrics["test_perplexity"], "parameters": metrics["num_parameters"],
            "epochs": metrics["epochs"], "minutes": metrics["seconds"] / 60,
            "bleu_tokenize": config.bleu_tokenize,
            "signature": scoring.score(["a"], ["a"], tokenize=config.bleu_tokenize).bleu_signature,
            "chrf_by_length": by_length,
            "curve": runs.curve(folder, metrics, "val_cross_entropy")}


def plot(rows):
    """Learning curves over minutes, and chrF by the length of the source, a panel for each task."""
    figure, by_length = (reporting.new_figure(12, 4) for _ in range(2))
    tasks = [task for task in TASKS if any(row["run"].startswith(task) for row in rows)]
    for column, task in enumerate(tasks, 1):
        panels = [one.add_subplot(1, len(tasks), column) for one in (figure, by_length)]
        for row in sorted((row for row in rows if row["run"].startswith(task)), key=lambda row: row["run"]):
            model, *more = (label := row["run"].removeprefix(f"{task}_")).split("_")
            style = {"label": label, "color": f"C{list(MODELS).index(model)}", "linestyle": "--" if more else "-"}
            panels[0].plot(*zip(*row["curve"]), **style)
            panels[1].plot([int(span.split()[-1]) for span in row["chrf_by_length"]], row["chrf_by_length"].values(),
                           marker="o", **style)
        for panel, across, up in zip(panels, ("minutes", "words of the source, at most"), (
                "validation cross-entropy, nats a token", "chrF")):
            panel.set_title(task)
            panel.set_xlabel(across)
            panel.set_ylabel(up)
            panel.grid(alpha=0.3)
            panel.legend(fontsize=7)
    reporting.save_figure(figure, "docs/pictures/translation_table.png")
    reporting.save_figure(by_length, "docs/pictures/translation_by_length.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--folder", default="runs/translation")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--only", default="", help="tasks and models to run, as ende or ende_transformer")
    options = parser.parse_args()
    folder, root = pathlib.Path(options.folder), pathlib.Path(options.data_dir).absolute()
    every = flags_of(root, options.minutes)
    flags = {name: value for name, value in every.items() if name.startswith(options.only)}
    if not flags:
        parser.error(f"--only={options.only} names none of {', '.join(every)}")
    for name, value in flags.items():  # a row is kept as soon as there is one
        (metrics,) = runs.run_all(folder, {name: value}, {
            "data": "tsv", "batch_size": 64, "buckets": 16, "time_budget": options.minutes, "keep": "best",
            "export": "none", "decoding": "beam", "beam_width": 5, "length_penalty": 1.0, "warmup_fraction": 0.1},
            app="translation", metric="test_bleu").values()
        record = common.write("translation_table", [row_of(name, folder / name, metrics)], key="run")
    plot(record["rows"])


if __name__ == "__main__":
    main()
