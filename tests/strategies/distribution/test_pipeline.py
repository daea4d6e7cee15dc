import collections

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from apps.common import workdir
from layers.regularization import StatelessDropout
from strategies import compression
from strategies.compression.tfmot_quantization import TfmotQuantization
from strategies.distribution import pipeline
from strategies.distribution.pipeline import Pipeline
from strategies.distribution.single import Single
from tests.strategies.compression import kinds
from tests.strategies.distribution import replicas

BATCH = 16
NOISE = np.random.default_rng(0)


def compile_model(model):
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
                  keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])


def images(dtype="float32"):
    x = NOISE.normal(size=(4 * BATCH, 6, 6, 2)).astype(dtype)
    return replicas.stream(x, np.eye(3, dtype=dtype)[np.arange(len(x)) % 3], BATCH)


def residual_network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input([6, 6, 2])
    x = start = keras.layers.Conv2D(8, 3, padding="same", name="a")(inputs)
    for name in "bcd":
        x = keras.layers.Conv2D(8, 3, padding="same", use_bias=False, name=name)(x)
        x = keras.layers.BatchNormalization(name=f"{name}_norm")(x)
        x = keras.layers.Add(name=f"{name}_add")([keras.layers.ReLU(name=f"{name}_relu")(x), start])
    x = StatelessDropout(0.3, seed=2, name="drop")(keras.layers.GlobalAveragePooling2D(name="pool")(x))
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))


def recurrent_network():
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input([6, 12])
    x = keras.layers.LSTM(8, return_sequences=True, name="lower")(x)
    x = keras.layers.GRU(8, return_sequences=True, name="middle")(x)
    x = keras.layers.LSTM(8, name="upper")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))


def train_pipeline(build, data, *, finish=lambda model: model, **options):
    strategy = Pipeline(**options)
    strategy.check(build(), data)
    return replicas.train(strategy, build, compile_model, data, finish=finish), strategy


@pytest.mark.parametrize("num_devices, parts", [(2, 1), pytest.param(4, 1, marks=pytest.mark.conformance), (4, 4)])
def test_stages_equal_one_device(num_devices, parts):
    data = images()
    found, _ = train_pipeline(residual_network, data, num_devices=num_devices, micro_batches=parts)
    expected = replicas.train(Single(micro_batches=parts), residual_network, compile_model, data)
    for a, b in zip(expected.get_weights(), found.get_weights()):
        np.testing.assert_array_equal(a, b)


@pytest.mark.conformance
def test_recurrent_stages_equal_one_device():
    x = NOISE.normal(size=(2 * BATCH, 6, 12)).astype("float32")
    data = replicas.stream(x, np.eye(3, dtype="float32")[np.arange(len(x)) % 3], BATCH)
    found, strategy = train_pipeline(recurrent_network, data, num_devices=3, micro_batches=2)
    expected = replicas.train(Single(micro_batches=2), recurrent_network, compile_model, data)
    assert replicas.largest_difference(expected, found) <= 1e-6
    assert len({strategy.plan[name] for name in ("lower", "middle", "upper")}) == 3


def test_layers_that_tfmot_wraps_keep_their_place():
    data, strategy = images(), Pipeline(num_devices=3)
    plain, _ = kinds.build("conv_bn_relu")
    strategy.check(plain, data)
    with strategy.scope():
        wrapped = TfmotQuantization().prepare(kinds.build("conv_bn_relu")[0])
    for layer in wrapped.layers:
        for weight in layer.weights:
            assert weight.device.endswith(strategy.plan[layer.name]), (layer.name, weight.device)
    assert all(strategy.plan[f"quant_{layer.name}"] == strategy.plan[layer.name] for layer in plain.layers[1:])
    assert len({weight.device for weight in wrapped.weights}) == 3


