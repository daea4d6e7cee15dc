"""Games as SGF files (FF[4]); the grammar, with its variations, escapes and encodings, is `sgfmill`'s."""

import dataclasses
import math
import pathlib

import numpy as np
from sgfmill import sgf

from apps.alphago.go import rules as go
from apps.alphago.go import text

_COLOURS = {"b": go.BLACK, "w": go.WHITE}
_LETTERS = {colour: letter for letter, colour in _COLOURS.items()}
RESIGNATION = float("inf")


@dataclasses.dataclass(frozen=True)
class Record:
    """One game: the main line of its file.

    Attributes:
        size: points a side.
        komi: points for white, as the file says; 0 where it does not.
        moves: ((colour, move), ...), colour +1 or -1, move a point or P for a pass.
        setup: int8 [N, N], stones that were there before the first move.
        margin: points by which black won, negative for white; plus or minus infinity where the other gave up, lost on
            time or by forfeit; None where the file does not say.
        names: of black and of white.
        comments: {number of moves before it: text}.
        turn: who is to move first, +1 or -1; 0: who made the first move, black where there is none.
    """

    size: int
    komi: float = 0.0
    moves: tuple = ()
    setup: np.ndarray | None = None
    margin: float | None = None
    names: tuple = ("", "")
    comments: dict = dataclasses.field(default_factory=dict)
    turn: int = 0

    @property
    def first(self):
        """Who is to move first, +1 or -1."""
        return self.turn or (self.moves[0][0] if self.moves else go.BLACK)


def tree_of(content, name):
    """The whole tree of a file, `sgfmill.sgf.Sgf_game`: `get_root()` has the properties, and children the variations.

    Args:
        content: bytes, in the encoding that they name.
        name: of the file, for errors.

    Raises:
        ValueError: it is no SGF file of a game of Go.
    """
    try:
        tree = sgf.Sgf_game.from_bytes(content)
        size = tree.get_size()
    except ValueError as error:
        raise ValueError(f"{name} is not a game of Go in SGF: {error}.") from error
    if not 5 <= size <= 19:
        raise ValueError(f"{name}: the board has {size} points a side; expected 5 to 19.")
    return tree


def record_of(tree, name):
    """The main line of a tree as `Record`.

    Raises:
        ValueError: stones are set up after the first move, or a property is damaged.
    """
    size = tree.get_size()
    setup, moves, comments, turn = np.zeros([size, size], np.int8), [], {}, 0
    for node in tree.get_main_sequence():
        try:
            if node.has_setup_stones():
                if moves:
                    raise ValueError("stones are set up in the middle of the game")
                for points, value in zip(node.get_setup_stones(), (go.BLACK, go.WHITE, 0)):
                    for row, column in points:
                        setup[size - 1 - row, column] = value
            if node.has_property("PL") and not moves:
                turn = _COLOURS[node.get("PL")]
            letter, point = node.get_move()
            if letter is not None:
                moves.append((_COLOURS[letter], size * size if point is None else _move(point, size)))
            if node.has_property("C"):
                comments[len(moves)] = node.get("C")
        except (ValueError, KeyError) as error:
            raise ValueError(f"{name}: damaged after move {len(moves)}: {error}.") from error
    root = tree.get_root()
    if not turn and not moves and _handicap(setup) >= 2 and root.has_property("HA") and root.get_raw("HA") != b"0":
        turn = go.WHITE
    try:
        names = tuple(str(root.get(key)) if root.has_property(key) else "" for key in ("PB", "PW"))
        komi, margin = tree.get_komi(), _margin(tree)
        if not math.isfinite(komi):
            raise ValueError(f"KM is {komi}")
    except ValueError as error:
        raise ValueError(f"{name}: {error}.") from error
    return Record(size, komi, tuple(moves), setup if setup.any() else None, margin, names, comments, turn)


def read(path):
    """`Record` of the main line of a file.

    Raises:
        ValueError: the file cannot be read as a game; it names the file and where.
    """
    path = pathlib.Path(path)
    return record_of(tree_of(path.read_bytes(), path.name), path.name)


def write(record):
    """Bytes of a file."""
    tree = sgf.Sgf_game(record.size, encoding="UTF-8")
    root = tree.get_root()
    root.set("KM", record.komi)
    for key, name in zip(("PB", "PW"), record.names):
        if name:
            root.set(key, name)
    if record.margin is not None:
        root.set("RE", result_of(record.margin))
    if record.setup is not None:
        black, white = ([_point(p, record.size) for p in np.flatnonzero(record.setup == value)]
                        for value in (go.BLACK, go.WHITE))
        root.set_setup_stones(black, white)
        if record.first == go.WHITE and _handicap(record.setup) >= 2:
            root.set("HA", _handicap(record.setup))
    if record.setup is not None or record.first != (record.moves[0][0] if record.moves else go.BLACK):
        root.set("PL", _LETTERS[record.first])
    for number, (colour, move) in enumerate(((None, None), *record.moves)):
        node = root if number == 0 else tree.extend_main_sequence()
        if number:
            node.set_move(_LETTERS[colour], None if move == record.size**2 else _point(move, record.size))
        if number in record.comments:
            node.set("C", record.comments[number])
    return tree.serialise()


def replay(rules, record, name):
    """The game after each move of a record, as a list of `State`s with B = 1; the first is that before any move.

    Raises:
        ValueError: wrong size, or an illegal move: the file's name and the move.
    """
    if record.size != rules.size:
        raise ValueError(f"{name}: the board has {record.size} points a side; expected {rules.size}.")
    play, legal = go.program(rules, "play"), go.program(rules, "legal")
    state = go.new(rules, 1) if record.setup is None else go.from_stones(rules, record.setup)
    if record.first != go.BLACK:
        state = go.with_turn(state, record.first)
    states = [state]
    for number, (colour, move) in enumerate(record.moves, 1):
        if state.turn.numpy()[0] != colour:
            state = go.with_turn(state, colour)
        if not legal(state).numpy()[0, move]:
            side = "black" if colour == go.BLACK else "white"
            raise ValueError(f"{name}: move {number}, {side} {text.name_of(move, rules.size)}, is illegal here:\n"
                             f"{text.show(state.stones.numpy()[0])}")
        state = play(state, np.array([move], np.int32))
        states.append(state)
    return states


def _handicap(setup):
    """Number of handicap stones among those set up: all of them, or 0 where white has some too."""
    return 0 if (setup == go.WHITE).any() else int(np.count_nonzero(setup))


def _move(point, size):
    row, column = point
    return (size - 1 - row) * size + column


def _point(move, size):
    row, column = divmod(int(move), size)
    return size - 1 - row, column


def _margin(tree):
    root = tree.get_root()
    result = root.get("RE").strip().upper() if root.has_property("RE") else ""
    if result in ("0", "DRAW", "JIGO"):
        return 0.0
    side = {"B+": 1, "W+": -1}.get(result[:2])
    if side is None:
        return None
    try:
        points = float(result[2:])
    except ValueError:
        return side * RESIGNATION
    return side * points if math.isfinite(points) else None


def result_of(margin):
    """A margin as SGF writes it: B+5.5, W+R, 0."""
    if margin == 0:
        return "0"
    size = "R" if abs(margin) == RESIGNATION else f"{abs(margin):g}"
    return f"{'B' if margin > 0 else 'W'}+{size}"
