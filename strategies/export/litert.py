"""TFLite files in the LiteRT interpreter: run, time, measure and look into them.

Nothing here needs the model that a file was made from: names, shapes, dtypes and scales stand in the file.
"""

import collections
import os
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from strategies import interpreter

_PROBE = pathlib.Path(__file__).resolve().parent / "memory_probe.py"
_PROBE_TIMEOUT = 300  # seconds
_SIGNATURE = "serving_default"
_FLOATS = ("float16", "float32", "float64", "bfloat16")
_BORDERS = ("QUANTIZE", "DEQUANTIZE")
_CELL_CLIP = 6  # where a table of that operator says at which offset it is: a field's number x 2 + 4
_OUTPUT_STATE = 18  # of the inputs of UNIDIRECTIONAL_SEQUENCE_LSTM
_MOVING = ("EXPAND_DIMS", "GATHER", "GATHER_ND", "MAX_POOL_2D", "RESHAPE", "REVERSE_V2", "SLICE", "SPLIT", "SPLIT_V",
           "SQUEEZE", "STRIDED_SLICE", "TRANSPOSE", "UNPACK")

Operator = collections.namedtuple("Operator", "name inputs outputs")
Operator.__doc__ = "An operator of a file: its name as in the TFLite schema, dtypes of its inputs and outputs."


class Runner:
    """A TFLite file as a function of NumPy arrays.

    The file holds one sample a call; `Runner` takes any number and runs them one after the other. Where inputs or
    outputs are 8-bit integers with a scale, it quantises and dequantises: callers see the model's own numbers.

    Args:
        path: `.tflite` file with the signature `serving_default`, as `strategies.export.tflite` writes it.
        num_threads: threads of the interpreter.

    Attributes:
        input_shapes: {name: shape of one sample, without the batch axis}.
        output_names: names of the outputs, sorted.
        delegated: whether LiteRT's default delegate runs the file; its built-in kernels do where that would end the
            process.

    Call arguments:
        inputs: [N, ...], or {name: [N, ...]}, which a file with several inputs needs.

    Returns:
        [N, ...], or {name: [N, ...]} of a file with several outputs.

    Raises:
        ValueError: the file is missing, is no TFLite file, lacks the signature, or the inputs do not fit it.
    """

    def __init__(self, path, num_threads=1):
        self.path = pathlib.Path(path)
        self.delegated = interpreter.delegate_takes(path)
        try:
            self._interpreter = interpreter.open_file(path, num_threads)
            signature = self._interpreter.get_signature_runner(_SIGNATURE)
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{path} cannot be loaded: a TFLite file with the signature {_SIGNATURE!r}, batch 1 and "
                             f"built-in operators is expected. LiteRT says: {error}") from None
        self._inputs = signature.get_input_details()
        self._outputs = signature.get_output_details()
        self.input_shapes = {name: tuple(map(int, details["shape"][1:])) for name, details in self._inputs.items()}
        self.output_names = sorted(self._outputs)

    def __call__(self, inputs):
        outputs = self.named(inputs)
        return outputs if len(outputs) > 1 else outputs[self.output_names[0]]

    def named(self, inputs):
        """As a call, but always {name: [N, ...]}."""
        arrays = self._arrays(inputs)
        num_samples = len(next(iter(arrays.values())))
        results = {name: [] for name in self.output_names}
        for i in range(num_samples):
            self._set({name: array[i:i + 1] for name, array in arrays.items()})
            self._interpreter.invoke()
            for name, parts in results.items():
                details = self._outputs[name]
                parts.append(dequantized(self._interpreter.get_tensor(details["index"]), details))
        return {name: np.concatenate(parts) for name, parts in results.items()}

    def latency(self, inputs=None, *, num_runs=50, num_warm_up=10):
        """Median time of one invocation on one sample, in milliseconds; single-threaded unless `num_threads` said else.

        Args:
            inputs: as in a call, of which the first sample is taken; None for zeros.
            num_runs: timed invocations, at least 50 for a figure to report.
            num_warm_up: invocations before those.
        """
        if inputs is None:
            inputs = {name: np.zeros((1, *shape), np.float32) for name, shape in self.input_shapes.items()}
        self._set({name: array[:1] for name, array in self._arrays(inputs).items()})
        seconds = []
        for _ in range(num_warm_up + num_runs):
            start = time.perf_counter()
            self._interpreter.invoke()
            seconds.append(time.perf_counter() - start)
        return 1000 * statistics.median(seconds[num_warm_up:])

    def _arrays(self, inputs):
        if not isinstance(inputs, dict):
            if len(self._inputs) != 1:
                raise ValueError(f"{self.path.name} has several inputs: pass a dictionary with the keys "
                                 f"{', '.join(sorted(self._inputs))}; received a {type(inputs).__name__}.")
            inputs = {next(iter(self._inputs)): inputs}
        if set(inputs) != set(self._inputs):
            raise ValueError(f"{self.path.name} has the inputs {', '.join(sorted(self._inputs))}; received "
                             f"{', '.join(sorted(map(str, inputs))) or 'none'}.")
        arrays = {name: np.asarray(array) for name, array in inputs.items()}
        num_samples = {len(array) if array.ndim else 0 for array in arrays.values()}
        for name, array in arrays.items():
            if array.shape[1:] != self.input_shapes[name] or len(num_samples) > 1 or 0 in num_samples:
                raise ValueError(f"Input {name!r} of {self.path.name} takes arrays of shape (N, "
                                 f"{', '.join(map(str, self.input_shapes[name]))}), N at least 1 and the same for all "
                                 f"inputs; received shape {array.shape}.")
        return arrays

    def _set(self, sample):
        # A file with state (a fused LSTM) would otherwise go on from the sample before.
        self._interpreter.reset_all_variables()
        for name, array in sample.items():
            details = self._inputs[name]
            self._interpreter.set_tensor(details["index"], quantized(array, details))


