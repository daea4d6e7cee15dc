"""Recurrent translation, attention and the Transformer on real sentence pairs with equal time.

    python -m benchmarks.translation_table --data_dir=data [--folder=runs/translation] [--minutes=20] [--only=ende]

`data_dir` holds small_parallel_enja/ and multi30k_en_de/ with train, dev or val, and test as tsv. Each run turns its
minutes into a number of steps. BLEU is sacrebleu's with the tokenisation that the table names, of the text as it is and
lower-cased. 60 of the 500 English test sentences of small_parallel_enja stand in its training part too: the row says
what BLEU is without them.
"""

import argparse
import pathlib

import tf_keras as keras

from apps.common import config as config_lib
from apps.common import reporting
from apps.common.fitting import read_history
from apps.translation import data, scoring, translating
from apps.translation.config import Config
from benchmarks import common, runs

# Japanese in that set is cut into words already: its blanks are kept, and count.
TASKS = {
    "enja": {"data_dir": "small_parallel_enja", "tokens": "words", "minimum_count": 2, "max_length": 24,
             "bleu_tokenize": "none"},
    "jaen": {"data_dir": "small_parallel_enja", "reverse": True, "tokens": "words", "minimum_count": 2,
             "max_length": 24, "bleu_tokenize": "none"},
    "ende": {"data_dir": "multi30k_en_de", "tokens": "subwords", "vocabulary_size": 6000, "share_vocabulary": True,
             "max_length": 48}}
# The Transformer after Wu et al. 2021, "Good for Misconceived Reasons", for whom a small one did best on Multi30k.
MODELS = {
    "seq2seq": {"model": "seq2seq"}, "additive": {"model": "additive"}, "multiplicative": {"model": "multiplicative"},
    "transformer": {"model": "transformer_tiny", "num_layers": 4, "norm_first": True, "dropout": 0.3,
                    "learning_rate": 4e-3, "beta_2": 0.98}}


def without_seen(folder):
    """(sentences, BLEU) of the test pairs of a run whose source does not stand in its training part."""
    config, _ = config_lib.load(Config, folder)
    splits = data.load(config)
    seen = {pair[0] for pair in data.read_parts(config)["train"]}
    pairs = [pair for pair in splits.spec.test_pairs if pair[0] not in seen]
    model = keras.models.load_model(folder / "model.keras", compile=False)
    found = translating.translate(model, splits.spec, [pair[0] for pair in pairs], config)
    return len(pairs), scoring.score(found, [pair[1] for pair in pairs], tokenize=config.bleu_tokenize).bleu


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--folder", default="runs/translation")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--only", default="", help="tasks and models to run, as ende or ende_transformer")
    options = parser.parse_args()
    folder, root = pathlib.Path(options.folder), pathlib.Path(options.data_dir).absolute()
    flags = {f"{task}_{name}": {**settings, **model, "data_dir": root / settings["data_dir"]}
             for task, settings in TASKS.items() for name, model in MODELS.items()}
    flags = {name: value for name, value in flags.items() if name.startswith(options.only)}
    results = runs.run_all(folder, flags, {
        "data": "tsv", "batch_size": 128, "buckets": 16, "time_budget": options.minutes, "keep": "best",
        "export": "none", "decoding": "beam", "beam_width": 5, "length_penalty": 1.0, "warmup_fraction": 0.1,
        "precision": "mixed_bfloat16"}, app="translation", metric="test_bleu")
    rows, figure = [], reporting.new_figure()
    axes = figure.subplots()
    for name, metrics in results.items():
        count, bleu = without_seen(folder / name)
        rows.append({"run": name, "bleu": metrics["test_bleu"], "lower_case": metrics["test_bleu_lower_case"],
                     "chrf": metrics["test_chrf"], "unseen_sentences": count, "unseen_bleu": bleu,
                     "perplexity": metrics["test_perplexity"], "parameters": metrics["num_parameters"],
                     "epochs": metrics["epochs"], "minutes": metrics["seconds"] / 60,
                     "bleu_tokenize": flags[name].get("bleu_tokenize", "13a")})
        history = read_history(folder / name / "history.csv")
        axes.plot([row["epoch"] + 1 for row in history], [row["val_cross_entropy"] for row in history], label=name)
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation cross-entropy, nats a token")
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)
    reporting.save_figure(figure, "docs/pictures/translation_table.png")
    common.write("translation_table", rows, key="run")


if __name__ == "__main__":
    main()
