import numpy as np
import pytest

from apps.alphago.go import text


@pytest.mark.parametrize("size", [5, 9, 13, 19])
def test_names(size):
    names = [text.name_of(move, size) for move in range(size * size + 1)]
    assert len(set(names)) == size * size + 1 and names[0] == f"A{size}" and names[-1] == "pass"
    assert [text.move_of(name.lower(), size) for name in names] == list(range(size * size + 1))
    assert not any("I" in name for name in names)


@pytest.mark.parametrize("name", ["", "I5", "A0", "A10", "K1", "5A", "A", "A²", "A-1", "passs"])
def test_what_is_no_point(name):
    with pytest.raises(ValueError, match="is no point of a board of 9: expected pass, or a letter A to J"):
        text.move_of(name, 9)


def test_diagrams():
    stones = np.random.default_rng(0).integers(-1, 2, [13, 13])
    np.testing.assert_array_equal(text.read(text.show(stones)), stones)
    bare = "\n".join(".X."[:1] * 5 for _ in range(4)) + "\nX.O.."
    assert text.read(bare)[4].tolist() == [1, 0, -1, 0, 0]
    assert "*" in text.show(np.zeros(25), {3: "*"})
    with pytest.raises(ValueError, match="square of 5 to 19.*5, 4"):
        text.read("....\n.....\n....\n.....\n.....")
    with pytest.raises(ValueError, match="has 'Q'; expected X, O and dots"):
        text.read("..Q..\n" * 5)


@pytest.mark.parametrize("size, number", [(5, 1), (9, 5), (8, 4), (13, 9), (19, 9)])
def test_star_points(size, number):
    stars = text.star_points(size)
    assert len(set(stars)) == len(stars) == number
    board = np.zeros(size * size)
    board[stars] = 1
    np.testing.assert_array_equal(board.reshape(size, size), np.rot90(board.reshape(size, size), 2))
