"""All files of a model, each reloaded, compared with Keras, evaluated and measured: a row of the report per file."""

import csv
import pathlib

import numpy as np

from layers.checking import unknown_name
from layers.counting import count_nonzero, count_parameters
from strategies import interpreter
from strategies.copying import copy_model
from strategies.export import folding, litert, saved_model, tflite
from strategies.export.counting import count_macs
from strategies.export.files import gzip_bytes, replacing, size_bytes
from strategies.export.interface import Interface

FORMATS = ("keras", "saved_model", "bfloat16", *tflite.FORMATS)
_USUAL = tuple(name for name in FORMATS if name != "int16")  # that one LiteRT has for fewer operators
COLUMNS = ("variant", "format", "metric", "value", "parameters", "nonzero", "macs", "bytes", "gzip_bytes", "latency_ms",
           "peak_memory_bytes", "max_abs_diff")
# Largest difference from Keras / largest absolute output, beyond which a file is broken. In float16 that is a weight or
# sum beyond 65504; what int8 costs depends on the model and is for `evaluate` to tell.
TOLERANCES = {"keras": 1e-4, "saved_model": 1e-4, "float32": 1e-4, "sparse": 1e-4,
              "float16": 0.1, "bfloat16": 0.25}


def export_all(model, directory, *, samples, formats=_USUAL, representative=None, evaluate=None, metric="accuracy",
               variant="float", fold_batch_norm=False, integer_io=False):
    """Writes a model in several formats, reloads every file and measures it.

    Files: `model.keras`, `export/saved_model/`, `export/bfloat16/` (a SavedModel that stores and computes in bfloat16;
    TFLite has no form for it), `export/<format>.tflite`. A file is replaced when its successor is whole. Every file is
    read back and run; what is compared, evaluated and timed is the file.

    Args:
        model: functional or built sequential `keras.Model` in float32.
        directory: folder of the run, made when missing.
        samples: inputs in the structure that the model takes, [N, ...] each, on which files are compared with Keras.
        formats: some of `FORMATS`; all but int16 by default.
        representative: inputs likewise, from which int8 and int16 take the ranges of the activations; they need it.
        evaluate: function from a `predict` to a number, for `value`. `predict` takes and returns NumPy arrays in the
            structures of the model. None leaves metric and value empty.
        metric: name of that number.
        variant: what distinguishes this model from others in one report ("float", "pruned").
        fold_batch_norm: merge batch normalisation into the layers before it in all files but `model.keras`, which
            stays fit for training.
        integer_io: whether the int8 file takes and returns int8.

    Returns:
        list of a dictionary per file, with the keys `COLUMNS` (None: not applicable), "relative_diff", and
        "float_operators": names of operators of an integer file that still compute in floating point, and "delegated":
        whether LiteRT's default delegate takes a TFLite file. `parameters`,
        `nonzero` and `macs` are those of the Keras model that was written; `macs` is None where it cannot be counted.
        `latency_ms` and `peak_memory_bytes` are LiteRT's on one thread, see `strategies.export.litert`.

    Raises:
        ValueError: unknown format, one that lacks samples, samples that do not fit; before any file is
            written. Outputs of a file that are not finite, or differ from Keras by more than `TOLERANCES` of the
            largest.
        ConversionError: the TFLite converter failed.
    """
    formats = check_formats(formats, has_representative=representative is not None)
    directory = pathlib.Path(directory)
    interface = Interface(model, samples)
    reference = interface.named_outputs(saved_model.predict(model, samples))
    written, of_integers = model, None
    if fold_batch_norm:
        written = folding.fold_batch_norm(model)
        with folding.without_constant_channels(model) as has_constant:  # which nothing can be done about once folded
            of_integers = folding.fold_batch_norm(model) if has_constant else None
    sizes = {id(m): _sizes_of(m, samples) for m in (model, written)}

    predictors = _write(model, written, of_integers or written, directory, formats, interface, samples, representative,
                        integer_io)
    rows = []
    for format, path, predict in predictors:
        differences = compare(reference, interface.named_outputs(predict(samples)), path, format)
        row = {"variant": variant, "format": format, "metric": metric if evaluate else None,
               "value": float(evaluate(predict)) if evaluate else None,
               **sizes[id(model if format == "keras" else written)],
               "bytes": size_bytes(path), "gzip_bytes": gzip_bytes(path), **_measured(path, interface, samples),
               **differences}
        rows.append(row | {"float_operators": litert.float_operators(path) if format in tflite.CALIBRATED else None,
                           "delegated": interpreter.delegate_takes(path) if path.suffix == ".tflite" else None})
    return rows


def check_formats(formats, *, has_representative=True):
    """The formats, each once, as `FORMATS` has them. Raises ValueError for an unknown one, or one that lacks data."""
    for name in formats:
        if name not in FORMATS:
            raise unknown_name("export format", name, FORMATS)
        if name in tflite.FORMATS:
            tflite.check(name, True if has_representative else None)
    return [name for name in FORMATS if name in formats]


def path_of(directory, format):
    """Where `export_all` puts a format."""
    places = {"keras": "model.keras", "saved_model": "export/saved_model", "bfloat16": "export/bfloat16"}
    return pathlib.Path(directory) / places.get(format, f"export/{format}.tflite")


