"""Tiny models with random weights and statistics, the same at every call, so that each operation shows."""

import numpy as np
import tensorflow as tf
import tf_keras as keras

SIZE = 8


def conv_norm_relu():
    """Three times convolution, normalisation, ReLU; a dense head. Few enough weights to count by hand."""
    x = images = keras.Input((SIZE, SIZE, 3), name="images")
    for filters, strides in ((8, 1), (16, 2), (16, 1)):
        x = keras.layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=filters == 8)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return randomized(keras.Model(images, keras.layers.Dense(10, name="logits")(x), name="conv_norm_relu"))


def inverted_residual():
    """The block of MobileNetV2: expand, depthwise, project, add."""
    images = keras.Input((SIZE, SIZE, 6), name="images")
    x = _norm(keras.layers.Conv2D(24, 1, use_bias=False)(images), relu=True)
    x = _norm(keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x), relu=True)
    x = _norm(keras.layers.Conv2D(6, 1, use_bias=False)(x), relu=False)
    x = keras.layers.Flatten()(keras.layers.Add()([images, x]))
    return randomized(keras.Model(images, keras.layers.Dense(5)(x), name="inverted_residual"))


def preactivation():
    """Normalisation that no layer before it can take in: at the input, and after a concatenation."""
    images = keras.Input((SIZE, SIZE, 4), name="images")
    x = _norm(images, relu=True)
    x = keras.layers.Concatenate()([images, keras.layers.Conv2D(4, 3, padding="same")(x)])
    x = keras.layers.GlobalAveragePooling2D()(_norm(x, relu=True))
    return randomized(keras.Model(images, keras.layers.Dense(3)(x), name="preactivation"))


def group_norm():
    """Group normalisation written as plain operations."""

    def normalize(x):
        grouped = tf.reshape(x, [-1, SIZE * SIZE, 2, 4])
        mean, variance = tf.nn.moments(grouped, [1, 3], keepdims=True)
        return tf.reshape((grouped - mean) * tf.math.rsqrt(variance + 1e-5), [-1, SIZE, SIZE, 8])

    images = keras.Input((SIZE, SIZE, 3), name="images")
    x = keras.layers.Conv2D(8, 3, padding="same")(images)
    x = keras.layers.ReLU()(keras.layers.Lambda(normalize)(x))
    return randomized(keras.Model(images, keras.layers.Dense(4)(keras.layers.Flatten()(x)), name="group_norm"))


def several():
    """Two inputs in a dictionary, two outputs in a dictionary whose keys are not in the order of the layers."""
    images = keras.Input((SIZE, SIZE, 3), name="left.image")
    numbers = keras.Input((5,), name="a_number")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, activation="relu")(images))
    x = keras.layers.Concatenate()([x, numbers])
    outputs = {"wide": keras.layers.Dense(4, name="b")(x), "narrow": keras.layers.Dense(2, name="c")(x)}
    return randomized(keras.Model({"picture": images, "number": numbers}, outputs, name="several"))


def randomized(model, seed=0):
    """The model with random kernels of unit gain, biases, scales and statistics."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        shape, name = weight.shape, weight.name.split("/")[-1]
        if "kernel" in name:
            weight.assign(generator.normal(0, np.prod(shape[:-1]) ** -0.5, shape))
        elif name.startswith("bias"):
            weight.assign(generator.normal(0, 0.3, shape))
        elif name.startswith(("gamma", "beta", "moving")):
            weight.assign(generator.uniform(0.5, 1.5, shape))
    return model


def inputs_for(model, num_samples=12, seed=1):
    """Normally distributed inputs in the structure of the model's."""
    generator = np.random.default_rng(seed)
    return tf.nest.map_structure(
        lambda tensor: generator.normal(size=(num_samples, *tensor.shape[1:])).astype(np.float32), model.input)


def _norm(x, *, relu):
    x = keras.layers.BatchNormalization()(x)
    return keras.layers.ReLU(6.0)(x) if relu else x
