"""Trains, evaluates, exports and reports a translation model.

    python -m apps.translation.train --data=dates --model=transformer_tiny --workdir=runs/dates
"""

import math
import time

import numpy as np
import tensorflow as tf

from apps.common import compressing, flagging, reporting, training
from apps.common import config as config_lib
from apps.common import tokens as tokens_lib
from apps.translation import averaging, data, models, pictures, scheduled, scoring, sequences, steps, translating
from apps.translation.config import Config
from apps.translation.names import SETTINGS
from layers.counting import count_nonzero, count_parameters
from layers.token_loss import TokenCrossentropy, token_metrics
from strategies import export

NUM_COMPARED = 16  # calls on which a file is compared with Keras
NUM_SHOWN = 12  # translations in the report
LENGTH_ROWS = 8
MODEL_FLAGS = ("initial_model", "distill_teacher", "distill_sequences")  # of models with vocabularies


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
    export.check_signature_formats(training.export_formats(config))
    run, strategy = training.open_run(config)
    scoring.score(["a"], ["a"], tokenize=config.bleu_tokenize)  # what is not installed is known now
    task = load_task(config)
    splits = task.splits
    sequences.check(config)
    training.check(run, task, strategy)
    if config.distill_sequences:
        splits = data.load(config, sequences.targets(run, splits.spec))
        task = make_task(config, splits)
    found = training.run_phases(run, task, strategy, callbacks)
    if found is None:
        return {}
    model, cost = found
    metrics, translations = evaluate(model, splits, config)
    export_and_report(run, model, splits, metrics | cost, translations)
    run.end()
    return metrics | cost


def load_task(config):
    """The task of a configuration, its data loaded and its vocabularies compared with its models'."""
    splits = data.load(config)
    check_vocabulary(config, splits.spec)
    return make_task(config, splits)


def make_task(config, splits):
    """What `apps.common.training` needs to know of this application."""
    spec = splits.spec
    loss = TokenCrossentropy(spec.mean_length, label_smoothing=config.label_smoothing)

    def build(config):
        model = models.build(config, spec)
        if config.scheduled_sampling:
            steps_in_all = max(1, config.epochs * splits.train.steps_per_epoch)
            model = scheduled.ScheduledSampling(model, config.scheduled_sampling, steps_in_all, config.seed)
        return model

    def compile_model(model, optimizer, config):
        model.compile(optimizer=optimizer, loss=loss, metrics=token_metrics(), jit_compile=config.jit_compile)

    # The best epoch is that of the smallest loss, smoothing included: without it, a network that is sure of what it
    # has learned well counts for less than one on the way there.
    return training.Task(
        splits=splits, build=build, compile=compile_model, loss=loss, representative=splits.representative,
        monitor=("val_loss", "min"), plain=scheduled.plain, in_steps=True,
        check_export=lambda model, format: check_export(model, format, spec),
        callbacks=lambda part: averaging.callbacks(part), end=lambda part, phase, model: averaging.finish(part, model))


def check_vocabulary(config, spec):
    """Raises ValueError where a model to start or learn from has other tokens than this data."""
    for side in ("source", "target"):
        for flag, folder in tokens_lib.folders_of_models(config, side, MODEL_FLAGS):
            tokens_lib.check_same(tokens_lib.load(folder), getattr(spec, side), flag)


def check_export(model, format, spec):
    """Raises ValueError for a model that the TFLite converter refuses, before it is trained."""
    parts = steps.file_models(model, spec.max_length)
    sentence = [*spec.source.encode(spec.test_pairs[0][0]), tokens_lib.END]
    samples = translating.representative(parts, spec, [sentence])
    export.check_signatures_convertible(parts, format, samples)


def evaluate(model, splits, config):
    """(metrics of the final weights in float32, translations of the test)."""
    spec, metrics = splits.spec, {}
    model.compile(loss=TokenCrossentropy(1.0), metrics=token_metrics())
    for name, split in (("test", splits.test), ("validation", splits.validation)):
        if split is not None:
            _, nats, accuracy = model.evaluate(split(), verbose=0)
            metrics |= {f"{name}_cross_entropy": nats, f"{name}_perplexity": math.exp(min(nats, 100.0)),
                        f"{name}_token_accuracy": accuracy}
    sources, references = zip(*spec.test_pairs[:config.num_translated])
    began = time.perf_counter()
    translations = translating.translate(model, spec, sources, config)
    seconds = time.perf_counter() - began
    scores = scoring.score(translations, references, tokenize=config.bleu_tokenize)
    metrics |= {"test_bleu": scores.bleu, "test_chrf": scores.chrf, "test_exact_match": scores.exact_match,
                "test_bleu_lower_case": scoring.score(translations, references, tokenize=config.bleu_tokenize,
                                                      lower_case=True).bleu,
                "sentences_per_second": len(sources) / seconds, "num_test": len(sources),
                "num_left_out": spec.num_left_out, "num_left_out_validation": spec.num_left_out_validation,
                "num_cut_test": spec.num_cut_test, "test_unknown_share": spec.test_unknown_share,
                "num_parameters": count_parameters(model),
                "num_nonzero": count_nonzero(model), "source_vocabulary": len(spec.source),
                "target_vocabulary": len(spec.target)}
    return metrics, translations


