"""TFLite files from Keras models.

    format    weights          activations  for
    float32   float32          float32      reference
    float16   float16          float32      half the size; graphics processors compute in float16
    dynamic   int8, per filter float32      a quarter of the size, no data needed; int8 where the kernel can
    int8      int8, per filter int8         integer processors; ranges from representative samples
    int16     int8, per filter int16        the same where 8 bits are too few, as in the step of a recurrent network;
                                            LiteRT has it for fewer operators
    sparse    float32, no 0s   float32      pruned dense layers: only what is left of them is stored

(Jacob et al. 2018, arXiv 1712.05877; https://ai.google.dev/edge/litert/models/post_training_quantization.) All files
take one sample: a batch of 1 is what a phone runs, and what recurrent layers need to become built-in operators; those
other than LSTM are unrolled (see `recurrent`). Inputs and outputs are float32 in every format, so that files can be
exchanged for one another without a change to the program around them; integer files then start with QUANTIZE and end
with DEQUANTIZE. `integer_io` leaves those out of int8 for processors without floating point.
"""

import contextlib
import pathlib
import tempfile

import numpy as np

from layers.attention import floored
from layers.checking import unknown_name
from strategies.export import folding, litert, normalizing, recurrent
from strategies.export.conversion import ConversionError, shared_worker
from strategies.export.files import replacing
from strategies.export.interface import Interface
from strategies.export.saved_model import SIGNATURE, write_saved_model

FORMATS = ("float32", "float16", "dynamic", "int8", "int16", "sparse")
CALIBRATED = ("int8", "int16")  # formats of integers only, whose ranges come from representative samples
TIMEOUT = 1800  # seconds for one conversion; the largest of `keras.applications` take a few minutes


def convert(model, path, format, *, representative=None, integer_io=False, samples=None, timeout=TIMEOUT):
    """Writes a model as one TFLite file.

    Args:
        model: functional or built sequential `keras.Model`, float32.
        path: `.tflite` file to write.
        format: one of `FORMATS`.
        representative: for int8 and int16, inputs in the model's structure, [N, ...] each: typical samples, from which
            the ranges of the activations are taken. Some hundred are usual.
        integer_io: int8 inputs and outputs; int8 only.
        samples: example inputs that settle dimensions which the model leaves open, or None.
        timeout: seconds.

    Raises:
        ValueError: unknown format, int8 or int16 without representative samples, samples that do not fit the model.
        ConversionError: the converter failed.
    """
    check(format, representative, integer_io)
    with convertible(model, representative=representative, samples=samples) as source:
        source.convert(path, format, integer_io=integer_io, timeout=timeout)


def check_convertible(model, format, representative):
    """Converts a model, trained or not, and throws the file away.

    Raises:
        ConversionError: the converter failed; the message says what can be done.
    """
    with tempfile.TemporaryDirectory(prefix="usagi-export-") as folder:
        try:
            convert(model, pathlib.Path(folder) / f"{format}.tflite", format, representative=representative)
        except ConversionError as error:
            raise ConversionError(f"Model {model.name!r} cannot be exported as {format}, which was tried before "
                                  f"training. {error} Leave the format out, or change the model.") from None


@contextlib.contextmanager
def convertible(model, *, representative=None, samples=None):
    """Context in which one model is converted to several formats; arguments as `convert`.

    Yields:
        `Convertible`
    """
    samples = representative if samples is None else samples
    interface = Interface(model, samples)
    named = None if representative is None else _checked(interface.named(representative))
    with tempfile.TemporaryDirectory(prefix="usagi-export-") as folder:
        folder = pathlib.Path(folder)
        with recurrent.unrolled(model), floored(model) as has_attention:
            with folding.without_constant_channels(model) as has_constant, \
                    normalizing.in_two_steps(model) as has_normalization, \
                    recurrent.with_scales_of_their_own(model) as has_recurrent:
                if named is not None and (has_attention or has_constant or has_normalization or has_recurrent):
                    write_saved_model(model, folder / "quantized", batch_size=1, samples=samples)
            with floored(model, None):  # floating point keeps the exact form
                write_saved_model(model, folder / "saved_model", batch_size=1, samples=samples)
        if named is not None:
            np.savez(folder / "representative.npz", **named)
        yield Convertible(folder / "saved_model", folder / "representative.npz" if named else None,
                          folder / "quantized" if (folder / "quantized").exists() else None)


