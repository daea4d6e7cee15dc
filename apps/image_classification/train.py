"""Trains, evaluates, exports and reports an image classifier.

    python -m apps.image_classification.train --data=digits --model=resnet20 --workdir=runs/digits
"""

import time

import numpy as np
import sklearn.metrics
import tensorflow as tf
import tf_keras as keras

from apps.common import compressing, explaining, fitting, flagging, optimization, reporting, workdir
from apps.image_classification import data, models
from apps.image_classification.config import Config
from layers.counting import count_nonzero, count_parameters
from layers.regularization import add_weight_penalty
from strategies import compression, distribution, export
from strategies.copying import copy_model

NUM_TAYLOR_BATCHES = 8  # from which the importance of filters is measured
NUM_TRIAL_IMAGES = 4  # for the conversion before training
SIMULATED_LOGITS = "simulated_logits.npy"


def train(config, callbacks=()):
    """Runs the whole story of one configuration; a second call with the same workdir resumes it.

    Args:
        config: `Config`.
        callbacks: further Keras callbacks, such as a tuner's.

    Returns:
        the flat dictionary written to `<workdir>/metrics.json`; an empty one in processes that leave that to the chief.

    Raises:
        ValueError: bad input; raised before anything is trained or written.
        apps.common.fitting.TrainingDiverged: the loss is not finite.
    """
    export.check_formats(export_formats(config))
    strategy = workdir.make_distribution(config)
    run = workdir.open_run(config, strategy)
    workdir.prepare_runtime(config)
    splits = data.load(config)
    planned = check_compression(config, splits)
    strategy.check(planned, splits.train)
    if not run.has_begun:
        check_export(config, splits, planned)

    model, costs = starting_model(config), []
    for phase in compressing.phases(config):
        part = run.part(phase.name, phase.config)
        if not fitting.is_finished(part):
            if phase.name:
                print(f"phase {phase.name}")
            train_phase(part, phase, model, strategy, splits, callbacks)
        model, cost = fitting.finished(part)
        costs.append(cost)
    run.begin()
    if not strategy.peers.is_chief:
        strategy.peers.wait_for_chief()
        return {}
    workdir.set_precision("float32")
    metrics = evaluate(model, splits) | fitting.total_cost(costs, splits.train)
    export_and_report(run, model, splits, metrics)
    run.end()
    return metrics


def train_phase(part, phase, start, strategy, splits, callbacks=()):
    """Trains from the plain model `start` (None: from new weights) and leaves a plain float32 model in the part.

    Args:
        part: the run, or its part for this phase.
        phase: `compressing.Phase`.
        start: what the phase before left.
        strategy: distribution strategy.
        splits: `data.ImageSplits`.
        callbacks: further Keras callbacks.
    """
    config = part.config
    workdir.set_precision(config.precision)
    with strategy.scope():
        teachers = teachers_of(phase)
    train_split = splits.train
    if teachers and config.distill_cache:
        train_split = train_split.with_teacher(compressing.cached_logits(teachers, splits.plain, train_split, config))
    method = make_method(phase, splits, teachers)
    supervision = compressing.make_supervision(phase, teachers)

    def compiled(total_steps):
        keras.utils.set_random_seed(config.seed)
        model = models.build(config, splits.spec) if start is None else copy_model(start, config.precision)
        model = model if method is None else method.prepare(model)
        model = model if supervision is None else supervision.prepare(model)
        add_weight_penalty(model, l1=config.l1, l2=config.l2)
        model.compile(optimizer=optimization.make_optimizer(config, total_steps, model), loss=make_loss(),
                      metrics=["accuracy"], jit_compile=config.jit_compile)
        model.optimizer.build(model.trainable_variables)  # else the first step is traced twice, to create the slots
        return model

    total_steps = fitting.total_steps(part, compiled, strategy, train_split, splits.validation)
    with strategy.scope():
        model = compiled(total_steps)
    part.begin()
    progress = fitting.restore(part, model)
    if phase.method in ("train", "distill"):  # the others see the same images
        log_augmented_images(part, splits)
    pruning = method if phase.method == "prune" else None
    extra = [*callbacks]
    if pruning:
        extra += pruning.callbacks(model, progress, total_steps, strategy.sees_steps)
    strategy.fit(model, train_split, start_step=progress.step,
                 total_steps=progress.step if progress.stopped_early else total_steps, validation=splits.validation,
                 callbacks=fitting.callbacks(part, progress, train_split, strategy, extra=extra,
                                             judge_from=pruning.settled_step(total_steps) if pruning else 0),
                 verbose=fitting.verbosity(config))
    if config.keep == "best" and progress.best_epoch >= 0:
        fitting.restore_best(part, model)
    if phase.method == "quantize":
        save_simulated_logits(part, model, splits)
    model = model if method is None else method.finish(model)
    model = strategy.gather(model if supervision is None else supervision.finish(model))
    fitting.finish(part, copy_model(model, "float32"), progress, total_steps)