def export_and_report(run, model, splits, metrics, translations):
    """Writes `metrics.json`, the exported files, pictures and `report.md`, and prints the table."""
    config, spec = run.config, splits.spec
    sources, references = zip(*spec.test_pairs[:config.num_translated])
    metric = "exact_match" if config.data == "dates" else "bleu"

    def value(found, count):
        return getattr(scoring.score(found, references[:count], tokenize=config.bleu_tokenize), metric)

    def file_value(runs):
        translator = translating.file_translator(parts, runs, spec.max_length)
        count = min(config.num_scored, len(sources))
        options = {"beam": {"width": config.beam_width, "alpha": config.length_penalty}, "sample": {
            "chance": np.random.default_rng(config.seed), "temperature": config.temperature, "top_k": config.top_k,
            "top_p": config.top_p}}.get(config.decoding, {})
        return value([spec.target.decode(translator.translate(spec.source.encode(text), **options))
                      for text in sources[:count]], count)

    parts = steps.file_models(model, spec.max_length)
    rows = export.export_all(model, run.path, formats=["keras"], samples=splits.representative(4), metric=metric,
                             variant=training.variant_of(config),
                             evaluate=lambda _: value(translations[:config.num_scored], config.num_scored))
    formats = training.export_formats(config)
    if formats:
        samples = translating.representative(parts, spec, splits.representative(config.num_representative)["source"])
        few = {name: tf.nest.map_structure(lambda array: array[:NUM_COMPARED], value)
               for name, value in samples.items()}
        rows += export.export_signatures(parts, run.path, whole=model, samples=few, formats=formats,
                                         representative=samples, evaluate=file_value, metric=metric,
                                         variant=training.variant_of(config))
    rows += compressing.packed_rows(run, model, rows, splits.representative(4), lambda unpacked: value(
        translating.translate(unpacked, spec, sources[:config.num_scored], config), config.num_scored))
    for side in ("source", "target"):
        getattr(spec, side).save(run.folder(f"export/{side}"))
    config_lib.write_json(run.folder("export") / SETTINGS, {"max_length": spec.max_length,
                                                            "lower_case": config.lower_case})
    lengths = [len(spec.source.encode(text)) for text in sources]
    edges = sorted({int(np.quantile(lengths, (i + 1) / LENGTH_ROWS)) for i in range(LENGTH_ROWS)})
    by_length = scoring.by_length(translations, references, [range(n) for n in lengths], edges)
    scores = scoring.score(translations, references, tokenize=config.bleu_tokenize)
    sections = {
        "Scores": f"BLEU {scores.bleu:.2f} ({scores.bleu_signature}), lower-cased "
                  f"{metrics['test_bleu_lower_case']:.2f}; chrF {scores.chrf:.2f} ({scores.chrf_signature}); exactly "
                  f"right {scores.exact_match:.2%}.",
        "By length of the source": reporting.markdown_table(
            ["tokens", "sentences", "exactly right", "chrF"],
            [[f"{first} to {last}", count, f"{exact:.1%}", f"{chrf:.1f}"] for first, last, count, exact, chrf in
             by_length]),
        "Translations": reporting.markdown_table(["source", "reference", "translation"], [
            [cell.replace("|", "\\|") for cell in row] for row in zip(sources[:NUM_SHOWN], references, translations)])}
    figures = pictures.attention_figures(model, spec, sources, translations)
    training.report(run, f"{config.model} on {config.data}", metrics, rows, figures=figures, sections=sections)
    print(f"BLEU {scores.bleu:.2f}, chrF {scores.chrf:.2f}, exactly right {scores.exact_match:.2%} of {len(sources)}, "
          f"after {metrics['seconds']:.0f} s of training")


def main(config):
    training.run_app(config, train, lambda: load_task(config))


if __name__ == "__main__":
    flagging.run_app(Config, main)
