"""Runs of bandit algorithms: which arm to pull, many runs side by side, and the regret that learning costs.

K arms, D numbers of context, R runs, T steps.
"""

import dataclasses
import json
import time

import numpy as np
import tensorflow as tf
import tf_keras as keras

from apps.common import fitting
from apps.reinforcement import bandits, reports, tables
from apps.reinforcement.environments import advertising, bandit, catalogue
from apps.reinforcement.evaluation import TEST
from layers.checking import unknown_name
from strategies import checkpoint

PROBLEMS = {"advertising": advertising.bandit, "k_armed": bandit.k_armed}
_FILE, _PROGRESS = "bandit.npz", "progress.json"


def check(settings):
    """Raises ValueError where the environment is no bandit, or the algorithm does not fit its rewards."""
    if settings.env not in PROBLEMS:
        raise unknown_name(f"bandit for --algorithm={settings.algorithm}: --env", settings.env, PROBLEMS)
    bandits.program(PROBLEMS[settings.env](), options_of(settings), 1)


def options_of(settings):
    """`bandits.Options` of a configuration."""
    width = {} if settings.confidence_width < 0 else {"width": settings.confidence_width}
    changes = settings.exploration_start != settings.exploration_end
    return bandits.Options(
        algorithm=settings.algorithm, schedule="linear" if changes else "constant", start=settings.exploration_start,
        end=settings.exploration_end, steps=max(settings.exploration_steps, 1), initial_value=settings.initial_value,
        num_runs=settings.parallel_environments, **width)


@dataclasses.dataclass
class Progress:
    """Where a run stands."""

    epoch: int = 0
    seconds: float = 0.0
    rows: list = dataclasses.field(default_factory=list)


class BanditRun:
    """A run that goes on where its workdir says.

    Args:
        run: `workdir.Run`, begun.
    """

    def __init__(self, run):
        self._run, self._settings = run, run.config
        self._problem = PROBLEMS[run.config.env]()
        self._program = bandits.program(self._problem, options_of(run.config), run.config.steps_per_epoch)
        self.progress = Progress()
        self.state = bandits.begin(self._problem, options_of(run.config), run.config.seed)
        self._writer = tf.summary.create_file_writer(str(run.folder("logs")))
        self._restore()

    def train(self):
        """All epochs that are left."""
        while self.progress.epoch < self._settings.epochs:
            self._epoch()

    def finish(self):
        """(network that knows the mean of all runs, or None; {name: number}) of the ended run."""
        progress = self.progress
        last = progress.rows[-1] if progress.rows else {"regret": 0.0, "reward_per_step": 0.0, "steps": 0}
        found = {"regret": last["regret"], "best_return": last["reward_per_step"], "steps": last["steps"],
                 "epochs": progress.epoch, "seconds": progress.seconds}
        if self._settings.env not in catalogue.ENVIRONMENTS:  # each run has arms of its own
            return None, found
        network, environment = self._network(), catalogue.make(self._settings.env)
        returns, _ = tables.evaluator_of(self._settings, environment, network)(TEST)
        low, high = reports.interval(returns)
        return network, found | {"test_return": float(returns.mean()), "test_return_low": low,
                                 "test_return_high": high, "num_parameters": network.count_params()}

    def _network(self):
        """Values of the arms, a context [B, D] -> `q` [B, K]: linear models, or each arm's mean."""
        problem, state = self._problem, self.state
        inputs = keras.Input([problem.num_features], name="observation")
        layer = keras.layers.Dense(problem.num_arms, name="q")
        model = keras.Model(inputs, {"q": layer(inputs)}, name="arms")
        kernel, bias = np.zeros([problem.num_features, problem.num_arms]), np.zeros(problem.num_arms)
        if self._settings.algorithm.startswith("lin"):
            kernel = np.einsum("rkde,rke->dk", state.inverse, state.weighted) / len(state.counts)
        else:
            bias = np.sum(state.sums, axis=0) / np.maximum(np.sum(state.counts, axis=0), 1)
        layer.set_weights([kernel.astype(np.float32), bias.astype(np.float32)])
        return model

    def _epoch(self):
        began, progress = time.monotonic(), self.progress
        self.state, regret, _, reward = self._program(self.state)
        progress.epoch += 1
        progress.seconds += time.monotonic() - began
        before = progress.rows[-1]["regret"] if progress.rows else 0.0
        row = {"epoch": progress.epoch - 1, "steps": int(self.state.step), "seconds": round(progress.seconds, 3),
               "regret": before + float(np.sum(np.mean(regret, axis=1))),
               "regret_per_step": float(np.mean(regret)), "reward_per_step": float(np.mean(reward))}
        progress.rows.append(row)
        reports.write_history(self._run.path / "history.csv", progress.rows)
        reports.write_scalars(self._writer, row, row["steps"])
        self._keep()
        if fitting.verbosity(self._settings):
            print(f"epoch {progress.epoch}: {row['steps']} steps, regret {row['regret']:.2f} in all, "
                  f"{row['regret_per_step']:.4f} a step, reward {row['reward_per_step']:.4f}", flush=True)

    def _keep(self):
        parts = {f"{i:04d}": np.asarray(part) for i, part in enumerate(tf.nest.flatten(self.state))}
        document = json.dumps(dataclasses.asdict(self.progress))
        parts[_PROGRESS] = np.frombuffer(document.encode(), np.uint8)
        checkpoint.write_arrays(self._run.folder("checkpoints") / _FILE, parts)

    def _restore(self):
        path = self._run.path / "checkpoints" / _FILE
        if path.exists():
            arrays = checkpoint.read_arrays(path)
            self.progress = Progress(**json.loads(arrays.pop(_PROGRESS).tobytes()))
            parts = [tf.constant(arrays[name]) for name in sorted(arrays)]
            self.state = tf.nest.pack_sequence_as(self.state, parts)
            print(f"Resuming {self._run.path} after epoch {self.progress.epoch}.")
