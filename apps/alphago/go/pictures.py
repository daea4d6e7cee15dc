"""Boards as pictures: SVG text, PNG bytes and arrays for TensorBoard.

A picture is first a list of shapes (`drawing.py`), which is then written or painted; so all forms show the same.

Shapes: P = size² points in rows from the upper left corner, N = size, H = W = pixels of a side, K pictures.
"""

import dataclasses
import io
import math

import numpy as np
from PIL import Image

from apps.alphago.go import drawing, text
from apps.alphago.go import rules as go

_CELL = 40  # from a line to the next; everything is measured in these units
_WOOD, _GRAIN, _INK, _RIM = "#dfb46c", "#8a5a1c", "#3d2a12", "#a97a35"
_DARK, _LIGHT, _RED = "#17130c", "#f7f5ee", "#c8102e"
_HEAT = np.array([(40, 110, 210), (20, 165, 150), (250, 200, 50), (222, 40, 45)])  # cold to hot
_PLACES = np.linspace(0, 1, len(_HEAT))
_LABEL_SIZES = {1: 20, 2: 19, 3: 15}  # by the number of letters


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """What a picture shows.

    Attributes:
        stones: int [N, N] or [P], +1, -1 or 0; N is 5 to 19.
        last: the last move, which is marked; P (a pass) and None mark nothing.
        labels: {point: short text}, such as numbers of moves; on stones or between them.
        heat: float [P] or [N, N], at least 0: a policy, visits; the largest is the hottest. [P + 1]: the last is the
            pass, which has no place on the board.
        ownership: float [P] or [N, N], -1 (white's) to 1 (black's): squares of that colour and size.
        coordinates: whether letters and numbers stand at the edges.

    Raises:
        ValueError: any of them has the wrong shape or values out of range.
    """

    stones: np.ndarray
    last: int | None = None
    labels: dict = dataclasses.field(default_factory=dict)
    heat: np.ndarray | None = None
    ownership: np.ndarray | None = None
    coordinates: bool = True

    def __post_init__(self):
        stones = np.asarray(self.stones)
        size = math.isqrt(stones.size)
        if stones.shape not in ((size * size,), (size, size)) or not 5 <= size <= 19:
            raise ValueError(f"A board is a square of 5 to 19 points a side; received stones of shape {stones.shape}.")
        if not np.isin(stones, (go.BLACK, go.WHITE, 0)).all():
            raise ValueError(f"Stones are +1, -1 or 0; received {np.unique(stones).tolist()}.")
        if self.last is not None and not 0 <= self.last <= size * size:
            raise ValueError(f"The last move must be 0 to {size * size}; received {self.last}.")
        for point in self.labels:
            if not 0 <= point < size * size:
                raise ValueError(f"The point of a label must be 0 to {size * size - 1}; received {point}.")
        for name, value in (("stones", stones.ravel().astype(np.int8)),
                            ("heat", _values(self.heat, size, "heat", 0, np.inf, with_pass=True)),
                            ("ownership", _values(self.ownership, size, "ownership", -1, 1))):
            object.__setattr__(self, name, value)

    @property
    def size(self):
        """N."""
        return math.isqrt(self.stones.size)

    @property
    def side(self):
        """Length of a side of the picture, in units of its shapes."""
        return (self.size - 1) * _CELL + 2 * self._margin

    @property
    def _margin(self):
        return _CELL * (1.25 if self.coordinates else 0.75)

    def place(self, point, pixels):
        """(x, y) of a point, from the upper left corner of a picture of so many pixels a side."""
        row, column = divmod(int(point), self.size)
        return tuple((self._margin + number * _CELL) * pixels / self.side for number in (column, row))


def of_board(board, numbers=False, **properties):
    """`Picture` of a `board.Board`: its stones and last move; `numbers`: each stone shows which move it was."""
    stones, labels = board.stones.ravel(), {}
    if numbers:
        labels = {move: str(number) for number, (_, move) in enumerate(board.moves, 1)
                  if move < stones.size and stones[move]}
    return Picture(stones, board.moves[-1][1] if board.moves else None, labels, **properties)


def svg(picture, pixels=400):
    """Text of an SVG file.

    Raises:
        ValueError: `pixels` is out of range.
    """
    return drawing.write(_shapes(picture), picture.side, _checked(pixels), _title(picture))


def image(picture, pixels=400):
    """uint8 [H, W, 3].

    Raises:
        ValueError: `pixels` is out of range.
    """
    return drawing.paint(_shapes(picture), picture.side, _checked(pixels))


def images(pictures, pixels=400):
    """uint8 [K, H, W, 3] for TensorBoard: `tf.summary.image("games", images(pictures), step)`."""
    return np.stack([image(picture, pixels) for picture in pictures])


def png(picture, pixels=400):
    """Bytes of a PNG file.

    Raises:
        ValueError: `pixels` is out of range.
    """
    file = io.BytesIO()
    Image.fromarray(image(picture, pixels)).save(file, "PNG")
    return file.getvalue()


