"""`layers.residual` against NumPy: every block written out once more, with the weights of the built one."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from layers import residual
from layers.normalization import normalization
from layers.regularization import keep_mask

EPSILON = 1e-2  # large, so that a block that ignores it would be seen


@pytest.fixture(autouse=True)
def double_precision():
    before = keras.backend.floatx(), keras.mixed_precision.global_policy()
    set_precision("float64")
    yield
    keras.backend.set_floatx(before[0])
    keras.mixed_precision.set_global_policy(before[1])


def set_precision(name):
    """The policy counts, not the default float, once any test of this process has set one."""
    keras.backend.set_floatx(name)
    keras.mixed_precision.set_global_policy(name)


class Reference:
    """Reads the weights of a built block by layer name; batch normalisation uses its moving statistics."""

    def __init__(self, model, training=False):
        self.model, self.training = model, training

    def weights(self, name):
        return [w.numpy() for w in self.model.get_layer(name).weights]

    def conv(self, x, name, strides=1):
        """Cross-correlation, zeros around by half the kernel, then every `strides`-th position."""
        kernel, *bias = self.weights(f"{name}_conv")
        size, batch, height, width = kernel.shape[0], *x.shape[:3]
        margin = size // 2
        padded = np.zeros([batch, height + 2 * margin, width + 2 * margin, x.shape[3]])
        padded[:, margin:margin + height, margin:margin + width] = x
        y = np.zeros([batch, height, width, kernel.shape[3]])
        for i in range(height):
            for j in range(width):
                y[:, i, j] = np.tensordot(padded[:, i:i + size, j:j + size], kernel, 3)
        return (y + bias[0] if bias else y)[:, ::strides, ::strides]

    def norm(self, x, name):
        gamma, beta, mean, variance = self.weights(f"{name}_norm")
        if self.training:
            mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        return (x - mean) / np.sqrt(variance + EPSILON) * gamma + beta

    def norm_relu(self, x, name):
        return np.maximum(self.norm(x, name), 0)


def pad(x, channels):
    return np.concatenate([x, np.zeros([*x.shape[:3], channels - x.shape[3]])], axis=3)


def average(x):
    """Means of 2x2 pixels, of what there is of them at an odd edge."""
    height, width = -(-x.shape[1] // 2), -(-x.shape[2] // 2)
    y = np.empty([x.shape[0], height, width, x.shape[3]])
    for i in range(height):
        for j in range(width):
            y[:, i, j] = x[:, 2 * i:2 * i + 2, 2 * j:2 * j + 2].mean((1, 2))
    return y


def basic(r, x, s, f, shortcut):
    short = {"projection": lambda: r.norm(r.conv(x, "b_0", s), "b_0"), "pad": lambda: pad(x[:, ::s, ::s], f),
             "pool": lambda: pad(average(x), f), "none": lambda: x}[shortcut]()
    y = r.norm_relu(r.conv(x, "b_1", s), "b_1")
    return np.maximum(short + r.norm(r.conv(y, "b_2"), "b_2"), 0)


def bottleneck(r, x, s, f, shortcut):
    short = {"projection": lambda: r.norm(r.conv(x, "b_0", s), "b_0"), "pad": lambda: pad(x[:, ::s, ::s], 4 * f),
             "none": lambda: x}[shortcut]()
    y = r.norm_relu(r.conv(x, "b_1", s), "b_1")
    y = r.norm_relu(r.conv(y, "b_2"), "b_2")
    return np.maximum(short + r.norm(r.conv(y, "b_3"), "b_3"), 0)


def preactivation_basic(r, x, s, f, shortcut):
    start = r.norm_relu(x, "b_preact")
    short = {"projection": lambda: r.conv(start, "b_0", s), "pad": lambda: pad(start[:, ::s, ::s], f),
             "subsample": lambda: x[:, ::s, ::s], "none": lambda: x, "activated": lambda: start}[shortcut]()
    return short + r.conv(r.norm_relu(r.conv(start, "b_1", s), "b_1"), "b_2")


def preactivation_bottleneck(r, x, s, f, shortcut):
    start = r.norm_relu(x, "b_preact")
    short = {"projection": lambda: r.conv(start, "b_0", s), "subsample": lambda: x[:, ::s, ::s]}[shortcut]()
    y = r.norm_relu(r.conv(start, "b_1"), "b_1")
    y = r.norm_relu(r.conv(y, "b_2", s), "b_2")
    return short + r.conv(y, "b_3")


def pyramid_basic(r, x, s, f, shortcut):
    short = pad({"pool": lambda: average(x), "pad": lambda: x[:, ::s, ::s], "none": lambda: x}[shortcut](), f)
    y = r.norm_relu(r.conv(r.norm(x, "b_pre"), "b_1", s), "b_1")
    return short + r.norm(r.conv(y, "b_2"), "b_2")


def pyramid_bottleneck(r, x, s, f, shortcut):
    short = pad({"pool": lambda: average(x), "none": lambda: x}[shortcut](), 4 * f)
    y = r.norm_relu(r.conv(r.norm(x, "b_pre"), "b_1"), "b_1")
    y = r.norm_relu(r.conv(y, "b_2", s), "b_2")
    return short + r.norm(r.conv(y, "b_3"), "b_3")


def built(block, shape, filters, **options):
    """A model of one block with random weights and positive random moving variances."""
    generator = np.random.default_rng(0)
    inputs = keras.Input(shape)
    model = keras.Model(inputs, block(inputs, filters, epsilon=EPSILON, name="b", **options))
    for weight in model.weights:
        if weight.dtype.is_floating:
            is_variance = "variance" in weight.name
            value = generator.uniform(.5, 2, weight.shape) if is_variance else generator.normal(0, .5, weight.shape)
            weight.assign(value)
    return model


# block, its reference, channels in, filters, strides, options, what the shortcut has to be
CASES = [
    (residual.basic, basic, 4, 4, 1, {}, "none"),
    (residual.basic, basic, 4, 6, 2, {"use_bias": True}, "projection"),
    (residual.basic, basic, 4, 4, 2, {}, "projection"),
    (residual.basic, basic, 4, 6, 2, {"shortcut": "pad"}, "pad"),
    (residual.basic, basic, 4, 6, 2, {"shortcut": "pool"}, "pool"),
    (residual.bottleneck, bottleneck, 4, 2, 2, {"use_bias": True}, "projection"),
    (residual.bottleneck, bottleneck, 4, 2, 1, {"shortcut": "pad"}, "pad"),
    (residual.bottleneck, bottleneck, 8, 2, 1, {}, "none"),
    (residual.preactivation_basic, preactivation_basic, 4, 6, 2, {}, "projection"),
    (residual.preactivation_basic, preactivation_basic, 4, 6, 2, {"shortcut": "pad"}, "pad"),
    (residual.preactivation_basic, preactivation_basic, 4, 4, 2, {}, "subsample"),
    (residual.preactivation_basic, preactivation_basic, 4, 4, 1, {}, "none"),
    (residual.preactivation_basic, preactivation_basic, 4, 4, 1, {"activate_shortcut": True}, "activated"),
    (residual.preactivation_bottleneck, preactivation_bottleneck, 4, 2, 2, {"use_bias": True}, "projection"),
    (residual.preactivation_bottleneck, preactivation_bottleneck, 8, 2, 2, {}, "subsample"),
    (residual.wide, preactivation_basic, 4, 8, 2, {}, "projection"),
    (residual.pyramid_basic, pyramid_basic, 4, 5, 2, {}, "pool"),
    (residual.pyramid_basic, pyramid_basic, 4, 5, 2, {"shortcut": "pad"}, "pad"),
    (residual.pyramid_basic, pyramid_basic, 4, 5, 1, {}, "none"),
    (residual.pyramid_bottleneck, pyramid_bottleneck, 5, 2, 2, {}, "pool"),
    (residual.pyramid_bottleneck, pyramid_bottleneck, 8, 2, 1, {}, "none"),
]


@pytest.mark.parametrize("block, reference, channels, filters, strides, options, shortcut", CASES)
def test_block_equals_numpy(block, reference, channels, filters, strides, options, shortcut):
    x = np.random.default_rng(1).normal(size=(2, 5, 6, channels))  # one odd and one even side
    model = built(block, x.shape[1:], filters, strides=strides, **options)
    expected = reference(Reference(model), x, strides, filters, shortcut)
    assert expected.shape[1:3] == (-(-5 // strides), -(-6 // strides))
    np.testing.assert_allclose(model(x, training=False), expected, rtol=1e-10, atol=1e-10)
    has_bias = any("bias" in w.name for w in model.weights)
    assert has_bias == options.get("use_bias", False)


def test_bias_only_where_no_normalization_follows_in_preactivation():
    model = built(residual.preactivation_bottleneck, (4, 4, 4), 2, use_bias=True)
    assert {w.name for w in model.weights if "bias" in w.name} == {"b_0_conv/bias:0", "b_3_conv/bias:0"}


def test_wide_block_in_training_drops_between_the_convolutions():
    x = np.random.default_rng(1).normal(size=(3, 4, 4, 4))
    model = built(residual.wide, x.shape[1:], 6, dropout=.4, seed=8)
    r = Reference(model, training=True)
    start = r.norm_relu(x, "b_preact")
    y = r.norm_relu(r.conv(start, "b_1"), "b_1")
    y = np.where(keep_mask(y.shape, rate=.4, seed=8, step=0), y / .6, 0)
    expected = r.conv(start, "b_0") + r.conv(y, "b_2")
    np.testing.assert_allclose(model(x, training=True), expected, rtol=1e-10, atol=1e-10)


def test_normalization_of_each_kind_reaches_every_place():
    for kind in ("layer", "instance", "group"):
        model = built(residual.bottleneck, (4, 4, 4), 2, strides=2, normalization=kind)
        found = [layer for layer in model.layers if layer.name.endswith("_norm")]
        alike = normalization(kind, name="n", epsilon=EPSILON)
        assert len(found) == 4
        assert all(type(layer) is type(alike) and layer.groups == alike.groups and layer.epsilon == EPSILON
                   for layer in found)


def test_batch_normalization_takes_epsilon_and_momentum():
    inputs = keras.Input((4, 4, 2))
    outputs = residual.pyramid_basic(inputs, 3, epsilon=.5, momentum=.6, name="b")
    norms = [layer for layer in keras.Model(inputs, outputs).layers if layer.name.endswith("_norm")]
    assert [(layer.epsilon, layer.momentum) for layer in norms] == [(.5, .6)] * 3


def test_one_pixel_stays_one_pixel():
    for block in (residual.basic, residual.preactivation_bottleneck, residual.pyramid_basic):
        assert built(block, (1, 1, 4), 4, strides=2).output_shape[1:3] == (1, 1)


def test_shortcuts_without_weights_convert_to_builtin_operators():
    from ai_edge_litert.interpreter import Interpreter

    set_precision("float32")
    inputs = keras.Input((6, 6, 4), batch_size=1)
    x = residual.basic(inputs, 6, strides=2, shortcut="pad", normalization="group", name="one")
    x = residual.pyramid_basic(x, 9, strides=2, normalization="instance", name="two")
    model = keras.Model(inputs, x)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    interpreter = Interpreter(model_content=converter.convert())
    interpreter.allocate_tensors()
    x = np.random.default_rng(0).normal(size=(1, 6, 6, 4)).astype("float32")
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    result = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(result, model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("call, message", [
    (lambda x: residual.basic(x, 4, strides=2, shortcut="projecton", name="b"),
     "Unknown shortcut 'projecton': expected one of projection, pad, pool. Did you mean 'projection'"),
    (lambda x: residual.pyramid_basic(x, 3, name="b"), r"cannot go from 4 to 3 channels \(at 'b_0_channels'\)"),
    (lambda x: residual.basic(x, 4, normalization="bath", name="b"), "Unknown normalization 'bath'"),
])
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(keras.Input((4, 4, 4)))
