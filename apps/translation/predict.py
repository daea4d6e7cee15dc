"""Translates lines with an exported model, as a phone would.

    python -m apps.translation.predict --model_file=runs/dates/export/int8.tflite "Dienstag, 3. März 1998"
    python -m apps.translation.predict --model_file=runs/dates/export/int8.tflite < dates.txt > iso.txt

A `.tflite` file needs NumPy, absl-py and ai_edge_litert only (and sentencepiece for subwords); TensorFlow is imported
for `.keras` alone. Lines are arguments (behind `--` where one begins with a dash) or, without any, those of standard
input; each gives one line, whatever it holds.
"""

import dataclasses
import json
import pathlib
import sys

import numpy as np
from absl import flags

from apps.common import config as config_lib
from apps.common import flagging, tokens
from apps.common import text as text_lib
from apps.translation.names import SETTINGS
from apps.translation.reading import Translator
from strategies.signature import Signature


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """Options of this program."""

    model_file: str = config_lib.field("", "Exported model: a .tflite or .keras file.")
    vocabulary: str = config_lib.field("", "Folder with source/ and target/, the vocabularies. Empty: looked for near "
                                           "the model file.")
    beam_width: int = config_lib.field(0, "Beginnings that a beam follows. 0: the likeliest token at each step.",
                                       minimum=0)
    length_penalty: float = config_lib.field(0.6, "Alpha of the beam's length penalty.", minimum=0)
    temperature: float = config_lib.field(0.0, "Draw tokens, the logits divided by it. 0: take the likeliest.",
                                          minimum=0)
    top_k: int = config_lib.field(0, "Draw among the k likeliest tokens only. 0: all.", minimum=0)
    top_p: float = config_lib.field(1.0, "Draw among the likeliest tokens that together have this probability.",
                                    above=0, maximum=1)
    seed: int = config_lib.field(0, "Seed of the draws.", minimum=0)

    def __post_init__(self):
        for item in dataclasses.fields(self):
            config_lib.check_value(item, getattr(self, item.name))
        if not self.model_file:
            raise ValueError("--model_file is missing: expected an exported .tflite or .keras file, such as "
                             "--model_file=runs/dates/export/int8.tflite.")
        if self.temperature and self.beam_width:
            raise ValueError("--temperature draws tokens, --beam_width looks for the likeliest: give one of them.")


def read_settings(folder):
    """What training left beside the vocabularies: {"max_length": int, "lower_case": bool}.

    Raises:
        ValueError: it is missing or damaged.
    """
    try:
        content = json.loads((folder / SETTINGS).read_text())
        return {"max_length": int(content["max_length"]), "lower_case": bool(content["lower_case"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / SETTINGS} cannot be read ({error}): expected what training leaves beside the "
                         "vocabularies. Copy the whole export/ folder.") from None


def load_translator(path, max_length):
    """Reads a model as a `Translator` of sentences of at most `max_length` tokens.

    Raises:
        ValueError: the file is missing, damaged, or of another kind.
    """
    loaders = {".tflite": _load_tflite, ".keras": _load_keras}
    path = pathlib.Path(path)
    if path.suffix not in loaders:
        raise ValueError(f"--model_file={path} has an unknown ending: expected .tflite or .keras; received "
                         f"{path.suffix!r}. Give one of the exported files.")
    return loaders[path.suffix](path, max_length)


def _load_tflite(path, max_length):
    runs = {name: Signature(path, name) for name in ("read", "step")}
    if "read_above" in runs["step"].names:
        runs["read_above"] = Signature(path, "read_above")
    inputs = {name: {key: (run.shapes[key], run.dtypes[key]) for key in run.shapes} for name, run in runs.items()}
    return Translator(runs, inputs, max_length)


def _load_keras(path, max_length):
    import tf_keras as keras

    from apps.translation import models, translating  # noqa: F401  registers the layers that a file may name

    try:
        model = keras.models.load_model(path, compile=False)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"--model_file={path} cannot be read as a Keras model ({error}).") from None
    return translating.keras_translator(model, max_length)


def translate_lines(translator, source, target, lines, config, lower_case=False):
    """Yields the translation of each line; says on standard error what cannot be read in it."""
    options = {"width": config.beam_width, "alpha": config.length_penalty}
    if config.temperature:
        options = {"chance": np.random.default_rng(config.seed), "temperature": config.temperature,
                   "top_k": config.top_k, "top_p": config.top_p}
    for number, line in enumerate(lines, 1):
        text = " ".join(line.split())
        numbers = source.encode(text.lower() if lower_case else text)
        unknown = numbers.count(tokens.UNKNOWN)
        if unknown:
            print(f"warning: line {number}: {unknown} of {len(numbers)} tokens are not in the vocabulary",
                  file=sys.stderr)
        if len(numbers) >= translator.max_length:
            print(f"warning: line {number} has {len(numbers)} tokens; the model reads the first "
                  f"{translator.max_length - 1}", file=sys.stderr)
        if not numbers:
            yield ""
            continue
        yield target.decode(translator.translate(numbers, **options))


def main(config, lines):
    """Prints the translation of each line."""
    text_lib.use_utf8()
    folder = pathlib.Path(config.vocabulary) if config.vocabulary else tokens.find(config.model_file, "source").parent
    source, target = (tokens.load(folder / side) for side in ("source", "target"))
    settings = read_settings(folder)
    translator = load_translator(config.model_file, settings["max_length"])
    if config.vocabulary:
        tokens.check_own(folder, config.model_file)
    if not translator.reads(len(source) - 1) or translator.reads(len(source)):
        raise ValueError(f"The vocabulary in {folder / 'source'} has {len(source)} tokens, the model "
                         f"{'more' if translator.reads(len(source)) else 'fewer'}: it is that of another model. Give "
                         "the folder that training left beside this one, with --vocabulary.")
    logits, _ = translator.step(tokens.BEGIN, translator.begin([tokens.END]))
    tokens.check_size(target, len(logits), folder / "target")
    for text in translate_lines(translator, source, target, lines or sys.stdin or (), config, settings["lower_case"]):
        print(text, flush=True)


def _entry(argv):
    main(flagging.config_from_flags(PredictConfig), [text_lib.clean(line) for line in argv[1:]])


if __name__ == "__main__":
    flagging.define_flags(PredictConfig, flags.FLAGS)
    flagging.run(_entry)
