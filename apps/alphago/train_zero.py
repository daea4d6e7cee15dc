"""Learns a game from self-play alone (AlphaGo Zero, Silver et al. 2017).

    python -m apps.alphago.train_zero --game=go --size=9 --time_budget=120 --workdir=runs/zero9

Generations follow each other: games of the network against itself go to the replay window, the network learns from it
and plays the next ones. Games are kept within seconds of their end, everything else at the end of a generation: the
same command goes on there.
"""

import collections
import contextlib
import dataclasses
import itertools
import time

import numpy as np
import tensorflow as tf
import tf_keras as keras

from apps.alphago import actors, learning, networks, replay, settings
from apps.alphago.config import ZeroConfig
from apps.alphago.go import pictures, sgf
from apps.alphago.go import rules as go
from apps.alphago.go.board import Board
from apps.alphago.ladder import Match
from apps.common import config as config_lib
from apps.common import fitting, flagging, workdir
from layers.regularization import decay_kernels_only
from strategies import checkpoint
from strategies.copying import copy_model

_RECORDS = 2  # games kept as SGF a generation
_KEEP_SECONDS = 10  # between two shards of games
_GROWTH, _POWER = 0.4, 0.75  # of the window: beta and alpha
_RATES = ((0.0, 1.0), (0.6, 0.3), (0.85, 0.1))  # share of the run done, factor of the learning rate


@dataclasses.dataclass
class Progress:
    """Where a run stands; the state of its checkpoints."""

    generation: int = 0
    step: int = 0
    games: int = 0
    positions: int = 0  # to learn from, of all games
    seconds: float = 0.0
    simulations: int = 0
    moves: int = 0
    elo: float = 0.0
    ladder: list = dataclasses.field(default_factory=list)  # rows of ladder.csv


def train(config):
    """Runs or resumes self-play and learning.

    Args:
        config: `ZeroConfig`.

    Returns:
        the flat dictionary written to `<workdir>/metrics.json`.

    Raises:
        ValueError: bad input; raised before anything is played or written.
        apps.common.fitting.TrainingDiverged: the loss is not finite.
    """
    strategy = workdir.make_distribution(config)
    run = workdir.open_run(config, strategy)
    workdir.prepare_runtime(config)
    setting = settings.setting_of(config)
    with strategy.scope():
        model = compiled(config, setting)
    if config.explain:
        print(explanation(config, setting, model))
        return {}
    strategy.check(model, learning.stream(None, model, batch_size=config.batch_size, steps=1, seed=0))
    run.begin()
    with contextlib.closing(Learner(run, setting, strategy, model)) as learner:
        if not learner.is_done:  # a run that had ended and was given more has not ended now
            (run.path / "metrics.json").unlink(missing_ok=True)
        while not learner.is_done:
            learner.generation()
        return learner.finish()


def compiled(config, setting):
    """A new network, ready to learn."""
    keras.utils.set_random_seed(config.seed)
    model = networks.build(setting.structure)
    optimizer = keras.optimizers.SGD(config.learning_rate, momentum=config.momentum, nesterov=bool(config.momentum),
                                     weight_decay=config.weight_decay or None)
    if config.weight_decay:
        decay_kernels_only(optimizer, model)
    learning.compile_model(model, optimizer, jit_compile=config.jit_compile)
    optimizer.build(model.trainable_variables)
    return model


def window_of(config, positions):
    """Positions of the replay window when there have been so many to learn from (Wu 2019, appendix C)."""
    first = config.first_window
    if not first or positions <= first:
        return min(first or config.window, config.window)
    return min(config.window, int(first * (1 + _GROWTH * ((positions / first) ** _POWER - 1) / _POWER)))


def explanation(config, setting, model):
    """What a run would do, as text."""
    options = settings.self_play_of(config, setting)
    budget = f"{config.time_budget:g} minutes" if config.time_budget else f"{config.epochs} generations"
    return "\n".join([
        f"{config.game}: {setting.rules or 'three in a row'}",
        f"network: {setting.structure}, {model.count_params():,} parameters",
        f"self-play: {options}",
        f"a generation: games until they have {config.positions_per_generation:.0f} positions to learn from, then "
        f"{config.steps_per_generation} steps of {config.batch_size} positions out of the newest {config.window:,} or "
        f"less, at first {config.first_window or config.window:,}",
        f"in all: {budget}"])


