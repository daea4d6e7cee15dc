"""Positions of games that there are, as data to train on: records in SGF, or what a run of `train_zero` has played.

B positions of a batch, N points a side, C planes, P = N² points, A = P + 1 moves.
"""

import dataclasses
import functools
import pathlib
import sys
import typing
import zipfile

import numpy as np
import tensorflow as tf

from apps.alphago import games, networks, replay, selfplay, settings
from apps.alphago.config import ZeroConfig
from apps.alphago.go import features, sgf
from apps.alphago.go import rules as go
from apps.alphago.search import tree as trees
from apps.common import config as config_lib
from apps.common.splits import Splits, evaluation_stream, training_stream
from layers.checking import unknown_name

DATA = ("sgf", "replay")
PARTS = {"train": ("train",), "validation": ("validation", "val", "dev"), "test": ("test",)}
DEFAULT_MODEL, DEFAULT_SIZE, DEFAULT_POOLING, DEFAULT_HIDDEN = "zero_4x48", 9, 2, 64
_SHOWN = 3  # bad records named in a warning
_BATCH = 64  # games played again at once


@dataclasses.dataclass(frozen=True)
class GamesSpec:
    """What the network is made of, the `go.Rules` of the games, and how many games each part has, {part: number}, where
    that is known: parts of a replay are cut by positions."""

    structure: networks.Structure
    rules: go.Rules
    num_games: dict


@dataclasses.dataclass(frozen=True)
class GamesSplits(Splits):
    """`representative(count)`: planes [count, N, N, C] of training positions, float32."""

    representative: object = None


class Positions(typing.NamedTuple):
    """M positions: `planes` uint8 [M, bytes], bits; `targets` {name: [M, ...]}, of which "policy" is the move that was
    played, int [M], or the shares of visits, [M, A]; the number of games that they are of, None where it is unknown."""

    planes: np.ndarray
    targets: dict
    num_games: int | None


def load(config):
    """Reads the games that `config` names.

    Returns:
        `GamesSplits` whose spec is a `GamesSpec`. Training positions come under a symmetry of the board each.

    Raises:
        ValueError: the name, the files or the flags are wrong; nothing is trained then.
    """
    if config.data not in DATA:
        raise unknown_name("data set", config.data, DATA)
    if not config.data_dir:
        raise ValueError(f"--data={config.data} needs --data_dir; received none. Expected " + (
            "a folder or a .zip of SGF files." if config.data == "sgf" else "the workdir of a run of train_zero."))
    structure, rules, parts = (read_sgf if config.data == "sgf" else read_replay)(config)
    if len(parts["train"].planes) < config.batch_size:
        raise ValueError(f"--data_dir={config.data_dir} has {len(parts['train'].planes)} training positions: expected "
                         f"at least a batch of {config.batch_size}. Give more games, or a smaller --batch_size.")
    streams = {part: evaluation_stream(len(found.planes), config.batch_size, functools.partial(
        _fetcher(structure, found), symmetry=None)) if len(found.planes) else None for part, found in parts.items()}
    fetch = _fetcher(structure, parts["train"])
    train = training_stream(len(parts["train"].planes), config.batch_size, config.seed, lambda index, noise: fetch(
        index, tf.cast(noise[:, 0] * 8, tf.int32)), num_noise=1)
    chosen = np.random.default_rng(config.seed).permutation(len(parts["train"].planes))
    return GamesSplits(
        train, streams["validation"], streams["test"],
        GamesSpec(structure, rules, {part: found.num_games for part, found in parts.items()
                                     if found.num_games is not None}),
        lambda count: fetch(tf.constant(chosen[:count]), None)[0].numpy())


def _fetcher(structure, positions):
    """(numbers int64 [B], symmetries int32 [B] or None) -> (planes float32 [B, N, N, C], {head: [B, ...]})."""
    size, wanted = structure.size, ["policy", "value"] + [
        name for name in ("ownership", "score") if getattr(structure, name)]
    with tf.device("CPU:0"):  # where tf.data runs
        bits = tf.constant(positions.planes)
        targets = {name: tf.constant(positions.targets[name]) for name in wanted}

    def fetch(index, symmetry):
        rows = tf.bitwise.right_shift(tf.gather(bits, index)[:, :, None], np.arange(7, -1, -1, dtype=np.uint8)) & 1
        planes = tf.reshape(rows, [-1, bits.shape[1] * 8])[:, :size * size * structure.planes]
        planes = tf.cast(tf.reshape(planes, [-1, size, size, structure.planes]), tf.float32)
        found = {name: tf.gather(values, index) for name, values in targets.items()}
        if found["policy"].shape.rank == 1:
            found["policy"] = tf.one_hot(found["policy"], structure.num_actions)
        found = {name: tf.cast(values, tf.float32) for name, values in found.items()}
        if symmetry is None:
            return planes, found
        found["policy"] = features.transform_moves(size, found["policy"], symmetry)
        if "ownership" in found:
            found["ownership"] = features.transform_planes(size, found["ownership"], symmetry)
        return features.transform_planes(size, planes, symmetry), found

    return fetch


