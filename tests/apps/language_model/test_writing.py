"""Text from a step function: prompts, draws, and a state that is full."""

import numpy as np
import pytest

from apps.common import tokens
from apps.language_model import writing

SIZE = 12


def counting(number, state):
    """A model that is sure of the number after the last; its state is what it has read."""
    logits = np.zeros(SIZE)
    logits[4 + (number - 3) % (SIZE - 4)] = 50
    return logits, [*state, number]


def test_it_goes_on_from_the_prompt():
    assert list(writing.write(counting, [], [5, 6], 4)) == [7, 8, 9, 10]


@pytest.mark.parametrize("prompt", [[4], [4, 5, 6], list(range(4, 12))])
def test_a_full_state_begins_again_with_the_last_half(prompt):
    seen = []

    def step(number, state):
        logits, state = counting(number, state)
        seen.append(state)
        return logits, state

    written = list(writing.write(step, [], prompt, 20, limit=6))
    whole = [*prompt, *written]
    assert whole == [4 + i % (SIZE - 4) for i in range(len(whole))]
    assert max(map(len, seen)) == 6


def test_draws_follow_the_softmax():
    logits, chance = np.log([1, 1, 1, 1, 0.5, 0.3, 0.2]), np.random.default_rng(0)
    logits[1] = logits[3] = -np.inf  # unknown and end can be drawn
    counts = np.bincount([writing.choose(logits, chance) for _ in range(4000)], minlength=7)
    assert not counts[:4].any()  # padding and begin never
    np.testing.assert_allclose(counts[4:] / 4000, [0.5, 0.3, 0.2], atol=0.03)


@pytest.mark.parametrize(("options", "allowed"), [
    ({"temperature": 0}, {4}), ({"top_k": 2}, {4, 5}), ({"top_p": 0.6}, {4, 5}), ({"top_p": 0.45}, {4}),
    ({"temperature": 0.01}, {4})])
def test_what_can_be_drawn(options, allowed):
    logits, chance = np.log([1e-9, 1e-9, 1e-9, 1e-9, 0.5, 0.3, 0.2]), np.random.default_rng(0)
    assert {writing.choose(logits, chance, **options) for _ in range(300)} == allowed


def test_temperature_flattens():
    logits, chance = np.log([1e-9, 1e-9, 1e-9, 1e-9, 0.5, 0.3, 0.2]), np.random.default_rng(0)
    drawn = [writing.choose(logits, chance, temperature=2) for _ in range(4000)]
    expected = np.sqrt([0.5, 0.3, 0.2]) / np.sqrt([0.5, 0.3, 0.2]).sum()
    np.testing.assert_allclose(np.bincount(drawn)[4:] / 4000, expected, atol=0.03)


@pytest.mark.parametrize("kind", tokens.KINDS)
def test_texts_come_back(kind):
    text = "the cat\nsat on\n\nthe mat"
    vocabulary = tokens.learn(kind, text.split("\n") * 20 if kind != "characters" else [text], 40)
    numbers = writing.encode_text(vocabulary, text)
    assert writing.decode_text(vocabulary, numbers).rstrip("\n") == text