def quantized(array, details):
    """An array in the dtype and scale of an input, given its details as the interpreter tells them."""
    scale, zero_point = details["quantization"]
    dtype = np.dtype(details["dtype"])
    if scale and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        array = np.clip(np.rint(array / scale) + zero_point, limits.min, limits.max)
    return np.ascontiguousarray(array, dtype)


def dequantized(array, details):
    """What an array of a tensor with these details stands for, as floating point."""
    scale, zero_point = details["quantization"]
    if scale and array.dtype.kind in "iu":
        return np.float32(scale) * (array.astype(np.float32) - zero_point)
    return array


def operators(path):
    """All operators of a file, in the order of execution, subgraphs one after the other.

    Returns:
        list of `Operator`.
    """
    dtypes = {code: name.lower() for code, name in _constant_names(schema.TensorType).items()}
    return [Operator(name, *(tuple(dtypes[graph.tensors[i].type] for i in indices if i >= 0)
                             for indices in (operator.inputs, operator.outputs)))
            for name, operator, graph in _operators(path)]


def _operators(path):
    """(name, operator, its subgraph) of all operators of a file, as the schema has them."""
    model = schema.ModelT.InitFromPackedBuf(pathlib.Path(path).read_bytes())
    names = _constant_names(schema.BuiltinOperator)
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            name = names[max(code.builtinCode, code.deprecatedBuiltinCode)]  # small codes stand in the older field too
            yield code.customCode.decode() if name == "CUSTOM" else name, operator, graph


def remove_cell_clip(path):
    """Rewrites a file whose LSTM operators clip the cell's state, so that they do not.

    The converter writes 10 into every fused LSTM whatever the model is; Keras' cell has no such bound, and one that
    counts or sums gets beyond it. In int8 files the state's codes still end where calibration, which clips, put them:
    at the power of two from 10 on.
    """
    content = bytearray(pathlib.Path(path).read_bytes())
    model, clips = schema.Model.GetRootAs(content), []
    for graph in (model.Subgraphs(i) for i in range(model.SubgraphsLength())):
        for operator in (graph.Operators(i) for i in range(graph.OperatorsLength())):
            if operator.BuiltinOptionsType() == schema.BuiltinOptions.UnidirectionalSequenceLSTMOptions:
                table, options = operator.BuiltinOptions(), schema.UnidirectionalSequenceLSTMOptions()
                options.Init(table.Bytes, table.Pos)
                if options.CellClip():
                    clips.append(table.Pos + table.Offset(_CELL_CLIP))
    for position in clips:
        content[position:position + 4] = bytes(4)
    if clips:
        pathlib.Path(path).write_bytes(content)