def read_replay(config):
    """(structure, rules, {part: `Positions`}) of what a run played; the newest positions are the test.

    The structure is that of the run, but for what the flags say.
    """
    theirs, _ = config_lib.load(ZeroConfig, config.data_dir)
    if theirs.game != "go":
        raise ValueError(f"--data_dir={config.data_dir} has played {theirs.game}; this program learns Go.")
    if config.size and config.size != theirs.size:
        raise ValueError(f"--data_dir={config.data_dir} was played on {theirs.size} points a side; received "
                         f"--size={config.size}.")
    setting = settings.setting_of(theirs.replace(
        model=config.model or theirs.model, hidden=config.hidden or theirs.hidden,
        pooling_every=theirs.pooling_every if config.pooling_every < 0 else config.pooling_every,
        heads=config.heads or theirs.heads))
    store = replay.Replay(pathlib.Path(config.data_dir) / "replay", setting.game, setting.new_state,
                          window=config.window)
    planes, targets = store.examples()
    count = len(planes)
    ends = np.cumsum([0, *(round(part * count) for part in (
        1 - config.validation_fraction - config.test_fraction, config.validation_fraction)), count])
    ends[-1] = count
    parts = {part: Positions(planes[a:b], {name: values[a:b] for name, values in targets.items()}, None)
             for part, a, b in zip(PARTS, ends, ends[1:])}
    return setting.structure, setting.rules, parts


def read_sgf(config):
    """(structure, rules, {part: `Positions`}) of SGF files; bad ones are counted, reported and left out.

    Files in folders called train, validation (or val, dev) and test are those parts; where there is no test, or no
    validation, games are set aside.
    """
    rules = go.Rules(size=config.size or DEFAULT_SIZE)
    blocks, filters = settings.blocks_and_filters(config.model or DEFAULT_MODEL)
    structure = networks.Structure(
        size=rules.size, num_actions=rules.num_points + 1, planes=features.NUM_ZERO_PLANES, blocks=blocks,
        filters=filters, pooling_every=DEFAULT_POOLING if config.pooling_every < 0 else config.pooling_every,
        hidden=config.hidden or DEFAULT_HIDDEN, heads=config.heads or networks.HEADS[0])
    records, bad = {part: [] for part in PARTS}, []
    for name, content in _files(config.data_dir):
        try:
            records[_part_of(name)].append((name, checked_record(content, name, rules)))
        except ValueError as error:
            bad.append(str(error))
    for part in PARTS:
        kept, illegal = without_illegal(rules, records[part])
        records[part] = kept
        bad += illegal
    _report(config, bad, sum(map(len, records.values())))
    parts = _set_aside(records, config)
    return structure, rules, {part: _positions(rules, found, structure.planes) for part, found in parts.items()}


def _files(data_dir):
    """(name, content) of each SGF file of a folder or a .zip, in the order of their names."""
    path = pathlib.Path(data_dir).expanduser()
    if path.is_dir():
        found = [(str(file.relative_to(path)), file) for file in sorted(path.rglob("*.sgf"))]
        files = [(name, file.read_bytes()) for name, file in found]
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = sorted(name for name in archive.namelist() if name.lower().endswith(".sgf"))
            files = [(name, archive.read(name)) for name in names]
    else:
        raise ValueError(f"--data_dir={data_dir} is neither a folder nor a .zip: expected SGF files in one.")
    if not files:
        raise ValueError(f"--data_dir={data_dir} holds no game: expected files ending in .sgf.")
    return files


def _part_of(name):
    folders = {folder.lower() for folder in pathlib.PurePath(name).parts[:-1]}
    return next((part for part, words in PARTS.items() if folders & set(words)), "train")


