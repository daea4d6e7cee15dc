"""Fitting: number of steps, callbacks, resuming. `model.compile` and `strategy.fit` stay in the applications."""

import contextlib
import csv
import dataclasses
import io
import json
import math
import os
import pathlib
import signal
import sys
import threading
import time
import weakref

import numpy as np
import tensorflow as tf
import tf_keras as keras

from apps.common import config as config_lib
from strategies import checkpoint, cluster

TIMED_STEPS = 50  # at most
POLL_SECONDS = 1.0
_FINISHED = "finished.json"
_UNTIMED_STEPS = 3  # tracing and the first, slower steps
_LEAST_TIMED = 10
_TIMED_BATCHES = 10  # of validation, at most
_TIMED_SECONDS = 30.0  # are enough; timing is part of the budget
_CALMER = "Lower --learning_rate, lengthen --warmup_fraction or set --gradient_clip."


class TrainingDiverged(ValueError):
    """The loss is not finite."""


@dataclasses.dataclass
class Progress:
    """What a resumed run has to know beyond weights and optimizer. Stored as the state of each checkpoint."""

    step: int = 0
    seconds: float = 0.0
    best_value: float | None = None
    best_epoch: int = -1
    epochs_without_gain: int = 0
    stopped_early: bool = False
    metrics: dict = dataclasses.field(default_factory=dict, repr=False)  # running metrics of a cut epoch


def total_steps(run, make_model, strategy, train, validation):
    """Number of training steps of a run: fixed once, kept in `config.json` from `run.begin()` on.

    Without a `--time_budget` it follows from `--epochs`. With one, a throw-away copy of the model is timed, so that the
    run itself begins from untouched weights.

    Args:
        run: the `workdir.Run`.
        make_model: `make_model(total_steps) -> compiled keras.Model`.
        strategy: distribution strategy.
        train, validation: streams; validation may be None.

    Raises:
        ValueError: the budget does not suffice for a single step.
    """
    if "total_steps" in run.resolved:
        return run.resolved["total_steps"]
    config = run.config
    steps = config.epochs * train.steps_per_epoch
    if config.time_budget:
        began = time.perf_counter()
        step_seconds, epoch_seconds, startup_seconds = measure_speed(make_model, strategy, train, validation)
        left = config.time_budget * 60 - (time.perf_counter() - began) - startup_seconds
        steps = int(left / (step_seconds + epoch_seconds / train.steps_per_epoch))
        if steps < 1:
            raise ValueError(f"--time_budget={config.time_budget:g} minutes leaves no time to train: a step takes "
                             f"{step_seconds:.3f} s, validation {epoch_seconds:.1f} s, starting {startup_seconds:.1f} "
                             "s. Give more time or a smaller --model.")
        run.resolved["timed_step_seconds"] = round(step_seconds, 6)
    run.resolved["total_steps"] = strategy.peers.agree(steps)
    return run.resolved["total_steps"]


def measure_speed(make_model, strategy, train, validation):
    """Times a throw-away model: (seconds a step, seconds of one validation pass, seconds of building and tracing).

    Where batches cost differently, the seconds are those of a mean step.
    """
    began = time.perf_counter()
    with strategy.scope():
        model = make_model(10**6)
    clock = _StepClock(strategy.peers.agree)
    strategy.fit(model, train, start_step=0, total_steps=_UNTIMED_STEPS + TIMED_STEPS, callbacks=[clock], verbose=0)
    startup = clock.times[_UNTIMED_STEPS - 1] - began
    costs = np.ones(len(clock.times)) if train.relative_costs is None else train.relative_costs(len(clock.times))
    step = (clock.times[-1] - clock.times[_UNTIMED_STEPS - 1]) / costs[_UNTIMED_STEPS:].sum()
    evaluation = 0.0
    if validation is not None:
        number, steps = min(_TIMED_BATCHES, validation.steps_per_epoch), len(clock.times)
        few = dataclasses.replace(validation, num_examples=number * validation.batch_size,
                                  make=lambda *args: validation.make(*args).take(number))
        single = dataclasses.replace(train, num_examples=train.batch_size)  # epochs of one step
        # By `fit`, within which a strategy evaluates in a way of its own. Of two epochs the first traces.
        clock = _EvaluationClock()
        strategy.fit(model, single, start_step=steps, total_steps=steps + 2, validation=few, callbacks=[clock],
                     verbose=0)
        evaluation = clock.end - clock.begin + clock.batch_seconds * (validation.steps_per_epoch - number)
    return step, evaluation, startup


