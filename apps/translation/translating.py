"""Sentences in, sentences out: batches through the compiled decoder, and one by one through an exported file."""

import numpy as np
import tensorflow as tf

from apps.common import compiled_decoding, tokens
from apps.translation import steps
from apps.translation.reading import Translator

BATCH_SIZE = 32
MOST_CALIBRATED = 2**28  # bytes of what is kept for a signature


def translate(model, spec, texts, config, batch_size=BATCH_SIZE):
    """Translations of texts, a list; arguments as of `make_translator`."""
    return make_translator(model, spec, config, batch_size)(texts)


def make_translator(model, spec, config, batch_size=BATCH_SIZE):
    """A Keras model as a function of sentences, with the decoding that a configuration describes; compiled once.

    Args:
        model: what `models.build` returned, trained.
        spec: `data.PairSpec`.
        config: `Config`.
        batch_size: sentences at a time.

    Returns:
        function from a list of sentences, as `data.prepare` leaves them, to a list of texts.
    """
    begin, step = steps.decoder(model, spec.max_length, batch_size)
    draws = {"temperature": config.temperature, "top_k": config.top_k, "top_p": config.top_p}

    @tf.function(jit_compile=True)
    def decode(source, seed):
        options = {"batch_size": batch_size, "length": spec.max_length}
        if config.decoding == "beam":
            return compiled_decoding.beam(step, begin(source), **options, width=config.beam_width,
                                          alpha=config.length_penalty)[0][:, 0]
        if config.decoding == "sample":
            return compiled_decoding.decode(step, begin(source), **options, **draws, seed=(config.seed, seed))
        return compiled_decoding.decode(step, begin(source), **options)

    def run(texts):
        rows = np.zeros((-(-len(texts) // batch_size) * batch_size, spec.max_length), np.int32)
        for row, text in enumerate(texts):
            numbers = [*spec.source.encode(text)[:spec.max_length - 1], tokens.END]
            rows[row, :len(numbers)] = numbers
        rows[len(texts):, 0] = tokens.END
        # A token of a batch has a seed of its own: that of the batch, and its place.
        found = [decode(tf.constant(rows[i:i + batch_size]), tf.constant(i * spec.max_length)).numpy()
                 for i in range(0, len(rows), batch_size)]
        return [spec.target.decode(numbers) for numbers in np.concatenate(found)[:len(texts)]] if texts else []

    return run


def file_translator(models, runs, max_length):
    """A `Translator` for what was exported.

    Args:
        models: what `steps.file_models` returned.
        runs: {signature: function}, as `export.export_signatures` gives them.
        max_length: as of `Translator`.
    """
    inputs = {name: {key: ((1, *tensor.shape[1:]), tensor.dtype.as_numpy_dtype)
                     for key, tensor in _named(model).items()} for name, model in models.items()}
    return Translator(runs, inputs, max_length)


def keras_translator(model, max_length):
    """A `Translator` for a Keras model, sentence by sentence, as a file does it."""
    models = steps.file_models(model, max_length)
    translator = file_translator(models, {name: _runner(part) for name, part in models.items()}, max_length)
    translator.num_source = steps.source_embedding(model).embeddings.shape[0]
    return translator


def _runner(model):
    """A model as a function from {name: array} to {name: array}."""
    run = tf.function(lambda inputs: model(inputs, training=False))
    return lambda inputs: {key: value.numpy() for key, value in run(_given(model, inputs)).items()}


def _given(model, inputs):
    """Named arrays in the structure that a model takes."""
    arrays = {key: tf.constant(value) for key, value in inputs.items()}
    return arrays if isinstance(model.input, dict) else next(iter(arrays.values()))


def _named(model):
    return model.input if isinstance(model.input, dict) else {model.input_names[0]: model.input}


def representative(models, spec, sentences, most=MOST_CALIBRATED):
    """Inputs of each signature that occur while sentences are translated, {signature: {name: [N, ...]}}.

    The float model translates. All that passes through a signature is kept, or of more than `most` bytes a random part
    (reservoir sampling): an int8 file cuts off what is beyond the extremes of these samples, so there should be many,
    but the caches of a large model for all steps would not fit into memory.

    Args:
        models: what `steps.file_models` returned.
        spec: `data.PairSpec`.
        sentences: numbers of each source; an end and what follows it are left out.
        most: bytes of a signature's samples.
    """
    kept, passed, chance = {name: [] for name in models}, dict.fromkeys(models, 0), np.random.default_rng(0)

    def recording(name, run):
        def call(inputs):
            passed[name] += 1
            count = max(1, most // sum(array.nbytes for array in inputs.values()))
            place = len(kept[name]) if len(kept[name]) < count else int(chance.integers(passed[name]))
            if place < count:
                kept[name][place:place + 1] = [inputs]
            return run(inputs)

        return call

    translator = file_translator(models, {name: recording(name, _runner(model)) for name, model in models.items()},
                                 spec.max_length)
    for sentence in sentences:
        numbers = [int(number) for number in sentence]
        translator.translate(numbers[:numbers.index(tokens.END)] if tokens.END in numbers else numbers)
    found = {}
    for name, samples in kept.items():
        found[name] = {key: np.concatenate([sample[key] for sample in samples]) for key in samples[0]}
        if not isinstance(models[name].input, dict):
            found[name] = next(iter(found[name].values()))
    return found
