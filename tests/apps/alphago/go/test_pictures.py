"""Pictures of boards: what stands where, in SVG and in pixels."""

import io
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from apps.alphago.go import pictures, text
from apps.alphago.go import rules as go
from apps.alphago.go.board import Board

DIAGRAM = """
    X . . . O
    . . . . .
    . . X . .
    . O . . .
    . . . . X"""
WOOD = (223, 180, 108)


def circles(picture, fill):
    """(x, y) of the circles of an SVG that are filled so, in units of its view box."""
    root = ElementTree.fromstring(pictures.svg(picture))
    found = [e for e in root.iter("{http://www.w3.org/2000/svg}circle") if e.get("fill") == f"url(#{fill})"]
    return sorted((float(e.get("cx")), float(e.get("cy"))) for e in found)


def texts(picture):
    root = ElementTree.fromstring(pictures.svg(picture))
    return [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]


def pixel(picture, point, pixels=400):
    """Colour of the picture a little right of a point, beside its lines and marks, as whole numbers."""
    x, y = picture.place(point, pixels)
    cell = picture.place(1, pixels)[0] - picture.place(0, pixels)[0]
    return pictures.image(picture, pixels)[round(y + 0.3 * cell), round(x + 0.2 * cell)].astype(int)


def test_stones_stand_where_they_should_in_svg():
    picture = pictures.Picture(text.read(DIAGRAM))
    assert picture.side == 260  # four times 40 and 50 at each edge
    assert circles(picture, "black") == [(50, 50), (130, 130), (210, 210)]
    assert circles(picture, "white") == [(90, 170), (210, 50)]
    assert len(circles(picture, "shadow")) == 5


