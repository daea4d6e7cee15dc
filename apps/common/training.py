"""What every application that trains on given data does between reading them and reporting: the phases of a run.

An application says what it is in a `Task`; `model.compile(...)` stands there, in the application. Its `train` is

    task = make_task(config, data.load(config))
    training.check(run, task, strategy)                          # all bad input, before anything is trained
    found = training.run_phases(run, task, strategy, callbacks)  # None in processes that leave the rest to the chief
"""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import tf_keras as keras

from apps.common import compressing, explaining, fitting, optimization, reporting, workdir
from apps.common.compressing import CompressionConfig
from apps.common.config import Range, field
from apps.common.splits import Splits
from layers.regularization import add_weight_penalty
from strategies import distribution, export
from strategies.compression.statistics import settle_statistics
from strategies.copying import copy_model

NUM_TAYLOR_BATCHES = 8  # from which the importance of filters is measured
NUM_TRIAL_EXAMPLES = 4  # for the conversion before training
NUM_STATISTICS_BATCHES = 50  # from which batch normalisation learns what low-bit weights give
_OF_HPARAMS = ("accuracy", "loss", "cross_entropy", "bleu", "parameters", "seconds")  # ends of metrics shown there


@dataclasses.dataclass(frozen=True)
class SupervisedConfig(CompressionConfig):
    """Fields of every application that trains on given data; each may override the defaults."""

    l1: float = field(0.0, "L1 penalty on kernels.", minimum=0)
    l2: float = field(0.0, "L2 penalty on kernels.", minimum=0)
    optimizer: str = field("sgd", "sgd is with Nesterov momentum.", choices=optimization.OPTIMIZERS)
    weight_decay: float = field(5e-4, "Decoupled decay of kernels, relative to the learning rate (sgd, adamw).",
                                minimum=0, search=Range(1e-5, 1e-2, log=True))
    momentum: float = field(0.9, "Nesterov momentum of sgd.", minimum=0, below=1)
    beta_2: float = field(0.999, "Decay of the mean squared gradient of adam and adamw; 0.98 in the Transformer's "
                                 "paper.", minimum=0, below=1)
    schedule: str = field("cosine", "Learning rate over the run: cosine to 0, step (/10 at 1/2 and 3/4), constant, or "
                                    "inverse_square_root after the warm-up.",
                          choices=optimization.SHAPES)
    warmup_fraction: float = field(0.05, "Part of the steps over which the learning rate rises linearly from 0.",
                                   minimum=0, below=1)
    gradient_clip: float = field(0.0, "Largest global norm of the gradient. 0: not clipped.", minimum=0)
    keep: str = field("best", "Weights to evaluate and export: of the best validation epoch, or the last.",
                      choices=("best", "last"))
    export: str = field("saved_model,float32,float16,dynamic,int8", "Comma-separated formats to export, or none.")
    num_representative: int = field(200, "Training examples that calibrate int8.", minimum=1)

    def validate(self):
        super().validate()
        if not self.workdir and not self.explain:
            raise ValueError("--workdir is missing: expected a folder for this run, such as --workdir=runs/first.")
        if self.schedule == "inverse_square_root" and not self.warmup_fraction:
            raise ValueError("--schedule=inverse_square_root falls from the end of the warm-up on: it needs a "
                             "--warmup_fraction above 0; received 0.")


@dataclasses.dataclass(frozen=True)
class Task:
    """An application as its training sees it.

    Attributes:
        splits: the data.
        build: config -> plain `keras.Model` with new weights.
        compile: `compile(model, optimizer, config)` gives a model its loss and metrics.
        loss: the model's loss, for what ranks filters by it.
        representative: number -> that many training inputs as they are, in the model's structure.
        unaugmented: `unaugmented(index)`: training examples of numbers int64 [B] as (inputs, targets), the same
            in every epoch; None where there is no such thing.
        monitor: (validation metric that decides which epoch is best, "max" or "min").
        begin: `begin(part, phase)`, called when a phase begins or goes on.
        end: `end(part, phase, model)`, called with what a phase has trained before its compression is finished.
        check_export: `check_export(model, format)` raises ValueError where the plain, untrained model cannot be
            written in that TFLite format; None: the model itself is what is written.
        callbacks: part -> further Keras callbacks.
        plain: model -> the same without the training step that the application gave it in `build`.
        in_steps: whether recurrent layers are exported as one step.
    """

    splits: Splits
    build: Callable[[SupervisedConfig], keras.Model]
    compile: Callable[[keras.Model, Any, SupervisedConfig], None]
    loss: keras.losses.Loss
    representative: Callable[[int], Any]
    unaugmented: Callable | None = None
    monitor: tuple = ("val_loss", "min")
    begin: Callable = lambda part, phase: None
    end: Callable = lambda part, phase, model: None
    check_export: Callable | None = None
    callbacks: Callable = lambda part: ()
    plain: Callable[[keras.Model], keras.Model] = lambda model: model
    in_steps: bool = False


