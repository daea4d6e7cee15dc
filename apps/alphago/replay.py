"""Games that were played, on disk and as positions to learn from.

A folder holds shards, `games_<first>.npz`, each the games of one batch of self-play, written whole or not at all and
with checksums. A shard keeps moves, not positions: those are played again when it is read.
"""

import functools
import pathlib
import re

import numpy as np
import tensorflow as tf

from apps.alphago import selfplay
from apps.alphago.search import tree as trees
from strategies import checkpoint

_BATCH = 64  # games that are played again at once


class Replay:
    """The newest games of a folder.

    Args:
        folder: where the shards are; made where it is missing.
        game: `Game` whose observations are planes of bool or 0 and 1.
        new_state: number -> states of so many new games.
        window: positions to learn from that are kept in memory, at least; older shards are left out, but stay on disk.
        report: function that prints a line about a damaged shard, which is passed over.

    Attributes:
        num_games: games in the folder, those of damaged shards too.
    """

    def __init__(self, folder, game, new_state, *, window, report=print):
        self._folder, self._window, self._report = pathlib.Path(folder), window, report
        self._folder.mkdir(parents=True, exist_ok=True)
        self._positions = functools.partial(positions, game, new_state)
        self._shards, self.num_games = [], 0
        paths = self._paths()
        if paths:
            self.num_games = _numbers(paths[-1])[1]
        for path in reversed(paths):
            if len(self) >= window:
                break
            shard = self._read(path)
            if shard is not None:
                self._shards.insert(0, shard)

    def __len__(self):
        """Positions to learn from."""
        return sum(len(shard["value"]) for shard in self._shards)

    def add(self, games):
        """Writes a shard of `PlayedGame`s, and forgets what the window no longer needs."""
        end = self.num_games + len(games)
        path = self._folder / f"games_{self.num_games:09d}_{end:09d}.npz"
        full = np.array([flag for game in games for flag in game.full], bool)
        targets = np.array([target for game in games for target in game.targets], np.float16)
        checkpoint.write_arrays(path, {
            "length": np.array([len(game.actions) for game in games], np.int32),
            "result": np.array([game.result for game in games], np.float32),
            "action": np.array([action for game in games for action in game.actions], np.int16),
            "search_value": np.array([value for game in games for value in game.values], np.float16),
            "full": full, "target": targets[full]})
        self.num_games = end
        self._shards.append(self._read(path))
        while len(self) - len(self._shards[0]["value"]) >= self._window:
            self._shards.pop(0)

    def sample(self, number, noise):
        """Positions drawn with replacement.

        Args:
            number: B.
            noise: `np.random.Generator`.

        Returns:
            (planes float32 [B, N, N, C], {name: float32 [B, ...]}): "policy" [B, A], the shares of visits, "value"
            [B, 1], the result for the side to move, and the outcomes of the game.
        """
        ends = np.cumsum([len(shard["value"]) for shard in self._shards])
        drawn = np.sort(noise.integers(0, ends[-1], number))
        which = np.searchsorted(ends, drawn, side="right")
        parts = []
        for index in np.unique(which):
            shard = self._shards[index]
            rows = drawn[which == index] - (ends[index] - len(shard["value"]))
            parts.append(_examples(shard, rows))
        order = noise.permutation(number)
        return tf.nest.map_structure(lambda *rows: np.concatenate(rows)[order], *parts)

    def _paths(self):
        return sorted(path for path in self._folder.glob("games_*.npz") if _numbers(path))

    def _read(self, path):
        try:
            shard = checkpoint.read_arrays(path)
        except checkpoint.CheckpointError as error:
            self._report(f"{error}. Its games are passed over.")
            return None
        lengths, full = shard["length"], shard["full"]
        planes, shape, outcomes = self._positions(shard["action"], lengths)
        # To the end of the game, in moves: after an even number of them the same side is to move.
        left = np.concatenate([np.arange(length, 0, -1) for length in lengths])
        sides = np.where(left % 2 == 0, 1, -1).astype(np.float32)
        first = np.where(lengths % 2 == 0, 1, -1)  # results are for the side that moved first
        value = (np.repeat(shard["result"] * first, lengths) * sides).astype(np.float32)
        return {"planes": planes[full], "shape": shape, "policy": shard["target"], "value": value[full],
                "game": np.repeat(np.arange(len(lengths)), lengths)[full], "side": sides[full], "outcomes": outcomes}


def _examples(shard, rows):
    """What `Replay.sample` returns, for rows of one shard."""
    planes = np.unpackbits(shard["planes"][rows], axis=1, count=int(np.prod(shard["shape"])))
    side, game = shard["side"][rows], shard["game"][rows]
    targets = {name: values[game] * side.reshape(-1, *[1] * (values.ndim - 1))
               for name, values in shard["outcomes"].items()}
    targets |= {"policy": shard["policy"][rows].astype(np.float32), "value": shard["value"][rows, None]}
    return planes.reshape(-1, *shard["shape"]).astype(np.float32), targets


def positions(game, new_state, actions, lengths):
    """What the network sees before each move of games, and how they end.

    Args:
        game, new_state: as of `Replay`.
        actions: int [M], those of all games one after another.
        lengths: int [G], moves of each game.

    Returns:
        (uint8 [M, ⌈size / 8⌉], the planes as bits; their shape (N, N, C); {name: float32 [G, ...]}, the outcomes for
        the side that would move next).
    """
    longest = -(-int(max(lengths)) // 32) * 32  # few different lengths, so few programs
    padded = -(-len(lengths) // _BATCH) * _BATCH
    table = np.full([padded, longest], selfplay.NOTHING, np.int32)
    table[:len(lengths)][np.arange(longest) < np.asarray(lengths)[:, None]] = actions
    found, ends = [], []
    for start in range(0, padded, _BATCH):
        planes, outcomes = _program(game, new_state, longest)(table[start:start + _BATCH])
        played = table[start:start + _BATCH] != selfplay.NOTHING
        planes = planes.numpy()  # [T, G, N, N, C]
        bits = np.packbits(planes.reshape(*planes.shape[:2], -1), axis=2)
        found.append(np.swapaxes(bits, 0, 1)[played])
        ends.append(outcomes)
    outcomes = tf.nest.map_structure(lambda *parts: np.concatenate(parts)[:len(lengths)], *ends)
    return np.concatenate(found), planes.shape[2:], outcomes


@functools.cache
def _program(game, new_state, longest):
    """Plays `_BATCH` games again: actions int32 [G, T] to (planes bool [T, G, N, N, C], outcomes)."""
    @tf.function(jit_compile=True)
    def run(actions):
        state = new_state(_BATCH)
        first = tf.cast(game.observe(state), tf.bool)

        def step(number, state, planes):
            planes = tf.tensor_scatter_nd_update(planes, [[number]], tf.cast(game.observe(state), tf.bool)[None])
            action = actions[:, number]
            after = game.step(state, tf.maximum(action, 0))
            return number + 1, trees.select(action != selfplay.NOTHING, after, state), planes

        _, state, planes = tf.while_loop(lambda number, *_: number < longest, step,
                                         (0, state, tf.zeros([longest, *first.shape], tf.bool)))
        return planes, game.outcome(state)

    return run


def _numbers(path):
    """(first, end) of the games of a shard, or None where the file is something else."""
    found = re.fullmatch(r"games_(\d+)_(\d+)\.npz", path.name)
    return found and (int(found[1]), int(found[2]))
