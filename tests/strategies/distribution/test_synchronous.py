import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from tensorflow.python.ops import op_selector

from apps.common import workdir
from layers.regularization import StatelessDropout, add_weight_penalty, decay_kernels_only
from strategies import compression
from strategies.distribution.single import Single
from strategies.distribution.synchronous import Synchronous
from tests.strategies.distribution import replicas

BATCH = 16
LOSS = keras.losses.CategoricalCrossentropy(from_logits=True)


def data(dtype="float32"):
    noise = np.random.default_rng(0)
    x = noise.normal(size=(4 * BATCH, 6, 6, 2)).astype(dtype)
    return replicas.stream(x, np.eye(3, dtype=dtype)[noise.integers(0, 3, len(x))], BATCH)


def network(*, norm=False, dropout=0.0):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input([6, 6, 2])
    x = keras.layers.Conv2D(8, 3, use_bias=not norm, name="conv")(x)  # before a norm its gradient is 0, or rounding
    if norm:  # Keras' fused kernel keeps the moving variance with Bessel's correction, its other ways without
        x = keras.layers.BatchNormalization(momentum=0.9, fused=False if norm == "unfused" else None, name="norm")(x)
    x = keras.layers.Flatten(name="flat")(keras.layers.ReLU(name="relu")(x))
    x = StatelessDropout(dropout, seed=3, name="drop")(x) if dropout else x
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))


def optimizer(name):
    def make(model):
        if name == "adamw":
            made = keras.optimizers.AdamW(0.01, weight_decay=0.05)
            decay_kernels_only(made, model)
            return made
        return keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True, global_clipnorm=1.0)
    return make


def compiling(name, **options):
    return lambda model: model.compile(optimizer(name)(model), LOSS, metrics=["accuracy"], **options)


@pytest.fixture(params=[pytest.param("float32", marks=pytest.mark.conformance), "float64"])
def precision(request):
    workdir.set_precision(request.param)
    yield request.param
    workdir.set_precision("float32")


@pytest.fixture
def mixed_float16():
    workdir.set_precision("mixed_float16")
    yield
    workdir.set_precision("float32")


def per_example(y, logits):
    return keras.losses.categorical_crossentropy(y, logits, from_logits=True)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("options", [
    {}, *(pytest.param(each, marks=pytest.mark.conformance) for each in ({"norm": True}, {"dropout": 0.5})),
    {"norm": True, "dropout": 0.5}], ids=str)
def test_two_replicas_are_the_two_halves(name, options):
    build = lambda: network(**options)  # noqa: E731
    found = replicas.train(Synchronous(num_devices=2), build, compiling(name), data())
    expected = replicas.halves(build, optimizer(name), per_example, data())
    for a, b in zip(expected.get_weights(), found.get_weights()):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name, num_devices", [("sgd", 2), ("adamw", 2), ("adamw", 4)])
def test_replicas_equal_one_device(precision, name, num_devices):
    build = lambda: network(norm="unfused", dropout=0.5)  # noqa: E731
    strategy = Synchronous(num_devices=num_devices, synchronize_batch_norm=True)
    found = replicas.train(strategy, build, compiling(name), data(precision))
    expected = replicas.train(Single(), build, compiling(name), data(precision))
    assert replicas.largest_difference(expected, found) <= {"float32": 2e-5, "float64": 1e-12}[precision]


def test_steps_that_are_masked_do_not_count_in_synchronised_statistics(precision):
    noise = np.random.default_rng(0)
    x = noise.normal(size=(4 * BATCH, 5, 3)).astype(precision)
    x[noise.random(x.shape[:2]) < np.linspace(0, 0.8, len(x))[:, None]] = 0
    y = np.eye(3, dtype=precision)[noise.integers(0, 3, len(x))]

    def build():
        keras.utils.set_random_seed(0)
        return keras.Sequential([keras.layers.Masking(input_shape=[5, 3]),
                                 keras.layers.BatchNormalization(momentum=0.5, name="norm"),
                                 keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(3)])

    strategy = Synchronous(num_devices=2, synchronize_batch_norm=True)
    found = replicas.train(strategy, build, compiling("sgd"), replicas.stream(x, y, BATCH))
    expected = replicas.train(Single(), build, compiling("sgd"), replicas.stream(x, y, BATCH))
    assert replicas.largest_difference(expected, found) <= {"float32": 2e-5, "float64": 1e-12}[precision]


def test_synchronised_statistics_do_not_search_the_graph(monkeypatch):
    """TensorFlow's search for variables ends at each sum: else a deep network takes many minutes to trace."""
    visited, search = [], op_selector.get_backward_walk_ops

    def counted(*args, **kwargs):
        found = search(*args, **kwargs)
        visited.append(len(found))
        return found

    monkeypatch.setattr(op_selector, "get_backward_walk_ops", counted)
    strategy = Synchronous(num_devices=2, synchronize_batch_norm=True)
    replicas.train(strategy, lambda: network(norm=True), compiling("sgd"), data(), steps=1)
    assert visited and max(visited) <= 20, visited


def test_plain_batch_norm_is_another_computation():
    build = lambda: network(norm=True)  # noqa: E731
    found = replicas.train(Synchronous(num_devices=2), build, compiling("sgd"), data())
    assert replicas.largest_difference(replicas.train(Single(), build, compiling("sgd"), data()), found) > 1e-3


