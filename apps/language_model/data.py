"""Text as windows of tokens, a pure function of (seed, epoch, step).

Inputs and targets are int32 [B, T]; targets are the tokens that follow or, for masked models, those that were hidden,
and 0 where nothing is to be predicted. B batch, T window, N tokens of a part, V vocabulary.
"""

import dataclasses
import math
import random

import numpy as np
import tensorflow as tf

from apps.common import tokens
from apps.common.config import unknown_name
from apps.common.prepared_sets import prepared
from apps.common.splits import Splits, Stream, evaluation_stream, training_stream
from apps.common.text import PARTS, find_parts, read_text
from apps.language_model.writing import decode_text, encode_text

SUBWORDS = 4000  # vocabulary where --vocabulary_size is 0
_KEPT, _RANDOM = 0.1, 0.1  # of the tokens to be found: left as they are, replaced by another (Devlin et al. 2019, 3.1)
_LARGEST_NUMBER = 99  # of the generated sums
_NUM_SUMS = 20_000  # lines


@dataclasses.dataclass(frozen=True)
class TextSpec:
    """What a model must know of its data.

    Attributes:
        vocabulary: `tokens.Pieces` or `tokens.Subwords`.
        length: T.
        is_masked: whether hidden tokens are to be found, rather than the next ones.
        num_characters, num_tokens, unknown_share: {part: of its text}; of words, which do not say how many spaces stand
            between them, the characters are those of the text with one; the last is of its tokens.
        source_entropy: nats a character below which no model of the next character can come in the mean, where the
            text was generated; None where it was written.
        is_carried: whether a row of a batch goes on where that row of the batch before ended.
    """

    vocabulary: object
    length: int
    is_masked: bool
    num_characters: dict
    num_tokens: dict
    unknown_share: dict
    source_entropy: float | None = None
    is_carried: bool = False


@dataclasses.dataclass(frozen=True)
class TextSplits(Splits):
    """`windows(count)`: the inputs of that many training windows at even distances, int32 [count, T]."""

    windows: object = None


def load(config, *, is_masked=False):
    """Reads the text that `config` names, and learns the vocabulary of its training part.

    Args:
        config: the application's `Config`.
        is_masked: whether the model is a masked one.

    Returns:
        `TextSplits` whose spec is a `TextSpec`.

    Raises:
        ValueError: the name, the files or the flags are wrong; nothing is trained then.
    """
    texts, entropy = _read(config)
    size = config.vocabulary_size or (SUBWORDS if config.tokens == "subwords" else 0)
    pieces = [texts["train"]] if config.tokens == "characters" else texts["train"].split("\n")
    vocabulary = tokens.learn(config.tokens, pieces, size, minimum_count=config.minimum_count)
    numbers = {part: np.asarray(encode_text(vocabulary, text), np.int32) for part, text in texts.items()}
    for part, found in numbers.items():
        if len(found) <= config.length and (part != "validation" or len(found)):
            raise ValueError(f"The {part} part of --data={config.data} has {len(found)} tokens: expected more than a "
                             f"window of --length={config.length}. Use a smaller --length, another --{part}_fraction, "
                             "or more text.")
    written = texts if config.tokens != "words" else {
        part: decode_text(vocabulary, found) for part, found in numbers.items()}
    spec = TextSpec(vocabulary, config.length, is_masked, {part: len(text) for part, text in written.items()},
                    {part: len(found) for part, found in numbers.items()},
                    {part: float(np.mean(found == tokens.UNKNOWN)) if len(found) else 0.0
                     for part, found in numbers.items()}, entropy, config.carry_state)
    train = _carried(numbers["train"], config) if config.carry_state else _shuffled(numbers["train"], spec, config)
    validation = None
    if len(numbers["validation"]):
        validation = _evaluation(numbers["validation"], spec, config, config.length)
    return TextSplits(train, validation, _evaluation(numbers["test"], spec, config, config.test_stride
                                                     or config.length), spec, lambda count: _windows(numbers, spec,
                                                                                                     count))


