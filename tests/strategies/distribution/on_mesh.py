"""Training on one mesh, in a process of its own, beside one device: prints JSON for `test_model_parallel.py`.

    python -m tests.strategies.distribution.on_mesh batch:2,model:2
"""

import json
import sys

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tensorflow.experimental import dtensor

import apps  # noqa: F401
from apps.common import fitting, splits, workdir
from layers.embedding import PaddingMask, TokenEmbedding
from layers.regularization import StatelessDropout, decay_kernels_only
from layers.token_loss import TokenCrossentropy
from layers.transformer import EncoderLayer
from strategies import checkpoint, compression
from strategies.distribution import devices
from strategies.distribution.model_parallel import ModelParallel
from strategies.distribution.single import Single
from tests.strategies.distribution import replicas

BATCH = 16
NOISE = np.random.default_rng(0)


def rate():
    return keras.optimizers.schedules.CosineDecay(0.05, 4)  # a variable that is written and read within a step


def compile_model(model):
    optimizer = keras.optimizers.SGD(rate(), momentum=0.9, nesterov=True, weight_decay=0.01, global_clipnorm=1.0)
    decay_kernels_only(optimizer, model)
    model.compile(optimizer, keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])


def stream(shape, dtype="float32", whole=0):
    x = NOISE.integers(0, whole, (4 * BATCH, *shape)) if whole else NOISE.normal(size=(4 * BATCH, *shape)).astype(dtype)
    return replicas.stream(x, np.eye(4, dtype=dtype)[np.arange(len(x)) % 4], BATCH)


def dense():
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input([12])
    for i in range(2):
        x = keras.layers.Dense(16, use_bias=False, name=f"dense{i}")(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(name=f"norm{i}")(x))
    x = StatelessDropout(0.4, seed=1, name="drop")(x)
    return keras.Model(inputs, keras.layers.Dense(4, name="logits")(x))


def attention():
    keras.utils.set_random_seed(0)
    inputs = keras.Input([5], dtype="int32")
    x = keras.layers.Embedding(20, 8, name="embedding")(inputs)
    y = keras.layers.MultiHeadAttention(4, 2, name="attention")(x, x)
    x = keras.layers.LayerNormalization(epsilon=1e-6, name="norm")(keras.layers.Add()([x, y]))
    x = keras.layers.Dense(8, activation="relu", name="inner")(x)
    return keras.Model(inputs, keras.layers.Dense(4, name="logits")(keras.layers.Flatten()(x)))


def convolution():
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input([6, 6, 2])
    for i in range(2):
        x = keras.layers.Conv2D(4, 3, padding="same", use_bias=False, name=f"conv{i}")(x)
        x = keras.layers.BatchNormalization(fused=False, name=f"norm{i}")(x)
        x = keras.layers.ReLU()(x)
    x = keras.layers.MaxPooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(4, name="logits")(keras.layers.GlobalAveragePooling2D()(x)))


def teacher():
    """Of other layers than its student's, with kernels that DTensor has no rules for."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input([12])
    x = keras.layers.Conv2D(6, 3, padding="same")(keras.layers.Reshape([2, 2, 3])(inputs))
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D()(x))
    return keras.Model(inputs, keras.layers.Dense(4)(x))


def encoder():
    keras.utils.set_random_seed(0)
    tokens = keras.Input([None], dtype="int32")
    table = TokenEmbedding(20, 8, name="table")
    x = EncoderLayer(4, 16, 0.1, seed=1, name="layer")(table(tokens), mask=PaddingMask(name="mask")(tokens))
    return keras.Model(tokens, table(x, as_logits=True))


def lengths(mesh):
    """Batches of 5 and 7 tokens in turn, some of them padding, and an evaluation whose last batch is smaller and odd:
    largest difference of weights, and of the evaluation's loss."""
    rows = {n: NOISE.integers(0, 20, (4, BATCH, n)).astype("int32") for n in (5, 7)}

    def make(context, start_step, turn):
        return tf.data.Dataset.from_generator(
            lambda: ((rows[n][i], rows[n][i]) for i in range(start_step, 4) for n in (5, 7)),
            output_signature=(tf.TensorSpec([BATCH, None], tf.int32),) * 2)

    def make_odd(context, start_step, turn):
        return tf.data.Dataset.from_tensor_slices((rows[5][0], rows[5][1])).batch(7)  # 7, 7 and 2

    training = splits.Stream(8 * BATCH, BATCH, make, is_training=True)
    weights, losses = [], []
    for strategy in (Single(), ModelParallel(mesh=mesh)):
        strategy.check(encoder(), training)
        with strategy.scope():
            model = encoder()
            model.compile(keras.optimizers.SGD(0.1, momentum=0.9), TokenCrossentropy(4.0))
            model.optimizer.build(model.trainable_variables)
        strategy.fit(model, training, start_step=0, total_steps=8, verbose=0,
                     validation=splits.Stream(BATCH, 7, make_odd),
                     callbacks=[keras.callbacks.LambdaCallback(
                         on_epoch_end=lambda epoch, logs: losses.append(float(logs["val_loss"])))])
        weights.append(strategy.gather(model))
    return replicas.largest_difference(*weights), abs(losses[0] - losses[1])


def train(build, data, compile_model=compile_model, finish=lambda model: model, **options):
    strategy = ModelParallel(**options)
    strategy.check(build(), data)
    return replicas.train(strategy, build, compile_model, data, finish=finish)


