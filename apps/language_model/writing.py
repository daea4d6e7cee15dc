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


def write(step, state, prompt, count, *, limit=0, seed=0, **options):
    """Goes on from a prompt.

    Args:
        step: `step(number, state) -> (logits [V], state)`: the next token's, after one more token.
        state: the state before the first token.
        prompt: list of numbers, at least one.
        count: tokens to write.
        limit: tokens after which the state is full; then it begins again with the last half of them. 0: never.
        seed: of the draws.
        **options: of `choose`.

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
        waiting = [choose(logits, chance, **options)]
        text += waiting
        yield waiting[0]


def limit_of(state):
    """How many tokens a state has room for, {name: array}; 0: any number, as that of a recurrent model."""
    return next((value.shape[1] for name, value in state.items() if name.endswith("_keys")), 0)