class _EvaluationClock(keras.callbacks.Callback):
    """When the last evaluation began and ended, and how long one of its batches took after the first."""

    begin = end = 0.0

    def on_train_batch_end(self, batch, logs=None):
        self.begin, self._batches = time.perf_counter(), []

    def on_test_batch_end(self, batch, logs=None):
        self._batches.append(time.perf_counter())

    def on_test_end(self, logs=None):
        self.end = time.perf_counter()

    @property
    def batch_seconds(self):
        return (self._batches[-1] - self._batches[0]) / max(1, len(self._batches) - 1)


class _StepClock(keras.callbacks.Callback):
    """When each step ended. It ends the training after as many as there is time for, the same number in all processes,
    which `agree` makes it."""

    def __init__(self, agree):
        super().__init__()
        self.times, self._agree, self._wanted = [], agree, TIMED_STEPS

    def on_train_batch_end(self, batch, logs=None):
        self.times.append(time.perf_counter())
        timed = len(self.times) - _UNTIMED_STEPS
        if timed == _LEAST_TIMED:
            took = (self.times[-1] - self.times[_UNTIMED_STEPS - 1]) / timed
            self._wanted = self._agree(min(TIMED_STEPS, max(_LEAST_TIMED, int(_TIMED_SECONDS / took))))
        if timed >= self._wanted:
            self.model.stop_training = True


def restore(run, model):
    """Loads the newest checkpoint into a compiled model; returns the `Progress` to go on from."""
    found = run.checkpoints.latest()
    if found is None:
        return Progress()
    arrays, state = found
    checkpoint.restore(model, arrays)
    progress = Progress(**state)
    progress.metrics = {k: v for k, v in arrays.items() if k.startswith("metrics/")}
    print(f"Resuming {run.path} at step {progress.step}.")
    return progress


def restore_best(run, model):
    """Loads the weights of the best epoch."""
    arrays, _ = checkpoint.read(run.checkpoints.path / "best.npz")
    checkpoint.restore(model, arrays, with_optimizer=False)


def finish(part, model, progress, total_steps):
    """Keeps the plain model that a training leaves, and what it cost: then the training is finished."""
    path = part.folder("checkpoints")
    temporary = path / f".finished.{os.getpid()}.keras"
    model.save(temporary)
    os.replace(temporary, path / "finished.keras")
    config_lib.write_json(path / _FINISHED, {
        "seconds": progress.seconds, "steps": progress.step, "total_steps": total_steps,
        "best_epoch": progress.best_epoch + 1})


def is_finished(part):
    """Whether `finish` was called for this training."""
    return (part.path / "checkpoints" / _FINISHED).exists()


def finished(part):
    """(plain model, cost) of a finished training."""
    path = part.path / "checkpoints"
    return (keras.models.load_model(path / "finished.keras", compile=False),
            json.loads((path / _FINISHED).read_text()))


def total_cost(costs, train):
    """What all trainings of a run cost together, for `metrics.json`; the best epoch is that of the last."""
    seconds = sum(cost["seconds"] for cost in costs)
    steps = sum(cost["steps"] for cost in costs)
    return {"seconds": seconds, "steps": steps, "total_steps": sum(cost["total_steps"] for cost in costs),
            "epochs": steps / train.steps_per_epoch, "best_epoch": costs[-1]["best_epoch"] if costs else 0,
            "examples_per_second": steps * train.batch_size / max(seconds, 1e-9), "num_train": train.num_examples}


def callbacks(run, progress, train, strategy, *, monitor="val_accuracy", mode="max", extra=(), judge_from=0):
    """The callbacks of every fit, in the order in which they must run.

    Args:
        run, progress: the run and where it stands.
        train: training stream.
        strategy: distribution strategy.
        monitor: validation metric that decides which epoch is best.
        mode: "max" or "min".
        extra: the application's own callbacks, run before the checkpoint is written.
        judge_from: number of steps before which no epoch can be the best (a model that is still losing weights).
    """
    common = [*extra, keras.callbacks.TensorBoard(run.folder("logs"), update_freq="epoch", write_graph=True),
              History(run.path / "history.csv")]  # after those who add to the logs of an epoch
    options = (run, progress, train.steps_per_epoch, monitor, mode, judge_from)
    if not strategy.sees_steps:
        keeper = RoundKeeper if strategy.sees_rounds else PollingKeeper
        return [StopOnNaN(run), *common, keeper(*options, [c for c in extra if hasattr(c, "poll")])]
    return [RestoreMetrics(progress, train.steps_per_epoch), StopAtNaN(run), *common,
            StepKeeper(*options, strategy.peers)]


@contextlib.contextmanager
def saving():
    """Within it weights that are not finite, which no checkpoint takes, end the training as such a loss does."""
    try:
        yield
    except FloatingPointError as error:
        raise TrainingDiverged(f"{error}. {_CALMER}") from None


