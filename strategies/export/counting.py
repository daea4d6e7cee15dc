"""Multiply-adds (MACs) of a model for one sample, counted in the graph that runs.

    operator                         multiply-adds
    convolution                      positions of the output x filters M x kernel height x width x channels C / groups
    depthwise convolution            positions of the output x channels of the output x kernel height x width
    transposed convolution           positions of the input x C x kernel height x width x M
    matrix product [I, J] x [J, L]   I J L, for each matrix of a batch
    Einstein sum                     product of the sizes of all its letters

Positions in the padding count as if they were image: H W K^2 C M at stride 1, as papers have it. Additions of biases,
normalisation, activations and pooling are not counted. One multiply-add is two floating-point operations.
"""

import copy
import math

from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

from strategies.export.interface import Interface

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


def count_macs(model, samples=None):
    """Multiply-adds of a model for one sample at inference.

    Args:
        model: functional or built sequential `keras.Model`.
        samples: example inputs that settle dimensions which the model leaves open, or None.

    Returns:
        int.

    Raises:
        ValueError: an input dimension is open, a shape in the graph is unknown, or countable operators stand in a loop
            or branch, whose number of runs the graph does not tell.
    """
    function = Interface(model, samples).function(batch_size=1)
    if any(operation.type in _CALLS for operation in function.graph.get_operations()):
        # A function called by the model may have been traced for any shape; written into its caller it gets the one of
        # this call. Loops are left as they are: lowered, their bodies would look like operations that run once.
        function = convert_variables_to_constants_v2(function, lower_control_flow=False)
    return _count(function.graph)


def _count(graph):
    total = 0
    for operation in graph.get_operations():
        if operation.type in _RULES:
            _check_shapes(operation)
            total += _RULES[operation.type](operation)
        elif operation.type in _CALLS:  # one that must not be inlined, as it is compiled by itself
            total += sum(map(_count, _functions(operation)))
        elif any(_has_countable(graph) for graph in _functions(operation)):
            raise ValueError(f"The multiply-adds of this model cannot be counted: {operation.type} {operation.name!r} "
                             "has some in its body, and how often that runs is not known from the graph. Unroll it "
                             "(recurrent layers: unroll=True with a fixed number of steps).")
    return total


def _has_countable(graph):
    return any(operation.type in _RULES or any(map(_has_countable, _functions(operation)))
               for operation in graph.get_operations())


def _functions(operation):
    """Graphs of the functions that an operation runs: callee, or body and condition, or branches."""
    names = []
    for value in operation.node_def.attr.values():
        names += [value.func.name] if value.HasField("func") else [func.name for func in value.list.func]
    definitions = [copy.deepcopy(operation.graph._get_function(name).definition) for name in names]
    shapes = None
    if operation.type in _CALLS:
        shapes = [tensor.shape for tensor in operation.inputs]
        for definition in definitions:
            definition.arg_attr.clear()  # the shapes it was traced for, which would win
    with operation.graph.as_default():
        return [function_def_to_graph(definition, input_shapes=shapes, include_library_functions=True)
                for definition in definitions]


def _check_shapes(operation):
    for tensor in (*operation.inputs, *operation.outputs):
        if not tensor.shape.is_fully_defined():
            raise ValueError(f"The multiply-adds of this model cannot be counted: {operation.type} {operation.name!r} "
                             f"has a tensor of shape {tensor.shape}. Give the model inputs of a fixed shape.")


def _positions(operation):
    """Positions that the output of a convolution has in the end, over all axes but the channels."""
    output = operation.outputs[0]
    readers = output.consumers()
    if readers and readers[0].type == "Squeeze":  # the height of a convolution in one dimension
        readers = readers[0].outputs[0].consumers()
    if readers and readers[0].type == "BatchToSpaceND":  # a dilated convolution computes on a padded copy and crops
        output = readers[0].outputs[0]
    channels_first = b"C" in operation.get_attr("data_format")[:2]
    sizes = output.shape.as_list()
    return math.prod(sizes) // sizes[1 if channels_first else -1]


def _convolution(operation):
    return _positions(operation) * math.prod(operation.inputs[1].shape.as_list())  # [h, w, C / groups, M]


def _transposed_convolution(operation):
    _, kernel, images = operation.inputs  # kernel [h, w, M, C]
    sizes = images.shape.as_list()
    channels = kernel.shape[-1]
    return math.prod(sizes) // channels * math.prod(kernel.shape.as_list())


def _matrix_product(operation):
    transposed = operation.get_attr("transpose_a" if operation.type == "MatMul" else "adj_x")
    inner = operation.inputs[0].shape[-2 if transposed else -1]
    return math.prod(operation.outputs[0].shape.as_list()) * inner


def _einstein_sum(operation):
    terms = operation.get_attr("equation").decode().split("->")[0].split(",")
    sizes = {}
    for term, tensor in zip(terms, operation.inputs):
        shape = tensor.shape.as_list()
        before, dots, after = term.partition("...")
        letters = [*before, *(f"...{i}" for i in range(len(shape) - len(before + after), 0, -1) if dots), *after]
        for letter, size in zip(letters, shape):
            sizes[letter] = max(size, sizes.get(letter, 1))  # axes under ... are broadcast
    return math.prod(sizes.values())


_RULES = {
    "Conv2D": _convolution,
    "Conv3D": _convolution,
    "DepthwiseConv2dNative": _convolution,  # kernel [h, w, C, multiplier]: its channels are those of the output
    "Conv2DBackpropInput": _transposed_convolution,
    "Conv3DBackpropInputV2": _transposed_convolution,
    "MatMul": _matrix_product,
    "BatchMatMul": _matrix_product,
    "BatchMatMulV2": _matrix_product,
    "BatchMatMulV3": _matrix_product,
    "Einsum": _einstein_sum,
}