def export_formats(config):
    """The formats of `--export`, as a list, without keras: every run leaves `model.keras`."""
    names = [name.strip() for name in config.export.split(",")]
    return [] if names == ["none"] else [name for name in names if name != "keras"]


def variant_of(config):
    """What the rows of a report call the model of a run."""
    return "float" if config.compression == "none" else config.compression


def open_run(config):
    """(run, strategy) of a configuration, its runtime prepared. Call it before the data are read.

    Raises:
        ValueError: an unknown format, a strategy that cannot work here, a workdir that cannot be used.
    """
    export.check_formats(export_formats(config))
    strategy = workdir.make_distribution(config)
    run = workdir.open_run(config, strategy)
    workdir.prepare_runtime(config)
    return run, strategy


def check(run, task, strategy):
    """Tries everything that a run will do to its model on an untrained one.

    Raises:
        ValueError: a compression, strategy or export that cannot work.
    """
    if run.config.early_stopping and task.splits.validation is None:
        raise ValueError(f"--early_stopping={run.config.early_stopping} is judged by validation, and these data and "
                         "flags leave no such part. Give --validation_fraction above 0, or leave it out.")
    if run.config.keep == "best" and task.splits.validation is None:
        print("These data and flags leave no validation part to say which epoch is best: the last weights are kept.")
    planned = check_compression(run.config, task, strategy)
    strategy.check(planned, task.splits.train)
    if not run.has_begun:
        check_export(run.config, task, planned)


def run_whole(config, make_task, evaluate, export_and_report, callbacks=()):
    """The story of a configuration from its data to its report; what an application's `train` does.

    Args:
        config: the application's configuration.
        make_task: () -> `Task`, its data loaded.
        evaluate: `evaluate(model, splits)` -> {metric: number}, of the plain float32 model.
        export_and_report: `export_and_report(run, model, splits, metrics)`.
        callbacks: further Keras callbacks.

    Returns:
        the flat dictionary written to `<workdir>/metrics.json`; an empty one in processes that leave that to the chief.
    """
    run, strategy = open_run(config)
    task = make_task()
    check(run, task, strategy)
    found = run_phases(run, task, strategy, callbacks)
    if found is None:
        return {}
    model, cost = found
    metrics = evaluate(model, task.splits) | cost
    export_and_report(run, model, task.splits, metrics)
    run.end()
    return metrics


def run_phases(run, task, strategy, callbacks=()):
    """Trains every phase that has not been finished.

    Args:
        run: `workdir.Run`.
        task: `Task`.
        strategy: distribution strategy.
        callbacks: further Keras callbacks.

    Returns:
        (plain float32 model, cost for `metrics.json`); None in processes that leave the rest to the chief.
    """
    model, costs = starting_model(run.config), []
    try:
        for phase in compressing.phases(run.config):
            part = run.part(phase.name, phase.config)
            if not fitting.is_finished(part):
                if phase.name:
                    print(f"phase {phase.name}")
                train_phase(part, phase, model, strategy, task, callbacks)
            model, cost = fitting.finished(part)
            costs.append(cost)
    except BaseException:
        run.end()  # who catches this, in the same process, may resume at once
        raise
    run.begin()
    if not strategy.peers.is_chief:
        strategy.peers.wait_for_chief()
        return None
    workdir.set_precision("float32")
    return model, fitting.total_cost(costs, task.splits.train)


