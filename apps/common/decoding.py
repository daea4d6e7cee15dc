"""Decoding one sentence with a function of one step: greedy, by chance, or with a beam. No TensorFlow: files on a phone
are decoded by this; `compiled_decoding` does the same for batches in TensorFlow.

`step(number, state) -> (logits [V], state)`: what may follow after one more token. V vocabulary.
"""

import numpy as np

from apps.common import tokens


def length_penalty(length, alpha):
    """What a hypothesis' log probability is divided by: ((5 + length) / 6)^alpha (Wu et al. 2016, arXiv 1609.08144,
    equation 14). `length` counts the end."""
    return ((5 + length) / 6) ** alpha


def log_softmax(logits):
    """Log probabilities of logits [..., V], float64."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def greedy(step, state, length):
    """The likeliest token again and again, up to the end or to `length` tokens: a list of numbers, without the end."""
    written, number = [], tokens.BEGIN
    for _ in range(length):
        logits, state = step(number, state)
        number = int(np.argmax(logits))
        if number == tokens.END:
            break
        written.append(number)
    return written


def beam(step, state, length, *, width=4, alpha=0.6):
    """Beam search: the `width` likeliest beginnings are followed until the ends found are likelier than any to come.

    Args:
        step, state: see the head of this file; states are kept, so a step must not change what it was given.
        length: largest number of tokens, the end included.
        width: beginnings that are followed.
        alpha: of `length_penalty`; 0 prefers short ones.

    Returns:
        [(numbers without the end, score)], best first, at most `width`. Hypotheses that did not end within `length`
        are given where none did.
    """
    alive, ended = [(0.0, [], state)], []
    for place in range(1, length + 1):
        candidates, states = [], []
        for parent, (score, written, before) in enumerate(alive):
            logits, after = step(written[-1] if written else tokens.BEGIN, before)
            states.append(after)
            totals = score + log_softmax(logits)
            for number in np.argsort(-totals, kind="stable")[:2 * width]:
                candidates.append((float(totals[number]), parent, int(number)))
        # Each beginning can end once, so half of twice the width go on.
        candidates = sorted(candidates, key=lambda c: (-c[0], c[1], c[2]))[:2 * width]
        ended += [(score / length_penalty(place, alpha), alive[parent][1]) for score, parent, number in candidates
                  if number == tokens.END]
        ended = sorted(ended, key=lambda e: -e[0])[:width]
        alive = [(score, alive[parent][1] + [number], states[parent]) for score, parent, number in candidates
                 if number != tokens.END][:width]
        if len(ended) == width and alive[0][0] / length_penalty(length, alpha) < ended[-1][0]:
            break
    if not ended:
        ended = [(score / length_penalty(length, alpha), written) for score, written, _ in alive]
    return [(written, score) for score, written in ended]
