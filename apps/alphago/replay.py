"""Games that were played, on disk and as positions to learn from.

A folder holds shards, `games_<first>_<end>.npz`, each the games that ended within some seconds of self-play, written
whole or not at all and with checksums. A shard keeps moves, not positions: those are played again when it is read.
"""

import functools
import os
import pathlib
import re

import numpy as np
import tensorflow as tf

from apps.alphago import selfplay
from apps.alphago.search import tree as trees
from strategies import checkpoint

_BATCH = 64  # games that are played again at once
_PARTS = ("length", "result", "action", "search_value", "full", "target")


class Replay:
    """The newest games of a folder.

    Args:
        folder: where the shards are; made where it is missing.
        game: `Game` whose observations are planes of bool or 0 and 1.
        new_state: number -> states of so many new games.
        window: positions to learn from that are kept in memory; older ones stay on disk.
        value_lambda: of the return that a value learns, from the searches' values of the moves to come, as in
            TD(lambda) (Sutton & Barto, section 12.1). 1: the game's result.
        report: function that prints a line about a damaged shard, which is passed over.

    Attributes:
        window: see there; it can be made larger, and fills with what is added from then on.
        num_games: games in the folder, those of damaged shards too.
    """

    def __init__(self, folder, game, new_state, *, window, value_lambda=1.0, report=print):
        self._folder, self.window, self._report = pathlib.Path(folder), window, report
        self._lambda = value_lambda
        self._folder.mkdir(parents=True, exist_ok=True)
        self._positions = functools.partial(positions, game, new_state)
        self._waiting, self._counts = [], {}  # shards not played again yet; {first game of a shard: its positions}
        self._shape, self._memory = None, None
        paths = self._paths()
        self.num_games = _numbers(paths[-1])[1] if paths else 0
        for path in reversed(paths):
            if self.count_since(0) >= window:
                break
            shard = self._read(path)
            if shard is not None:
                self._waiting.insert(0, shard)
                self._counts[_numbers(path)[0]] = int(shard["full"].sum())

    def __len__(self):
        """Positions to learn from."""
        self._remember()
        return 0 if self._memory is None else len(self._memory["policy"])

    def count_since(self, first):
        """Positions to learn from, of the games from number `first` on, as far back as the window goes."""
        return sum(count for number, count in self._counts.items() if number >= first)

    def add(self, games):
        """Writes `PlayedGame`s as a shard; none, if there are none."""
        if games:
            shard = shard_of(games)
            checkpoint.write_arrays(self._path(shard), shard)
            self._append(shard)

    def adopt(self, path):
        """Takes a file of `shard_of`, and perhaps more arrays, over into the folder.

        Returns:
            its arrays; None where it is damaged: that is reported, and the file removed.
        """
        shard = self._read(path)
        if shard is None:
            path.unlink()
            return None
        os.replace(path, self._path(shard))
        self._append(shard)
        return shard

    def _path(self, shard):
        return self._folder / f"games_{self.num_games:09d}_{self.num_games + len(shard['length']):09d}.npz"

    def _append(self, shard):
        self._waiting.append(shard)
        self._counts[self.num_games] = int(shard["full"].sum())
        self.num_games += len(shard["length"])

    def sample(self, number, noise):
        """Positions drawn with replacement.

        Args:
            number: B.
            noise: `np.random.Generator`.

        Returns:
            (planes float32 [B, N, N, C], {name: float32 [B, ...]}): "policy" [B, A], the shares of visits, "value"
            [B, 1], the result and the search's value for the side to move, and the outcomes of the game.
        """
        self._remember()
        rows = noise.integers(0, len(self), number)
        targets = {name: values[rows].astype(np.float32) for name, values in self._memory.items()}
        planes = np.unpackbits(targets.pop("planes").astype(np.uint8), axis=1, count=int(np.prod(self._shape)))
        return planes.reshape(-1, *self._shape).astype(np.float32), targets

    def examples(self):
        """All positions of the window, the oldest first.

        Returns:
            (planes uint8 [M, ⌈size / 8⌉], as bits; {name: float16 [M, ...]}, as of `sample`).

        Raises:
            ValueError: there is no game.
        """
        self._remember()
        if self._memory is None:
            raise ValueError(f"{self._folder} holds no games: expected games_*.npz that train_zero wrote.")
        targets = dict(self._memory)
        return targets.pop("planes"), targets

    def _remember(self):
        """Plays the shards that wait again, and forgets what the window no longer needs."""
        if not self._waiting:
            return
        new = self._examples({name: np.concatenate([shard[name] for shard in self._waiting]) for name in _PARTS})
        self._waiting = []
        old = self._memory or {name: values[:0] for name, values in new.items()}
        self._memory = {name: np.concatenate([old[name], values])[-self.window:] for name, values in new.items()}

    def _examples(self, shard):
        """What is learned from games, {name: array with a row for each position}; planes as bits."""
        lengths, full = shard["length"], shard["full"]
        planes, self._shape, outcomes = self._positions(shard["action"], lengths, full)
        # To the end of the game, in moves: after an even number of them the same side is to move.
        left = np.concatenate([np.arange(length, 0, -1) for length in lengths])[full]
        side = np.where(left % 2 == 0, 1, -1).astype(np.float16)
        game = np.repeat(np.arange(len(lengths)), lengths)[full]
        first = np.where(lengths % 2 == 0, 1, -1)  # results are for the side that moved first
        outcomes["value"] = (shard["result"] * first)[:, None]
        examples = {name: values.astype(np.float16)[game] * side.reshape(-1, *[1] * (values.ndim - 1))
                    for name, values in outcomes.items()}
        if self._lambda < 1:
            returns = lambda_returns(shard["search_value"], lengths, shard["result"] * first, self._lambda)
            examples["value"] = returns[full][:, None].astype(np.float16)
        return examples | {"planes": planes, "policy": shard["target"]}

    def _paths(self):
        return sorted(path for path in self._folder.glob("games_*.npz") if _numbers(path))

    def _read(self, path):
        try:
            return checkpoint.read_arrays(path)
        except checkpoint.CheckpointError as error:
            self._report(f"{error}. Its games are passed over.")
            return None