def make_loss():
    """Cross-entropy of logits against probabilities."""
    return keras.losses.CategoricalCrossentropy(from_logits=True)


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


def make_method(phase, splits, teachers):
    """The compression method of a phase, with the data that it may need."""
    config = phase.config
    return compressing.make_method(
        phase, teachers=teachers, loss=make_loss(), batches=lambda: splits.train().take(NUM_TAYLOR_BATCHES),
        representative=lambda: data.calibration_images(config, splits, config.num_representative))


def check_compression(config, splits):
    """An untrained model like the one that the run will end with.

    Raises:
        ValueError: a compression that cannot work on this model and data.
    """
    if not compressing.methods_of(config):
        return models.build(config, splits.spec)
    if config.distill_cache and config.augmentation != "none":
        raise ValueError("--distill_cache keeps one output of the teachers for each image; it goes with "
                         f"--augmentation=none only. Received --augmentation={config.augmentation}.")
    model = starting_model(config)
    if model is None:
        model = models.build(config, splits.spec)
    expected = (None, splits.spec.height, splits.spec.width, splits.spec.channels), (None, splits.spec.num_classes)
    if (model.input_shape, model.output_shape) != expected:
        raise ValueError(f"--initial_model takes {model.input_shape} and gives {model.output_shape}; --data="
                         f"{config.data} needs {expected[0]} and {expected[1]}. Give a model trained on this data.")
    for phase in compressing.phases(config):
        teachers = teachers_of(phase)
        model = compressing.rehearse(
            phase, model, lambda phase=phase, teachers=teachers: make_method(phase, splits, teachers), teachers)
    return model


def check_export(config, splits, model):
    """Raises ValueError for a model that the TFLite converter refuses, before it is trained.

    Of the formats wanted int8 asks most; the first stands for the others.
    """
    formats = [name for name in ("int8", *export.TFLITE_FORMATS) if name in export_formats(config)]
    if formats:
        export.check_convertible(model, formats[0], data.calibration_images(config, splits, NUM_TRIAL_IMAGES))


def save_simulated_logits(part, model, splits):
    """Keeps what the model under fake quantisation says of the test images, to compare the int8 file with."""
    compression.calibrate(model, data.calibration_images(part.config, splits, part.config.num_representative))
    logits = [export.predict(model, images) for images, _ in batches(splits.test)]
    np.save(part.path / SIMULATED_LOGITS, np.concatenate(logits))


def evaluate(model, splits):
    """Loss and accuracy of the final weights, in float32, and the size of the model."""
    model.compile(loss=make_loss(), metrics=["accuracy"])
    metrics = {}
    for name, split in (("test", splits.test), ("validation", splits.validation)):
        if split is not None:
            loss, accuracy = model.evaluate(split(), verbose=0)
            metrics |= {f"{name}_accuracy": accuracy, f"{name}_loss": loss}
    return metrics | {"num_parameters": count_parameters(model), "num_nonzero": count_nonzero(model),
                      "macs": export.count_macs(model), "num_test": splits.test.num_examples}


def export_formats(config):
    """The formats of `--export`, as a list."""
    return [] if config.export == "none" else [name.strip() for name in config.export.split(",")]