def mean_targets(config, is_masked):
    """Targets of a training window: what `TokenCrossentropy` divides by."""
    return num_hidden(config) if is_masked else config.length


def num_hidden(config):
    """Tokens of a window that a masked model has to find."""
    return max(1, round(config.mask_share * config.length))


def _read(config):
    """({part: text}, entropy a character or None)."""
    if config.data == "sums":
        if config.data_dir:
            raise ValueError(f"--data=sums is generated and reads no files; received --data_dir={config.data_dir}. "
                             "Give --data=text with it.")
        return generated_sums()
    if config.data == "text":
        files = find_parts(config.data_dir, config.data)
        texts = {part: "\n".join(read_text(path, config.encoding) for path in paths) for part, paths in files.items()}
    elif config.data.startswith("tfds:"):
        texts = _read_tfds(config)
    else:
        raise unknown_name("data set", config.data, ("sums", "text", "tfds:<name>"))
    if not texts["train"].strip():
        raise ValueError(f"--data_dir={config.data_dir}: the text is empty.")
    return _split(texts, config), None


def _split(texts, config):
    """Sets the ends of the training text aside for the parts that are missing."""
    train, parts = texts["train"], dict(texts)
    for part, fraction in (("test", config.test_fraction), ("validation", config.validation_fraction)):
        if not parts[part] and fraction:
            cut = len(train) - round(fraction * len(texts["train"]))
            train, parts[part] = train[:cut], train[cut:]
    return parts | {"train": train}


