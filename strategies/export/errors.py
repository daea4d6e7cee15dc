"""Where an int8 file loses precision: signal to quantisation noise of every tensor, against the float file.

SQNR = 10 log10(mean of x^2 / mean of (x - q)^2) in decibels; 6 dB are one bit. Noise adds up along the network, so what
points at a layer is not its SQNR but how much lower it is than that of its noisiest input.
"""

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from strategies.export import litert

_SILENT = 1e-20  # mean square below which a tensor has no signal


def layer_errors(float_path, int8_path, samples):
    """Signal to quantisation noise, operator by operator.

    Args:
        float_path, int8_path: TFLite files of one model.
        samples: array [N, ...], or {input name: [N, ...]}, which files with several inputs need; fifty are enough.

    Returns:
        list of dictionaries in order of execution, one for each tensor that both files compute: "tensor" (its name),
        "operator" (of the int8 file), "sqnr_db", and "loss_db": SQNR of the noisiest input minus its own.

    Raises:
        ValueError: the files have no tensor in common, or samples that do not fit.
    """
    expected, found = _Tensors(float_path), _Tensors(int8_path)
    if not isinstance(samples, dict):
        if len(found.input_names) != 1:
            raise ValueError(f"{int8_path} has several inputs: samples must be a dictionary with the keys "
                             f"{', '.join(found.input_names)}; received a {type(samples).__name__}.")
        samples = {found.input_names[0]: samples}
    names = [name for name in found.operators if expected.is_float(name)]
    if not names:
        raise ValueError(f"{float_path} and {int8_path} have no tensor of one name: they are of different models.")
    signal, noise = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for sample in _each(samples):
        reference, values = expected.run(sample, names), found.run(sample, names)
        for name in names:
            signal[name] += float(np.mean(np.square(reference[name], dtype=np.float64)))
            noise[name] += float(np.mean(np.square(reference[name] - values[name], dtype=np.float64)))
    sqnr = {name: 10 * np.log10(signal[name] / max(noise[name], 1e-12 * signal[name])) for name in names
            if signal[name] > _SILENT}
    rows = []
    for name, value in sqnr.items():
        before = [sqnr[source] for source in found.sources(name, sqnr)]
        rows.append({"tensor": name, "operator": found.operators[name], "sqnr_db": float(value),
                     "loss_db": float(min(before) - value) if before else float("nan")})
    return rows


def errors_table(rows, count=10):
    """The operators that lose most, as a Markdown table with a sentence about the first."""
    known = sorted((row for row in rows if np.isfinite(row["loss_db"])), key=lambda row: -row["loss_db"])[:count]
    if not known:
        return "No operator has inputs that both files compute.\n"
    lines = ["| operator | tensor | SQNR | lost against its inputs |", "| --- | --- | --- | --- |"]
    lines += [f"| {row['operator']} | {_short(row['tensor'])} | {row['sqnr_db']:.1f} dB | {row['loss_db']:.1f} dB |"
              for row in known]
    worst = known[0]
    return "\n".join(lines) + (
        f"\n\nMost is lost in {_short(worst['tensor'])}: what one would leave in floating point first. If int8 "
        "costs too much accuracy, train with simulated 8 bits (--compression=quantize), or give activations 16 "
        "(--export=int16). 6 dB are one bit.\n")


def _short(name, longest=60):
    """The first of the names that the converter joins by semicolons; of a long one its end."""
    first = name.split(";")[0]
    return first if len(first) <= longest else "…" + first[-longest:]


class _Tensors:
    """A file whose intermediate tensors can be read, as floating point."""

    def __init__(self, path):
        self._interpreter = Interpreter(
            str(path), experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
        self._interpreter.allocate_tensors()
        self._inputs = self._interpreter.get_signature_runner("serving_default").get_input_details()
        self._details = {d["index"]: d for d in self._interpreter.get_tensor_details()}
        self.operators, self._index, self._sources = {}, {}, {}
        for operator in self._interpreter._get_ops_details():
            for index in operator["outputs"]:
                name = self._details[index]["name"]
                if operator["op_name"] not in ("QUANTIZE", "DEQUANTIZE", "DELEGATE") and name:
                    self.operators[name], self._index[name] = operator["op_name"], index
                self._sources[index] = list(operator["inputs"])

    def is_float(self, name):
        """Whether there is a tensor of this name, in floating point: not one of positions or masks."""
        return name in self._index and np.issubdtype(self._details[self._index[name]]["dtype"], np.floating)

    @property
    def input_names(self):
        """Names of the file's inputs, sorted."""
        return sorted(self._inputs)

    def run(self, sample, names):
        """{name: array} of the tensors of these names for one sample {input: [1, ...]}."""
        self._interpreter.reset_all_variables()
        for name, details in self._inputs.items():
            self._interpreter.set_tensor(details["index"], litert.quantized(sample[name], details))
        self._interpreter.invoke()
        return {name: litert.dequantized(self._interpreter.get_tensor(self._index[name]),
                                                self._details[self._index[name]]) for name in names}

    def sources(self, name, known):
        """Names, among `known`, of the nearest tensors from which this one is computed."""
        found, waiting, seen = [], list(self._sources[self._index[name]]), set()
        while waiting:
            index = waiting.pop()
            source = self._details.get(index, {}).get("name")
            if index in seen:
                continue
            seen.add(index)
            if source in known:
                found.append(source)
            else:
                waiting.extend(self._sources.get(index, ()))
        return found


def _each(samples):
    for i in range(len(next(iter(samples.values())))):
        yield {name: np.asarray(array[i:i + 1]) for name, array in samples.items()}