def inconsistent_operators(path):
    """Names, sorted, of 8-bit operators whose codes mean one thing where they are computed and another where they are
    read: LSTMs whose output has other codes than their state, with which LiteRT computes both, and operators that only
    move codes with others behind them than before."""
    found = set()
    for name, operator, graph in _operators(path):
        if name == "UNIDIRECTIONAL_SEQUENCE_LSTM":
            before = operator.inputs[_OUTPUT_STATE]
        elif name in _MOVING:
            before = operator.inputs[1 if name == "SPLIT" else 0]
        else:
            continue
        found |= {name for after in operator.outputs if not _same_codes(graph.tensors[before], graph.tensors[after])}
    return sorted(found)


def _same_codes(a, b):
    if a.type != schema.TensorType.INT8 or b.type != schema.TensorType.INT8:
        return True
    (first, zero), (second, other) = (_codes(tensor) for tensor in (a, b))
    return len(first) == len(second) and np.allclose(first, second, rtol=1e-3) and np.array_equal(zero, other)


def _codes(tensor):
    """(scales, zero points) of a tensor, empty where it has none."""
    found = tensor.quantization
    return ((), ()) if found is None or found.scale is None else (found.scale, found.zeroPoint)


def float_operators(path):
    """Names, sorted, of the operators that compute in floating point.

    Conversions to and from integers do not count: a file may have them at its borders. Inside it they stand on both
    sides of an operator that does count.
    """
    return sorted({operator.name for operator in operators(path) if operator.name not in _BORDERS
                   and any(dtype in _FLOATS for dtype in operator.inputs + operator.outputs)})


def only_integer_operators(path):
    """Whether a file computes with integers alone, apart from the conversion of its inputs and outputs."""
    return not float_operators(path)


def first_failure(path):
    """What LiteRT says of an operator that it cannot compute, the last line of it, or None where a file runs.

    The first try is in a process of its own, since some operators end it.
    """
    run = _probe(path, "default" if interpreter.delegate_takes(path) else "builtin")
    if run.returncode < 0:
        return f"the process ended by signal {-run.returncode}."
    if run.returncode:
        return _last_line(run.stderr)
    try:
        opened = interpreter.open_file(path)
        for name in opened.get_signature_list():
            signature = opened.get_signature_runner(name)
            signature(**{key: np.zeros(details["shape"], details["dtype"])
                         for key, details in signature.get_input_details().items()})
    except (RuntimeError, ValueError) as error:
        return _last_line(str(error))
    return None


def _last_line(text):
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("INFO:")]
    return lines[-1][-500:] if lines else "nothing"


def _constant_names(namespace):
    return {value: name for name, value in vars(namespace).items() if isinstance(value, int)}


def peak_memory_bytes(path):
    """By how much the peak of resident memory grows when a fresh process loads a file and runs it three times.

    Measured in a process that has only Python, NumPy and the interpreter in it, from after their import to the end:
    weights (the file is mapped into memory), what the interpreter makes of them, activations, and the code that runs,
    which is about 3 MB of it for the smallest model. Linux: VmHWM; elsewhere: getrusage.

    Raises:
        ValueError: the file does not run.
    """
    run = _probe(path, "default" if interpreter.delegate_takes(path) else "builtin")
    if run.returncode:
        raise ValueError(f"{path} does not run in LiteRT (exit code {run.returncode}): {_last_line(run.stderr)}")
    return int(run.stdout)


def _probe(path, kernels):
    return subprocess.run([sys.executable, str(_PROBE), str(path), kernels], capture_output=True, text=True,
                          timeout=_PROBE_TIMEOUT, env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"})
