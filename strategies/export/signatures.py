"""Several models in one file, as signatures: an encoder and a decoder's step, which share their weights.

A phone calls them one after another and hands arrays from one to the next; `strategies.signature.Signature` does so
without TensorFlow.
"""

import contextlib
import pathlib
import statistics
import tempfile
import time

import numpy as np

from layers.attention import floored
from layers.counting import count_nonzero, count_parameters
from strategies.export import folding, litert, normalizing, recurrent, report, saved_model, tflite
from strategies.export.conversion import ConversionError
from strategies.export.files import gzip_bytes, replacing, size_bytes
from strategies.export.interface import Interface
from strategies.signature import Signature

FORMATS = ("saved_model", *(name for name in tflite.FORMATS if name != "sparse"))
_TIMED_RUNS = 60


def convert_signatures(models, path, format, *, representative=None, timeout=tflite.TIMEOUT):
    """Writes models as one TFLite file with a signature each, for one sample.

    Args:
        models: {signature: functional `keras.Model` with known input shapes}.
        path: `.tflite` file to write.
        format: one of `FORMATS` but saved_model.
        representative: for int8 and int16, {signature: inputs in the model's structure, [N, ...] each}.
        timeout: seconds.

    Raises:
        ValueError: unknown format, or int8 or int16 without representative samples.
        ConversionError: the converter failed.
    """
    check_signature_formats([format])
    tflite.check(format, representative)
    with tempfile.TemporaryDirectory(prefix="usagi-export-") as folder, replacing(path) as temporary:
        folder = pathlib.Path(folder)
        with contextlib.ExitStack() as stack:
            for model in models.values():
                stack.enter_context(recurrent.unrolled(model))
                if format in tflite.CALIBRATED:
                    stack.enter_context(floored(model))
                    stack.enter_context(folding.without_constant_channels(model))
                    stack.enter_context(normalizing.in_two_steps(model))
                    stack.enter_context(recurrent.with_scales_of_their_own(model))
            saved_model.write_signatures(models, folder / "saved_model", batch_size=1)
        files = dict.fromkeys(models)
        if format in tflite.CALIBRATED:
            for name, model in models.items():
                files[name] = folder / f"{name}.npz"
                np.savez(files[name], **Interface(model).named(representative[name]))
        tflite.request_conversion(folder / "saved_model", temporary, format, files, timeout=timeout,
                                  name=pathlib.Path(path).name)


def export_signatures(models, directory, *, whole, samples, formats, representative=None, evaluate=None,
                      metric="accuracy", variant="float", timed="step"):
    """Writes models in several formats, reads every file back, compares each signature with Keras and measures it.

    Args:
        models: as of `convert_signatures`.
        directory: folder of the run; files are where `report.export_all` puts them.
        whole: the model that they were taken out of, whose parameters are counted.
        samples: {signature: inputs [N, ...]}, on which files are compared with Keras.
        formats: some of `FORMATS`.
        representative: {signature: inputs}, for int8 and int16.
        evaluate: function from {signature: `run(named inputs) -> named outputs`} to a number.
        metric, variant: as of `report.export_all`.
        timed: the signature whose latency is in the rows.

    Returns:
        rows as `report.export_all` gives them; macs and peak_memory_bytes are None.

    Raises:
        ValueError: a format that is not for several signatures, or a file that does not agree with Keras.
        ConversionError: the converter failed.
    """
    check_signature_formats(formats)
    rows = []
    for format in (name for name in FORMATS if name in formats):
        path = report.path_of(directory, format)
        if format == "saved_model":
            saved_model.write_signatures(models, path)
            runs = {name: saved_model.load_saved_model(path, name) for name in models}
        else:
            convert_signatures(models, path, format, representative=representative)
            runs = {name: one_by_one(Signature(path, name)) for name in models}
        differences = {"max_abs_diff": 0.0, "relative_diff": 0.0}
        for name, model in models.items():
            found = _difference(Interface(model), model, samples[name], runs[name], path, format)
            differences = {key: max(value, found[key]) for key, value in differences.items()}
        first = {name: value[:1] for name, value in Interface(models[timed]).named(samples[timed]).items()}
        is_file = path.suffix == ".tflite"
        rows.append({
            "variant": variant, "format": format, "metric": metric if evaluate else None,
            "value": float(evaluate(runs)) if evaluate else None, "parameters": count_parameters(whole),
            "nonzero": count_nonzero(whole), "macs": None, "bytes": size_bytes(path), "gzip_bytes": gzip_bytes(path),
            "latency_ms": latency(runs[timed], first) if is_file else None, "peak_memory_bytes": None, **differences,
            "float_operators": litert.float_operators(path) if format in tflite.CALIBRATED else None})
    return rows


def check_signature_formats(formats):
    """Raises ValueError unless every format is one of `FORMATS`."""
    wrong = [name for name in formats if name not in FORMATS]
    if wrong:
        raise ValueError(f"--export={wrong[0]} is not for a model that goes into a file as several signatures: "
                         f"expected some of {', '.join(FORMATS)}.")


def one_by_one(run):
    """A signature for one sample as a function of any number of them."""

    def many(inputs):
        parts = [run({name: array[i:i + 1] for name, array in inputs.items()})
                 for i in range(len(next(iter(inputs.values()))))]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return many


def latency(run, sample):
    """Median time of one call, in milliseconds, copies in and out included."""
    seconds = []
    for _ in range(10 + _TIMED_RUNS):
        began = time.perf_counter()
        run(sample)
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds[10:])


def _difference(interface, model, samples, run, path, format):
    named = interface.named(samples)
    reference = interface.named_outputs(saved_model.predict(model, samples))
    return report.compare(reference, run(named), path, format)


def check_signatures_convertible(models, format, representative):
    """Converts models, trained or not, and throws the file away; arguments as of `convert_signatures`.

    Raises:
        ConversionError: the converter failed; the message says what can be done.
    """
    with tempfile.TemporaryDirectory(prefix="usagi-export-") as folder:
        try:
            convert_signatures(models, pathlib.Path(folder) / f"{format}.tflite", format, representative=representative)
        except ConversionError as error:
            raise ConversionError(f"The model cannot be exported as {format}, which was tried before training. {error} "
                                  "Leave the format out, or change the model.") from None
