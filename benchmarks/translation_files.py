"""Do exported translators keep their meaning? Files of the runs of `translation_table`, beside Keras.

    python -m benchmarks.translation_files [--folder=runs/translation] [--runs=ende_transformer,ende_additive,...]

Each file translates 1,000 test sentences greedily with LiteRT. The table has the share of them that comes out as from
Keras in float32, BLEU on those sentences, and the operators that are left in floating point. Targets: float32 the same
for all, int8 within 1 BLEU of float.
"""

import argparse
import pathlib
import tempfile

import tensorflow as tf
import tf_keras as keras

from apps.common import config as config_lib
from apps.translation import data, scoring, steps, translating
from apps.translation.config import Config
from benchmarks import common
from strategies import export

RUNS = ("ende_transformer_40", "ende_transformer", "ende_multiplicative", "ende_additive", "ende_seq2seq")
FORMATS = ("float32", "float16", "dynamic", "int8", "int16")
NUM_SENTENCES, NUM_COMPARED = 1000, 4


def measured(name, folder):
    """The rows of a run, one for each format."""
    config = config_lib.load(Config, folder)[0].replace(decoding="greedy")
    splits = data.load(config)
    spec = splits.spec
    model = keras.models.load_model(folder / "model.keras", compile=False)
    sources, references = zip(*spec.test_pairs[:NUM_SENTENCES])
    expected, found = translating.translate(model, spec, sources, config), []

    def bleu(translations):
        return scoring.score(translations, references, tokenize=config.bleu_tokenize).bleu

    def evaluate(runs):
        translator = translating.file_translator(parts, runs, spec.max_length)
        found.append([spec.target.decode(translator.translate(spec.source.encode(text))) for text in sources])
        return bleu(found[-1])

    parts = steps.file_models(model, spec.max_length)
    samples = translating.representative(parts, spec, splits.representative(config.num_representative)["source"])
    few = {key: tf.nest.map_structure(lambda array: array[:NUM_COMPARED], value) for key, value in samples.items()}
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for form in FORMATS:
            try:
                (row,) = export.export_signatures(parts, place, whole=model, samples=few, formats=[form],
                                                  representative=samples, evaluate=evaluate, metric="bleu")
            except export.ConversionError as error:
                rows.append({"run": f"{name} {form}", "same": None, "bleu": None, "keras_bleu": bleu(expected),
                             "bytes": None, "step_ms": None, "float_operators": None, "refused": str(error)[:200]})
                continue
            same = sum(a == b for a, b in zip(found[-1], expected)) / len(expected)
            rows.append({"run": f"{name} {form}", "same": same, "bleu": row["value"], "keras_bleu": bleu(expected),
                         "bytes": row["bytes"], "step_ms": row["latency_ms"],
                         "float_operators": None if row["float_operators"] is None else len(row["float_operators"]),
                         "refused": None})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default="runs/translation")
    parser.add_argument("--runs", default=",".join(RUNS))
    options = parser.parse_args()
    for name in options.runs.split(","):
        common.write("translation_files", measured(name, pathlib.Path(options.folder) / name), key="run")


if __name__ == "__main__":
    main()
