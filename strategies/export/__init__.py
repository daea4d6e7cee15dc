"""How a model is written down: files that are reloaded, compared, evaluated and measured."""

from strategies.export.conversion import ConversionError
from strategies.export.counting import count_macs
from strategies.export.errors import errors_table, layer_errors
from strategies.export.files import gzip_bytes
from strategies.export.folding import fold_batch_norm
from strategies.export.inference import inference_function
from strategies.export.litert import Runner, float_operators
from strategies.export.recurrent import run_steps, step_model, step_samples
from strategies.export.report import COLUMNS, FORMATS, check_formats, export_all, markdown_table, path_of, write_csv
from strategies.export.saved_model import predict
from strategies.export.signatures import (
                                          check_signature_formats,
                                          check_signatures_convertible,
                                          convert_signatures,
                                          export_signatures,
)
from strategies.export.tflite import CALIBRATED as CALIBRATED_FORMATS
from strategies.export.tflite import FORMATS as TFLITE_FORMATS
from strategies.export.tflite import check_convertible, convert

__all__ = ["CALIBRATED_FORMATS", "COLUMNS", "FORMATS", "TFLITE_FORMATS", "ConversionError", "Runner",
           "check_convertible", "check_formats", "check_signature_formats", "check_signatures_convertible", "convert",
           "convert_signatures", "count_macs", "errors_table", "export_all", "export_signatures", "float_operators",
           "fold_batch_norm", "gzip_bytes", "inference_function", "layer_errors", "markdown_table", "path_of",
           "predict", "run_steps", "step_model", "step_samples", "write_csv"]