def generated_sums(seed=0):
    """Lines "7+85=92" of two numbers up to 99; no sum of the test stands in the training text.

    Two numbers are drawn evenly and the rest follows, so the entropy of the text is known: the log of the number of
    pairs, over the characters of a line.

    Returns:
        ({part: text}, entropy in nats a character of the test text).
    """
    chance = random.Random(seed)
    pairs = [(a, b) for a in range(_LARGEST_NUMBER + 1) for b in range(_LARGEST_NUMBER + 1)]
    chance.shuffle(pairs)
    cuts = {"test": pairs[:1000], "validation": pairs[1000:1500], "train": pairs[1500:]}
    counts = {"test": 1, "validation": 1, "train": -(-_NUM_SUMS // len(cuts["train"]))}
    texts = {}
    for part, chosen in cuts.items():
        lines = [f"{a}+{b}={a + b}\n" for a, b in chosen * counts[part]]
        chance.shuffle(lines)
        texts[part] = "".join(lines)
    # A model cannot know which pairs are left for the test, so all pairs are possible to it.
    return texts, math.log(len(pairs)) * len(cuts["test"]) / len(texts["test"])


def _read_tfds(config):
    def check(features):
        if "text" not in features:
            raise ValueError(f"--data={config.data} has no feature 'text': expected a data set of texts; received "
                             f"{', '.join(features)}.")

    tfds, builder = prepared(config, check)
    return {part: "\n".join(row["text"].decode() for row in tfds.as_numpy(builder.as_dataset(split=part)))
            if part in builder.info.splits else "" for part in PARTS}


def _shuffled(numbers, spec, config):
    """Windows that begin anywhere: window i of an epoch begins in the i-th part of the text, at a random place."""
    length, count = spec.length, (len(numbers) - 1) // spec.length
    last = len(numbers) - length - 1
    window = _gatherer(numbers, length + 1)

    def fetch(index, noise):
        start = index * length + tf.cast(noise[:, 0] * length, tf.int64)
        found = window(tf.minimum(start, last))
        if not spec.is_masked:
            return found[:, :-1], found[:, 1:]
        return hide(found[:, :-1], noise[:, 1:], num_hidden(config), len(spec.vocabulary))

    return training_stream(count, config.batch_size, config.seed, fetch,
                           num_noise=1 + (2 * length if spec.is_masked else 0))


def _carried(numbers, config):
    """Windows in the order of the text: row r of all steps reads the r-th part of it from its beginning to its end."""
    length, batch_size = config.length, config.batch_size
    steps = (len(numbers) // batch_size - 1) // length
    if steps < 1:
        raise ValueError(f"--carry_state cuts the text into --batch_size={batch_size} parts, which must be longer than "
                         f"a window of {length} tokens; received {len(numbers)} tokens. Use a smaller batch or window.")
    window, rows = _gatherer(numbers, length + 1), np.arange(batch_size) * (len(numbers) // batch_size)

    def make(input_context, start_step, turn):
        if input_context is not None and input_context.num_input_pipelines > 1 or turn[1] > 1:
            raise ValueError("--carry_state hands the state of each row from step to step: it needs "
                             "--distribution=single.")

        def batch(step):
            found = window(tf.constant(rows, tf.int64) + step % steps * length)
            return found[:, :-1], found[:, 1:]

        return tf.data.Dataset.range(start_step, 2**62).map(batch).prefetch(2)

    return Stream(steps * batch_size, batch_size, make, is_training=True)


def _evaluation(numbers, spec, config, stride):
    """Windows `stride` apart; every token but the first is a target once, with at least length - stride before it.

    Where states are carried, row r of all batches reads the r-th part of the text, whose end is padding.
    """
    length, batch_size = spec.length, config.batch_size
    if spec.is_masked:
        stride = length  # what is hidden is seen from both sides
    count = 1 + max(0, math.ceil((len(numbers) - 1 - length) / stride))
    steps = -(-count // batch_size)
    total = steps * batch_size if spec.is_carried else count
    window = _gatherer(np.pad(numbers, (0, total * stride + length + 1 - len(numbers))), length + 1)
    noise = tf.random.stateless_uniform([count, 2 * length], [0, 0]) if spec.is_masked else None

    def fetch(index):
        if spec.is_carried:
            index = index % batch_size * steps + index // batch_size
        found = window(tf.cast(index, tf.int64) * stride)
        if spec.is_masked:
            return hide(found[:, :-1], tf.gather(noise, index), num_hidden(config), len(spec.vocabulary))
        is_new = tf.range(length)[None] >= tf.where(index > 0, length - stride, 0)[:, None]
        return found[:, :-1], tf.where(is_new, found[:, 1:], tokens.PADDING)

    return evaluation_stream(total, batch_size, fetch)


def hide(window, noise, count, size):
    """The masked language model's task (Devlin et al. 2019, section 3.1).

    Args:
        window: int32 [B, T].
        noise: float32 [B, 2 T], uniform.
        count: tokens of a row to hide. Of these 8 of 10 become the number `size`, one a random token, one stays.
        size: V.

    Returns:
        (inputs, targets), int32 [B, T]: targets are 0 where nothing was hidden.
    """
    length = window.shape[1]
    scores, action = noise[:, :length], noise[:, length:]
    least = tf.math.top_k(scores, count).values[:, -1:]
    is_hidden = (scores >= least) & tf.not_equal(window, tokens.PADDING)
    first = len(tokens.SPECIALS)
    other = first + tf.cast(action / _RANDOM * (size - first), tf.int32)  # where action < _RANDOM
    replaced = tf.where(action < _RANDOM, other, tf.where(action < _RANDOM + _KEPT, window, size))
    return tf.where(is_hidden, replaced, window), tf.where(is_hidden, window, tokens.PADDING)


def _gatherer(numbers, length):
    """`window(start)`: int64 [B] -> int32 [B, length]."""
    with tf.device("CPU:0"):  # where tf.data runs
        content = tf.constant(numbers)
    return lambda start: tf.ensure_shape(tf.gather(content, start[:, None] + tf.range(length, dtype=tf.int64)),
                                         [None, length])


def _windows(numbers, spec, count):
    starts = np.linspace(0, len(numbers["train"]) - spec.length - 1, count).astype(np.int64)
    return numbers["train"][starts[:, None] + np.arange(spec.length)]
