"""A run of an agent with a network: epochs of acting and learning, trials of the greedy policy, checkpoints."""

import contextlib
import dataclasses
import signal
import threading
import time

import numpy as np
import tensorflow as tf

from apps.common import fitting, splits
from apps.reinforcement import building, checking, metrics, reports
from apps.reinforcement.distributed import SharedNetwork
from apps.reinforcement.environments.environment import Environment
from apps.reinforcement.evaluation import TEST, Evaluator
from apps.reinforcement.learner import Learner
from strategies import checkpoint


@dataclasses.dataclass
class Progress:
    """Where a run stands; the state of its checkpoints."""

    epoch: int = 0
    updates: int = 0
    seconds: float = 0.0
    best_return: float | None = None
    best_epoch: int = -1
    reached: int = -1  # steps of the environments at the first trial that reached --stop_return
    rows: list = dataclasses.field(default_factory=list)  # of history.csv


def check(settings, environment, strategy):
    """All that can be known before training.

    Raises:
        ValueError: the algorithm does not fit the environment, or the strategy the batch.
    """
    building.check_actions(settings, environment)
    if isinstance(environment, Environment):
        checking.check_environment(environment)
    elif building.plays_episodes(settings):
        raise ValueError("reinforce with the discounted objective plays whole episodes of the pure environments; "
                         f"{environment.name} is stepped from Python. Use --objective=average, a2c or ppo.")
    if settings.distribution != "single":
        size, number = building.minibatch_of(settings, environment)
        strategy.check(building.network_of(settings, environment)[0],
                       splits.Stream(size * number, size, None, is_training=True))


