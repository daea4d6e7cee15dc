"""Runs that learn or compute a table of action values: from episodes, or from the model of a small problem.

The table becomes a network with one layer, so that it is tried, exported and played like any other policy. S states, A
actions, N learners.
"""

import dataclasses
import json
import time

import numpy as np
import tensorflow as tf
import tf_keras as keras

from apps.common import fitting
from apps.reinforcement import dynamic_programming, naming, policies, reports, tabular
from apps.reinforcement.environments import environment as environment_lib
from apps.reinforcement.evaluation import TEST, Evaluator
from strategies import checkpoint

_FILE, _PROGRESS = "table.npz", "progress.json"


def network_of(values):
    """A network that looks the action values up: a state int32 [B] -> `q` [B, A]; `values` float [S, A]."""
    inputs = keras.Input([], dtype=tf.int32, name="observation")
    table = keras.layers.Embedding(*values.shape, name="q")
    model = keras.Model(inputs, {"q": table(inputs)}, name="table")
    table.set_weights([np.asarray(values, np.float32)])
    return model


def check(settings, environment):
    """Raises ValueError where an algorithm needs a table or a model that an environment does not have."""
    if not isinstance(environment, environment_lib.Environment):
        raise ValueError(f"{settings.algorithm} learns in a compiled program, and {environment.name} is stepped from "
                         "Python. Use --algorithm=dqn, a2c or ppo.")
    if settings.algorithm in naming.TABULAR:
        tabular.check(environment)
        options_of(settings)
    elif environment.model is None:
        raise ValueError(f"{settings.algorithm} computes with the probabilities of all transitions, and "
                         f"{environment.name} has no table of them. Use an algorithm that learns from experience, such "
                         "as q_learning or ppo.")


def options_of(settings):
    """`tabular.Options` of a configuration."""
    changes = settings.exploration_start != settings.exploration_end
    return tabular.Options(
        algorithm=settings.algorithm, discount=settings.discount, step_size=settings.step_size,
        step_size_power=settings.step_size_power, exploration=settings.exploration,
        schedule="linear" if changes else "constant", start=settings.exploration_start, end=settings.exploration_end,
        steps=max(settings.exploration_steps, 1), visits=settings.visits, trace_decay=settings.trace_decay,
        traces=settings.traces, initial_value=settings.initial_value, num_learners=settings.parallel_environments)


@dataclasses.dataclass
class Progress:
    """Where a run stands."""

    epoch: int = 0
    seconds: float = 0.0
    reached: int = -1
    rows: list = dataclasses.field(default_factory=list)


class TableRun:
    """Learns tables from episodes; the mean table of the learners is the policy's.

    Args:
        run: `workdir.Run`, begun.
        environment: with numbered states and actions.
    """

    def __init__(self, run, environment):
        self._run, self._settings, self._environment = run, run.config, environment
        self.progress, self.state = Progress(), None
        self._program = tabular.program(environment, options_of(run.config), run.config.steps_per_epoch)
        self._network = network_of(np.zeros([environment.observation_spec.num_values,
                                             environment.action_spec.num_values]))
        self._evaluator = evaluator_of(run.config, environment, self._network)
        self._optimum = optimum_of(run.config, environment)
        self._writer = tf.summary.create_file_writer(str(run.folder("logs")))
        self._restore()

    def train(self):
        """All epochs that are left."""
        settings, progress = self._settings, self.progress
        while progress.epoch < settings.epochs and progress.reached < 0 and not (
                settings.time_budget and progress.seconds >= 60 * settings.time_budget):
            self._epoch()

    def finish(self):
        """(network, {name: number}) of the ended run."""
        self._show()
        returns, lengths = self._evaluator(TEST)
        low, high = reports.interval(returns)
        state, progress = self.state, self.progress
        found = {"test_return": float(returns.mean()), "test_return_low": low, "test_return_high": high,
                 "test_length": float(lengths.mean()), "epochs": progress.epoch,
                 "best_return": max((row["greedy_return"] for row in progress.rows), default=None),
                 "steps": int(np.sum(state.steps)), "episodes": int(state.episode) * len(state.steps),
                 "seconds": progress.seconds, "steps_to_stop_return": progress.reached,
                 "num_parameters": self._network.count_params()}
        return self._network, found | self._error()

    def _epoch(self):
        began, progress = time.monotonic(), self.progress
        self.state, returns, lengths = self._program(self.state)
        self._show()
        greedy, greedy_lengths = self._evaluator(progress.epoch + 1)
        progress.epoch += 1
        progress.seconds += time.monotonic() - began
        row = {"epoch": progress.epoch - 1, "steps": int(np.sum(self.state.steps)),
               "episodes": int(self.state.episode) * len(self.state.steps), "seconds": round(progress.seconds, 3),
               "greedy_return": float(greedy.mean()), "greedy_length": float(greedy_lengths.mean()),
               "average_return": float(np.mean(returns)), "average_length": float(np.mean(lengths)), **self._error()}
        progress.rows.append(row)
        wanted = self._settings.wanted_return
        if wanted is not None and row["greedy_return"] >= wanted:
            progress.reached = row["steps"]
        reports.write_history(self._run.path / "history.csv", progress.rows)
        reports.write_scalars(self._writer, row, row["steps"])
        self._keep()
        if fitting.verbosity(self._settings):
            error = "".join(f", {name.replace('_', ' ')} {value:.3g}" for name, value in self._error().items())
            print(f"epoch {progress.epoch}: {row['episodes']} episodes, {row['steps']} steps, greedy return "
                  f"{row['greedy_return']:.2f}, collected {row['average_return']:.2f}{error}", flush=True)

    def _show(self):
        """Gives the network the learners' mean table."""
        self._network.get_layer("q").set_weights([np.mean(self.state.values, axis=0).astype(np.float32)])

    def _error(self):
        """Distance of the mean table from the optimum, over the states from which one goes on."""
        if self._optimum is None:
            return {}
        alive = ~self._environment.model.terminal
        difference = np.mean(self.state.values, axis=0) - self._optimum
        return {"value_error": float(np.abs(difference[alive]).max())}

    def _keep(self):
        arrays = {name: np.asarray(part) for name, part in self.state._asdict().items()}
        document = json.dumps(dataclasses.asdict(self.progress))
        arrays[_PROGRESS] = np.frombuffer(document.encode(), np.uint8)
        checkpoint.write_arrays(self._run.folder("checkpoints") / _FILE, arrays)

    def _restore(self):
        path = self._run.path / "checkpoints" / _FILE
        self.state = tabular.begin(self._environment, options_of(self._settings), self._settings.seed)
        if path.exists():
            arrays = checkpoint.read_arrays(path)
            self.progress = Progress(**json.loads(arrays.pop(_PROGRESS).tobytes()))
            self.state = tabular.State(**{name: tf.constant(array) for name, array in arrays.items()})
            print(f"Resuming {self._run.path} after epoch {self.progress.epoch}.")