@pytest.mark.parametrize("size", range(5, 20))
@pytest.mark.parametrize("coordinates", [True, False])
def test_pixels_of_stones_in_all_sizes(size, coordinates):
    stones = np.zeros([size, size], np.int8)
    stones[0, 1], stones[size - 1, 0], stones[size // 2, size - 1] = 1, -1, -1
    pixels = 30 * size
    picture = pictures.Picture(stones, coordinates=coordinates)
    painted = pictures.image(picture, pixels)
    assert painted.shape == (pixels, pixels, 3) and painted.dtype == np.uint8
    assert np.isclose(picture.place(size * size - 1, pixels), np.array([pixels] * 2) - picture.place(0, pixels)).all()
    assert pixel(picture, 1, pixels).max() < 70
    assert pixel(picture, size * (size - 1), pixels).min() > 180
    assert pixel(picture, size * (size // 2) + size - 1, pixels).min() > 180
    assert abs(pixel(picture, size + 1, pixels) - WOOD).max() < 40
    assert texts(picture) == ([t for k in range(size) for t in 2 * [text.COLUMNS[k], str(size - k)]]
                              if coordinates else [])


def test_grid_and_star_points_are_dark():
    picture = pictures.Picture(np.zeros(81))
    painted = pictures.image(picture, 800).astype(int)
    for point in text.star_points(9):
        x, y = (round(k) for k in picture.place(point, 800))
        assert painted[y + 4, x + 4].max() < 90  # beside both lines
    x, y = (round(k) for k in picture.place(0, 800))
    assert painted[y, x + 35].max() < 100 and painted[y - 35, x].min() > 80  # the line goes inwards, not outwards


def test_png_is_the_image_and_agrees_with_the_svg_where_stones_are():
    picture = pictures.Picture(text.read(DIAGRAM), last=12)
    read = np.asarray(Image.open(io.BytesIO(pictures.png(picture, 200))))
    np.testing.assert_array_equal(read, pictures.image(picture, 200))
    for x, y in circles(picture, "black"):
        place = [round(k * 200 / picture.side) for k in (y + 12, x + 8)]
        assert read[tuple(place)].max() < 70
    for x, y in circles(picture, "white"):
        assert read[round((y + 12) * 200 / picture.side), round((x + 8) * 200 / picture.side)].min() > 180


def test_the_last_move_is_marked():
    plain = pictures.Picture(text.read(DIAGRAM))
    for last, differs in ((12, True), (16, True), (25, False)):  # 25: a pass
        marked = pictures.Picture(text.read(DIAGRAM), last=last)
        changed = np.argwhere((pictures.image(plain) != pictures.image(marked)).any(-1))
        assert bool(len(changed)) == differs
        if differs:
            assert abs(changed - np.array(marked.place(last, 400))[::-1]).max() < 30
    assert "last move: C3" in pictures.svg(pictures.Picture(text.read(DIAGRAM), last=12))
    assert "last move: pass" in pictures.svg(pictures.Picture(text.read(DIAGRAM), last=25))


def test_numbers_of_the_moves_that_are_still_there():
    board = Board(go.Rules(size=5, komi=0.5))
    for name in ("B1", "A1", "A2", "pass", "A1"):  # white's stone is taken, and black goes there
        board.play(text.move_of(name, 5))
    picture = pictures.of_board(board, numbers=True, coordinates=False)
    assert picture.labels == {21: "1", 15: "3", 20: "5"} and picture.last == 20
    assert sorted(texts(picture)) == ["1", "3", "5"]
    assert (pictures.image(picture) != pictures.image(pictures.of_board(board, coordinates=False))).any()
    assert pictures.of_board(board).labels == {}


def test_heat_is_hottest_at_the_largest_value():
    heat = np.zeros(26)
    heat[6], heat[8], heat[25] = 0.6, 0.06, 0.34
    picture = pictures.Picture(np.zeros(25), heat=heat)
    hot, warm, cold = (pixel(picture, point) for point in (6, 8, 16))
    assert hot[0] > 170 and hot[1] < 100 and abs(cold - WOOD).max() < 40
    assert warm[1] > warm[0]  # greenish
    fills = [e.get("fill") for e in ElementTree.fromstring(pictures.svg(picture)) if e.get("rx")]
    assert len(fills) == 2
    np.testing.assert_array_equal(pictures.image(pictures.Picture(np.zeros(25), heat=np.zeros([5, 5]))),
                                  pictures.image(pictures.Picture(np.zeros(25))))


def test_ownership_is_marked_in_the_owner_s_colour():
    owners = np.zeros([5, 5])
    owners[1, 1], owners[3, 3] = 1, -1
    picture = pictures.Picture(np.zeros(25), ownership=owners)
    painted = pictures.image(picture)
    x, y = (round(k) for k in picture.place(6, 400))
    assert painted[y, x].max() < 60
    x, y = (round(k) for k in picture.place(18, 400))
    assert painted[y, x].min() > 200


def test_labels_are_escaped():
    picture = pictures.Picture(np.zeros(25), labels={3: "<&"}, coordinates=False)
    assert texts(picture) == ["<&"]


def test_images_are_a_batch():
    batch = pictures.images([pictures.Picture(np.zeros(25)), pictures.Picture(np.ones(25))], 60)
    assert batch.shape == (2, 60, 60, 3) and batch.dtype == np.uint8 and batch[0].mean() > batch[1].mean()


@pytest.mark.parametrize("arguments, words", [
    ({"stones": np.zeros([4, 4])}, "5 to 19 points a side; received stones of shape"),
    ({"stones": np.zeros([5, 6])}, "received stones of shape"), ({"stones": np.zeros(400)}, "5 to 19"),
    ({"stones": np.full(25, 2)}, r"received \[2\]"), ({"last": 26}, "0 to 25; received 26"),
    ({"labels": {25: "1"}}, "0 to 24; received 25"), ({"heat": np.zeros(27)}, r"heat of a board of 5 .* \(27,\)"),
    ({"heat": -np.ones(25)}, "heat must be finite numbers at least 0; received -1"),
    ({"heat": np.full(25, np.nan)}, "received nan"), ({"ownership": np.zeros(26)}, "ownership of a board"),
    ({"ownership": np.full(25, 1.5)}, "from -1 to 1; received 1.5"),
])
def test_bad_input(arguments, words):
    with pytest.raises(ValueError, match=words):
        pictures.Picture(**{"stones": np.zeros(25), **arguments})


@pytest.mark.parametrize("pixels", [39, 4001, 100.5])
@pytest.mark.parametrize("form", [pictures.svg, pictures.png, pictures.image])
def test_bad_sizes(pixels, form):
    with pytest.raises(ValueError, match="40 to 4000 pixels"):
        form(pictures.Picture(np.zeros(25)), pixels)


def test_the_smallest_picture_of_the_largest_board():
    picture = pictures.Picture(np.ones(361), heat=np.ones(361), ownership=np.full(361, 0.02), labels={0: "361"})
    assert pictures.image(picture, 40).shape == (40, 40, 3)
