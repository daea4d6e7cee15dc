"""Text from a model that predicts the next token, in NumPy: the same for Keras models and files on a phone.

V vocabulary. No TensorFlow: `predict` reads this.
"""

import numpy as np

from apps.common import tokens

LINE_END = tokens.END  # of words and subwords


def encode_text(vocabulary, text):
    """Numbers of a text; of words and subwords line by line, with an END after each."""
    if vocabulary.kind == "characters":
        return vocabulary.encode(text)
    numbers = []
    for line in text.removesuffix("\n").split("\n"):
        numbers += [*vocabulary.encode(line), LINE_END]
    return numbers


def decode_text(vocabulary, numbers):
    """Inverse of `encode_text`."""
    lines, line = [], []
    for number in numbers:
        if number == LINE_END:
            lines.append(vocabulary.decode(line))
            line = []
        else:
            line.append(int(number))
    return "\n".join([*lines, vocabulary.decode(line)])


def choose(logits, chance, *, temperature=1.0, top_k=0, top_p=1.0):
    """Draws a token.

    Args:
        logits: [V].
        chance: `numpy.random.Generator`.
        temperature: the logits are divided by it; 0 takes the largest.
        top_k: only the k largest can be drawn (Fan et al. 2018); 0: all.
        top_p: only the smallest set of the largest whose probability reaches p (Holtzman et al. 2020).

    Returns:
        int.
    """
    logits = np.asarray(logits, np.float64).copy()
    logits[[tokens.PADDING, tokens.BEGIN]] = -np.inf  # never targets
    if not temperature:
        return int(np.argmax(logits))
    order = np.argsort(-logits, kind="stable")
    scaled = (logits[order] - logits[order[0]]) / temperature
    if top_k:
        scaled[top_k:] = -np.inf
    p = np.exp(scaled)
    p /= p.sum()
    if top_p < 1:
        before = np.cumsum(p) - p
        p[before >= top_p] = 0
        p /= p.sum()
    return int(order[chance.choice(len(p), p=p)])


def write(step, state, prompt, count, *, seed=0, **options):
    """Goes on from a prompt.

    Args:
        step: `step(number, state) -> (logits [V], state)`: the next token's, after one more token.
        state: the state before the first token.
        prompt: list of numbers, at least one.
        count: tokens to write.
        seed: of the draws.
        **options: of `choose`.

    Yields:
        each new number.
    """
    chance = np.random.default_rng(seed)
    for number in prompt[:-1]:
        _, state = step(number, state)
    number = prompt[-1]
    for _ in range(count):
        logits, state = step(number, state)
        number = choose(logits, chance, **options)
        yield number
