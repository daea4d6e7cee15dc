"""Opens TFLite files in LiteRT. Needs no TensorFlow, and ai_edge_litert when a file is opened."""

import pathlib
import struct

# XNNPACK computes an int8 convolution whose scales have a ratio input x weight / output below this one; on another the
# delegate of LiteRT 2.3 ends the process ("double free").
_LARGEST_RATIO = 256
_MULTIPLYING = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


def open_file(path, num_threads=1):
    """LiteRT's interpreter of a file, its tensors allocated.

    LiteRT's default delegate runs the file; the built-in kernels do where that would end the process.

    Args:
        path: `.tflite` file.
        num_threads: threads of the interpreter.

    Raises:
        ImportError: ai_edge_litert is not installed.
        ValueError, RuntimeError: LiteRT cannot load the file.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.AUTO if delegate_takes(path) else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(path), num_threads=num_threads, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    return interpreter


def delegate_takes(path):
    """Whether LiteRT's default delegate (XNNPACK) runs a file, as its scales say: see `_LARGEST_RATIO`."""
    try:
        return all(ratio < _LARGEST_RATIO for ratio in ratios(pathlib.Path(path).read_bytes()))
    except (OSError, ValueError, TypeError, IndexError, struct.error):
        return True  # no such file, or none that can be read: the interpreter says so better


def ratios(content):
    """The largest ratio of scales, input x weight / output, of each 8-bit convolution and dense layer of a file."""
    from ai_edge_litert import schema_py_generated as schema

    multiplying = [getattr(schema.BuiltinOperator, name) for name in _MULTIPLYING]
    model = schema.Model.GetRootAs(content)
    for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
        for operator in map(graph.Operators, range(graph.OperatorsLength())):
            code = model.OperatorCodes(operator.OpcodeIndex())
            kind = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())  # small codes stand in the older field too
            if kind not in multiplying:
                continue
            first, weights = (2, 1) if kind == schema.BuiltinOperator.TRANSPOSE_CONV else (0, 1)
            scales = [_scales(graph.Tensors(number)) for number in (
                operator.Inputs(first), operator.Inputs(weights), operator.Outputs(0))]
            if all(scale is not None for scale in scales):  # otherwise something is in floating point
                yield scales[0][0] * scales[1].max() / scales[2][0]


def _scales(tensor):
    quantization = tensor.Quantization()
    return quantization.ScaleAsNumpy() if quantization is not None and quantization.ScaleLength() else None