class RestoreMetrics(keras.callbacks.Callback):
    """Adds the sums of a cut epoch to the running metrics, so that its row in the history is that of a whole epoch."""

    def __init__(self, progress, steps_per_epoch):
        super().__init__()
        self._sums = progress.metrics if progress.step % steps_per_epoch else {}

    def on_train_batch_end(self, batch, logs=None):
        if self._sums:  # not before the first step, which creates the metrics' variables
            variables = [v for metric in self.model.metrics for v in metric.variables]
            for name, variable in checkpoint.variable_dict(variables).items():
                # Not assign_add, which replicas do not have for a sum over them.
                variable.assign(variable.numpy() + self._sums[f"metrics/{name}"])
            self._sums = {}


class StopOnNaN(keras.callbacks.Callback):
    """Ends training after the first epoch whose loss is not finite; what was saved before stays."""

    def __init__(self, run):
        super().__init__()
        self._run = run

    def on_epoch_end(self, epoch, logs=None):
        self._check(logs, f"the end of epoch {epoch + 1}")

    def _check(self, logs, where):
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            steps = self._run.checkpoints.steps()
            last = f"the checkpoint of step {steps[-1]} is kept" if steps else "no checkpoint had been written"
            raise TrainingDiverged(f"The loss is {loss} at {where}; {last}. {_CALMER}")


class StopAtNaN(StopOnNaN):
    """Ends training at the first step of that kind."""

    def on_train_batch_end(self, batch, logs=None):
        self._check(logs, f"batch {batch} of the epoch")


class History(keras.callbacks.Callback):
    """`history.csv`: a row an epoch. A resumed run replaces the rows of epochs that it repeats."""

    def __init__(self, path):
        super().__init__()
        self.path = pathlib.Path(path)

    def on_epoch_end(self, epoch, logs=None):
        rows = [row for row in read_history(self.path) if row["epoch"] < epoch]
        rate = self.model.optimizer.learning_rate
        rate = rate(self.model.optimizer.iterations) if callable(rate) else rate
        rate = float(tf.convert_to_tensor(rate))
        rows.append({"epoch": epoch, "learning_rate": rate, **{k: float(v) for k, v in (logs or {}).items()}})
        write_history(self.path, rows)


def write_history(path, rows):
    """Writes dictionaries of numbers as CSV, whole or not at all; None stands as nothing."""
    path, text = pathlib.Path(path), io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text.getvalue())
    os.replace(temporary, path)


def read_history(path):
    """Rows that `write_history` wrote as dictionaries of numbers; no rows when there is no file."""
    path = pathlib.Path(path)
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return [{k: int(v) if k == "epoch" else float(v) for k, v in row.items() if v not in ("", None)}
                for row in csv.DictReader(file)]


class Terminated(RuntimeError):
    """SIGTERM: the run was saved and ends, to be resumed."""

    exit_code = 128 + signal.SIGTERM

    def __init__(self, step):
        super().__init__(f"asked to end (SIGTERM); saved at step {step}. Run the same command again to resume.")


class Keeper(keras.callbacks.Callback):
    """Best weights, early stopping and a checkpoint after each epoch. It must come last, since it saves the others'
    work. In `fit`, SIGTERM asks it to save and end."""

    def __init__(self, run, progress, steps_per_epoch, monitor, mode, judge_from=0):
        super().__init__()
        self._judge_from = judge_from
        self._run = run
        self.progress = progress
        self._steps_per_epoch = steps_per_epoch
        self._total_steps = run.resolved["total_steps"]
        self._monitor = monitor
        self._sign = {"max": 1.0, "min": -1.0}[mode]
        self._began = time.monotonic() - progress.seconds
        self._last_save = time.monotonic()
        self._asked_to_end, self._handler = False, None

    def on_train_begin(self, logs=None):
        if threading.current_thread() is threading.main_thread():
            me = weakref.ref(self)  # a training that fails must not be kept, with the lock of its workdir

            def note(number, frame):
                if me() is None:
                    signal.signal(signal.SIGTERM, signal.SIG_DFL)
                    signal.raise_signal(signal.SIGTERM)
                else:
                    me()._asked_to_end = True

            self._handler = signal.signal(signal.SIGTERM, note)

    def on_train_end(self, logs=None):
        if self._handler is not None:
            signal.signal(signal.SIGTERM, self._handler)

    def on_epoch_end(self, epoch, logs=None):
        value = (logs or {}).get(self._monitor)
        if value is not None and self.progress.step >= self._judge_from:
            self._judge(epoch, float(value))
        self._save()

    def _judge(self, epoch, value):
        progress = self.progress
        gain = math.inf if progress.best_value is None else self._sign * (value - progress.best_value)
        if gain >= 0:  # of equal epochs the later: it was trained for longer, at a smaller learning rate
            progress.best_value, progress.best_epoch = value, epoch
            best = self._run.checkpoints.path
            best.mkdir(parents=True, exist_ok=True)
            with saving():
                checkpoint.save(best / "best.npz", self.model, {"epoch": epoch, self._monitor: value},
                                with_optimizer=False)
        if gain > 0:
            progress.epochs_without_gain = 0
            return
        progress.epochs_without_gain += 1
        patience = self._run.config.early_stopping
        if patience and progress.epochs_without_gain >= patience:
            progress.stopped_early = self.model.stop_training = True
            print(f"\nStopping early: {self._monitor} has not improved for {patience} epochs.")

    def _is_due(self):
        interval = self._run.config.checkpoint_seconds
        return bool(interval) and time.monotonic() - self._last_save >= interval

    def _save(self):
        self.progress.seconds = time.monotonic() - self._began
        state = dataclasses.asdict(self.progress)
        state.pop("metrics")
        with saving():
            self._run.checkpoints.save(self.model, self.progress.step, state)
        self._last_save = time.monotonic()


