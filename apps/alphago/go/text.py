"""Boards and moves as people write them: diagrams of X, O and dots, and names such as D4 and pass."""

import numpy as np

from apps.alphago.go import rules as go

COLUMNS = "ABCDEFGHJKLMNOPQRST"  # no I
_SIGNS = {go.BLACK: "X", go.WHITE: "O", 0: "."}
_VALUES = {"X": go.BLACK, "#": go.BLACK, "O": go.WHITE, ".": 0, "+": 0}


def name_of(move, size):
    """"D4" of a point, "pass" of size²."""
    row, column = divmod(int(move), size)
    return "pass" if row == size else f"{COLUMNS[column]}{size - row}"


def move_of(name, size):
    """The move of a name, in any case.

    Raises:
        ValueError: there is no such point.
    """
    text = name.strip().upper()
    if text == "PASS":
        return size * size
    column, row = COLUMNS.find(text[:1]) if text else -1, text[1:]
    if not 0 <= column < size or not (row.isascii() and row.isdigit()) or not 1 <= int(row) <= size:
        raise ValueError(f"{name!r} is no point of a board of {size}: expected pass, or a letter A to "
                         f"{COLUMNS[size - 1]} without I and a number 1 to {size}, such as "
                         f"{COLUMNS[size // 2]}{size // 2 + 1}.")
    return (size - int(row)) * size + column


def show(stones, marks=None):
    """A diagram of a board.

    Args:
        stones: int [P] or [N, N], +1, -1, 0.
        marks: {point: one character shown instead of a dot}, or None.
    """
    stones = np.asarray(stones)
    size = int(round(stones.size**0.5))
    rows = stones.reshape(size, size)
    stars = set(star_points(size))
    lines = ["   " + " ".join(COLUMNS[:size])]
    for row in range(size):
        signs = [_SIGNS[int(value)] for value in rows[row]]
        for column in range(size):
            point = row * size + column
            if not rows[row, column]:
                signs[column] = (marks or {}).get(point, "+" if point in stars else ".")
        lines.append(f"{size - row:2d} {' '.join(signs)} {size - row}")
    return "\n".join([*lines, lines[0]])


def read(diagram):
    """int8 [N, N] of a diagram, with coordinates or without.

    Raises:
        ValueError: lines of different lengths, unknown signs, or a size that no board has.
    """
    rows = []
    for line in diagram.strip().splitlines():
        signs = [sign for sign in line.strip("0123456789 ").replace(" ", "")]
        if signs and not set(signs) <= set(_VALUES):
            if "".join(signs).upper() == COLUMNS[:len(signs)]:
                continue  # names of the columns
            wrong = next(sign for sign in signs if sign not in _VALUES)
            raise ValueError(f"Line {line.strip()!r} of a board has {wrong!r}; expected X, O and dots.")
        if signs:
            rows.append([_VALUES[sign] for sign in signs])
    if not 5 <= len(rows) <= 19 or any(len(row) != len(rows) for row in rows):
        raise ValueError("A board is a square of 5 to 19 points a side; received rows of "
                         f"{[len(row) for row in rows]}.")
    return np.array(rows, np.int8)


def star_points(size):
    """Points that a board marks, those of the corners first."""
    if size < 7:
        return [size * size // 2] if size % 2 else []
    edge, middle = (3 if size > 12 else 2), size // 2
    far = size - 1 - edge
    points = [(edge, far), (far, edge), (far, far), (edge, edge)]  # rows from above
    if size % 2:
        points.append((middle, middle))
        if size > 12:
            points += [(middle, edge), (middle, far), (edge, middle), (far, middle)]
    return [row * size + column for row, column in points]


def handicap_points(size, stones):
    """Where so many handicap stones go, as the Go Text Protocol has it: D4 Q16 D16 Q4 D10 Q10 K4 K16 and K10.

    Boards of less than 7 points, for which the protocol has none, have them on the second line.

    Raises:
        ValueError: fewer than 2, or more than 9; more than 4 on boards of 7 and less, or with an even size.
    """
    most = 9 if size % 2 and size > 7 else 4
    if not 2 <= stones <= most:
        raise ValueError(f"A board of {size} has 2 to {most} handicap stones; received {stones}.")
    edge, middle = (3 if size > 12 else 2 if size > 6 else 1), size // 2
    far = size - 1 - edge
    points = [(far, edge), (edge, far), (edge, edge), (far, far)][:stones]  # rows from above
    points += [(middle, edge), (middle, far), (far, middle), (edge, middle)][:max(0, stones - 4) // 2 * 2]
    if stones > 4 and stones % 2:
        points.append((middle, middle))
    return [row * size + column for row, column in points]
