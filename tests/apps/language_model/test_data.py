"""Windows of text: what is in them, and that they are a function of (seed, epoch, step)."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from apps.common import tokens
from apps.language_model import data
from apps.language_model.config import Config

TEXT = "".join(chr(97 + i * i % 23) + ("\n" if i % 11 == 0 else "") for i in range(3000))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("text")
    (path / "book.txt").write_text(TEXT)
    return path


def load(folder, is_masked=False, **flags):
    flags = {"data": "text", "data_dir": str(folder), "length": 16, "batch_size": 8, "workdir": "unused", **flags}
    return data.load(Config(**flags), is_masked=is_masked)


def taken(stream, count, **options):
    return [(x.numpy(), y.numpy()) for x, y in stream(**options).take(count)]


def text_of(splits, numbers):
    return "".join(splits.spec.vocabulary.piece(n) for n in numbers)


def test_windows_are_pieces_of_the_text_and_targets_follow(folder):
    splits = load(folder)
    train = TEXT[:len(TEXT) - round(0.1 * len(TEXT)) - round(0.05 * len(TEXT))]
    for inputs, targets in taken(splits.train, 5):
        assert inputs.shape == targets.shape == (8, 16) and inputs.dtype == np.int32
        np.testing.assert_array_equal(inputs[:, 1:], targets[:, :-1])
        assert all(text_of(splits, row) in train for row in inputs)


def test_a_run_may_begin_at_any_step(folder):
    splits = load(folder)
    whole = taken(splits.train, splits.train.steps_per_epoch + 3)
    for start in (2, splits.train.steps_per_epoch + 1):
        for (a, b), (c, d) in zip(whole[start:], taken(splits.train, len(whole) - start, start_step=start)):
            np.testing.assert_array_equal(a, c)
            np.testing.assert_array_equal(b, d)
    assert not np.array_equal(whole[0][0], whole[splits.train.steps_per_epoch][0])


def test_two_workers_share_a_batch(folder):
    splits = load(folder)
    (whole, _), = taken(splits.train, 1)
    parts = [taken(splits.train, 1, input_context=tf.distribute.InputContext(2, i, 2))[0][0] for i in range(2)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


@pytest.mark.parametrize("stride", [0, 5, 16])
def test_each_token_of_the_test_is_a_target_once(folder, stride):
    splits = load(folder, test_stride=stride)
    targets = np.concatenate([y for _, y in taken(splits.test, -1)])
    inputs = np.concatenate([x for x, _ in taken(splits.test, -1)])
    test = TEXT[-round(0.1 * len(TEXT)):]
    assert text_of(splits, targets[targets > 0]) == test[1:]
    for row, (x, y) in enumerate(zip(inputs, targets)):
        first = np.flatnonzero(y)[0]
        assert first == (0 if row == 0 else 16 - (stride or 16))
        at = row * (stride or 16) + first
        assert text_of(splits, x[:first + 1]) == test[at - first:at + 1]


def test_carried_rows_read_on(folder):
    splits = load(folder, carry_state=True)
    batches = taken(splits.train, splits.train.steps_per_epoch + 1)
    rows = [text_of(splits, np.concatenate([x[row] for x, _ in batches[:-1]])) for row in range(8)]
    assert all(row in TEXT for row in rows) and TEXT.startswith(rows[0])
    np.testing.assert_array_equal(batches[0][0], batches[-1][0])
    np.testing.assert_array_equal(batches[3][0], taken(splits.train, 1, start_step=3)[0][0])


@pytest.mark.parametrize("batch_size", [3, 8])
def test_carried_rows_of_the_test_read_on(folder, batch_size):
    splits = load(folder, carry_state=True, batch_size=batch_size)
    batches = taken(splits.test, -1)
    test, inputs, targets = TEXT[-round(0.1 * len(TEXT)):], "", ""
    for row in range(batch_size):
        read, wanted = (np.concatenate([batch[part][row] for batch in batches]) for part in (0, 1))
        inputs += text_of(splits, read[wanted > 0])
        targets += text_of(splits, wanted[wanted > 0])
    assert inputs == test[:-1] and targets == test[1:]


def test_hidden_tokens(folder):
    splits = load(folder, is_masked=True, mask_share=0.25)
    size = len(splits.spec.vocabulary)
    actions = np.zeros(3)
    for inputs, targets in taken(splits.train, 20):
        hidden = targets > 0
        assert (hidden.sum(axis=1) == 4).all()
        masked, kept = hidden & (inputs == size), hidden & (inputs == targets)
        actions += [masked.sum(), kept.sum(), (hidden & ~masked & ~kept).sum()]
        whole = np.where(hidden, targets, inputs)
        assert all(text_of(splits, row) in TEXT for row in whole)
    np.testing.assert_allclose(actions / actions.sum(), [0.8, 0.1, 0.1], atol=0.05)
    (first, _), (again, _) = taken(splits.test, 1)[0], taken(splits.test, 1)[0]
    np.testing.assert_array_equal(first, again)


def test_sums_are_right_and_the_test_is_new():
    texts, entropy = data.generated_sums()
    lines = {part: text.splitlines() for part, text in texts.items()}
    for line in itertools.chain(*lines.values()):
        terms, total = line.split("=")
        assert sum(map(int, terms.split("+"))) == int(total)
    assert not set(lines["test"]) & set(lines["train"]) and not set(lines["validation"]) & set(lines["train"])
    # Two numbers of 0 to 99 each, drawn evenly, are 2 log 100 nats; a line of such a pair has so many characters:
    lengths = [len(f"{a}+{b}={a + b}\n") for a in range(100) for b in range(100)]
    assert entropy == pytest.approx(2 * math.log(100) / np.mean(lengths), rel=0.01)


@pytest.mark.parametrize("kind", tokens.KINDS)
def test_words_and_subwords_keep_lines(tmp_path, kind):
    text = "the cat  sat on\tthe mat\nthe dog ran\n"
    (tmp_path / "a.txt").write_text(text * 60)
    splits = load(tmp_path, tokens=kind, vocabulary_size=30, length=24, batch_size=2)
    inputs, _ = taken(splits.train, 1)[0]
    assert (tokens.END in inputs) == (kind != "characters")
    written = {"words": "the cat sat on the mat\nthe dog ran\n"}.get(kind, text)
    numbers = splits.spec.num_characters
    assert sum(numbers.values()) == pytest.approx(60 * len(written), abs=3)  # a cut inside a word or a space


def test_rare_words_are_unknown_where_wanted(tmp_path):
    (tmp_path / "a.txt").write_text("".join(f"the cat saw mouse{i}\n" for i in range(200)))
    for count, expected in ((1, 0.0), (2, 0.2)):  # of "the cat saw mouse7 END"
        splits = load(tmp_path, tokens="words", minimum_count=count)
        _, targets = taken(splits.train, 1)[0]
        assert np.mean(targets == tokens.UNKNOWN) == pytest.approx(expected, abs=0.05)
        assert splits.spec.unknown_share["train"] == pytest.approx(expected, abs=0.01)
        assert splits.spec.unknown_share["test"] == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize(("flags", "message"), [
    ({"data": "novel"}, "data set 'novel'"),
    ({"data": "sums"}, "generated and reads no files"),
    ({"length": 5000}, "expected more than a window of --length=5000"),
    ({"batch_size": 2000}, "--batch_size must be between"),
    ({"data_dir": "/nowhere"}, "does not exist"),
    ({"encoding": "utf-16"}, "is not utf-16: byte 0x"),
    ({"carry_state": True, "batch_size": 400}, "longer than a window")])
def test_bad_input(folder, flags, message):
    with pytest.raises(ValueError, match=message):
        load(folder, **flags)


def test_an_empty_text(tmp_path):
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(ValueError, match="the text is empty"):
        load(tmp_path)