def train_phase(part, phase, start, strategy, task, callbacks=()):
    """Trains from the plain model `start` (None: from new weights) and leaves a plain float32 model in the part.

    Args:
        part: the run, or its part for this phase.
        phase: `compressing.Phase`.
        start: what the phase before left.
        strategy: distribution strategy.
        task: `Task`.
        callbacks: further Keras callbacks.
    """
    config, splits = part.config, task.splits
    workdir.set_precision(config.precision)
    with strategy.scope():
        teachers = teachers_of(phase)
    train_split = splits.train
    if teachers and config.distill_cache:
        logits = compressing.cached_logits(teachers, task.unaugmented, train_split, config)
        train_split = train_split.with_teacher(logits)
    method = make_method(phase, task, teachers)
    supervision = compressing.make_supervision(phase, teachers)

    def compiled(total_steps):
        keras.utils.set_random_seed(config.seed)
        model = task.build(config) if start is None else copy_model(start, config.precision)
        model = model if method is None else method.prepare(model)
        model = model if supervision is None else supervision.prepare(model)
        add_weight_penalty(model, l1=config.l1, l2=config.l2)
        task.compile(model, optimization.make_optimizer(config, total_steps, model), config)
        model.optimizer.build(model.trainable_variables)  # else the first step is traced twice, to create the slots
        return model

    total_steps = fitting.total_steps(part, compiled, strategy, train_split, splits.validation)
    with strategy.scope():
        model = compiled(total_steps)
    part.begin()
    progress = fitting.restore(part, model)
    task.begin(part, phase)
    pruning = method if phase.method == "prune" else None
    extra = [*callbacks, *task.callbacks(part)]
    if pruning:
        extra += pruning.callbacks(model, progress, total_steps, strategy.sees_steps)
    # While a hint is learned the last layers are not: no epoch is better than another by what they say.
    judge_from = math.inf if phase.method == "hint" else pruning.settled_step(total_steps) if pruning else 0
    monitor, mode = task.monitor
    strategy.fit(model, train_split, start_step=progress.step,
                 total_steps=progress.step if progress.stopped_early else total_steps, validation=splits.validation,
                 callbacks=fitting.callbacks(part, progress, train_split, strategy, monitor=monitor, mode=mode,
                                             extra=extra,
                                             judge_from=judge_from),
                 verbose=fitting.verbosity(config))
    if config.keep == "best" and progress.best_epoch >= 0:
        fitting.restore_best(part, model)
    task.end(part, phase, model)
    model = model if method is None else method.finish(model)
    model = task.plain(strategy.gather(model if supervision is None else supervision.finish(model)))
    model = copy_model(model, "float32")
    if phase.method == "low_bit":
        settle_statistics(model, splits.train().take(NUM_STATISTICS_BATCHES))
    fitting.finish(part, model, progress, total_steps)


def report(run, title, metrics, rows, *, figures, sections, samples=None):
    """Writes what a run leaves for people and tools, and prints the table of its files.

    Args:
        run: `workdir.Run`.
        title: heading of `report.md`.
        metrics: for `metrics.json`.
        rows: of the exported files.
        figures: {name: Matplotlib figure}, beside the curves of each phase.
        sections: {heading: Markdown text}, between the table of files and the pictures.
        samples: inputs on which the layers of the int8 file are compared with the float32 file's; None: they are not.
    """
    config = run.config
    export.write_csv(rows, run.path / "report.csv")
    reporting.write_metrics(run, metrics)
    figures = {**{f"curves_{phase.name}".strip("_"): reporting.curves_figure(fitting.read_history(
                   run.part(phase.name, phase.config).path / "history.csv")) for phase in compressing.phases(config)},
               **figures}
    plots = {name: run.path / "plots" / f"{name}.png" for name in figures}
    reporting.log_images(run, {name: reporting.save_figure(figure, plots[name]) for name, figure in figures.items()})
    reporting.log_hparams(run.folder("logs") / "hparams", config,
                          {name: value for name, value in metrics.items() if name.endswith(_OF_HPARAMS)})
    table = export.markdown_table(rows)
    sections = {"Exported files": table, **sections}
    if samples is not None and {"float32", "int8"} <= set(export_formats(config)):
        errors = export.layer_errors(*(export.path_of(run.path, name) for name in ("float32", "int8")), samples)
        sections["Where int8 loses precision"] = export.errors_table(errors)
    path = reporting.write_report(run, title, metrics, sections, plots)
    print(f"\n{table}\nreport: {path}   plots: {run.path / 'plots'}   TensorBoard: tensorboard --logdir "
          f"{run.path / 'logs'}")


