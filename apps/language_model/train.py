"""Trains, evaluates, exports and reports a language model.

    python -m apps.language_model.train --data=sums --model=lstm --workdir=runs/sums
"""

import math

import numpy as np

from apps.common import compressing, flagging, training
from apps.common import tokens as tokens_lib
from apps.language_model import carrying, data, models, writing
from apps.language_model.config import Config
from layers.counting import count_nonzero, count_parameters
from layers.token_loss import TokenCrossentropy, token_losses, token_metrics
from strategies import export

NUM_SCORED = 8  # windows of the test on which each exported file is scored, a token at a time
NUM_COMPARED = 16  # steps on which a file is compared with Keras


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
    """The task of a configuration, its data loaded and its vocabulary compared with its models'."""
    splits = data.load(config, is_masked=models.is_masked(config.model))
    check_vocabulary(config, splits.spec.vocabulary)
    return make_task(config, splits)


def make_task(config, splits):
    """What `apps.common.training` needs to know of this application."""
    loss = TokenCrossentropy(data.mean_targets(config, splits.spec.is_masked), label_smoothing=config.label_smoothing)

    def build(config):
        model = models.build(config, splits.spec)
        if config.carry_state:
            model = carrying.Carrying(model, config.batch_size, splits.train.steps_per_epoch)
        return model

    def compile_model(model, optimizer, config):
        model.compile(optimizer=optimizer, loss=loss, metrics=token_metrics(), jit_compile=config.jit_compile)

    return training.Task(splits=splits, build=build, compile=compile_model, loss=loss, representative=splits.windows,
                         monitor=("val_cross_entropy", "min"), plain=carrying.plain,
                         in_steps=not splits.spec.is_masked,
                         check_export=lambda model, format: check_export(model, format, splits, config.export_window))


def check_vocabulary(config, vocabulary):
    """Raises ValueError where a model to start or learn from has other tokens than this data."""
    for flag, folder in tokens_lib.folders_of_models(config):
        tokens_lib.check_same(tokens_lib.load(folder), vocabulary, flag)


def check_export(model, format, splits, has_window):
    """Raises ValueError for a model that the TFLite converter refuses, before it is trained."""
    written, representative = exported_model(model, splits)
    export.check_convertible(written, format, representative(training.NUM_TRIAL_EXAMPLES))
    if has_window:
        export.check_convertible(model, format, splits.windows(training.NUM_TRIAL_EXAMPLES))


def evaluate(model, splits):
    """Cross-entropy, perplexity and bits a character of the final weights, in float32, and the size of the model."""
    spec, metrics = splits.spec, {}
    reader = model
    if spec.is_carried:
        reader = carrying.Carrying(model, splits.test.batch_size, splits.train.steps_per_epoch)
    reader.compile(loss=TokenCrossentropy(1.0), metrics=token_metrics())
    for name, split in (("test", splits.test), ("validation", splits.validation)):
        if split is not None:
            _, nats, accuracy = reader.evaluate(split(), verbose=0)
            metrics |= {f"{name}_cross_entropy": nats, f"{name}_perplexity": math.exp(min(nats, 100.0)),
                        f"{name}_accuracy": accuracy}
            metrics[f"{name}_unknown_share"] = spec.unknown_share[name]
            # Not of masked models, whose tokens are not all of the text's, nor where some characters are not said.
            if not spec.is_masked and not spec.unknown_share[name]:
                per_character = nats * (spec.num_tokens[name] - 1) / spec.num_characters[name]
                metrics[f"{name}_bits_per_character"] = per_character / math.log(2)
    if spec.source_entropy is not None and not spec.is_masked:
        metrics["source_bits_per_character"] = spec.source_entropy / math.log(2)
    return metrics | {"num_parameters": count_parameters(model), "num_nonzero": count_nonzero(model),
                      "vocabulary_size": len(spec.vocabulary), "num_test_tokens": spec.num_tokens["test"]}


def exported_model(model, splits):
    """(model that goes into the files, representative inputs of it): its step, or itself where it has none."""
    if splits.spec.is_masked:
        return model, splits.windows
    step = models.step_model(model)
    return step, lambda count: export.step_samples(step, splits.windows(max(1, count // splits.spec.length + 1)), count)


def export_and_report(run, model, splits, metrics):
    """Writes `metrics.json`, the exported files, a sample of text, plots and `report.md`."""
    config, spec = run.config, splits.spec
    written, representative = exported_model(model, splits)
    samples = representative(NUM_COMPARED)
    inputs, targets = scored_windows(splits)

    def step_cross_entropy(predict):
        if spec.is_masked:
            return mean_cross_entropy(predict(inputs), targets)
        outputs = export.run_steps(lambda arrays: predict(arrays), inputs, step=written)
        return mean_cross_entropy(np.concatenate(outputs[models.logits_name(written)], axis=1), targets)

    keras_row = export.export_all(model, run.path, formats=["keras"], samples=inputs, metric="cross_entropy",
                                  variant=training.variant_of(config),
                                  evaluate=lambda predict: mean_cross_entropy(predict(inputs), targets))
    rows = keras_row + export.export_all(
        written, run.path, formats=training.export_formats(config), samples=samples, metric="cross_entropy",
        variant=training.variant_of(config), evaluate=step_cross_entropy,
        representative=representative(config.num_representative))
    if config.export_window and written is not model:
        rows += export.export_all(
            model, run.folder("window"), formats=training.export_formats(config), samples=inputs,
            metric="cross_entropy", variant=f"{training.variant_of(config)}, window",
            evaluate=lambda predict: mean_cross_entropy(predict(inputs), targets),
            representative=splits.windows(config.num_representative))
    rows += compressing.packed_rows(run, model, rows, inputs,
                                    lambda unpacked: mean_cross_entropy(export.predict(unpacked, inputs), targets))
    spec.vocabulary.save(run.folder("export"))
    sections = {} if spec.is_masked else {"A sample": f"```\n{sample(config, written, spec)}\n```"}
    training.report(run, f"{config.model} on {config.data}", metrics, rows, figures={}, sections=sections,
                    samples=samples)
    print(f"test cross-entropy {metrics['test_cross_entropy']:.4f} nats a token, perplexity "
          f"{metrics['test_perplexity']:.2f}, after {metrics['seconds']:.0f} s of training")


def scored_windows(splits):
    """(inputs, targets) int [n, T] of up to `NUM_SCORED` windows of the test."""
    batches = [(x.numpy(), y.numpy()) for x, y in splits.test().take(NUM_SCORED)]
    inputs, targets = (np.concatenate(parts) for parts in zip(*batches))
    chosen = np.linspace(0, len(inputs) - 1, min(NUM_SCORED, len(inputs))).astype(int)
    return inputs[chosen], targets[chosen]


def mean_cross_entropy(logits, targets):
    """Nats a token of logits [n, T, V], padding left out."""
    losses = token_losses(targets, np.asarray(logits, np.float32)).numpy()
    return float(losses[targets != tokens_lib.PADDING].mean())


def sample(config, step, spec):
    """What the model writes, as text."""
    state = models.zero_state(step)
    numbers = writing.write(models.stepper(step), state, writing.beginning(spec.vocabulary), config.sample_tokens,
                            limit=writing.limit_of(state), seed=config.seed, temperature=config.temperature)
    return writing.decode_text(spec.vocabulary, list(numbers))


def main(config):
    training.run_app(config, train, lambda: load_task(config))


if __name__ == "__main__":
    flagging.run_app(Config, main)