def compare(reference, outputs, path, format):
    """Largest differences between Keras' outputs and a file's, both {name: array}.

    Returns:
        {"max_abs_diff": float, "relative_diff": float}, the latter relative to the largest absolute output of Keras.

    Raises:
        ValueError: an output is not finite or differs by more than `TOLERANCES`.
    """
    absolute = relative = 0.0
    for name, expected in reference.items():
        received = outputs[name]
        if received.shape != expected.shape or not np.isfinite(received).all():
            raise ValueError(f"{path}: output {name!r} must be finite and of shape {expected.shape}, as Keras' is; "
                             f"received shape {received.shape}, {np.sum(~np.isfinite(received))} values not finite. "
                             f"Weights or activations may be too large for {format}.")
        difference = float(np.max(np.abs(received.astype(np.float64) - expected), initial=0))
        absolute = max(absolute, difference)
        relative = max(relative, difference / max(float(np.max(np.abs(expected), initial=0)), 1e-30))
    tolerance = TOLERANCES.get(format, np.inf)
    if relative > tolerance:
        raise ValueError(f"{path} does not compute what the model computes: outputs must agree with Keras to "
                         f"{tolerance:g} of the largest, received a difference of {relative:.2g}. Compare layer by "
                         "layer: weights are too large for the format, or an operator was converted into another.")
    return {"max_abs_diff": absolute, "relative_diff": relative}


def write_csv(rows, path):
    """Writes rows as the file `report.csv` that tools read: the columns `COLUMNS`, an empty cell for None."""
    with replacing(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def markdown_table(rows):
    """Rows as a table for people, with units; below it, which operators of int8 files stayed in floating point."""
    metric = next((row["metric"] for row in rows if row["metric"]), "value")
    header = ("variant", "format", metric, "parameters", "nonzero", "multiply-adds", "size", "gzip", "latency",
              "peak memory", "max. difference")
    lines = [header, ["---"] * len(header)]
    for row in rows:
        values = [_human(row[column], style) for column, style in _UNITS.items()]
        lines.append([row["variant"], row["format"], *values])
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
    for row in rows:
        if row.get("float_operators"):
            table += (f"\n{row['variant']} {row['format']}: computed in floating point, as these have no integer form: "
                      f"{', '.join(row['float_operators'])}.\n")
        if row.get("delegated") is False:
            table += (f"\n{row['variant']} {row['format']}: LiteRT's default delegate (XNNPACK) ends the process on "
                      "this file; run it without, as was done here.\n")
    return table


def _write(model, written, of_integers, directory, formats, interface, samples, representative, integer_io):
    """Writes each format when its turn comes; yields (format, path, predict).

    `model` goes into `model.keras`, `of_integers` into files of integers and `written` into all others.
    """
    if "keras" in formats:
        path = path_of(directory, "keras")
        saved_model.write_keras(model, path)
        yield "keras", path, saved_model.load_keras(path)
    if "saved_model" in formats:
        path = path_of(directory, "saved_model")
        saved_model.write_saved_model(written, path, samples=samples)
        yield "saved_model", path, _structured(interface, saved_model.load_saved_model(path))
    if "bfloat16" in formats:
        path = path_of(directory, "bfloat16")
        saved_model.write_saved_model(copy_model(written, "bfloat16"), path, samples=samples)
        yield "bfloat16", path, _structured(interface, saved_model.load_saved_model(path))
    names = [name for name in formats if name in tflite.FORMATS]
    groups = {written: names} if of_integers is written else {
        written: [name for name in names if name not in tflite.CALIBRATED],
        of_integers: [name for name in names if name in tflite.CALIBRATED]}
    for one, group in groups.items():
        if not group:
            continue
        with tflite.convertible(one, representative=representative, samples=samples) as source:
            for format in group:
                path = path_of(directory, format)
                source.convert(path, format, integer_io=integer_io and format == "int8")
                yield format, path, _structured(interface, litert.Runner(path).named)


def _structured(interface, predict):
    return lambda inputs: interface.structured(predict(interface.named(inputs)))


def _sizes_of(model, samples):
    try:
        macs = count_macs(model, samples)
    except ValueError:  # a loop: not applicable
        macs = None
    return {"parameters": count_parameters(model), "nonzero": count_nonzero(model), "macs": macs}


def _measured(path, interface, samples):
    if path.suffix != ".tflite":
        return {"latency_ms": None, "peak_memory_bytes": None}
    return {"latency_ms": litert.Runner(path).latency(interface.named(samples)),
            "peak_memory_bytes": litert.peak_memory_bytes(path)}


_UNITS = {"value": "{:.4f}", "parameters": "si", "nonzero": "si", "macs": "si", "bytes": "siB", "gzip_bytes": "siB",
          "latency_ms": "{:.3f} ms", "peak_memory_bytes": "siB", "max_abs_diff": "{:.1e}"}


def _human(value, style):
    if value is None:
        return ""
    if not style.startswith("si"):
        return style.format(value)
    unit = style.removeprefix("si")
    for prefix, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.2f} {prefix}{unit}"
    return f"{value} {unit}".strip()
