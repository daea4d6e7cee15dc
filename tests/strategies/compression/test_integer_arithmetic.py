"""Fake quantisation, LiteRT's kernels, and the integer arithmetic of Jacob et al. 2018, section 2, code by code."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from layers.residual import convolution
from strategies import export
from strategies.compression import Quantization, calibrate

Operation = collections.namedtuple("Operation", "name inputs weights bias outputs scales")
Scales = collections.namedtuple("Scales", "input input_zero weights output output_zero")


def trained(tmp_path):
    """A model with convolution, batch normalisation, ReLU, depthwise convolution and dense layer: (what training saw of
    its layers' outputs for the images, the images, the path of its int8 file)."""
    keras.utils.set_random_seed(3)
    images = np.random.default_rng(0).normal(size=(96, 8, 8, 3)).astype(np.float32)
    inputs = keras.Input((8, 8, 3), name="images")
    x = keras.layers.BatchNormalization(name="norm")(convolution(inputs, 8, 3, name="full"))
    x = keras.layers.ReLU(name="relu")(x)
    x = keras.layers.DepthwiseConv2D(3, padding="same", strides=2, name="depthwise")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    model = keras.Model(inputs, keras.layers.Dense(5, name="logits")(x))
    recipe = Quantization(images)
    recipe.prepare(model)
    model.compile(keras.optimizers.Adam(3e-3), keras.losses.CategoricalCrossentropy(from_logits=True))
    model.fit(images, np.eye(5)[np.arange(96) % 5], epochs=4, verbose=0)
    calibrate(model, images)  # the ranges that the converter will find
    names = ("relu", "depthwise", "logits")
    seen = keras.Model(model.input, [model.get_layer(name).output for name in names])(images, training=False)
    recipe.finish(model)
    export.convert(model, tmp_path / "int8.tflite", "int8", representative=images)
    return dict(zip(names, (value.numpy() for value in seen))), images, tmp_path / "int8.tflite"


def operations(path, image):
    """What LiteRT's reference kernels computed for an image: an `Operation` of codes for each operator with weights."""
    interpreter = Interpreter(str(path), experimental_preserve_all_tensors=True,
                              experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
    interpreter.invoke()
    details = {d["index"]: d for d in interpreter.get_tensor_details()}

    def values(index):
        return interpreter.get_tensor(index).astype(np.int64)

    found = []
    for operator in interpreter._get_ops_details():
        if operator["op_name"] in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            x, w, b = operator["inputs"]
            out = operator["outputs"][0]
            parameters = {i: details[i]["quantization_parameters"] for i in (x, w, out)}
            found.append(Operation(
                operator["op_name"], values(x), values(w), values(b), values(out),
                Scales(parameters[x]["scales"][0], parameters[x]["zero_points"][0], parameters[w]["scales"],
                       parameters[out]["scales"][0], parameters[out]["zero_points"][0])))
    return found


def integer_result(operation):
    """The codes of the output by NumPy: sums of products of integers, then one multiplication by S1 S2 / S3."""
    x = (operation.inputs - operation.scales.input_zero).astype(np.float64)  # exact: sums stay below 2^53
    w = operation.weights.astype(np.float64)
    if operation.name == "FULLY_CONNECTED":
        total = x @ w.T
    elif operation.name == "CONV_2D":  # [M, h, w, C]
        total = tf.nn.conv2d(x, w.transpose(1, 2, 3, 0), 1, "SAME").numpy()
    else:  # [1, h, w, C]
        total = tf.nn.depthwise_conv2d(x, w.transpose(1, 2, 3, 0), [1, 2, 2, 1], "SAME").numpy()
    scales = operation.scales
    codes = np.rint((total + operation.bias) * scales.input * scales.weights / scales.output) + scales.output_zero
    return np.clip(codes, -128, 127)


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("integers"))


def test_the_file_computes_with_integers_as_the_paper_says(example):
    _, images, path = example
    for image in images[:4]:
        found = operations(path, image)
        assert [operation.name for operation in found] == ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"]
        for operation in found:
            difference = np.abs(integer_result(operation).reshape(operation.outputs.shape) - operation.outputs)
            floor = operation.scales.output_zero  # below it a fused ReLU cuts
            difference = difference[operation.outputs > floor] if operation.name == "CONV_2D" else difference
            assert difference.max() <= 1 and (difference == 0).mean() > 0.98, operation.name


def test_training_saw_the_same_codes(example):
    seen, images, path = example
    equal, largest = collections.defaultdict(list), 0
    for i, image in enumerate(images[:16]):
        for operation, name in zip(operations(path, image), ("relu", "depthwise", "logits")):
            scales = operation.scales
            codes = np.clip(np.rint(seen[name][i] / scales.output) + scales.output_zero, -128, 127)
            difference = np.abs(codes.reshape(operation.outputs.shape) - operation.outputs)
            equal[name].append((difference == 0).mean())
            largest = max(largest, difference.max())
    assert largest <= 2
    assert all(np.mean(shares) > 0.9 for shares in equal.values()), {n: np.mean(s) for n, s in equal.items()}


def test_weights_are_the_integers_of_the_file(example):
    _, images, path = example
    for operation in operations(path, images[0]):
        assert np.abs(operation.weights).max() == 127  # symmetric: -128 is not used
