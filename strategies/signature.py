"""A TFLite file as a function of named arrays, without TensorFlow: what a program on a phone does."""

import pathlib

import numpy as np

from strategies import interpreter


class Signature:
    """One signature of a `.tflite` file.

    Args:
        path: the file.
        name: of the signature.

    Attributes:
        names: of all signatures of the file.
        shapes: {input: shape}, with the batch of 1.
        dtypes: {input: NumPy dtype}.
        outputs: names of the outputs, sorted.

    Call arguments:
        inputs: {name: array}.

    Returns:
        {name: array}.

    Raises:
        ValueError: the file is missing, damaged, or has no such signature.
    """

    def __init__(self, path, name="serving_default"):
        if not pathlib.Path(path).is_file():
            raise ValueError(f"--model_file={path} does not exist: expected an exported .tflite or .keras file. Train "
                             "first, or check the path.")
        try:
            self._interpreter = interpreter.open_file(path)
            self.names = sorted(self._interpreter.get_signature_list())
            self._run = self._interpreter.get_signature_runner(name)
        except ImportError as error:
            raise ValueError(f"--model_file={path} needs the package ai_edge_litert ({error}). Install usagi-suite "
                             "with its dependencies.") from None
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"--model_file={path} is not a TFLite file with the signature {name!r}: {error} Export it "
                             "again.") from None
        details = self._run.get_input_details()
        self.shapes = {key: tuple(map(int, value["shape"])) for key, value in details.items()}
        self.dtypes = {key: np.dtype(value["dtype"]) for key, value in details.items()}
        self.outputs = sorted(self._run.get_output_details())

    def __call__(self, inputs):
        return self._run(**{name: np.asarray(value, self.dtypes[name]) for name, value in inputs.items()})

    @property
    def states(self):
        """Names of the inputs that are outputs too: what goes from step to step."""
        return [name for name in self.shapes if name in self.outputs]

    def zero_state(self):
        """The state before the first step, {name: array}."""
        return {name: np.zeros(self.shapes[name], self.dtypes[name]) for name in self.states}