def evaluator_of(settings, environment, network):
    """An `Evaluator` of the greedy policy of a table's network."""
    policy = policies.greedy(lambda observation: network(observation)["q"], environment.action_spec)
    return Evaluator(environment, policy, settings.eval_episodes, settings.eval_steps,
                     jit_compile=settings.jit_compile)


def optimum_of(settings, environment):
    """The best action values, float64 [S, A], where a model with the run's discount gives them; else None."""
    if environment.model is None or settings.discount != environment.model.discount:
        return None
    return dynamic_programming.policy_iteration(environment.model).action_values


def compute(settings, environment):
    """(network, {name: number}) by dynamic programming.

    `policy_evaluation` values the policy that takes all actions alike; the network is greedy with respect to it.
    """
    began, model = time.monotonic(), environment.model._replace(discount=settings.discount)
    if settings.algorithm == "policy_evaluation":
        solution = dynamic_programming.evaluate(model, dynamic_programming.uniform_policy(model),
                                                tolerance=settings.tolerance)
    elif settings.algorithm == "value_iteration":
        solution = dynamic_programming.value_iteration(model, tolerance=settings.tolerance)
    else:
        solution = dynamic_programming.policy_iteration(model)
    seconds, network = time.monotonic() - began, network_of(solution.action_values)
    returns, lengths = evaluator_of(settings, environment, network)(TEST)
    low, high = reports.interval(returns)
    start = float(np.sum(model.initial * solution.values))
    return network, {"test_return": float(returns.mean()), "test_return_low": low, "test_return_high": high,
                     "test_length": float(lengths.mean()), "best_return": float(returns.mean()),
                     "sweeps": solution.sweeps, "start_value": start, "seconds": seconds,
                     "num_parameters": network.count_params()}


def table_text(environment, network):
    """The table of a problem of few states as Markdown: values, best action, and a drawing where there is one."""
    values = network.get_layer("q").get_weights()[0]
    lines = ["| state | value | best action |", "| --- | --- | --- |"]
    for state in range(min(len(values), 128)):
        if environment.model is None or not environment.model.terminal[state]:
            lines.append(f"| {state} | {values[state].max():.4g} | {values[state].argmax()} |")
    return "\n".join(lines)


def greedy_path(environment, network, seed=0):
    """The states of one greedy episode, from a state drawn by the seed, as a list of numbers."""
    key = tf.constant([seed, 0x9A7], tf.int32)
    running, time_step = environment_lib.reset(environment, 1, key)
    values, path = network.get_layer("q").get_weights()[0], [int(time_step.observation[0])]
    for seed in environment_lib.split(key, environment.max_steps):
        action = tf.constant([int(values[path[-1]].argmax())])
        running, time_step = environment_lib.step(environment, running, action, seed)
        path.append(int(time_step.observation[0]))
        if bool(time_step.is_last()[0]):
            break
    return path
