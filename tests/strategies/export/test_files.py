import gzip

import pytest

from strategies.export import files, interface


def test_file_is_replaced_when_the_new_one_is_whole(tmp_path):
    path = tmp_path / "new folder" / "a.txt"
    for text in ("first", "second"):
        with files.replacing(path) as temporary:
            temporary.write_text(text)
            assert temporary.suffix == ".txt" and not (path.exists() and path.read_text() == text)
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("is_folder", [False, True])
def test_failure_leaves_what_was_there(tmp_path, is_folder):
    path = tmp_path / "a"
    for ends_well in (True, False):
        try:
            with files.replacing(path) as temporary:
                if is_folder:
                    temporary.mkdir()
                (temporary / "inside" if is_folder else temporary).write_text(str(ends_well))
                if not ends_well:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
    assert (path / "inside" if is_folder else path).read_text() == "True"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "a"
    for name in ("old", "new"):
        with files.replacing(path) as temporary:
            temporary.mkdir()
            (temporary / name).write_text(name)
    assert [file.name for file in path.iterdir()] == ["new"] and list(tmp_path.iterdir()) == [path]


def test_sizes(tmp_path):
    contents = {"a": b"a" * 3_000_000, "deep/b": bytes(range(256)) * 10}
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert files.size_bytes(tmp_path) == 3_000_000 + 2560 and files.size_bytes(tmp_path / "a") == 3_000_000
    assert files.gzip_bytes(tmp_path / "a") == len(gzip.compress(contents["a"], 9))
    assert files.gzip_bytes(tmp_path) == sum(len(gzip.compress(content, 9)) for content in contents.values())


def test_unique_names():
    assert interface.unique_names(["a/b", "a.b", "a_b", "c"]) == ["a_b", "a_b_1", "a_b_2", "c"]