def stock_update(build, data, mesh):
    """The same, with Keras' optimizer as it is: what the comparison must catch."""
    strategy = ModelParallel(mesh=mesh)
    strategy.check(build(), data)
    with strategy.scope():
        model = build()
        compile_model(model)
        model.optimizer._mesh = strategy.mesh
        model.optimizer.build(model.trainable_variables)
    step = tf.function(model.train_step)
    for batch in data().take(3):
        step(tf.nest.map_structure(strategy._put_batch, batch))
    return strategy.gather(model)


def checkpoints(mesh):
    """A checkpoint written on the mesh, read by one device and the other way round: largest difference to training
    through."""
    data, folder = stream([12]), checkpoint.Directory(sys.argv[2])
    strategies = [ModelParallel(mesh=mesh), Single()]
    through = replicas.train(Single(), dense, compile_model, data, steps=4)
    found = []
    for first, second in (strategies, strategies[::-1]):
        models = []
        for strategy in (first, second):
            strategy.check(dense(), data)
            with strategy.scope():
                models.append(dense())
                compile_model(models[-1])
                models[-1].optimizer.build(models[-1].trainable_variables)
        first.fit(models[0], data, start_step=0, total_steps=2, verbose=0)
        folder.save(models[0], 2, {})
        checkpoint.restore(models[1], folder.latest()[0])
        second.fit(models[1], data, start_step=2, total_steps=4, verbose=0)
        found.append(replicas.largest_difference(through, second.gather(models[1])))
    return max(found)


def timed(mesh):
    """What `fitting.measure_speed` finds; the last batch of the validation is smaller and odd."""
    strategy, data = ModelParallel(mesh=mesh), stream([12])
    strategy.check(dense(), data)
    x, y = NOISE.normal(size=(BATCH, 12)).astype("float32"), np.eye(4, dtype="float32")[np.arange(BATCH) % 4]

    def make(total_steps):
        model = dense()
        compile_model(model)
        model.optimizer.build(model.trainable_variables)
        return model

    return fitting.measure_speed(make, strategy, data, splits.Stream(
        BATCH, 7, lambda context, start_step, turn: tf.data.Dataset.from_tensor_slices((x, y)).batch(7)))


def bytes_of_devices(mesh):
    """(bytes of parameters and slots on each device, bytes of all of them) for a large dense model."""
    strategy = ModelParallel(mesh=mesh)

    def build():
        return keras.Sequential([keras.layers.Dense(1024, input_shape=(512,), name="a"),
                                 keras.layers.Dense(1024, name="b"), keras.layers.Dense(4, name="c")])

    strategy.check(build(), stream([512]))
    with strategy.scope():
        model = build()
        compile_model(model)
        model.optimizer.build(model.trainable_variables)
    variables = [*model.weights, *model.optimizer.variables]
    held = np.zeros(4)
    for variable in variables:
        held += [part.numpy().nbytes for part in dtensor.unpack(variable.read_value())]
    return list(held), sum(v.shape.num_elements() * v.dtype.size for v in variables)


def layouts(mesh):
    """{name: axes} of weights and slots as DTensor has them."""
    found = {}
    for build, data in ((dense, stream([12])), (attention, stream([5], whole=20)), (convolution, stream([6, 6, 2]))):
        strategy = ModelParallel(mesh=mesh)
        strategy.check(build(), data)
        with strategy.scope():
            model = build()
            compile_model(model)
            model.optimizer.build(model.trainable_variables)
        for variable in [*model.weights, *model.optimizer.variables]:
            found[f"{build.__name__}/{variable.name}"] = [str(axis) for axis in variable.layout.sharding_specs]
    return found


def main():
    devices.local_devices(4)
    mesh, found = sys.argv[1], {}
    cases = {"dense": (dense, [12], 0), "attention": (attention, [5], 20), "convolution": (convolution, [6, 6, 2], 0)}
    for precision in ("float32", "float64"):
        workdir.set_precision(precision)
        for name, (build, shape, whole) in cases.items():
            if precision == "float32" and name != "dense":
                continue  # float64 says more, and each comparison takes seconds
            data = stream(shape, precision, whole)
            expected = replicas.train(Single(), build, compile_model, data)
            found[f"{precision}/{name}"] = replicas.largest_difference(expected, train(build, data, mesh=mesh))
            if precision == "float64" and name == "attention":
                found["lengths"] = lengths(mesh)
            if precision == "float64" and name == "dense":
                found["stock"] = replicas.largest_difference(expected, stock_update(build, data, mesh))
                found["micro_batches"] = replicas.largest_difference(
                    replicas.train(Single(micro_batches=2), build, compile_model, data),
                    train(build, data, mesh=mesh, micro_batches=2))
    workdir.set_precision("float32")
    data = stream([12])
    distillation, pruning = compression.Distillation([teacher()]), compression.Pruning(sparsity=0.5)
    build = lambda: distillation.prepare(pruning.prepare(dense()))  # noqa: E731
    finish = lambda model: distillation.finish(pruning.finish(model))  # noqa: E731
    expected = replicas.train(Single(), build, compile_model, data, finish=finish)
    found["compressed"] = replicas.largest_difference(expected, train(build, data, finish=finish, mesh=mesh))
    found |= {"checkpoints": checkpoints(mesh), "timed": timed(mesh), "bytes": bytes_of_devices(mesh),
              "layouts": layouts(mesh)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