def test_weights_slots_and_gradients_are_where_the_layer_is():
    data, strategy = images(), Pipeline(num_devices=4, micro_batches=2)
    strategy.check(residual_network(), data)
    with strategy.scope():
        model = residual_network()
        compile_model(model)
        model.optimizer.build(model.trainable_variables)
    for variable in [*model.weights, *model.optimizer.variables[2:]]:
        wanted = strategy.plan[next(part for part in variable.name.split(":")[0].split("/") if part in strategy.plan)]
        assert variable.device.endswith(wanted), (variable.name, variable.device)
    operations = collections.defaultdict(set)
    with strategy._placed(model):
        batch = next(iter(data()))
        graph = tf.function(model.train_step).get_concrete_function(batch).graph
        for operation in graph.get_operations():
            if operation.type.startswith(("Conv2D", "FusedBatchNorm", "MatMul", "AddN")):
                operations[operation.type].add((operation.name, operation.device[-5:]))
    assert len(operations["Conv2DBackpropFilter"]) == 4
    for name, device in set().union(*operations.values()):
        if "AddN" not in name:
            layer = next(part for part in name.split("/") if part in strategy.plan)
            assert device == strategy.plan[layer], (name, device)
        assert device


def test_no_stage_holds_much_of_the_weights():
    data, strategy = images(), Pipeline(num_devices=4)
    build = lambda: keras.Sequential([keras.layers.Flatten(input_shape=(6, 6, 2), name="flat"), *(  # noqa: E731
        keras.layers.Dense(72, name=f"dense{i}") for i in range(12)), keras.layers.Dense(3, name="logits")])
    strategy.check(build(), data)
    with strategy.scope():
        model = build()
        compile_model(model)
        model.optimizer.build(model.trainable_variables)
    held = collections.Counter()
    for variable in [*model.weights, *model.optimizer.variables]:
        held[variable.device] += variable.shape.num_elements() * variable.dtype.size
    assert len(held) == 4
    assert max(held.values()) <= 0.35 * sum(held.values()), held


def test_distillation_and_masks_under_stages():
    data, teacher = images(), residual_network()
    teacher.set_weights([w + 0.1 for w in teacher.get_weights()])
    distillation, pruning = compression.Distillation([teacher]), compression.Pruning(sparsity=0.5)

    def build():
        return distillation.prepare(pruning.prepare(residual_network()))

    def finish(model):
        return distillation.finish(pruning.finish(model))

    found, _ = train_pipeline(build, data, finish=finish, num_devices=3, micro_batches=2)
    expected = replicas.train(Single(micro_batches=2), build, compile_model, data, finish=finish)
    assert replicas.largest_difference(expected, found) <= 1e-6


def two_branches():
    keras.utils.set_random_seed(0)
    inputs = keras.Input([6, 6, 2])
    start = keras.layers.Conv2D(4, 3, name="start")(inputs)
    ends = []
    for name in ("left", "right"):
        x = keras.layers.Conv2D(4, 3, name=f"{name}1")(start)
        ends.append(keras.layers.Conv2D(4, 2, name=f"{name}2")(x))
    x = keras.layers.Concatenate(name="join")(ends)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(keras.layers.Flatten(name="flat")(x)))


def test_branches():
    places = pipeline.branches(two_branches(), 2)
    assert places["left1"] == places["left2"] != places["right1"] == places["right2"]
    assert places["start"] in (places["left1"], places["right1"])
    data = images()
    found, _ = train_pipeline(two_branches, data, num_devices=2, placement="branches")
    expected = replicas.train(Single(), two_branches, compile_model, data)
    assert replicas.largest_difference(expected, found) <= 1e-6


def test_float64():
    workdir.set_precision("float64")
    try:
        data = images("float64")
        found, _ = train_pipeline(residual_network, data, num_devices=4)
        expected = replicas.train(Single(), residual_network, compile_model, data)
        assert replicas.largest_difference(expected, found) <= 1e-12
    finally:
        workdir.set_precision("float32")


def test_bad_input():
    data = images()
    small = keras.Sequential([keras.layers.Flatten(input_shape=(6, 6, 2)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="num_devices=2: .* has 1 layers with weights"):
        Pipeline(num_devices=2).check(small, data)
    with pytest.raises(ValueError, match="no branches to place. Use --placement=stages"):
        Pipeline(num_devices=2, placement="branches").check(small, data)
    with pytest.raises(ValueError, match="places the layers of a functional model"):
        Pipeline(num_devices=2).check(type("Own", (keras.Model,), {})(), data)
    with pytest.raises(ValueError, match="Give a multiple of 3"):
        Pipeline(num_devices=2, micro_batches=3).check(small, data)
    with pytest.raises(ValueError, match="Unknown placement 'rows'.*stages, branches"):
        Pipeline(num_devices=2, placement="rows")