def checked_record(content, name, rules):
    """`sgf.Record` of an even game with a result that can be learned from.

    Args:
        content: bytes of the file.
        name: of the file, for errors.
        rules: `go.Rules`.

    Raises:
        ValueError: it is none; the message names the file.
    """
    record = sgf.record_of(sgf.tree_of(content, name), name)
    if record.size != rules.size:
        raise ValueError(f"{name}: the board has {record.size} points a side; expected {rules.size}")
    if record.setup is not None:
        raise ValueError(f"{name}: stones are set up before the first move")
    if record.margin is None:
        raise ValueError(f"{name}: the file names no winner")
    if not record.moves or any(colour != (go.BLACK, go.WHITE)[number % 2]
                               for number, (colour, _) in enumerate(record.moves)):
        raise ValueError(f"{name}: black and white do not take turns")
    return record


def without_illegal(rules, records):
    """(records whose moves are all legal, what is wrong with the others)."""
    if not records:
        return [], []
    longest = -(-max(len(record.moves) for _, record in records) // 32) * 32
    kept, bad = [], []
    for start in range(0, len(records), _BATCH):
        some = records[start:start + _BATCH]
        table = np.full([_BATCH, longest], selfplay.NOTHING, np.int32)
        for row, (_, record) in enumerate(some):
            table[row, :len(record.moves)] = [move for _, move in record.moves]
        for (name, record), legal in zip(some, _legality(rules, longest)(table).numpy().T):
            wrong = np.flatnonzero(~legal)
            if len(wrong):
                bad.append(f"{name}: move {wrong[0] + 1} is illegal")
            else:
                kept.append((name, record))
    return kept, bad


@functools.cache
def _legality(rules, longest):
    """Program from moves int32 [G, T] to whether each is legal, bool [T, G]; what stands for nothing is."""
    @tf.function(jit_compile=True)
    def run(moves):
        def step(number, state, found):
            move = moves[:, number]
            is_move = move != selfplay.NOTHING
            legal = tf.gather(go.legal(rules, state), tf.maximum(move, 0), batch_dims=1)
            after = go.play(rules, state, tf.maximum(move, 0))
            return (number + 1, trees.select(is_move, after, state),
                    tf.tensor_scatter_nd_update(found, [[number]], (legal | ~is_move)[None]))

        begin = (0, go.new(rules, _BATCH), tf.ones([longest, _BATCH], tf.bool))
        return tf.while_loop(lambda number, *_: number < longest, step, begin)[2]

    return run


def _report(config, bad, count):
    """Says which records are left out; raises ValueError under --strict_data, or where none is left."""
    if not bad:
        return
    message = (f"--data_dir={config.data_dir}: {len(bad)} of {len(bad) + count} games cannot be learned from "
               f"({'; '.join(bad[:_SHOWN])}{'; …' if len(bad) > _SHOWN else ''})")
    if config.strict_data or not count:
        raise ValueError(f"{message}. Mend or remove them" + ("." if not count else ", or leave --strict_data out."))
    print(f"warning: {message}; left out", file=sys.stderr)


def _set_aside(records, config):
    """Whole games of the training part for the parts that are missing, by a seed of their own, not the run's."""
    parts = {part: list(found) for part, found in records.items()}
    order = np.random.default_rng(0).permutation(len(records["train"]))
    for part, fraction in (("test", config.test_fraction), ("validation", config.validation_fraction)):
        if not parts[part] and fraction:
            count = max(1, round(fraction * len(records["train"])))
            parts[part], order = [records["train"][i] for i in order[:count]], order[count:]
    parts["train"] = [records["train"][i] for i in sorted(order)]
    for part in ("train", "test"):
        if not parts[part]:
            raise ValueError(f"--data_dir={config.data_dir} leaves no game for the {part} part.")
    return parts


def _positions(rules, records, num_planes):
    """`Positions` of all moves of records."""
    if not records:
        size = -(-rules.num_points * num_planes // 8)
        return Positions(np.zeros([0, size], np.uint8), {"policy": np.zeros(0, np.int32), "value": np.zeros([0, 1])}, 0)
    game, new_games = _game(rules)
    lengths = np.array([len(record.moves) for _, record in records])
    actions = np.array([move for _, record in records for _, move in record.moves], np.int32)
    colours = np.array([colour for _, record in records for colour, _ in record.moves])
    planes, _, _ = replay.positions(game, new_games, actions, lengths, np.ones(len(actions), bool))
    winner = np.repeat([np.sign(record.margin) for _, record in records], lengths)
    return Positions(planes, {"policy": actions, "value": (winner * colours).astype(np.float32)[:, None]}, len(records))


@functools.cache
def _game(rules):
    """The game and what begins it, the same objects at every call: programs are kept by them."""
    return games.go_game(rules), functools.partial(go.new, rules)