class DeepRun:
    """A run that goes on where its workdir says.

    Args:
        run: `workdir.Run`, begun.
        environment: of the run.
        strategy: distribution strategy.
    """

    def __init__(self, run, environment, strategy):
        settings = run.config
        self._run, self._settings, self._environment = run, settings, environment
        shared = None
        if settings.distribution != "single":
            shared = SharedNetwork(settings, environment, strategy, [fitting.StopOnNaN(run)])
        self._shared = shared
        self.learner = Learner(settings, environment, shared)
        self.progress = Progress()
        self._evaluator = Evaluator(environment, self.learner.agent.policy, settings.eval_episodes,
                                    settings.eval_steps, jit_compile=settings.jit_compile)
        self._writer = tf.summary.create_file_writer(str(run.folder("logs")))
        self._restore()

    def train(self):
        """All epochs that are left.

        Raises:
            checking.EnvironmentFault: the environment broke its specification.
            apps.common.fitting.TrainingDiverged: a loss or weight is not finite.
            apps.common.fitting.Terminated: SIGTERM came; all is saved.
        """
        with _asked_to_end() as is_asked:
            while not self._is_done():
                self._epoch()
                if is_asked():
                    raise fitting.Terminated(int(self.learner.state.metrics.num_steps))

    def finish(self):
        """(network with the best weights, {name: number}) of the ended run."""
        network = self.learner.agent.network
        path = self._run.checkpoints.path / "best.npz"
        if path.exists():
            checkpoint.restore(network, checkpoint.read(path)[0], with_optimizer=False)
        returns, lengths = self._evaluator(TEST)
        state, progress = self.learner.state.metrics, self.progress
        low, high = reports.interval(returns)
        return network, {
            "test_return": float(returns.mean()), "test_return_low": low, "test_return_high": high,
            "test_length": float(lengths.mean()), "best_return": progress.best_return,
            "best_epoch": progress.best_epoch + 1, "epochs": progress.epoch, "steps": int(state.num_steps),
            "episodes": int(state.num_episodes), "updates": self._num_updates(), "seconds": progress.seconds,
            "steps_per_second": int(state.num_steps) / max(progress.seconds, 1e-9),
            "steps_to_stop_return": progress.reached, "num_parameters": network.count_params()}

    def _is_done(self):
        settings, progress = self._settings, self.progress
        return (progress.epoch >= settings.epochs or progress.reached >= 0
                or settings.time_budget and progress.seconds >= 60 * settings.time_budget)

    def _epoch(self):
        began, progress, settings = time.monotonic(), self.progress, self._settings
        losses = self._advance((progress.epoch + 1) * settings.steps_per_epoch)
        self._check_finite(losses)
        returns, lengths = self._evaluator(progress.epoch + 1)
        progress.epoch += 1
        progress.seconds += time.monotonic() - began
        self._judge(float(returns.mean()))
        self._report(losses, returns, lengths)
        self.keep()

    def _judge(self, value):
        progress, wanted = self.progress, self._settings.wanted_return
        if progress.best_return is None or value >= progress.best_return:  # of equal ones the later
            progress.best_return, progress.best_epoch = value, progress.epoch - 1
            self._run.folder("checkpoints")
            checkpoint.save(self._run.checkpoints.path / "best.npz", self.learner.agent.network,
                            {"epoch": progress.epoch, "greedy_return": value}, with_optimizer=False)
        if wanted is not None and value >= wanted and progress.reached < 0:
            progress.reached = int(self.learner.state.metrics.num_steps)

    def _report(self, losses, returns, lengths):
        state, progress = self.learner.state.metrics, self.progress
        row = {"epoch": progress.epoch - 1, "steps": int(state.num_steps), "episodes": int(state.num_episodes),
               "seconds": round(progress.seconds, 3), "greedy_return": float(returns.mean()),
               "greedy_length": float(lengths.mean()), "average_return": float(metrics.average_return(state)),
               "average_length": float(metrics.average_length(state)), **losses}
        progress.rows.append(row)
        reports.write_history(self._run.path / "history.csv", progress.rows)
        reports.write_scalars(self._writer, row, step=row["steps"])
        if fitting.verbosity(self._settings):
            print(f"epoch {progress.epoch}: {row['steps']} steps, {row['episodes']} episodes, greedy return "
                  f"{row['greedy_return']:.1f}, collected {row['average_return']:.1f}, loss {row['loss']:.4g}, "
                  f"{progress.seconds:.1f} s", flush=True)

    def keep(self):
        """Writes a checkpoint of everything."""
        self.progress.updates = self._num_updates()
        state = {f"state/{i:04d}": part.numpy() for i, part in enumerate(tf.nest.flatten(self.learner.state))}
        agent = self.learner.agent
        others = {f"agent/{name}": variable.numpy() for name, variable in agent.variables.items()}
        if self._shared is not None:
            others |= {f"actor/{i:04d}": value for i, value in enumerate(agent.network.get_weights())}
        self._run.checkpoints.save(self.learner.model, int(self.learner.state.metrics.num_steps),
                                   {"progress": dataclasses.asdict(self.progress)}, others=state | others)

    def _restore(self):
        found = self._run.checkpoints.latest()
        if found is None:
            return
        arrays, state = found
        checkpoint.restore(self.learner.model, arrays)
        self.progress = Progress(**state["progress"])
        agent = self.learner.agent
        for name, variable in agent.variables.items():
            variable.assign(arrays[f"agent/{name}"])
        if self._shared is not None:
            self._shared.step = self.progress.updates
            agent.network.set_weights([arrays[name] for name in sorted(arrays) if name.startswith("actor/")])
            agent.network.optimizer.iterations.assign(self.progress.updates)
        parts = [tf.constant(arrays[name]) for name in sorted(arrays) if name.startswith("state/")]
        # What was kept at a fault is the state before it.
        state = tf.nest.pack_sequence_as(self.learner.state, parts)._replace(fault=tf.constant(checking.OK))
        self.learner.resume(state)
        print(f"Resuming {self._run.path} at step {int(state.metrics.num_steps)}.")

    def _num_updates(self):
        return int(self._shared.step if self._shared else self.learner.model.optimizer.iterations)

    def _advance(self, until):
        """The losses of an epoch; where the environment breaks its specification, the state before it is kept."""
        try:
            losses = self.learner.advance(until)
        except ValueError as error:
            if isinstance(self._environment, Environment):
                raise
            self.keep()
            raise checking.EnvironmentFault(f"{error} The state before it is saved.") from None
        state = self.learner.state
        if int(state.fault) != checking.OK:
            self.keep()
            raise checking.error_of(self._environment, state.fault, state.metrics.num_steps)
        return losses

    def _check_finite(self, losses):
        weights = self.learner.agent.network.get_weights()
        if not np.isfinite(losses["loss"]) or not all(np.isfinite(weight).all() for weight in weights):
            steps = self._run.checkpoints.steps()
            last = f"the checkpoint of step {steps[-1]} is kept" if steps else "no checkpoint had been written"
            raise fitting.TrainingDiverged(f"The loss is {losses['loss']} or a weight is not finite in epoch "
                                           f"{self.progress.epoch + 1}; {last}. Lower --learning_rate or set "
                                           "--gradient_clip.")


@contextlib.contextmanager
def _asked_to_end():
    """Within it SIGTERM is noted, not obeyed: gives a function that says whether it came."""
    asked = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    handler = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(True))
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGTERM, handler)
