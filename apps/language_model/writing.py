"""Text from a model that predicts the next token, in NumPy: the same for Keras models and files on a phone.

V vocabulary. No TensorFlow: `predict` reads this.
"""

import numpy as np

from apps.common import decoding, tokens

LINE_END = tokens.END  # of words and subwords


def encode_text(vocabulary, text):
    """Numbers of a text; of words and subwords line by line, with an END after each."""
    if vocabulary.kind == "characters":
        return vocabulary.encode(text)
    numbers = []
    for line in text.removesuffix("\n").split("\n"):
        numbers += [*vocabulary.encode(line), LINE_END]
    return numbers


def encode_prompt(vocabulary, text, *, goes_on=False):
    """Numbers of a text that goes on after its last character.

    Args:
        vocabulary: as of `encode_text`.
        text: str.
        goes_on: whether the text itself goes on after another in the same line.
    """
    if vocabulary.kind == "characters":
        return vocabulary.encode(text)
    first, *lines = text.split("\n")
    numbers = vocabulary.encode(first, goes_on=goes_on)
    for line in lines:
        numbers += [LINE_END, *vocabulary.encode(line)]
    return numbers


def beginning(vocabulary, prompt=()):
    """What a model reads before it writes: a line end, such as stands before every text, and the numbers of a prompt.

    A text of characters may have no line ends: then the prompt alone or, without one, the commonest character.
    """
    line_end = encode_text(vocabulary, "\n")
    if tokens.UNKNOWN in line_end:
        return list(prompt) or [len(tokens.SPECIALS)]
    return [*line_end, *prompt]


def decode_text(vocabulary, numbers):
    """Inverse of `encode_text`; words come back with single spaces between them."""
    lines, line = [], []
    for number in numbers:
        if number == LINE_END:
            lines.append(vocabulary.decode(line))
            line = []
        else:
            line.append(int(number))
    return "\n".join([*lines, vocabulary.decode(line)])


def write(step, state, prompt, count, *, limit=0, seed=0, **options):
    """Goes on from a prompt.

    Args:
        step: `step(number, state) -> (logits [V], state)`: the next token's, after one more token.
        state: the state before the first token.
        prompt: list of numbers, at least one.
        count: tokens to write.
        limit: tokens after which the state is full; then it begins again with the last half of them. 0: never.
        seed: of the draws.
        **options: of `decoding.choose`.

    Yields:
        each new number.
    """
    chance = np.random.default_rng(seed)
    text, waiting, now, read = list(prompt), list(prompt), state, 0
    for _ in range(count):
        if limit and read + len(waiting) > limit:
            waiting, now, read = text[-max(1, limit // 2):], state, 0
        for number in waiting:
            logits, now = step(number, now)
        read += len(waiting)
        waiting = [decoding.choose(decoding.allowed(logits, unknown=True), chance, **options)]
        text += waiting
        yield waiting[0]


def limit_of(state):
    """How many tokens a state has room for, {name: array}; 0: any number, as that of a recurrent model."""
    return next((value.shape[1] for name, value in state.items() if name.endswith("_keys")), 0)
