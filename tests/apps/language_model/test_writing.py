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


@pytest.mark.parametrize("kind", tokens.KINDS)
def test_texts_come_back(kind):
    text = "the cat\nsat on\n\nthe mat"
    vocabulary = tokens.learn(kind, text.split("\n") * 20 if kind != "characters" else [text], 40)
    numbers = writing.encode_text(vocabulary, text)
    assert writing.decode_text(vocabulary, numbers).rstrip("\n") == text
    assert writing.decode_text(vocabulary, writing.encode_prompt(vocabulary, text)) == text
    assert writing.encode_prompt(vocabulary, "the cat\n") == writing.encode_text(vocabulary, "the cat\n")
    assert writing.beginning(vocabulary, [7]) == [*writing.encode_text(vocabulary, "\n"), 7]


def test_a_text_without_line_ends_begins_with_its_commonest_character():
    vocabulary = tokens.learn("characters", ["abba bbb"], 0)
    assert writing.beginning(vocabulary, vocabulary.encode("a")) == vocabulary.encode("a")
    assert writing.beginning(vocabulary) == vocabulary.encode("b")