def _values(values, size, name, least, most, with_pass=False):
    """float64 [P], or None."""
    if values is None:
        return None
    values, points = np.asarray(values, np.float64), size * size
    shapes = [(points,), (size, size)] + [(points + 1,)] * with_pass
    if values.shape not in shapes:
        raise ValueError(f"{name} of a board of {size} has one of the shapes {shapes}; received {values.shape}.")
    if not (np.isfinite(values) & (values >= least) & (values <= most)).all():
        limits = f"at least {least}" if most == np.inf else f"from {least} to {most}"
        raise ValueError(f"{name} must be finite numbers {limits}; received {values.min()} to {values.max()}.")
    return values.ravel()[:points]


def _checked(pixels):
    if int(pixels) != pixels or not 40 <= pixels <= 4000:
        raise ValueError(f"A picture has 40 to 4000 pixels a side; received {pixels}.")
    return int(pixels)


def _title(picture):
    black, white = (int((picture.stones == side).sum()) for side in (go.BLACK, go.WHITE))
    last = "" if picture.last is None else f"; last move: {text.name_of(picture.last, picture.size)}"
    return f"Go board of {picture.size}; stones: {black} black, {white} white{last}"


def _shapes(picture):
    """All shapes, from the lowest to the uppermost."""
    yield from _wood(picture.side)
    yield from _grid(picture)
    if picture.heat is not None:
        yield from _heat(picture)
    for point in np.flatnonzero(picture.stones):
        x, y = picture.place(point, picture.side)
        yield drawing.Disc(x + 1.5, y + 2.5, 0.52 * _CELL, "shadow")
    for point in np.flatnonzero(picture.stones):
        fill, edge = ("black", "#000000") if picture.stones[point] == go.BLACK else ("white", "#8d8a82")
        yield drawing.Disc(*picture.place(point, picture.side), 0.475 * _CELL, fill, edge, 0.8)
    yield from _ownership(picture)
    yield from _labels(picture)


def _wood(side):
    yield drawing.Box(0, 0, side, side, _WOOD)
    noise = np.random.default_rng(6)
    x = np.linspace(0, side, 13)
    for y in np.sort(noise.uniform(0, side, int(side / 9))):
        wave = y + 5 * np.sin(x / noise.uniform(90, 240) + noise.uniform(0, 6))
        yield drawing.Line(tuple(zip(x, wave)), noise.uniform(0.8, 3.0), _GRAIN, round(noise.uniform(0.04, 0.15), 3))
    for box in ((0, 0, side, 3), (0, 0, 3, side), (0, side - 3, side, 3), (side - 3, 0, 3, side)):
        yield drawing.Box(*box, _RIM)


def _grid(picture):
    size = picture.size
    (first, _), (last, _) = picture.place(0, picture.side), picture.place(size - 1, picture.side)
    for number in range(size):
        at, half = first + number * _CELL, (1.2 if number in (0, size - 1) else 0.65)
        yield drawing.Box(first - half, at - half, last - first + 2 * half, 2 * half, _INK)
        yield drawing.Box(at - half, first - half, 2 * half, last - first + 2 * half, _INK)
    for point in text.star_points(size):
        yield drawing.Disc(*picture.place(point, picture.side), 4.2, _INK)
    for number in range(size if picture.coordinates else 0):
        at = first + number * _CELL
        for edge in (0.45 * _CELL, picture.side - 0.45 * _CELL):
            yield drawing.Text(at, edge, text.COLUMNS[number], 16, _INK)
            yield drawing.Text(edge, at, str(size - number), 16, _INK)


def _heat(picture):
    top = max(picture.heat.max(), np.finfo(np.float64).tiny)
    for point in np.flatnonzero(picture.heat > 0.002 * top):
        share = math.sqrt(picture.heat[point] / top)  # with the share itself, only the hottest could be seen
        colour = "#" + "".join(f"{round(np.interp(share, _PLACES, part)):02x}" for part in _HEAT.T)
        x, y = picture.place(point, picture.side)
        yield drawing.Box(x - 0.46 * _CELL, y - 0.46 * _CELL, 0.92 * _CELL, 0.92 * _CELL, colour,
                          round(0.3 + 0.55 * share, 3), 6)


def _ownership(picture):
    for point, value in enumerate(() if picture.ownership is None else picture.ownership):
        half = 0.2 * _CELL * math.sqrt(abs(value))
        if half < 1:
            continue
        x, y = picture.place(point, picture.side)
        fill, edge = (_DARK, _LIGHT) if value > 0 else (_LIGHT, _DARK)
        yield drawing.Box(x - half - 1, y - half - 1, 2 * half + 2, 2 * half + 2, edge, 0.9)
        yield drawing.Box(x - half, y - half, 2 * half, 2 * half, fill)


def _labels(picture):
    """Labels, and the mark of the last move where it has none."""
    stones, last = picture.stones, picture.last
    if last is not None and last < stones.size and last not in picture.labels:
        yield drawing.Disc(*picture.place(last, picture.side), 0.22 * _CELL, "",
                           _LIGHT if stones[last] == go.BLACK else _RED, 3.4)
    for point, label in sorted(picture.labels.items()):
        x, y = picture.place(point, picture.side)
        if not stones[point] and (picture.heat is None or not picture.heat[point]):
            yield drawing.Disc(x, y, 0.4 * _CELL, _WOOD)  # lines do not cross the label
        colour = _LIGHT if stones[point] == go.BLACK else _DARK
        if point == last:
            colour = "#ff8d7a" if stones[point] == go.BLACK else _RED
        yield drawing.Text(x, y, str(label), _LABEL_SIZES.get(len(str(label)), 11), colour)
