"""Who plays the games to learn from: this process, in turn with learning, or processes of their own.

Those play without waiting with the newest weights that they find, and leave shards in the run's folder; the learner
takes them over. One that dies or hangs is replaced; all end with the learner, however it ends.
"""

import collections
import ctypes
import dataclasses
import functools
import multiprocessing
import os
import pathlib
import signal
import time

import numpy as np
import scipy.special
import tensorflow as tf

from apps.alphago import networks, replay, selfplay, settings
from apps.common import workdir
from strategies import checkpoint
from strategies.supervisor import death, die_with_parent

_MOMENTS = 8  # moments at which games move, in one call of the program
_KEEP_SECONDS = 10  # between two shards of games
_POLL_SECONDS = 0.1
_HOPELESS = 3  # deaths in a row without a move
_GRACE_SECONDS = 5.0
_WEIGHTS, _SUM = "player.npz", "sum_"


class ActorsFailed(RuntimeError):
    """Processes of self-play end before they have played."""

    exit_code = 1


class SelfPlay:
    """The program of self-play and the games under way.

    Args:
        setting: `settings.Setting`.
        evaluator: `networks.Evaluator`, whose weights change between calls.
        options: `selfplay.Settings`.
        seed: list of numbers.
    """

    def __init__(self, setting, evaluator, options, seed):
        self._noise, self._options, self._setting = np.random.default_rng(seed), options, setting
        self._seed = tf.constant(self._noise.integers(2**62), tf.int64)
        begin, self._advance = (
            tf.function(functools.partial(function, setting.game, evaluator, options, setting.new_state),
                        jit_compile=True) for function in (selfplay.begin, selfplay.advance))
        self._play, self._collector = begin(self._seed), selfplay.Collector(options.games)

    def publish(self, weights):
        """As of `Processes`: the evaluator has them already."""

    def close(self):
        """As of `Processes`: there is none to end."""

    def play(self, store, wanted, seconds):
        """As of `Processes`; the games under way go on with the next call."""
        ended, sums = self.games(wanted, seconds)
        store.add(ended)
        return [game.actions for game in ended], sums

    def games(self, wanted, seconds):
        """Plays until games have ended that have so many positions to learn from, or the time is over.

        Returns:
            (list of `PlayedGame`, {name: sum over them}).
        """
        options, ended, positions, calls, began = self._options, [], 0, 0, time.monotonic()
        while not calls or positions < wanted and time.monotonic() - began < seconds:
            gammas = self._noise.gamma(options.alpha, size=[_MOMENTS, options.games, self._setting.game.num_actions])
            self._play, moves = self._advance(self._play, tf.constant(gammas, tf.float32), self._seed)
            new = self._collector.add(moves)
            positions += sum(sum(game.full) for game in new)
            ended += new
            calls += 1
        return ended, {
            "games": len(ended), "moves": sum(len(game.actions) for game in ended),
            "simulations": calls * _MOMENTS * options.rounds * options.games,
            "first_wins": sum(game.result > 0 for game in ended), "draws": sum(game.result == 0 for game in ended),
            **search_statistics(ended), "seconds_of_games": time.monotonic() - began}


