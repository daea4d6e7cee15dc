"""Decoding one sentence with a function of one step: greedy, by chance, or with a beam. No TensorFlow: files on a phone
are decoded by this; `compiled_decoding` does the same for batches in TensorFlow.

`step(number, state) -> (logits [V], state)`: what may follow after one more token. V vocabulary.
"""

import numpy as np

from apps.common import tokens


def allowed(logits, *, unknown=False):
    """Logits [V], float64, in which what stands for no piece of text has -inf: padding, the beginning and, unless
    `unknown`, the unknown."""
    logits = np.array(logits, np.float64)
    logits[[tokens.PADDING, tokens.BEGIN] if unknown else [tokens.PADDING, tokens.BEGIN, tokens.UNKNOWN]] = -np.inf
    return logits


def choose(logits, chance, *, temperature=1.0, top_k=0, top_p=1.0):
    """Draws a token.

    Args:
        logits: [V]; minus infinity where a token cannot be drawn.
        chance: `numpy.random.Generator`.
        temperature: the logits are divided by it; 0 takes the largest.
        top_k: only the k largest can be drawn (Fan et al. 2018); 0: all.
        top_p: only the smallest set of the largest whose probability reaches p (Holtzman et al. 2020).

    Returns:
        int.
    """
    logits = np.asarray(logits, np.float64)
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
    return draw(step, state, length, None, temperature=0)


def draw(step, state, length, chance, **options):
    """As `greedy`, but by chance: `chance` and `options` are those of `choose`."""
    written, number = [], tokens.BEGIN
    for _ in range(length):
        logits, state = step(number, state)
        number = choose(allowed(logits), chance, **options)
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
            totals = score + log_softmax(allowed(logits))
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
