"""Text files: encodings, compression, parts of a data set."""

import gzip

import pytest

from apps.common.text import clean, find_parts, part_of, read_text


def test_plain_and_compressed_files_and_line_ends(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffÄ\r\nb\rc".encode())
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress("猫".encode("shift_jis")))
    assert read_text(tmp_path / "a.txt") == "Ä\nb\nc"
    assert read_text(tmp_path / "b.txt.gz", "shift_jis") == "猫"


@pytest.mark.parametrize(("name", "content", "encoding", "message"), [
    ("a.txt", b"one\ntwo \xe9t\xe9", "utf-8", "is not utf-8: byte 0xe9 in line 2 .position 8.*--encoding"),
    ("a.txt.gz", b"no gzip", "utf-8", "a.txt.gz cannot be read.*gzip'd"),
    ("a.txt.gz", gzip.compress(b"cut off" * 100, mtime=0)[:-20], "utf-8", "cannot be read"),
    ("a.txt", b"x", "klingon", "--encoding=klingon is unknown")])
def test_files_that_cannot_be_read(tmp_path, name, content, encoding, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_text(tmp_path / name, encoding)


def test_arguments_with_broken_bytes():
    assert clean("a\udcffb") == "a\ufffdb" and clean("猫é") == "猫é"


def test_parts_by_their_names(tmp_path):
    for name in ("train.tsv.gz", "val.tsv.gz", "test_2016.tsv.gz", "notes.pdf", ".train.txt"):
        (tmp_path / name).touch()
    one = tmp_path / "train.tsv.gz"
    assert find_parts(tmp_path, "text") == {"train": [one], "validation": [tmp_path / "val.tsv.gz"],
                                            "test": [tmp_path / "test_2016.tsv.gz"]}
    assert find_parts(one, "text") == {"train": [one], "validation": [], "test": []}


@pytest.mark.parametrize(("name", "part"), [
    ("train.en", "train"), ("wmt14-TRAIN-de.txt", "train"), ("newstest2014.tsv", "test"), ("test_2016.tsv.gz", "test"),
    ("wiki.valid.txt", "validation"), ("dev.tsv", "validation"), ("Carnival.txt", None), ("devil.txt", None),
    ("protest.txt", None), ("train_val.tsv", "train"), ("training1.txt", "train")])
def test_what_a_name_says(name, part):
    assert part_of(name) == part


def test_files_without_a_part_in_their_names_are_for_training(tmp_path):
    for name in ("b.txt", "a.txt"):
        (tmp_path / name).touch()
    assert find_parts(tmp_path, "text")["train"] == [tmp_path / "a.txt", tmp_path / "b.txt"]


@pytest.mark.parametrize(("names", "folder", "message"), [
    ((), "", "--data=text needs --data_dir"), ((), "missing", "does not exist"), ((), ".", "holds no text"),
    (("wiki.valid.txt", "wiki.test.txt"), ".", "no training part")])
def test_folders_that_are_none(tmp_path, names, folder, message):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=message):
        find_parts(folder and tmp_path / folder, "text")