class Processes:
    """Processes that play on, whatever the learner does.

    Args:
        config: `ZeroConfig`; `actors` of them are started.
        folder: of the weights that play and the shards of games.
        weights: arrays to begin with.
        seed: list of numbers.
        report: function that prints a line.
    """

    def __init__(self, config, folder, weights, seed, report=print):
        self._config, self._folder, self._seed, self._report = config, pathlib.Path(folder), seed, report
        self.publish(weights)
        self._actors = [_Actor(index) for index in range(config.actors)]
        for actor in self._actors:
            self._start(actor)

    @property
    def pids(self):
        """Process ids."""
        return [actor.process.pid for actor in self._actors]

    def publish(self, weights):
        """Weights that are played with from now on; games under way go on with them."""
        checkpoint.write_arrays(self._folder / _WEIGHTS, {f"{i:04d}": value for i, value in enumerate(weights)})

    def play(self, store, wanted, seconds):
        """Waits for games and hands them to the replay.

        Args:
            store: `Replay`.
            wanted: positions to learn from that are enough.
            seconds: after which it returns with fewer, or none.

        Returns:
            (moves of each game, lists of int; {name: sum over the games}).

        Raises:
            ActorsFailed: a process ends each time before it has played.
        """
        until, records, sums = time.monotonic() + seconds, [], collections.Counter()
        while True:
            self._look()
            for path in sorted(self._folder.glob("games_*.npz")):
                shard = store.adopt(path)
                if shard is not None:
                    ends = np.cumsum(shard["length"])
                    records += [moves.tolist() for moves in np.split(shard["action"], ends[:-1])]
                    wanted -= int(shard["full"].sum())
                    sums.update({name.removeprefix(_SUM): float(value) for name, value in shard.items()
                                 if name.startswith(_SUM)})
            if wanted <= 0 or time.monotonic() >= until:
                sums["seconds_of_games"] /= len(self._actors)  # they played at the same time
                return records, sums
            time.sleep(_POLL_SECONDS)

    def close(self):
        """Ends all processes; their games under way are lost."""
        for end in (lambda process: process.terminate(), lambda process: process.kill()):
            for actor in self._actors:
                if actor.process.exitcode is None:
                    end(actor.process)
            until = time.monotonic() + _GRACE_SECONDS
            for actor in self._actors:
                actor.process.join(max(0.0, until - time.monotonic()))

    def _start(self, actor):
        context = multiprocessing.get_context("spawn")
        actor.beat, actor.began = context.Value("d", 0.0, lock=False), time.monotonic()
        actor.process = context.Process(
            target=_act, name=f"self-play {actor.index}", daemon=True,
            args=(self._config, self._folder, [*self._seed, actor.index, actor.deaths], os.getpid(), actor.beat))
        actor.process.start()

    def _look(self):
        """Replaces who has died, or has not moved for `--actor_timeout` seconds."""
        for actor in self._actors:
            silence = time.monotonic() - max(actor.beat.value, actor.began)
            if actor.process.exitcode is None and silence > self._config.actor_timeout:
                self._report(f"{actor.process.name} made no move for {silence:.0f} s (--actor_timeout)")
                actor.process.kill()
                actor.process.join()
            code = actor.process.exitcode
            if code is None:
                continue
            actor.deaths += 1
            actor.early_deaths = 0 if actor.beat.value else actor.early_deaths + 1
            words = f"{actor.process.name} {death(code)}"
            if actor.early_deaths == _HOPELESS:
                raise ActorsFailed(f"{words}, {_HOPELESS} times in a row before its first move; what it printed "
                                   "stands above. Run the same command again to resume.")
            self._report(f"{words}; it is started again")
            self._start(actor)


@dataclasses.dataclass
class _Actor:
    """A process: when it began, when it made its last move (0: none yet), how often it died, and how often in a row
    before a move."""

    index: int
    process: multiprocessing.Process | None = None
    beat: ctypes.c_double | None = None
    began: float = 0.0
    deaths: int = 0
    early_deaths: int = 0


def _act(config, folder, seed, parent, beat):
    """What such a process does, until it is ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt from the terminal is the learner's matter
    die_with_parent()
    if os.getppid() != parent:
        return
    workdir.prepare_runtime(config)
    setting = settings.setting_of(config)
    model = networks.build(setting.structure)
    evaluator, seen = networks.Evaluator(model, symmetric=config.symmetric), None
    playing, sums = SelfPlay(setting, evaluator, settings.self_play_of(config, setting), seed), collections.Counter()
    share = config.positions_per_generation / config.actors
    while True:
        newest = os.stat(folder / _WEIGHTS).st_mtime_ns
        if newest != seen:
            arrays, seen = checkpoint.read_arrays(folder / _WEIGHTS), newest
            model.set_weights([arrays[name] for name in sorted(arrays)])
            evaluator.update(model)
        ended, new = playing.games(share, _KEEP_SECONDS)
        sums.update(new)
        beat.value = time.monotonic()
        if ended:
            checkpoint.write_arrays(folder / f"games_{time.time_ns()}_{seed[-2]}.npz", replay.shard_of(ended) | {
                f"{_SUM}{name}": np.float64(value) for name, value in sums.items()})
            sums.clear()


def search_statistics(games):
    """Sums over the searches of games that are learned from: how many; how far from even they found the position,
    |value|; the entropy of the visits' shares in nats; and the share of the move visited most."""
    sums = collections.Counter(searched=0, certainty=0.0, entropy=0.0, first_share=0.0)
    for game in games:
        shares = np.array(game.targets, np.float64)[game.full]
        sums["searched"] += len(shares)
        sums["certainty"] += float(np.abs(np.array(game.values)[game.full]).sum())
        sums["entropy"] += float(scipy.special.entr(shares).sum())
        sums["first_share"] += float(shares.max(axis=1).sum())
    return sums