class Convertible:
    """What the converter reads, on disk: a SavedModel with a batch of 1, and perhaps representative samples.

    Args:
        saved_model: folder with the signature `serving_default`.
        representative: `.npz` file with an array [N, ...] for each input of the signature, or None.
        quantized: folder with the form for these formats, where that is another one (see `layers.attention`,
            `folding.without_constant_channels`, `normalizing.in_two_steps` and `recurrent.with_scales_of_their_own`),
            or None.
    """

    def __init__(self, saved_model, representative=None, quantized=None):
        self._saved_model = pathlib.Path(saved_model).resolve()
        self._quantized = pathlib.Path(quantized or saved_model).resolve()
        self._representative = pathlib.Path(representative).resolve() if representative else None

    def convert(self, path, format, *, integer_io=False, timeout=TIMEOUT):
        """Writes one TFLite file; arguments and errors as `strategies.export.tflite.convert`."""
        check(format, self._representative, integer_io)
        with replacing(path) as temporary:
            source = self._quantized if format in CALIBRATED else self._saved_model
            request_conversion(source, temporary, format, {SIGNATURE: self._representative}, integer_io=integer_io,
                               timeout=timeout, name=pathlib.Path(path).name)


def request_conversion(saved_model, output, format, signatures, *, integer_io=False, timeout=TIMEOUT, name=None):
    """Lets the worker convert a SavedModel.

    Args:
        saved_model: folder.
        output: `.tflite` file to write.
        format: one of `FORMATS`.
        signatures: {signature: its `.npz` file of representative samples, or None}.
        integer_io, timeout: as of `convert`.
        name: of the file in errors.

    Raises:
        ConversionError: the converter failed.
    """
    samples = {key: str(pathlib.Path(path).resolve()) for key, path in signatures.items() if path}
    request = {"saved_model": str(saved_model), "format": format, "output": str(pathlib.Path(output).resolve()),
               "signatures": list(signatures), "representative": samples or None, "integer_io": integer_io}
    try:
        shared_worker().request(request, timeout)
    except ConversionError as error:
        raise ConversionError(f"The TFLite converter could not write {name or output}. {error}") from None
    litert.remove_cell_clip(output)
    _check_quantized(output, format)


def check(format, representative, integer_io=False):
    """Raises ValueError unless the format is known and has what it needs."""
    if format not in FORMATS:
        raise unknown_name("TFLite format", format, FORMATS)
    if format in CALIBRATED and representative is None:
        raise ValueError(f"{format} needs representative samples, from which the ranges of the activations are taken; "
                         "received none. Pass representative=<some hundred inputs>, or export dynamic instead.")
    if integer_io and format != "int8":
        raise ValueError(f"integer_io is for int8 files; received format {format!r}. Leave it out: the other formats "
                         "take and return float32.")


def _checked(named):
    for name, array in named.items():
        if not np.isfinite(array).all():
            raise ValueError(f"Representative samples for input {name!r} must be finite, since the ranges of the "
                             f"activations are taken from them; received {np.sum(~np.isfinite(array))} values that are "
                             "NaN or infinite. Leave those samples out.")
    return named


def _check_quantized(path, format):
    # Without calibration data the converter writes a float file and says nothing.
    if format in CALIBRATED and not any(format in operator.inputs for operator in litert.operators(path)):
        raise ConversionError(f"The TFLite converter left every operator of the {format} file in floating point: no "
                              f"operator of this model ({', '.join(litert.float_operators(path))}) has an {format} "
                              "form.")
    # It also writes operators with 16 bits that LiteRT has not.
    error = litert.first_failure(path) if format == "int16" else None
    if error:
        raise ConversionError(f"LiteRT cannot compute an operator of this model in 16 bits: {error} Export int8 "
                              "instead.")
    inconsistent = litert.inconsistent_operators(path) if format == "int8" else []
    if inconsistent:
        raise ConversionError(f"The TFLite converter gave the output of {', '.join(inconsistent)} other codes than "
                              "LiteRT computes it with: the int8 file would be wrong. Put a layer that computes "
                              "something, such as a normalisation, between it and what concatenates its output.")
