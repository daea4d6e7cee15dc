"""Trains, evaluates, exports and reports an image classifier.

    python -m apps.image_classification.train --data=digits --model=resnet20 --workdir=runs/digits
"""

import time

import numpy as np
import sklearn.metrics
import tensorflow as tf
import tf_keras as keras

from apps.common import explaining, fitting, flagging, optimization, reporting, workdir
from apps.image_classification import data, models
from apps.image_classification.config import Config
from layers.counting import count_parameters
from layers.regularization import add_weight_penalty
from strategies import distribution, export


def train(config, callbacks=()):
    """Runs the whole story of one configuration; a second call with the same workdir resumes it.

    Args:
        config: `Config`.
        callbacks: further Keras callbacks, such as a tuner's.

    Returns:
        the flat dictionary written to `<workdir>/metrics.json`.

    Raises:
        ValueError: bad input; raised before anything is trained or written.
        apps.common.fitting.TrainingDiverged: the loss is not finite.
    """
    export.check_formats(export_formats(config))
    strategy = distribution.create(config.distribution)
    run = workdir.Run(config)
    workdir.prepare_runtime(config)
    splits = data.load(config)

    def compiled(total_steps):
        keras.utils.set_random_seed(config.seed)
        model = models.build(config, splits.spec)
        add_weight_penalty(model, l1=config.l1, l2=config.l2)
        model.compile(optimizer=optimization.make_optimizer(config, total_steps, model),
                      loss=keras.losses.CategoricalCrossentropy(from_logits=True),
                      metrics=["accuracy"], jit_compile=config.jit_compile)
        model.optimizer.build(model.trainable_variables)  # else the first step is traced twice, to create the slots
        return model

    total_steps = fitting.total_steps(run, compiled, strategy, splits.train, splits.validation)
    with strategy.scope():
        model = compiled(total_steps)
    run.begin()
    progress = fitting.restore(run, model)
    log_augmented_images(run, splits)
    strategy.fit(model, splits.train, start_step=progress.step,
                 total_steps=progress.step if progress.stopped_early else total_steps, validation=splits.validation,
                 callbacks=fitting.callbacks(run, progress, splits.train, extra=callbacks),
                 verbose=fitting.verbosity(config))
    if config.keep == "best" and progress.best_epoch >= 0:
        fitting.restore_best(run, model)

    plain = models.float32_copy(strategy.gather(model), config, splits.spec)
    metrics = evaluate(plain, splits, progress, total_steps)
    export_and_report(run, plain, splits, metrics)
    run.end()
    return metrics


def evaluate(model, splits, progress, total_steps):
    """Loss and accuracy of the final weights, in float32, with what the run cost."""
    model.compile(loss=keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    metrics = {}
    for name, split in (("test", splits.test), ("validation", splits.validation)):
        if split is not None:
            loss, accuracy = model.evaluate(split(), verbose=0)
            metrics |= {f"{name}_accuracy": accuracy, f"{name}_loss": loss}
    seconds = max(progress.seconds, 1e-9)
    return metrics | {
        "num_parameters": count_parameters(model), "macs": export.count_macs(model), "seconds": progress.seconds,
        "steps": progress.step, "total_steps": total_steps, "epochs": progress.step / splits.train.steps_per_epoch,
        "best_epoch": progress.best_epoch + 1, "images_per_second": progress.step * splits.train.batch_size / seconds,
        "num_train": splits.train.num_examples, "num_test": splits.test.num_examples}


def export_formats(config):
    """The formats of `--export`, as a list."""
    return [] if config.export == "none" else [name.strip() for name in config.export.split(",")]


def export_and_report(run, model, splits, metrics):
    """Writes `metrics.json`, the exported files, plots and `report.md`, and prints the table."""
    config, spec = run.config, splits.spec
    reporting.write_metrics(run, metrics)
    logits, targets, examples = examine(model, splits.test)
    rows = export.export_all(
        model, run.path, formats=["keras", *export_formats(config)], samples=examples[0],
        representative=data.calibration_images(config, splits, config.num_representative),
        evaluate=lambda predict: accuracy_over(predict, splits.test), fold_batch_norm=config.fold_batch_norm)
    export.write_csv(rows, run.path / "report.csv")
    data.write_labels(spec, run.folder("export"))

    confusion = sklearn.metrics.confusion_matrix(targets, logits.argmax(axis=1), labels=range(spec.num_classes))
    figures = {"curves": reporting.curves_figure(fitting.read_history(run.path / "history.csv")),
               "confusion_matrix": reporting.confusion_figure(confusion, spec.class_names),
               "predictions": reporting.predictions_figure(*examples, spec.class_names)}
    plots = {name: run.path / "plots" / f"{name}.png" for name in figures}
    reporting.log_images(run, {name: reporting.save_figure(figure, plots[name]) for name, figure in figures.items()})
    endings = ("accuracy", "loss", "parameters", "seconds")
    reporting.log_hparams(run.folder("logs") / "hparams", config,
                          {name: value for name, value in metrics.items() if name.endswith(endings)})
    table = export.markdown_table(rows)
    report = reporting.write_report(run, f"{config.model} on {config.data}", metrics, {"Exported files": table}, plots)
    print(f"\n{table}\ntest accuracy {metrics['test_accuracy']:.2%} after {metrics['seconds']:.0f} s of training\n"
          f"report: {report}   plots: {run.path / 'plots'}   TensorBoard: tensorboard --logdir {run.path / 'logs'}")


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
        batch_logits = model.predict_on_batch(images)
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
        explaining.print_plan(config, models.build(config, splits.spec), splits, distribution.DISTRIBUTIONS)
        return
    began = time.time()
    train(config)
    print(f"finished in {time.time() - began:.0f} s")


if __name__ == "__main__":
    flagging.run_app(Config, main)