class StepKeeper(Keeper):
    """Counts the steps, and saves within epochs too: at a step on which all peers agree."""

    def __init__(self, run, progress, steps_per_epoch, monitor, mode, judge_from, peers):
        super().__init__(run, progress, steps_per_epoch, monitor, mode, judge_from)
        self._peers = peers

    def on_train_batch_end(self, batch, logs=None):
        self.progress.step += 1
        # The last step of an epoch is saved after its validation, which decides on the best epoch; the one before it is
        # not saved, since the metrics of a single remaining step could not be completed (see RestoreMetrics).
        left = min(-self.progress.step % self._steps_per_epoch, self._total_steps - self.progress.step)
        if left <= 1 or self.progress.step % self._peers.interval:
            return
        is_due, end = self._peers.any([self._is_due() and self._peers.is_chief, self._asked_to_end])
        if is_due or end:
            self._save()
        if end:
            raise Terminated(self.progress.step)

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        if self._peers.any([self._asked_to_end])[0]:
            raise Terminated(self.progress.step)


class LookingKeeper(Keeper):
    """Reads from the optimizer how many steps were made, where callbacks are not told of each, and calls `poll(step)`
    of other callbacks that wait for one."""

    def __init__(self, run, progress, steps_per_epoch, monitor, mode, judge_from, polled):
        super().__init__(run, progress, steps_per_epoch, monitor, mode, judge_from)
        self._polled = polled

    def _look(self):
        self.progress.step = int(self.model.optimizer.iterations.numpy())
        for callback in self._polled:
            callback.poll(self.progress.step)


class RoundKeeper(LookingKeeper):
    """Looks after each round of federated training, in which the model is one client's after the other's."""

    def on_train_batch_end(self, batch, logs=None):
        self._look()
        if batch + 1 == self.params["steps"]:
            return  # as of StepKeeper: saved after the validation
        if self._is_due() or self._asked_to_end:
            self._save()
        if self._asked_to_end:
            raise Terminated(self.progress.step)

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        if self._asked_to_end:
            raise Terminated(self.progress.step)


class PollingKeeper(LookingKeeper):
    """Looks now and then, in a thread, where callbacks are told of epochs only: under asynchronous training.

    What it saves within an epoch is what the weights are while workers update them.
    """

    def __init__(self, *args):
        super().__init__(*args)
        self._busy, self._ended, self._thread = threading.Lock(), threading.Event(), None

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._ended.clear()
        self._thread = threading.Thread(target=self._run_poll, daemon=True)
        self._thread.start()

    def on_train_end(self, logs=None):
        self._ended.set()
        self._thread.join()
        super().on_train_end(logs)

    def on_epoch_end(self, epoch, logs=None):
        with self._busy:
            self._look()
            super().on_epoch_end(epoch, logs)

    def _run_poll(self):
        while not self._ended.wait(POLL_SECONDS):
            with self._busy:
                try:
                    self._look()
                    if self._is_due() or self._asked_to_end:
                        self._save()
                except tf.errors.OpError:  # a server is gone, as `fit` will say
                    return
                except Exception as error:  # in this thread nobody else would hear of it
                    cluster.give_up(str(error), code=1)
            if self._asked_to_end:
                end = Terminated(self.progress.step)
                cluster.give_up(str(end), end.exit_code)


def verbosity(config):
    """Keras' `verbose`: a progress bar on a terminal, a line an epoch elsewhere."""
    if config.verbose >= 0:
        return config.verbose
    return 1 if sys.stdout.isatty() else 2