def export_and_report(run, model, splits, metrics):
    """Writes `metrics.json`, the exported files, plots and `report.md`, and prints the table."""
    config, spec = run.config, splits.spec
    logits, targets, examples = examine(model, splits.test)

    def accuracy(predict):
        return accuracy_over(predict, splits.test)

    rows = export.export_all(
        model, run.path, formats=["keras", *export_formats(config)], samples=examples[0], variant=variant_of(config),
        representative=data.calibration_images(config, splits, config.num_representative), evaluate=accuracy,
        fold_batch_norm=config.fold_batch_norm)
    rows += compressing.packed_rows(run, model, rows, examples[0], accuracy)
    export.write_csv(rows, run.path / "report.csv")
    data.write_labels(spec, run.folder("export"))
    metrics |= simulation_metrics(run, splits)
    reporting.write_metrics(run, metrics)

    confusion = sklearn.metrics.confusion_matrix(targets, logits.argmax(axis=1), labels=range(spec.num_classes))
    figures = {**{f"curves_{phase.name}".strip("_"): reporting.curves_figure(fitting.read_history(
                   run.part(phase.name, phase.config).path / "history.csv")) for phase in compressing.phases(config)},
               "confusion_matrix": reporting.confusion_figure(confusion, spec.class_names),
               "predictions": reporting.predictions_figure(*examples, spec.class_names)}
    plots = {name: run.path / "plots" / f"{name}.png" for name in figures}
    reporting.log_images(run, {name: reporting.save_figure(figure, plots[name]) for name, figure in figures.items()})
    endings = ("accuracy", "loss", "parameters", "seconds")
    reporting.log_hparams(run.folder("logs") / "hparams", config,
                          {name: value for name, value in metrics.items() if name.endswith(endings)})
    table = export.markdown_table(rows)
    sections = {"Exported files": table}
    if {"float32", "int8"} <= set(export_formats(config)):
        errors = export.layer_errors(*(export.path_of(run.path, name) for name in ("float32", "int8")), examples[0])
        sections["Where int8 loses precision"] = export.errors_table(errors)
    report = reporting.write_report(run, f"{config.model} on {config.data}", metrics, sections, plots)
    print(f"\n{table}\ntest accuracy {metrics['test_accuracy']:.2%} after {metrics['seconds']:.0f} s of training\n"
          f"report: {report}   plots: {run.path / 'plots'}   TensorBoard: tensorboard --logdir {run.path / 'logs'}")


def variant_of(config):
    """What the rows of a report call this model."""
    return "float" if config.compression == "none" else config.compression


def simulation_metrics(run, splits):
    """How often the int8 file decides as the model under fake quantisation did; nothing where either is missing."""
    last = compressing.phases(run.config)[-1]
    if last.method != "quantize" or "int8" not in export_formats(run.config):
        return {}
    simulated = np.load(run.part(last.name, last.config).path / SIMULATED_LOGITS)
    runner = export.Runner(export.path_of(run.path, "int8"))
    decided = np.concatenate([runner(images).argmax(axis=1) for images, _ in batches(splits.test)])
    return {"int8_agreement": float(np.mean(decided == simulated.argmax(axis=1)))}


def batches(split):
    """Yields images [B, H, W, C] and class numbers [B] of an evaluation stream, as NumPy arrays."""
    for images, targets in split():
        yield images.numpy(), targets.numpy().argmax(axis=1)


def accuracy_over(predict, split):
    """Share of a stream's images whose largest logit, of `predict(images) -> [B, K]`, is at the true class."""
    return float(np.mean(np.concatenate([predict(images).argmax(axis=1) == targets
                                         for images, targets in batches(split)])))


def examine(model, split, num_examples=36):
    """What a model makes of a stream, one batch at a time, since all its images may not fit in memory.

    Returns:
        (logits [N, K], targets [N], examples): examples are the images, probabilities and targets of up to
        `num_examples` images, mistakes first.
    """
    logits, all_targets, mistakes, others = [], [], [], []
    for images, targets in batches(split):
        batch_logits = export.predict(model, images)
        logits.append(batch_logits)
        all_targets.append(targets)
        for image, row, target in zip(images, batch_logits, targets):
            kept = others if row.argmax() == target else mistakes
            if len(kept) < num_examples:
                kept.append((image, row, target))
    images, rows, targets = (np.stack(parts) for parts in zip(*(mistakes + others)[:num_examples]))
    return np.concatenate(logits), np.concatenate(all_targets), (images, tf.nn.softmax(rows).numpy(), targets)


def log_augmented_images(run, splits, count=16):
    """Shows the first training batch, as the network sees it, in TensorBoard."""
    images, _ = next(iter(splits.train()))
    reporting.log_image_batch(run, "training_batch", images[:count].numpy())


def main(config):
    if config.explain:
        splits = data.load(config)
        fits = compressing.what_fits(config, lambda: models.build(config, splits.spec),
                                     lambda phase: make_method(phase, splits, ()))
        explaining.print_plan(config, models.build(config, splits.spec), splits, distribution.DISTRIBUTIONS, fits,
                              compressing.phases(config))
        return
    if workdir.serves(config):
        return
    began = time.time()
    train(config)
    print(f"finished in {time.time() - began:.0f} s")


if __name__ == "__main__":
    flagging.run_app(Config, main)