def run_app(config, train, make_task):
    """What the binary of an application does with its configuration: explain, serve a cluster, or train.

    Args:
        config: the application's configuration.
        train: `train(config)`.
        make_task: () -> `Task`, its data loaded.
    """
    if config.explain:
        task = make_task()
        fits = compressing.what_fits(config, lambda: task.build(config), lambda phase: make_method(phase, task, ()))
        explaining.print_plan(config, task.build(config), task.splits, distribution.DISTRIBUTIONS, fits,
                              compressing.phases(config))
        return
    if workdir.serves(config):
        return
    began = time.time()
    train(config)
    print(f"finished in {time.time() - began:.0f} s")


def starting_model(config):
    """The model that --initial_model names, or None."""
    found = compressing.load_models(config.initial_model, "initial_model")
    return found[0] if found else None


def teachers_of(phase):
    """The teachers of a phase, float32: all phases of compression have those of --distill_teacher."""
    if phase.method == "train":
        return []
    return [copy_model(teacher, "float32")
            for teacher in compressing.load_models(phase.config.distill_teacher, "distill_teacher")]


def make_method(phase, task, teachers):
    """The compression method of a phase, with the data that it may need."""
    return compressing.make_method(
        phase, teachers=teachers, loss=task.loss, in_steps=task.in_steps,
        batches=lambda: task.splits.train().take(NUM_TAYLOR_BATCHES),
        representative=lambda: task.representative(phase.config.num_representative))


def check_compression(config, task, strategy):
    """An untrained model like the one that the run will end with.

    Raises:
        ValueError: a compression that cannot work on this model and data, or a teacher that the strategy cannot run.
    """
    if not compressing.methods_of(config):
        return task.build(config)
    if config.distill_cache and task.unaugmented is None:
        raise ValueError("--distill_cache keeps one output of the teachers for each example: it goes with data that "
                         "are the same in every epoch, as images are with --augmentation=none only. Leave it out.")
    model = starting_model(config)
    if model is None:
        model = task.plain(task.build(config))
    else:
        check_fits(model, config, task)
    for phase in compressing.phases(config):
        teachers = teachers_of(phase)
        check_teachers(config, strategy, teachers)
        model = compressing.rehearse(
            phase, model, lambda phase=phase, teachers=teachers: make_method(phase, task, teachers), teachers)
    return model


def check_teachers(config, strategy, teachers):
    """Raises ValueError where a teacher has to run at every step and the strategy cannot run it."""
    if config.distill_cache and config.distill_hint == "none":
        return
    for teacher in teachers:
        reason = strategy.obstacle(teacher)
        if reason:
            raise ValueError(f"--distill_teacher={config.distill_teacher}: {reason} Or, with --distill_hint=none, let "
                             "--distill_cache run it beforehand.")


def check_fits(model, config, task):
    """Raises ValueError unless a model has the inputs and outputs of a new one for the same data."""
    expected = task.build(config)
    if (model.input_shape, model.output_shape) != (expected.input_shape, expected.output_shape):
        raise ValueError(f"--initial_model takes {model.input_shape} and gives {model.output_shape}; --data="
                         f"{config.data} needs {expected.input_shape} and {expected.output_shape}. Give a model "
                         "trained on this data.")


def check_export(config, task, model):
    """Raises ValueError for a model that the TFLite converter refuses, before it is trained.

    Of the formats wanted int8, int16 and sparse ask most, each something else; without them the first stands for the
    others. What a run ends with is in float32 whatever it was trained in: so is what is tried.
    """
    wanted = [name for name in export.TFLITE_FORMATS if name in export_formats(config)]
    formats = [name for name in wanted if name in (*export.CALIBRATED_FORMATS, "sparse")] or wanted[:1]
    if not formats:
        return
    workdir.set_precision("float32")
    try:
        model = task.plain(model)
        if config.precision != "float32":
            model = copy_model(model, "float32")
        for name in formats:
            if task.check_export:
                task.check_export(model, name)
            else:
                export.check_convertible(model, name, task.representative(NUM_TRIAL_EXAMPLES))
    finally:
        workdir.set_precision(config.precision)