class Learner:
    """A run: the network that learns, the one that plays, the games, and where it stands."""

    def __init__(self, run, setting, strategy, model):
        self._run, self._config, self._setting, self._strategy = run, run.config, setting, strategy
        self._model, self._progress, self._matches = model, Progress(), {}
        self._player = copy_model(strategy.gather(model))  # the weights that play
        self._rung = None  # weights of the ladder's last rung
        self._restore()
        self._evaluator = networks.Evaluator(self._player, symmetric=self._config.symmetric)
        self._replay = replay.Replay(run.folder("replay"), setting.game, setting.new_state,
                                     window=window_of(self._config, self._progress.positions),
                                     value_lambda=self._config.value_lambda)
        seed = [self._config.seed, self._progress.generation, self._replay.num_games]
        if self._config.actors:
            self._games = actors.Processes(self._config, run.folder("actors"), self._player.get_weights(), seed)
        else:
            options = settings.self_play_of(self._config, setting)
            self._games = actors.SelfPlay(setting, self._evaluator, options, seed)
        self._writer = tf.summary.create_file_writer(str(run.folder("logs")))

    @property
    def is_done(self):
        """Whether the generations, or the minutes, are used up."""
        return self._share_done() >= 1

    def generation(self):
        """Games, then learning, then what plays next; and keeps it all."""
        began, progress = time.monotonic(), self._progress
        records, found = self._play()
        history = self._learn()
        self._update_player()
        progress.generation += 1
        progress.games = self._replay.num_games
        progress.simulations += found["simulations"]
        progress.moves += found["moves"]
        progress.seconds += time.monotonic() - began
        self._report(records, found | history)
        if self._config.rate_every and progress.generation % self._config.rate_every == 0:
            self._rate()
        self._keep()

    def finish(self):
        """Writes the network that plays, and `metrics.json`."""
        progress = self._progress
        self._player.save(self._run.path / "model.keras")
        metrics = {"generations": progress.generation, "steps": progress.step, "seconds": progress.seconds,
                   "games": self._replay.num_games, "moves": progress.moves, "simulations": progress.simulations,
                   "elo": progress.elo, "num_parameters": self._player.count_params()}
        config_lib.write_json(self._run.path / "metrics.json", metrics)
        self._run.end()
        return metrics

    def close(self):
        """Ends processes that play."""
        self._games.close()

    def _share_done(self):
        if self._config.time_budget:
            return self._progress.seconds / (60 * self._config.time_budget)
        return self._progress.generation / self._config.epochs if self._config.epochs else 1.0

    def _play(self):
        """(moves of some of the games, {name: number}) of as much self-play as the next steps of learning ask for.

        Games that a run which was cut had kept already count.
        """
        config, first, sums = self._config, self._progress.games, collections.Counter()
        wanted, records = config.positions_per_generation, []
        while not sums["games"] or self._replay.count_since(first) < wanted:
            played, found = self._games.play(self._replay, wanted - self._replay.count_since(first), _KEEP_SECONDS)
            sums.update(found)
            records = (records + played)[:_RECORDS]
        games, seconds = sums["games"], sums["seconds_of_games"]
        self._progress.positions += self._replay.count_since(first)
        self._replay.window = window_of(config, self._progress.positions)
        return records, dict(sums) | {
            "game_length": sums["moves"] / games, "first_wins": sums["first_wins"] / games,
            "draws": sums["draws"] / games, "moves_per_second": sums["moves"] / seconds,
            "simulations_per_second": sums["simulations"] / seconds,
            **{f"search_{name}": sums[name] / max(1, sums["searched"])
               for name in ("certainty", "entropy", "first_share")}}

    def _learn(self):
        """The losses of a generation's steps."""
        config, progress = self._config, self._progress
        factor = [factor for begin, factor in _RATES if self._share_done() >= begin][-1]
        self._model.optimizer.learning_rate.assign(config.learning_rate * factor)
        stream = learning.stream(self._replay.sample, self._model, batch_size=config.batch_size,
                                 steps=config.steps_per_generation, seed=config.seed)
        losses = Losses()
        end = (progress.generation + 1) * config.steps_per_generation
        self._strategy.fit(self._model, stream, start_step=progress.step, total_steps=end, verbose=0,
                           callbacks=[fitting.StopAtNaN(self._run), losses])
        progress.step = end
        return losses.last | {"learning_rate": config.learning_rate * factor}

    def _update_player(self):
        """The weights that play next: the moving average of those that learn, if they are good enough."""
        config, before = self._config, self._player.get_weights()
        learned = self._strategy.gather(self._model).get_weights()
        share = min(config.average, 1 - 1 / (self._progress.generation + 1))  # the first ones are all there is
        self._player.set_weights([share * a + (1 - share) * b for a, b in zip(before, learned)])
        self._evaluator.update(self._player)
        if config.gate:
            older = copy_model(self._player)
            older.set_weights(before)
            score = self._match(config.gate_games, config.simulations).play(
                self._evaluator, networks.Evaluator(older), seed=self._progress.generation)
            if score.share < config.gate:
                self._player.set_weights(before)
                self._evaluator.update(self._player)
        self._games.publish(self._player.get_weights())

    def _rate(self):
        """A rung of the ladder: a match against the one below, whose Elo it stands on."""
        progress, config, share = self._progress, self._config, None
        if self._rung is not None:
            older = copy_model(self._player)
            older.set_weights(self._rung)
            score = self._match(config.rate_games, config.rate_simulations).play(
                self._evaluator, networks.Evaluator(older), seed=progress.generation)
            share = score.share
            bounded = np.clip(share, 0.5 / config.rate_games, 1 - 0.5 / config.rate_games)
            progress.elo += float(400 * np.log10(bounded / (1 - bounded)))
            self._write({"elo": progress.elo, "points_against_the_last": share})
            print(f"generation {progress.generation}: {score.wins}-{score.draws}-{score.losses} against the last rung; "
                  f"Elo {progress.elo:.0f}", flush=True)
        progress.ladder.append({"generation": progress.generation, "minutes": progress.seconds / 60,
                                "games": progress.games, "elo": progress.elo, "share": share})
        fitting.write_history(self._run.path / "ladder.csv", progress.ladder)
        self._rung = self._player.get_weights()
        self._player.save(self._run.folder("rungs") / f"{progress.generation:05d}.keras")

    def _match(self, number, simulations):
        """A program for matches, compiled once."""
        if (number, simulations) not in self._matches:
            self._matches[number, simulations] = Match(
                self._setting.game, self._setting.new_state, self._evaluator.bound, games=number,
                simulations=simulations, opening_moves=min(6, self._setting.structure.size))
        return self._matches[number, simulations]

    def _report(self, records, found):
        progress = self._progress
        if self._setting.rules is not None:
            self._keep_records(records)
        self._write(found | {"games": self._replay.num_games, "window": len(self._replay),
                             "hours": progress.seconds / 3600})
        print(f"generation {progress.generation}: {progress.seconds / 60:.1f} min, {self._replay.num_games} games, "
              f"{found['moves_per_second']:.0f} moves/s, length {found['game_length']:.0f}, loss {found['loss']:.3f} "
              f"(policy {found['policy_loss']:.3f}, value {found['value_loss']:.3f})", flush=True)

    def _keep_records(self, played):
        """Games as SGF, and their last positions as pictures in TensorBoard."""
        boards, rules = [], self._setting.rules
        for number, actions in enumerate(played, 1):
            moves = tuple(zip(itertools.cycle((go.BLACK, go.WHITE)), actions))
            board = Board.from_record(rules, sgf.Record(rules.size, rules.komi, moves))
            path = self._run.folder("games") / f"{self._progress.generation:05d}_{number}.sgf"
            path.write_bytes(sgf.write(board.record(margin=board.score())))
            boards.append(board)
        with self._writer.as_default(self._progress.generation):
            tf.summary.image("last_positions", pictures.images([pictures.of_board(board) for board in boards]),
                             max_outputs=_RECORDS)

    def _write(self, values):
        with self._writer.as_default(self._progress.generation):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        self._writer.flush()

    def _keep(self):
        state, weights = dataclasses.asdict(self._progress), {"player": self._player.get_weights()}
        if self._rung is not None:
            weights["rung"] = self._rung
        self._run.checkpoints.save(
            self._model, state.pop("step"), state,
            others={f"{group}/{i:04d}": value for group, values in weights.items() for i, value in enumerate(values)})

    def _restore(self):
        found = self._run.checkpoints.latest()
        if found is None:
            return
        arrays, state = found
        checkpoint.restore(self._model, arrays)
        self._progress = Progress(**state)
        weights = {group: [arrays[name] for name in sorted(arrays) if name.startswith(f"{group}/")]
                   for group in ("player", "rung")}
        self._player.set_weights(weights["player"])
        self._rung = weights["rung"] or None
        print(f"Resuming {self._run.path} after generation {self._progress.generation}.")


class Losses(keras.callbacks.Callback):
    """Keeps the losses of the last epoch."""

    last = {}

    def on_epoch_end(self, epoch, logs=None):
        self.last = {"policy_loss": logs["loss"], **logs}


if __name__ == "__main__":
    flagging.run_app(ZeroConfig, train)
