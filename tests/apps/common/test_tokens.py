"""Vocabularies: numbers and back, files, and what cannot be one."""

import pytest

from apps.common import tokens

LINES = ["the cat sat on the mat", "猫が座る", "日本語の文です", *(f"hello world {i}" for i in range(60))]


@pytest.fixture(params=tokens.KINDS)
def vocabulary(request):
    return tokens.learn(request.param, LINES, 120)


def test_text_comes_back(vocabulary):
    for line in LINES[:3]:
        assert vocabulary.decode(vocabulary.encode(line)) == line


def test_subwords_give_back_what_unicode_would_normalise():
    lines = ["１２！？（ｱ）…²", "  x  y ", "ａbc"]
    vocabulary = tokens.learn("subwords", [*LINES, *lines * 5], 160)
    for line in lines:
        assert vocabulary.decode(vocabulary.encode(line)) == line


def test_the_first_numbers_mean_the_same_everywhere(vocabulary):
    assert [vocabulary.piece(i) for i in range(4)] == ["<pad>", "<unk>", "<s>", "</s>"]
    assert max(vocabulary.encode(LINES[0])) < len(vocabulary) <= 120


def test_a_text_ends_at_its_end(vocabulary):
    numbers = vocabulary.encode("the cat")
    assert vocabulary.decode([tokens.BEGIN, *numbers, tokens.END, *numbers, tokens.PADDING]) == "the cat"


def test_what_is_not_known_has_a_number_of_its_own(vocabulary):
    assert tokens.UNKNOWN in vocabulary.encode("Ω")


@pytest.mark.parametrize("size", [60, 400])
def test_subwords_in_the_middle_of_a_line_get_no_space(size):
    lines = [f"hello world {i}" for i in range(2000)]
    vocabulary = tokens.learn("subwords", lines, size)
    for text in ("lo", "12", " world", "world 7"):
        assert vocabulary.decode([*vocabulary.encode("hel"), *vocabulary.encode(text, goes_on=True)]) == f"hel{text}"
    known = vocabulary.encode("9", goes_on=True)
    assert vocabulary.encode("Ω9", goes_on=True) == [tokens.UNKNOWN, *known]
    assert vocabulary.encode("", goes_on=True) == []


def test_files_are_read_back(vocabulary, tmp_path):
    vocabulary.save(tmp_path)
    again = tokens.load(tmp_path)
    assert again.kind == vocabulary.kind and len(again) == len(vocabulary)
    assert again.encode(LINES[1]) == vocabulary.encode(LINES[1])
    (tmp_path / "export").mkdir()
    assert tokens.find(tmp_path / "model.keras") == tmp_path
    assert tokens.find(tmp_path / "export" / "int8.tflite") == tmp_path


def test_learning_again_gives_the_same(vocabulary):
    again = tokens.learn(vocabulary.kind, LINES, 120)
    assert [again.piece(i) for i in range(len(again))] == [vocabulary.piece(i) for i in range(len(vocabulary))]


def test_every_letter_of_an_alphabet_is_a_token():
    lines = [f"hello world {i}" for i in range(9000)] + ["Übung é"]  # letters that are rarer than 1 in 10,000
    vocabulary = tokens.learn("subwords", lines, 400)
    numbers = vocabulary.encode(lines[-1])
    assert tokens.UNKNOWN not in numbers and vocabulary.decode(numbers) == lines[-1]
    assert tokens.UNKNOWN in tokens.learn("subwords", lines, 60).encode(lines[-1])


def test_the_most_frequent_stay():
    words = tokens.learn("words", ["b a a", "c b a"], 6)
    assert [words.piece(i) for i in range(4, len(words))] == ["a", "b"]
    assert tokens.learn("words", ["b a a", "c b a"], 0, minimum_count=2).encode("a b c") == [4, 5, tokens.UNKNOWN]


def test_a_corpus_may_write_unknown_itself():
    words = tokens.learn("words", ["the <unk> of <unk>"], 0)
    assert words.encode("<unk> of") == [tokens.UNKNOWN, words.encode("of")[0]]


@pytest.mark.parametrize(("kind", "lines", "size", "message"), [
    ("letters", LINES, 0, "kind of tokens 'letters'.*characters"),
    ("words", ["", " "], 0, "only empty lines"),
    ("subwords", LINES, 8, "cannot make a vocabulary of 8 subwords.*Change --vocabulary_size")])
def test_what_cannot_be_learned(kind, lines, size, message):
    with pytest.raises(ValueError, match=message):
        tokens.learn(kind, lines, size)


@pytest.mark.parametrize(("name", "content"), [("vocabulary.json", "{"), ("vocabulary.json", '{"kind": "words"}'),
                                               ("vocabulary.model", "nothing")])
def test_damaged_files(tmp_path, name, content):
    with pytest.raises(ValueError, match="no vocabulary: expected vocabulary.json"):
        tokens.load(tmp_path)
    with pytest.raises(ValueError, match="No vocabulary was found near"):
        tokens.find(tmp_path / "a" / "b" / "int8.tflite")
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match="cannot be read"):
        tokens.load(tmp_path)
