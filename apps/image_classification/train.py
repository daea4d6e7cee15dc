"""Trains, evaluates, exports and reports an image classifier.

    python -m apps.image_classification.train --data=digits --model=resnet20 --workdir=runs/digits
"""

import functools
import pathlib

import numpy as np
import sklearn.metrics
import tensorflow as tf
import tf_keras as keras

from apps.common import compressing, flagging, reporting, training
from apps.image_classification import data, labels, models
from apps.image_classification.config import Config
from layers.counting import count_nonzero, count_parameters
from strategies import compression, export

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
    return training.run_whole(config, lambda: load_task(config), evaluate, export_and_report, callbacks)


def load_task(config):
    """The task of a configuration, its data loaded."""
    return make_task(config, data.load(config))


def make_task(config, splits):
    """What `apps.common.training` needs to know of this application."""
    check_classes(config, splits.spec)
    return training.Task(
        splits=splits, build=lambda config: models.build(config, splits.spec), compile=compile_model, loss=make_loss(),
        representative=lambda count: data.calibration_images(config, splits, count),
        unaugmented=splits.plain if config.augmentation == "none" else None, monitor=("val_accuracy", "max"),
        begin=lambda part, phase: log_augmented_images(part, phase, splits),
        end=lambda part, phase, model: save_simulated_logits(part, phase, model, splits))


def check_classes(config, spec):
    """Raises ValueError where the workdir of a model to start or learn from names other classes than this data."""
    for flag in ("initial_model", "distill_teacher"):
        for folder in filter(None, (part.strip() for part in getattr(config, flag).split(","))):
            path = pathlib.Path(folder) / "export" / labels.LABELS_FILE
            if path.is_file():
                theirs = labels.read_labels(path).class_names
                if theirs != tuple(spec.class_names):
                    other = next((pair for pair in zip(theirs, spec.class_names) if pair[0] != pair[1]), None)
                    words = f"{len(theirs)} of them" if other is None else f"{other[0]!r} in the place of {other[1]!r}"
                    raise ValueError(f"--{flag}={folder} was trained on other classes than --data={config.data} has: "
                                     f"expected {len(spec.class_names)} classes, received {words}. Give a model of the "
                                     "same data.")


def compile_model(model, optimizer, config):
    """The loss and the metrics of training."""
    model.compile(optimizer=optimizer, loss=make_loss(), metrics=["accuracy"], jit_compile=config.jit_compile)


def make_loss():
    """Cross-entropy of logits against probabilities."""
    return keras.losses.CategoricalCrossentropy(from_logits=True)


def save_simulated_logits(part, phase, model, splits):
    """Keeps what a model under fake quantisation says of the test images, to compare the int8 file with."""
    if phase.method != "quantize":
        return
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


def export_and_report(run, model, splits, metrics):
    """Writes `metrics.json`, the exported files, plots and `report.md`, and prints the table."""
    config, spec = run.config, splits.spec
    logits, targets, examples = examine(model, splits.test)

    def accuracy(predict):
        return accuracy_over(predict, splits.test)

    rows = export.export_all(
        model, run.path, formats=["keras", *training.export_formats(config)], samples=examples[0],
        variant=training.variant_of(config), evaluate=accuracy, fold_batch_norm=config.fold_batch_norm,
        representative=data.calibration_images(config, splits, config.num_representative))
    rows += compressing.packed_rows(run, model, rows, examples[0], lambda unpacked: accuracy(
        functools.partial(export.predict, unpacked)))
    data.write_labels(spec, run.folder("export"))
    metrics |= simulation_metrics(run, splits)
    confusion = sklearn.metrics.confusion_matrix(targets, logits.argmax(axis=1), labels=range(spec.num_classes))
    training.report(run, f"{config.model} on {config.data}", metrics, rows, sections={}, samples=examples[0], figures={
        "confusion_matrix": reporting.confusion_figure(confusion, spec.class_names),
        "predictions": reporting.predictions_figure(*examples, spec.class_names)})
    print(f"test accuracy {metrics['test_accuracy']:.2%} after {metrics['seconds']:.0f} s of training")


def simulation_metrics(run, splits):
    """How often the int8 file decides as the model under fake quantisation did; nothing where either is missing."""
    last = compressing.phases(run.config)[-1]
    if last.method != "quantize" or "int8" not in training.export_formats(run.config):
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


def log_augmented_images(part, phase, splits, count=16):
    """Shows the first training batch, as the network sees it, in TensorBoard; phases of compression see the same."""
    if phase.method not in ("train", "distill"):
        return
    images, _ = next(iter(splits.train()))
    reporting.log_image_batch(part, "training_batch", images[:count].numpy())


def main(config):
    training.run_app(config, train, lambda: load_task(config))


if __name__ == "__main__":
    flagging.run_app(Config, main)