def lambda_returns(values, lengths, results, share):
    """The lambda-return of each move of games, for the side that moved, float32 [M].

    G = (1 - lambda) v - lambda G of the next move, whose side is the other one; after the last move comes the result.

    Args:
        values: float [M], the searches' values, those of all games one after another.
        lengths: int [G].
        results: float [G], for the side that would move after the last move.
        share: lambda.
    """
    ends, returns = np.cumsum(lengths), np.zeros(len(values), np.float32)
    after = np.asarray(results, np.float32)
    for back in range(1, max(lengths) + 1):
        running = np.asarray(lengths) >= back
        rows = (ends - back)[running]
        after = np.where(running, after, 0)
        after[running] = (1 - share) * values[rows] - share * after[running]
        returns[rows] = after[running]
    return returns


def shard_of(games):
    """`PlayedGame`s as arrays, {name: array}: what a shard holds."""
    full = np.array([flag for game in games for flag in game.full], bool)
    targets = np.array([target for game in games for target in game.targets], np.float16)
    return {"length": np.array([len(game.actions) for game in games], np.int32),
            "result": np.array([game.result for game in games], np.float32),
            "action": np.array([action for game in games for action in game.actions], np.int16),
            "search_value": np.array([value for game in games for value in game.values], np.float16),
            "full": full, "target": targets[full]}


def positions(game, new_state, actions, lengths, wanted):
    """What the network sees before moves of games, and how they end.

    Args:
        game, new_state: as of `Replay`.
        actions: int [M], those of all games one after another.
        lengths: int [G], moves of each game.
        wanted: bool [M], the moves.

    Returns:
        (uint8 [number wanted, ⌈size / 8⌉], the planes as bits; their shape (N, N, C); {name: float32 [G, ...]}, the
        outcomes for the side that would move next).
    """
    longest = -(-int(max(lengths)) // 32) * 32  # few different lengths, so few programs
    padded = -(-len(lengths) // _BATCH) * _BATCH
    table, chosen = np.full([padded, longest], selfplay.NOTHING, np.int32), np.zeros([padded, longest], bool)
    played = np.arange(longest) < np.asarray(lengths)[:, None]
    table[:len(lengths)][played], chosen[:len(lengths)][played] = actions, wanted
    found, ends = [], []
    for start in range(0, padded, _BATCH):
        planes, outcomes = _program(game, new_state, longest)(table[start:start + _BATCH])
        planes = planes.numpy()  # [T, G, N, N, C]
        bits = np.packbits(planes.reshape(*planes.shape[:2], -1), axis=2)
        found.append(np.swapaxes(bits, 0, 1)[chosen[start:start + _BATCH]])
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
