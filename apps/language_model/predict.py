"""Goes on writing where a prompt ends, or fills in blanks, with an exported model, as a phone would.

    python -m apps.language_model.predict --model_file=runs/sums/export/int8.tflite "12+34="
    python -m apps.language_model.predict --model_file=runs/masked/export/float32.tflite "12+3_=46"

A `.tflite` file needs NumPy, absl-py and ai_edge_litert only (and sentencepiece for subwords); TensorFlow is imported
for `.keras` alone. Prompts are arguments or, without any, lines of standard input.
"""

import dataclasses
import pathlib
import sys

import numpy as np
from absl import flags

from apps.common import config as config_lib
from apps.common import flagging, tokens
from apps.common import text as text_lib
from apps.language_model import writing
from strategies.signature import Signature


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """Options of this program."""

    model_file: str = config_lib.field("", "Exported model: a .tflite or .keras file.")
    vocabulary: str = config_lib.field("", "Folder with the model's vocabulary. Empty: looked for near the model file.")
    tokens: int = config_lib.field(100, "Tokens to write after each prompt.", minimum=0)
    temperature: float = config_lib.field(0.8, "The logits are divided by it; 0 always takes the likeliest token.",
                                          minimum=0)
    top_k: int = config_lib.field(0, "Draw among the k likeliest tokens only. 0: all.", minimum=0)
    top_p: float = config_lib.field(1.0, "Draw among the likeliest tokens that together have this probability.",
                                    above=0, maximum=1)
    seed: int = config_lib.field(0, "Seed of the draws.", minimum=0)
    blank: str = config_lib.field("_", "What stands for a hidden token in prompts of a masked model.")

    def __post_init__(self):
        for item in dataclasses.fields(self):
            config_lib.check_value(item, getattr(self, item.name))
        if not self.model_file:
            raise ValueError("--model_file is missing: expected an exported .tflite or .keras file, such as "
                             "--model_file=runs/sums/export/int8.tflite.")
        if not self.blank:
            raise ValueError("--blank must be at least a character, as _; received ''.")


@dataclasses.dataclass(frozen=True)
class Model:
    """A model read from a file.

    Attributes:
        step: `step(number, state) -> (logits [V], state)`; None of a masked model.
        state: the state before the first token.
        window: `window(numbers [T]) -> logits [T, V]` of a masked model, else None.
        length: T of that.
    """

    step: object = None
    state: dict = dataclasses.field(default_factory=dict)
    window: object = None
    length: int = 0


def load_model(path):
    """Reads a model.

    Raises:
        ValueError: the file is missing, damaged, or of another kind.
    """
    endings = {".tflite": _load_tflite, ".keras": _load_keras}
    path = pathlib.Path(path)
    if path.suffix not in endings:
        raise ValueError(f"--model_file={path} has an unknown ending: expected .tflite or .keras; received "
                         f"{path.suffix!r}. Give one of the exported files.")
    return endings[path.suffix](path)


def _load_tflite(path):
    run = Signature(path)
    if "tokens" not in run.shapes:
        raise ValueError(f"--model_file={path} is no language model: expected an input 'tokens'; received "
                         f"{', '.join(run.shapes)}.")
    logits = next(name for name in run.outputs if name not in run.shapes)
    if not run.states:
        model = Model(window=lambda numbers: run({"tokens": numbers[None]})[logits][0], length=run.shapes["tokens"][1])
        numbers = np.zeros(model.length, np.int32)
        before = model.window(numbers)[0].copy()
        numbers[1:] = tokens.UNKNOWN
        if np.array_equal(model.window(numbers)[0], before):
            raise ValueError(f"--model_file={path} scores a whole text and writes none: what follows a token changes "
                             "nothing before it, and there is no state to go on from. Give the file of one step that "
                             "was exported beside it.")
        return model

    def step(number, state):
        outputs = run({"tokens": [[number]], **state})
        return outputs.pop(logits)[0, 0], outputs

    return Model(step=step, state=run.zero_state())


def _load_keras(path):
    import tf_keras as keras

    from apps.language_model import models

    try:
        model = keras.models.load_model(path, compile=False)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"--model_file={path} cannot be read as a Keras model ({error}).") from None
    if models.is_masked(model.name):
        return Model(window=lambda numbers: model(numbers[None], training=False)[0].numpy(),
                     length=model.input_shape[1])
    step = models.step_model(model)
    return Model(step=models.stepper(step), state=models.zero_state(step))


def num_logits(model):
    """V."""
    if model.step is None:
        return model.window(np.zeros(model.length, np.int32)).shape[-1]
    return len(model.step(tokens.BEGIN, model.state)[0])


def encode(vocabulary, prompt, where, **options):
    """Numbers of a prompt, as `writing.encode_prompt` gives them; says on standard error how many are unknown."""
    numbers = writing.encode_prompt(vocabulary, prompt, **options)
    unknown = numbers.count(tokens.UNKNOWN)
    if unknown:
        print(f"warning: {where}: {unknown} of {len(numbers)} tokens are not in the vocabulary", file=sys.stderr)
    return numbers


def go_on(model, vocabulary, prompt, config, where="prompt"):
    """The prompt and what the model writes after it."""
    numbers = encode(vocabulary, prompt, where)
    written = writing.write(model.step, model.state, writing.beginning(vocabulary, numbers), config.tokens,
                            seed=config.seed, limit=writing.limit_of(model.state), temperature=config.temperature,
                            top_k=config.top_k, top_p=config.top_p)
    return writing.decode_text(vocabulary, [*numbers, *written])


def fill_in(model, vocabulary, prompt, config, where="prompt"):
    """The prompt with its blanks filled by what is likeliest there, each by itself."""
    numbers, blanks = [], []
    for place, part in enumerate(prompt.split(config.blank)):
        if place:
            blanks.append(len(numbers))
            numbers.append(len(vocabulary))  # the number behind the last is the hidden one
        numbers += encode(vocabulary, part, where, goes_on=place > 0)
    if len(numbers) > model.length:
        raise ValueError(f"{where} has {len(numbers)} tokens; the model sees {model.length}. Shorten it.")
    # The model has seen full windows only, which begin and end in the middle of a line: copies of the prompt are its
    # surroundings.
    first = (model.length - len(numbers)) // 2
    line = np.array([*numbers, writing.beginning(vocabulary)[0]], np.int32)
    logits = model.window(line[(np.arange(model.length) - first) % len(line)])[first:]
    for place in blanks:
        numbers[place] = len(tokens.SPECIALS) + int(np.argmax(logits[place, len(tokens.SPECIALS):]))
    return writing.decode_text(vocabulary, numbers)


def main(config, prompts):
    """Prints what the model makes of each prompt; returns the exit code, 1 when one could not be used."""
    text_lib.use_utf8()
    model = load_model(config.model_file)
    folder = config.vocabulary or tokens.find(config.model_file)
    vocabulary = tokens.load(folder)
    if config.vocabulary:
        tokens.check_own(folder, config.model_file, [""])
    tokens.check_size(vocabulary, num_logits(model), folder)
    answer, failures = go_on if model.step else fill_in, 0
    for number, prompt in enumerate(prompts or (line.rstrip("\n") for line in sys.stdin or ()), 1):
        try:
            print(answer(model, vocabulary, prompt, config, f"prompt {number}"), flush=True)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            failures += 1
    return 1 if failures else 0


def _entry(argv):
    sys.exit(main(flagging.config_from_flags(PredictConfig), [text_lib.clean(prompt) for prompt in argv[1:]]))


if __name__ == "__main__":
    flagging.define_flags(PredictConfig, flags.FLAGS)
    flagging.run(_entry)