class BareMean(keras.Model):
    """The mistake that the comparison must catch: a loss that is not divided among replicas."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(per_example(y, self(x, training=True)))
        self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
        return {"loss": loss}


def test_a_bare_mean_is_caught():
    def build():
        model = network()
        return BareMean(model.input, model.output)

    plain = lambda model: model.compile(keras.optimizers.SGD(0.1), LOSS)  # noqa: E731
    expected = replicas.train(Single(), build, plain, data())
    wrong = replicas.train(Synchronous(num_devices=2), build, plain, data())
    assert replicas.largest_difference(expected, wrong) > 0.01
    right = replicas.train(Synchronous(num_devices=2), network, plain, data())
    assert replicas.largest_difference(expected, right) <= 2e-5


@pytest.mark.parametrize("strategy", [lambda: Single(micro_batches=4), lambda: Synchronous(num_devices=2,
                                                                                           micro_batches=2)])
def test_micro_batches_equal_the_whole_batch(precision, strategy):
    build = lambda: network(dropout=0.5)  # noqa: E731
    found = replicas.train(strategy(), build, compiling("sgd"), data(precision))
    expected = replicas.train(Single(), build, compiling("sgd"), data(precision))
    assert replicas.largest_difference(expected, found) <= {"float32": 2e-5, "float64": 1e-12}[precision]


@pytest.mark.usefixtures("mixed_float16")
@pytest.mark.parametrize("scale, overflows", [(2.0**10, False), (2.0**40, True)])
@pytest.mark.parametrize("strategy", [lambda: Single(micro_batches=4), lambda: Synchronous(num_devices=2),
                                      lambda: Synchronous(num_devices=2, micro_batches=2)])
def test_scaled_loss(strategy, scale, overflows):

    def compile_model(model):
        inner = keras.optimizers.SGD(0.1, momentum=0.9)
        model.compile(keras.mixed_precision.LossScaleOptimizer(inner, initial_scale=scale), LOSS)

    models = []

    def build():
        models.append(network(dropout=0.5))
        return models[-1]

    found = replicas.train(strategy(), build, compile_model, data())
    expected = replicas.train(Single(), build, compile_model, data())
    assert replicas.largest_difference(expected, found) <= (0 if overflows else 4e-3)
    scales = [float(model.optimizer.loss_scale) for model in models]
    assert scales == ([scale / 8] * 2 if overflows else [scale] * 2)  # halved at each of the three steps
    moved = replicas.largest_difference_of(*(m.trainable_weights for m in (network(dropout=0.5), found)))
    assert moved == 0 if overflows else moved > 0.1


def test_micro_batches_are_the_parts_one_after_another():
    build = lambda: network(dropout=0.5)  # noqa: E731
    found = replicas.train(Single(micro_batches=2), build, compiling("sgd"), data())
    expected = replicas.halves(build, optimizer("sgd"), per_example, data())
    for a, b in zip(expected.get_weights(), found.get_weights()):
        np.testing.assert_array_equal(a, b)


def with_penalty(model):
    add_weight_penalty(model, l2=1e-2)
    compiling("sgd")(model)


def test_weight_penalty(precision):
    found = replicas.train(Synchronous(num_devices=2), network, with_penalty, data(precision))
    expected = replicas.train(Single(), network, with_penalty, data(precision))
    assert replicas.largest_difference(expected, found) <= {"float32": 2e-5, "float64": 1e-12}[precision]


@pytest.mark.parametrize("hint", ["none", "attention"])
def test_distillation(precision, hint):
    teacher = network()
    distillation = compression.Distillation([teacher], hint=hint)
    build = lambda: distillation.prepare(network(dropout=0.3))  # noqa: E731
    found, expected = (replicas.train(strategy, build, compiling("sgd"), data(precision), finish=distillation.finish)
                       for strategy in (Synchronous(num_devices=2), Single()))
    assert replicas.largest_difference(expected, found) <= {"float32": 2e-5, "float64": 1e-12}[precision]


@pytest.mark.parametrize("make", [lambda: compression.WeightSharing(clusters=5), lambda: compression.LowBit(bits=4),
                                  lambda: compression.Pruning(sparsity=0.5)])
def test_weights_that_pass_through_a_function(precision, make):
    method = make()

    def build():
        model = method.prepare(network(dropout=0.3))
        for layer in model.layers:  # as after pruning for a while; the schedule itself begins with callbacks
            for slot in getattr(getattr(layer, "compression_hook", None), "slots", ()):
                mask = layer.compression_hook.mask(slot)
                if mask is not None:
                    mask.assign(tf.cast(tf.abs(slot.variable) > 0.1, mask.dtype))
        return model

    found, expected = (replicas.train(strategy, build, compiling("sgd"), data(precision), finish=method.finish)
                       for strategy in (Synchronous(num_devices=2), Single()))
    assert replicas.largest_difference(expected, found) <= {"float32": 2e-5, "float64": 1e-12}[precision]
    assert replicas.largest_difference_of(*(m.trainable_weights for m in (network(dropout=0.3), found))) > 1e-2


def test_bad_input():
    with pytest.raises(ValueError, match="batch_size=15 cannot be shared out over 2 replicas. Give a multiple of 2"):
        Synchronous(num_devices=2).check(None, replicas.stream(np.zeros([30, 1]), np.zeros([30, 1]), 15))
    with pytest.raises(ValueError, match="2 replicas × 4 micro-batches"):
        Synchronous(num_devices=2, micro_batches=4).check(
            None, replicas.stream(np.zeros([30, 1]), np.zeros([30, 1]), 12))
    with pytest.raises(ValueError, match="num_devices=0 takes all accelerators"):
        Synchronous()
    with pytest.raises(ValueError, match="num_devices=99: TensorFlow runs already"):
        Synchronous(num_devices=99)
